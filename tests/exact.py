"""Exact policy gradients, on a decision process so small that every trajectory counts.

Three states, a few actions, three steps: each trajectory is listed with its probability,
the scripts' own policy_loss gives its gradient estimate, and the weighted sum of the
estimates is their expectation: no sampling, so equal means equal to 1e-12. All tensors are
float64. S states, A actions, T = HORIZON steps, n trajectories; gradients are with respect
to theta (S, A), the logits of a tabular softmax policy, and point uphill.

Run: python -m tests.exact
"""

import inspect
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from tests.common import load_all

STATES, HORIZON = 3, 3
# what main() tries: discounts, and episodes in a batch
GAMMAS, BATCHES = (1.0, 0.99, 0.9, 0.5), (1, 2, 4, 8, 16, 32, 64)


class Mdp(NamedTuple):
    """A decision process, all of it known.

    Where the rows of move sum to less than 1, the rest is the chance that the episode
    ends; at HORIZON steps every episode does.
    """

    start: torch.Tensor  # (S,) probability of the first state
    move: torch.Tensor  # (S, A, S) probability of the next state
    rew: torch.Tensor  # (S, A) reward


def random_mdp(seed, actions=3, low=0.0, stop=0.0):
    """Return a random Mdp, theta (S, A) and another policy's theta_old (S, A).

    Rewards are uniform on [low, 1); the chances to end on [0, stop) for each (s, a).
    """
    gen = torch.Generator().manual_seed(seed)
    rand = partial(torch.rand, generator=gen, dtype=torch.float64)
    start, move = rand(STATES), rand(STATES, actions, STATES)
    rew = low + (1 - low) * rand(STATES, actions)
    go_on = 1 - stop * rand(STATES, actions, 1)
    move = go_on * move / move.sum(-1, keepdim=True)
    thetas = torch.randn(2, STATES, actions, generator=gen, dtype=torch.float64)
    return Mdp(start / start.sum(), move, rew), *thetas


def values(mdp, theta, gamma=1.0):
    """Return V (T, S) and Q (T, S, A) by dynamic programming (Bellman's equations).

    Both depend on the step t: with a horizon, the time left is part of the state.
    """
    pi, v, steps = theta.softmax(-1), torch.zeros_like(mdp.start), []
    for _ in range(HORIZON):
        q = mdp.rew + gamma * mdp.move @ v
        v = (pi * q).sum(-1)
        steps.append((v, q))
    return [torch.stack(x).flip(0) for x in zip(*steps, strict=True)]


def true_gradient(mdp, theta, gamma=1.0):
    """Return grad J (S, A), J = E[sum of gamma^t r_t], by autograd through `values`."""
    theta = theta.clone().requires_grad_()
    expected_return = mdp.start @ values(mdp, theta, gamma)[0][0]
    return torch.autograd.grad(expected_return, theta)[0]


def occupancy(mdp, theta):
    """Return the probability (T, S) of being in state s at step t."""
    move = torch.einsum("sa,sax->sx", theta.softmax(-1), mdp.move)
    steps = [mdp.start]
    for _ in range(HORIZON - 1):
        steps.append(steps[-1] @ move)
    return torch.stack(steps)


def surrogate_gradient(mdp, theta, theta_old, clip_ratio=torch.inf):
    """Return the gradient (S, A) of L^CPI or L^CLIP (Schulman 2017, eq. 6 and 7).

    That is the sum over t of E[min(r A_t, clip(r) A_t)], r = pi / pi_old, with s, a and
    A_t all of pi_old; here from the occupancies, without trajectories.
    """
    v, q = values(mdp, theta_old)
    adv, pi_old = q - v[..., None], theta_old.softmax(-1)
    theta = theta.clone().requires_grad_()
    ratio = theta.softmax(-1) / pi_old
    gain = torch.min(ratio * adv, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * adv)
    total = (occupancy(mdp, theta_old)[..., None] * pi_old * gain).sum()
    return torch.autograd.grad(total, theta)[0]


