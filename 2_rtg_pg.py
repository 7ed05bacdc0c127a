"""Reward-to-go: an action answers only for the rewards that come after it.

    loss = -mean of log pi(a_t|s_t) R_t
    R_t = r_t + R_{t+1}

New since 1_simple_pg.py: reward_to_go.
Run: python 2_rtg_pg.py --env CartPole-v1
"""

import argparse
import inspect
import os

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal


def mlp(in_dim, hidden_sizes, out_dim):
    """Build a tanh network from (batch, in_dim) to (batch, out_dim)."""
    layers = []
    for size in hidden_sizes:
        layers += [nn.Linear(in_dim, size), nn.Tanh()]
        in_dim = size
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim))


class Policy(nn.Module):
    """pi(a|s): obs (batch, obs_dim) to a distribution whose log_prob(act) is (batch,).

    A softmax over Discrete actions; for a Box, a Gaussian with a learned std per axis.
    """

    def __init__(self, obs_dim, act_space, hidden_sizes):
        super().__init__()
        self.discrete = isinstance(act_space, gym.spaces.Discrete)
        act_dim = gym.spaces.flatdim(act_space)  # n of Discrete(n), or of a Box (n,)
        self.net = mlp(obs_dim, hidden_sizes, act_dim)
        if not self.discrete:
            self.log_std = nn.Parameter(torch.zeros(act_dim))

    def forward(self, obs):
        # validate_args=False saves time; train stops on nan by itself
        if self.discrete:
            return Categorical(logits=self.net(obs), validate_args=False)
        normal = Normal(self.net(obs), self.log_std.exp(), validate_args=False)
        return Independent(normal, 1)  # log_prob sums over the axes of an action


def make_envs(env_name, num_envs, **options):
    """Make num_envs environments that step together; options go to gym.make_vec."""
    envs = gym.make_vec(env_name, num_envs, **options)
    obs_space = envs.single_observation_space
    if not isinstance(obs_space, gym.spaces.Box) or len(obs_space.shape) != 1:
        envs = gym.wrappers.vector.FlattenObservation(envs)
    # the environment gets the action clipped to its bounds, the loss the one drawn
    if isinstance(envs.single_action_space, gym.spaces.Box):
        envs = gym.wrappers.vector.ClipAction(envs)
    return envs


@torch.no_grad()
def rollout(envs, policy, max_ep_len, device):
    """Play one whole episode in each of N environments, as make_envs makes them.

    Return (T, N, ...) tensors, T the length of the longest episode: obs, act, rew,
    mask (true while the episode lasts).
    """
    assert envs.metadata["autoreset_mode"] == gym.vector.AutoresetMode.NEXT_STEP, (
        "rollout needs next-step autoreset: else next_obs may be of the next episode"
    )
    obs, _ = envs.reset()
    obs = obs.astype(np.float32)
    mask = np.ones(envs.num_envs, dtype=bool)
    steps = []
    while mask.any():
        act = policy(torch.as_tensor(obs, device=device)).sample().cpu().numpy()
        next_obs, rew, terminated, truncated, _ = envs.step(act)
        next_obs = next_obs.astype(np.float32)
        # an environment whose episode is over plays on, masked, until all are over
        rew = np.where(mask, rew, 0).astype(np.float32)
        done = terminated | truncated | (len(steps) + 1 == max_ep_len)
        steps.append((obs, act, rew, mask))
        obs, mask = next_obs, mask & ~done
    # from a list of steps, each a tuple of arrays, to one (T, N, ...) tensor per entry
    return [torch.as_tensor(np.stack(x), device=device) for x in zip(*steps)]


def reward_to_go(rew):
    """Return R_t = rew_t + R_{t+1} for rew (T, N), zero after an episode's end."""
    ret = rew.clone()
    for t in reversed(range(len(ret) - 1)):
        ret[t] += ret[t + 1]
    return ret


def policy_loss(logp, weights):
    """Weighted log-probs (Spinning Up, part 3): inputs (batch,), returns a scalar."""
    return -(logp * weights).mean()


def watch(window, policy, max_ep_len, device):
    """Show an episode, without changing the random numbers that training draws."""
    with torch.random.fork_rng():
        rollout(window, policy, max_ep_len, device)


