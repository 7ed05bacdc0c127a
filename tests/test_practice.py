"""What a reader tries on day one: other environments, bad flags, --render, CUDA."""

import re

import gymnasium as gym
import numpy as np
import pygame
import pytest
import torch

from tests import toy_envs
from tests.common import defaults, on_all, rows, run, same, train

SMALL = {"epochs": 2, "num_envs": 2, "max_ep_len": 8}
EXTRAS = {"LunarLander": "Box2D", "Inverted": "mujoco", "Hopper": "mujoco"}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def refusal(scripts, monkeypatch):
    """Call train() of script n, which must fail before its first rollout: return how."""

    def call(n, **flags):
        monkeypatch.setattr(scripts[n], "rollout", lambda *_: pytest.fail("began"))
        with pytest.raises(AssertionError) as error:
            scripts[n].train(**flags)
        return str(error.value)

    return call


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
def test_an_environment_trains(scripts, env, n):
    """Each environment trains unchanged, finite and cut at max_ep_len, CliffWalking-v1,
    which has no time limit of its own, too."""
    for name, module in EXTRAS.items():
        if env.startswith(name):
            pytest.importorskip(module)
    printed = rows(train(scripts[n], env, **SMALL)[0])
    assert len(printed) == 2
    assert all(np.isfinite([*row.values()]).all() for row in printed)
    assert all(1 <= row["ep_len"] <= SMALL["max_ep_len"] for row in printed)


@pytest.mark.parametrize("actions", toy_envs.SERVED)
@on_all
def test_an_action_space_is_served(scripts, n, actions):
    """Discrete and Box actions train; the environment refuses one from outside its space."""
    scripts[n].train(f"toy_envs:Acts{actions}-v0", **SMALL)


@pytest.mark.parametrize("actions", toy_envs.REFUSED)
@on_all
def test_an_action_space_is_refused(refusal, n, actions):
    """Other actions: one sentence with the flag, the space and what is served."""
    env, space = f"toy_envs:Acts{actions}-v0", type(toy_envs.REFUSED[actions]).__name__
    told = rf"--env {env}: {space}\(.* is not served, only Discrete\(n\) and float Box \(n,\)"
    assert re.fullmatch(told, refusal(n, env_name=env))


COUNTS = ("epochs", "num_envs", "max_ep_len", "train_v_iters", "train_pi_iters")
BAD = {flag: (0, -1) for flag in COUNTS} | {"gamma": (-0.1, 1.1, float("nan"))}
BAD |= {"clip_ratio": (0, -0.2, float("nan")), "hidden_sizes": ([0], [8, -1])}
BAD_LINES = [
    (1, "--epochs 0", "^AssertionError: --epochs 0: use 1 or more$"),
    (3, "--gamma 1.1", "^AssertionError: --gamma 1.1: use a number from 0 to 1$"),
    (6, "--save /", "^AssertionError: --save /: "),
    (2, "--env CartPool-v1", "CartPool.*CartPole"),
    (5, "--device nope", "cpu, cuda.*nope"),
    (6, "--train_pi_iters x", "argument --train_pi_iters: invalid int value"),
]


@on_all
def test_a_number_out_of_range(refusal, capsys, n):
    """A sentence that begins with the flag and its value; gamma 0 and 1 are in range."""
    for flag in BAD.keys() & defaults(n):
        for x in BAD[flag]:
            assert refusal(n, **{flag: x}).startswith(f"--{flag} {x}: ")
    for gamma in (0, 1) if n >= 3 else ():
        assert refusal(n, gamma=gamma, num_envs=0).startswith("--num_envs")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("n", "words", "last_line"), BAD_LINES)
def test_a_bad_flag_is_told(command_line, capsys, n, words, last_line):
    """No epoch; the last line has the value and what is wrong."""
    with pytest.raises((Exception, SystemExit)) as error:
        command_line(n, *words.split())
    out, err = capsys.readouterr()
    told = err if error.type is SystemExit else error.exconly()
    assert out == ""
    assert re.search(last_line, told.splitlines()[-1])


def test_a_bad_flag_ends_the_process():
    """With a non-zero exit status, nothing on stdout and that line at the end of stderr."""
    n, words, last_line = BAD_LINES[0]
    result = run(n, *words.split())
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search(last_line, result.stderr.splitlines()[-1])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@on_all
def test_render_changes_nothing(command_line, n, device, tmp_path, capsys):
    """--render shows an episode per epoch, in an environment of its own. The run before it
    and the run after it are the same as the watched one: lines and weights, to the bit."""
    flags = ["--env", "toy_envs:ActsBox-v0", "--epochs", 3, "--num_envs", 2]
    flags += ["--device", device, "--max_ep_len", 2, "--save", tmp_path / "policy.pt"]
    runs = []
    for render, shown in ((), []), (["--render"], [2, 2, 2]), ((), []):
        toy_envs.Sampled.watched.clear()
        command_line(n, *flags, *render)
        assert toy_envs.Sampled.watched == shown
        weights = torch.load(tmp_path / "policy.pt", weights_only=True)
        runs.append((capsys.readouterr().out, weights))
    assert runs[0][0] == runs[1][0] == runs[2][0]
    assert all(same(runs[0][1], weights) for _, weights in runs[1:])


@on_all
def test_render_opens_a_window(scripts, n, monkeypatch):
    """On CartPole-v1 too, whose own vectorised version shows nothing and does not say so."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.quit()
    scripts[n].train(**SMALL, render=True)
    assert pygame.display.get_surface()


@needs_cuda
@on_all
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_cuda_trains(scripts, tmp_path, env, n):
    """--device cuda trains there; its file loads into a CPU policy."""
    path = tmp_path / "policy.pt"
    policy = scripts[n].train(env, **SMALL, device="cuda", save=str(path))
    assert all(p.is_cuda for p in policy.parameters())
    one = gym.make(env)
    dim = gym.spaces.flatdim(one.observation_space)
    loaded = scripts[n].Policy(dim, one.action_space, defaults(n)["hidden_sizes"])
    loaded.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    assert same(loaded.state_dict(), policy.cpu().state_dict())


@needs_cuda
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_cuda_4_is_5(scripts, env):
    """On the GPU too, 4 and 5 train the same weights to the bit."""
    flags = {"epochs": 5, "num_envs": 8, "device": "cuda"}
    four, five = (train(scripts[n], env, **flags) for n in (4, 5))
    assert same(four[1], five[1])
