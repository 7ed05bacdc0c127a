"""Reuse the batch: take several steps on it, reweighted by the ratio of new to old pi.

    loss = -mean of ratio_t A_t
    ratio_t = pi(a_t|s_t) / pi_old(a_t|s_t); at 1 the gradient is that of 3
    A_t = R_t - V(s_t), the advantage
    R_t = r_t + gamma R_{t+1}; gamma < 1 makes later rewards count less
    R_T = V(s_T) if a time limit cut the episode after T steps, else 0

New since 3_baseline_pg.py: the ratio, and several policy steps per epoch.
Run: python 4_ppo_no_clip.py --env CartPole-v1
"""

import argparse

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal


def policy_loss(logp, logp_old, adv):
    """Minus L^CPI (PPO, Schulman 2017, eq. 6): inputs (batch,), returns a scalar.

    Only logp may carry a gradient.
    """
    ratio = torch.exp(logp - logp_old)  # pi / pi_old
    return -(ratio * adv).mean()


def reward_to_go(rew, gamma):
    """Return R_t = rew_t + gamma R_{t+1}; rew (T, N), an episode a column, then 0."""
    ret = rew.clone()
    for t in reversed(range(len(ret) - 1)):
        ret[t] += gamma * ret[t + 1]
    return ret


def mlp(in_dim, hidden_sizes, out_dim):
    """Build a tanh network from (batch, in_dim) to (batch, out_dim)."""
    layers = []
    for size in hidden_sizes:
        layers += [nn.Linear(in_dim, size), nn.Tanh()]
        in_dim = size
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim))


class Policy(nn.Module):
    """pi(a|s): obs (batch, obs_dim) to a distribution whose log_prob(act) is (batch,).

    Discrete: a softmax, act (batch,). Box: a Gaussian with a learned std per axis, act
    (batch, act_dim), which make_envs takes from [-1, 1] to the bounds.
    """

    def __init__(self, obs_dim, act_space, hidden_sizes):
        super().__init__()
        self.discrete = isinstance(act_space, gym.spaces.Discrete)
        act_dim = int(act_space.n) if self.discrete else act_space.shape[0]
        self.net = mlp(obs_dim, hidden_sizes, act_dim)
        if not self.discrete:
            self.log_std = nn.Parameter(torch.zeros(act_dim))

    def forward(self, obs):
        if self.discrete:
            return Categorical(logits=self.net(obs))
        normal = Normal(self.net(obs), self.log_std.exp())
        return Independent(normal, 1)  # log_prob sums over the axes of an action


class Value(nn.Module):
    """V(s), the expected reward-to-go from s: obs (batch, obs_dim) to (batch,)."""

    def __init__(self, obs_dim, hidden_sizes):
        super().__init__()
        self.net = mlp(obs_dim, hidden_sizes, 1)
        # train sets them to those of the returns
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))

    def forward(self, obs):
        out = self.net(obs).squeeze(-1)  # (batch, 1) - (batch,) would broadcast
        return self.mean + self.std * out


@torch.no_grad()
def rollout(envs, policy, max_ep_len, device):
    """Play one whole episode in each of N environments, at most max_ep_len steps.

    Return (T, N, ...) tensors, T the length of the longest episode: obs, act, rew,
    mask (true for the steps of the episode, its last included), next_obs, cut (true at
    the step where a time limit ended it). Needs next-step autoreset, Gymnasium's
    default: an episode's last next_obs is then its own, not the first of the next.
    """
    obs, _ = envs.reset()
    mask = np.ones(envs.num_envs, bool)
    steps = []
    while mask.any() and len(steps) < max_ep_len:
        obs = np.array(obs, np.float32)  # a copy: some environments reuse the array
        act = policy(torch.as_tensor(obs, device=device)).sample().cpu().numpy()
        next_obs, rew, terminated, truncated, _ = envs.step(act)
        # one that is done plays on until all are; mask drops its steps, their rew is 0
        rew = np.where(mask, rew, 0).astype(np.float32)
        done = np.logical_or(terminated, truncated)
        timeout = len(steps) + 1 == max_ep_len  # + 1 for this step
        cut = mask & (done | timeout) & np.logical_not(terminated)
        steps.append((obs, act, rew, mask, np.array(next_obs, np.float32), cut))
        obs, mask = next_obs, mask & ~done
    return [torch.as_tensor(np.stack(x), device=device) for x in zip(*steps)]


