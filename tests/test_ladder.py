"""The ladder itself: what a diff of two neighbours shows, and what the six files share."""

import inspect
import re

import pytest
import torch

from tests.benchmark.readme import changes
from tests.common import SCRIPTS, defaults, definitions, on_all

CAPS = {(1, 2): 10, (2, 3): 45, (3, 4): 28, (4, 5): 2, (4, 6): 10}
NEW = {(1, 2): {"train"}, (2, 3): {"rollout", "reward_to_go", "train"}}
NEW |= {(3, 4): {"policy_loss", "train"}, (4, 5): {"policy_loss"}}
NEW |= {(5, 6): {"policy_loss", "train"}}
FLAGS = {1: "env env_name seed epochs num_envs max_ep_len hidden_sizes lr device"}
FLAGS[1] += " render save"
FLAGS |= {3: "gamma vf_lr train_v_iters", 4: "train_pi_iters", 6: "clip_ratio"}
# what the README tells to copy, and the imports that it needs
IMPORTS = {
    "policy_loss": "import torch",
    "reward_to_go": "",
    "mlp, Policy": "import gymnasium as gym, torch\nfrom torch import nn\n"
    "from torch.distributions import Categorical, Independent, Normal",
    "mlp, Value": "import torch\nfrom torch import nn",
    "rollout": "import numpy as np, torch",
    "make_envs": "import gymnasium as gym",
}


@on_all
def test_help(n, command_line, capsys, monkeypatch):
    """--help has each flag of FLAGS and no other, with the default of train(), whose
    keywords are the same."""
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        command_line(n, "--help")
    told = capsys.readouterr().out
    flags = {flag for m in FLAGS if m <= n for flag in FLAGS[m].split()}
    assert set(re.findall(r"--(\w+)", told)) == flags | {"help"}
    assert defaults(n).keys() == flags - {"env"}
    entries = {x.split()[0].strip("-,"): x.rstrip() for x in told.split("\n  -")[1:]}
    for name, default in defaults(n).items():
        assert entries[name].endswith(f"(default: {default})"), name


@on_all
def test_a_wrong_flag_is_told(n, command_line, capsys):
    """By argparse, before any epoch."""
    with pytest.raises(SystemExit):
        command_line(n, "--epochs", "1.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert "--epochs" in err.splitlines()[-1]


@pytest.mark.parametrize("pair", CAPS, ids=str)
def test_each_rung_changes_few_lines_of_code(pair):
    """Removed and added lines of code between neighbours stay within CAPS: from 4 to 5 a
    single line is replaced."""
    assert 0 < len(changes(*pair)) <= CAPS[pair]


@pytest.mark.parametrize("pair", NEW, ids=str)
def test_shared_definitions_are_copies(pair):
    """Functions and classes of two neighbours come in one order, and each is the same to
    the letter, unless it is what the rung changes; and so are the flags that both have."""
    a, b = map(definitions, pair)
    assert [name for name in a if name in b] == [name for name in b if name in a]
    assert {name for name in a.keys() & b.keys() if a[name] != b[name]} == NEW[pair]
    a, b = ({*re.findall(r"add_argument\(.*", SCRIPTS[n].read_text())} for n in pair)
    assert a
    assert a <= b


def test_shared_flags_have_one_default():
    """A flag that several scripts have means the same number in all of them; those that
    other programs rely on are as they were."""
    shared, fixed = {}, {"env_name": "CartPole-v1", "max_ep_len": 1000, "device": "cpu"}
    for n in SCRIPTS:
        for flag, default in defaults(n).items():
            assert shared.setdefault(flag, default) == default, flag
    assert shared == shared | fixed | {"gamma": 0.99}


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
@pytest.mark.parametrize("n", [1, 6])  # the others' are copies
def test_rollout_and_networks_are_copied_alone(n, env):
    """A copied Policy plays in a copied make_envs' environments, through a copied rollout;
    a copied Value is the plain network."""
    envs = copy(n, "make_envs")(env, 3)
    obs_dim = envs.single_observation_space.shape[0]
    policy = copy(n, "mlp, Policy")(obs_dim, envs.single_action_space, (4,))
    obs, act, *_ = copy(n, "rollout")(envs, policy, 7, "cpu")
    assert policy(obs[0]).log_prob(act[0]).shape == (3,)
    if n >= 3:
        value = copy(n, "mlp, Value")(obs_dim, (4,))
        assert torch.equal(value(obs[0]), value.net(obs[0])[:, 0])
