"""The six scripts, as modules and as the command lines that people type."""

import ast
import importlib.util
import inspect
import io
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
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


def definitions(n):
    """Return script n's top-level functions and classes by name, in order, as source."""
    source, found = SCRIPTS[n].read_text(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node, *node.decorator_list], key=lambda x: x.lineno).lineno
            lines = source.splitlines()[first - 1 : node.end_lineno]
            found[node.name] = "\n".join(lines)
    return found


def defaults(n):
    """Return the keywords of script n's train() with their default values."""
    parameters = inspect.signature(load(n).train).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def run(n, *flags):
    """Run script n as a user does; return its CompletedProcess, output as text."""
    command = [sys.executable, SCRIPTS[n], *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(stdout):
    """Return the printed epochs as dicts of floats: epoch, loss, return, ep_len, ..."""
    lines = [line for line in stdout.splitlines() if line.startswith("epoch:")]
    fields = [[field.split(":") for field in line.split("\t")] for line in lines]
    return [{name.strip(): float(x) for name, x in line} for line in fields]


def same_bits(x, y):
    """Tell whether two tensors are equal in dtype, shape and every bit, -0.0 not 0.0."""
    x, y = (tensor.detach().cpu().numpy() for tensor in (x, y))
    return (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def same(a, b):
    """Tell whether two state_dicts are equal in every bit of every tensor."""
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


def read(path):
    """Return the weights that --save has written to a file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def train(script, env, **flags):
    """Return the printed lines and the trained weights, a state_dict, of script.train()."""
    with redirect_stdout(io.StringIO()) as printed:
        policy = script.train(env_name=env, **flags)
    return printed.getvalue(), policy.state_dict()
