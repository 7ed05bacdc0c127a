"""Rollout and updates, against environments whose every number is known (toy_envs.py)."""

import inspect
import math
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.common import load, on_all, rows, same, train
from tests.toy_envs import ACTIONS, PLAN, Sampled, Scripted, reward, toy

NAMES = ["obs", "act", "rew", "mask", "next_obs", "cut"]
# the flags of test_updates_... by the script that brings them
FLAGS = {1: {"epochs": 3, "lr": 0.01, "hidden_sizes": (), "seed": 4}}
FLAGS |= {3: {"gamma": 0.75, "vf_lr": 0.1, "train_v_iters": 8}}
FLAGS |= {4: {"train_pi_iters": 3}, 6: {"clip_ratio": 0.1}}
# rollout and networks of 2 are copies of 1's, those of 3 to 5 of 6's, see test_ladder.py
on_ends = pytest.mark.parametrize("n", [1, 6])


def play(n, env, max_ep_lens=(1000,), **options):
    """Return five environments and rollouts of an untrained policy there, by name."""
    script = load(n)
    torch.manual_seed(0)
    envs = script.make_envs(env, 5, **options)
    envs.reset(seed=0)
    policy = script.Policy(3, envs.single_action_space, (4,))
    plays = [script.rollout(envs, policy, x, "cpu") for x in max_ep_lens]
    return envs, [dict(zip(NAMES, batch)) for batch in plays]


def by_hand(starts, max_ep_len=1000):
    """Return the rollout that PLAN says, starts (N, 3) the first observations.

    Observations count under the mask only, next_obs only where an episode was cut.
    """
    i, episode, _ = starts.T
    length, terminated, _ = torch.tensor([PLAN[int(x)] for x in i]).T
    end = length.clamp(max=max_ep_len)
    t = torch.arange(int(end.max()))[:, None]
    mask, over = t < end, (t + 1 == length) & terminated.bool()
    obs = torch.stack(torch.broadcast_tensors(i, episode, t.float()), -1)
    rew = torch.where(mask, reward(i, episode, t), 0)
    next_obs, cut = obs + torch.tensor([0, 0, 1]), (t + 1 == end) & ~over
    return dict(zip(NAMES, (obs, None, rew, mask, next_obs, cut)))


@pytest.mark.parametrize("copy", [True, False])
@on_ends
def test_rollout_is_one_whole_episode_each(n, copy):
    """Each rollout has one new episode per environment, cut at max_ep_len if it is longer.

    What comes after an episode (the reset, other episodes, their rewards) is masked; with
    copy=False, an option of Gymnasium's, the environments write over what they returned.
    """
    max_ep_lens, options = [*range(1, 11), 1000], {"vector_kwargs": {"copy": copy}}
    _, plays = play(n, toy(Scripted), max_ep_lens, **options)
    last = torch.zeros(len(PLAN))  # episode 0 began with the seeded reset
    for max_ep_len, batch in zip(max_ep_lens, plays, strict=True):
        starts = batch["obs"][0]
        hand = by_hand(starts, max_ep_len)
        for name in batch.keys() - {"act"}:
            at = {"obs": hand["mask"], "next_obs": hand["cut"]}.get(name, ...)
            assert batch[name].dtype == hand[name].dtype, name
            assert torch.equal(batch[name][at], hand[name][at]), name
        assert starts[:, 0].tolist() == [*range(len(PLAN))]
        assert (starts[:, 1] > last).all()
        last = batch["obs"][:, :, 1].amax(0)


@pytest.mark.parametrize("actions", ACTIONS)
@on_ends
def test_environments_get_the_actions_of_the_batch(n, actions):
    """Each action reaches its environment at its step, a Box action taken from
    [-1, 1] to its bounds on the way, if these are finite, and clipped to those that are."""
    envs, (batch,) = play(n, toy(Scripted, actions=actions))
    space = envs.unwrapped.single_action_space
    for i, single in enumerate(envs.unwrapped.envs):
        got = [act for episode, act in single.unwrapped.log if episode == 1]
        act = batch["act"][:, i][batch["mask"][:, i]].numpy()
        if actions == "bounded":
            share = (np.clip(act, -1, 1) + 1) / 2
            act = space.low + share * (space.high - space.low)
        elif actions == "half":
            act = np.maximum(act, 0)
        np.testing.assert_allclose(got, act, rtol=1e-6, atol=1e-7)


def watch(n, env, **flags):
    """Run train() of script n; return its rollouts, by name, copies of the networks as the
    first of them found them, and what train() printed and returned."""
    script, seen = load(n), SimpleNamespace(batches=[], value=None)
    rollout, make_value = script.rollout, getattr(script, "Value", None)

    def value(*args, **options):
        seen.value = make_value(*args, **options)
        return seen.value

    def spy(envs, policy, *args, **options):
        if not seen.batches:
            seen.policy, seen.value = deepcopy((policy, seen.value))
        batch = rollout(envs, policy, *args, **options)
        seen.batches.append({name: x.clone() for name, x in zip(NAMES, batch)})
        return batch

    script.Value, script.rollout = value, spy
    seen.printed, seen.trained = train(script, env, **flags)
    return seen


