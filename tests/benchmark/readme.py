"""Write into the two README.md all that other files know better: quotes, diffs, tables.

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
import shlex
import statistics
import textwrap

from tests import exact
from tests.benchmark import measure
from tests.common import ROOT, SCRIPTS, load, load_all

PAGES = [ROOT / "README.md", ROOT / "tests" / "benchmark" / "README.md"]
PART = re.compile(r"(<!--(\w+)(.*?)-->\n).*?(<!--end-->)", re.DOTALL)
IDEAS = {
    1: "push up log-probs by the whole return",
    2: "only rewards that come after an action count",
    3: "subtract the return expected from s, a learned V(s); discount",
    4: "reuse the batch, reweighted by ratio = pi / pi_old",
    5: "the same gradient with the log written back",
    6: "stop pushing a ratio outwards beyond 1 ± eps",
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


# a line that takes a flag in (train's signature, its checks, the command line) or prints
PLUMBING = re.compile(r'[+-] +(\w+=\S+,$|assert .*f"|parser\.add_argument|kl = |f"ep)')


def diff(a, b):
    """The lines of code that change from script a to script b, as a diff block, without
    those that take a flag in or print, which the block says."""
    lines = [f"--- {SCRIPTS[int(a)].name}", f"+++ {SCRIPTS[int(b)].name}"]
    all_lines = changes(int(a), int(b))
    kept = [x.split("  #")[0] for x in all_lines if not PLUMBING.match(x)]
    if len(kept) < len(all_lines):
        lines.append("@@ without the lines for flags and printing @@")
    return fence("diff", lines + kept)


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


def number(x, digits=0):
    """Return a number as text, "-" if it is not finite."""
    # + 0.0 turns the -0.0 that rounding may leave into 0.0
    return f"{round(x, digits) + 0.0:,.{digits}f}" if math.isfinite(x) else "-"


def spread(values, digits=0, worst=min):
    """Return the median of some numbers and, in brackets, the worst, "-" if infinite.

    One number is returned alone, none as "".
    """
    if len(values) < 2:
        return "".join(number(x, digits) for x in values)
    median = number(statistics.median(values), digits)
    return median if median == "-" else f"{median} ({number(worst(values), digits)})"


def seeds(groups):
    """Return how many seeds the groups of runs have: "5 seeds", "1 to 3 seeds"."""
    counts = [len(runs) for runs in groups]
    low, high = min(counts), max(counts)
    return f"{high} seeds" if low == high else f"{low} to {high} seeds"


def measured(section, key):
    """The rows of the benchmark's CSV: {value of key(row): [row, ...]}, in their order."""
    found = {}
    for row in measure.read(measure.HERE / f"{section}.csv").values():
        found.setdefault(key(row), []).append(row)
    return found


def column(runs, name):
    """Return one column of some rows; a run that failed is infinitely bad."""
    bad = -math.inf if name == "tail" else math.inf
    return [bad if math.isnan(row[name]) else row[name] for row in runs]


def rungs():
    """The six scripts: idea, loss, changed lines, and what they reach on CartPole-v1."""
    found, body = measured("cartpole", lambda row: row["program"]), []
    for n, path in SCRIPTS.items():
        loss = inspect.getsource(load(n).policy_loss).splitlines()[-1]
        before, runs = {6: 4}.get(n, n - 1), found[path.name]
        lines = len(changes(before, n)) if before else ""
        body.append(
            [
                f"[{path.name}]({path.name})",
                IDEAS[n],
                f"`{loss.strip().removeprefix('return ')}`",
                f"{lines} (from 4)" if n == 6 else lines,
                f"{statistics.median(column(runs, 'tail')):.0f}",
            ]
        )
    head = ["file", "idea", "loss", "changed lines", "return"]
    return table(head, body)


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
    head += ["time, in floors (most)", "times faster than SB3 (least)"]
    head += ["last 10 epochs (worst)"]
    return table(head, sorted(body))


