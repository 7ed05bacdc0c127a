"""Write into the two README.md what other files know better: diffs and tables.

    python -m tests.benchmark.readme

A part between ``<!--name arguments-->`` and ``<!--end-->`` is the output of the
function of that name below. ``test_readme.py`` fails when a part has gone stale.
"""

import ast
import csv
import difflib
import inspect
import math
import re
import statistics

import gymnasium as gym

from tests import toy_mdp
from tests.benchmark import measure
from tests.common import ROOT, SCRIPTS, load, load_all

PAGES = [ROOT / "README.md", ROOT / "tests" / "benchmark" / "README.md"]
PART = re.compile(r"(<!--(\w+)(.*?)-->\n).*?(<!--end-->)", re.DOTALL)
IDEAS = {
    1: "push up log-probs by the whole return",
    2: "only rewards that come after an action count",
    3: "subtract the return that was to be expected",
    4: "reuse the batch, reweighted by new / old probability",
    5: "the same gradient with the log written back",
    6: "stop pushing once that ratio has left an interval",
}
# a line that takes a flag in (train's signature, the command line), checks or prints
PLUMBING = re.compile(r'[+-] +(\w+=\S+,$|parser\.|"--|\)$|assert |f"ep)')


def code_lines(n):
    """Return script n's lines of code: no docstrings, comments or blank lines."""
    source = SCRIPTS[n].read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            doc = node.body[0]
            if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                count = doc.end_lineno - doc.lineno + 1
                lines[doc.lineno - 1 : doc.end_lineno] = [""] * count
    return [s for s in lines if s.strip() and not s.strip().startswith("#")]


def changes(a, b):
    """Return the changed lines of code between scripts a and b, each with its sign."""
    diff = difflib.unified_diff(code_lines(a), code_lines(b), n=0, lineterm="")
    return [line for line in list(diff)[2:] if line[0] in "+-"]


def shown(a, b):
    """Return those of the changes that the page shows: no flags, checks, printing."""
    kept = [line for line in changes(a, b) if not PLUMBING.match(line)]
    return [line.split("  #")[0] for line in kept]


def diff(a, b):
    """The lines of code that change from script a to script b, as a diff block."""
    names = [f"--- {SCRIPTS[int(a)].name}", f"+++ {SCRIPTS[int(b)].name}"]
    lines = ["", "```diff", *names, *shown(int(a), int(b)), "```", ""]
    return "\n".join(lines)


def table(head, body):
    """Return a Markdown table, a blank line on either side of it."""
    assert body, head
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(["", *("| " + " | ".join(map(str, r)) + " |" for r in rows), ""])


def number(x, digits=0):
    """Return a number as text, "-" if it is not finite."""
    # + 0.0 turns the -0.0 that rounding may leave into 0.0
    return f"{round(x, digits) + 0.0:,.{digits}f}" if math.isfinite(x) else "-"


def spread(values, digits=0, worst=min):
    """Return the median of some numbers and, in brackets, the worst, "-" if infinite."""
    if not values:
        return ""
    median = number(statistics.median(values), digits)
    return median if median == "-" else f"{median} ({number(worst(values), digits)})"


def measured(section, key):
    """The rows of the benchmark's CSV: {value of key(row): [row, ...]}, in their order."""
    found = {}
    for row in measure.read(measure.HERE / f"{section}.csv").values():
        found.setdefault(key(row), []).append(row)
    return found


def by_env():
    """The rows of environments.csv and peer.csv: {(environment, program): [row, ...]}."""
    key = lambda row: (re.search(r"--env (\S+)", row["flags"])[1], row["program"])
    return measured("environments", key) | measured("peer", key)


def column(runs, name):
    """Return one column of some rows; a run that failed is infinitely bad."""
    bad = -math.inf if name == "tail" else math.inf
    return [bad if math.isnan(row[name]) else row[name] for row in runs]


def rungs():
    """The six scripts: idea, loss and what they reach; before them an untrained policy."""
    found = measured("cartpole", lambda row: row["program"]), by_env()
    both = {
        path.name: (found[0][path.name], found[1]["Pendulum-v1", path.name])
        for path in SCRIPTS.values()
    }
    middle = lambda runs, name: number(statistics.median(column(runs, name)))
    untrained = [middle(runs, "first") for runs in both[SCRIPTS[6].name]]
    body = [["", "no training: an untrained policy", "", *untrained]]
    for n, path in SCRIPTS.items():
        loss = inspect.getsource(load(n).policy_loss).splitlines()[-1]
        body.append(
            [
                f"[{path.name}]({path.name})",
                IDEAS[n],
                f"`{loss.strip().removeprefix('return ')}`",
                *(middle(runs, "tail") for runs in both[path.name]),
            ]
        )
    return table(["file", "idea", "loss", "CartPole-v1", "Pendulum-v1"], body)