def trajectories(mdp, theta, length=HORIZON):
    """Return obs and act, (n, length), of every trajectory, and its probability (n,)."""
    states, actions = theta.shape
    steps = torch.cartesian_prod(*[torch.arange(states * actions)] * length)
    obs, act = steps.reshape(-1, length) // actions, steps.reshape(-1, length) % actions
    prob = mdp.start[obs[:, 0]] * theta.softmax(-1)[obs, act].prod(1)
    prob = prob * mdp.move[obs[:, :-1], act[:, :-1], obs[:, 1:]].prod(1)
    if length < HORIZON:
        prob = prob * (1 - mdp.move.sum(-1))[obs[:, -1], act[:, -1]]
    return obs, act, prob


def log_prob(theta, obs, act):
    """Return log pi(act|obs) of the tabular policy, in the shape of obs and act."""
    return theta.log_softmax(-1)[obs, act]


def estimates(policy_loss, theta, obs, act, *rest):
    """Return one estimate (S, A) for each row of obs and act (n, steps): (n, S, A).

    A row is a batch: policy_loss gets its logp (steps,) and the rows of `rest`. The
    scripts take the mean over the steps; times their number, this is the sum over the
    trajectory that the policy gradient theorem has.
    """

    def estimate(theta, obs, act, *rest):
        return -len(obs) * policy_loss(log_prob(theta, obs, act), *rest)

    dims = (None, *[0] * (2 + len(rest)))
    return torch.vmap(torch.func.grad(estimate), dims)(theta, obs, act, *rest)


def expectation(prob, x):
    """Return the mean of x (n, ...) under prob (n,)."""
    return torch.tensordot(prob, x, 1)


def variance(prob, x):
    """Return the trace of the covariance of x (n, S, A) under prob (n,), a float."""
    return expectation(prob, (x - expectation(prob, x)).square().sum((1, 2))).item()


def cosine(x, y):
    """Return the cosine of the angle between two gradients, a float."""
    return torch.cosine_similarity(x.flatten(), y.flatten(), 0).item()


def to_go(scripts, n, rew, *gamma):
    """Return script n's reward_to_go, which takes (T, n), for rew (n, T)."""
    return scripts[n].reward_to_go(rew.T, *gamma).T


def weightings(scripts, mdp, theta, obs, act):
    """Return {name: (script number, weights (n, T))}: all are unbiased at gamma 1.

    b(s) is arbitrary. V, Q and A are exact and know the step; a V(s) that does not, as
    the scripts learn it, is one more b(s).
    """
    step, rew = torch.arange(HORIZON), mdp.rew[obs, act]
    v, q = (x[step, obs] for x in values(mdp, theta))
    q = q.gather(-1, act[..., None])[..., 0]
    b = torch.tensor([5.0, -3.0, 1.0], dtype=torch.float64)[obs]
    ret = to_go(scripts, 3, rew, 1.0)
    return {
        "R(tau)": (1, rew.sum(1, keepdim=True).expand_as(rew)),
        "reward-to-go": (2, to_go(scripts, 2, rew)),
        "reward-to-go - b(s)": (3, ret - b),
        "reward-to-go - V_t(s)": (3, ret - v),
        "Q_t(s, a)": (3, q),
        "A_t(s, a)": (3, q - v),
    }


def on_policy(scripts, mdp, theta):
    """Return {name: (script number, bias (S, A), variance)} of one trajectory's estimate.

    The bias is the expectation of the estimate minus `true_gradient`.
    """
    obs, act, prob = trajectories(mdp, theta)
    true, table = true_gradient(mdp, theta), {}
    for name, (n, weights) in weightings(scripts, mdp, theta, obs, act).items():
        grads = estimates(scripts[n].policy_loss, theta, obs, act, weights)
        table[name] = n, expectation(prob, grads) - true, variance(prob, grads)
    return table


