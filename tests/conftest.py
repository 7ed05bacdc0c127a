"""What all tests share: where the evidence is, one thread, the scripts as fixtures."""

import io
import os
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent / "evidence"))

from common import SCRIPTS, load_all

on_all = pytest.mark.parametrize("n", SCRIPTS)


def train(script, env, **flags):
    """Return the printed lines and the trained weights, a state_dict, of script.train()."""
    with redirect_stdout(io.StringIO()) as printed:
        policy = script.train(env, **flags)
    return printed.getvalue(), policy.state_dict()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Compute in one thread, also in what the tests start: on tensors this small two
    mostly wait for each other, and on a busy machine runs take 10 times as long."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scripts():
    """The six scripts as modules, by number."""
    return load_all()


@pytest.fixture
def command_line(monkeypatch):
    """Run script n in this process as `python script flags` does."""

    def call(n, *flags):
        monkeypatch.setattr(sys, "argv", [SCRIPTS[n].name, *map(str, flags)])
        runpy.run_path(str(SCRIPTS[n]), run_name="__main__")

    return call
