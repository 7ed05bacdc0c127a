"""Hold the six losses against those of the libraries people use, by running the libraries.

    pip install -r tests/evidence/peers-requirements.txt
    python tests/evidence/peers.py                  all: prints, and writes peers.csv
    python tests/evidence/peers.py torchrl rlax     some: prints only

log pi(a|s) is the leaf, shape (batch,): where a library computes it with a network, a
stand-in returns the leaf, and the library's own code does the rest. Compared is the
gradient d loss / d logp with that of a script's policy_loss, byte for byte.
"""

import copy
import csv
import math
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from common import load_all

HERE = Path(__file__).resolve().parent
DTYPES = torch.float32, torch.float64
SCRIPTS = load_all()
COLUMNS = ["library", "version", "called", "script", "dtype", "batches"]
COLUMNS += ["equal_to_the_bit", "largest_difference", "cause"]


class Computed(Exception):
    """Carries a library's loss out of a method that would go on to use it."""


class Leaf(torch.distributions.Distribution):
    """A distribution whose log_prob is the leaf, whatever the action."""

    def __init__(self, logp):
        super().__init__(logp.shape, validate_args=False)
        self.logp = logp
        # what TRPO asks for the KL divergence of, which is not compared
        self.distribution = torch.distributions.Categorical(torch.ones(2))

    def log_prob(self, act):
        """Return the leaf."""
        return self.logp

    def entropy(self):
        """Return zeros, that carry no gradient."""
        return torch.zeros_like(self.logp)


def raise_loss(loss, *_, **__):
    """Stand in for what a library does with its loss."""
    raise Computed(loss)


def caught(method, *args):
    """Call a method until it hands over its loss; return that."""
    try:
        method(*args)
    except Computed as stop:
        return stop.args[0]
    raise AssertionError(f"{method} computed no loss")


# Stable-Baselines3 and sb3-contrib: train() on a rollout buffer of one batch


def sb3_model(logp, logp_old, adv, eps):
    """Return what train() reads: policy and buffer of one batch, all else switched off."""
    from stable_baselines3.common.buffers import RolloutBufferSamples

    zeros = torch.zeros_like(adv)
    data = RolloutBufferSamples(zeros, zeros, zeros, logp_old, adv, zeros)
    policy = mock.MagicMock()
    policy.evaluate_actions = lambda *_: (zeros, logp, zeros)
    policy.get_distribution = lambda _: Leaf(logp)
    policy.parameters = list
    policy.log_std = zeros  # only logged
    values = np.zeros(len(adv))
    buffer = SimpleNamespace(get=lambda *_, **__: [data], values=values, returns=values)
    off = {"ent_coef": 0.0, "vf_coef": 0.0, "normalize_advantage": False}
    off |= {"target_kl": None, "clip_range_vf": None, "max_grad_norm": math.inf}
    model = mock.MagicMock(policy=policy, rollout_buffer=buffer, **off)
    model.configure_mock(n_epochs=1, clip_range=lambda _: eps, sub_sampling_factor=1)
    return model


def sb3_a2c(logp, logp_old, adv, eps):
    """A2C.train."""
    from stable_baselines3 import A2C

    A2C.train(sb3_model(logp, logp_old, adv, eps))


def sb3_ppo(logp, logp_old, adv, eps):
    """PPO.train."""
    from stable_baselines3 import PPO

    PPO.train(sb3_model(logp, logp_old, adv, eps))


def sb3_update(policy_loss):
    """Return the gradients of the policy network in one whole update of PPO on its own
    rollout buffer of CartPole-v1, and those of script 6's loss on the same buffer.

    The ratios are not 1: the policy is moved after it has filled the buffer.
    """
    from stable_baselines3 import PPO

    off = {"ent_coef": 0.0, "vf_coef": 0.0, "normalize_advantage": False}
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=256, batch_size=256, seed=0, **off)
    model.n_epochs, model.max_grad_norm = 1, math.inf
    _, callback = model._setup_learn(256)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 256)
    gen = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.policy.parameters():
            p += 0.3 * torch.randn(p.shape, generator=gen)
    kept = []
    get = model.rollout_buffer.get
    model.rollout_buffer.get = lambda size: [kept.append(x) or x for x in get(size)]
    moved = copy.deepcopy(model.policy.state_dict())
    model.train()
    names = [name for name, _ in model.policy.named_parameters() if "value" not in name]
    theirs = [model.policy.get_parameter(name).grad for name in names]
    model.policy.load_state_dict(moved)
    (data,) = kept
    act = data.actions.long().flatten()
    model.policy.zero_grad()
    _, logp, _ = model.policy.evaluate_actions(data.observations, act)
    eps = model.clip_range(1.0)
    policy_loss(logp, data.old_log_prob, data.advantages, eps).backward()
    return theirs, [model.policy.get_parameter(name).grad for name in names]


