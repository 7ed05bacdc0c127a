"""Rollout and weights, against environments whose every number is known (toy_envs.py)."""

from copy import deepcopy
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch
import toy_envs
from common import SCRIPTS, load, rows, same_bits
from conftest import on_all
from toy_envs import PLAN, reward

N = len(PLAN)
KINDS = ["Scripted", "VectorFloat", "VectorInt"]
Adam = torch.optim.Adam
NAMES = ["obs", "act", "rew", "mask", "next_obs", "cut"]
GAMMA = 0.75
on_kinds = pytest.mark.parametrize("kind", KINDS)
from_3 = pytest.mark.parametrize("n", [n for n in SCRIPTS if n >= 3])
from_4 = pytest.mark.parametrize("n", [n for n in SCRIPTS if n >= 4])


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
    arguments and result of each policy_loss. The last one has the trained networks too, with
    the gradients of their last steps, and the optimizers.
    """
    module = load(n)
    plain = SimpleNamespace(**vars(module))
    nets, optimizers, epochs = [], [], []

    def value(*args):
        nets.append(plain.Value(*args))
        return nets[-1]

    def adam(*args, **options):
        optimizers.append(Adam(*args, **options))
        return optimizers[-1]

    def rollout(envs, policy, *args):
        batch = plain.rollout(envs, policy, *args)
        epoch = SimpleNamespace(envs=envs, calls=[])
        epoch.batch = {name: x.clone() for name, x in zip(NAMES, batch)}
        epoch.policy, epoch.value = deepcopy((policy, nets[0] if nets else None))
        epochs.append(epoch)
        return batch

    def policy_loss(*args):
        loss = plain.policy_loss(*args)
        args = [x.detach().clone() if torch.is_tensor(x) else x for x in args]
        epochs[-1].calls.append((args, loss.item()))
        return loss

    module.Value, module.rollout, module.policy_loss = value, rollout, policy_loss
    with mock.patch("torch.optim.Adam", adam):
        trained = module.train(f"toy_envs:{env}-v0", num_envs=N, **flags)
    epochs[-1].trained, epochs[-1].optimizers = (trained, *nets), optimizers
    return epochs


def returns_by_hand(epoch, gamma, whole=False):
    """Return R_t (whole: R(tau)) in float64 and the observations, both under the mask.

    Where the epoch has a value network, cut episodes go on with gamma V(s_T).
    """
    hand = by_hand([int(x) for x in epoch.batch["obs"][0, :, 1]])
    weights = torch.zeros(hand["rew"].shape, dtype=torch.float64)
    for i, (length, terminated, _) in enumerate(PLAN):
        ret = 0.0
        if "cut" in epoch.batch and not terminated:
            ret = epoch.value(hand["next_obs"][length - 1, i]).item()
        for t in reversed(range(length)):
            weights[t, i] = ret = reward(i, t) + gamma * ret
        if whole:
            weights[:, i] = ret
    return weights[hand["mask"]], hand["obs"][hand["mask"]]


@on_kinds
@on_all
def test_rollout_is_one_whole_episode_each(n, kind):
    """Observations, rewards, mask, s_T and cuts are those of the first episodes, to the bit.

    What comes after (the autoreset, later episodes, their rewards of NaN or 10**9) is masked
    and never seen, nor is any array an alias of a buffer that the environments write over.
    """
    _, (batch,) = play(n, kind + "Discrete")
    # episode 0 began with the seeded reset, and the rollout's own reset began episode 1
    check(batch, by_hand([1] * N))
    assert not batch["mask"].all()


@on_kinds
@on_all
def test_every_rollout_starts_afresh(n, kind):
    """Every epoch begins with a new episode at t = 0 and none is played twice."""
    _, plays = play(n, kind + "Discrete", rollouts=3)
    seen = torch.zeros(N)
    for batch in plays:
        fresh = batch["obs"][0, :, 1]
        assert (fresh > seen).all()
        check(batch, by_hand(fresh.int().tolist()))
        seen = batch["obs"][:, :, 1].amax(0)


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
    """loss is the last one; return and ep_len are means over the episodes.

    steps counts discarded steps too.
    """
    epochs = watch(n, kind + "Discrete", epochs=3)
    ret = sum(reward(i, t) for i in range(N) for t in range(PLAN[i][0])) / N
    ep_len = sum(length for length, *_ in PLAN) / N
    lines = rows(capsys.readouterr().out)
    assert [(x["return"], x["ep_len"]) for x in lines] == [(ret, ep_len)] * 3
    assert [x["steps"] for x in lines] == [9 * N, 18 * N, 27 * N]
    losses = [epoch.calls[-1][1] for epoch in epochs]
    assert [x["loss"] for x in lines] == pytest.approx(losses, rel=1e-6, abs=6e-4)


@from_4
def test_printed_kl(n, capsys):
    """kl is the mean of exp(d) - 1 - d, d from the epoch's first policy to its last."""
    epoch = watch(n, "ScriptedBox", epochs=3)[-1]
    mask, (policy, _) = epoch.batch["mask"], epoch.trained
    logp = policy(epoch.batch["obs"][mask]).log_prob(epoch.batch["act"][mask])
    d = (logp - epoch.calls[0][0][1]).double()
    kl = rows(capsys.readouterr().out)[-1]["kl"]
    assert kl == pytest.approx((d.exp() - 1 - d).mean().item(), abs=2e-5)
    assert kl > 0


