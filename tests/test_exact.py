"""The scripts' estimates, their expectations exact, against the policy gradient theorem."""

from itertools import product

import pytest
import torch

from tests import exact

PROCESSES = [(seed, actions) for seed in range(5) for actions in (2, 3)]
MANY = [(seed, actions) for seed in range(20) for actions in (2, 3)]


def close(x, y):
    """Tell whether x and y, neither all zero, are equal to 1e-12."""
    assert x.any() and y.any()
    return torch.allclose(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
def test_trajectories_are_all_there(process):
    """Their probabilities sum to 1, also with episodes that end; their mean return is J."""
    for stop in (0.0, 1.0):
        mdp, theta, _ = exact.random_mdp(*process, stop=stop)
        theta.requires_grad_()
        total = expected_return = 0
        for length in range(1, exact.HORIZON + 1):
            obs, act, prob = exact.trajectories(mdp, theta, length)
            total += prob.sum()
            expected_return += prob @ mdp.rew[obs, act].sum(1)
        assert abs(total - 1) < 1e-12
        v, _ = exact.values(mdp, theta)
        assert close(expected_return, mdp.start @ v[0])
        (grad,) = torch.autograd.grad(expected_return, theta)
        assert close(grad, exact.true_gradient(mdp, theta.detach()))


def test_estimates_are_one_backward_per_trajectory(scripts):
    """The vectorised estimates are those of a plain loss.backward() on each trajectory."""
    mdp, theta, theta_old = exact.random_mdp(0)
    obs, act, _ = exact.trajectories(mdp, theta)
    old = exact.log_prob(theta_old, obs, act)
    adv = torch.randn(obs.shape, generator=torch.Generator().manual_seed(0)).double()
    for n, rest in ((1, (adv,)), (4, (old, adv)), (5, (old, adv))):
        grads = exact.estimates(scripts[n].policy_loss, theta, obs, act, *rest)
        for i in range(0, len(obs), 10):
            leaf = theta.clone().requires_grad_()
            logp = torch.distributions.Categorical(logits=leaf[obs[i]]).log_prob(act[i])
            scripts[n].policy_loss(logp, *(x[i] for x in rest)).backward()
            assert close(grads[i], -exact.HORIZON * leaf.grad)


def test_reward_to_go_is_one_sum(scripts):
    """Scripts 3 to 6 share the discounted sum; at gamma 1 it is script 2's."""
    rew = torch.rand(9, 4, generator=torch.Generator().manual_seed(0)).double()
    for gamma in (0.0, 0.9, 1.0):
        by_hand = [
            sum(gamma**k * r for k, r in enumerate(row[t:]))
            for row in rew.tolist()
            for t in range(4)
        ]
        ret = [exact.to_go(scripts, n, rew, gamma) for n in (3, 4, 5, 6)]
        assert all(torch.equal(ret[0], x) for x in ret)
        assert ret[0].flatten().tolist() == pytest.approx(by_hand, rel=1e-12)
    assert close(exact.to_go(scripts, 2, rew), ret[0])


@pytest.mark.parametrize("process", PROCESSES)
def test_every_weight_is_unbiased(scripts, process):
    """E[estimate] = grad J for R(tau), reward-to-go, minus b(s), minus V, for Q and A."""
    mdp, theta, _ = exact.random_mdp(*process)
    true = exact.true_gradient(mdp, theta)
    table = exact.on_policy(scripts, mdp, theta)
    assert len(table) == 6
    assert {n for n, _, _ in table.values()} == {1, 2, 3}
    assert all(close(bias + true, true) for _, bias, _ in table.values())


def test_a_baseline_may_not_see_the_action(scripts):
    """The check above notices a bias: with b(s, a) subtracted, E[estimate] is not grad J."""
    mdp, theta, _ = exact.random_mdp(0)
    obs, act, prob = exact.trajectories(mdp, theta)
    ret = exact.to_go(scripts, 2, mdp.rew[obs, act])
    grads = exact.estimates(scripts[3].policy_loss, theta, obs, act, ret - act)
    true = exact.true_gradient(mdp, theta)
    assert not close(exact.expectation(prob, grads), true)


@pytest.mark.parametrize("process", PROCESSES)
def test_expected_grad_log_prob_is_zero(scripts, process):
    """With weight 1, the expectation is 0: a trajectory's log-prob has no mean slope."""
    mdp, theta, _ = exact.random_mdp(*process)
    obs, act, prob = exact.trajectories(mdp, theta)
    one = torch.ones(obs.shape, dtype=torch.float64)
    grads = exact.estimates(scripts[1].policy_loss, theta, obs, act, one)
    assert grads.abs().max() > 0.1
    assert exact.expectation(prob, grads).abs().max() < 1e-12


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("process", PROCESSES)
def test_old_data_give_the_surrogates_gradient(scripts, process, sampled):
    """Under pi_old, E of 4's and 5's estimate is grad L^CPI; at theta_old it is grad J.

    The ratio mends the choice of a_t alone: s_t and what follows a_t stay pi_old's, so
    away from theta_old this is not grad J.
    """
    mdp, theta, theta_old = exact.random_mdp(*process)
    surrogate = exact.surrogate_gradient(mdp, theta, theta_old)
    here = exact.off_policy(scripts, mdp, theta, theta_old, sampled)
    assert close(here[4], surrogate)
    assert close(here[5], surrogate)
    assert not close(surrogate, exact.true_gradient(mdp, theta))
    there = exact.off_policy(scripts, mdp, theta_old, theta_old, sampled)
    true = exact.true_gradient(mdp, theta_old)
    assert all(close(there[n], true) for n in (4, 5, 6))


def test_clip_is_biased_for_sampled_advantages(scripts):
    """E of 6's estimate is grad L^CLIP with exact A_t; with reward-to-go minus V_t, in most
    processes it is another.

    Min looks at the sign of the advantage, so the noise in it does not average out. With
    an interval that holds every ratio there is nothing to look at, and no bias.
    """
    biased = {0.2: 0, 1e9: 0}
    for (process, eps), sampled in product(product(MANY, biased), (True, False)):
        mdp, theta, theta_old = exact.random_mdp(*process)
        six = exact.off_policy(scripts, mdp, theta, theta_old, sampled, eps)[6]
        surrogate = exact.surrogate_gradient(mdp, theta, theta_old, eps)
        # not `close`: where min stops every action, both are zero
        far = (six - surrogate).abs().max() > 1e-12
        assert sampled or not far
        biased[eps] += far
    assert biased[0.2] > len(MANY) / 2
    assert biased[1e9] == 0


@pytest.mark.parametrize("process", MANY)
def test_variance_falls_down_the_ladder(scripts, process):
    """Rewards in [0, 1): R(tau) varies most, then reward-to-go, then that minus V."""
    table = exact.on_policy(scripts, *exact.random_mdp(*process)[:2])
    var = {name: x for name, (_, _, x) in table.items()}
    assert var["R(tau)"] > var["reward-to-go"] > var["reward-to-go - V_t(s)"] > 0
    assert var["reward-to-go - V_t(s)"] > var["A_t(s, a)"] > 0


def test_variance_need_not_fall(scripts):
    """With rewards of both signs, subtracting V helps in most processes, not in all.

    V is not the baseline of least variance; that one weighs returns by |grad logp|^2.
    """
    helped = []
    for process in MANY:
        mdp, theta, _ = exact.random_mdp(*process, low=-1.0)
        table = exact.on_policy(scripts, mdp, theta)
        var = {name: x for name, (_, _, x) in table.items()}
        helped.append(var["reward-to-go"] > var["reward-to-go - V_t(s)"])
    assert len(helped) / 2 < sum(helped) < len(helped)


@pytest.mark.parametrize("process", PROCESSES)
def test_gamma_without_gamma_t_is_another_direction(scripts, process):
    """Only with gamma^t in front is E[estimate] the gradient of the discounted return.

    Without, later steps count for more than they should: it is too long, and further off
    the smaller gamma; at gamma 1 there is nothing to leave out.
    """
    mdp, theta, _ = exact.random_mdp(*process)
    off = []
    for gamma in (1.0, 0.99, 0.9, 0.5):
        true, right, without = exact.discounted(scripts, mdp, theta, gamma)
        assert close(right, true)
        assert close(without, true) is (gamma == 1)
        off.append(((without - true).norm() / true.norm()).item())
        if gamma < 1:
            assert without.norm() > true.norm()
            assert 0.5 < exact.cosine(without, true) < 1 - 1e-12
    assert off == sorted(off)


@pytest.mark.parametrize("process", MANY)
def test_mean_over_steps_is_biased_less_in_a_large_batch(scripts, process):
    """The mean over all steps tends to grad J / E[L], not over few episodes.

    A small batch divides by its own number of steps, which goes with its returns. The
    distance to grad J, once multiplied by E[L], falls as 1 / batch.
    """
    mdp, theta, _ = exact.random_mdp(*process, stop=1.0)
    chance, grads = exact.by_length(scripts, mdp, theta)
    true = exact.true_gradient(mdp, theta)
    assert close(grads.sum(0), true)
    mean = exact.expectation(chance, torch.arange(1.0, exact.HORIZON + 1).double())
    off = []
    for batch in exact.BATCHES:
        grad = mean * exact.mean_over_steps(chance, grads, batch)
        off.append(((grad - true).norm() / true.norm()).item())
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.01
    assert off[-1] == pytest.approx(off[-2] / 2, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_mean_over_steps_of_two_episodes_is_enumerated(scripts, seed):
    """Every pair of episodes, through script 2's mean, gives the formula's N = 2."""
    mdp, theta, _ = exact.random_mdp(seed, actions=2, stop=1.0)
    pairs = exact.mean_over_steps_of_two(scripts, mdp, theta)
    assert close(pairs, exact.mean_over_steps(*exact.by_length(scripts, mdp, theta), 2))
