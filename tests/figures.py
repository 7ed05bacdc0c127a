"""Draw the README's figures from what tests/benchmark.py measured and exact.py computes.

    python tests/figures.py [folder of the CSV files, default tests/figures]

The SVGs go next to the CSV files. They read on GitHub's light and its dark page, with no
background of their own and grey text, and come out the same, byte for byte, as long as
the data do.
"""

import csv
import sys
from pathlib import Path

import exact
import matplotlib as mpl
import numpy as np
from conftest import ROOT, SCRIPTS

mpl.use("svg")
import matplotlib.pyplot as plt

# mid-tones: about the same contrast on white as on GitHub's dark #0d1117
GREY, BLUE, ORANGE = "#808890", "#2f81f7", "#d9730d"
STYLE = {
    "svg.hashsalt": "ladder",  # without it the ids in the file are random
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), GREY),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), GREY),
}


def read(path, *keys):
    """Return {values of the keys: {column: list of floats}} of a CSV file."""
    groups = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            group = groups.setdefault(tuple(row.pop(key) for key in keys), {})
            for key, x in row.items():
                group.setdefault(key, []).append(float(x or "nan"))
    return groups


def save(figure, path):
    """Write a figure as SVG: text as paths, no background, no date."""
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    print(path)


def curves(folder):
    """Return against environment steps, a panel per script: median and range of seeds."""
    runs = read(folder / "curves.csv", "script", "seed")
    grid = np.geomspace(3000, 1e6, 200)
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.6), sharex=True, sharey=True)
    bands = {}
    for path in SCRIPTS.values():
        mine = [run for (name, _), run in runs.items() if name == path.name]
        rets = [np.interp(grid, run["steps"], run["return"], left=np.nan, right=np.nan) for run in mine]
        bands[path.name] = rets
    for ax, (name, rets) in zip(axes.flat, bands.items()):
        ax.fill_between(grid, np.min(rets, 0), np.max(rets, 0), color=BLUE, alpha=0.25, lw=0)
        ax.plot(grid, np.median(rets, 0), color=BLUE)
        ax.set_xscale("log")
        ax.set_title(name)
    save(figure, folder / "curves.svg")

if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        curves(Path(sys.argv[1]))
