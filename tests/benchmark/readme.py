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

from tests import toy_mdp
from tests.benchmark import measure
from tests.common import ROOT, SCRIPTS, load, load_all

PAGES = [ROOT / "README.md", ROOT / "tests" / "benchmark" / "README.md"]
PART = re.compile(r"(<!--(\w+)(.*?)-->\n).*?(<!--end-->)", re.DOTALL)
IDEAS = {
    1: "push up log-probs by the whole return",
    2: "only rewards that come after an action count",
    3: "subtract V(s), the reward-to-go expected from s",
    4: "reuse the batch, reweighted by ratio = pi / pi_old",
    5: "the same gradient with the log written back",
    6: "stop pushing a ratio outwards beyond 1 ± eps",
}
# a line that takes a flag in (train's signature, the command line), checks or prints
PLUMBING = re.compile(
    r'[+-] +(\w+=\S+,$|parser\.|"--|\)$|assert |log_ratio =|kl =|f"ep)'
)


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
    """The rows of environments.csv: {(environment, program): [row, ...]}."""
    key = lambda row: (re.search(r"--env (\S+)", row["flags"])[1], row["program"])
    return measured("environments", key)


def column(runs, name):
    """Return one column of some rows; a run that failed is infinitely bad."""
    bad = -math.inf if name == "tail" else math.inf
    return [bad if math.isnan(row[name]) else row[name] for row in runs]


def rungs():
    """The six scripts: idea, loss, lines of their diff, and what they reach."""
    found, body = measured("cartpole", lambda row: row["program"]), []
    for n, path in SCRIPTS.items():
        loss = inspect.getsource(load(n).policy_loss).splitlines()[-1]
        runs = found[path.name], by_env()["Pendulum-v1", path.name]
        body.append(
            [
                f"[{path.name}]({path.name})",
                IDEAS[n],
                f"`{loss.strip().removeprefix('return ')}`",
                *(number(statistics.median(column(x, "tail"))) for x in runs),
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


def learned():
    """How long script 6 takes, and how much of what it plays it learns from: cartpole.csv."""
    rows = measured("cartpole", lambda row: row["program"])[SCRIPTS[6].name]
    shares, num_envs = [], measure.NUM_ENVS
    for row in rows:
        # a step pays 1, so the mean return is the mean length of an episode
        points = [map(float, x.split(":")) for x in row["curve"].split()]
        steps, lengths = zip(*points)
        kept = lengths[0] / steps[0], sum(lengths) / steps[-1]
        shares.append([100 * num_envs * x for x in kept])
    first, every = (statistics.median(x) for x in zip(*shares))
    seconds = statistics.median(row["process"] for row in rows)
    return (
        f"\nWith its defaults script 6 takes {seconds:.0f} seconds on one core, imports "
        f"included. Of the steps that its {num_envs} environments play it learns from "
        f"{first:.0f} % in the first epoch and {every:.0f} % in all (medians): each plays on "
        "until the longest episode ends, so with more environments less.\n"
    )


def environments(width=None):
    """What scripts 6, 4 and 3 reach with their defaults, and the peer: environments.csv.

    ``width`` is the number of columns, all of them if none is given.
    """
    programs = SCRIPTS[6].name, "sb3_ppo.py", SCRIPTS[4].name, SCRIPTS[3].name
    found, body = by_env(), []
    for env, epochs in measure.EPOCHS.items():
        ours, peer, *rest = (found[env, program] for program in programs)
        steps = [
            number(statistics.median(column(x, "steps")) / 1000) for x in (ours, peer)
        ]
        tails = [spread(column(x, "tail")) for x in (ours, peer, *rest)]
        body.append([env, epochs, *tails, *steps])
    head = []
    names = "script 6", "Stable-Baselines3's PPO", "script 4", "script 3"
    for name, program in zip(names, programs):
        counts = {len(found[env, program]) for env in measure.EPOCHS}
        seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
        head.append(f"{name} ({seeds} seeds)")
    head = ["environment", "epochs", *head, "thousand steps of 6", "of SB3"]
    width = int(width or len(head))
    return table(head[:width], [row[:width] for row in body])


def others():
    """What the defaults do not learn, and flags that do: others.csv."""
    found = measured("others", lambda row: row["flags"])
    body = [
        [f"`python {SCRIPTS[6].name} {flags}`", spread(column(runs, "tail"), 2)]
        for flags, runs in found.items()
    ]
    return table(["command", "return"], body)


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


def bias(cosine=""):
    """Length, and ``cosine``, of each rung's expected gradient, by episodes in the batch."""
    found = toy_mdp.batch_bias(load_all())
    body = []
    for n in toy_mdp.RUNGS:
        cells = [found[n, count] for count in toy_mdp.BATCHES]
        brackets = [
            f" ({x:.3f})" if cosine and not math.isnan(x) else "" for _, x in cells
        ]
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
        value, grad = toy_mdp.reference(loss)
        numbers = ", ".join(f"{x:.4f}" for x in grad)
        body.append([name, f"{value:.4f}", f"({numbers})"])
    return table(["loss", "value", "gradient with respect to the new scores"], body)


def fresh(text):
    """Return ``text`` with every marked part written anew."""

    def part(match):
        return match[1] + globals()[match[2]](*match[3].split()) + "\n" + match[4]

    return PART.sub(part, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fresh(page.read_text()))