def train(
    env_name="CartPole-v1",
    hidden_sizes=(64,),
    lr=0.005,
    epochs=100,
    num_envs=12,
    max_ep_len=1000,
    seed=0,
    device="cpu",
    render=False,
    save=None,
):
    """Train and return a Policy; the keywords are the flags that --help explains.

    Raises AssertionError with a sentence that names the flag, or the library's error.
    """
    # refuse bad values before anything starts
    assert min(hidden_sizes) >= 1, f"--hidden_sizes {hidden_sizes}: use 1 or more"
    assert epochs >= 1, f"--epochs {epochs}: use 1 or more"
    assert num_envs >= 1, f"--num_envs {num_envs}: use 1 or more"
    assert max_ep_len >= 1, f"--max_ep_len {max_ep_len}: use 1 or more"
    if save:
        folder = os.path.dirname(save) or "."
        writable = os.path.isdir(folder) and os.access(folder, os.W_OK)
        assert writable, f"--save {save}: cannot write to {folder}"
        taken = os.path.exists(save) and not os.path.isfile(save)
        assert not taken, f"--save {save}: there is something else, name another file"

    # make the environments and the networks, all from one seed
    torch.manual_seed(seed)
    envs = make_envs(env_name, num_envs)
    envs.reset(seed=seed)  # the resets in rollout go on from here
    if render:
        # sync, as Gymnasium's own vectorised CartPole has no window to show
        window = make_envs(env_name, 1, vectorization_mode="sync", render_mode="human")
    obs_dim = envs.single_observation_space.shape[0]
    act_space = envs.single_action_space
    # other actions would need another Policy
    discrete = isinstance(act_space, gym.spaces.Discrete) and act_space.start == 0
    box = isinstance(act_space, gym.spaces.Box) and len(act_space.shape) == 1
    floats = act_space.dtype in (np.float32, np.float64)
    assert discrete or (box and floats), (
        f"--env {env_name}: {act_space} is not served, only Discrete(n) and float Box (n,)"
    )
    policy = Policy(obs_dim, act_space, hidden_sizes).to(device)
    pi_optimizer = torch.optim.Adam(policy.parameters(), lr=lr)

    env_steps = 0
    for epoch in range(epochs):
        # play one episode in each environment, with the policy as it is
        obs, act, rew, mask = rollout(envs, policy, max_ep_len, device)
        ep_ret = rew.sum() / num_envs
        ep_len = mask.sum() / num_envs
        env_steps += mask.numel()  # with the steps that mask drops
        if render:
            watch(window, policy, max_ep_len, device)

        # weigh each step by the rewards to come; a time limit ends the episode too
        weights = reward_to_go(rew)
        obs, act, weights = obs[mask], act[mask], weights[mask]

        # take one policy gradient step
        logp = policy(obs).log_prob(act)
        loss = policy_loss(logp, weights)
        pi_optimizer.zero_grad()
        loss.backward()
        pi_optimizer.step()

        # stop before a policy that has diverged replaces the last good file
        logp = policy(obs).log_prob(act)
        assert logp.isfinite().all(), f"epoch {epoch} diverged: lower --lr"
        if save:
            torch.save(policy.state_dict(), f"{save}.tmp")
            os.replace(f"{save}.tmp", save)  # a kill leaves the old file or the new one

        # report
        print(
            f"epoch: {epoch:3d} \t loss: {loss:.3f} \t return: {ep_ret:.3f} \t "
            f"ep_len: {ep_len:.3f} \t steps: {env_steps}",
            flush=True,
        )
    return policy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--env", "--env_name", dest="env_name", help="Gymnasium id")
    parser.add_argument("--hidden_sizes", type=int, nargs="+", help="units per layer")
    parser.add_argument("--lr", type=float, help="step size of the policy")
    parser.add_argument("--epochs", type=int, help="rounds of play and update")
    parser.add_argument("--num_envs", type=int, help="episodes per epoch, side by side")
    parser.add_argument("--max_ep_len", type=int, help="cut off longer episodes")
    parser.add_argument("--seed", type=int, help="seeds torch and the environments")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--render", action="store_true", help="watch it in a window")
    parser.add_argument("--save", help="file for the policy's state_dict, kept current")
    parameters = inspect.signature(train).parameters.values()
    parser.set_defaults(**{p.name: p.default for p in parameters})
    torch.set_num_threads(1)  # nets this small gain nothing from more
    train(**vars(parser.parse_args()))
