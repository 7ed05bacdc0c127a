"""Whole runs: equal in every bit where the mathematics says so, repeated, saved."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.common import SCRIPTS, on_all, read, rows, run, same, train
from tests.toy_envs import Sampled, toy

# enough epochs that ratios leave the clip interval, see test_6_is_not_4_with_its_clip
SETTINGS = {
    "CartPole-v1": {"epochs": 6, "num_envs": 8, "lr": 0.01, "seed": 7},
    "Pendulum-v1": {"epochs": 3, "num_envs": 4, "lr": 0.01, "seed": 7},
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


@on_all
def test_a_linear_policy(n, scripts, command_line, tmp_path):
    """An empty --hidden_sizes is hidden_sizes=(), one layer; other flags arrive, too."""
    flags = {"lr": 0.01, "seed": 7, "num_envs": 4, "max_ep_len": 20, "epochs": 2}
    if n >= 3:
        flags |= {"vf_lr": 0.03, "gamma": 0.9, "train_v_iters": 5}
    if n >= 4:
        flags["train_pi_iters"] = 3
    weights = train(scripts[n], "CartPole-v1", hidden_sizes=(), **flags)[1]
    assert [x.ndim for x in weights.values()] == [2, 1]
    words = [f"--{name}={x}" for name, x in flags.items()]
    command_line(n, *words, "--hidden_sizes", "--save", tmp_path / "policy.pt")
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

    def spoil(*args, **options):
        losses.append(policy_loss(*args, **options))
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


@pytest.mark.parametrize("pay", [np.nan, np.inf])
@on_all
def test_a_reward_that_is_no_number_stops_the_run(scripts, capsys, n, pay):
    """At once, and the message shows it as the return."""
    with pytest.raises(AssertionError, match=rf"epoch 0: loss .*, return {pay}"):
        scripts[n].train(env_name=toy(Sampled, pay=pay), **TINY)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("num_envs", [1, 9])
@pytest.mark.parametrize("pay", [0.0, 0.1])
@pytest.mark.parametrize("n", [3, 6])
def test_equal_returns_leave_v_as_it_is(n, pay, num_envs, scripts, monkeypatch):
    """Where the first epoch's returns are all the same, as without rewards or in a batch of
    one step, V stays the plain network, and the run is the same to the bit."""
    env, flags = toy(Sampled, pay=pay, length=1), {"num_envs": num_envs, "epochs": 3}
    weights = train(scripts[n], env, **flags)[1]
    plain = lambda value, obs: value.net(obs).squeeze(-1)
    monkeypatch.setattr(scripts[n].Value, "forward", plain)
    assert same(train(scripts[n], env, **flags)[1], weights)


def test_lines_appear_at_once_when_piped(tmp_path):
    """What a pipe holds first is not yet all: Python's own buffer, of 8192 bytes, would keep
    these 50 lines back until the end. The environment is from a module beside the scripts."""
    flags = ["--epochs", "50", "--num_envs", "1", "--env", "tests.toy_envs:Compass-v0"]
    options = {"stdout": subprocess.PIPE, "cwd": tmp_path}
    options["env"] = os.environ | {"PYTHONUNBUFFERED": ""}  # which would do it too
    with subprocess.Popen([sys.executable, SCRIPTS[6], *flags], **options) as process:
        first, rest = os.read(process.stdout.fileno(), 8192), process.stdout.read()
    assert len(rows((first + rest).decode())) == 50
    assert rest
