"""Rollout and weights, against environments whose every number is known (toy_envs.py)."""

import math
from copy import deepcopy
from itertools import pairwise
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from tests import toy_envs
from tests.common import load, on_all, rows, same, same_bits
from tests.toy_envs import PLAN, reward

N = len(PLAN)
KINDS = ["Scripted", "VectorFloat", "VectorInt"]
NAMES = ["obs", "act", "rew", "mask", "next_obs", "cut"]
GAMMA = 0.75
on_kinds = pytest.mark.parametrize("kind", KINDS)


def play(n, env, max_ep_len=1000, rollouts=1):
    """Return the environments and the rollouts, by name, of script n's untrained policy."""
    module = load(n)
    torch.manual_seed(0)
    envs = module.make_envs(f"{env}-v0", N)
    envs.reset(seed=0)
    policy = module.Policy(3, envs.single_action_space, (4,))
    plays = [module.rollout(envs, policy, max_ep_len, "cpu") for _ in range(rollouts)]
    return envs, [dict(zip(NAMES[: 4 if n < 3 else 6], x, strict=True)) for x in plays]


def by_hand(episodes, max_ep_len=1000):
    """Return the rollout that PLAN says, environment i playing its episode episodes[i].

    Observations count under the mask only; elsewhere they are those of discarded steps.
    """
    ends = [min(length, max_ep_len) for length, *_ in PLAN]
    grid = [[(i, t) for i in range(N)] for t in range(max(ends))]

    def fill(f, dtype):
        return torch.tensor([[f(i, t) for i, t in row] for row in grid], dtype=dtype)

    def is_cut(i, t):
        length, terminated, _ = PLAN[i]
        return t + 1 == ends[i] and not (terminated and ends[i] == length)

    return {
        "obs": fill(lambda i, t: (i, episodes[i], t), torch.float32),
        "rew": fill(lambda i, t: reward(i, t) if t < ends[i] else 0, torch.float32),
        "mask": fill(lambda i, t: t < ends[i], torch.bool),
        "next_obs": fill(lambda i, t: (i, episodes[i], t + 1), torch.float32),
        "cut": fill(is_cut, torch.bool),
    }


def check(batch, hand):
    """Assert that a rollout is the one made by hand, to the bit."""
    assert torch.equal(batch["mask"], hand["mask"])
    assert batch["rew"].dtype == batch["obs"].dtype == torch.float32
    for name in batch.keys() & {"rew", "cut"}:
        assert torch.equal(batch[name], hand[name]), name
    for name in batch.keys() & {"obs", "next_obs"}:
        assert batch[name].shape == hand[name].shape
        assert torch.equal(batch[name][hand["mask"]], hand[name][hand["mask"]]), name


def watch(n, env, **flags):
    """Run train() of script n; return what passed through it, a namespace per epoch.

    batch: the rollout; policy, value: copies of the networks as the epoch found them; calls:
    arguments and result of each policy_loss, all of them of shape (batch,). The last one
    has the trained networks too.
    """
    module = load(n)
    plain, nets, epochs = SimpleNamespace(**vars(module)), [], []

    def value(*args):
        nets.append(plain.Value(*args))
        return nets[-1]

    def rollout(envs, policy, *args):
        batch = plain.rollout(envs, policy, *args)
        epoch = SimpleNamespace(envs=envs, calls=[])
        epoch.batch = {name: x.clone() for name, x in zip(NAMES, batch)}
        epoch.policy, epoch.value = deepcopy((policy, nets[0] if nets else None))
        epochs.append(epoch)
        return batch

    def policy_loss(*args):
        steps = int(epochs[-1].batch["mask"].sum())
        assert {x.shape for x in args if torch.is_tensor(x)} == {(steps,)}
        loss = plain.policy_loss(*args)
        args = [x.detach().clone() if torch.is_tensor(x) else x for x in args]
        epochs[-1].calls.append((args, loss.item()))
        return loss

    module.Value, module.rollout, module.policy_loss = value, rollout, policy_loss
    trained = module.train(f"toy_envs:{env}-v0", num_envs=N, **flags)
    epochs[-1].trained = trained, *nets
    return epochs


def returns_by_hand(epoch, gamma, max_ep_len):
    """Return R_t (T, N) in float64 and the rollout that PLAN says, see `by_hand`.

    Where the epoch has a value network, cut episodes go on with gamma V(s_T).
    """
    hand = by_hand(epoch.batch["obs"][0, :, 1].int().tolist(), max_ep_len)
    ret, rets = torch.zeros(N, dtype=torch.float64), []
    for t in reversed(range(len(hand["rew"]))):
        if epoch.value:
            rest = epoch.value(hand["next_obs"][t]).detach().double()
            ret = torch.where(hand["cut"][t], rest, ret)
        ret = hand["rew"][t] + gamma * ret
        rets.insert(0, ret)
    return torch.stack(rets), hand