def cartpole():
    """What each program needs to solve CartPole-v1 and what comes after: cartpole.csv."""
    found, body = measured("cartpole", lambda row: row["program"]), []
    floor = column(found.pop(measure.FLOOR), "process")
    peer = column(found["sb3_ppo.py"], "solved_seconds")
    for name, runs in found.items():
        steps, seconds = column(runs, "solved_steps"), column(runs, "solved_seconds")
        # of the same seed, measured in turn; never solved is infinitely slow
        floors = [a / b for a, b in zip(seconds, floor)]
        faster = [-math.inf if math.isinf(a) else b / a for a, b in zip(seconds, peer)]
        cells = [
            f"{sum(map(math.isfinite, steps))} of {len(runs)}",
            spread([x / 1000 for x in steps], worst=max),
            spread(floors, 1, max),
            spread(faster, 1),
            # the peer stops where it has solved
            spread(column(runs, "tail"), 1) if name[0].isdigit() else "-",
        ]
        body.append([f"`{name}`", *cells])
    head = ["program", "solved", "thousand steps until solved (slowest)"]
    head += ["time, in floors (most)", "times faster than sb3_ppo.py (least)"]
    head += ["last 10 epochs (worst)"]
    return table(head, sorted(body))


def seconds():
    """How long script 6 takes on CartPole-v1: cartpole.csv."""
    runs = measured("cartpole", lambda row: row["program"])[SCRIPTS[6].name]
    median = statistics.median(column(runs, "process"))
    return (
        f"\nWith its defaults script 6 takes {median:.0f} seconds on one core, imports "
        "included.\n"
    )


def environments(*brief):
    """What scripts 6, 4 and 3 reach with their defaults, and the peer: environments.csv and
    peer.csv; of the environments in ``brief``, if any, without 4 and 3."""
    programs = SCRIPTS[6].name, "sb3_ppo.py", SCRIPTS[4].name, SCRIPTS[3].name
    found, body = by_env(), []
    for env in brief or measure.EPOCHS:
        solved = number(gym.spec(env).reward_threshold or math.nan)
        cells = [env, solved, measure.EPOCHS[env]]
        for program in programs[: 2 if brief else 4]:
            runs = found[env, program]
            cells.append(spread(column(runs, "tail")))
            if program in programs[:2]:
                cells.append(number(statistics.median(column(runs, "steps")) / 1000))
        body.append(cells)
    head = ["environment", "solved at", "epochs"]
    names = "script 6", "Stable-Baselines3's PPO", "script 4", "script 3"
    for name, program in zip(names, programs):
        counts = {len(found[env, program]) for env in measure.EPOCHS}
        seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
        head.append(f"{name} ({seeds} seeds)")
        head += ["thousand steps"] * (program in programs[:2])
    return table(head[: len(body[0])], body)


def others():
    """What the defaults do not learn, and flags that do: others.csv."""
    found = measured("others", lambda row: row["flags"])
    body = [
        [f"`python {SCRIPTS[6].name} {flags}`", spread(column(runs, "tail"), 2)]
        for flags, runs in found.items()
        if "Pendulum" not in flags
    ]
    return table(["command", "return"], body)


def units():
    """What other units of rewards and observations change on Pendulum-v1: others.csv."""
    found = measured("others", lambda row: row["flags"])
    titles = {
        "Pendulum-v1": ("as it is", 1),
        "PendulumTimes100": ("rewards times 100 (return divided by 100)", 100),
        "Pendulum-1To1": ("observations from -1 to 1", 1),
        "Pendulum0To100": ("observations from 0 to 100", 1),
    }
    body = []
    for flags, runs in found.items():
        for name, (title, scale) in titles.items():
            if name in flags:
                body.append([title, spread([x / scale for x in column(runs, "tail")])])
    return table(["Pendulum-v1, 120 epochs", "return, median (worst) of 3 seeds"], body)