def train(
    *,
    env_name="CartPole-v1",
    hidden_sizes=(64,),
    lr=0.006,
    vf_lr=0.02,
    gamma=0.99,
    train_pi_iters=8,
    train_v_iters=40,
    epochs=50,
    num_envs=8,
    max_ep_len=1000,
    seed=0,
    device="cpu",
    render=False,
    save=None,
):
    """Train and return a Policy; the keywords are the flags that --help explains.

    Seeds torch's global generator and leaves torch on one thread.
    """
    # make everything from one seed
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # networks this small are no faster with more
    envs = make_envs(env_name, num_envs)
    envs.reset(seed=seed)  # once; rollout's resets go on from here, to new first states
    obs_dim = gym.spaces.flatdim(envs.single_observation_space)
    policy = Policy(obs_dim, envs.single_action_space, hidden_sizes).to(device)
    value = Value(obs_dim, hidden_sizes).to(device)
    pi_optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    v_optimizer = torch.optim.Adam(value.parameters(), lr=vf_lr)
    if render:
        # one more, to watch; sync, as Gymnasium's vectorised CartPole has no window
        window = make_envs(env_name, 1, vectorization_mode="sync", render_mode="human")
        window.reset(seed=seed)

    env_steps = 0
    for epoch in range(epochs):
        # play one episode in each environment
        obs, act, rew, mask, next_obs, cut = rollout(envs, policy, max_ep_len, device)
        ep_ret = rew.sum() / num_envs
        ep_len = mask.sum() / num_envs
        env_steps += mask.numel()  # steps that mask leaves out count, too

        # put V on the scale of the returns: a bare network starts near 0 and learns in
        # units of 1
        paid = reward_to_go(rew, gamma)[mask]
        if epoch == 0 and paid.max() > paid.min():
            value.mean, value.std = paid.mean(), paid.std()

        # where a time limit cut an episode, V(s_T) stands for what was cut off: R_T is
        # V(s_T), and as R_t = rew_t + gamma R_{t+1}, the last rew takes gamma R_T
        rew[cut] += gamma * value(next_obs[cut]).detach()
        ret = reward_to_go(rew, gamma)
        obs, act, ret = obs[mask], act[mask], ret[mask]  # now (batch, ...)
        adv = ret - value(obs).detach()

        # take policy gradient steps; logp_old, of the policy that played, is a constant
        # and computed here, as logp is, so that the first ratio is exactly 1
        logp_old = policy(obs).log_prob(act).detach()
        for _ in range(train_pi_iters):
            logp = policy(obs).log_prob(act)
            loss = policy_loss(logp, logp_old, adv)
            assert loss.isfinite(), f"epoch {epoch}: loss {loss}, return {ep_ret}"
            pi_optimizer.zero_grad()
            loss.backward()
            pi_optimizer.step()

        # fit V only now: if it had been fitted to these returns, adv would be near 0
        for _ in range(train_v_iters):
            v_loss = ((value(obs) - ret) ** 2).mean()
            v_optimizer.zero_grad()
            v_loss.backward()
            v_optimizer.step()

        # report; watch return: loss need not fall, only its gradient has a meaning
        print(
            f"epoch: {epoch:3d} \t loss: {loss:.3f} \t return: {ep_ret:.3f} \t "
            f"ep_len: {ep_len:.3f} \t steps: {env_steps}",
            flush=True,
        )
        if save:
            torch.save(policy.state_dict(), save)
        if render:
            rollout(window, policy, max_ep_len, device)
    envs.close()
    if render:
        window.close()
    return policy


def make_envs(env_name, num_envs, **options):
    """Make num_envs environments that step together; options go to gym.make_vec."""
    envs = gym.make_vec(env_name, num_envs, **options)
    obs_space, act_space = envs.single_observation_space, envs.single_action_space
    if not isinstance(obs_space, gym.spaces.Box) or len(obs_space.shape) != 1:
        envs = gym.wrappers.vector.FlattenObservation(envs)
    if isinstance(act_space, gym.spaces.Discrete) and act_space.start == 0:
        return envs
    box = isinstance(act_space, gym.spaces.Box) and len(act_space.shape) == 1
    assert box, f"{act_space} needs another Policy"
    # rescale actions from [-1, 1] to the bounds, if finite, then clip to the bounds:
    # the last wrapper acts first, and log_prob stays that of the action as drawn
    low, high = act_space.low, act_space.high
    envs = gym.wrappers.vector.TransformAction(envs, lambda act: act.clip(low, high))
    if act_space.is_bounded():
        envs = gym.wrappers.vector.RescaleAction(envs, -1, 1)
    return envs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--env_name", "--env", help="Gymnasium id")
    parser.add_argument("--hidden_sizes", type=int, nargs="*", help="units per layer")
    parser.add_argument("--lr", type=float, help="learning rate of the policy")
    parser.add_argument("--vf_lr", type=float, help="learning rate of V, the baseline")
    parser.add_argument("--gamma", type=float, help="discount")
    parser.add_argument("--train_pi_iters", type=int, help="policy updates per epoch")
    parser.add_argument("--train_v_iters", type=int, help="updates of V per epoch")
    parser.add_argument("--epochs", type=int, help="rounds of play and update")
    parser.add_argument("--num_envs", type=int, help="episodes per epoch")
    parser.add_argument("--max_ep_len", type=int, help="cut off longer episodes")
    parser.add_argument("--seed", type=int, help="seeds torch and the environments")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--render", action="store_true", help="watch after each epoch")
    parser.add_argument("--save", help="file for the policy's state_dict")
    parser.set_defaults(**train.__kwdefaults__)  # the defaults of train's keywords
    train(**vars(parser.parse_args()))