@on_all
def test_seed_reaches_environments_and_networks(n):
    """Two seeds differ in both, one seed in neither; and epochs differ in start states."""
    first, again, other = (
        watch(n, "SampledWide", epochs=3, seed=seed) for seed in (0, 0, 1)
    )
    for a, b, c in zip(first, again, other, strict=True):
        starts = [epoch.batch["obs"][0] for epoch in (a, b, c)]
        assert torch.equal(starts[0], starts[1])
        assert not torch.isin(starts[0], starts[2]).any()
    starts = torch.cat([epoch.batch["obs"][0] for epoch in first])
    assert len(starts.unique()) == starts.numel()
    weights = [
        torch.cat([p.flatten() for p in x[0].policy.parameters()])
        for x in (first, again, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("space", toy_envs.OBSERVATIONS)
@on_all
def test_observations_are_flattened_as_gymnasium_does(n, space):
    """Dict, Tuple, Discrete, image and float64 observations come as gym.spaces.flatten's."""
    epoch = watch(n, f"Sampled{space}", epochs=1)[0]
    assert len(epoch.calls) >= 1
    for i, env in enumerate(epoch.envs.unwrapped.envs):
        seen = env.unwrapped.log[1:]
        flat = [gym.spaces.flatten(toy_envs.OBSERVATIONS[space], x) for x in seen]
        flat = torch.as_tensor(np.stack(flat).astype(np.float32))
        assert torch.equal(epoch.batch["obs"][:, i], flat[:3])
        if n >= 3:
            assert torch.equal(epoch.batch["next_obs"][:, i], flat[1:])


@on_kinds
@pytest.mark.parametrize("n", [1, 2])
def test_weights_of_1_and_2(n, kind):
    """policy_loss gets R(tau) in script 1 and the reward-to-go in 2, exactly."""
    for epoch in watch(n, kind + "Discrete", epochs=3):
        hand, obs = returns_by_hand(epoch, 1.0, whole=n == 1)
        (((logp, weights), _),) = epoch.calls
        assert torch.equal(weights.double(), hand)
        act = epoch.batch["act"][epoch.batch["mask"]]
        assert torch.equal(logp, epoch.policy(obs).log_prob(act))


@on_kinds
@from_3
def test_advantages_from_3_on(n, kind):
    """A_t = R_t - V(s_t): gamma V(s_T) where a time limit cuts and nothing at a true end.

    Both V are those of before this epoch's fit. The tolerance is float32's on returns of
    some hundreds.
    """
    for epoch in watch(n, kind + "Discrete", epochs=3, gamma=GAMMA):
        ret, obs = returns_by_hand(epoch, GAMMA)
        adv = epoch.calls[0][0][1 if n == 3 else 2]
        hand = ret - epoch.value(obs)
        torch.testing.assert_close(adv.double(), hand, rtol=1e-5, atol=1e-4)


@from_3
def test_max_ep_len_bootstraps(n):
    """An episode stopped by max_ep_len goes on with gamma V(s_T) too: here after one step."""
    for epoch in watch(n, "VectorIntBox", epochs=2, gamma=GAMMA, max_ep_len=1):
        last = epoch.value(epoch.batch["next_obs"][0])
        rest = torch.tensor([reward(i, 0) for i in range(N)]) + GAMMA * last
        adv = epoch.calls[0][0][1 if n == 3 else 2]
        hand = rest - epoch.value(epoch.batch["obs"][0])
        torch.testing.assert_close(adv, hand, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("actions", toy_envs.ACTIONS)
@from_4
def test_logp_old_is_the_log_prob_of_the_old_policy(n, actions):
    """Once per epoch, before its first step: so the ratio is exactly 1 on the first update."""
    for epoch in watch(n, "Scripted" + actions, epochs=3, train_pi_iters=5):
        mask = epoch.batch["mask"]
        old = epoch.policy(epoch.batch["obs"][mask]).log_prob(epoch.batch["act"][mask])
        logps = [args[0] for args, _ in epoch.calls]
        assert len(logps) == 5
        assert all(torch.equal(args[1], old) for args, _ in epoch.calls)
        assert torch.equal(logps[0], old)
        assert not any(torch.equal(a, b) for a, b in pairwise(logps))


@pytest.mark.parametrize("actions", toy_envs.ACTIONS)
@on_all
def test_loss_gets_one_number_per_step(n, actions):
    """policy_loss gets one number for each step under the mask, at every policy step."""
    more = {"train_pi_iters": 5} if n >= 4 else {}
    for epoch in watch(n, "Scripted" + actions, epochs=3, **more):
        steps = int(epoch.batch["mask"].sum())
        for args, _ in epoch.calls:
            assert {x.shape for x in args if torch.is_tensor(x)} == {(steps,)}


@pytest.mark.parametrize("actions", toy_envs.ACTIONS)
@on_all
def test_gradients_of_the_last_step(n, actions):
    """The step follows the gradient of -mean(log pi * weight), V that of the mean square.

    That is the gradient of all six at theta_old. Two epochs, so none is left of the first.
    """
    more = {} if n < 3 else {"train_v_iters": 1}
    more |= {} if n < 4 else {"train_pi_iters": 1}
    epoch = watch(n, "Scripted" + actions, epochs=2, **more)[-1]
    mask, (policy, *values) = epoch.batch["mask"], epoch.trained
    obs, act = epoch.batch["obs"][mask], epoch.batch["act"][mask]
    weights = epoch.calls[0][0][1 if n <= 3 else 2]
    (-(epoch.policy(obs).log_prob(act) * weights).mean()).backward()
    pairs = [*zip(policy.parameters(), epoch.policy.parameters(), strict=True)]
    if n >= 3:
        ret, _ = returns_by_hand(epoch, 0.99)
        (epoch.value(obs) - ret.float()).square().mean().backward()
        pairs += zip(values[0].parameters(), epoch.value.parameters(), strict=True)
    for p, hand in pairs:
        torch.testing.assert_close(p.grad, hand.grad, rtol=1e-3, atol=1e-4)


@on_all
def test_number_of_steps(n):
    """Each epoch takes train_pi_iters policy steps (1 in 1-3) and train_v_iters value steps."""
    more = {} if n < 3 else {"train_v_iters": 7}
    more |= {} if n < 4 else {"train_pi_iters": 5}
    epochs = watch(n, "ScriptedDiscrete", epochs=3, **more)
    states = [optimizer.state.values() for optimizer in epochs[-1].optimizers]
    taken = [{int(parameter["step"]) for parameter in state} for state in states]
    assert taken == [{15 if n >= 4 else 3}] + ([{21}] if n >= 3 else [])


@on_all
def test_networks(n):
    """Policy and V are tanh networks of --hidden_sizes, their last layer linear; each
    action axis has a standard deviation of its own."""
    epoch, obs = watch(n, "ScriptedBox", epochs=1, hidden_sizes=(5, 4))[0], torch.eye(3)
    assert epoch.policy.log_std.shape == epoch.envs.single_action_space.shape == (2,)
    values = [(epoch.value.net, 1)] if n >= 3 else []
    for net, out in ((epoch.policy.net, 2), *values):
        shapes = [tuple(p.shape) for p in net.parameters()]
        assert shapes == [(5, 3), (5,), (4, 5), (4,), (out, 4), (out,)]
        (w1, b1, w2, b2, w3, b3), linear = net.parameters(), torch.nn.functional.linear
        hidden = linear(linear(obs, w1, b1).tanh(), w2, b2).tanh()
        assert same_bits(net(obs), linear(hidden, w3, b3))


@on_all
def test_steps_are_adams(n):
    """With a step per epoch, --lr and --vf_lr are Adam's, the same in every epoch: its
    steps along the gradients of two epochs give the trained weights, to the bit."""
    more = {} if n < 3 else {"train_v_iters": 1, "vf_lr": 0.03}
    more |= {} if n < 4 else {"train_pi_iters": 1}
    one, two = (watch(n, "ScriptedBox", epochs=k, lr=0.02, **more) for k in (1, 2))
    for i, lr in enumerate((0.02, 0.03)[: 1 if n < 3 else 2]):
        weights = [*(one[0].policy, one[0].value)[i].parameters()]
        optimizer = torch.optim.Adam(weights, lr)
        for epochs in (one, two):
            trained = [*epochs[-1].trained[i].parameters()]
            for p, q in zip(weights, trained, strict=True):
                p.grad = q.grad
            optimizer.step()
            assert all(map(same_bits, weights, trained))


@on_all
def test_device_reaches_networks_and_tensors(n, monkeypatch):
    """--device goes to each network and to each tensor that is made of an array.

    It is held on the CPU by its other name, for not every machine has a GPU.
    """
    devices, nets = [], []
    as_tensor, to = torch.as_tensor, torch.nn.Module.to

    def spy(x, device=None):
        devices.append(device)
        return as_tensor(x, device=device)

    monkeypatch.setattr(torch, "as_tensor", spy)
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda net, x: (nets.append(x), to(net, x))[1]
    )
    (epoch,) = watch(n, "ScriptedDiscrete", epochs=1, device="cpu:0")
    assert nets == ["cpu:0"] * (1 if n < 3 else 2)
    assert devices == ["cpu:0"] * (len(epoch.batch["obs"]) + len(epoch.batch))
