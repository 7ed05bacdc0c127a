"""What a reader tries on day one: other environments, bad flags, --render, CUDA."""

import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests.common import defaults, on_all, read, rows, same, train
from tests.toy_envs import Sampled, toy

SMALL = {"epochs": 2, "num_envs": 2, "max_ep_len": 8}
EXTRAS = {"LunarLander-v3": "Box2D", "InvertedPendulum-v5": "mujoco"}
SERVED = [Discrete(1), Box(0, 1, (3,), np.float64), Box(-2, 2, (1,), np.float16)]
# bounds that rescaling alone oversteps by a rounding
SERVED += [Box(np.float32([0.1, -1.2]), np.float32([0.3, 0.6])), Box(15, 22.5, (1,))]
ENVIRONMENTS = ["FrozenLake-v1", "Blackjack-v1", "CliffWalking-v1", *EXTRAS]
ENVIRONMENTS += [toy(Sampled, action_space=space) for space in SERVED]


class Odd(spaces.Space):
    """A space of the user's own, which Gymnasium cannot flatten."""

    def __repr__(self):
        return "Odd()"


ACTIONS = [Discrete(3, start=1), Box(-1, 1, (2, 3)), Box(0, 3, (2,), np.int32)]
ACTIONS += [MultiDiscrete([2, 3]), MultiBinary(3), Tuple([Discrete(2)])]
OBSERVATIONS = [spaces.Sequence(Discrete(2)), spaces.Graph(Discrete(2), None), Odd()]
OBSERVATIONS += [spaces.Dict(a=Discrete(2), b=space) for space in OBSERVATIONS]
REFUSED = [("action_space", x) for x in ACTIONS]
REFUSED += [("observation_space", x) for x in OBSERVATIONS]


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_an_environment_trains(scripts, env):
    """Gymnasium's own, and those whose actions are in ``SERVED`` and which take no others,
    train unchanged, finite and cut at max_ep_len, which CliffWalking-v1 needs to end."""
    if env in EXTRAS:
        pytest.importorskip(EXTRAS[env])
    printed = rows(train(scripts[6], env, **SMALL)[0])
    assert len(printed) == 2
    assert all(np.isfinite([*row.values()]).all() for row in printed)
    assert all(1 <= row["ep_len"] <= 8 for row in printed)


@pytest.mark.parametrize(("kind", "space"), REFUSED, ids=str)
def test_a_space_is_refused(scripts, kind, space):
    """Before any rollout, with the space as the environment has it."""
    with pytest.raises(ValueError, match=re.escape(repr(space))):
        train(scripts[6], toy(Sampled, **{kind: space}), **SMALL)


@pytest.mark.parametrize("x", [np.nan, np.inf, None, 0, 1, 2], ids=str)
@on_all
def test_bad_data_are_not_blamed_on_training(scripts, n, x):
    """A reward that is not a number, or an observation that is NaN after 0 or 1 steps, or,
    as V takes it, after 2 where --max_ep_len cuts: the run ends with a message that names
    it and the environment."""
    name, options = ("obs", {"blank": x}) if x in (0, 1, 2) else ("reward", {"pay": x})
    env, flags = toy(Sampled, **options), {"epochs": 2, "num_envs": 2, "max_ep_len": 2}
    if x == 2 and n < 3:
        train(scripts[n], env, **flags)
    else:
        with pytest.raises(Exception, match=rf"{env}.*{name}"):
            train(scripts[n], env, **flags)


BAD = ["--epochs 0", "--num_envs -1", "--max_ep_len 0", "--hidden_sizes 0", "--lr x"]
BAD += ["--epochs 1.5", "--seed x", "--num_envs x", "--hidden_sizes x", "--unknown 1"]
BAD_IN_6 = ["--train_pi_iters 0", "--train_v_iters 0", "--gamma x", "--clip_ratio x"]


@on_all
def test_a_bad_flag_is_told(command_line, capsys, n):
    """By argparse: no epoch, status 2, and a last line with the flag and its value."""
    for words in BAD + BAD_IN_6 * (n == 6):
        with pytest.raises(SystemExit) as error:
            command_line(n, *words.split())
        out, err = capsys.readouterr()
        assert (error.value.code, out) == (2, "")
        assert all(word in err.splitlines()[-1] for word in words.split())


@pytest.mark.parametrize(("flag", "x"), [("--env", "CartPool"), ("--device", "nope")])
def test_a_name_that_does_not_exist_is_told(command_line, capsys, flag, x):
    """By Gymnasium or torch, before any epoch."""
    with pytest.raises(Exception, match=x):
        command_line(6, flag, x)
    assert capsys.readouterr().out == ""


@on_all
def test_render_shows_an_episode_per_epoch(command_line, capsys, n):
    """In an environment of its own; and the same seed is the same run, there, too."""
    flags, runs = f"--epochs 9 --num_envs 2 --max_ep_len 2 --env {toy(Sampled)}", []
    for render in "", " --render", " --render":
        Sampled.watched.clear()
        command_line(n, *(flags + render).split())
        runs.append((capsys.readouterr().out, [*Sampled.watched]))
    assert [shown.count(1) for _, shown in runs] == [0, 9, 9]
    assert max(runs[1][1]) == 2
    assert runs[1] == runs[2]


@on_all
def test_render_opens_a_window(scripts, n, monkeypatch):
    """On CartPole-v1 too, whose own vectorised version shows nothing and does not say so."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.quit()
    train(scripts[n], "CartPole-v1", epochs=1, num_envs=2, max_ep_len=2, render=True)
    assert pygame.display.get_surface()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_cuda(scripts, tmp_path, env):
    """--device cuda trains there; its file loads into a policy on the CPU; and there, too,
    4 and 5 train the same weights to the bit."""
    flags = {"epochs": 3, "num_envs": 8, "max_ep_len": 50, "device": "cuda"}
    path, trained, one = tmp_path / "policy.pt", {}, gym.make(env)
    for n, script in scripts.items():
        trained[n] = train(script, env, **flags, save=str(path))[1]
        assert all(x.is_cuda for x in trained[n].values())
        dim = gym.spaces.flatdim(one.observation_space)
        policy = script.Policy(dim, one.action_space, defaults(n)["hidden_sizes"])
        policy.load_state_dict(read(path))
        assert same(policy.state_dict(), trained[n])
    assert same(trained[4], trained[5])
