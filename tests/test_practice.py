"""What a reader tries on day one: other environments, bad flags, --render, CUDA."""

import os
import re
import sys
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import SCRIPTS, defaults, on_all, rows, run, same
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, Sequence, Tuple

NAN, INF = float("nan"), float("inf")
SMALL = {"epochs": 2, "num_envs": 2, "max_ep_len": 8}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Toy(gym.Env):
    """Plays 3 random steps in the given spaces; counts the steps that are watched."""

    metadata: ClassVar = {"render_modes": ["human"], "render_fps": 1000}
    watched: ClassVar = []

    def __init__(self, obs=None, act=None, render_mode=None):
        self.observation_space = Box(-1, 1, (3,)) if obs is None else obs
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
    """Register Toy with the given spaces; return its id."""
    gym.register("Toy-v0", Toy)
    monkeypatch.setattr(Toy, "watched", [])

    def make(**spaces):
        gym.registry["Toy-v0"].kwargs = spaces
        return "Toy-v0"

    yield make
    del gym.registry["Toy-v0"]


class Trained(Exception):
    """Raised where training would start, or has ended."""


@pytest.fixture
def refusal(scripts, monkeypatch):
    """Call train() of script n: return how it refused, or None if it would train."""

    def rollout(*_):
        raise Trained

    def call(n, **flags):
        monkeypatch.setattr(scripts[n], "rollout", rollout)
        with pytest.raises(Exception) as error:
            scripts[n].train(**flags)
            raise Trained
        return None if error.type is Trained else str(error.value)

    return call


def alike(policy, other):
    """Tell whether two policies have the same weights to the bit."""
    return same(policy.state_dict(), other.state_dict())


# environments


@on_all
@pytest.mark.parametrize(
    "env",
    [
        *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"),
        *("MountainCarContinuous-v0", "FrozenLake-v1", "Taxi-v4", "Blackjack-v1"),
        *("CliffWalking-v1", "LunarLander-v3", "LunarLanderContinuous-v3"),
        "InvertedPendulum-v5",
    ],
)
def test_an_environment_trains(scripts, capsys, env, n):
    """Each environment trains unchanged: finite numbers, a policy for its spaces."""
    for name, module in {"LunarLander": "Box2D", "Inverted": "mujoco"}.items():
        if env.startswith(name):
            pytest.importorskip(module)
    policy = scripts[n].train(env, **SMALL)
    assert isinstance(policy, torch.nn.Module)
    printed = rows(capsys.readouterr().out)
    assert [row["epoch"] for row in printed] == [0, 1]
    assert all(np.isfinite([*row.values()]).all() for row in printed)
    assert all(1 <= row["ep_len"] <= SMALL["max_ep_len"] for row in printed)
    one = gym.make(env)
    pi = policy(torch.zeros(5, gym.spaces.flatdim(one.observation_space)))
    assert isinstance(pi, torch.distributions.Distribution)
    act = pi.sample()
    assert act.shape == (5, *one.action_space.shape)
    assert pi.log_prob(act).shape == (5,)


@on_all
def test_max_ep_len_ends_what_has_no_time_limit(scripts, capsys, n):
    """CliffWalking-v1 has no time limit of its own; --max_ep_len ends its episodes."""
    assert gym.spec("CliffWalking-v1").max_episode_steps is None
    scripts[n].train("CliffWalking-v1", epochs=1, num_envs=2, max_ep_len=4)
    (row,) = rows(capsys.readouterr().out)
    assert (row["ep_len"], row["steps"]) == (4, 8)  # its goal is 13 steps away


# spaces


@pytest.mark.parametrize(
    "obs",
    [
        Discrete(5, start=2),
        gym.spaces.MultiDiscrete([2, 3]),
        MultiBinary((2, 2)),
        Box(-1, 1, ()),
        Box(0, 255, (4, 4, 3), np.uint8),
        Box(-5, 5, (2,), np.int64),
        Box(-1, 1, (2, 2), np.float64),
        gym.spaces.Text(4),
        gym.spaces.OneOf([Discrete(2), Box(-1, 1, (2,))]),
        Tuple([Discrete(2), Box(-1, 1, (2, 2))]),
        Dict(a=Box(-1, 1, (2,)), b=Dict(c=Tuple([Discrete(3), MultiBinary(2)]))),
    ],
    ids=str,
)
def test_an_observation_space_is_served(scripts, toy, obs):
    """Observations of any fixed size train; the policy reads what flatten() gives."""
    flat = torch.as_tensor(gym.spaces.flatten(obs, obs.sample())).float()
    for script in scripts.values():
        policy = script.train(toy(obs=obs), **SMALL)
        assert policy(flat.reshape(1, -1)).sample().shape == (1,)


