"""Nothing lost: whatever ends a run, --save has the last finished epoch."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from itertools import count, pairwise
from pathlib import Path

import gymnasium as gym
import pytest
import torch

if __name__ == "__main__":  # test_killed_at_any_moment runs this file as a program
    sys.path.append(str(Path(__file__).parent / "evidence"))

from common import SCRIPTS, load, rows, same

TINY = {"num_envs": 1, "max_ep_len": 3, "hidden_sizes": (4,)}
on_all = pytest.mark.parametrize("n", SCRIPTS)


@pytest.fixture
def path(tmp_path):
    """Where runs save, in a folder of its own."""
    return tmp_path / "policy.pt"


def read(path):
    """Return the weights in a file, or None if there is none."""
    return torch.load(path, weights_only=True) if path.exists() else None


def after_each_epoch(n, epochs, **flags):
    """Return the weights of script n after 1, 2, ... epochs, from a run each."""
    return [load(n).train(epochs=k + 1, **flags).state_dict() for k in range(epochs)]


@on_all
def test_the_file_is_current_after_every_epoch(n, path, monkeypatch):
    """When an epoch's line is printed, the file has its weights: so too at the end."""
    script, found = load(n), []
    spy = lambda *_, **__: found.append(read(path))
    monkeypatch.setattr(script, "print", spy, raising=False)
    script.train(epochs=4, save=str(path), **TINY)
    expected = after_each_epoch(n, 4, **TINY)
    assert not any(same(a, b) for a, b in pairwise(expected))
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert os.listdir(path.parent) == [path.name]


@on_all
def test_a_saved_policy_is_the_trained_one(n, path, monkeypatch):
    """A bare file name is saved here; the file loads into a new Policy, which gives the
    same log-probs to the bit."""
    monkeypatch.chdir(path.parent)
    script = load(n)
    policy = script.train("Pendulum-v1", epochs=1, save=path.name, **TINY)
    act_space = gym.make("Pendulum-v1").action_space
    loaded = script.Policy(3, act_space, TINY["hidden_sizes"])
    loaded.load_state_dict(read(path))
    obs, act = torch.randn(9, 3), torch.randn(9, 1)
    assert torch.equal(loaded(obs).log_prob(act), policy(obs).log_prob(act))


@on_all
def test_stopped_in_the_middle_of_writing(n, path, monkeypatch):
    """With half a file written, that of the epoch before is still there and whole."""
    script, saves, save = load(n), count(), torch.save

    def stop(state, file):
        save(state, file)
        if next(saves) == 2:
            monkeypatch.setattr(torch, "save", save)
            os.truncate(file, os.path.getsize(file) // 2)
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        script.train(epochs=5, save=str(path), **TINY)
    assert same(read(path), after_each_epoch(n, 2, **TINY)[-1])
    # what that run left behind does not hinder the next
    policy = script.train(epochs=1, save=str(path), **TINY)
    assert same(read(path), policy.state_dict())
    assert os.listdir(path.parent) == [path.name]


def start(script, path, flags):
    """Run train() in a fork of this process; return its id."""
    child = os.fork()
    if not child:
        script.train(save=str(path), **flags)
        os._exit(0)
    return child


def kill_often(path, kills=8, epochs=4):
    """Start and kill runs of script 6; print how many epochs each kill's file is of."""
    # weights of a megabyte, so that a run spends much of its time writing
    flags = {"num_envs": 1, "max_ep_len": 1, "hidden_sizes": (512, 512), "lr": 1e-3}
    flags |= {"train_pi_iters": 1, "train_v_iters": 1}
    script, expected = load(6), after_each_epoch(6, epochs, **flags)
    flags, began = flags | {"epochs": epochs}, time.monotonic()
    os.waitpid(start(script, path, flags), 0)
    whole_run = time.monotonic() - began
    for _ in range(kills):
        child = start(script, path, flags)
        time.sleep(random.uniform(0, whole_run))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = [same(read(path), weights) for weights in expected]
        print(found.count(True), file=sys.__stdout__)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_at_any_moment(path):
    """SIGKILL at random moments leaves a whole file, that of an epoch of the run."""
    command = [sys.executable, "-W", "ignore", __file__, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["1"] * 8


@on_all
def test_diverged(n, path, monkeypatch, capsys):
    """An epoch that makes the weights NaN is named; the file is that before it."""
    script, epoch = load(n), count()
    rollout = script.rollout

    def spoil(*args):
        obs, act, rew, *rest = rollout(*args)
        return [obs, act, rew * (float("nan") if next(epoch) == 2 else 1), *rest]

    monkeypatch.setattr(script, "rollout", spoil)
    with pytest.raises(AssertionError, match=r"^epoch 2 diverged: lower --lr\b") as e:
        script.train(epochs=9, save=str(path), **TINY)
    assert ("--vf_lr" in str(e.value)) is (n >= 3)
    assert [row["epoch"] for row in rows(capsys.readouterr().out)] == [0, 1]
    assert same(read(path), after_each_epoch(n, 2, **TINY)[-1])


@on_all
def test_what_a_diverged_run_leaves_can_act(n, path):
    """Steps that make the std overflow stop the run before such a policy is saved."""
    script, act_space = load(n), gym.make("Pendulum-v1").action_space
    script.train("Pendulum-v1", epochs=1, save=str(path), **TINY)
    with pytest.raises(AssertionError, match=r"^epoch \d+ diverged"):
        script.train("Pendulum-v1", lr=60, save=str(path), **TINY)
    policy = script.Policy(3, act_space, TINY["hidden_sizes"])
    policy.load_state_dict(read(path))
    assert policy(torch.zeros(1, 3)).sample().isfinite().all()


@on_all
def test_a_path_that_cannot_be_written(n, path, monkeypatch, capsys):
    """A folder, a device, a path to nowhere: refused before training, and left alone."""
    script = load(n)
    monkeypatch.setattr(script, "rollout", lambda *_: pytest.fail("training started"))
    path.write_bytes(b"kept")
    for save in map(str, (path.parent, path.parent / "none" / "a.pt", path / "a.pt")):
        with pytest.raises(AssertionError) as error:
            script.train(save=save, **TINY)
        assert str(error.value).startswith(f"--save {save}: ")
    with pytest.raises(AssertionError, match=f"^--save {os.devnull}: "):
        script.train(save=os.devnull, **TINY)
    for flags in ({"epochs": 0}, {"env_name": "NoSuch-v0"}, {"device": "nope"}):
        with pytest.raises((AssertionError, RuntimeError, gym.error.Error)):
            script.train(**TINY | {"save": str(path)} | flags)
    assert path.read_bytes() == b"kept"
    assert os.listdir(path.parent) == [path.name]
    assert capsys.readouterr().out == ""


if __name__ == "__main__":
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        kill_often(Path(sys.argv[1]))