def sb3_trpo(logp, logp_old, adv, eps):
    """TRPO.train."""
    from sb3_contrib import TRPO

    model = sb3_model(logp, logp_old, adv, eps)
    model._compute_actor_grad = lambda kl, objective: raise_loss(objective)
    return -caught(TRPO.train, model)


# TorchRL: the loss modules


def torchrl(name, logp, logp_old, adv, **options):
    """Call a loss module of torchrl.objectives with an actor whose log_prob is logp."""
    from tensordict import TensorDict
    from tensordict.nn import (
        ProbabilisticTensorDictModule,
        ProbabilisticTensorDictSequential,
        TensorDictModule,
    )
    from torchrl import objectives

    net = TensorDictModule(torch.nn.Identity(), ["leaf"], ["logp"])
    draw = ProbabilisticTensorDictModule(["logp"], ["action"], distribution_class=Leaf)
    actor = ProbabilisticTensorDictSequential(net, draw)
    critic = TensorDictModule(torch.nn.Identity(), ["leaf"], ["state_value"])
    loss = getattr(objectives, name)(actor, critic, functional=False, **options)
    zeros = torch.zeros_like(adv)
    batch = {"leaf": logp, "action": zeros, "action_log_prob": logp_old}
    batch |= {"advantage": adv[:, None], "value_target": logp.detach()}
    found = loss(TensorDict(batch, [len(adv)]))
    return found["loss_actor" if "loss_actor" in found else "loss_objective"]


def torchrl_reinforce(logp, logp_old, adv, eps):
    """ReinforceLoss."""
    return torchrl("ReinforceLoss", logp, logp_old, adv)


def torchrl_a2c(logp, logp_old, adv, eps):
    """A2CLoss without entropy."""
    return torchrl("A2CLoss", logp, logp_old, adv, entropy_bonus=False)


def torchrl_ppo(logp, logp_old, adv, eps):
    """PPOLoss without entropy."""
    return torchrl("PPOLoss", logp, logp_old, adv, entropy_bonus=False)


def torchrl_clip_ppo(logp, logp_old, adv, eps):
    """ClipPPOLoss without entropy."""
    options = {"entropy_bonus": False, "clip_epsilon": eps}
    return torchrl("ClipPPOLoss", logp, logp_old, adv, **options)


# rlax: functions in jax, so they return the gradient itself


def jax_gradient(loss, logp):
    """Return the gradient of a jax function at logp as a torch tensor."""
    import jax

    jax.config.update("jax_enable_x64", True)
    return torch.from_numpy(np.array(jax.grad(loss)(jax.numpy.array(logp.detach()))))


def rlax_policy_gradient(logp, logp_old, adv, eps, weighted=False):
    """policy_gradient_loss, weights 1.

    Its softmax().logprob returns the leaf. `weighted`: by the ratio.
    """
    import jax
    import rlax

    old, adv = (jax.numpy.array(x) for x in (logp_old, adv))
    act = jax.numpy.zeros(len(adv), int)

    def loss(x):
        softmax = SimpleNamespace(logprob=lambda *_: x)
        ratio = jax.lax.stop_gradient(jax.numpy.exp(x - old))
        weights = ratio if weighted else jax.numpy.ones_like(x)
        place = "rlax._src.policy_gradients.distributions.softmax"
        with mock.patch(place, lambda: softmax):
            return rlax.policy_gradient_loss(x[:, None], act, adv, weights)

    return jax_gradient(loss, logp)


def rlax_weighted(logp, logp_old, adv, eps):
    """policy_gradient_loss with the ratio as weight."""
    return rlax_policy_gradient(logp, logp_old, adv, eps, weighted=True)


def rlax_clipped(logp, logp_old, adv, eps):
    """clipped_surrogate_pg_loss of exp(logp - logp_old)."""
    import jax
    import rlax

    old, adv = (jax.numpy.array(x) for x in (logp_old, adv))

    def loss(x):
        return rlax.clipped_surrogate_pg_loss(jax.numpy.exp(x - old), adv, eps)

    return jax_gradient(loss, logp)


