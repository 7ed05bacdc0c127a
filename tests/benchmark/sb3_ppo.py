"""Stable-Baselines3's PPO as a program of its own, the peer that measure.py times.

    python tests/benchmark/sb3_ppo.py --env Pendulum-v1 --steps 480000 --last 32000
    python tests/benchmark/sb3_ppo.py --zoo

With its own defaults it trains for --steps and prints the mean return of the episodes
that ended within the --last steps. With --zoo it trains on CartPole-v1 with rl-zoo's
settings until the last 100 episodes average 475, for 100,000 steps at most.
"""

import argparse
from statistics import mean

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

SOLVED = 475


class Returns(BaseCallback):
    """Collect (steps so far, return) of each training episode; stop once solved."""

    def __init__(self, stop):
        super().__init__()
        self.stop = stop
        self.episodes = []

    def _on_step(self):
        ended = [x["episode"]["r"] for x in self.locals["infos"] if "episode" in x]
        self.episodes += [(self.num_timesteps, ret) for ret in ended]
        if not (self.stop and ended):
            return True
        last = [ret for _, ret in self.episodes[-100:]]
        return len(last) < 100 or mean(last) < SOLVED


def main():
    """Read the flags, train, print a line in the form of the six scripts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--last", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zoo", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings, num_envs = {}, 1
    if args.zoo:
        num_envs = 8
        settings = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98}
        settings |= {"gae_lambda": 0.8, "ent_coef": 0.0}
        settings["learning_rate"] = lambda left: 0.001 * left
        settings["clip_range"] = lambda left: 0.2 * left
    envs = make_vec_env(args.env, n_envs=num_envs, seed=args.seed)
    model = PPO("MlpPolicy", envs, seed=args.seed, device="cpu", **settings)
    returns = Returns(stop=args.zoo)
    model.learn(args.steps, callback=returns)
    since = returns.episodes[-100][0] if args.zoo else model.num_timesteps - args.last
    last = mean(ret for at, ret in returns.episodes if at >= since)
    print(f"epoch: 0 \t return: {last:.3f} \t steps: {model.num_timesteps}", flush=True)


if __name__ == "__main__":
    main()