@on_kinds
@on_all
def test_rollout_is_one_whole_episode_each(n, kind):
    """Observations, rewards, mask, s_T and cuts are those of the first episodes, to the bit,
    and every rollout begins with new ones.

    What comes after (the autoreset, later episodes, their rewards of NaN or 10**9) is masked
    and never seen, nor is any array an alias of a buffer that the environments write over.
    """
    _, plays = play(n, kind + "Discrete", rollouts=3)
    # episode 0 began with the seeded reset, and the rollout's own reset began episode 1
    check(plays[0], by_hand([1] * N))
    assert not plays[0]["mask"].all()
    for before, batch in pairwise(plays):
        fresh = batch["obs"][0, :, 1]
        assert (fresh > before["obs"][:, :, 1].amax(0)).all()
        check(batch, by_hand(fresh.int().tolist()))


@on_kinds
@on_all
def test_max_ep_len_cuts(n, kind):
    """An episode is cut at max_ep_len steps, unless it terminates there or earlier."""
    for max_ep_len in range(1, 11):
        _, (batch,) = play(n, kind + "Discrete", max_ep_len)
        assert len(batch["rew"]) == min(max_ep_len, 9)
        check(batch, by_hand([1] * N, max_ep_len))


@pytest.mark.parametrize("actions", toy_envs.ACTIONS)
@on_kinds
@on_all
def test_environments_get_the_actions_of_the_batch(n, kind, actions):
    """Each action reaches its environment at its step; a Box action clipped on its way only."""
    envs, (batch,) = play(n, kind + actions)
    envs = envs.unwrapped  # without the wrapper that clips
    space, mask = envs.single_action_space, batch["mask"]
    for i, env in enumerate(envs.envs):
        got = [act for episode, _, act in env.unwrapped.log if episode == 1]
        act = batch["act"][:, i][mask[:, i]].numpy()
        if actions == "Box":
            assert (act < space.low).any() or (act > space.high).any()
            act = np.clip(act, space.low, space.high)
        assert np.array_equal(got, act)


@on_kinds
@on_all
def test_printed_numbers(n, kind, capsys):
    """loss is the last one; return and ep_len are means over the episodes; steps counts
    discarded steps too; kl is the mean of exp(d) - 1 - d, d from the epoch's first policy
    to its last."""
    epochs = watch(n, kind + "Box", epochs=3)
    ret = sum(reward(i, t) for i in range(N) for t in range(PLAN[i][0])) / N
    ep_len = sum(length for length, *_ in PLAN) / N
    lines = rows(capsys.readouterr().out)
    assert [(x["return"], x["ep_len"]) for x in lines] == [(ret, ep_len)] * 3
    assert [x["steps"] for x in lines] == [9 * N, 18 * N, 27 * N]
    losses = [epoch.calls[-1][1] for epoch in epochs]
    assert [x["loss"] for x in lines] == pytest.approx(losses, rel=1e-6, abs=6e-4)
    if n >= 4:
        batch, (policy, _) = epochs[-1].batch, epochs[-1].trained
        obs, act = batch["obs"][batch["mask"]], batch["act"][batch["mask"]]
        d = (policy(obs).log_prob(act) - epochs[-1].calls[0][0][1]).double()
        kl = (d.exp() - 1 - d).mean().item()
        assert lines[-1]["kl"] == pytest.approx(kl, rel=1e-5, abs=2e-5)
        assert kl > 0


@on_all
def test_seed_reaches_environments_and_networks(n):
    """Two seeds differ in both, one seed in neither; and epochs differ in start states.

    Environment i has seed + i, so seeds further apart than N share no environment.
    """
    runs = [watch(n, "SampledWide", epochs=3, seed=seed) for seed in (0, 0, 100)]
    starts = [torch.cat([epoch.batch["obs"][0] for epoch in run]) for run in runs]
    weights = [run[0].policy.state_dict() for run in runs]
    assert same_bits(starts[0], starts[1])
    assert same(weights[0], weights[1])
    assert len(torch.cat(starts[1:]).unique()) == 2 * starts[0].numel()
    assert not same(weights[0], weights[2])


@pytest.mark.parametrize("space", toy_envs.OBSERVATIONS)
@on_all
def test_observations_are_flattened_as_gymnasium_does(n, space):
    """Dict, Tuple, Discrete, image and float64 observations come as gym.spaces.flatten's."""
    epoch = watch(n, f"Sampled{space}", epochs=1)[0]
    for i, env in enumerate(epoch.envs.unwrapped.envs):
        seen = env.unwrapped.log[1:]
        flat = [gym.spaces.flatten(toy_envs.OBSERVATIONS[space], x) for x in seen]
        flat = torch.as_tensor(np.stack(flat).astype(np.float32))
        assert torch.equal(epoch.batch["obs"][:, i], flat[:3])
        if n >= 3:
            assert torch.equal(epoch.batch["next_obs"][:, i], flat[1:])