def off_policy(scripts, mdp, theta, theta_old, sampled=True, clip_ratio=0.2):
    """Return {4, 5 or 6: expectation (S, A)}: data from theta_old, gradient at theta.

    The advantages are pi_old's: reward-to-go minus V_t if `sampled`, else A_t.
    """
    obs, act, prob = trajectories(mdp, theta_old)
    name = "reward-to-go - V_t(s)" if sampled else "A_t(s, a)"
    _, adv = weightings(scripts, mdp, theta_old, obs, act)[name]
    batch = obs, act, log_prob(theta_old, obs, act), adv
    loss = {n: scripts[n].policy_loss for n in (4, 5, 6)}
    loss[6] = partial(loss[6], clip_ratio=clip_ratio)
    return {n: expectation(prob, estimates(loss[n], theta, *batch)) for n in loss}


def discounted(scripts, mdp, theta, gamma):
    """Return what gamma^t changes: three gradients (S, A).

    The true one of the discounted return; the expectation of script 3's estimate with
    gamma^t in front of each discounted reward-to-go, which is the theorem's; and without,
    which is what the scripts do, with everybody.
    """
    obs, act, prob = trajectories(mdp, theta)
    ret = to_go(scripts, 3, mdp.rew[obs, act], gamma)
    factor = gamma ** torch.arange(HORIZON, dtype=torch.float64)
    loss = scripts[3].policy_loss
    with_factor, without = (
        expectation(prob, estimates(loss, theta, obs, act, x))
        for x in (factor * ret, ret)
    )
    return true_gradient(mdp, theta, gamma), with_factor, without


def by_length(scripts, mdp, theta):
    """Return (P(L = l) (T,), E[g; L = l] (T, S, A)) for episode lengths l = 1 to T.

    g is script 2's estimate, the sum over the steps of one episode; the second summed
    over l is E[g].
    """
    parts = []
    for length in range(1, HORIZON + 1):
        obs, act, prob = trajectories(mdp, theta, length)
        ret = to_go(scripts, 2, mdp.rew[obs, act])
        grads = estimates(scripts[2].policy_loss, theta, obs, act, ret)
        parts.append((prob.sum(), expectation(prob, grads)))
    return [torch.stack(x) for x in zip(*parts, strict=True)]


def mean_over_steps(chance, grads, batch):
    """Return E[(g_1 + ... + g_N) / (L_1 + ... + L_N)] (S, A), N = batch.

    This is what a mean over all steps of N independent episodes has as its expectation,
    from `by_length`: N times g_1's part, over the distribution of the other lengths.
    """
    others = np.ones(1)  # others[i] = P(L_2 + ... + L_N = i)
    for _ in range(batch - 1):
        others = np.convolve(others, [0, *chance])
    lengths = np.arange(len(others))[:, None] + np.arange(1, HORIZON + 1)
    return batch * torch.tensordot(torch.as_tensor(others @ (1 / lengths)), grads, 1)


def mean_over_steps_of_two(scripts, mdp, theta):
    """Return the same for N = 2, by script 2's policy_loss on every pair of episodes."""
    total, every = 0, []
    for length in range(1, HORIZON + 1):
        obs, act, prob = trajectories(mdp, theta, length)
        every.append((obs, act, to_go(scripts, 2, mdp.rew[obs, act]), prob))
    for *first, p in every:
        for *second, q in every:
            i, j = torch.cartesian_prod(torch.arange(len(p)), torch.arange(len(q))).T
            batch = [
                torch.cat([x[i], y[j]], 1) for x, y in zip(first, second, strict=True)
            ]
            grads = estimates(scripts[2].policy_loss, theta, *batch)
            total += expectation(p[i] * q[j], grads) / batch[0].shape[1]
    return total


