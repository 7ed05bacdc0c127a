"""The scripts' estimates, their expectations exact, against the policy gradient theorem."""

from itertools import product

import pytest
import torch

from tests import toy_mdp

MANY = [(seed, actions) for seed in range(20) for actions in (2, 3)]
on_some = pytest.mark.parametrize("process", MANY[:3], ids=str)
SAMPLED, EXACT = toy_mdp.RUNGS[3], "A_t(s, a)"


def close(x, y):
    """Tell whether x and y, neither all zero, are equal to 1e-12."""
    assert x.any() and y.any()
    return torch.allclose(x, y, rtol=0, atol=1e-12)


@on_some
def test_trajectories_are_all_there(process):
    """Their probabilities sum to 1, also with episodes that end; their mean return is J."""
    for stop in (0.0, 1.0):
        mdp, theta, _ = toy_mdp.random_mdp(*process, stop=stop)
        theta.requires_grad_()
        total = expected_return = 0
        for length in range(1, mdp.horizon + 1):
            obs, act, prob = toy_mdp.trajectories(mdp, theta, length)
            total += prob.sum()
            expected_return += prob @ mdp.rew[obs, act].sum(1)
        assert abs(total - 1) < 1e-12
        (grad,) = torch.autograd.grad(expected_return, theta)
        assert close(grad, toy_mdp.true_gradient(mdp, theta.detach()))


@on_some
def test_every_weight_is_unbiased(scripts, process):
    """E[estimate] = grad J for R(tau), reward-to-go, minus b(s), minus V, for Q and A."""
    mdp, theta, _ = toy_mdp.random_mdp(*process)
    true = toy_mdp.true_gradient(mdp, theta)
    table = toy_mdp.on_policy(scripts, mdp, theta)
    assert {n for n, _, _ in table.values()} == {1, 2, 3}
    assert all(close(bias + true, true) for _, bias, _ in table.values())


@on_some
def test_expected_grad_log_prob_is_zero(scripts, process):
    """With weight 1 the expectation is 0: a trajectory's log-prob has no mean slope.

    So a baseline changes no expectation, unless it sees the action: weight a_t.
    """
    mdp, theta, _ = toy_mdp.random_mdp(*process)
    obs, act, prob = toy_mdp.trajectories(mdp, theta)
    for weights, zero in ((torch.ones_like(act), True), (act, False)):
        grads = toy_mdp.estimates(scripts[1].policy_loss, theta, obs, act, weights)
        assert (toy_mdp.expectation(prob, grads).abs().max() < 1e-12) == zero


@pytest.mark.parametrize("weight", [SAMPLED, EXACT])
@on_some
def test_old_data_give_the_surrogates_gradient(scripts, process, weight):
    """Under pi_old, E of 4's and 5's estimate is grad L^CPI; at theta_old it is grad J.

    The ratio mends the choice of a_t alone: s_t and what follows a_t stay pi_old's, so
    away from theta_old this is not grad J.
    """
    mdp, theta, theta_old = toy_mdp.random_mdp(*process)
    surrogate = toy_mdp.surrogate_gradient(mdp, theta, theta_old)
    here = toy_mdp.off_policy(scripts, mdp, theta, theta_old, weight)
    assert all(close(here[n], surrogate) for n in (4, 5))
    assert not close(surrogate, toy_mdp.true_gradient(mdp, theta))
    there = toy_mdp.off_policy(scripts, mdp, theta_old, theta_old, weight)
    true = toy_mdp.true_gradient(mdp, theta_old)
    assert all(close(there[n], true) for n in (4, 5, 6))


def test_clip_is_biased_for_sampled_advantages(scripts):
    """E of 6's estimate is grad L^CLIP with exact A_t; with reward-to-go minus V_t, in most
    processes it is another.

    Min looks at the sign of the advantage, so the noise in it does not average out. With
    an interval that holds every ratio there is nothing to look at, and no bias.
    """
    biased = dict.fromkeys(product((0.2, 1e9), (SAMPLED, EXACT)), 0)
    for process, (eps, weight) in product(MANY, biased):
        mdp, theta, theta_old = toy_mdp.random_mdp(*process)
        six = toy_mdp.off_policy(scripts, mdp, theta, theta_old, weight, eps)[6]
        surrogate = toy_mdp.surrogate_gradient(mdp, theta, theta_old, eps)
        # not `close`: where min stops every action, both are zero
        biased[eps, weight] += (six - surrogate).abs().max() > 1e-12
    assert biased.pop((0.2, SAMPLED)) > len(MANY) / 2
    assert not any(biased.values())


