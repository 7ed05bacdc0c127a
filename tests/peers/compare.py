"""Hold the scripts' losses against those of the libraries people use, by running these.

    pip install -r tests/peers/requirements.txt    and what it says of one more
    python -m tests.peers.compare                  prints, and writes peers.csv

Compared is the gradient d loss / d logp, where logp = log pi(a|s). A stand-in for the
library's network returns logp, and the library's own code does the rest, without
entropy bonus, value loss and normalised advantages.

The function of each library takes logp, logp_old and adv, all (batch,), and eps, how far
PPO lets the ratio go from 1; it returns the library's loss, a scalar. In its mocks it
sets only what a bare mock would get wrong.
"""

import csv
import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple
from unittest import mock

import torch
from torch.nn.utils.rnn import pad_sequence

from tests.common import ROOT, load_all, same_bits

TABLE = ROOT / "tests" / "peers" / "peers.csv"
SCRIPTS = load_all()


class Computed(Exception):
    """Carries a library's loss out of a method that would go on to use it."""


def hand_over(loss, *_, **__):
    """Stand in for what a library does with its loss."""
    raise Computed(loss)


def loss_of(method, *args, **kwargs):
    """Call a method until it has a loss; return that."""
    try:
        with mock.patch.object(torch.Tensor, "backward", hand_over):
            method(*args, **kwargs)
    except Computed as stop:
        return stop.args[0]
    raise AssertionError(f"{method} computed no loss")


class Leaf(torch.distributions.Categorical):
    """A distribution whose log_prob is logp, (batch,), whatever the action."""

    def __init__(self, logp):
        super().__init__(torch.ones(len(logp), 2))
        self.logp = logp
        self.distribution = self  # where TRPO of sb3-contrib looks for it

    def log_prob(self, act):
        """Return logp."""
        return self.logp


def sb3(name, logp, logp_old, adv, eps):
    """Stable-Baselines3 and sb3-contrib: train() of an algorithm."""
    zeros = torch.zeros_like(adv)
    data = mock.MagicMock(old_log_prob=logp_old, advantages=adv, returns=zeros)
    model = mock.MagicMock(normalize_advantage=False, sub_sampling_factor=1)
    model.ent_coef = model.vf_coef = 0.0
    model.target_kl = model.clip_range_vf = None
    model.clip_range.return_value = eps
    model.rollout_buffer.get.return_value = [data]
    model.policy.evaluate_actions.return_value = zeros, logp, zeros
    model.policy.get_distribution.return_value = Leaf(logp)
    model._compute_actor_grad = lambda kl, objective: hand_over(-objective)
    module = import_module("sb3_contrib" if name == "TRPO" else "stable_baselines3")
    return loss_of(getattr(module, name).train, model)


def torchrl(name, logp, logp_old, adv, eps):
    """TorchRL: a loss module of torchrl.objectives."""
    from tensordict import TensorDict, nn
    from torchrl import objectives

    names = ["logp"], ["action"]
    actor = nn.ProbabilisticTensorDictModule(*names, distribution_class=Leaf)
    critic = nn.TensorDictModule(torch.nn.Identity(), ["logp"], ["state_value"])
    options = {"clip_epsilon": eps} if name == "ClipPPOLoss" else {}
    loss = getattr(objectives, name)(actor, critic, **options)
    batch = {"logp": logp, "action_log_prob": logp_old, "advantage": adv[:, None]}
    batch |= {"action": adv, "value_target": adv}
    found = loss(TensorDict(batch, [len(adv)]))
    return found["loss_actor" if name == "ReinforceLoss" else "loss_objective"]


def tianshou(name, logp, logp_old, adv, eps):
    """tianshou: _update_with_batch of an algorithm."""
    from tianshou import algorithm
    from tianshou.data import Batch

    batch = Batch(logp=logp, logp_old=logp_old, adv=adv, returns=adv, obs=adv, act=adv)
    model = mock.MagicMock(eps_clip=eps, dual_clip=None)
    model.advantage_normalization = model.value_clip = False
    model.ent_coef = model.vf_coef = 0.0
    # x is the batch, which the library has shuffled
    model.policy.side_effect = lambda x: mock.Mock(dist=Leaf(x.logp), act=x.act)
    model.critic.return_value = torch.zeros_like(adv)
    model.optim.step = model._get_flat_grad = hand_over
    update = getattr(algorithm, name)._update_with_batch
    return loss_of(update, model, batch, batch_size=None, repeat=1)