def reference(loss, order=1):
    """Return the references' loss and gradient; with order 2, also the Hessian (4, 4).

    The references call these numbers logits, but pass them as Categorical's first
    argument, which is probs: unnormalised probabilities. Only so do the figures come out.
    """
    new = torch.ones(4, dtype=torch.float64, requires_grad=True)
    old = torch.tensor([2.3, 1, 1, 1], dtype=torch.float64)
    act = torch.tensor([0])
    logp, logp_old = (
        torch.distributions.Categorical(x).log_prob(act) for x in (new, old)
    )
    value = loss(logp, logp_old, torch.ones_like(logp))
    (grad,) = torch.autograd.grad(value, new, create_graph=True)
    if order == 1:
        return value.item(), grad.tolist()
    rows = [torch.autograd.grad(g, new, retain_graph=True)[0] for g in grad]
    return value.item(), grad.detach(), torch.stack(rows)


def mutant(module, old, new):
    """Return policy_loss made from its own source text with `old`, found once, replaced."""
    source = inspect.getsource(module.policy_loss)
    assert source.count(old) == 1, f"{old!r} is not once in {source}"
    names = {"torch": torch}
    exec(source.replace(old, new), names)  # noqa: S102 - the repository's own text
    return names["policy_loss"]


def row(name, *cells):
    """Print a line of a table: a name, then cells right-aligned in columns."""
    print(f"{name:<26}", *(f"{cell:>10}" for cell in cells), sep="")


def main(seed=0, others=20):
    """Print the exact figures of one random process; `worst` is over `others` of them."""
    scripts = load_all()
    mdp, theta, theta_old = random_mdp(seed)
    true, count = true_gradient(mdp, theta), len(trajectories(mdp, theta)[2])
    print(f"{count} trajectories, |grad J| = {true.norm():.4f}\n")
    row("one trajectory, weight", "script", "bias", "variance")
    for name, (n, bias, var) in on_policy(scripts, mdp, theta).items():
        row(name, n, f"{bias.abs().max():.0e}", f"{var:.4f}")

    print("\nbias against grad L^CPI or L^CLIP, and against grad J where pi = pi_old")
    row("data from pi_old", "script", "bias", "at pi_old")
    for sampled, weight in ((True, "reward-to-go - V_t(s)"), (False, "A_t(s, a)")):
        here = off_policy(scripts, mdp, theta, theta_old, sampled)
        there = off_policy(scripts, mdp, theta_old, theta_old, sampled)
        for n in here:
            eps = 0.2 if n == 6 else torch.inf
            bias = here[n] - surrogate_gradient(mdp, theta, theta_old, eps)
            bias_there = there[n] - true_gradient(mdp, theta_old)
            row(weight, n, *(f"{x.abs().max():.0e}" for x in (bias, bias_there)))

    print("\nno gamma^t: the expected estimate against the true gradient")
    row("", "gamma", "cosine", "length", "worst")
    for gamma in GAMMAS:
        true, _, without = discounted(scripts, mdp, theta, gamma)
        runs = (discounted(scripts, *random_mdp(i)[:2], gamma) for i in range(others))
        worst = min(cosine(x, y) for x, _, y in runs)
        length = without.norm() / true.norm()
        row("", gamma, *(f"{x:.5f}" for x in (cosine(true, without), length, worst)))

    runs = [random_mdp(i, actions=2, stop=1.0)[:2] for i in (seed, *range(others))]
    runs = [(true_gradient(*x), *by_length(scripts, *x)) for x in runs]
    chance = runs[0][1]
    mean = expectation(chance, torch.arange(1.0, HORIZON + 1).double())
    print(f"\nepisodes of 1, 2, 3 steps: chance {chance.numpy().round(3)}, ", end="")
    print(f"mean length {mean:.3f}")
    print("mean over all steps of a batch: the expected estimate against grad J")
    row("", "episodes", "cosine", "length", "x mean", "worst")
    for batch in BATCHES:
        pairs = [(x[0], mean_over_steps(*x[1:], batch)) for x in runs]
        cosines = [cosine(*pair) for pair in pairs]
        length = pairs[0][1].norm() / pairs[0][0].norm()
        cells = cosines[0], length, mean * length, min(cosines)
        row("", batch, *(f"{x:.5f}" for x in cells))


if __name__ == "__main__":
    torch.set_num_threads(1)  # on tensors this small, two mostly wait for each other
    main()
