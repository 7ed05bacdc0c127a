"""Each function that people copy works in a module of its own, with the imports told."""

import inspect

import pytest
import torch

from tests.common import definitions, on_all

# what the README tells to copy, and the imports that it needs
IMPORTS = {
    "policy_loss": "import torch",
    "reward_to_go": "",
    "mlp, Policy": "import gymnasium as gym, torch\nfrom torch import nn\n"
    "from torch.distributions import Categorical, Independent, Normal",
    "mlp, Value": "from torch import nn",
    "rollout": "import numpy as np, torch",
    "make_envs": "import gymnasium as gym",
}


def copy(n, names):
    """Return the last of some of script n's functions, from a module with these alone."""
    module = {"__name__": "copied"}
    for source in (IMPORTS[names], *(definitions(n)[x] for x in names.split(", "))):
        exec(source, module)  # noqa: S102 - the repository's own text
    return module[names.split(", ")[-1]]


@on_all
def test_losses_and_returns_are_copied_alone(n):
    """policy_loss gives a scalar for inputs (batch,), reward_to_go new (T, N) for (T, N)."""
    loss = copy(n, "policy_loss")
    arguments = inspect.signature(loss).parameters
    inputs = [0.2 if name == "clip_ratio" else torch.ones(5) for name in arguments]
    assert loss(*inputs).shape == ()
    if n >= 2:
        rew = torch.ones(3, 2)
        ret = copy(n, "reward_to_go")(rew, *[0.5] * (n >= 3))
        assert ret[:, 0].tolist() == ([1.75, 1.5, 1] if n >= 3 else [3, 2, 1])
        assert rew.eq(1).all()


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("n", [1, 6])  # the others' are copies, see test_ladder.py
def test_rollout_and_networks_are_copied_alone(n, env):
    """A copied Policy plays in a copied make_envs' environments, through a copied rollout."""
    envs = copy(n, "make_envs")(env, 3)
    obs_dim = envs.single_observation_space.shape[0]
    policy = copy(n, "mlp, Policy")(obs_dim, envs.single_action_space, (4,))
    obs, act, *_ = copy(n, "rollout")(envs, policy, 7, "cpu")
    assert policy(obs[0]).log_prob(act[0]).shape == (3,)
    if n >= 3:
        assert copy(n, "mlp, Value")(obs_dim, (4,))(obs[0]).shape == (3,)