# tianshou: _update_with_batch up to the optimizer


def tianshou(method, logp, logp_old, adv, **options):
    """Call _update_with_batch of an algorithm on one batch; return its loss."""
    from tianshou.data import Batch

    # the library shuffles, so obs is the place of a step in the leaf
    place, zeros = torch.arange(len(adv)), torch.zeros_like(adv)
    batch = Batch(obs=place, act=place, returns=adv, adv=adv, logp_old=logp_old)
    algorithm = mock.MagicMock(**options)
    algorithm.policy.side_effect = lambda batch: SimpleNamespace(
        dist=Leaf(logp[batch.obs]), act=zeros
    )
    algorithm.critic = lambda obs: zeros
    algorithm.optim.step = algorithm._get_flat_grad = raise_loss
    return caught(method, algorithm, batch, None, 1)


def tianshou_reinforce(logp, logp_old, adv, eps):
    """Reinforce._update_with_batch."""
    from tianshou.algorithm import Reinforce

    return tianshou(Reinforce._update_with_batch, logp, logp_old, adv)


def tianshou_trpo(logp, logp_old, adv, eps):
    """TRPO._update_with_batch."""
    from tianshou.algorithm import TRPO

    return tianshou(TRPO._update_with_batch, logp, logp_old, adv)


def tianshou_ppo(logp, logp_old, adv, eps):
    """PPO._update_with_batch."""
    from tianshou.algorithm import PPO

    off = {"advantage_normalization": False, "dual_clip": None, "value_clip": False}
    off |= {"recompute_adv": False, "vf_coef": 0.0, "ent_coef": 0.0, "eps_clip": eps}
    return tianshou(PPO._update_with_batch, logp, logp_old, adv, **off)


# TRL: GRPOTrainer._compute_loss, a completion for each row of the mask


def trl(loss_type, logp, logp_old, adv, eps, mask=None):
    """Call _compute_loss; without a mask the batch is one completion."""
    from trl import GRPOTrainer

    mask = torch.ones(1, len(adv)) if mask is None else mask
    shape = mask.shape
    options = {"loss_type": loss_type, "epsilon_low": eps, "epsilon_high": eps}
    if loss_type == "cispo":
        options["epsilon_high"] = math.inf  # no upper bound
    options |= {"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None}
    options |= {"importance_sampling_level": "token", "beta": 0.0, "use_vllm": False}
    options |= {"max_completion_length": shape[1], "_entropy_bonus_enabled": False}
    trainer = mock.MagicMock(**options, aux_loss_enabled=False)
    trainer.args.delta, trainer.model.training = None, False
    trainer.accelerator.num_processes, trainer.accelerator.gather = 1, lambda x: x
    leaf = logp.reshape(shape)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, 0 * mask, None)
    inputs = dict.fromkeys(("prompt_ids", "prompt_mask"), mask[:, :0])
    inputs |= {"completion_ids": mask, "completion_mask": mask.to(logp.dtype)}
    inputs |= {"advantages": adv.reshape(shape), "num_items_in_batch": mask.sum()}
    inputs |= {"old_per_token_logps": logp_old.reshape(shape)}
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def trl_bnpo(logp, logp_old, adv, eps):
    """GRPOTrainer._compute_loss, loss_type bnpo."""
    return trl("bnpo", logp, logp_old, adv, eps)


def trl_dapo(logp, logp_old, adv, eps):
    """GRPOTrainer._compute_loss, loss_type dapo."""
    return trl("dapo", logp, logp_old, adv, eps)


def trl_cispo(logp, logp_old, adv, eps):
    """GRPOTrainer._compute_loss, loss_type cispo without an upper bound."""
    return trl("cispo", logp, logp_old, adv, eps)


def trl_grpo_lengths(logp, logp_old, adv, eps):
    """GRPOTrainer._compute_loss, loss_type grpo, two completions of unequal length."""
    short = len(adv) // 3
    mask = torch.zeros(2, len(adv) - short)
    mask[0, :short], mask[1] = 1, 1
    full = [torch.zeros(mask.shape, dtype=adv.dtype) for _ in range(3)]
    full = [x.masked_scatter(mask > 0, y) for x, y in zip(full, (logp, logp_old, adv))]
    return trl("grpo", *full, eps, mask)


# verl: the functions of core_algos


