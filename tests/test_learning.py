"""The six scripts learn, run as a user runs them: read from the lines that they print."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from common import SCRIPTS, defaults, rows, run, two_at_a_time
from conftest import on_all

EPOCHS = 20
# return that the last three epochs have to reach, see test_returns_rise
THRESHOLD = {"CartPole-v1": 30, "toy_envs:Compass-v0": 3}
NUMBER = r"-?\d+\.\d{3}"
LINE = rf"epoch: +\d+ \t loss: {NUMBER} \t return: {NUMBER} \t ep_len: {NUMBER} \t steps: \d+"
ENV = os.environ | {
    "PYTHONPATH": str(Path(__file__).parent),  # for Gymnasium to find toy_envs
    "PYTHONUNBUFFERED": "",  # lines must appear at once without its help
}


@pytest.fixture(scope="module")
def runs():
    """Every script on both environments, two at a time; 1 to 3, which take one step an
    epoch, with a larger one, so that few epochs do."""
    jobs = [(n, env) for n in SCRIPTS for env in THRESHOLD]

    def job(n, env):
        flags = ["--env", env, "--epochs", EPOCHS] + ["--lr", 0.02] * (n < 4)
        return run(n, *flags, env=ENV)

    return two_at_a_time(job, jobs)


@pytest.mark.parametrize("env", THRESHOLD)
@on_all
def test_returns_rise(n, env, runs):
    """Every rung soon does much better than chance, with Discrete and with Box actions.

    CartPole: chance earns 22 (its standard error over 300 episodes is below 1). Compass:
    who ignores the observation earns 0 (standard error below 0.5), the best 10.
    """
    returns = [row["return"] for row in rows(runs[n, env].stdout)]
    assert returns[0] < THRESHOLD[env] < sum(returns[-3:]) / 3


@pytest.mark.parametrize("env", THRESHOLD)
@on_all
def test_output_format(n, env, runs):
    """Nothing but one line per epoch: the contract's fields in its order, kl in 4-6 only."""
    result, line = runs[n, env], LINE + (r" \t kl: \d+\.\d{5}" if n >= 4 else "")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert all(re.fullmatch(line, text) for text in lines)
    assert [row["epoch"] for row in rows(result.stdout)] == [*range(EPOCHS)]


@on_all
def test_fields_tell_of_what_happened(n, runs):
    """On CartPole the return is the length, and steps counts as far as the longest episode.

    On Compass every episode is 10 steps long, so steps counts 10 num_envs an epoch.
    """
    num_envs = defaults(n)["num_envs"]
    lines = rows(runs[n, "CartPole-v1"].stdout)
    taken = [b["steps"] - a["steps"] for a, b in pairwise([{"steps": 0}, *lines])]
    for row, new in zip(lines, taken, strict=True):
        assert row["return"] == row["ep_len"]
        assert new % num_envs == 0 and row["ep_len"] <= new / num_envs <= 500
    lines = rows(runs[n, "toy_envs:Compass-v0"].stdout)
    total = [10 * num_envs * (i + 1) for i in range(EPOCHS)]
    assert [row["steps"] for row in lines] == total
    assert {row["ep_len"] for row in lines} == {10}


@pytest.mark.parametrize("n", [1, 6])
def test_lines_appear_at_once_when_piped(n):
    """A pipe holds whole lines at any time: Python's own buffer, of 8192 bytes, would let
    them through in pieces that break off in the middle of a line."""
    flags = ["--epochs", "1000000", "--num_envs", "1", "--max_ep_len", "1"]
    command = [sys.executable, str(SCRIPTS[n]), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENV) as process:
        try:
            pieces = [os.read(process.stdout.fileno(), 10**6) for _ in range(3)]
        finally:
            process.kill()
    assert pieces[0].startswith(b"epoch:   0 ")
    assert all(piece.endswith(b"\n") for piece in pieces)
