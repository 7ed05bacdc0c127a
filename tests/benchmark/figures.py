"""Draw the first page's figure from what measure.py measured.

    python -m tests.benchmark.figures
    python -m tests.benchmark.figures --folder try --png    CSV and figure there; PNGs to view

The SVG has no background and mid-tone colours, so that it reads on GitHub's light
and dark pages, and stays the same byte for byte as long as the data do.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from tests.benchmark.measure import HERE, read
from tests.common import SCRIPTS

GREY, BLUE, ORANGE = "#848d97", "#2f81f7", "#db6d28"
COLOURS = GREY, "#a371f7", "#3fb950", ORANGE, "#f2cc60", BLUE  # scripts 1 to 6
PAGES = {"light": "#ffffff", "dark": "#0d1117"}  # GitHub's
STYLE = {
    "svg.hashsalt": "ladder",  # without it the ids in the file are random
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
GREYS = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor")
STYLE |= dict.fromkeys((*GREYS, "xtick.color", "ytick.color", "grid.color"), GREY)


def curves(folder):
    """Return against environment steps: each script, epoch by epoch, medians over the seeds.

    4 and 5 are one line, drawn in turn.
    """
    found = {}
    for row in read(folder / "cartpole.csv").values():
        found.setdefault(row["program"], []).append(row["curve"])
    figure, ax = plt.subplots(figsize=(7, 4))
    for path, colour in zip(SCRIPTS.values(), COLOURS, strict=True):
        runs = [
            [point.split(":") for point in curve.split()] for curve in found[path.name]
        ]
        steps, rets = np.median(np.array(runs, dtype=float), 0).T
        dashes = (0, (4, 4)) if path.name[0] == "5" else "-"
        ax.plot(steps / 1000, rets, color=colour, ls=dashes, label=path.name)
    ax.set(xlabel="environment steps, in thousands", ylabel="return", ylim=(0, 515))
    ax.set_xlim(left=0)
    ax.legend(loc="lower right")
    return figure


def main():
    """Read the flags, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--png", action="store_true", help="one per page colour, too")
    args = parser.parse_args()
    mpl.rcParams.update(STYLE)
    figure, path = curves(args.folder), args.folder / "curves.svg"
    bare = {"Date": None, "Creator": None}  # else the file changes with the day
    figure.savefig(path, transparent=True, metadata=bare)
    for page, colour in PAGES.items() if args.png else ():
        figure.savefig(args.folder / f"curves-{page}.png", facecolor=colour, dpi=110)


if __name__ == "__main__":
    main()