@pytest.mark.parametrize(
    "act",
    [
        *(Discrete(1), Discrete(7), Box(-0.1, 0.1, (2,)), Box(-INF, INF, (1,))),
        Box(0, 1, (2,), np.float64),
    ],
    ids=str,
)
def test_an_action_space_is_served(scripts, toy, capsys, act):
    """Discrete and Box actions train; Toy would refuse one from outside its space."""
    for script in scripts.values():
        script.train(toy(act=act), **SMALL)
        printed = rows(capsys.readouterr().out)
        assert [row["return"] for row in printed] == [3, 3]


@pytest.mark.parametrize(
    "act",
    [
        *(gym.spaces.MultiDiscrete([2, 3]), MultiBinary(3), Discrete(3, start=1)),
        *(Discrete(3, start=-1), Box(-1, 1, ()), Box(-1, 1, (2, 3))),
        *(Box(0, 9, (2,), np.int64), Box(0, 255, (3,), np.uint8)),
        *(
            Dict(a=Discrete(2)),
            Tuple([Discrete(2)]),
            Sequence(Discrete(2)),
            gym.spaces.Text(4),
        ),
    ],
    ids=str,
)
def test_an_action_space_is_refused(refusal, toy, act):
    """Other actions: one sentence with the space and with what is supported."""
    for n in SCRIPTS:
        message = refusal(n, env_name=toy(act=act)) or "trained"
        assert message.startswith(str(act))
        supported = message.removeprefix(str(act))
        assert "Discrete" in supported and "Box" in supported


@pytest.mark.parametrize(
    "obs",
    [
        Sequence(Discrete(2)),
        Graph(Box(-1, 1, (2,)), None),
        Dict(a=Sequence(Box(-1, 1, (2,)))),
        Tuple([Discrete(2), Graph(Box(-1, 1, (2,)), Discrete(3))]),
    ],
    ids=str,
)
def test_an_observation_space_is_refused(refusal, toy, obs):
    """Observations of no fixed size: Gymnasium names the space and what is wrong."""
    for n in SCRIPTS:
        message = refusal(n, env_name=toy(obs=obs)) or "trained"
        assert str(obs) in message or f"{type(obs).__name__} Space" in message
        assert "flatten" in message


# bad input

COUNTS = ("epochs", "num_envs", "max_ep_len", "train_v_iters", "train_pi_iters")
POSITIVE = (*COUNTS, "lr", "vf_lr", "clip_ratio")
RANGE = {flag: (0, -1, NAN, INF, -INF, 1e39) for flag in POSITIVE}
RANGE |= {"gamma": (-0.1, 1.1, NAN, INF, -INF), "hidden_sizes": (0, -1)}
RANGE |= {"seed": (-1, 2**64)} | {flag: (*RANGE[flag], 1.5) for flag in COUNTS}
for flag in (*POSITIVE, "seed", "gamma"):
    RANGE[flag] += ("0.5", None, True)  # keyword arguments that are no numbers


def bad_flags(n, values):
    """Return (flag, value, keyword arguments) of script n for each bad value."""
    sizes = {"hidden_sizes": lambda x: (8, x)}  # one bad size among good ones
    return [
        (flag, x, {flag: sizes.get(flag, lambda x: x)(x)})
        for flag in defaults(n)
        for x in values.get(flag, ())
    ]


@on_all
def test_a_number_out_of_range(refusal, capsys, n):
    """Zero, negative, NaN, infinite, too large: the message has the flag or value."""
    told = [(flag, x, refusal(n, **bad)) for flag, x, bad in bad_flags(n, RANGE)]
    others = {"env_name", "render", "device", "save"}
    assert {flag for flag, *_ in told} == defaults(n).keys() - others
    riddles = [
        (flag, x, message)
        for flag, x, message in told
        if message is None or not (flag in message.lower() or str(x) in message)
    ]
    assert riddles == []
    assert capsys.readouterr().out == ""


@on_all
@pytest.mark.parametrize("wrap", [list, tuple, np.array, torch.tensor])
def test_a_list_for_one_number(refusal, capsys, n, wrap):
    """The default in a list, tuple, array or tensor: a sentence names the flag."""
    plain = {k: v for k, v in defaults(n).items() if type(v) in (int, float)}
    for flag, x in plain.items():
        assert (refusal(n, **{flag: wrap([x])}) or "trained").startswith(f"--{flag} ")
    assert capsys.readouterr().out == ""