@pytest.mark.parametrize("max_ep_len", [1, 4, 1000])
@on_kinds
@on_all
def test_weights(n, kind, max_ep_len):
    """policy_loss gets R(tau) in script 1 and the reward-to-go in 2, exactly; from 3 on
    A_t = R_t - V(s_t), gamma V(s_T) where a time limit cuts and nothing at a true end.

    Both V are those of before this epoch's fit. The tolerance is float32's on returns of
    some hundreds.
    """
    gamma = {"gamma": GAMMA} if n >= 3 else {}
    flags = {"epochs": 3, "max_ep_len": max_ep_len} | gamma
    for epoch in watch(n, kind + "Discrete", **flags):
        ret, hand = returns_by_hand(epoch, gamma.get("gamma", 1.0), max_ep_len)
        ret = (ret[0].expand_as(ret) if n == 1 else ret)[hand["mask"]]
        weights = epoch.calls[0][0][1 if n <= 3 else 2]
        if n < 3:
            assert torch.equal(weights.double(), ret)
        else:
            adv = ret - epoch.value(hand["obs"][hand["mask"]])
            torch.testing.assert_close(weights.double(), adv, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("actions", toy_envs.ACTIONS)
@on_all
def test_updates(n, actions):
    """Given each epoch's rollout and weights, the loops below train the same networks, to
    the bit: one Adam each, of --lr and --vf_lr, that goes on from epoch to epoch;
    train_pi_iters policy steps (1 in scripts 1 to 3) with one logp_old, that of the policy
    that played; train_v_iters steps of V towards the returns."""
    pi_iters, v_iters = 1 if n < 4 else 3, 2
    flags = {"epochs": 2, "lr": 0.02}
    flags |= {"vf_lr": 0.03, "gamma": GAMMA, "train_v_iters": 2} if n >= 3 else {}
    flags |= {"train_pi_iters": 3} if n >= 4 else {}
    epochs, script = watch(n, "Scripted" + actions, **flags), load(n)
    policy, value = deepcopy((epochs[0].policy, epochs[0].value))

    def step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    pi_adam = torch.optim.Adam(policy.parameters(), 0.02)
    v_adam = torch.optim.Adam(value.parameters(), 0.03) if value else None
    for epoch in epochs:
        mask, rew = epoch.batch["mask"], epoch.batch["rew"].clone()
        obs, act = epoch.batch["obs"][mask], epoch.batch["act"][mask]
        if value:
            cut = epoch.batch["cut"]
            rew[cut] += GAMMA * value(epoch.batch["next_obs"][cut]).detach()
            ret = script.reward_to_go(rew, GAMMA)[mask]
        assert len(epoch.calls) == pi_iters
        weights = epoch.calls[0][0][1:]
        if n >= 4:
            assert same_bits(weights[0], policy(obs).log_prob(act))
        for _ in range(pi_iters):
            step(pi_adam, script.policy_loss(policy(obs).log_prob(act), *weights))
        for _ in range(v_iters if value else 0):
            step(v_adam, ((value(obs) - ret) ** 2).mean())
    for net, trained in zip((policy, value), epochs[-1].trained):
        assert same(net.state_dict(), trained.state_dict())


@pytest.mark.parametrize("actions", toy_envs.ACTIONS)
@on_all
def test_networks(n, actions):
    """Policy and V are tanh networks of --hidden_sizes, their last layer linear. log_prob is
    that of a softmax, or of Gaussians with std exp(log_std), summed over the axes of an
    action; V is (batch,), also for no observation."""
    epoch = watch(n, "Scripted" + actions, epochs=1, hidden_sizes=(5, 4))[0]
    obs, act, policy = epoch.batch["obs"][0], epoch.batch["act"][0], epoch.policy
    values = [(epoch.value.net, 1)] if n >= 3 else []
    for net, out in ((policy.net, 3 if actions == "Discrete" else 2), *values):
        first, second, last = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, out)
        hand = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)
        hand.load_state_dict(net.state_dict())
        assert same_bits(net(obs), hand(obs))
    if actions == "Discrete":
        logp = policy.net(obs).log_softmax(-1)[torch.arange(N), act]
    else:
        assert policy.log_std.shape == (2,)  # one per axis
        policy.log_std.data = log_std = torch.tensor([-1.0, 0.5])
        z = (act - policy.net(obs)) / log_std.exp()
        logp = (-(z**2) / 2 - log_std - math.log(2 * math.pi) / 2).sum(-1)
    torch.testing.assert_close(policy(obs).log_prob(act), logp)
    if n >= 3:
        assert epoch.value(obs[:0]).shape == (0,)


@on_all
def test_device_reaches_networks_and_tensors(n, monkeypatch):
    """--device goes to each network and to each tensor that is made of an array.

    It is held on the CPU by its other name, for not every machine has a GPU.
    """
    devices, nets = [], []
    as_tensor, to = torch.as_tensor, nn.Module.to

    def spy(x, device=None):
        devices.append(device)
        return as_tensor(x, device=device)

    monkeypatch.setattr(torch, "as_tensor", spy)
    monkeypatch.setattr(nn.Module, "to", lambda net, x: nets.append(x) or to(net, x))
    (epoch,) = watch(n, "ScriptedDiscrete", epochs=1, device="cpu:0")
    assert nets == ["cpu:0"] * (1 if n < 3 else 2)
    assert devices == ["cpu:0"] * (len(epoch.batch["obs"]) + len(epoch.batch))
