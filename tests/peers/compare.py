"""Hold the six losses against those of the libraries people use, by running the libraries.

    pip install -r tests/peers/requirements.txt    and what it says of one more
    python -m tests.peers.compare                  prints, and writes peers.csv

log pi(a|s) is the leaf, shape (batch,): where a library computes it with a network, a
stand-in returns the leaf, and the library's own code does the rest. Compared is the
gradient d loss / d logp with that of a script's policy_loss, byte for byte. Entropy
bonus, value loss and normalised advantages are switched off everywhere.
"""

import csv
import math
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

from tests.common import load_all, same_bits

HERE = Path(__file__).resolve().parent
SCRIPTS = load_all()
COLUMNS = ["library", "version", "called", "script"]
COLUMNS += ["equal_to_the_bit", "largest_difference", "cause"]
COUNT = 300  # batches, float32


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


def sb3(logp, logp_old, adv, eps, name):
    """Run train(), which leaves its gradient in the leaf."""
    import stable_baselines3

    getattr(stable_baselines3, name).train(sb3_model(logp, logp_old, adv, eps))


def sb3_trpo(logp, logp_old, adv, eps):
    """TRPO.train."""
    from sb3_contrib import TRPO

    model = sb3_model(logp, logp_old, adv, eps)
    model._compute_actor_grad = lambda kl, objective: raise_loss(objective)
    return -caught(TRPO.train, model)


def sb3_update(policy_loss):
    """Return the gradients of the policy network in one whole update of PPO on its own
    rollout buffer of CartPole-v1, and those of script 6's loss on the same buffer.

    The ratios are not 1: the policy is moved after it has filled the buffer.
    """
    from stable_baselines3 import PPO

    off = {"ent_coef": 0.0, "vf_coef": 0.0, "normalize_advantage": False}
    off |= {"max_grad_norm": math.inf, "learning_rate": 0.0, "n_epochs": 1}
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=256, batch_size=256, seed=0, **off)
    model.set_logger(mock.MagicMock())  # else it makes a folder of logs
    model.learn(256)
    for p in model.policy.parameters():
        p.data += 0.3 * torch.randn_like(p)
    np.random.seed(0)
    model.train()
    net = [p for name, p in model.policy.named_parameters() if "value" not in name]
    theirs = [p.grad for p in net]
    np.random.seed(0)  # the buffer hands out its steps in the same order
    (data,) = model.rollout_buffer.get(256)
    act = data.actions.flatten()
    _, logp, _ = model.policy.evaluate_actions(data.observations, act)
    loss = policy_loss(logp, data.old_log_prob, data.advantages, model.clip_range(1.0))
    return theirs, torch.autograd.grad(loss, net)


# TorchRL: the loss modules


def torchrl(logp, logp_old, adv, eps, name):
    """Call a loss module of torchrl.objectives with an actor whose log_prob is logp."""
    from tensordict import TensorDict, nn
    from torchrl import objectives

    names = ["logp"], ["action"]
    net = nn.TensorDictModule(torch.nn.Identity(), ["leaf"], ["logp"])
    draw = nn.ProbabilisticTensorDictModule(*names, distribution_class=Leaf)
    actor = nn.ProbabilisticTensorDictSequential(net, draw)
    critic = nn.TensorDictModule(torch.nn.Identity(), ["leaf"], ["state_value"])
    options = {} if name == "ReinforceLoss" else {"entropy_bonus": False}
    if name == "ClipPPOLoss":
        options["clip_epsilon"] = eps
    loss = getattr(objectives, name)(actor, critic, functional=False, **options)
    zeros = torch.zeros_like(adv)
    batch = {"leaf": logp, "action": zeros, "action_log_prob": logp_old}
    batch |= {"advantage": adv[:, None], "value_target": logp.detach()}
    found = loss(TensorDict(batch, [len(adv)]))
    return found["loss_actor" if "loss_actor" in found else "loss_objective"]


# tianshou: _update_with_batch up to the optimizer


def tianshou(logp, logp_old, adv, eps, name):
    """Call _update_with_batch of an algorithm on one batch; return its loss."""
    from tianshou import algorithm
    from tianshou.data import Batch

    # the library shuffles, so obs is the place of a step in the leaf
    place, zeros = torch.arange(len(adv)), torch.zeros_like(adv)
    batch = Batch(obs=place, act=place, returns=adv, adv=adv, logp_old=logp_old)
    off = {"advantage_normalization": False, "dual_clip": None, "value_clip": False}
    off |= {"recompute_adv": False, "vf_coef": 0.0, "ent_coef": 0.0}
    model = mock.MagicMock(**off, eps_clip=eps)
    model.policy.side_effect = lambda batch: SimpleNamespace(
        dist=Leaf(logp[batch.obs]), act=zeros
    )
    model.critic = lambda obs: zeros
    model.optim.step = model._get_flat_grad = raise_loss
    return caught(getattr(algorithm, name)._update_with_batch, model, batch, None, 1)


