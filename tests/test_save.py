"""Nothing lost: whatever ends a run, its --save file is the last finished epoch's."""

import os
import signal
import subprocess
import sys
from itertools import count, pairwise

import numpy as np
import pytest
import torch

from conftest import ROOT, SCRIPTS, load, rows, run

TINY = {"num_envs": 1, "max_ep_len": 3, "hidden_sizes": (4,)}
on_all = pytest.mark.parametrize("n", SCRIPTS)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Compute in one thread: on a busy machine a second makes runs 10 times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def script(n):
    """Script n as a fresh module, whose parts a test may replace."""
    return load(n)


def read(path):
    """Return the weights in a file, or None if there is no file."""
    return torch.load(path, weights_only=True) if path.exists() else None


def same(a, b):
    """Tell whether two state_dicts are equal in every bit of every tensor."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def weights_after(n, epochs, **flags):
    """Return the weights that script n has after each of so many epochs."""
    return [load(n).train(epochs=k, **flags).state_dict() for k in range(1, epochs + 1)]


def cut_short(state, path):
    """Write half of what torch.save writes, as a process that dies in it would."""
    torch.save(state, f"{path}.whole")
    whole = open(f"{path}.whole", "rb").read()
    os.remove(f"{path}.whole")
    open(path, "wb").write(whole[: len(whole) // 2])


# after every epoch


@on_all
def test_the_file_is_current_after_every_epoch(n, script, tmp_path, monkeypatch):
    """At the start of each epoch, and at the end, the file has the weights so far."""
    path, found, rollout = tmp_path / "policy.pt", [], script.rollout

    def spy(*args):
        found.append(read(path))
        return rollout(*args)

    monkeypatch.setattr(script, "rollout", spy)
    policy = script.train(epochs=4, save=str(path), **TINY)
    found.append(read(path))
    assert found[0] is None
    expected = weights_after(n, 4, **TINY)
    assert len(found) == 5
    assert all(same(a, b) for a, b in zip(found[1:], expected, strict=True))
    assert not any(same(a, b) for a, b in pairwise(expected))
    assert same(found[-1], policy.state_dict())
    assert os.listdir(tmp_path) == ["policy.pt"]


@on_all
def test_what_is_printed_is_saved(n, script, tmp_path, monkeypatch):
    """Whoever kills a run on reading its line has the file of that line."""
    path, found = tmp_path / "policy.pt", []

    def spy(*_, end="\n", **__):
        if end == "\n":
            found.append(read(path) or {})

    monkeypatch.setattr(script, "print", spy, raising=False)
    script.train(epochs=3, save=str(path), **TINY)
    expected = weights_after(n, 3, **TINY)
    assert [same(a, b) for a, b in zip(found, expected, strict=True)] == [True] * 3


@on_all
def test_a_saved_policy_plays_on(n, script, tmp_path):
    """The file loads into a new Policy, which gives the same log-probs to the bit."""
    path = tmp_path / "policy.pt"
    policy = script.train("Pendulum-v1", epochs=1, save=str(path), **TINY)
    env = script.gym.make("Pendulum-v1")
    loaded = script.Policy(3, env.action_space, TINY["hidden_sizes"])
    loaded.load_state_dict(read(path))
    obs, act = torch.randn(9, 3), torch.randn(9, 1)
    assert torch.equal(loaded(obs).log_prob(act), policy(obs).log_prob(act))


# killed and interrupted


@on_all
def test_stopped_in_the_middle_of_writing(n, script, tmp_path, monkeypatch):
    """Stopped with half a file written, the file of the epoch before is untouched."""
    path, saves = tmp_path / "policy.pt", count()
    torch_save = torch.save

    def save(state, to, *args, **kwargs):
        if next(saves) < 2:
            return torch_save(state, to, *args, **kwargs)
        monkeypatch.setattr(torch, "save", torch_save)
        cut_short(state, to)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        script.train(epochs=5, save=str(path), **TINY)
    assert same(read(path), weights_after(n, 2, **TINY)[-1])
    # what is left of that run is no hindrance to the next
    policy = script.train(epochs=3, save=str(path), **TINY)
    assert same(read(path), policy.state_dict())
    assert os.listdir(tmp_path) == ["policy.pt"]


KILLS = """
import os, pathlib, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from conftest import load
torch.set_num_threads(1)
n, path = int(sys.argv[2]), pathlib.Path(sys.argv[3])
script, epochs = load(n), 12
# a megabyte of weights, so that a run spends much of its time saving
flags = {"num_envs": 1, "max_ep_len": 1, "hidden_sizes": (512, 512), "lr": 1e-3}
known = []
def spy(*_, end="\\n", **__):
    if end == "\\n":
        known.append(policy[0].state_dict() | {})
"""


@pytest.mark.parametrize("n", [6])
def test_killed_at_any_moment(n, tmp_path):
    """After SIGKILL at random moments the file is whole and one of the run's epochs."""
    result = subprocess.run(
        [sys.executable, "-c", KILLS, str(ROOT / "tests"), str(n), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stderr == ""
