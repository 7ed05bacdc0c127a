"""Nothing lost: whatever ends a run, --save has the last finished epoch."""

import os
import subprocess
import sys

import pytest

from tests.common import SCRIPTS, on_all, read, rows, same, train

TINY = {"num_envs": 1, "max_ep_len": 3, "hidden_sizes": (4,)}


@on_all
def test_the_file_is_current_after_every_epoch(n, scripts, tmp_path, monkeypatch):
    """Ctrl-C in the third epoch leaves the policy of the second; and no other file."""
    path = tmp_path / "policy.pt"
    expected = train(scripts[n], "CartPole-v1", epochs=2, **TINY)[1]
    rollout, stops = scripts[n].rollout, iter([False, False, True])

    def stop(*args, **options):
        if next(stops):
            raise KeyboardInterrupt
        return rollout(*args, **options)

    monkeypatch.setattr(scripts[n], "rollout", stop)
    with pytest.raises(KeyboardInterrupt):
        train(scripts[n], "CartPole-v1", save=str(path), **TINY)
    assert same(read(path), expected)
    assert os.listdir(tmp_path) == [path.name]


def test_killed_at_any_moment(tmp_path):
    """The file is whole whenever it is read, in a run that writes most of the time, and so
    it is after SIGKILL, which leaves what was there."""
    path = tmp_path / "policy.pt"
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


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@on_all
def test_diverged(n, env, scripts, tmp_path, monkeypatch, capsys):
    """An epoch that makes the weights NaN ends the run, and the file is that before it: in
    1 to 3 if the loss is NaN, in 4 to 6 also if only the last step's gradient is."""
    script, path, losses = scripts[n], tmp_path / "policy.pt", []
    policy_loss = script.policy_loss
    flags = TINY | ({"train_pi_iters": 2} if n >= 4 else {})
    expected = train(script, env, epochs=2, **flags)[1]

    def spoil(*args, **options):
        losses.append(loss := policy_loss(*args, **options))
        if len(losses) != 3 * flags.get("train_pi_iters", 1):
            return loss
        return loss * float("nan") if n < 4 else loss + (loss - loss.detach()).sqrt()

    monkeypatch.setattr(script, "policy_loss", spoil)
    with pytest.raises((ValueError, RuntimeError, AssertionError)):
        script.train(env_name=env, save=str(path), **flags)
    assert [row["epoch"] for row in rows(capsys.readouterr().out)] == [0, 1]
    assert same(read(path), expected)


@pytest.mark.parametrize("save", ["", "none/a.pt", "policy.pt/a.pt"])
def test_a_path_that_cannot_be_written(save, scripts, tmp_path, capsys):
    """A folder, or a path to nowhere: the first epoch is the last; what was there stays."""
    (tmp_path / "policy.pt").write_bytes(b"kept")
    with pytest.raises((OSError, RuntimeError)):
        scripts[6].train(save=str(tmp_path / save), **TINY)
    assert len(rows(capsys.readouterr().out)) <= 1
    assert (tmp_path / "policy.pt").read_bytes() == b"kept"
