"""What a reader tries on day one: other environments, bad flags, --render, CUDA."""

import os
import re
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from common import SCRIPTS, defaults, rows, run, same
from conftest import on_all
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Tuple

SMALL = {"epochs": 2, "num_envs": 2, "max_ep_len": 8}
EXTRAS = {"LunarLander": "Box2D", "Inverted": "mujoco", "Hopper": "mujoco"}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Toy(gym.Env):
    """Plays 3 random steps with the given actions; counts the steps that are watched."""

    metadata: ClassVar = {"render_modes": ["human"], "render_fps": 1000}
    watched: ClassVar = []
    observation_space = Box(-1, 1, (3,))

    def __init__(self, act=None, render_mode=None):
        self.action_space = Discrete(2) if act is None else act
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        """Start an episode; observations come from the seeded stream."""
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.left = 3
        if self.render_mode:
            self.watched.append(0)
        return self.observation_space.sample(), {}

    def step(self, action):
        """Play a step, reward 1; an action outside the space is an error."""
        assert self.action_space.contains(action), f"{action!r} reached the environment"
        self.left -= 1
        if self.render_mode:
            self.watched[-1] += 1
        return self.observation_space.sample(), 1.0, self.left == 0, False, {}


@pytest.fixture
def toy(monkeypatch):
    """Register Toy with the given action space; return its id."""
    gym.register("Toy-v0", Toy)
    monkeypatch.setattr(Toy, "watched", [])

    def make(act=None):
        gym.registry["Toy-v0"].kwargs = {"act": act}
        return "Toy-v0"

    yield make
    del gym.registry["Toy-v0"]


@pytest.fixture
def refusal(scripts, monkeypatch):
    """Call train() of script n, which must fail before its first rollout: return how."""

    def rollout(*_):
        pytest.fail("training started")

    def call(n, **flags):
        monkeypatch.setattr(scripts[n], "rollout", rollout)
        with pytest.raises(Exception) as error:
            scripts[n].train(**flags)
        return str(error.value)

    return call


def alike(policy, other):
    """Tell whether two policies have the same weights to the bit."""
    return same(policy.state_dict(), other.state_dict())


# environments and spaces


@on_all
@pytest.mark.parametrize(
    "env",
    [
        *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
        *("Pendulum-v1", "FrozenLake-v1", "Taxi-v4", "Blackjack-v1"),
        *("LunarLander-v3", "LunarLanderContinuous-v3", "InvertedPendulum-v5"),
        *("InvertedDoublePendulum-v5", "Hopper-v5", "CliffWalking-v1"),
    ],
)
def test_an_environment_trains(scripts, capsys, env, n):
    """Each environment trains unchanged, finite and cut at max_ep_len, CliffWalking-v1,
    which has no time limit of its own, too; the policy acts in its spaces."""
    for name, module in EXTRAS.items():
        if env.startswith(name):
            pytest.importorskip(module)
    policy = scripts[n].train(env, **SMALL)
    printed = rows(capsys.readouterr().out)
    assert [row["epoch"] for row in printed] == [0, 1]
    assert all(np.isfinite([*row.values()]).all() for row in printed)
    assert all(1 <= row["ep_len"] <= SMALL["max_ep_len"] for row in printed)
    one = gym.make(env)
    pi = policy(torch.zeros(5, gym.spaces.flatdim(one.observation_space)))
    act = pi.sample()
    assert isinstance(pi, torch.distributions.Distribution)
    assert act.shape == (5, *one.action_space.shape)
    assert pi.log_prob(act).shape == (5,)


@pytest.mark.parametrize(
    "act", [Discrete(1), Box(-0.1, 0.1, (3,)), Box(0, 1, (2,), np.float64)], ids=str
)
def test_an_action_space_is_served(scripts, toy, act):
    """Discrete and Box actions train; Toy would refuse one from outside its space."""
    for script in scripts.values():
        script.train(toy(act), **SMALL)


@pytest.mark.parametrize(
    "act",
    [
        *(MultiDiscrete([2, 3]), MultiBinary(3), Tuple([Discrete(2)])),
        *(Discrete(3, start=1), Box(-1, 1, (2, 3)), Box(0, 9, (2,), np.int64)),
    ],
    ids=str,
)
def test_an_action_space_is_refused(refusal, toy, act):
    """Other actions: one sentence with the flag, the space and what is served."""
    for n in SCRIPTS:
        message = refusal(n, env_name=toy(act))
        assert message.startswith("--env Toy-v0: ")
        assert type(act).__name__ in message
        assert "Discrete(n)" in message and "Box (n,)" in message


# bad input

COUNTS = ("epochs", "num_envs", "max_ep_len", "train_v_iters", "train_pi_iters")
BAD = {flag: (0, -1) for flag in COUNTS} | {"gamma": (-0.1, 1.1, float("nan"))}
BAD |= {"clip_ratio": (0, -0.2, float("nan")), "hidden_sizes": ([0], [8, -1])}