def breaks():
    """What scripts 4 and 6 come to as the policy step grows: break.csv."""
    found = measured("break", lambda row: (row["flags"], row["program"]))
    names, body = [SCRIPTS[n].name for n in (4, 6)], []
    for flags in dict.fromkeys(flags for flags, _ in found):
        row = [f"`{flags}`"]
        for name in names:
            tails = column(found[flags, name], "tail")
            broken = sum(x < measure.SOLVED for x in tails)
            row += [spread(tails), f"{broken} of {len(tails)}"]
        body.append(row)
    head = [x for name in names for x in (f"`{name}`", "broken")]
    return table(["flags", *head], body)


def cuda():
    """Seconds per epoch on a GPU and on one core, by size: cuda.csv."""
    head, *body = csv_rows(measure.HERE / "cuda.csv")
    return table(["card", "`--hidden_sizes`", "`--num_envs`", *head[3:]], body)


def csv_rows(path):
    """Return the rows of a CSV, its head first, as lists of text."""
    with path.open() as file:
        return list(csv.reader(file))


def losses():
    """Which libraries have each script's loss, by how equal it is, from peers.csv."""
    head, *rows = csv_rows(ROOT / "tests" / "peers" / "peers.csv")
    body = {n: {"yes": {}, "last bits": {}} for n in "3456"}
    for row in (dict(zip(head, cells)) for cells in rows):
        cells = body["3" if row["script"] == "2" else row["script"]]
        if row["equal_to_the_bit"] in cells:
            cells[row["equal_to_the_bit"]][row["library"]] = None
    lines = [
        ["1, 2, 3" if n == "3" else n, *(", ".join(x) for x in cells.values())]
        for n, cells in body.items()
    ]
    return table(["script", "to the bit", "but for the last bits"], lines)


def peers():
    """Every comparison with a library's loss, from peers.csv."""
    head, *rows = csv_rows(ROOT / "tests" / "peers" / "peers.csv")
    keys = "script", "library", "version", "called", "equal_to_the_bit"
    keys += "largest_difference", "cause"
    body = [[row[head.index(key)] for key in keys] for row in rows]
    names = ["script", "library", "version", "code", "equal to the bit"]
    return table([*names, "largest difference", "cause"], sorted(body))


def variance():
    """The exact variance of the gradient estimate per weight, from tests.toy_mdp.py."""
    found = toy_mdp.on_policy(load_all(), *toy_mdp.random_mdp(0)[:2])
    body = [
        [f"`{name}`", "" if name[0] in "QA" or " b(s)" in name else n, f"{var:.3f}"]
        for name, (n, _, var) in found.items()
    ]
    return table(["weight", "script", "variance of the gradient estimate"], body)


def bias():
    """Length and cosine of each rung's expected gradient, by episodes in the batch."""
    found = toy_mdp.batch_bias(load_all())
    body = []
    for n in toy_mdp.RUNGS:
        cells = [found[n, count] for count in toy_mdp.BATCHES]
        brackets = ["" if math.isnan(x) else f" ({x:.3f})" for _, x in cells]
        body.append([n, *(f"{x:.2f}{y}" for (x, _), y in zip(cells, brackets))])
    return table(["rung", *(f"N = {count}" for count in toy_mdp.BATCHES)], body)


def post():
    """The figures of the post that the project grew from, from ``toy_mdp.reference``."""
    losses = {
        "`-(ratio * adv)` (script 4)": load(4).policy_loss,
        "`-(ratio.detach() * logp * adv)` (script 5)": load(5).policy_loss,
        "`-(ratio * logp * adv)`, no detach: wrong": toy_mdp.without_detach,
    }
    body = []
    for name, loss in losses.items():
        value, grad, _ = toy_mdp.reference(loss)
        numbers = ", ".join(f"{x:.4f}" for x in grad)
        body.append([name, f"{value:.4f}", f"({numbers})"])
    return table(["loss", "value", "gradient with respect to the new scores"], body)


def fresh(text):
    """Return ``text`` with every marked part written anew."""

    def part(match):
        return match[1] + globals()[match[2]](*match[3].split()) + "\n" + match[4]

    return PART.sub(part, text)


def snippet(word):
    """Return the one Python block of the pages that contains ``word``."""
    text = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (found,) = [code for code in blocks if word in code]
    return found


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fresh(page.read_text()))
