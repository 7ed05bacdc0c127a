"""Exact policy gradients, on a decision process so small that every trajectory counts.

Three states, a few actions, a few steps: each trajectory is listed with its probability,
the scripts' own policy_loss gives its gradient estimate, and the weighted sum of the
estimates is their expectation: no sampling, so equal means equal to 1e-12. All tensors
are float64. S states, A actions, T = horizon steps, n trajectories; gradients are with
respect to theta (S, A), the logits of a tabular softmax policy, and point uphill.

Run: python -m tests.toy_mdp
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from tests.common import load_all

STATES = 3
# what `batch_bias` compares: weights (4, 5 and 6 start with 3's), and episodes in a batch
RUNGS = {1: "R(tau)", 2: "reward-to-go", 3: "reward-to-go - V_t(s)"}
BATCHES = 1, 2, 4, 8


class Mdp(NamedTuple):
    """A decision process, all of it known."""

    start: torch.Tensor  # (S,) probability of the first state
    move: torch.Tensor  # (S, A, S) of the next state; the rest to 1: the episode ends
    rew: torch.Tensor  # (S, A) reward
    horizon: int  # T, the step after which every episode ends


def random_mdp(seed, actions=3, low=0.0, stop=0.0, horizon=3):
    """Return a random Mdp, theta (S, A) and another policy's theta_old (S, A).

    Rewards are uniform on [low, 1), so that low=1 pays 1 for every step, as CartPole
    does; the chances to end are uniform on [0, stop), for each state and action.
    """
    gen = torch.Generator().manual_seed(seed)
    rand = partial(torch.rand, generator=gen, dtype=torch.float64)
    start, move = rand(STATES), rand(STATES, actions, STATES)
    rew = low + (1 - low) * rand(STATES, actions)
    go_on = 1 - stop * rand(STATES, actions, 1)
    move = go_on * move / move.sum(-1, keepdim=True)
    thetas = torch.randn(2, STATES, actions, generator=gen, dtype=torch.float64)
    return Mdp(start / start.sum(), move, rew, horizon), *thetas


def values(mdp, theta, gamma=1.0):
    """Return V (T, S) and Q (T, S, A) by dynamic programming (Bellman's equations).

    Both depend on the step t: with a horizon, the time left is part of the state.
    """
    pi, v, steps = theta.softmax(-1), torch.zeros_like(mdp.start), []
    for _ in range(mdp.horizon):
        q = mdp.rew + gamma * mdp.move @ v
        v = (pi * q).sum(-1)
        steps.append((v, q))
    return [torch.stack(x).flip(0) for x in zip(*steps, strict=True)]


def true_gradient(mdp, theta, gamma=1.0):
    """Return grad J (S, A), J = E[sum of gamma^t r_t], by autograd through `values`."""
    theta = theta.clone().requires_grad_()
    expected_return = mdp.start @ values(mdp, theta, gamma)[0][0]
    return torch.autograd.grad(expected_return, theta)[0]


def surrogate_gradient(mdp, theta, theta_old, clip_ratio=torch.inf):
    """Return the gradient (S, A) of L^CPI or L^CLIP (Schulman 2017, eq. 6 and 7).

    That is the sum over t of E[min(r A_t, clip(r) A_t)], r = pi / pi_old, with s, a and
    A_t all of pi_old.
    """
    v, q = values(mdp, theta_old)
    adv = q - v[..., None]
    obs, act, prob = trajectories(mdp, theta_old)
    theta = theta.clone().requires_grad_()
    ratio = theta.softmax(-1) / theta_old.softmax(-1)
    gain = torch.min(ratio * adv, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * adv)
    total = prob @ gain[torch.arange(mdp.horizon), obs, act].sum(1)
    return torch.autograd.grad(total, theta)[0]


def trajectories(mdp, theta, length=None):
    """Return obs and act (n, length) of all trajectories that end after `length` steps,
    by default the whole horizon, and their probabilities (n,)."""
    length = length or mdp.horizon
    states, actions = theta.shape
    steps = torch.cartesian_prod(*[torch.arange(states * actions)] * length)
    obs, act = steps.reshape(-1, length) // actions, steps.reshape(-1, length) % actions
    prob = mdp.start[obs[:, 0]] * theta.softmax(-1)[obs, act].prod(1)
    prob = prob * mdp.move[obs[:, :-1], act[:, :-1], obs[:, 1:]].prod(1)
    if length < mdp.horizon:
        prob = prob * (1 - mdp.move.sum(-1))[obs[:, -1], act[:, -1]]
    return obs, act, prob


def estimates(policy_loss, theta, obs, act, *rest):
    """Return one estimate (S, A) for each row of obs and act (n, steps): (n, S, A).

    A row is a batch: policy_loss gets its logp (steps,) and the rows of `rest`. The
    scripts take the mean over the steps; times their number, this is the sum over the
    trajectory that the policy gradient theorem has (Spinning Up, part 3).
    """

    def estimate(theta, obs, act, *rest):
        return -len(obs) * policy_loss(theta.log_softmax(-1)[obs, act], *rest)

    dims = (None, *[0] * (2 + len(rest)))
    return torch.vmap(torch.func.grad(estimate), dims)(theta, obs, act, *rest)


def expectation(prob, x):
    """Return the mean of x (n, ...) under prob (n,)."""
    return torch.tensordot(prob, x, 1)


def compare(grad, true):
    """Return grad's length over that of true, and the cosine between them; NaN for 0."""
    length = (grad.norm() / true.norm()).item()
    cosine = torch.cosine_similarity(grad.flatten(), true.flatten(), 0).item()
    return length, cosine if length > 1e-9 else torch.nan


def weightings(scripts, mdp, theta, obs, act):
    """Return {name: (script number, weights (n, steps))}: all are unbiased at gamma 1.

    b(s) is arbitrary. V, Q and A are exact and know the step; a V(s) that does not, as
    the scripts learn it, is one more b(s).
    """
    step, rew = torch.arange(obs.shape[1]), mdp.rew[obs, act]
    v, q = (x[step, obs] for x in values(mdp, theta))
    q = q.gather(-1, act[..., None])[..., 0]
    b = torch.tensor([5.0, -3.0, 1.0], dtype=torch.float64)[obs]
    ret = scripts[3].reward_to_go(rew.T, 1.0).T  # it takes (steps, n)
    return {
        "R(tau)": (1, rew.sum(1, keepdim=True).expand_as(rew)),
        "reward-to-go": (2, scripts[2].reward_to_go(rew.T).T),
        "reward-to-go - b(s)": (3, ret - b),
        "reward-to-go - V_t(s)": (3, ret - v),
        "Q_t(s, a)": (3, q),
        "A_t(s, a)": (3, q - v),
    }


def on_policy(scripts, mdp, theta):
    """Return {name: (script number, bias (S, A), variance)} of one trajectory's estimate.

    The bias is the expectation of the estimate minus `true_gradient`, the variance the
    trace of the covariance.
    """
    obs, act, prob = trajectories(mdp, theta)
    true, table = true_gradient(mdp, theta), {}
    for name, (n, weights) in weightings(scripts, mdp, theta, obs, act).items():
        grads = estimates(scripts[n].policy_loss, theta, obs, act, weights)
        mean = expectation(prob, grads)
        variance = expectation(prob, (grads - mean).square().sum((1, 2))).item()
        table[name] = n, mean - true, variance
    return table


def off_policy(scripts, mdp, theta, theta_old, weight, clip_ratio=0.2):
    """Return {4, 5 or 6: expectation (S, A)}: data from theta_old, gradient at theta.

    The advantages are those of pi_old that `weightings` calls `weight`.
    """
    obs, act, prob = trajectories(mdp, theta_old)
    _, adv = weightings(scripts, mdp, theta_old, obs, act)[weight]
    batch = obs, act, theta_old.log_softmax(-1)[obs, act], adv
    loss = {n: scripts[n].policy_loss for n in (4, 5, 6)}
    loss[6] = partial(loss[6], clip_ratio=clip_ratio)
    return {n: expectation(prob, estimates(loss[n], theta, *batch)) for n in loss}


def discounted(scripts, mdp, theta, gamma):
    """Return what gamma^t changes: three gradients (S, A).

    The true one of the discounted return; the expectation of script 3's estimate with
    gamma^t in front of each discounted reward-to-go (Sutton and Barto 2018, section
    13.3); and without, which is what the scripts do, with everybody.
    """
    obs, act, prob = trajectories(mdp, theta)
    ret = scripts[3].reward_to_go(mdp.rew[obs, act].T, gamma).T
    factor = gamma ** torch.arange(mdp.horizon, dtype=torch.float64)
    with_factor, without = (
        expectation(prob, estimates(scripts[3].policy_loss, theta, obs, act, weights))
        for weights in (factor * ret, ret)
    )
    return true_gradient(mdp, theta, gamma), with_factor, without


def by_length(scripts, mdp, theta, weight):
    """Return P(L = l) (T,) and E[g; L = l] (T, S, A) for episode lengths l = 1 to T.

    g is the estimate of one episode, summed over its steps, with `weight`, a name in
    `weightings`; the second summed over l is E[g].
    """
    parts = []
    for length in range(1, mdp.horizon + 1):
        obs, act, prob = trajectories(mdp, theta, length)
        n, weights = weightings(scripts, mdp, theta, obs, act)[weight]
        grads = estimates(scripts[n].policy_loss, theta, obs, act, weights)
        parts.append((prob.sum(), expectation(prob, grads)))
    return [torch.stack(x) for x in zip(*parts, strict=True)]


def mean_over_steps(chance, grads, batch):
    """Return E[L] E[(g_1 + ... + g_N) / (L_1 + ... + L_N)] (S, A), N = batch.

    The scripts take the mean over all steps of N episodes, a ratio of two sums that go
    together; only as N grows does its expectation tend to grad J / E[L]. By symmetry it
    is N E[g_1 / (L_1 + ... + L_N)], where only the sum of the other lengths matters.
    """
    others = np.ones(1)  # others[i] = P(L_2 + ... + L_N = i)
    for _ in range(batch - 1):
        others = np.convolve(others, [0, *chance])
    lengths = torch.arange(1, len(chance) + 1)
    total = torch.arange(len(others))[:, None] + lengths
    share = torch.as_tensor(others) @ (batch / total.double())
    return (chance @ lengths.double()) * expectation(share, grads)


def batch_bias(scripts, seed=0):
    """Return {(rung, N): (length, cosine)} of the mean over N episodes against grad J.

    Both are 1 where there is no bias. An episode pays 1 for each of its 1 to 6 steps, so
    for N = 1 rung 1's expectation is zero (and its cosine NaN): the weight of every step
    is the length that the mean divides by. At theta_old 4, 5 and 6 have 3's gradient.
    """
    mdp, theta, _ = random_mdp(seed, actions=2, low=1.0, stop=0.5, horizon=6)
    true, cells = true_gradient(mdp, theta), {}
    for n, weight in RUNGS.items():
        parts = by_length(scripts, mdp, theta, weight)
        for batch in BATCHES:
            cells[n, batch] = compare(mean_over_steps(*parts, batch), true)
    return cells


def reference(loss):
    """Return loss, gradient (4,) and Hessian (4, 4) in the example of rung 5.

    The post it is from calls these numbers logits, but passes them as Categorical's first
    argument, which is probs: unnormalised probabilities. Only so do the figures come out.
    """
    old = torch.tensor([2.3, 1, 1, 1], dtype=torch.float64)

    def value(new):
        both = torch.distributions.Categorical(torch.stack([new, old]))
        logp = both.log_prob(torch.tensor(0))
        return loss(logp[:1], logp[1:], torch.ones(1, dtype=torch.float64))

    grad, at_new = torch.func.grad_and_value(value)(torch.ones_like(old))
    hessian = torch.func.jacrev(torch.func.grad(value))(torch.ones_like(old))
    return at_new.item(), grad, hessian


def without_detach(logp, logp_old, adv):
    """Script 5's loss with its detach forgotten, which is wrong: (batch,) to a scalar."""
    return -(torch.exp(logp - logp_old) * logp * adv).mean()


def row(name, *cells):
    """Print a line of a table: a name, then cells right-aligned in columns."""
    print(f"{name:<26}", *(f"{cell:>10}" for cell in cells), sep="")


def main():
    """Print the exact figures of random processes."""
    scripts = load_all()
    mdp, theta, _ = random_mdp(seed=0)
    print("one trajectory's estimate against the true gradient")
    row("weight", "script", "bias", "variance")
    for name, (n, bias, variance) in on_policy(scripts, mdp, theta).items():
        row(name, n, f"{bias.abs().max():.0e}", f"{variance:.4f}")

    print("\nno gamma^t: the expected estimate against the true gradient")
    row("", "gamma", "length", "cosine")
    for gamma in (1.0, 0.99, 0.9, 0.5):
        true, _, without = discounted(scripts, mdp, theta, gamma)
        row("", gamma, *(f"{x:.4f}" for x in compare(without, true)))

    print("\nreward 1 a step, mean over all steps of N episodes: expectation times the")
    print("mean length, against the true gradient; worst: the cosine of 20 processes")
    row("weight", "N =", *BATCHES)
    runs = [batch_bias(scripts, seed) for seed in range(20)]
    for n, name in RUNGS.items():
        lengths, cosines = zip(*(runs[0][n, batch] for batch in BATCHES), strict=True)
        worst = [min(run[n, batch][1] for run in runs) for batch in BATCHES]
        for title, x in {"length": lengths, "cosine": cosines, "worst": worst}.items():
            row(name, title, *(f"{cell:.3f}" for cell in x))


if __name__ == "__main__":
    torch.set_num_threads(1)  # on tensors this small, two mostly wait for each other
    main()
