"""Small environments whose every number is known.

On the command line ``--env tests.toy_envs:Compass-v0``; tests get others from ``toy``.
"""

from copy import deepcopy
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

# length, terminated, truncated of each Scripted environment's episodes
PLAN = [(3, 1, 0), (5, 0, 1), (2, 1, 1), (7, 1, 0), (9, 0, 1)]
ACTIONS = {
    "Discrete": Discrete(3),
    "bounded": Box(np.float32([-0.25, 10]), np.float32([0.5, 20])),
    "half": Box(0, np.inf, (2,)),
    "free": Box(-np.inf, np.inf, (2,)),
}


def reward(i, episode, t):
    """Return what environment i pays at step t of an episode."""
    return (10 * i + 3 * episode + t + 1) / 8


class Scripted(gym.Env):
    """Environment i plays PLAN[i] over and over and shows (i, number of the episode, t).

    i is its first seed: vector environments seed theirs with seed, seed + 1, and so on.
    ``log`` has (episode, action) of each step.
    """

    observation_space = Box(-np.inf, np.inf, (3,))

    def __init__(self, actions="Discrete"):
        self.action_space = ACTIONS[actions]
        self.i, self.episode, self.log = None, -1, []

    def reset(self, *, seed=None, options=None):
        self.i = seed % len(PLAN) if self.i is None else self.i
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.i, self.episode, 0], np.float32), {}

    def step(self, action):
        self.log.append((self.episode, np.copy(action)))
        rew = reward(self.i, self.episode, self.t)
        self.t += 1
        length, *ends = PLAN[self.i]
        terminated, truncated = (self.t == length and end == 1 for end in ends)
        obs = np.array([self.i, self.episode, self.t], np.float32)
        return obs, rew, terminated, truncated, {}


class Sampled(gym.Env):
    """Episodes of ``length`` steps with samples of a space as observations, kept in ``log``.

    An action from outside the space is an error. ``pay`` is the reward. ``watched`` has
    the number of each step in a window, where an observation that begins above 0 ends the
    episode, too. ``open`` counts the environments that are not yet closed.
    """

    metadata: ClassVar = {"render_modes": ["human"], "render_fps": 1000}
    watched: ClassVar = []
    open = 0
    observation_space = Box(-1e6, 1e6, (3,), np.float64)
    action_space, pay, length = ACTIONS["Discrete"], 1.0, 3

    def __init__(self, render_mode=None, **options):
        vars(self).update(options)
        self.render_mode, self.log = render_mode, []
        Sampled.open += 1

    def observe(self):
        self.log.append(self.observation_space.sample())
        return self.log[-1]

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.observation_space = deepcopy(self.observation_space)
            self.observation_space.seed(seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} reached the environment"
        self.t += 1
        obs, over = self.observe(), self.t == self.length
        if self.render_mode:
            self.watched.append(self.t)
            over |= obs[0] > 0
        return obs, self.pay, over, False, {}

    def close(self):
        Sampled.open -= 1


class Compass(gym.Env):
    """Walk towards a corner: the observation is a corner (+-1, +-1), drawn once an episode.

    The reward is the mean of corner * action, the action taken from its bounds to [-1, 1],
    plus ``offset``, all of it times ``scale``. Without these whoever does not look gets 0
    in expectation, the best 1 a step, 10 an episode of the usual ``length``.
    """

    observation_space = Box(-1, 1, (2,))

    def __init__(self, low=-1, high=1, offset=0, scale=1, length=10):
        self.action_space = Box(low, high, (2,))
        self.middle, self.half = (low + high) / 2, (high - low) / 2
        self.offset, self.scale, self.length = offset, scale, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.corner = 0, self.np_random.choice([-1, 1], 2).astype(np.float32)
        return self.corner, {}

    def step(self, action):
        self.t += 1
        rew = np.mean(self.corner * (action - self.middle) / self.half) + self.offset
        return self.corner, self.scale * rew, self.t == self.length, False, {}


def toy(kind, **options):
    """Register a kind of environment with its options under a new id, and return the id."""
    name = f"Toy{len(gym.registry)}-v0"
    gym.register(name, kind, kwargs=options, disable_env_checker=True)
    return name


def pendulum(low=None, high=None, scale=1, **options):
    """Make Pendulum-v1 with observations from low to high and rewards times scale."""
    env = gym.make("Pendulum-v1", **options)
    if low is not None:
        env = gym.wrappers.RescaleObservation(env, low, high)
    return gym.wrappers.TransformReward(env, lambda rew: scale * rew)


gym.register("Compass-v0", Compass, disable_env_checker=True)
gym.register("PendulumTimes100-v0", pendulum, kwargs={"scale": 100})
gym.register("Pendulum-1To1-v0", pendulum, kwargs={"low": -1, "high": 1})
gym.register("Pendulum0To100-v0", pendulum, kwargs={"low": 0, "high": 100})