def trl(loss_type, logp, logp_old, adv, eps, first=1 / 2):
    """TRL: GRPOTrainer._compute_loss, ``first`` of the steps in the first of two answers."""
    from trl import GRPOTrainer

    first = int(first * len(adv))
    logp, logp_old, adv, mask = (
        pad_sequence(x.split([first, len(x) - first]), batch_first=True)
        for x in (logp, logp_old, adv, torch.ones_like(adv))
    )
    if loss_type == "cispo":
        eps = math.inf  # no bound
    trainer = mock.MagicMock(loss_type=loss_type, epsilon_low=eps, epsilon_high=eps)
    trainer.importance_sampling_level = "token"
    trainer.top_entropy_quantile, trainer.beta = 1.0, 0.0
    trainer.off_policy_mask_threshold = trainer.args.delta = None
    trainer.use_vllm = trainer.model.training = False
    trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = False
    trainer.accelerator.num_processes = 1
    trainer.accelerator.gather.return_value = mask  # only logged
    trainer.max_completion_length = mask.shape[1]
    trainer._get_per_token_logps_and_entropies.return_value = logp, 0 * mask, None
    inputs = {"prompt_ids": mask[:, :0], "prompt_mask": mask[:, :0]}
    inputs |= {"completion_ids": mask, "completion_mask": mask, "advantages": adv}
    inputs |= {"old_per_token_logps": logp_old, "num_items_in_batch": mask.sum()}
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def verl(name, logp, logp_old, adv, eps, dual_clip=math.inf):
    """verl: a policy loss of core_algos, on one response."""
    from verl.trainer.ppo import core_algos
    from verl.workers.config import ActorConfig

    if name == "cispo":
        eps = math.inf  # no bound
    clips = {"clip_ratio_low": eps, "clip_ratio_high": eps, "clip_ratio_c": dual_clip}
    config = ActorConfig(strategy="", rollout_n=1, use_dynamic_bsz=True, **clips)
    batch = logp_old[None], logp[None], adv[None], torch.ones_like(adv)[None]
    loss = getattr(core_algos, f"compute_policy_loss_{name}")
    return loss(*batch, loss_agg_mode="token-mean", config=config)[0]


def skrl(logp, logp_old, adv, eps):
    """skrl: PPO.update."""
    from skrl.agents.torch.ppo import PPO

    zeros = torch.zeros_like(adv)[:, None]
    agent = mock.MagicMock(_device_type="cpu")
    agent.cfg.ratio_clip = eps
    agent.cfg.mixed_precision = False
    agent.cfg.kl_threshold = agent.cfg.value_clip = 0
    agent.cfg.entropy_loss_scale = agent.cfg.value_loss_scale = 0
    agent.policy.act.return_value = None, {"log_prob": logp[:, None]}
    agent.value.act.return_value = zeros, {}
    batch = zeros, zeros, zeros, logp_old[:, None], zeros, zeros, adv[:, None]
    agent.memory.sample.return_value = [batch]
    agent.scaler.scale = hand_over
    with mock.patch("skrl.agents.torch.ppo.ppo.compute_gae", return_value=(0, 0)):
        return loss_of(PPO.update, agent, timestep=0, timesteps=1)


def rsl_rl(logp, logp_old, adv, eps):
    """rsl_rl: PPO.update."""
    from rsl_rl.algorithms import PPO

    zeros = torch.zeros_like(adv)
    batch = mock.MagicMock(old_actions_log_prob=logp_old, advantages=adv, returns=zeros)
    model = mock.MagicMock(clip_param=eps, device="cpu", symmetry=None)
    model.normalize_advantage_per_mini_batch = model.use_mixed_precision = False
    model.use_clipped_value_loss = False
    model.entropy_coef = model.value_loss_coef = 0.0
    model.actor.is_recurrent = model.critic.is_recurrent = False
    model.actor.get_output_log_prob.return_value = logp
    model.actor.output_entropy = model.critic.return_value = zeros
    model.storage.mini_batch_generator.return_value = [batch]
    return loss_of(PPO.update, model)


class Peer(NamedTuple):
    """A library's loss, the script it is compared with, and what comes out, and why."""

    library: str
    called: str
    loss: Callable
    script: int
    verdict: str
    cause: str = ""