def verl(name, logp, logp_old, adv, low, high, dual=math.inf, **options):
    """Call a policy loss of verl.trainer.ppo.core_algos on one response."""
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    clips = {"clip_ratio_low": low, "clip_ratio_high": high, "clip_ratio_c": dual}
    sizes = {"ppo_micro_batch_size_per_gpu": 1, "rollout_n": 1, "strategy": "fsdp"}
    config = ActorConfig(**clips, **sizes)
    batch = logp_old[None], logp[None], adv[None], torch.ones_like(adv)[None]
    options = {"loss_agg_mode": "token-mean", "config": config, **options}
    return getattr(core_algos, f"compute_policy_loss_{name}")(*batch, **options)[0]


def verl_reinforce(logp, logp_old, adv, eps):
    """compute_policy_loss_reinforce."""
    return verl("reinforce", logp, logp_old, adv, eps, eps)


def verl_weighted(logp, logp_old, adv, eps):
    """compute_policy_loss_reinforce with importance weights."""
    ratio = torch.exp(logp - logp_old).detach()[None]
    options = {"rollout_is_weights": ratio}
    return verl("reinforce", logp, logp_old, adv, eps, eps, **options)


def verl_cispo(logp, logp_old, adv, eps):
    """compute_policy_loss_cispo without bounds."""
    return verl("cispo", logp, logp_old, adv, 1.0, math.inf)


def verl_vanilla(logp, logp_old, adv, eps):
    """compute_policy_loss_vanilla without its dual clip."""
    return verl("vanilla", logp, logp_old, adv, eps, eps)


def verl_dual_clip(logp, logp_old, adv, eps):
    """compute_policy_loss_vanilla with its default dual clip at a ratio of 3."""
    return verl("vanilla", logp, logp_old, adv, eps, eps, dual=3.0)


# skrl and rsl_rl: update() on a memory of one batch


def skrl_ppo(logp, logp_old, adv, eps):
    """PPO.update."""
    from skrl.agents.torch.ppo import PPO

    zeros = torch.zeros_like(adv)[:, None]
    agent = mock.MagicMock(_device_type="cpu")
    cfg = {"mixed_precision": False, "learning_epochs": 1, "kl_threshold": 0}
    cfg |= {"entropy_loss_scale": 0, "value_clip": 0, "value_loss_scale": 0.0}
    agent.cfg.configure_mock(**cfg, ratio_clip=eps)
    agent.policy.act.return_value = None, {"log_prob": logp[:, None]}
    agent.value.act.return_value = zeros, {}
    batch = zeros, zeros, zeros, logp_old[:, None], zeros, zeros, adv[:, None]
    agent.memory.sample.return_value = [batch]
    agent.scaler.scale = raise_loss
    with mock.patch("skrl.agents.torch.ppo.ppo.compute_gae", lambda **_: (0, 0)):
        return caught(lambda: PPO.update(agent, timestep=0, timesteps=1))


def rsl_rl_ppo(logp, logp_old, adv, eps):
    """PPO.update."""
    from rsl_rl.algorithms import PPO

    zeros = torch.zeros_like(adv)
    batch = mock.MagicMock(returns=zeros, values=zeros)
    batch.configure_mock(advantages=adv, old_actions_log_prob=logp_old)
    off = dict.fromkeys(("rnd", "symmetry", "desired_kl"))
    off |= {"normalize_advantage_per_mini_batch": False, "use_mixed_precision": False}
    off |= {"use_clipped_value_loss": False, "value_loss_coef": 0.0}
    off |= {"entropy_coef": 0.0, "is_multi_gpu": False, "device": "cpu"}
    model = mock.MagicMock(**off, clip_param=eps, max_grad_norm=math.inf)
    model.configure_mock(num_learning_epochs=1, num_mini_batches=1)
    model.actor.is_recurrent = model.critic.is_recurrent = False
    model.actor.get_output_log_prob = lambda act: logp
    model.actor.output_entropy, model.critic.return_value = zeros, zeros
    model.actor.output_distribution_params = ()
    model.actor.parameters = model.critic.parameters = list
    batch.observations.batch_size = [len(adv)]
    model.storage.mini_batch_generator = lambda *_: [batch]
    PPO.update(model)


# rewards-to-go, for rew (T,): the same sums in another order


def rlax_returns(rew, gamma):
    """discounted_returns."""
    import jax
    import rlax

    jax.config.update("jax_enable_x64", True)
    rew = jax.numpy.array(rew)
    zeros = jax.numpy.zeros_like(rew)
    found = rlax.discounted_returns(rew, zeros + gamma, zeros)
    return torch.from_numpy(np.array(found))