def environments(every=None):
    """What script 6 reaches with its defaults, and the peer; with ``every`` also scripts 4
    and 3, script 6 with the peer's seeds and how many times as long the peer took:
    environments.csv."""

    def key(row):
        return re.search(r"--env (\S+)", row["flags"])[1], row["program"]

    found = measured("environments", key)
    names = ["script 6", "SB3's PPO", "script 4", "script 3"]
    programs = [SCRIPTS[6].name, "sb3_ppo.py", SCRIPTS[4].name, SCRIPTS[3].name]
    groups = [[found.get((x, name), []) for x in measure.EPOCHS] for name in programs]
    head = [f"{name}, {seeds(runs)}" for name, runs in zip(names, groups)]
    body, total, as_good = [], [0, 0], 0
    for (env, epochs), *runs in zip(measure.EPOCHS.items(), *groups):
        ours, peer = (column(x, "process") for x in runs[:2])
        pairs = list(zip(ours, peer))
        total = [sum(x) for x in zip(total, *pairs)]
        thousand = statistics.median(column(runs[0], "steps")) / 1000
        tails = [column(x, "tail") for x in runs]
        same = tails[0][: len(peer)]  # the peer's seeds are the first of ours
        as_good += statistics.median(same) >= statistics.median(tails[1])
        tails.insert(2, same)
        faster = spread([b / a for a, b in pairs], 1)
        body.append([env, epochs, *map(spread, tails), number(thousand), faster])
    head.insert(2, "script 6, SB3's seeds")
    head = ["environment", "epochs", *head, "thousand steps of 6"]
    head.append("times faster than SB3 (least)")
    if every:
        good = f"at least as good in {as_good} of {len(body)}"
        last = number(total[1] / total[0], 1)
        body.append(["in all, times added", "", "", "", good, "", "", "", last])
    width = len(head) if every else 4
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


def scale():
    """Steps per second, updates included, by --num_envs: scale.csv."""
    key = lambda row: re.findall(r"--env (\S+) .*--num_envs (\d+)", row["flags"])[0]
    cells = {}
    for (env, num_envs), runs in measured("scale", key).items():
        rate = statistics.median(column(runs, "rate"))
        cells.setdefault(env, {})[num_envs] = f"{rate:,.0f}"
    head = ["`--num_envs`", *next(iter(cells.values()))]
    return table(head, [[env, *row.values()] for env, row in cells.items()])


def compared():
    """The rows of peers.csv in pairs, (in float32, in float64), sorted by script."""
    with open(measure.HERE / "peers.csv") as file:
        found = list(csv.DictReader(file))
    pairs = zip(found[::2], found[1::2], strict=True)
    return sorted(pairs, key=lambda pair: pair[0]["script"])


def losses():
    """Where each script's loss is met, by how equal it is in float32, from peers.csv."""
    body = {n: {"yes": {}, "last bits": {}, "no": {}} for n in "3456"}
    for row, _ in compared():
        if "return" in row["called"] or "reward2go" in row["called"]:
            continue
        name = re.split(r"[. ,](?!train|update|_)", row["called"])[0]
        name = name.removeprefix("compute_policy_loss_").split("._")[0]
        why = f" ({row['cause']})" if row["equal_to_the_bit"] == "no" else ""
        cell = body["3" if row["script"] == "2" else row["script"]]
        cell = cell[row["equal_to_the_bit"]].setdefault(row["library"], {})
        if kind := re.search(r"loss_type (\w+)", row["called"]):
            name = kind[1]
        cell[f"`{name}`{why}"] = None
    lines = [
        [
            "1, 2, 3" if n == "3" else n,
            *(
                "; ".join(f"{lib} {', '.join(x)}" for lib, x in cell.items())
                for cell in row.values()
            ),
        ]
        for n, row in body.items()
    ]
    head = [
        "script",
        "equal to the bit (float32)",
        "but for the last bits",
        "other, in the case named",
    ]
    return table(head, lines)


def peers():
    """Every comparison with a library's loss, in float32 and float64, from peers.csv."""
    body = []
    for single, double in compared():
        name = f"{single['library']} {single['version']}: `{single['called']}`"
        row = [single["script"], name, single["batches"]]
        row += [x["equal_to_the_bit"] for x in (single, double)]
        largest = max(float(x["largest_difference"]) for x in (single, double))
        body.append([*row, f"{largest:.0e}" if largest else "", double["cause"]])
    head = ["script", "library: code", "batches", "float32", "float64"]
    return table([*head, "largest difference", "cause"], body)


def variance():
    """The exact variance of the gradient estimate per weight, from tests/exact.py."""
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


PARTS = {"rungs", "quote", "diff", "post", "environments", "losses", "peers"}
PARTS |= {"variance", "cartpole", "others", "breaks", "scale"}


def fresh(text):
    """Return ``text`` with every marked part written anew."""

    def part(match):
        name, arguments = match[2], shlex.split(match[3])
        return match[1] + globals()[name](*arguments) + "\n" + match[4]

    return PART.sub(part, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fresh(page.read_text()))
