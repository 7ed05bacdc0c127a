"""Baseline: an action answers only for what it gained over V(s), the expected return.

    loss = -mean of log pi(a_t|s_t) A_t, A_t = R_t - V(s_t), R_t = rew_t + gamma R_{t+1}

New since 2_rtg_pg.py: V, gamma, cut. Run: python 3_baseline_pg.py --env CartPole-v1"""

import argparse
import os
from itertools import accumulate, pairwise

import gymnasium as gym
import numpy as np
import torch
from torch import distributions as dist
from torch import nn


class Adam(torch.optim.Adam):
    """torch.optim.Adam without the wrappers that import torch's compiler: 1 s saved."""

    add_param_group = torch.optim.Adam.add_param_group.__wrapped__
    step = torch.no_grad()(torch.optim.Adam.step.__wrapped__)


def mlp(*sizes):
    """Build a tanh network from (batch, sizes[0]) to (batch, sizes[-1])."""
    layers = [f for n, m in pairwise(sizes) for f in (nn.Linear(n, m), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


class Policy(nn.Module):
    """pi(a|s): obs (batch, obs_dim) to a distribution whose log_prob is (batch,)."""

    def __init__(self, obs_dim, act_space, hidden_sizes):
        super().__init__()
        box = act_space.dtype in (np.float32, np.float64) and len(act_space.shape) == 1
        discrete = isinstance(act_space, gym.spaces.Discrete) and act_space.start == 0
        assert box or discrete, f"{act_space}: use Discrete(n) or a 1-axis float Box"
        self.net = mlp(obs_dim, *hidden_sizes, gym.spaces.flatdim(act_space))
        self.log_std = nn.Parameter(torch.zeros(act_space.shape)) if box else None

    def forward(self, obs):
        if self.log_std is None:
            return dist.Categorical(logits=self.net(obs), validate_args=False)
        normal = dist.Normal(self.net(obs), self.log_std.exp(), validate_args=False)
        return dist.Independent(normal, 1, validate_args=False)


@torch.no_grad()
def rollout(envs, policy, max_ep_len, device):
    """Play one whole episode in each of N environments. Return (T, N, ...) tensors:
    obs, act, rew, mask (true until it ends), next_obs, cut (by a time limit)."""
    if isinstance(envs.single_action_space, gym.spaces.Box):
        envs = gym.wrappers.vector.ClipAction(envs)
    if not isinstance(envs.single_observation_space, gym.spaces.Box):
        envs = gym.wrappers.vector.FlattenObservation(envs)
    obs = envs.reset()[0].astype(np.float32).reshape(envs.num_envs, -1)
    steps, mask = [], np.ones(envs.num_envs, dtype=bool)
    while mask.any():  # those that are done play on, masked, until all are
        act = policy(torch.as_tensor(obs, device=device)).sample().cpu().numpy()
        next_obs, rew, terminated, truncated, _ = envs.step(act)
        next_obs = next_obs.astype(np.float32).reshape(obs.shape)
        rew = np.where(mask, rew, 0).astype(np.float32)
        done = terminated | truncated | (len(steps) + 1 >= max_ep_len)
        steps.append((obs, act, rew, mask, next_obs, mask & done & ~terminated))
        obs, mask = next_obs, mask & ~done
    return [torch.as_tensor(np.stack(x), device=device) for x in zip(*steps)]


def reward_to_go(rew, gamma):
    """Return R_t = rew_t + gamma R_{t+1} for rew (T, N), from the end on."""
    return torch.stack([*accumulate(rew.flip(0), lambda R, r: r + gamma * R)]).flip(0)


def policy_loss(logp, adv):
    """Weighted log-probs (Schulman 2016, eq. 1): inputs (batch,), returns a scalar."""
    return -(logp * adv).mean()


def train(env_name="CartPole-v1", hidden_sizes=(16,), lr: float = 0.06, epochs: int = 50,
          num_envs: int = 40, render=False, seed: int = 0, max_ep_len: int = 1000,
          device: str = "cpu", save: str = "", gamma: float = 0.99, vf_lr: float = 0.2,
          train_v_iters: int = 20):  # fmt: skip
    """Train and return a Policy; AssertionError, or a library's error, if it cannot."""
    for (flag, x), d in [*zip(locals().items(), train.__defaults__)]:  # d: its default
        x, ok = np.asarray(x), {int: "iu", float: "iuf", str: "UO"}.get(type(d), "bi")
        assert x.ndim == np.ndim(d) and x.dtype.kind in ok, f"--{flag} {x}: wrong type"
        if x.dtype.kind in "iuf" and flag not in ("seed", "gamma", "render"):
            assert np.all((0 < x) & (x < 1e37)), f"--{flag} {x}: must be > 0, < 1e37"
    assert 0 <= gamma <= 1, f"--gamma {gamma}: give a number from 0 to 1"
    assert os.path.exists(save) == os.path.isfile(save), f"--save {save}: give a file"
    # make the environments and the networks, all from one seed
    torch.manual_seed(seed)
    envs = gym.make_vec(env_name, num_envs)
    envs.reset(seed=seed)
    window = gym.make_vec(env_name, 1, "sync", render_mode="human") if render else None
    obs_dim = gym.spaces.flatdim(envs.single_observation_space)
    policy = Policy(obs_dim, envs.single_action_space, hidden_sizes).to(device)
    value = nn.Sequential(mlp(obs_dim, *hidden_sizes, 1), nn.Flatten(0)).to(device)
    pi_optimizer = Adam(policy.parameters(), lr)
    v_optimizer = Adam(value.parameters(), vf_lr)
    open(f"{save}.tmp" if save else os.devnull, "ab").close()  # fails if unwritable
    params, steps = [*policy.parameters(), *value.parameters()], 0
    for epoch in range(epochs):
        # play an episode in each environment; on a forked RNG watching changes nothing
        obs, act, rew, mask, next_obs, cut = rollout(envs, policy, max_ep_len, device)
        ep_ret, ep_len = rew.sum() / num_envs, mask.sum() / num_envs
        steps += mask.numel()
        if render:
            torch.random.fork_rng()(rollout)(window, policy, max_ep_len, device)
        # an episode cut by a time limit is not over: V(s_T) stands in for its rest
        rew[cut] += gamma * value(next_obs[cut]).detach()
        obs, act, ret = obs[mask], act[mask], reward_to_go(rew, gamma)[mask]
        adv = ret - value(obs).detach()
        # take one policy gradient step
        logp = policy(obs).log_prob(act)
        loss = policy_loss(logp, adv)
        policy.zero_grad()
        loss.backward()
        pi_optimizer.step()
        # fit V to the returns, now that adv has used the V before it
        for _ in range(train_v_iters):
            value.zero_grad()
            ((value(obs) - ret) ** 2).mean().backward()
            v_optimizer.step()
        # stop if diverged, save (a kill leaves the old file or the new), then report
        norm = sum(p.norm() for p in [*params, policy(obs[:1]).entropy()])  # std too
        assert norm < 1e6, f"epoch {epoch} diverged: lower --lr, --vf_lr or --*_iters"
        if save:
            torch.save(policy.state_dict(), f"{save}.tmp")
            os.replace(f"{save}.tmp", save)
        print(f"epoch: {epoch:3d} \t loss: {loss:.3f} \t return: {ep_ret:.3f}", end="")
        print(f" \t ep_len: {ep_len:.3f} \t steps: {steps}", flush=True)
    return policy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    parser.add_argument("--env", "--env_name", dest="env_name")
    parser.add_argument("--hidden_sizes", type=int, nargs="+")
    parser.add_argument("--render", action="store_true")
    for name, kind in train.__annotations__.items():
        parser.add_argument(f"--{name}", type=kind)
    train(**vars(parser.parse_args()))
