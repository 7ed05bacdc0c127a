"""Whole runs: equal in every bit where the mathematics says so, repeated, saved."""

import pytest
import torch

from tests.common import SCRIPTS, on_all, read, rows, run, same, train
from tests.toy_envs import Sampled, toy

# enough epochs that ratios leave the clip interval, see test_6_is_not_4_with_its_clip
SETTINGS = {
    "CartPole-v1": {"epochs": 6, "num_envs": 8, "lr": 0.01, "seed": 3},
    "Pendulum-v1": {"epochs": 3, "num_envs": 4, "lr": 0.01, "seed": 3},
}
JOBS = {n: (n, {}) for n in SCRIPTS} | {"6 no clip": (6, {"clip_ratio": 1e9})}
JOBS |= {f"{n} one step": (n, {"train_pi_iters": 1}) for n in (4, 5, 6)}
TINY = {"num_envs": 1, "max_ep_len": 3, "hidden_sizes": (4,)}
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
    """Once again in this process, after other runs, saving, and with torch set to more
    threads: the same to the bit. train() leaves one thread."""
    path = tmp_path / "policy.pt"
    torch.set_num_threads(2)
    printed, weights = train(scripts[n], env, **SETTINGS[env], save=str(path))
    assert torch.get_num_threads() == 1
    assert printed == runs[env, n][0]
    assert same(weights, runs[env, n][1])
    assert same(read(path), weights)


@on_all
def test_the_seed_reaches_environments_and_networks(n, scripts, monkeypatch):
    """Two seeds differ in both; and epochs differ in first observations.

    Environment i has seed + i, so seeds further apart than N share no environment.
    """
    script, starts, first = scripts[n], [], []
    rollout = script.rollout

    def spy(envs, policy, *args):
        first.append({k: x.clone() for k, x in policy.state_dict().items()})
        batch = rollout(envs, policy, *args)
        starts.append(batch[0][0])
        return batch

    monkeypatch.setattr(script, "rollout", spy)
    for seed in (0, 100):
        train(script, toy(Sampled), seed=seed, epochs=3, num_envs=5)
    starts = torch.cat(starts)
    assert len(starts.unique()) == starts.numel()
    assert not same(first[0], first[3])


def test_python_is_the_command_line(scripts, tmp_path):
    """A command line gives the run of train() with the same flags, to the bit, on a batch
    so large that torch would share it out among as many threads as it is told to use."""
    flags = {"lr": 0.01, "vf_lr": 0.03, "gamma": 0.9, "clip_ratio": 0.1, "seed": 7}
    flags |= {"train_pi_iters": 3, "train_v_iters": 5, "max_ep_len": 190, "epochs": 1}
    flags["num_envs"] = 16
    words = [f"--{name}={x}" for name, x in flags.items()]
    words += ["--save", tmp_path / "policy.pt", "--hidden_sizes", 48, 32]
    result = run(6, "--env", "Pendulum-v1", *words)
    torch.set_num_threads(2)
    printed, weights = train(scripts[6], "Pendulum-v1", hidden_sizes=(48, 32), **flags)
    assert (result.returncode, result.stdout) == (0, printed)
    assert same(read(tmp_path / "policy.pt"), weights)


def test_a_linear_policy(scripts, command_line, tmp_path):
    """An empty --hidden_sizes is hidden_sizes=(): one layer."""
    weights = train(scripts[6], "CartPole-v1", hidden_sizes=(), epochs=1)[1]
    assert [x.ndim for x in weights.values()] == [2, 1]
    command_line(6, "--hidden_sizes", "--epochs", 1, "--save", tmp_path / "policy.pt")
    assert same(read(tmp_path / "policy.pt"), weights)


@on_all
def test_a_diverged_run_stops_before_it_is_saved(
    n, scripts, tmp_path, monkeypatch, capsys
):
    """A loss that is NaN in the third epoch ends the run before the step is taken, with the
    epoch, the loss and the return; the file has the policy of the second epoch."""
    script, path, losses = scripts[n], tmp_path / "policy.pt", []
    policy_loss = script.policy_loss
    flags = TINY | ({"train_pi_iters": 2} if n >= 4 else {})
    expected = train(script, "CartPole-v1", epochs=2, **flags)[1]

    def spoil(*args):
        losses.append(policy_loss(*args))
        last = len(losses) == 3 * flags.get("train_pi_iters", 1)
        return losses[-1] * float("nan") if last else losses[-1]

    monkeypatch.setattr(script, "policy_loss", spoil)
    steps, step = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda x: steps.append(step(x)))
    with pytest.raises(AssertionError, match=r"epoch 2: loss nan, return 3\.0"):
        script.train(save=str(path), **flags)
    fits = 0 if n < 3 else 2 * script.train.__kwdefaults__["train_v_iters"]
    assert len(steps) == len(losses) - 1 + fits
    assert [row["epoch"] for row in rows(capsys.readouterr().out)] == [0, 1]
    assert same(read(path), expected)


def test_a_path_that_cannot_be_written(scripts, tmp_path, capsys):
    """The first epoch is the last."""
    with pytest.raises(RuntimeError, match="none"):
        scripts[6].train(save=str(tmp_path / "none" / "policy.pt"), **TINY)
    assert len(rows(capsys.readouterr().out)) == 1
