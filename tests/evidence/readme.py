"""Write into README.md all that other files know better: quotes, diffs, tables.

    python tests/evidence/readme.py

A part between ``<!-- name arguments -->`` and ``<!-- end -->`` is the output of the
function of that name below. ``test_readme.py`` fails when a part has gone stale.
"""

import ast
import difflib
import inspect
import math
import re
import shlex
import statistics
import textwrap

import exact
from common import ROOT, SCRIPTS, defaults, load, load_all, read

README = ROOT / "README.md"
PART = re.compile(r"(<!-- (\w+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
IDEAS = {
    1: "push up log-probs by the whole return",
    2: "only rewards that come after an action count",
    3: "subtract a learned V(s), which also bootstraps cut episodes; discount rewards",
    4: "reuse the batch for several steps, reweighted by r = pi / pi_old",
    5: "the same gradient with the log written back",
    6: "stop pushing r further out of [1 - eps, 1 + eps]",
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


def measured(name, key):
    """The rows of the benchmark's CSV of that name: {value of ``key``: {column: list}}."""
    found = read(ROOT / f"tests/evidence/{name}.csv", key)
    return {value: columns for (value,), columns in found.items()}


def rungs():
    """The table of the six scripts: idea, loss, changed lines, steps and seconds to solve."""
    found, body = measured("runs", "script"), []
    for n, path in SCRIPTS.items():
        loss = inspect.getsource(load(n).policy_loss).splitlines()[-1]
        before, run = {1: None, 6: 4}.get(n, n - 1), found[path.name]
        body.append(
            [
                f"[{path.name}]({path.name})",
                IDEAS[n],
                f"`{loss.strip().removeprefix('return ')}`",
                f"{len(changes(before, n))} (from {before})" if before else "",
                f"{statistics.median(run['steps']) / 1000:.0f}k",
                f"{statistics.median(run['seconds']):.1f}",
            ]
        )
    head = ["file", "idea", "loss", "changed lines", "steps", "seconds"]
    return table(head, body)


def speed():
    """Whole-process time to solve, as ratios, and what comes after, from runs.csv."""
    found, body = measured("runs", "script"), []
    bare = statistics.median(found["import torch, gymnasium"]["process"])
    peer = statistics.median(found["sb3"]["seconds"])
    for path in SCRIPTS.values():
        run = found[path.name]
        seconds, tails = statistics.median(run["seconds"]), run["tail"]
        lows = [x for x in run["low"] if not math.isnan(x)]
        count = sum(math.isfinite(x) for x in run["epoch"])
        body.append(
            [
                f"`{path.name}`",
                f"{count} of {len(tails)}",
                f"{seconds / bare:.1f}",
                f"{peer / seconds:.1f}",
                f"{statistics.median(tails):.1f} ({min(tails):.1f})",
                tails.count(500),
                f"{min(lows):.0f}",
            ]
        )
    solved = sum(map(math.isfinite, found["sb3"]["epoch"]))
    count = f"{solved} of {len(found['sb3']['epoch'])}"
    body.append(["SB3's PPO", count, f"{peer / bare:.1f}", "1.0", "", "", ""])
    head = ["script", "solved", "time / imports", "SB3's time / script's"]
    head += ["last 10 epochs (worst seed)", "seeds at 500.0", "lowest once solved"]
    return table(head, body)


def steadiness():
    """What scripts 4 and 6 come to as the policy step grows, from break.csv."""
    found, cells = measured("break", "script"), {}
    for n in (4, 6):
        columns = (found[SCRIPTS[n].name][x] for x in ("lr", "train_pi_iters", "tail"))
        for lr, iters, tail in zip(*columns, strict=True):
            cells.setdefault((lr, iters), {4: [], 6: []})[n].append(tail)
    body = []
    for (lr, iters), tails in sorted(cells.items()):
        both = [
            f"{statistics.mean(tails[n]):.0f} ({min(tails[n]):.0f})" for n in (4, 6)
        ]
        body.append([f"`--lr {lr:g} --train_pi_iters {iters:g}`", *both])
    return table(["flags", "script 4", "script 6"], body)


def cost():
    """Steps per second and discarded steps for each number of environments, scale.csv."""
    body = []
    for env, x in measured("scale", "env").items():
        cells = {}
        for n, rate, lost in zip(x["num_envs"], x["rate"], x["discarded"], strict=True):
            cells.setdefault(n, []).append((rate, lost))
        rates, losts = (
            [statistics.median(pair[i] for pair in cell) for cell in cells.values()]
            for i in (0, 1)
        )
        body.append([f"{env}, steps per second", *(f"{x:,.0f}" for x in rates)])
        body.append([f"{env}, discarded", *(f"{x:.0%}" for x in losts)])
    return table(["`--num_envs`", *(f"{n:g}" for n in cells)], body)


def limit():
    """How close an epoch is to the calls that it cannot do without, from limit.csv."""
    body = []
    for name, run in measured("limit", "script").items():
        x = run["ratio"]
        three = f"{statistics.median(x):.2f} ({min(x):.2f}-{max(x):.2f})"
        body.append([f"`{name}`", three])
    head = "an epoch's time / its bare calls': median (range of epochs)"
    return table(["script", head], body)


def environments():
    """What the scripts reach elsewhere with flags only, from environments.csv."""
    body = []
    for command, x in measured("environments", "command").items():
        assert not any(x["status"]), f"{command} failed: measure it again"
        tails = sorted(x["tail"])
        digits = 2 if max(map(abs, tails)) < 2 else 0
        reached = (f"{y:.{digits}f}" for y in (statistics.median(tails), tails[0]))
        body.append(
            [
                f"`{command}`",
                "{} ({})".format(*reached),
                f"{statistics.median(x['steps']) / 1000:,.0f}k",
                f"{statistics.median(x['seconds']):.0f}",
            ]
        )
    return table(["command", "return (worst seed)", "steps", "seconds"], body)


def flags():
    """The table of flags and their defaults, from the scripts' signatures."""
    of = {n: defaults(n) for n in SCRIPTS}
    body = []
    for name, meaning in FLAGS.items():
        have = [n for n in SCRIPTS if name in of[n]]
        value = of[have[-1]][name]
        if isinstance(value, tuple):
            value = " ".join(map(str, value))
        flag = "--env" if name == "env_name" else f"--{name}"
        scripts = f"{have[0]}-{have[-1]}" if len(have) > 1 else have[0]
        shown = "" if value is False or value == "" else f"`{value}`"
        body.append([f"`{flag}`", scripts, shown, meaning])
    return table(["flag", "scripts", "default", "meaning"], body)


FLAGS = {
    "env_name": "Gymnasium id, or `module:id` of your own (see below); also `--env_name`, `train(env_name=)`",
    "hidden_sizes": "units of each hidden layer, as in `--hidden_sizes 64 64`",
    "lr": "step size of the policy",
    "epochs": "rounds of play and update",
    "num_envs": "environments side by side; each plays one whole episode per epoch",
    "render": "watch one more episode per epoch in a window, in real time; needs a display",
    "seed": "seeds torch and the environments",
    "max_ep_len": "cut any episode here; the environment's own limit still holds",
    "device": "`cpu`, `cuda`, `cuda:1`, ...",
    "save": "file for the policy's state_dict, replaced after every epoch",
    "gamma": "discount",
    "vf_lr": "step size of V",
    "train_v_iters": "steps of V per epoch",
    "train_pi_iters": "steps of the policy per epoch",
    "clip_ratio": "eps: no push further out once the ratio is this far from 1",
}


def variance():
    """The exact variance of the gradient estimate per weight, from ``tests/evidence/exact.py``."""
    mdp, theta, _ = exact.random_mdp(0)
    found = exact.on_policy(load_all(), mdp, theta)
    body = [
        [f"`{name}`", "" if name[0] in "QA" or " b(s)" in name else n, f"{var:.3f}"]
        for name, (n, _, var) in found.items()
    ]
    return table(["weight", "script", "variance of the gradient estimate"], body)


def post():
    """The figures of the post that the project grew from, from ``exact.reference``."""
    right = [load(n).policy_loss for n in (4, 5)]
    wrong = exact.mutant(load(5), ".detach()", "")
    losses = {
        "`-(ratio * adv)` (script 4)": right[0],
        "`-(ratio.detach() * logp * adv)` (script 5)": right[1],
        "`-(ratio * logp * adv)`, no detach": wrong,
    }
    body = []
    for name, loss in losses.items():
        value, grad = exact.reference(loss)
        numbers = ", ".join(f"{x:.4f}" for x in grad)
        body.append(
            [name, f"{value:.4f}", f"({numbers})" + ", wrong" * (loss is wrong)]
        )
    return table(["loss", "value", "gradient with respect to the new scores"], body)


PARTS = {"rungs", "quote", "diff", "post", "variance", "speed", "steadiness", "limit"}
PARTS |= {"cost", "environments", "flags"}


def fresh(text):
    """Return ``text`` with every marked part written anew."""

    def part(match):
        name, arguments = match[2], shlex.split(match[3])
        return match[1] + globals()[name](*arguments) + "\n" + match[4]

    return PART.sub(part, text)


if __name__ == "__main__":
    README.write_text(fresh(README.read_text()))
