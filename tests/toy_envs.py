"""Small environments whose every number is known.

On the command line ``--env tests.toy_envs:Compass-v0``; tests get others from ``toy``.
"""

from copy import deepcopy
from functools import partial
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

# length, terminated, truncated of each Scripted environment's episodes
PLAN = [(3, 1, 0), (5, 0, 1), (2, 1, 1), (7, 1, 0), (9, 0, 1)]
WIDE = Box(-1e6, 1e6, (3,), np.float64)
ACTIONS = {
    "Discrete": Discrete(3),
    "bounded": Box(np.float32([-0.25, 10]), np.float32([0.5, 20])),
    "half": Box(0, np.inf, (2,)),
    "free": Box(-np.inf, np.inf, (2,)),
}


def reward(i, t):
    """Return what environment i pays at step t."""
    return 1000 * i + 100 * t + 100


class Scripted(gym.Env):
    """Environment i plays PLAN[i] over and over and shows (i, number of the episode, t).

    i is its first seed: vector environments seed theirs with seed, seed + 1, and so on.
    The last observation of an episode that terminates is NaN, as nothing may depend on it.
    Rewards are Python ints or floats. ``log`` has (episode, action) of each step; an array
    of actions is written over.
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
        if isinstance(action, np.ndarray):
            action *= 0
        pay = (int if self.i % 2 else float)(reward(self.i, self.t))
        self.t += 1
        length, *ends = PLAN[self.i]
        terminated, truncated = (self.t == length and end == 1 for end in ends)
        obs = np.array([self.i, self.episode, self.t], np.float32)
        return obs * (np.nan if terminated else 1), pay, terminated, truncated, {}


class Rough(gym.vector.SyncVectorEnv):
    """Scripted environments, as rough as Gymnasium allows a vector environment to be.

    It returns the same arrays at every step, written over, and writes over the actions.
    Rewards and flags have the type of ``poison``, which it pays at the step that resets.
    """

    def __init__(self, num_envs, actions="Discrete", poison=np.nan):
        super().__init__([partial(Scripted, actions)] * num_envs, copy=False)
        self.poison = poison
        self.rew = np.zeros(num_envs, type(poison))
        self.terminated, self.truncated = np.zeros((2, num_envs), type(poison))

    def reset(self, **options):
        self.terminated[:] = self.truncated[:] = 0
        return super().reset(**options)

    def step(self, actions):
        over = np.logical_or(self.terminated, self.truncated)
        obs, rew, terminated, truncated, infos = super().step(actions)
        actions *= 0
        self.rew[:] = np.where(over, self.poison, rew)
        self.terminated[:], self.truncated[:] = terminated, truncated
        return obs, self.rew, self.terminated, self.truncated, infos


class Sampled(gym.Env):
    """Episodes of 3 steps with samples of a space as observations, kept in ``log``.

    An action from outside the space is an error. ``pay`` is the reward, and the observation
    after ``blank`` steps is NaN. ``watched`` has the number of each step in a window, where
    an observation that begins above 0 ends the episode, too.
    """

    metadata: ClassVar = {"render_modes": ["human"], "render_fps": 1000}
    watched: ClassVar = []
    observation_space, action_space, pay, blank = WIDE, ACTIONS["Discrete"], 1.0, None

    def __init__(self, render_mode=None, **options):
        vars(self).update(options)
        self.render_mode, self.log = render_mode, []

    def observe(self):
        obs = self.observation_space.sample()
        self.log.append(obs * np.nan if self.t == self.blank else obs)
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
        obs, over = self.observe(), self.t == 3
        if self.render_mode:
            self.watched.append(self.t)
            over |= obs[0] > 0
        return obs, self.pay, over, False, {}


class Compass(gym.Env):
    """Walk towards a corner: the observation is a corner (+-1, +-1), drawn once an episode.

    The reward is the mean of corner * action, the action taken from its bounds to [-1, 1].
    Whoever does not look gets 0 in expectation, the best 1 a step, 10 an episode.
    """

    observation_space = Box(-1, 1, (2,))

    def __init__(self, low=-1, high=1):
        self.action_space = Box(low, high, (2,))
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.corner = 0, self.np_random.choice([-1, 1], 2).astype(np.float32)
        return self.corner, {}

    def step(self, action):
        self.t += 1
        pay = np.mean(self.corner * (action - self.middle) / self.half)
        return self.corner, pay, False, self.t == 10, {}


def toy(kind, **options):
    """Register a kind of environment with its options under a new id, and return the id."""
    name = f"Toy{len(gym.registry)}-v0"
    vector = issubclass(kind, gym.vector.VectorEnv)
    entry = {"vector_entry_point" if vector else "entry_point": kind}
    # Gymnasium's checker would warn of NaN, which is meant
    gym.register(name, **entry, kwargs=options, disable_env_checker=True)
    return name


gym.register("Compass-v0", Compass, disable_env_checker=True)