@on_all
def test_a_number_out_of_range(refusal, capsys, n):
    """A sentence that begins with the flag and its value; gamma 0 and 1 are in range."""
    for flag in BAD.keys() & defaults(n):
        for x in BAD[flag]:
            assert refusal(n, **{flag: x}).startswith(f"--{flag} {x}: ")
    for gamma in (0, 1) if n >= 3 else ():
        assert refusal(n, gamma=gamma, num_envs=0).startswith("--num_envs")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("n", "words", "last_line"),
    [
        (1, "--epochs 0", "^AssertionError: --epochs 0: use 1 or more$"),
        (3, "--gamma 1.1", "^AssertionError: --gamma 1.1: use a number from 0 to 1$"),
        (6, "--save /", "^AssertionError: --save /: "),
        (2, "--env CartPool-v1", "CartPool.*CartPole"),
        (1, "--env Taxi-v3", "use `Taxi-v4`"),
        (5, "--device nope", "cpu, cuda.*nope"),
        (4, "--lr nan", "learning rate: nan"),
        (1, "--seed -1", "Seed.*-1"),
        (6, "--train_pi_iters x", "argument --train_pi_iters: invalid int value"),
        (1, "--no_such_flag", "unrecognized arguments: --no_such_flag"),
    ],
)
def test_a_bad_flag_ends_the_process(n, words, last_line):
    """No epoch, a non-zero exit status, a last line with the value and what is wrong."""
    result = run(n, *words.split())
    assert result.returncode != 0
    assert result.stdout == ""
    assert re.search(last_line, result.stderr.splitlines()[-1])


# render


@on_all
def test_render_changes_nothing(scripts, monkeypatch, capsys, n):
    """With a window, the same printed lines and the same weights to the bit."""
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    flags = {"epochs": 3, "num_envs": 2, "max_ep_len": 4}
    policy = scripts[n].train("Pendulum-v1", **flags)
    printed = capsys.readouterr().out
    assert alike(policy, scripts[n].train("Pendulum-v1", **flags, render=True))
    assert capsys.readouterr().out == printed


@on_all
@pytest.mark.parametrize(("max_ep_len", "shown"), [(8, 3), (2, 2)])
def test_render_shows_an_episode_per_epoch(command_line, toy, max_ep_len, shown, n):
    """A separate environment shows one episode per epoch; without the flag, none."""
    flags = ["--env", toy(Box(-1, 1, (2,))), "--epochs", 4, "--num_envs", 3]
    command_line(n, *flags, "--max_ep_len", max_ep_len)
    assert Toy.watched == []
    command_line(n, *flags, "--max_ep_len", max_ep_len, "--render")
    assert Toy.watched == [shown] * 4


# the same run again; test_policies.py holds it for command lines


@on_all
def test_a_run_leaves_no_trace_on_the_next(scripts, toy, capsys, n):
    """The same run after another one, a watched one even, is the same to the bit."""
    policy = scripts[n].train("Acrobot-v1", **SMALL, seed=7)
    printed = capsys.readouterr().out
    scripts[n].train(toy(Box(-1, 1, (2,))), **SMALL, seed=8, render=True)
    capsys.readouterr()
    assert alike(policy, scripts[n].train("Acrobot-v1", **SMALL, seed=7))
    assert capsys.readouterr().out == printed


@on_all
def test_no_deprecation_warning(n, tmp_path):
    """With such warnings turned into errors, a run prints nothing on standard error."""
    kinds = ("Deprecation", "PendingDeprecation", "Future")
    strict = ",".join(f"error::{kind}Warning" for kind in kinds)
    flags = [
        "--env",
        "Pendulum-v1",
        "--epochs",
        "2",
        "--num_envs",
        "2",
        "--max_ep_len",
        "8",
        "--save",
    ]
    env = os.environ | {"PYTHONWARNINGS": strict}
    result = run(n, *flags, tmp_path / "policy.pt", env=env)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(rows(result.stdout)) == 2


# CUDA


@needs_cuda
@on_all
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_cuda_trains(scripts, tmp_path, capsys, env, n):
    """--device cuda trains there, watched too; its file loads into a CPU policy."""
    path = tmp_path / "policy.pt"
    policy = scripts[n].train(env, **SMALL, device="cuda", save=str(path))
    assert all(p.is_cuda for p in policy.parameters())
    assert len(rows(capsys.readouterr().out)) == SMALL["epochs"]
    one = gym.make(env)
    dim = gym.spaces.flatdim(one.observation_space)
    loaded = scripts[n].Policy(dim, one.action_space, defaults(n)["hidden_sizes"])
    loaded.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    assert alike(loaded, policy.cpu())


@needs_cuda
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_cuda_4_is_5(scripts, env):
    """On the GPU too, 4 and 5 train the same weights to the bit."""
    flags = {"epochs": 5, "num_envs": 8, "device": "cuda"}
    assert alike(*(scripts[n].train(env, **flags) for n in (4, 5)))


@needs_cuda
@on_all
def test_cuda_render_changes_nothing(scripts, toy, n):
    """Watching leaves the GPU's random stream alone too."""
    flags = {"env_name": toy(Box(-1, 1, (2,))), "device": "cuda", **SMALL}
    assert alike(scripts[n].train(**flags), scripts[n].train(**flags, render=True))
