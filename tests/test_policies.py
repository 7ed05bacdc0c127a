"""Trained policies, equal in every bit where the mathematics says that they are equal."""

import os

import pytest
import torch

from tests.common import SCRIPTS, on_all, run, same, train, two_at_a_time

# enough epochs that ratios leave the clip interval, see test_6_is_not_4_with_its_clip
SETTINGS = {
    "CartPole-v1": {"epochs": 6, "seed": 3, "num_envs": 8},
    "Pendulum-v1": {"epochs": 3, "seed": 3, "num_envs": 4},
}
JOBS = {n: (n, {}) for n in SCRIPTS} | {"6 no clip": (6, {"clip_ratio": 1e9})}
JOBS |= {f"{n} one step": (n, {"train_pi_iters": 1}) for n in (4, 5, 6)}
on_both = pytest.mark.parametrize("env", SETTINGS)


@pytest.fixture(scope="module")
def runs(scripts):
    """(printed lines, trained weights) of each job on each environment."""
    return {
        (env, name): train(scripts[n], env, **SETTINGS[env], **flags)
        for env in SETTINGS
        for name, (n, flags) in JOBS.items()
    }


@on_both
def test_4_is_5_after_training(env, runs):
    """The ratio and the detached ratio times the log train the same weights."""
    assert same(runs[env, 4][1], runs[env, 5][1])


@on_both
def test_6_is_4_without_a_clip(env, runs):
    """With an interval that no ratio leaves, clipping changes nothing."""
    assert same(runs[env, 4][1], runs[env, "6 no clip"][1])


@on_both
def test_6_is_not_4_with_its_clip(env, runs):
    """With the default interval it does: so the two tests above say something."""
    assert not same(runs[env, 4][1], runs[env, 6][1])


@on_both
def test_3_is_4_is_5_is_6_with_one_step(env, runs):
    """At theta_old all four have the same gradient, so one step per epoch trains the same."""
    one = runs[env, 3][1]
    assert all(same(one, runs[env, f"{n} one step"][1]) for n in (4, 5, 6))
    assert not same(one, runs[env, 4][1])


@on_both
@on_all
def test_the_same_seed_the_same_run(n, env, runs, scripts, tmp_path):
    """Once again in this process, after other runs and saving: the same to the bit. With
    another seed, another run."""
    path = tmp_path / "policy.pt"
    printed, weights = train(scripts[n], env, **SETTINGS[env], save=str(path))
    assert printed == runs[env, n][0]
    assert same(weights, runs[env, n][1])
    assert same(torch.load(path, weights_only=True), weights)
    assert not same(train(scripts[n], env, **SETTINGS[env] | {"seed": 4})[1], weights)


def test_the_number_of_threads_changes_nothing(scripts, tmp_path):
    """A command line gives the run of train() in one thread, to the bit, whatever
    OMP_NUM_THREADS says, on a batch so large that torch would share it out among threads;
    and it warns of nothing."""
    runs = {n: train(scripts[n], "Pendulum-v1", epochs=1, num_envs=16) for n in (1, 6)}
    flags = ["--env", "Pendulum-v1", "--epochs", 1, "--num_envs", 16]

    def job(n, threads):
        path = tmp_path / f"{n}{threads}.pt"
        env = {
            "OMP_NUM_THREADS": threads,
            "PYTHONWARNINGS": "error::DeprecationWarning",
        }
        result = run(n, *flags, "--save", path, env=os.environ | env)
        assert (result.stdout, result.stderr) == (runs[n][0], "")
        assert same(torch.load(path, weights_only=True), runs[n][1])

    two_at_a_time(job, [(6, "1"), (6, "2"), (6, "4"), (1, "4")])


@on_all
def test_a_command_line_computes_in_one_thread(n, command_line):
    """Whatever torch was set to before."""
    torch.set_num_threads(2)
    command_line(n, "--epochs", 1, "--num_envs", 1, "--max_ep_len", 1)
    assert torch.get_num_threads() == 1