BIT, NEAR, OTHER = "yes", "last bits", "no"
STEP, VERL = "._update_with_batch", "compute_policy_loss_"
TRL = "GRPOTrainer._compute_loss, loss_type "
ORDER, LENGTH = "order of the products", "divides by each length"
DUAL = "A < 0 and ratio > 3"
trl_unequal = partial(trl, "grpo", first=1 / 3)
verl_dual = partial(verl, "vanilla", dual_clip=3.0)
PEERS = [
    Peer("tianshou", "Reinforce" + STEP, partial(tianshou, "Reinforce"), 2, BIT),
    Peer("torchrl", "ReinforceLoss", partial(torchrl, "ReinforceLoss"), 3, BIT),
    Peer("torchrl", "A2CLoss", partial(torchrl, "A2CLoss"), 3, BIT),
    Peer("stable-baselines3", "A2C.train", partial(sb3, "A2C"), 3, BIT),
    Peer("verl", VERL + "reinforce", partial(verl, "reinforce"), 3, BIT),
    Peer("torchrl", "PPOLoss", partial(torchrl, "PPOLoss"), 4, BIT),
    Peer("sb3-contrib", "TRPO.train", partial(sb3, "TRPO"), 4, BIT),
    Peer("tianshou", "TRPO" + STEP, partial(tianshou, "TRPO"), 4, BIT),
    Peer("trl", TRL + "cispo, no upper bound", partial(trl, "cispo"), 5, NEAR, ORDER),
    Peer(
        "verl", VERL + "cispo, no upper bound", partial(verl, "cispo"), 5, NEAR, ORDER
    ),
    Peer("stable-baselines3", "PPO.train", partial(sb3, "PPO"), 6, BIT),
    Peer("torchrl", "ClipPPOLoss", partial(torchrl, "ClipPPOLoss"), 6, BIT),
    Peer("tianshou", "PPO" + STEP, partial(tianshou, "PPO"), 6, BIT),
    Peer("skrl", "PPO.update", skrl, 6, BIT),
    Peer("rsl-rl-lib", "PPO.update", rsl_rl, 6, BIT),
    Peer("trl", TRL + "grpo", partial(trl, "grpo"), 6, BIT),
    Peer("trl", TRL + "dapo", partial(trl, "dapo"), 6, BIT),
    Peer("trl", TRL + "dr_grpo", partial(trl, "dr_grpo"), 6, BIT),
    Peer("verl", VERL + "vanilla, no dual clip", partial(verl, "vanilla"), 6, BIT),
    Peer("trl", TRL + "grpo, unequal lengths", trl_unequal, 6, OTHER, LENGTH),
    Peer("verl", VERL + "vanilla, dual clip at 3", verl_dual, 6, OTHER, DUAL),
]


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
    """Return d loss / d logp, (batch,)."""
    logp = logp.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(logp, *rest), logp)
    return grad


def ours(n, policy_loss):
    """Return script n's loss as a function of (logp, logp_old, adv, eps)."""
    if n <= 3:
        return lambda logp, logp_old, adv, eps: policy_loss(logp, adv)
    if n <= 5:
        return lambda logp, logp_old, adv, eps: policy_loss(logp, logp_old, adv)
    return policy_loss


def verdict(peer, count, policy_loss=None):
    """Compare the gradients of ``count`` batches with those of a script's policy_loss.

    Returns BIT if every bit is equal, NEAR if they differ by at most 16 roundings, else
    OTHER; and the largest difference, as a share of the largest entry of its gradient.
    """
    mine = ours(peer.script, policy_loss or SCRIPTS[peer.script].policy_loss)
    equal, off = True, []
    for batch in batches(count):
        theirs, grad = gradient(peer.loss, *batch), gradient(mine, *batch)
        equal = equal and same_bits(theirs, grad)
        off.append((theirs - grad).abs().max() / grad.abs().max())
    largest = torch.stack(off).max().item()  # nan, if any is
    if equal:
        return BIT, largest
    near = largest <= 16 * torch.finfo(torch.float32).eps
    return (NEAR if near else OTHER), largest


def main():
    """Compare all libraries, which must be installed; print, and write the CSV."""
    rows = []
    for peer in PEERS:
        found, largest = verdict(peer, 300)
        row = [peer.library, version(peer.library), peer.called, peer.script]
        rows.append([*row, found, f"{largest:.1e}", peer.cause])
        print(*rows[-1], sep=" | ", flush=True)
    head = ["library", "version", "called", "script"]
    head += ["equal_to_the_bit", "largest_difference", "cause"]
    with open(TABLE, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


if __name__ == "__main__":
    main()