def step(optimizer, loss):
    """Take one gradient step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def returns(rew, gamma):
    """Return the sums (T, N) of gamma^k rew_{t+k} over k, rew (T, N)."""
    sums = [torch.zeros_like(rew[0])]
    for x in reversed(rew):
        sums.append(x + gamma * sums[-1])
    return torch.stack(sums[:0:-1])


@pytest.mark.parametrize("num_envs", [5, 1])
@pytest.mark.parametrize("max_ep_len", [4, 1000])
@pytest.mark.parametrize("actions", ["Discrete", "bounded"])
@on_all
def test_updates_bootstrap_and_fit_of_v(n, actions, max_ep_len, num_envs):
    """The printed lines and the trained weights are those of the loop below, which knows of
    a run only its first networks, here linear, its first observations and its actions.

    R(tau) in script 1, the reward-to-go in 2; from 3 on R_t - V(s_t) with gamma, and
    gamma V(s_T) where a time limit cuts, V as it was before this epoch's fit, its units the
    mean and std of what was paid from each step of the first epoch on.
    """
    flags = {name: x for m in FLAGS if m <= n for name, x in FLAGS[m].items()}
    flags |= {"max_ep_len": max_ep_len, "num_envs": num_envs}
    run = watch(n, toy(Scripted, actions=actions), **flags)
    policy, value, policy_loss = run.policy, run.value, load(n).policy_loss
    pi_adam = torch.optim.Adam(policy.parameters(), flags["lr"])
    v_adam = value and torch.optim.Adam(value.parameters(), flags["vf_lr"])
    gamma, steps = flags.get("gamma", 1), 0
    for batch, line in zip(run.batches, rows(run.printed), strict=True):
        hand = by_hand(batch["obs"][0], max_ep_len)
        mask, rew = hand["mask"], hand["rew"]
        obs, act = hand["obs"][mask], batch["act"][mask]
        after, paid = torch.zeros_like(rew), returns(rew, gamma)[mask]
        if value and line["epoch"] == 0:
            value.mean, value.std = paid.mean(), paid.std()
        if value:
            after[hand["cut"]] = value(hand["next_obs"][hand["cut"]]).detach()
        ret = returns(rew + gamma * after, gamma)
        ret = (ret[0].expand_as(ret) if n == 1 else ret)[mask]
        adv = ret - value(obs).detach() if value else ret
        logp_old = policy(obs).log_prob(act).detach()
        rest = [*[logp_old] * (n > 3), adv, *[flags.get("clip_ratio")] * (n > 5)]
        for _ in range(flags.get("train_pi_iters", 1)):
            loss = policy_loss(policy(obs).log_prob(act), *rest)
            step(pi_adam, loss)
        for _ in range(flags.get("train_v_iters", 0)):
            step(v_adam, ((value(obs) - ret) ** 2).mean())
        steps += rew.numel()
        told = {"epoch": line["epoch"], "steps": steps}
        told["ep_len"] = mask.sum().item() / num_envs
        told["return"] = rew.sum().item() / num_envs
        assert line.pop("loss") == pytest.approx(loss.item(), abs=1e-3)
        assert line == pytest.approx(told, rel=1e-4, abs=1e-3)
    for name, wanted in policy.state_dict().items():
        torch.testing.assert_close(run.trained[name], wanted, rtol=0, atol=2e-6)


@on_all
def test_only_logp_carries_a_gradient(n, scripts, monkeypatch):
    """Of what train() hands to policy_loss: pi_old, V and the bootstrap are constants."""
    policy_loss, found = scripts[n].policy_loss, []

    def spy(*args, **options):
        given = inspect.signature(policy_loss).bind(*args, **options).arguments
        tensors = {name: x for name, x in given.items() if torch.is_tensor(x)}
        found.append({name for name, x in tensors.items() if x.requires_grad})
        return policy_loss(*args, **options)

    monkeypatch.setattr(scripts[n], "policy_loss", spy)
    train(scripts[n], "Pendulum-v1", epochs=2, num_envs=2, max_ep_len=5)
    assert found
    assert all(names == {"logp"} for names in found)


@pytest.mark.parametrize("actions", ["Discrete", "free"])
@on_all
def test_networks(n, actions):
    """Policy and V are tanh networks of --hidden_sizes, their last layer linear. log_prob is
    that of a softmax, or of Gaussians with std exp(log_std), summed over the axes of an
    action; V is (batch,), also for no observation."""
    run = watch(n, toy(Scripted, actions=actions), epochs=1, hidden_sizes=(5, 4))
    (batch,), policy = run.batches, run.policy
    obs, act = (batch[name][batch["mask"]] for name in ("obs", "act"))
    values = [(run.value.net, 1)] if n >= 3 else []
    for net, out in ((policy.net, 3 if actions == "Discrete" else 2), *values):
        assert [len(x) for x in net.parameters()] == [5, 5, 4, 4, out, out]
        w1, b1, w2, b2, w3, b3 = net.parameters()
        hand = ((obs @ w1.T + b1).tanh() @ w2.T + b2).tanh() @ w3.T + b3
        torch.testing.assert_close(net(obs), hand)
    if actions == "Discrete":
        logp = policy.net(obs).log_softmax(-1)[torch.arange(len(obs)), act]
    else:
        assert 0.7 < (act - policy.net(obs)).std() < 1.3  # drawn, and not the mean
        assert policy.log_std.shape == (2,)  # one per axis
        policy.log_std.data = log_std = torch.tensor([-1.0, 0.5])
        z = (act - policy.net(obs)) / log_std.exp()
        logp = (-(z**2) / 2 - log_std - math.log(2 * math.pi) / 2).sum(-1)
    torch.testing.assert_close(policy(obs).log_prob(act), logp)
    if n >= 3:
        assert [len(run.value(obs[:k])) for k in (0, 1, 5)] == [0, 1, 5]


@on_all
def test_the_seed_reaches_environments_and_networks(n):
    """Two seeds differ in both; and epochs differ in first observations.

    Environment i has seed + i, so seeds further apart than N share no environment.
    """
    runs = [watch(n, toy(Sampled), seed=x, epochs=3, num_envs=5) for x in (0, 100)]
    starts = torch.cat([batch["obs"][0] for run in runs for batch in run.batches])
    assert len(starts.unique()) == starts.numel()
    assert not same(*(run.policy.state_dict() for run in runs))
