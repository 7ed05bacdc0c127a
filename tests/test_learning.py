"""The six scripts learn: read from the lines that they print."""

import re

import pytest

from tests.common import on_all, rows, train
from tests.toy_envs import Compass, toy

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


def far_from_0(script, scale, monkeypatch):
    """Return the mean return over 20 epochs, less the offset and in units of ``scale``, of
    a task of one step with returns of (-101 to -99) * scale."""
    rollout, returns = script.rollout, []

    def watch(*args):
        batch = rollout(*args)
        returns.append(batch[2].mean().item())  # rew, which the printed line rounds
        return batch

    env = toy(Compass, offset=-100, scale=scale, length=1)
    with monkeypatch.context() as patch:
        patch.setattr(script, "rollout", watch)
        train(script, env, epochs=20, num_envs=50)
    return sum(ret / scale + 100 for ret in returns) / 20


@pytest.mark.parametrize("n", [3, 6])
def test_returns_of_any_size_are_learned(n, scripts, monkeypatch):
    """Rewards times 0.0001, 1 and 100, far from 0, are learned alike, as V takes its units
    from the first returns; with V the plain network they are not."""
    returns = [far_from_0(scripts[n], scale, monkeypatch) for scale in (1e-4, 1, 100)]
    assert returns == pytest.approx([returns[0]] * 3, abs=0.05)
    plain = lambda value, obs: value.net(obs).squeeze(-1)
    monkeypatch.setattr(scripts[n].Value, "forward", plain)
    assert far_from_0(scripts[n], 100, monkeypatch) < min(returns) / 2