@on_all
def test_hidden_sizes_of_another_type(refusal, n):
    """One number, no number, fractions, words, nested lists: a sentence names it."""
    for x in (16, 2.5, None, "16", True, [2.5], ["8"], [None], [[8]], [2**63], []):
        told = refusal(n, hidden_sizes=x) or "trained"
        assert told.startswith("--hidden_sizes "), x
    for x in ([8], (8, 4), np.array([8])):
        assert refusal(n, hidden_sizes=x) is None


@on_all
def test_the_last_good_values(refusal, n):
    """The largest seed that PyTorch takes trains, and so do gamma 0 and 1."""
    assert refusal(n, seed=2**64 - 1) is None
    for gamma in (0, 1) if n >= 3 else ():
        assert refusal(n, gamma=gamma) is None


@on_all
def test_a_value_of_another_type(refusal, n):
    """A bad number of NumPy's or PyTorch's, or no string: no training starts."""
    bad = np.int64(-1), np.float32(NAN), np.float64(INF), torch.tensor(-1.0)
    values = {flag: bad for flag in (*RANGE, "env_name", "save")}
    values |= {"device": ("x", 0, np.int64(-1)), "env_name": ("x", None)}
    values |= {"save": (None, 3, True, b"x")}
    told = [(flag, x, refusal(n, **flags)) for flag, x, flags in bad_flags(n, values)]
    assert [(flag, x) for flag, x, message in told if message is None] == []


@on_all
def test_a_word_that_argparse_refuses(command_line, capsys, n):
    """argparse names each flag that got a word, a fraction, nothing, or is unknown."""
    numbers = {k: v for k, v in defaults(n).items() if type(v) in (int, float)}
    bad = [(f"--{flag}", "x") for flag in numbers] + [
        (f"--{flag}",) for flag in numbers
    ]
    bad += [(f"--{flag}", "1.5") for flag, x in numbers.items() if type(x) is int]
    bad += [("--hidden_sizes",), ("--hidden_sizes", "8", "x"), ("--no_such_flag",)]
    for words in bad:
        with pytest.raises(SystemExit) as stop:
            command_line(n, *words)
        printed = capsys.readouterr()
        assert stop.value.code == 2
        assert words[0] in printed.err.splitlines()[-1]
        assert printed.out == ""


@pytest.mark.parametrize(
    ("n", "words", "last_line"),
    [
        (1, "--env Taxi-v3", "use `Taxi-v4`"),
        (2, "--env CartPool-v1", "CartPool.*CartPole"),
        (3, "--gamma 1.1", "--gamma 1.1.*0 to 1"),
        (4, "--lr nan", "--lr nan: must be > 0, < 1e37"),
        (5, "--device nope", "cpu, cuda.*nope"),
        (6, "--clip_ratio -0.2", "--clip_ratio -0.2: must be > 0, < 1e37"),
        (1, "--seed -1", "Seed.*-1"),
    ],
)
def test_a_bad_flag_ends_the_process(n, words, last_line):
    """No epoch, a non-zero exit status, a last line with the flag and the way out."""
    result = run(n, *words.split())
    assert result.returncode != 0
    assert result.stdout == ""
    assert re.search(last_line, result.stderr.splitlines()[-1])


@on_all
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_an_unknown_environment(refusal, n):
    """An unknown or deprecated id: Gymnasium names it, and the one to use instead."""
    words = {
        "Taxi-v3": "use `Taxi-v4`",
        "LunarLander-v2": "use `LunarLander-v3`",
        "CartPole-v9": "v9.*v1",
        "cartpole-v1": "cartpole.*CartPole",
        "NoSuch-v0": "NoSuch",
        "ALE/Pong-v5": "ALE",
        "no_such_module:Env-v0": "no_such_module",
        "": "Malformed",
    }
    for env, said in words.items():
        assert re.search(said, refusal(n, env_name=env) or "trained"), env


@on_all
def test_an_unknown_device(refusal, n):
    """PyTorch names the device it does not know, and the CUDA that is not there."""
    absent = f"cuda:{torch.cuda.device_count()}"
    words = {"nope": "nope", "": "empty", "cpu,cuda": "cpu,cuda", absent: "CUDA|NVIDIA"}
    for device, said in words.items():
        assert re.search(said, refusal(n, device=device) or "trained"), device


# render


