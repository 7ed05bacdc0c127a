"""The six scripts learn: read from the lines that they print."""

import os
import re
import subprocess
import sys

import pytest

from tests.common import SCRIPTS, on_all, rows, train

# return that the last three of 12 epochs have to reach, see test_returns_rise
THRESHOLD = {"CartPole-v1": 30, "toy_envs:Compass-v0": 3}
NUMBER = r"-?\d+\.\d{3}"
LINE = rf"epoch: +\d+ \t loss: {NUMBER} \t return: {NUMBER} \t ep_len: {NUMBER} \t steps: \d+"


@pytest.mark.parametrize("env", THRESHOLD)
@on_all
def test_returns_rise(n, env, scripts):
    """Every rung soon does much better than chance, with Discrete and with Box actions; it
    prints nothing but a line per epoch, the contract's fields in its order, kl in 4-6 only.

    CartPole: chance earns 22 (its standard error over 300 episodes is below 1). Compass:
    who ignores the observation earns 0 (standard error below 0.5), the best 10. Scripts 1
    to 3 take one step an epoch, here a larger one, so that few epochs do.
    """
    lr = {"lr": 0.02} if n < 4 else {}
    printed, _ = train(scripts[n], env, epochs=12, num_envs=8, **lr)
    line = LINE + (r" \t kl: \d+\.\d{5}" if n >= 4 else "")
    assert all(re.fullmatch(line, text) for text in printed.splitlines())
    assert [row["epoch"] for row in rows(printed)] == [*range(12)]
    returns = [row["return"] for row in rows(printed)]
    assert returns[0] < THRESHOLD[env] < sum(returns[-3:]) / 3


def test_lines_appear_at_once_when_piped():
    """What a pipe holds first is not yet all: Python's own buffer, of 8192 bytes, would keep
    these 50 lines back until the end."""
    flags = ["--epochs", "50", "--num_envs", "1", "--max_ep_len", "9"]
    command = [sys.executable, SCRIPTS[6], *flags]
    env = os.environ | {"PYTHONUNBUFFERED": ""}  # which would do it too
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        first, rest = os.read(process.stdout.fileno(), 8192), process.stdout.read()
    assert len(rows((first + rest).decode())) == 50
    assert rest