def test_variance_falls_down_the_ladder(scripts):
    """Rewards in [0, 1): R(tau) varies most, then reward-to-go, then that minus V.

    With rewards of both signs subtracting V helps in most processes, not in all: it is
    not the baseline of least variance, which weighs returns by |grad logp|^2.
    """
    helped = []
    for process in MANY:
        for low in (0.0, -1.0):
            table = toy_mdp.on_policy(scripts, *toy_mdp.random_mdp(*process, low)[:2])
            var = {name: x for name, (_, _, x) in table.items()}
            if low == 0:
                assert var["R(tau)"] > var["reward-to-go"] > var[SAMPLED]
                assert var[SAMPLED] > var[EXACT] > 0
        helped.append(var["reward-to-go"] > var[SAMPLED])
    assert len(helped) / 2 < sum(helped) < len(helped)


@on_some
def test_gamma_without_gamma_t_is_another_direction(scripts, process):
    """Only with gamma^t in front is E[estimate] the gradient of the discounted return.

    Without, later steps count for more than they should: it turns, and is too long, the
    more so the smaller gamma.
    """
    mdp, theta, _ = toy_mdp.random_mdp(*process)
    lengths = [1.0]
    for gamma in (0.99, 0.9, 0.5):
        true, right, without = toy_mdp.discounted(scripts, mdp, theta, gamma)
        assert close(right, true)
        length, cosine = toy_mdp.compare(without, true)
        assert 0.5 < cosine < 1 - 1e-12
        lengths.append(length)
    assert lengths == sorted({*lengths})


@pytest.mark.parametrize("weight", toy_mdp.RUNGS.values())
@on_some
def test_mean_over_steps_is_biased_less_in_a_large_batch(scripts, process, weight):
    """A batch divides by its own number of steps, which goes with its returns: the error
    falls as 1 / N. There is none where all episodes have one length."""
    for low, stop in ((0.0, 0.0), (0.0, 0.5), (1.0, 0.5)):
        mdp, theta, _ = toy_mdp.random_mdp(*process, low, stop, horizon=4)
        parts = toy_mdp.by_length(scripts, mdp, theta, weight)
        true = toy_mdp.true_gradient(mdp, theta)
        assert close(parts[1].sum(0), true)
        means = [toy_mdp.mean_over_steps(*parts, 2**k) for k in range(7)]
        off = [((mean - true).norm() / true.norm()).item() for mean in means]
        if stop == 0:
            assert max(off) < 1e-12
        else:
            assert off == sorted(off, reverse=True)
            assert off[0] > 0.01
            assert off[-1] == pytest.approx(off[-2] / 2, rel=0.05)


def test_rung_1_with_one_episode_has_no_gradient(scripts):
    """With reward 1 a step the mean divides R(tau) by itself; batch_bias shows it."""
    for seed in range(5):
        cells = toy_mdp.batch_bias(scripts, seed).items()
        assert [cell for cell, (length, _) in cells if length < 1e-12] == [(1, 1)]


@pytest.mark.parametrize(("n", "weight"), toy_mdp.RUNGS.items())
def test_mean_over_steps_of_two_episodes_is_enumerated(scripts, n, weight):
    """Every pair of episodes of 1 or 2 steps, each a batch for policy_loss: N = 2."""
    mdp, theta, _ = toy_mdp.random_mdp(0, actions=2, stop=1.0, horizon=2)
    leaf, played, loss = theta.clone().requires_grad_(), [], 0
    for length in (1, 2):
        obs, act, prob = toy_mdp.trajectories(mdp, theta, length)
        _, weights = toy_mdp.weightings(scripts, mdp, theta, obs, act)[weight]
        played += zip(prob, leaf.log_softmax(-1)[obs, act], weights, strict=True)
    for (p, *episode), (q, *other) in product(played, repeat=2):
        batch = [torch.cat(x) for x in zip(episode, other, strict=True)]
        loss += p * q * scripts[n].policy_loss(*batch)
    (grad,) = torch.autograd.grad(loss, leaf)
    chance, grads = toy_mdp.by_length(scripts, mdp, theta, weight)
    mean_length = chance[0] + 2 * chance[1]
    assert close(-mean_length * grad, toy_mdp.mean_over_steps(chance, grads, 2))
