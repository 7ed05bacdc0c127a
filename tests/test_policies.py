"""Trained policies, equal in every bit where the mathematics says that they are equal."""

import os

import pytest
import torch
from common import SCRIPTS, defaults, load, run, same, two_at_a_time
from conftest import on_all

# enough epochs that ratios leave the clip interval, see test_ratios_leave_the_interval
SETTINGS = {
    "CartPole-v1": {"epochs": 6, "seed": 3, "num_envs": 8},
    "Pendulum-v1": {"epochs": 3, "seed": 3, "num_envs": 4},
}
ONE_STEP = "--train_pi_iters", 1
NO_CLIP = "--clip_ratio", 1e9
JOBS = [(n,) for n in SCRIPTS] + [(n, *ONE_STEP) for n in (4, 5, 6)] + [(6, *NO_CLIP)]
on_both = pytest.mark.parametrize("env", SETTINGS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(printed lines, saved weights) of each job on each environment, from command lines."""
    folder = tmp_path_factory.mktemp("policies")
    jobs = [(env, job) for env in SETTINGS for job in JOBS]

    def train(env, job):
        (n, *flags), path = job, folder / f"{jobs.index((env, job))}.pt"
        for flag, x in SETTINGS[env].items():
            flags += [f"--{flag}", x]
        result = run(n, "--env", env, *flags, "--save", path)
        assert result.returncode == 0, result.stderr
        return result.stdout, torch.load(path, weights_only=True)

    return two_at_a_time(train, jobs)


@on_both
def test_4_is_5_after_training(env, runs):
    """The ratio and the detached ratio times the log train the same weights."""
    assert same(runs[env, (4,)][1], runs[env, (5,)][1])


@on_both
def test_6_is_4_without_a_clip(env, runs):
    """With an interval that no ratio leaves, clipping changes nothing."""
    assert same(runs[env, (4,)][1], runs[env, (6, *NO_CLIP)][1])


@on_both
def test_6_is_not_4_with_its_clip(env, runs):
    """With the default interval it does: so the two tests above say something."""
    assert not same(runs[env, (4,)][1], runs[env, (6,)][1])


@on_both
def test_3_is_4_is_5_is_6_with_one_step(env, runs):
    """At theta_old all four have the same gradient, so one step per epoch trains the same."""
    one = runs[env, (3,)][1]
    assert all(same(one, runs[env, (n, *ONE_STEP)][1]) for n in (4, 5, 6))
    assert not same(one, runs[env, (4,)][1])


@on_both
def test_ratios_leave_the_interval(env):
    """In these very runs script 6 meets ratios on both sides of its interval."""
    module = load(6)
    policy_loss, low, high = module.policy_loss, [], []

    def spy(logp, logp_old, adv, clip_ratio):
        ratio = torch.exp(logp - logp_old).detach()
        low.append(ratio.min().item())
        high.append(ratio.max().item())
        return policy_loss(logp, logp_old, adv, clip_ratio)

    module.policy_loss = spy
    module.train(env, **SETTINGS[env])
    eps = defaults(6)["clip_ratio"]
    assert min(low) < 1 - eps and max(high) > 1 + eps


@on_both
@on_all
def test_the_same_seed_the_same_run(n, env, runs, tmp_path, capsys):
    """Command line or train(), once or again in a process, saving or not: the same to the bit."""
    module, (printed, saved) = load(n), runs[env, (n,)]
    policy = module.train(env, **SETTINGS[env])
    assert capsys.readouterr().out == printed
    assert same(policy.state_dict(), saved)
    path = tmp_path / "policy.pt"
    policy = module.train(env, **SETTINGS[env], save=str(path))
    assert capsys.readouterr().out == printed
    assert same(policy.state_dict(), saved)
    assert same(torch.load(path, weights_only=True), saved)


@on_both
@on_all
def test_another_seed_another_run(n, env, runs):
    """The seed reaches what it should: another gives other weights."""
    policy = load(n).train(env, **SETTINGS[env] | {"seed": 4})
    assert not same(policy.state_dict(), runs[env, (n,)][1])


@pytest.mark.parametrize("env", ["Pendulum-v1"])
def test_the_number_of_threads_changes_nothing(env, runs, tmp_path):
    """A command line gives the same run to the bit whatever OMP_NUM_THREADS says."""
    printed, saved = runs[env, (6,)]
    flags = [x for flag, y in SETTINGS[env].items() for x in (f"--{flag}", y)]
    for threads in ("2", "4"):
        path, env_vars = tmp_path / threads, os.environ | {"OMP_NUM_THREADS": threads}
        result = run(6, "--env", env, *flags, "--save", path, env=env_vars)
        assert result.stdout == printed
        assert same(torch.load(path, weights_only=True), saved)