# TRL: GRPOTrainer._compute_loss, a completion for each row of the mask


def trl(logp, logp_old, adv, eps, loss_type, short=1 / 2):
    """Call _compute_loss on two completions, the first of a share `short` of the steps."""
    from trl import GRPOTrainer

    short = int(short * len(adv))
    mask = torch.zeros(2, len(adv) - short)
    mask[0, :short], mask[1] = 1, 1
    spread = torch.zeros_like(mask).masked_scatter
    logp, logp_old, adv = (spread(mask > 0, x) for x in (logp, logp_old, adv))
    options = {"loss_type": loss_type, "epsilon_low": eps, "epsilon_high": eps}
    if loss_type == "cispo":
        options["epsilon_high"] = math.inf  # no upper bound
    options |= {"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None}
    options |= {"importance_sampling_level": "token", "beta": 0.0, "use_vllm": False}
    options |= {"max_completion_length": mask.shape[1], "_entropy_bonus_enabled": False}
    trainer = mock.MagicMock(**options, aux_loss_enabled=False)
    trainer.args.delta, trainer.model.training = None, False
    trainer.accelerator.num_processes, trainer.accelerator.gather = 1, lambda x: x
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, 0 * mask, None)
    inputs = dict.fromkeys(("prompt_ids", "prompt_mask"), mask[:, :0])
    inputs |= {"completion_ids": mask, "completion_mask": mask, "advantages": adv}
    inputs |= {"old_per_token_logps": logp_old, "num_items_in_batch": mask.sum()}
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def trl_lengths(logp, logp_old, adv, eps):
    """Call _compute_loss with loss_type grpo on completions of unequal length."""
    return trl(logp, logp_old, adv, eps, "grpo", short=1 / 3)


# verl: one response


def verl(logp, logp_old, adv, eps, name, dual_clip=math.inf):
    """Call a policy loss of core_algos; by itself no dual clip, no bounds on cispo."""
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    low, high = (1.0, math.inf) if name == "cispo" else (eps, eps)
    clips = {"clip_ratio_low": low, "clip_ratio_high": high, "clip_ratio_c": dual_clip}
    sizes = {"ppo_micro_batch_size_per_gpu": 1, "rollout_n": 1, "strategy": "fsdp"}
    config = ActorConfig(**clips, **sizes)
    batch = logp_old[None], logp[None], adv[None], torch.ones_like(adv)[None]
    loss = getattr(core_algos, f"compute_policy_loss_{name}")
    return loss(*batch, loss_agg_mode="token-mean", config=config)[0]


def verl_dual_clip(logp, logp_old, adv, eps):
    """Call compute_policy_loss_vanilla with its default dual clip."""
    return verl(logp, logp_old, adv, eps, "vanilla", dual_clip=3.0)


# skrl and rsl_rl: update() on a memory of one batch


def skrl(logp, logp_old, adv, eps):
    """Call PPO.update up to its backward pass."""
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


def rsl_rl(logp, logp_old, adv, eps):
    """Run PPO.update, which leaves its gradient in the leaf."""
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


# the comparison


class Peer(NamedTuple):
    """What is compared with what, and what comes out, see `verdict`.

    `name` is handed to `loss`, if any.
    """

    library: str
    loss: Callable
    name: str
    called: str
    script: int
    verdict: str
    cause: str = ""


