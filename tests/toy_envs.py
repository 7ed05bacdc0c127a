"""Small environments whose every number is known, registered with Gymnasium on import.

Scripts reach them by module, as in ``--env toy_envs:Compass-v0`` with PYTHONPATH=tests.
"""

from copy import deepcopy
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector.utils import batch_space

# Length and (terminated, truncated) of each environment's episodes. The lengths are such that
# in 9 steps only the longest episode, or none, ends at the last one: see Scripted.reset.
PLAN = [
    (3, True, False),
    (5, False, True),
    (2, True, True),
    (7, True, False),
    (9, False, True),
]
OBSERVATIONS = {
    "Dict": Dict(pose=Box(-1, 1, (2, 2)), gear=Discrete(3, start=2)),
    "Tuple": Tuple((Discrete(4), Box(-1, 1, (2,), np.float64))),
    "Discrete": Discrete(5),
    "Image": Box(0, 255, (4, 4, 3), np.uint8),
    "Wide": Box(-1e6, 1e6, (3,), np.float64),
}
ACTIONS = {"Discrete": Discrete(3), "Box": Box(-0.25, 0.5, (2,))}
SERVED = ACTIONS | {"One": Discrete(1), "Double": Box(0, 1, (3,), np.float64)}
REFUSED = {"MultiDiscrete": MultiDiscrete([2, 3]), "MultiBinary": MultiBinary(3)}
REFUSED |= {"Tuple": Tuple([Discrete(2)]), "Start": Discrete(3, start=1)}
REFUSED |= {"Matrix": Box(-1, 1, (2, 3)), "Integer": Box(0, 9, (2,), np.int64)}


def reward(i, t):
    """Return what environment i pays at step t, whatever the action."""
    return 10 * i + t + 1


class Scripted(gym.Env):
    """Environment i plays PLAN[i] over and over and shows (i, number of the episode, t).

    i is its first seed: vector environments seed theirs with seed, seed + 1, and so on.
    ``log`` holds (episode, t, action) of every step. ``poison`` is the pay of all episodes
    that a rollout has to discard.
    """

    observation_space = Box(-np.inf, np.inf, (3,))

    def __init__(self, actions="Discrete", poison=np.nan):
        self.action_space, self.poison = ACTIONS[actions], poison
        self.i, self.episode, self.over, self.log = None, -1, False, []

    def reset(self, *, seed=None, options=None):
        """Begin the next episode.

        Gymnasium's autoreset calls reset as a script does, but only it does so right after
        an episode that was not the longest, so what begins there comes after the first end.
        """
        self.i = seed % len(PLAN) if self.i is None else self.i
        self.discarded = self.over and self.i != len(PLAN) - 1
        self.episode, self.t, self.over = self.episode + 1, 0, False
        return self.obs(), {}

    def obs(self):
        """Return (i, number of the episode, t)."""
        return np.array([self.i, self.episode, self.t], dtype=np.float32)

    def step(self, action):
        """Pay reward(i, t), or poison, and end the episode as PLAN says."""
        self.log.append((self.episode, self.t, np.copy(action)))
        pay = self.poison if self.discarded else reward(self.i, self.t)
        self.t += 1
        length, terminated, truncated = PLAN[self.i]
        self.over = self.t >= length
        return self.obs(), pay, self.over and terminated, self.over and truncated, {}


class ScriptedVector(gym.vector.VectorEnv):
    """The same as a vector environment, in the roughest manner that Gymnasium allows.

    It hands out the same buffers at every step, written over in place, pays in the type of
    ``poison`` (which may be int) and pays poison for the autoreset step too.
    """

    def __init__(self, num_envs, actions="Discrete", poison=np.nan):
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
        self.num_envs, self.poison = num_envs, poison
        self.envs = [Scripted(actions, poison) for _ in range(num_envs)]
        self.single_observation_space = Scripted.observation_space
        self.single_action_space = ACTIONS[actions]
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._obs = np.zeros(self.observation_space.shape, np.float32)
        self._rew = np.zeros(num_envs, type(poison))
        self._terminated, self._truncated = np.zeros((2, num_envs), bool)

    def reset(self, *, seed=None, options=None):
        """Begin an episode in every environment."""
        for i, env in enumerate(self.envs):
            self._obs[i] = env.reset(seed=None if seed is None else seed + i)[0]
        self._terminated[:] = self._truncated[:] = False
        return self._obs, {}

    def step(self, actions):
        """Step every environment; the step after an episode's end is the autoreset."""
        for i, env in enumerate(self.envs):
            if env.over:
                result = env.reset()[0], self.poison, False, False
            else:
                result = env.step(actions[i])[:4]
            self._obs[i], self._rew[i], self._terminated[i], self._truncated[i] = result
        return self._obs, self._rew, self._terminated, self._truncated, {}


class Sampled(gym.Env):
    """Episodes of 3 steps with samples of a space as observations, kept in ``log``.

    An action from outside the space is an error. ``watched`` has the steps of each episode
    that was shown in a window.
    """

    metadata: ClassVar = {"render_modes": ["human"], "render_fps": 1000}
    watched: ClassVar = []

    def __init__(self, space="Wide", actions="Discrete", render_mode=None):
        self.observation_space = deepcopy(OBSERVATIONS[space])  # its draws are its own
        self.action_space = (SERVED | REFUSED)[actions]
        self.render_mode, self.log = render_mode, []

    def observe(self):
        """Return a sample of the space and keep it."""
        self.log.append(self.observation_space.sample())
        return self.log[-1]

    def reset(self, *, seed=None, options=None):
        """Begin an episode."""
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        if self.render_mode:
            self.watched.append(0)
        return self.observe(), {}

    def step(self, action):
        """Show another sample; the third step ends the episode."""
        assert self.action_space.contains(action), f"{action!r} reached the environment"
        self.t += 1
        if self.render_mode:
            self.watched[-1] += 1
        return self.observe(), 1.0, self.t == 3, False, {}


class Compass(gym.Env):
    """Walk towards a corner: the observation is a corner (+-1, +-1), drawn once an episode.

    The reward is the mean of corner * action with actions in [-1, 1]. So whoever does not look
    at the observation gets 0 in expectation, whatever they do; the best gets 1 a step.
    """

    observation_space = Box(-1, 1, (2,))
    action_space = Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        """Draw a corner."""
        super().reset(seed=seed)
        self.corner = self.np_random.choice([-1, 1], 2).astype(np.float32)
        return self.corner, {}

    def step(self, action):
        """Pay the mean of corner * action."""
        return self.corner, float(np.mean(self.corner * action)), False, False, {}


def register(name, entry_point, **options):
    """Register name-v0; Gymnasium's checker would warn of NaN rewards, which are meant."""
    gym.register(
        f"{name}-v0", entry_point=entry_point, disable_env_checker=True, **options
    )


register("Compass", Compass, max_episode_steps=10)
for name in OBSERVATIONS:
    register(f"Sampled{name}", Sampled, kwargs={"space": name})
for name in SERVED | REFUSED:
    register(f"Acts{name}", Sampled, kwargs={"actions": name})
for name in ACTIONS:
    register(f"Scripted{name}", Scripted, kwargs={"actions": name})
    for kind, poison in ("Float", np.nan), ("Int", 10**9):
        register(
            f"Vector{kind}{name}",
            Scripted,
            vector_entry_point=ScriptedVector,
            kwargs={"actions": name, "poison": poison},
        )
