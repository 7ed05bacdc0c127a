"""What all tests share: the six scripts, as modules and as the command lines people type."""

import csv
import importlib.util
import inspect
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {int(path.name[0]): path for path in sorted(ROOT.glob("[1-6]_*.py"))}
on_all = pytest.mark.parametrize("n", SCRIPTS)


def load(n):
    """Return script n, 1 to 6, as a fresh module object."""
    spec = importlib.util.spec_from_file_location(SCRIPTS[n].stem, SCRIPTS[n])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_all():
    """Return the six scripts as fresh module objects, by number."""
    return {n: load(n) for n in SCRIPTS}


def defaults(n):
    """Return the keywords of script n's train() with their default values."""
    parameters = inspect.signature(load(n).train).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def run(n, *flags, timeout=300, **options):
    """Run script n as a user does; return its CompletedProcess, output as text.

    ``flags`` become strings; ``options`` go to subprocess.run (cwd=, env=, ...).
    """
    command = [sys.executable, str(SCRIPTS[n]), *map(str, flags)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def rows(stdout):
    """Return the printed epochs as dicts of floats: epoch, loss, return, ep_len, ..."""
    lines = [line for line in stdout.splitlines() if line.startswith("epoch:")]
    fields = [[field.split(":") for field in line.split("\t")] for line in lines]
    return [{name.strip(): float(x) for name, x in line} for line in fields]


def groups(raw, *keys):
    """Return {values of the keys: {column: list of its values}}, in their order."""
    found = {}
    for row in raw:
        group = found.setdefault(tuple(row[key] for key in keys), {})
        for key, x in row.items():
            group.setdefault(key, []).append(x)
    return found


def read(path, *keys):
    """Return the rows of a CSV file in groups(); numbers are floats, NaN for no cell."""

    def number(x):
        try:
            return float(x or "nan")
        except ValueError:
            return x

    with path.open() as file:
        raw = [{k: number(x) for k, x in row.items()} for row in csv.DictReader(file)]
    return groups(raw, *keys)


def two_at_a_time(job, keys):
    """Return {key: job(*key)} of jobs that run in processes of their own."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(keys, pool.map(lambda key: job(*key), keys), strict=True))


def same_bits(x, y):
    """Tell whether two tensors are equal in dtype, shape and every bit, -0.0 not 0.0."""
    x, y = (tensor.detach().cpu().numpy() for tensor in (x, y))
    return (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def same(a, b):
    """Tell whether two state_dicts are equal in every bit of every tensor."""
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


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
