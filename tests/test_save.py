"""Nothing lost: whatever ends a run, --save has the last finished epoch."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from contextlib import redirect_stdout
from itertools import count, pairwise
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from conftest import SCRIPTS, load, on_all, rows, run, same

TINY = {"num_envs": 1, "max_ep_len": 3, "hidden_sizes": (4,)}


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


# after every epoch


@on_all
def test_the_file_is_current_after_every_epoch(n, path, monkeypatch):
    """When an epoch starts, and at the end, the file has the weights so far."""
    script, found = load(n), []
    rollout = script.rollout

    def spy(*args):
        found.append(read(path))
        return rollout(*args)

    monkeypatch.setattr(script, "rollout", spy)
    policy = script.train(epochs=4, save=str(path), **TINY)
    expected = after_each_epoch(n, 4, **TINY)
    assert not any(same(a, b) for a, b in pairwise(expected))
    assert found[0] is None
    found = [*found[1:], read(path)]
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert same(found[-1], policy.state_dict())
    assert os.listdir(path.parent) == [path.name]


@on_all
def test_what_is_printed_is_saved(n, path, monkeypatch):
    """Whoever stops a run on reading an epoch's line has that epoch's file."""
    script, found = load(n), []

    def spy(*_, end="\n", **__):
        if end == "\n":
            found.append(read(path) or {})

    monkeypatch.setattr(script, "print", spy, raising=False)
    script.train(epochs=3, save=str(path), **TINY)
    expected = after_each_epoch(n, 3, **TINY)
    assert [same(a, b) for a, b in zip(found, expected, strict=True)] == [True] * 3


@on_all
def test_a_saved_policy_is_the_trained_one(n, path):
    """The file loads into a new Policy, which gives the same log-probs to the bit."""
    script = load(n)
    policy = script.train("Pendulum-v1", epochs=1, save=str(path), **TINY)
    act_space = gym.make("Pendulum-v1").action_space
    loaded = script.Policy(3, act_space, TINY["hidden_sizes"])
    loaded.load_state_dict(read(path))
    obs, act = torch.randn(9, 3), torch.randn(9, 1)
    assert torch.equal(loaded(obs).log_prob(act), policy(obs).log_prob(act))


@on_all
def test_a_bare_file_name_is_saved_here(n, path, monkeypatch):
    """--save policy.pt, without a folder, is a file in the current one."""
    monkeypatch.chdir(path.parent)
    policy = load(n).train(epochs=1, save=path.name, **TINY)
    assert same(read(path), policy.state_dict())


# stopped


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
    """Start and kill runs of all six scripts; print whose file each kill leaves."""
    # weights of a megabyte, so that a run spends much of its time writing
    flags = {"num_envs": 1, "max_ep_len": 1, "hidden_sizes": (512, 512), "lr": 1e-3}
    for n in SCRIPTS:
        script, expected = load(n), after_each_epoch(n, epochs, **flags)
        flags_of_run, began = flags | {"epochs": epochs}, time.monotonic()
        os.waitpid(start(script, path, flags_of_run), 0)
        whole_run = time.monotonic() - began
        for _ in range(kills):
            child = start(script, path, flags_of_run)
            time.sleep(random.uniform(0, whole_run))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found = [same(read(path), weights) for weights in expected]
            print(n, found.count(True), file=sys.__stdout__)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_at_any_moment(path):
    """SIGKILL at random moments leaves a whole file, that of an epoch of the run."""
    command = [sys.executable, "-W", "ignore", __file__, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{n} 1" for n in SCRIPTS for _ in range(8)]


@on_all
def test_interrupted(n, path):
    """Ctrl-C ends a run at once; the file has the last finished epoch."""
    flags = [f"--{flag}={x}" for flag, x in TINY.items() if flag != "hidden_sizes"]
    command = [sys.executable, SCRIPTS[n], *flags, "--hidden_sizes", "4"]
    # what a background job starts ignores Ctrl-C unless its parent does not
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "--epochs", "1000000", "--save", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, handler)
    try:
        printed = "".join(process.stdout.readline() for _ in range(3))
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert error.splitlines()[-1] == "KeyboardInterrupt"
    epochs = len(rows(printed + rest))
    assert epochs >= 3
    # between an epoch's file and its line, one more is saved than printed
    known = [load(n).train(epochs=epochs + k, **TINY).state_dict() for k in (0, 1)]
    assert any(same(read(path), weights) for weights in known)


# diverged


@on_all
@pytest.mark.parametrize("flag", ["lr", "vf_lr"])
@pytest.mark.parametrize("size", [1e8, 1e30])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_diverged_at_once(n, env, size, flag, path, capsys):
    """A step size of 1e8 or 1e30: a sentence with epoch and flags, and the old file kept."""
    if flag == "vf_lr" and n < 3:
        pytest.skip("there is no V before script 3")
    path.write_bytes(b"an earlier run's")
    with pytest.raises(AssertionError) as error:
        load(n).train(env, epochs=3, save=str(path), **TINY, **{flag: size})
    named = ["epoch 0", "--lr"] + ["--vf_lr"] * (n >= 3)
    assert [words for words in named if words not in str(error.value)] == []
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"an earlier run's"
    assert capsys.readouterr().out == ""


@on_all
def test_diverged_later(n, path, monkeypatch, capsys):
    """An epoch that makes the weights NaN is named; the file is that before it."""
    script, epoch = load(n), count()
    rollout = script.rollout

    def spoil(*args):
        obs, act, rew, *rest = rollout(*args)
        return [obs, act, rew * (float("nan") if next(epoch) == 3 else 1), *rest]

    monkeypatch.setattr(script, "rollout", spoil)
    with pytest.raises(AssertionError, match=r"^epoch 3\b.*lower --lr\b"):
        script.train(epochs=9, save=str(path), **TINY)
    assert [row["epoch"] for row in rows(capsys.readouterr().out)] == [0, 1, 2]
    assert same(read(path), after_each_epoch(n, 3, **TINY)[-1])


@on_all
@pytest.mark.parametrize("lr", [30.0, 100.0, 1e4])
def test_what_a_diverged_run_leaves_can_act(n, path, lr):
    """Steps that make the std overflow stop the run before such a policy is saved."""
    script, act_space = load(n), gym.make("Pendulum-v1").action_space
    script.train("Pendulum-v1", epochs=1, save=str(path), **TINY)
    for seed in range(5):
        flags = {"lr": lr, "seed": seed, "save": str(path), **TINY}
        with pytest.raises(AssertionError, match=r"^epoch \d+ diverged.*lower --lr\b"):
            script.train("Pendulum-v1", **flags)
        policy = script.Policy(3, act_space, TINY["hidden_sizes"])
        policy.load_state_dict(read(path))
        assert policy(torch.zeros(1, 3)).sample().isfinite().all()


# refused


@on_all
def test_a_path_that_cannot_be_written(n, path, monkeypatch, capsys):
    """A folder, a path through a file or nowhere, a long name: refused, untrained."""
    script = load(n)

    def rollout(*_):
        pytest.fail("training started")

    monkeypatch.setattr(script, "rollout", rollout)
    (folder := path.parent / "folder").mkdir()
    (file := path.parent / "file").write_bytes(b"kept")
    bad = [folder, f"{folder}/", path.parent / "none" / "a.pt", file / "a.pt"]
    bad += [path.parent / ("a" * 300)]
    for save in map(str, bad):
        with pytest.raises(Exception) as error:
            script.train(save=save, **TINY)
        assert "--save" in str(error.value) or save in str(error.value)
    assert file.read_bytes() == b"kept"
    assert os.listdir(folder) == []
    assert capsys.readouterr().out == ""


@on_all
def test_a_folder_without_permission(n, path, capsys):
    """A folder that this user may not write to is refused before training."""
    path.parent.chmod(0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises((AssertionError, OSError)) as error:
        load(n).train(save=str(path), **TINY)
    path.parent.chmod(0o700)
    assert str(path) in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@on_all
def test_what_is_no_file_stays_what_it_is(n, path):
    """A pipe, or a device such as /dev/null, is refused and not replaced by a file."""
    os.mkfifo(path)
    with pytest.raises((AssertionError, OSError)) as error:
        load(n).train(epochs=1, save=str(path), **TINY)
    assert str(path) in str(error.value)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_bad_path_ends_the_process(path):
    """No epoch, a non-zero exit status, a last line with the flag and the value."""
    result = run(6, "--save", path.parent)
    assert result.returncode != 0
    assert result.stdout == ""
    assert f"--save {path.parent}" in result.stderr.splitlines()[-1]


@on_all
def test_bad_input_keeps_the_old_file(n, path):
    """A run refused for another flag leaves an earlier one's file, and no other."""
    path.write_bytes(b"an earlier run's")
    for flags in ({"lr": -1}, {"env_name": "NoSuch-v0"}, {"device": "nope"}):
        with pytest.raises((AssertionError, RuntimeError, gym.error.Error)):
            load(n).train(save=str(path), **flags)
        assert path.read_bytes() == b"an earlier run's"
        assert os.listdir(path.parent) == [path.name]


if __name__ == "__main__":
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        kill_often(Path(sys.argv[1]))
