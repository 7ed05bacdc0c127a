"""Simplest policy gradient: the higher an episode's return, the likelier its actions.

    loss = -mean of log pi(a_t|s_t) R(tau)
    R(tau) = r_0 + r_1 + ..., the return of an episode tau
    s, a, r are obs, act, rew in the code; the mean is over the steps of all episodes

Run: python 1_simple_pg.py --env CartPole-v1
"""

import argparse

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal


def policy_loss(logp, weights):
    """Minus weighted logp (Spinning Up, part 3): inputs (batch,), returns a scalar.

    Only logp may carry a gradient.
    """
    return -(logp * weights).mean()


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


@torch.no_grad()
def rollout(envs, policy, max_ep_len, device):
    """Play one whole episode in each of N environments, at most max_ep_len steps.

    Return (T, N, ...) tensors, T the length of the longest episode: obs, act, rew,
    mask (true for the steps of the episode, its last included).
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
        steps.append((obs, act, rew, mask))
        obs, mask = next_obs, mask & ~done
    return [torch.as_tensor(np.stack(x), device=device) for x in zip(*steps)]


def train(
    *,
    env_name="CartPole-v1",
    hidden_sizes=(64,),
    lr=0.006,
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
    pi_optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    if render:
        # one more, to watch; sync, as Gymnasium's vectorised CartPole has no window
        window = make_envs(env_name, 1, vectorization_mode="sync", render_mode="human")
        window.reset(seed=seed)

    env_steps = 0
    for epoch in range(epochs):
        # play one episode in each environment
        obs, act, rew, mask = rollout(envs, policy, max_ep_len, device)
        ep_ret = rew.sum() / num_envs
        ep_len = mask.sum() / num_envs
        env_steps += mask.numel()  # steps that mask leaves out count, too

        # weigh each step by the return of its episode; a time limit counts as an end
        weights = rew.sum(0).expand_as(rew)
        obs, act, weights = obs[mask], act[mask], weights[mask]  # now (batch, ...)

        # take one policy gradient step
        logp = policy(obs).log_prob(act)
        loss = policy_loss(logp, weights)
        assert loss.isfinite(), f"epoch {epoch}: loss {loss}, return {ep_ret}"
        pi_optimizer.zero_grad()
        loss.backward()
        pi_optimizer.step()

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
    parser.add_argument("--epochs", type=int, help="rounds of play and update")
    parser.add_argument("--num_envs", type=int, help="episodes per epoch")
    parser.add_argument("--max_ep_len", type=int, help="cut off longer episodes")
    parser.add_argument("--seed", type=int, help="seeds torch and the environments")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--render", action="store_true", help="watch after each epoch")
    parser.add_argument("--save", help="file for the policy's state_dict")
    parser.set_defaults(**train.__kwdefaults__)  # the defaults of train's keywords
    train(**vars(parser.parse_args()))
