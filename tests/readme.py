"""Write into README.md all that other files know better: quotes, diffs, tables.

    python tests/readme.py

A part between ``<!-- name arguments -->`` and ``<!-- end -->`` is the output of the
function of that name below. ``test_readme.py`` fails when a part has gone stale.
"""

import ast
import csv
import difflib
import inspect
import re
import shlex
import statistics
import textwrap

import exact
from conftest import ROOT, SCRIPTS, load

README = ROOT / "README.md"
PART = re.compile(r"(<!-- (\w+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
IDEAS = {
    1: "push up log-probs by the whole return",
    2: "only rewards that come after an action count",
    3: "subtract a learned V(s), which also closes episodes cut by a time limit",
    4: "reuse the batch for several steps, reweighted by r",
    5: "the same gradient with the log written back",
    6: "stop pushing once r leaves [1 - eps, 1 + eps]",
}


def code_lines(n):
    """Return script n's lines of code: no docstrings, comments or blank lines."""
    source = SCRIPTS[n].read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            doc = node.body[0]
            if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                lines[doc.lineno - 1 : doc.end_lineno] = [""] * (
                    doc.end_lineno - doc.lineno + 1
                )
    return [s for s in lines if s.strip() and not s.strip().startswith("#")]


def changes(a, b):
    """Return the changed lines of code between scripts a and b, each with its sign."""
    diff = difflib.unified_diff(code_lines(a), code_lines(b), n=0, lineterm="")
    return [line for line in list(diff)[2:] if line[0] in "+-"]


def fence(language, lines):
    """Return a fenced code block, a blank line on either side of it."""
    return "\n".join(["", f"```{language}", *lines, "```", ""])


def diff(a, b):
    """The lines of code that change from script a to script b, as a diff block."""
    names = [f"--- {SCRIPTS[int(a)].name}", f"+++ {SCRIPTS[int(b)].name}"]
    return fence("diff", names + changes(int(a), int(b)))


def quote(n, start, count=None):
    """A function of script n by its name, or ``count`` lines from the one with ``start``."""
    source = SCRIPTS[int(n)].read_text()
    if count is None:
        source = inspect.getsource(getattr(load(int(n)), start))
        return fence("python", source.rstrip().splitlines())
    lines = source.splitlines()
    first = next(i for i, line in enumerate(lines) if start in line)
    text = textwrap.dedent("\n".join(lines[first : first + int(count)]))
    return fence("python", text.splitlines())


def table(head, body):
    """Return a Markdown table, a blank line on either side of it."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(["", *("| " + " | ".join(map(str, r)) + " |" for r in rows), ""])


def solved(n):
    """Per seed, the steps and seconds at which script n solved CartPole-v1, from the CSV.

    Solved: the last 100 training episodes average 475 or more.
    """
    num_envs = inspect.signature(load(n).train).parameters["num_envs"].default
    window = -(-100 // num_envs)
    seeds = {}
    with (ROOT / "tests/figures/curves.csv").open() as file:
        for row in csv.DictReader(file):
            if row["script"] == SCRIPTS[n].name:
                seeds.setdefault(row["seed"], []).append(row)
    found = []
    for run in seeds.values():
        rets = [float(row["return"]) for row in run]
        for k in range(window - 1, len(run)):
            if sum(rets[k - window + 1 : k + 1]) / window >= 475:
                found.append((int(float(run[k]["steps"])), float(run[k]["seconds"])))
                break
    return found, len(seeds)


def rungs():
    """The table of the six scripts: idea, loss, changed lines, steps and seconds to solve."""
    body = []
    for n, path in SCRIPTS.items():
        loss = inspect.getsource(load(n).policy_loss).splitlines()[-1]
        before = {1: None, 6: 4}.get(n, n - 1)
        found, seeds = solved(n)
        steps, seconds = (statistics.median(x) for x in zip(*found, strict=True))
        body.append(
            [
                f"[{path.name}]({path.name})",
                IDEAS[n],
                f"`{loss.strip().removeprefix('return ')}`",
                f"{len(changes(before, n))} (from {before})" if before else "",
                f"{steps / 1000:.0f}k",
                f"{seconds:.1f}",
                f"{len(found)}/{seeds}",
            ]
        )
    head = ["file", "idea", "loss", "changed lines", "steps", "seconds", "solved"]
    return table(head, body)


def flags():
    """The table of flags and their defaults, from the scripts' signatures."""
    defaults = {n: inspect.signature(load(n).train).parameters for n in SCRIPTS}
    body = []
    for name, meaning in FLAGS.items():
        have = [n for n in SCRIPTS if name in defaults[n]]
        value = defaults[have[-1]][name].default
        if isinstance(value, tuple):
            value = " ".join(map(str, value))
        flag = "--env" if name == "env_name" else f"--{name}"
        scripts = f"{have[0]}-{have[-1]}" if len(have) > 1 else have[0]
        shown = f"`{value}`" if value not in (False, "") else ""
        body.append([f"`{flag}`", scripts, shown, meaning])
    return table(["flag", "scripts", "default", "meaning"], body)


FLAGS = {
    "env_name": "Gymnasium id; `--env_name` does the same, as does `train(env_name=)`",
    "hidden_sizes": "units of each hidden layer, as in `--hidden_sizes 64 64`",
    "lr": "step size of the policy",
    "epochs": "rounds of play and update",
    "num_envs": "environments side by side; each plays one whole episode per epoch",
    "render": "watch one more episode per epoch in a window",
    "seed": "seeds torch and the environments",
    "max_ep_len": "cut any episode here; the environment's own limit still holds",
    "device": "`cpu`, `cuda`, `cuda:1`, ...",
    "save": "file for the policy's state_dict, replaced after every epoch",
    "gamma": "discount",
    "vf_lr": "step size of V",
    "train_v_iters": "steps of V per epoch",
    "train_pi_iters": "steps of the policy per epoch",
    "clip_ratio": "eps, the half-width of the interval that the ratio may move in",
}


def variance():
    """The exact variance of the gradient estimate per weight, from ``tests/exact.py``."""
    mdp, theta, _ = exact.random_mdp(0)
    found = exact.on_policy({n: load(n) for n in SCRIPTS}, mdp, theta)
    body = [[f"`{name}`", n, f"{var:.3f}"] for name, (n, _, var) in found.items()]
    return table(["weight", "script", "variance of the gradient estimate"], body)


def fresh(text):
    """Return ``text`` with every marked part written anew."""

    def part(match):
        name, arguments = match[2], shlex.split(match[3])
        return match[1] + globals()[name](*arguments) + "\n" + match[4]

    return PART.sub(part, text)


if __name__ == "__main__":
    README.write_text(fresh(README.read_text()))