def torchrl_returns(rew, gamma):
    """reward2go of objectives.value.functional."""
    from torchrl.objectives.value.functional import reward2go

    done = torch.zeros(len(rew), 1, dtype=torch.bool)
    done[-1] = True
    return reward2go(rew[:, None], done, gamma)[:, 0]


# the comparison


class Peer(NamedTuple):
    """What is compared with what, and what comes out in float32 and in float64.

    BIT: every bit of every gradient is equal. CLOSE: the last bits differ, at most by
    BOUND of the largest entry. OTHER: another gradient, by choice.
    """

    library: str
    loss: Callable
    script: int
    verdicts: tuple
    cause: str = ""
    kind: str = "random"


BIT, CLOSE, OTHER = "yes", "last bits", "no"
BOUND = {torch.float32: 1e-6, torch.float64: 1e-6}  # tianshou rounds to float32
ORDER = "another order of the products"
SIZES = 1, 2, 3, 7, 10, 50, 100, 333, 1000, 1024  # few, since jax compiles for each
PEERS = [
    Peer("torchrl", torchrl_reinforce, 3, (BIT, BIT)),
    Peer("torchrl", torchrl_a2c, 3, (BIT, BIT)),
    Peer("stable-baselines3", sb3_a2c, 3, (BIT, BIT)),
    Peer("verl", verl_reinforce, 3, (BIT, BIT)),
    Peer("rlax", rlax_policy_gradient, 3, (BIT, BIT)),
    Peer("tianshou", tianshou_reinforce, 2, (BIT, CLOSE), "casts to float32"),
    Peer("torchrl", torchrl_ppo, 4, (BIT, BIT)),
    Peer("sb3-contrib", sb3_trpo, 4, (BIT, BIT)),
    Peer("tianshou", tianshou_trpo, 4, (BIT, CLOSE), "casts to float32"),
    Peer("trl", trl_cispo, 5, (CLOSE, CLOSE), ORDER),
    Peer("verl", verl_cispo, 5, (CLOSE, CLOSE), ORDER),
    Peer("verl", verl_weighted, 5, (CLOSE, CLOSE), ORDER),
    Peer("rlax", rlax_weighted, 5, (CLOSE, CLOSE), ORDER),
    Peer("stable-baselines3", sb3_ppo, 6, (BIT, BIT)),
    Peer("trl", trl_bnpo, 6, (BIT, BIT)),
    Peer("trl", trl_dapo, 6, (BIT, BIT)),
    Peer("verl", verl_vanilla, 6, (BIT, BIT)),
    Peer("skrl", skrl_ppo, 6, (BIT, BIT)),
    Peer("rsl-rl-lib", rsl_rl_ppo, 6, (BIT, BIT)),
    Peer("tianshou", tianshou_ppo, 6, (BIT, CLOSE), "casts to float32"),
    Peer("torchrl", torchrl_clip_ppo, 6, (BIT, BIT)),
    Peer("rlax", rlax_clipped, 6, (CLOSE, CLOSE), ORDER),
    Peer(
        "rlax", rlax_clipped, 6, (OTHER, OTHER), "jnp.clip halves on the edge", "edge"
    ),
    Peer("trl", trl_grpo_lengths, 6, (OTHER, OTHER), "divides by each length", "long"),
    Peer("verl", verl_dual_clip, 6, (OTHER, OTHER), "A < 0 and ratio > 3", "far"),
    Peer("verl", verl_vanilla, 6, (OTHER, OTHER), "clamps the log-ratio to 20", "huge"),
    Peer("torchrl", torchrl_returns, 2, (CLOSE, CLOSE), "another order", "returns"),
    Peer("torchrl", torchrl_returns, 3, (CLOSE, CLOSE), "another order", "returns"),
    Peer("rlax", rlax_returns, 2, (BIT, BIT), "", "returns"),
    Peer("rlax", rlax_returns, 3, (CLOSE, CLOSE), "another order", "returns"),
]
MODULES = {"stable-baselines3": "stable_baselines3", "sb3-contrib": "sb3_contrib"}
MODULES |= {"rsl-rl-lib": "rsl_rl"}


def installed(library):
    """Tell whether a library of PEERS is there."""
    return find_spec(MODULES.get(library, library)) is not None


