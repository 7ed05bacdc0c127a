"""Nothing lost: whatever ends a run, --save has the last finished epoch."""

import os
import subprocess
import sys
from itertools import count, pairwise

import gymnasium as gym
import pytest
import torch

from tests.common import SCRIPTS, on_all, rows, same

TINY = {"num_envs": 1, "max_ep_len": 3, "hidden_sizes": (4,)}


@pytest.fixture
def path(tmp_path):
    """Where runs save, in a folder of its own."""
    return tmp_path / "policy.pt"


def read(path):
    """Return the weights in a file."""
    return torch.load(path, weights_only=True)


def after(script, epochs):
    """Return the weights of a script after so many epochs."""
    return script.train(epochs=epochs, **TINY).state_dict()


@on_all
def test_the_file_is_current_after_every_epoch(n, scripts, path, monkeypatch):
    """When an epoch's line is printed, the file has its weights: so too at the end."""
    script, found = scripts[n], []
    spy = lambda *_, **__: found.append(read(path))
    monkeypatch.setattr(script, "print", spy, raising=False)
    script.train(epochs=3, save=str(path), **TINY)
    expected = [after(script, epochs) for epochs in (1, 2, 3)]
    assert not any(same(a, b) for a, b in pairwise(expected))
    assert all(same(a, b) for a, b in zip(found[:3], expected, strict=True))
    assert os.listdir(path.parent) == [path.name]


@on_all
def test_stopped_in_the_middle_of_writing(n, scripts, path, monkeypatch):
    """With half a file written, that of the epoch before is still there and whole."""
    saves, save = count(), torch.save

    def stop(state, file):
        save(state, file)
        if next(saves) == 2:
            os.truncate(file, os.path.getsize(file) // 2)
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        scripts[n].train(epochs=5, save=str(path), **TINY)
    assert same(read(path), after(scripts[n], 2))
    # what that run left behind does not hinder the next
    policy = scripts[n].train(epochs=1, save=str(path), **TINY)
    assert same(read(path), policy.state_dict())
    assert os.listdir(path.parent) == [path.name]


def test_killed_at_any_moment(path):
    """The file is whole whenever it is read, in a run that writes most of the time, and so
    it is after SIGKILL, which leaves what was there."""
    flags = "--num_envs 1 --max_ep_len 1 --hidden_sizes 512 512 --epochs 1000000"
    flags += " --train_pi_iters 1 --train_v_iters 1 --lr 1e-6 --save"
    command, found = [sys.executable, SCRIPTS[6], *flags.split(), path], [{}]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while len(found) < 30:
                assert process.poll() is None
                if path.exists() and not same(read(path), found[-1]):
                    found.append(read(path))
        finally:
            process.kill()
    assert read(path).keys() == found[-1].keys()


@on_all
def test_diverged(n, scripts, path, monkeypatch, capsys):
    """An epoch that makes the weights NaN is named; the file is that before it."""
    script, epoch, rollout = scripts[n], count(), scripts[n].rollout
    flags = TINY | ({"train_pi_iters": 1} if n >= 4 else {})  # bad after the last step
    expected = script.train(epochs=2, **flags).state_dict()

    def spoil(*args):
        obs, act, rew, *rest = rollout(*args)
        return [obs, act, rew * (float("nan") if next(epoch) == 2 else 1), *rest]

    monkeypatch.setattr(script, "rollout", spoil)
    capsys.readouterr()
    with pytest.raises(AssertionError, match=r"^epoch 2 diverged: lower --lr\b") as e:
        script.train(epochs=9, save=str(path), **flags)
    assert ("--vf_lr" in str(e.value)) is (n >= 3)
    assert [row["epoch"] for row in rows(capsys.readouterr().out)] == [0, 1]
    assert same(read(path), expected)


@on_all
def test_a_path_that_cannot_be_written(n, scripts, path, monkeypatch, capsys):
    """A folder, a device, a path to nowhere: refused before training, and left alone; nor
    does a run that is refused for another reason touch the file."""
    monkeypatch.setattr(scripts[n], "rollout", lambda *_: pytest.fail("training began"))
    path.write_bytes(b"kept")
    nowhere = path.parent / "none" / "a.pt"
    for save in map(str, (path.parent, nowhere, path / "a.pt", os.devnull)):
        with pytest.raises(AssertionError) as error:
            scripts[n].train(save=save, **TINY)
        assert str(error.value).startswith(f"--save {save}: ")
    for flags in ({"epochs": 0}, {"env_name": "NoSuch-v0"}, {"device": "nope"}):
        with pytest.raises((AssertionError, RuntimeError, gym.error.Error)):
            scripts[n].train(**TINY | {"save": str(path)} | flags)
    assert path.read_bytes() == b"kept"
    assert os.listdir(path.parent) == [path.name]
    assert capsys.readouterr().out == ""
