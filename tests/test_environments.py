"""What a reader tries on day one: other environments, --render, --device cuda."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from tests.common import defaults, on_all, read, rows, same, train
from tests.toy_envs import Compass, Sampled, toy

SMALL = {"epochs": 2, "num_envs": 2, "max_ep_len": 8}
EXTRAS = {"LunarLander-v3": "Box2D", "InvertedPendulum-v5": "mujoco"}
SERVED = [Discrete(1), Box(0, 1, (3,), np.float64), Box(-2, 2, (1,), np.float16)]
# bounds that rescaling alone oversteps by a rounding
SERVED += [Box(np.float32([0.1, -1.2]), np.float32([0.3, 0.6])), Box(15, 22.5, (1,))]
ENVIRONMENTS = ["FrozenLake-v1", "Blackjack-v1", "CliffWalking-v1", *EXTRAS, *SERVED]
FLATTENED = [Discrete(5), Box(0, 255, (4, 4, 3), np.uint8), Box(0, 255, (3,), np.uint8)]
FLATTENED += [Dict(pose=Box(-1, 1, (2, 2)), gear=Discrete(3, start=2))]
FLATTENED += [Tuple((Discrete(4), Box(-1, 1, (2,), np.float64)))]
FLATTENED += [Sampled.observation_space]
REFUSED = [
    ("action_space", Discrete(3, start=1)),
    ("action_space", Box(-np.inf, np.inf, (2, 2))),
]
REFUSED += [("action_space", Box(0, 3, (2,), np.int32))]
REFUSED += [("action_space", spaces.MultiDiscrete([2, 3]))]
REFUSED += [("observation_space", spaces.Sequence(Discrete(2)))]


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=str)
def test_an_environment_trains(scripts, env):
    """Gymnasium's own, and those whose actions are in ``SERVED`` and which take no others,
    train unchanged, finite and cut at max_ep_len, which CliffWalking-v1 needs to end."""
    if env in SERVED:
        env = toy(Sampled, action_space=env)
    elif env in EXTRAS:
        pytest.importorskip(EXTRAS[env])
    printed = rows(train(scripts[6], env, **SMALL)[0])
    assert len(printed) == 2
    assert all(np.isfinite([*row.values()]).all() for row in printed)
    assert all(1 <= row["ep_len"] <= 8 for row in printed)


@pytest.mark.parametrize("space", FLATTENED, ids=str)
def test_observations_are_flattened_as_gymnasium_does(scripts, space):
    """Dict, Tuple, Discrete, image, uint8 and float64 observations come as
    gym.spaces.flatten's, in float32."""
    envs = scripts[6].make_envs(toy(Sampled, observation_space=space), 2)
    envs.reset(seed=0)
    policy = scripts[6].Policy(gym.spaces.flatdim(space), Discrete(3), ())
    obs = scripts[6].rollout(envs, policy, 1000, "cpu")[0]
    for i, env in enumerate(envs.unwrapped.envs):
        flat = [gym.spaces.flatten(space, x) for x in env.unwrapped.log[-4:-1]]
        flat = torch.as_tensor(np.stack(flat).astype(np.float32))
        assert torch.equal(obs[:, i], flat)


@pytest.mark.parametrize(("kind", "space"), REFUSED, ids=str)
def test_a_space_is_refused(scripts, capsys, kind, space):
    """Before anything is learned, by the script, NumPy or Gymnasium."""
    with pytest.raises((AssertionError, TypeError, ValueError)) as error:
        scripts[6].train(env_name=toy(Sampled, **{kind: space}), **SMALL)
    assert "reached the environment" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_action_bounds_do_not_matter(scripts):
    """One task with Box actions in other units is learned in the same way."""
    returns = []
    for low, high in (-1, 1), (0, 100), (10, 20), (-0.01, 0.01):
        env = toy(Compass, low=low, high=high)
        printed, _ = train(scripts[6], env, epochs=5, num_envs=4)
        returns.append([row["return"] for row in rows(printed)])
        assert returns[-1] == pytest.approx(returns[0], rel=1e-3, abs=2e-3)
    assert len({*returns[0]}) == 5


def test_asynchronous_stepping(scripts):
    """vectorization_mode="async", which the README tells, gives the rollout of "sync"."""
    plays = []
    for mode in ("async", "sync"):
        torch.manual_seed(0)
        envs = scripts[6].make_envs("CartPole-v1", 3, vectorization_mode=mode)
        envs.reset(seed=0)
        policy = scripts[6].Policy(4, envs.single_action_space, (4,))
        plays.append(scripts[6].rollout(envs, policy, 1000, "cpu"))
        envs.close()
    assert all(map(torch.equal, *plays))


@on_all
def test_render_shows_an_episode_per_epoch(command_line, capsys, n):
    """In an environment of its own; the same seed is the same run, there, too; and what
    was made is closed."""
    flags, runs = f"--epochs 9 --num_envs 2 --max_ep_len 2 --env {toy(Sampled)}", []
    for render in "", " --render", " --render":
        Sampled.watched.clear()
        Sampled.open = 0
        command_line(n, *(flags + render).split())
        runs.append((capsys.readouterr().out, [*Sampled.watched]))
        assert Sampled.open == 0
    assert [shown.count(1) for _, shown in runs] == [0, 9, 9]
    assert max(runs[1][1]) == 2
    assert runs[1] == runs[2]


@on_all
def test_render_opens_a_window(scripts, n, monkeypatch):
    """On CartPole-v1 too, whose own vectorised version shows nothing and does not say so."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    opened, set_mode = [], pygame.display.set_mode

    def spy(*args, **options):
        opened.append(args)
        return set_mode(*args, **options)

    monkeypatch.setattr(pygame.display, "set_mode", spy)
    train(scripts[n], "CartPole-v1", epochs=1, num_envs=2, max_ep_len=2, render=True)
    assert len(opened) == 1


@on_all
def test_the_device_is_used(scripts, n, monkeypatch):
    """Networks are on --device, and rollout is told it: here torch's "meta", which computes
    nothing."""
    script, networks = scripts[n], []

    def spy(kind):
        make = getattr(script, kind)
        keep = lambda *args: networks.append(make(*args)) or networks[-1]
        monkeypatch.setattr(script, kind, keep)

    def stop(envs, policy, max_ep_len, device):
        raise InterruptedError(device)

    for kind in ("Policy", "Value") if n >= 3 else ("Policy",):
        spy(kind)
    monkeypatch.setattr(script, "rollout", stop)
    with pytest.raises(InterruptedError, match="meta"):
        train(script, "CartPole-v1", **SMALL, device="meta")
    assert {x.device.type for net in networks for x in net.parameters()} == {"meta"}


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
