"""What all tests share: the six scripts, as modules and as the command lines people type."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {int(path.name[0]): path for path in sorted(ROOT.glob("[1-6]_*.py"))}


def load(n):
    """Return script n, 1 to 6, as a fresh module object."""
    spec = importlib.util.spec_from_file_location(SCRIPTS[n].stem, SCRIPTS[n])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.fixture(scope="session")
def scripts():
    """The six scripts as modules, by number."""
    return {n: load(n) for n in SCRIPTS}
