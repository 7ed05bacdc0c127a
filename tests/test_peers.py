"""The scripts' losses are those of the libraries, run here where they are installed."""

import csv
import math
from importlib.metadata import PackageNotFoundError, version
from unittest import mock

import numpy as np
import pytest
import torch
from torch.distributions import Distribution

from tests.common import same_bits
from tests.peers import compare

COUNT = 5  # batches; compare.py itself takes more
# slips in each script's loss, for (logp, [logp_old,] adv[, eps])
SLIPS = {
    3: [
        lambda logp, adv: -(logp * adv).sum(),
        lambda logp, adv: -(logp * (adv - adv.mean())).mean(),
    ],
    4: [lambda logp, old, adv: -((old - logp).exp() * adv).mean()],
    5: [lambda logp, old, adv: -((logp - old).exp() * logp * adv).mean()],
    6: [
        lambda logp, old, adv, eps: -((logp - old).exp() * adv).mean(),
        lambda logp, old, adv, eps: (
            -((logp - old).exp().clamp(1 - eps, 1 + eps) * adv).mean()
        ),
    ],
}
SLIPS[2] = SLIPS[3]
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture(scope="module", autouse=True)
def validation():
    """Some libraries switch off torch's validation for everybody when imported."""
    yield
    Distribution.set_default_validate_args(True)


@pytest.mark.parametrize("peer", compare.PEERS, ids=lambda x: f"{x.library} {x.called}")
def test_a_library_has_the_loss(peer):
    """The library's own code gives what PEERS says, and a slip is noticed."""
    try:
        version(peer.library)
    except PackageNotFoundError:
        pytest.skip(f"{peer.library} is not installed, see tests/peers")
    found, _ = compare.verdict(peer, COUNT)
    # on another machine the last bits may agree
    assert found == peer.verdict or (peer.verdict, found) == (compare.NEAR, compare.BIT)
    for slip in SLIPS[peer.script] if peer.verdict != compare.OTHER else ():
        assert compare.verdict(peer, COUNT, slip)[0] == compare.OTHER


def sb3_update(policy_loss):
    """Return the gradients of the policy network in one whole update of PPO on its own
    rollout buffer of CartPole-v1, and those of ``policy_loss`` on the same buffer."""
    from stable_baselines3 import PPO

    off = {"ent_coef": 0.0, "normalize_advantage": False, "max_grad_norm": math.inf}
    sizes = {"n_steps": 256, "batch_size": 256, "n_epochs": 1}
    model = PPO("MlpPolicy", "CartPole-v1", learning_rate=0.1, seed=0, **sizes, **off)
    model.set_logger(mock.MagicMock())  # else it makes a folder of logs
    model.learn(256)  # moves the policy, so from here on the ratios are not 1
    np.random.seed(0)
    (data,) = model.rollout_buffer.get(256)
    act = data.actions.flatten()
    _, logp, _ = model.policy.evaluate_actions(data.observations, act)
    loss = policy_loss(logp, data.old_log_prob, data.advantages, model.clip_range(1.0))
    net = [p for name, p in model.policy.named_parameters() if "value" not in name]
    mine = torch.autograd.grad(loss, net)
    np.random.seed(0)  # the buffer hands out its steps in the same order
    model.train()
    return [p.grad for p in net], mine


def test_a_whole_update_of_stable_baselines3(scripts):
    """PPO's update of its policy network is that of script 6's loss, in every bit."""
    pytest.importorskip("stable_baselines3")
    theirs, mine = sb3_update(scripts[6].policy_loss)
    assert theirs and all(x.any() for x in theirs)
    assert all(map(same_bits, theirs, mine))
    for slip in SLIPS[6]:
        assert not all(map(same_bits, *sb3_update(slip)))


def test_the_table_is_that_of_the_comparison():
    """peers.csv has the rows of PEERS, with their verdicts."""
    keys = "library", "called", "script", "equal_to_the_bit"
    with open(compare.TABLE) as file:
        rows = [[row[key] for key in keys] for row in csv.DictReader(file)]
    peers = [[x.library, x.called, str(x.script), x.verdict] for x in compare.PEERS]
    assert rows == peers