BIT, CLOSE, OTHER = "yes", "last bits", "no"
SB3, STEP = "stable-baselines3", "._update_with_batch"
TRL, VERL = "GRPOTrainer._compute_loss, loss_type ", "compute_policy_loss_"
ORDER, LENGTH = "order of the products", "divides by each length"
DUAL = "A < 0 and ratio > 3"
PEERS = [
    Peer("tianshou", tianshou, "Reinforce", "Reinforce" + STEP, 2, BIT),
    Peer("torchrl", torchrl, "ReinforceLoss", "ReinforceLoss", 3, BIT),
    Peer("torchrl", torchrl, "A2CLoss", "A2CLoss", 3, BIT),
    Peer(SB3, sb3, "A2C", "A2C.train", 3, BIT),
    Peer("verl", verl, "reinforce", VERL + "reinforce", 3, BIT),
    Peer("torchrl", torchrl, "PPOLoss", "PPOLoss", 4, BIT),
    Peer("sb3-contrib", sb3_trpo, "", "TRPO.train", 4, BIT),
    Peer("tianshou", tianshou, "TRPO", "TRPO" + STEP, 4, BIT),
    Peer("trl", trl, "cispo", TRL + "cispo, no upper bound", 5, CLOSE, ORDER),
    Peer("verl", verl, "cispo", VERL + "cispo, no upper bound", 5, CLOSE, ORDER),
    Peer(SB3, sb3, "PPO", "PPO.train", 6, BIT),
    Peer("torchrl", torchrl, "ClipPPOLoss", "ClipPPOLoss", 6, BIT),
    Peer("tianshou", tianshou, "PPO", "PPO" + STEP, 6, BIT),
    Peer("skrl", skrl, "", "PPO.update", 6, BIT),
    Peer("rsl-rl-lib", rsl_rl, "", "PPO.update", 6, BIT),
    Peer("trl", trl, "grpo", TRL + "grpo", 6, BIT),
    Peer("trl", trl, "dapo", TRL + "dapo", 6, BIT),
    Peer("trl", trl, "dr_grpo", TRL + "dr_grpo", 6, BIT),
    Peer("verl", verl, "vanilla", VERL + "vanilla, no dual clip", 6, BIT),
    Peer("trl", trl_lengths, "", TRL + "grpo, unequal lengths", 6, OTHER, LENGTH),
    Peer("verl", verl_dual_clip, "", VERL + "vanilla, dual clip at 3", 6, OTHER, DUAL),
]


def installed(library):
    """Tell whether a library of PEERS is there."""
    return find_spec(library.removesuffix("-lib").replace("-", "_")) is not None


def batches(count):
    """Yield (logp, logp_old, adv, eps), 6 to 1000 steps, advantages of both signs.

    Ratios lie inside and outside the interval, some beyond 3.
    """
    gen = torch.Generator().manual_seed(0)
    for i in range(count):
        size = (14, 334, 6, 1000, 50)[i % 5]  # even, see trl
        logp, d, adv = torch.randn(3, size, generator=gen)
        eps = 0.1 + 0.2 * torch.rand(1, generator=gen).item()
        logp, d = -logp.abs(), (0.3, 1.5, 0.05)[i % 3] * d
        yield logp, logp - d, adv, eps


def gradient(loss, logp, *rest):
    """Return d loss / d logp, (batch,), also of a library that leaves it in the leaf."""
    leaf = logp.clone().requires_grad_()
    found = loss(leaf, *rest)
    return leaf.grad if found is None else torch.autograd.grad(found, leaf)[0]


def ours(n, policy_loss):
    """Return script n's loss as a function of (logp, logp_old, adv, eps)."""
    if n <= 3:
        return lambda logp, logp_old, adv, eps: policy_loss(logp, adv)
    if n <= 5:
        return lambda logp, logp_old, adv, eps: policy_loss(logp, logp_old, adv)
    return policy_loss


def verdict(peer, count, policy_loss=None):
    """Return what ``count`` batches say, and the largest difference as a share of the
    largest entry: BIT if every bit of every gradient is equal, CLOSE if they differ by at
    most 16 roundings, else OTHER."""
    mine = ours(peer.script, policy_loss or SCRIPTS[peer.script].policy_loss)
    name, equal, off = [peer.name] if peer.name else [], 0, []
    for batch in batches(count):
        theirs, grad = gradient(peer.loss, *batch, *name), gradient(mine, *batch)
        assert (theirs.dtype, theirs.shape) == (grad.dtype, grad.shape)
        equal += same_bits(theirs, grad)
        off.append((theirs - grad).abs().max() / grad.abs().max())
    largest = torch.stack(off).max().item()  # nan, if any is
    if equal == count:
        return BIT, largest
    close = largest <= 16 * torch.finfo(torch.float32).eps
    return (CLOSE if close else OTHER), largest


def main():
    """Compare all libraries; print, and write the CSV."""
    missing = sorted({x.library for x in PEERS if not installed(x.library)})
    if missing:
        sys.exit(f"not installed: {missing}; see tests/peers/requirements.txt")
    rows = [COLUMNS]
    for peer in PEERS:
        found, largest = verdict(peer, COUNT)
        row = [peer.library, version(peer.library), peer.called, peer.script]
        rows.append([*row, found, f"{largest:.1e}", peer.cause])
        surprise = "" if found == peer.verdict else f"EXPECTED {peer.verdict}"
        print(*rows[-1], surprise, sep=" | ", flush=True)
    with open(HERE / "peers.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
