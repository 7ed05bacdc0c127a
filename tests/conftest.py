"""What all tests share: one thread, the scripts as fixtures."""

import os
import runpy
import sys

import pytest
import torch

from tests.common import SCRIPTS, load_all


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Compute in one thread, also in what the tests start: networks this small gain nothing
    from two, which on a busy machine take 10 times as long."""
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