def batches(dtype, count, kind):
    """Yield (logp, logp_old, adv, eps), 1 to 1024 steps, advantages of both signs.

    Ratios lie inside and outside the interval; of a batch of kind "edge" all lie on its
    upper end, "far" beyond 3, "huge" beyond exp(20); "long" has 3 steps or more.
    """
    gen = torch.Generator().manual_seed(0)
    for i in range(count):
        size = max(SIZES[i % len(SIZES)], 3 if kind == "long" else 1)
        logp, d, adv = torch.randn(3, size, generator=gen, dtype=dtype)
        eps = 0.1 + 0.2 * torch.rand(1, generator=gen).item()
        logp, d = -logp.abs(), (0.05, 0.3, 1.5)[i % 3] * d
        if kind == "edge":
            logp, d = 0 * logp, 0 * d + math.log(1 + eps)
            eps = d[0].exp().item() - 1
        if kind == "far":
            d = 1.2 + d.abs()
        if kind == "huge":
            d = 20.5 + d.abs()
        yield logp, logp - d, adv, eps


def gradient(loss, logp, *rest):
    """Return d loss / d logp, (batch,), of a loss, or of a library that has taken it."""
    leaf = logp.clone().requires_grad_()
    found = loss(leaf, *rest)
    if found is None:
        return leaf.grad
    return torch.autograd.grad(found, leaf)[0] if found.requires_grad else found


def ours(n, policy_loss):
    """Return script n's loss as a function of (logp, logp_old, adv, eps)."""
    if n <= 3:
        return lambda logp, logp_old, adv, eps: policy_loss(logp, adv)
    if n <= 5:
        return lambda logp, logp_old, adv, eps: policy_loss(logp, logp_old, adv)
    return policy_loss


def pairs(peer, dtype, count, policy_loss):
    """Yield (theirs, ours) for each batch: gradients, or rewards-to-go."""
    if peer.kind == "returns":
        gen, gamma = (
            torch.Generator().manual_seed(0),
            (0.99,) if peer.script > 2 else (),
        )
        for _ in range(count):
            rew = torch.randn(200, 1, generator=gen, dtype=dtype)
            mine = SCRIPTS[peer.script].reward_to_go(rew, *gamma)[:, 0]
            yield peer.loss(rew[:, 0], *(gamma or (1.0,))), mine
        return
    mine = ours(peer.script, policy_loss)
    for batch in batches(dtype, count, peer.kind):
        yield gradient(peer.loss, *batch), gradient(mine, *batch)


def compare(peer, dtype, count, policy_loss=None):
    """Return (how many of the batches are equal to the bit, the largest difference as a
    share of the largest entry); infinite where one side is not finite."""
    policy_loss = policy_loss or SCRIPTS[peer.script].policy_loss
    equal, largest = 0, 0.0
    for theirs, mine in pairs(peer, dtype, count, policy_loss):
        assert theirs.shape == mine.shape
        if (
            theirs.dtype == mine.dtype
            and theirs.numpy().tobytes() == mine.numpy().tobytes()
        ):
            equal += 1
            continue
        off = ((theirs - mine).abs().max() / mine.abs().max()).item()
        largest = max(largest, math.inf if math.isnan(off) else off)
    return equal, largest


def verdict(equal, count, largest, dtype):
    """Return BIT, CLOSE or OTHER."""
    if equal == count:
        return BIT
    return CLOSE if largest <= BOUND[dtype] else OTHER


def called(peer):
    """Return what was called, in words."""
    return peer.loss.__doc__.split(".\n")[0].strip().rstrip(".")


def main():
    """Compare all libraries, or those named; print, and write the CSV of all."""
    names, table = sys.argv[1:], []
    chosen = [peer for peer in PEERS if not names or peer.library in names]
    missing = {peer.library for peer in chosen if not installed(peer.library)}
    if missing or not chosen:
        sys.exit(f"not installed: {missing or names}; see peers-requirements.txt")
    for peer in chosen:
        for dtype, expected in zip(DTYPES, peer.verdicts, strict=True):
            count = 300 if peer.kind == "random" else 30
            equal, largest = compare(peer, dtype, count)
            found = verdict(equal, count, largest, dtype)
            row = [peer.library, version(peer.library), called(peer), peer.script]
            row += [str(dtype)[6:], count, found, f"{largest:.1e}"]
            table.append([*row, peer.cause if found != BIT else ""])
            surprise = "" if found == expected else f"   EXPECTED {expected}"
            print(*table[-1], f"{equal} equal{surprise}", sep=" | ", flush=True)
    if not names:
        with open(HERE / "peers.csv.tmp", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table])
        os.replace(HERE / "peers.csv.tmp", HERE / "peers.csv")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