@on_all
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_render_changes_nothing(scripts, monkeypatch, capsys, env, n):
    """With a window, the same printed lines and the same weights to the bit."""
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    flags = {"epochs": 3, "num_envs": 2, "max_ep_len": 4}
    policy = scripts[n].train(env, **flags, render=0)
    printed = capsys.readouterr().out
    assert alike(policy, scripts[n].train(env, **flags, render=True))
    assert capsys.readouterr().out == printed


@on_all
@pytest.mark.parametrize(("max_ep_len", "shown"), [(8, 3), (2, 2)])
def test_render_shows_an_episode_per_epoch(scripts, toy, max_ep_len, shown, n):
    """A separate environment shows one episode per epoch; without the flag, none."""
    flags = {"epochs": 4, "num_envs": 3, "max_ep_len": max_ep_len}
    policy = scripts[n].train(toy(act=Box(-1, 1, (2,))), **flags)
    assert Toy.watched == []
    assert alike(policy, scripts[n].train("Toy-v0", **flags, render=True))
    assert Toy.watched == [shown] * 4


@on_all
def test_render_without_pygame(command_line, monkeypatch, capsys, n):
    """Without pygame, --render stops before the first line and says what to install."""
    monkeypatch.setitem(sys.modules, "pygame", None)  # so that importing it fails
    with pytest.raises(gym.error.DependencyNotInstalled, match="pip install"):
        command_line(n, "--render", "--epochs", 1, "--num_envs", 1)
    assert capsys.readouterr().out == ""


# the same run again; test_policies.py holds it for command lines


@on_all
@pytest.mark.parametrize("env", ["FrozenLake-v1", "Acrobot-v1", "Toy-v0"])
def test_a_run_leaves_no_trace_on_the_next(scripts, toy, capsys, env, n):
    """The same run after another one, a watched one even, is the same to the bit."""
    toy()
    policy = scripts[n].train(env, **SMALL, seed=7)
    printed = capsys.readouterr().out
    scripts[n].train(toy(act=Box(-1, 1, (2,))), **SMALL, seed=8, render=True)
    capsys.readouterr()
    toy()
    assert alike(policy, scripts[n].train(env, **SMALL, seed=7))
    assert capsys.readouterr().out == printed


@on_all
def test_no_deprecation_warning(n, tmp_path):
    """With such warnings turned into errors, a run prints nothing on standard error."""
    kinds = ("Deprecation", "PendingDeprecation", "Future")
    strict = ",".join(f"error::{kind}Warning" for kind in kinds)
    flags = " ".join(f"--{flag} {x}" for flag, x in SMALL.items()).split()
    flags += [
        "--env",
        "Pendulum-v1",
        "--save",
        tmp_path / "policy.pt",
        "--device",
        "cpu",
    ]
    result = run(n, *flags, env=os.environ | {"PYTHONWARNINGS": strict})
    assert (result.returncode, result.stderr) == (0, "")
    assert len(rows(result.stdout)) == SMALL["epochs"]


# CUDA


@needs_cuda
@on_all
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_cuda_trains(scripts, tmp_path, capsys, env, n):
    """--device cuda trains there; its file loads into a policy on the CPU."""
    path = tmp_path / "policy.pt"
    policy = scripts[n].train(env, **SMALL, device="cuda", save=str(path))
    assert all(p.is_cuda for p in policy.parameters())
    assert len(rows(capsys.readouterr().out)) == SMALL["epochs"]
    one = gym.make(env)
    dim = gym.spaces.flatdim(one.observation_space)
    loaded = scripts[n].Policy(dim, one.action_space, defaults(n)["hidden_sizes"])
    loaded.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    assert alike(loaded, policy.cpu())
    assert loaded(torch.zeros(5, dim)).sample().shape == (5, *one.action_space.shape)


@needs_cuda
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_cuda_4_is_5(scripts, tmp_path, env):
    """On the GPU too, 4 and 5 save the same weights to the bit."""
    saved = []
    for n in (4, 5):
        path = tmp_path / f"{n}.pt"
        scripts[n].train(env, epochs=5, num_envs=8, device="cuda", save=str(path))
        saved.append(torch.load(path, weights_only=True))
    assert same(*saved)


@needs_cuda
@on_all
def test_cuda_render_changes_nothing(scripts, toy, n):
    """Watching leaves the GPU's random stream alone too."""
    flags = {"env_name": toy(act=Box(-1, 1, (2,))), "device": "cuda", **SMALL}
    assert alike(scripts[n].train(**flags), scripts[n].train(**flags, render=True))
