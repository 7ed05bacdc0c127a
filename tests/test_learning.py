"""The six scripts learn: read from the lines that they print."""

import os
import re
import subprocess
import sys

import pytest

from tests.common import SCRIPTS, on_all, rows, same, train
from tests.toy_envs import Compass, Sampled, toy

# return that the last three of 12 epochs have to reach, see test_returns_rise
THRESHOLD = {"CartPole-v1": 30, "tests.toy_envs:Compass-v0": 3}
NUMBER = r"-?\d+\.\d{3}"
LINE = rf"epoch: +\d+ \t loss: {NUMBER} \t return: {NUMBER} \t ep_len: {NUMBER} \t steps: \d+"


@pytest.mark.parametrize("env", THRESHOLD)
@on_all
def test_returns_rise(n, env, scripts):
    """Every rung soon does much better than chance, with Discrete and with Box actions; it
    prints nothing but a line per epoch, the contract's fields in its order.

    CartPole: chance earns 22 (its standard error over 300 episodes is below 1). Compass:
    who ignores the observation earns 0 (standard error below 0.5), the best 10.
    """
    lr = 0.02 if n <= 3 else 0.005  # they take one step an epoch
    printed, _ = train(scripts[n], env, epochs=12, num_envs=8, lr=lr)
    assert all(re.fullmatch(LINE, text) for text in printed.splitlines())
    assert [row["epoch"] for row in rows(printed)] == [*range(12)]
    returns = [row["return"] for row in rows(printed)]
    assert returns[0] < THRESHOLD[env] < sum(returns[-3:]) / 3


def test_6_learns_cartpole_with_its_defaults(scripts):
    """Above 400 of 500 after 25 epochs."""
    printed, _ = train(scripts[6], "CartPole-v1", epochs=25)
    assert sum(row["return"] for row in rows(printed)[-5:]) / 5 > 400


def test_units_and_offset_of_the_bounds_do_not_matter(scripts):
    """One task with Box actions in other units is learned in the same way."""
    returns = []
    for low, high in (-1, 1), (0, 100), (10, 20), (-0.01, 0.01):
        env = toy(Compass, low=low, high=high)
        printed, _ = train(scripts[6], env, epochs=5, num_envs=4)
        returns.append([row["return"] for row in rows(printed)])
        assert returns[-1] == pytest.approx(returns[0], rel=1e-3, abs=2e-3)
    assert len({*returns[0]}) == 5


def far_from_0(script, scale):
    """Return the mean return over 20 epochs, less the offset and in units of ``scale``, of
    a task of one step with returns of (-101 to -99) * scale."""
    env = toy(Compass, offset=-100, scale=scale, length=1)
    printed, _ = train(script, env, epochs=20, num_envs=50)
    return sum(row["return"] / scale + 100 for row in rows(printed)) / 20


@pytest.mark.parametrize("n", [3, 6])
def test_returns_of_any_size_are_learned(n, scripts, monkeypatch):
    """Rewards times 0.01, 1 and 100, far from 0, are learned alike, as V takes its units
    from the first returns; with V the plain network they are not."""
    returns = [far_from_0(scripts[n], scale) for scale in (0.01, 1, 100)]
    assert returns == pytest.approx([returns[0]] * 3, abs=0.05)
    plain = lambda value, obs: value.net(obs).squeeze(-1)
    monkeypatch.setattr(scripts[n].Value, "forward", plain)
    assert far_from_0(scripts[n], 100) < min(returns) / 2


@pytest.mark.parametrize("num_envs", [1, 9])
@pytest.mark.parametrize("pay", [0.0, 0.1])
@pytest.mark.parametrize("n", [3, 6])
def test_equal_returns_leave_v_as_it_is(n, pay, num_envs, scripts, monkeypatch):
    """Where the first epoch's returns are all the same, as without rewards or in a batch of
    one step, V stays the plain network, and the run is the same to the bit."""
    env, flags = toy(Sampled, pay=pay, length=1), {"num_envs": num_envs, "epochs": 3}
    weights = train(scripts[n], env, **flags)[1]
    plain = lambda value, obs: value.net(obs).squeeze(-1)
    monkeypatch.setattr(scripts[n].Value, "forward", plain)
    assert same(train(scripts[n], env, **flags)[1], weights)


def test_lines_appear_at_once_when_piped(tmp_path):
    """What a pipe holds first is not yet all: Python's own buffer, of 8192 bytes, would keep
    these 50 lines back until the end. The environment is from a module beside the scripts."""
    flags = ["--epochs", "50", "--num_envs", "1", "--env", "tests.toy_envs:Compass-v0"]
    options = {"stdout": subprocess.PIPE, "cwd": tmp_path}
    options["env"] = os.environ | {"PYTHONUNBUFFERED": ""}  # which would do it too
    with subprocess.Popen([sys.executable, SCRIPTS[6], *flags], **options) as process:
        first, rest = os.read(process.stdout.fileno(), 8192), process.stdout.read()
    assert len(rows((first + rest).decode())) == 50
    assert rest
