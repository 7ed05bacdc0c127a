"""Draw the README's figures from what benchmark.py measured and exact.py computes.

    python tests/evidence/figures.py
    python tests/evidence/figures.py --folder try --png    CSVs and figures there; PNGs to view

The SVGs have no background and mid-tone colours, so that they read on GitHub's light
and dark pages, and stay the same byte for byte as long as the data do.
"""

import argparse
from pathlib import Path

import exact
import matplotlib as mpl
import numpy as np
from common import ROOT, SCRIPTS, load_all, read
from matplotlib import pyplot as plt

GREY, BLUE, ORANGE = "#848d97", "#2f81f7", "#db6d28"
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
    """Return (an epoch's mean) against environment steps, a panel for each script.

    Over the seeds: median, quartiles and range, as far as every seed has gone, for the
    runs that took more steps are the ones that went well.
    """
    runs = read(folder / "curves.csv", "script", "seed")
    grid, bands = np.linspace(0, 1e6, 201), {}
    for path in SCRIPTS.values():
        mine = [run for (name, _), run in runs.items() if name == path.name]
        x = grid[grid <= min(run["steps"][-1] for run in mine)]
        rets = [np.interp(x, run["steps"], run["return"]) for run in mine]
        bands[path.name] = x / 1000, np.percentile(rets, (0, 25, 50, 75, 100), axis=0)
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.8), sharex=True, sharey=True)
    for ax, (name, (x, band)) in zip(axes.flat, bands.items(), strict=True):
        ax.fill_between(x, band[0], band[4], color=BLUE, alpha=0.2, linewidth=0)
        ax.fill_between(x, band[1], band[3], color=BLUE, alpha=0.35, linewidth=0)
        ax.plot(x, band[2], color=BLUE)
        ax.set(title=name, xlim=(0, 1000), xticks=range(0, 1000, 200), ylim=(0, 515))
    figure.supxlabel("environment steps, in thousands", color=GREY, size=10)
    figure.supylabel("return", color=GREY, size=10)
    return figure


def variance(_):
    """Exact variance of one trajectory's gradient estimate, a bar for each weight."""
    table = exact.on_policy(load_all(), *exact.random_mdp(seed=0)[:2])
    # an arbitrary baseline can have any variance: it is in that table for its bias
    found = {name: x for name, (_, _, x) in table.items() if not name.endswith(" b(s)")}
    figure, ax = plt.subplots(figsize=(7, 0.4 * len(found) + 0.6))
    bars = ax.barh(list(found), list(found.values()), color=BLUE, height=0.6)
    ax.bar_label(bars, fmt="{:.2f}", padding=4, color=GREY)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_xlabel("variance of the gradient estimate")
    return figure


def break_(folder):
    """Return of the last 10 epochs against --train_pi_iters, a panel for each --lr.

    Scripts 4 and 6: a line through the means, a dot for each seed, a cross at 0 for a
    run that diverged.
    """
    runs = read(folder / "break.csv", "script", "lr", "train_pi_iters")
    lrs = sorted({lr for _, lr, _ in runs})
    figure, axes = plt.subplots(1, len(lrs), figsize=(9, 3.2), sharey=True)
    for (n, colour, shift), (ax, lr) in (
        (style, panel)
        for style in ((4, ORANGE, 0.97), (6, BLUE, 1.03))
        for panel in zip(axes, lrs, strict=True)
    ):
        name = SCRIPTS[n].name
        cells = {
            int(iters): {c: np.array(run[c]) for c in ("tail", "status")}
            for (script, rate, iters), run in runs.items()
            if script == name and rate == lr
        }
        means = [np.mean(run["tail"]) for run in cells.values()]
        ax.plot(list(cells), means, color=colour, label=name)
        for iters, run in cells.items():
            failed = run["status"] != 0
            for which, marker, size in ((~failed, "o", 14), (failed, "x", 30)):
                y = run["tail"][which]
                x = np.full(len(y), iters * shift)  # aside, so that both can be seen
                ax.scatter(x, y, size, color=colour, marker=marker, clip_on=False)
        ax.set(title=f"--lr {lr:g}", xscale="log", ylim=(0, 510))
        ax.set_xticks(list(cells), list(cells))
        ax.minorticks_off()
    axes[0].set_ylabel("return, last 10 epochs")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2
    )
    figure.supxlabel("--train_pi_iters", color=GREY, size=10)
    return figure


def main():
    """Read the flags, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "tests" / "figures")
    parser.add_argument("--png", action="store_true", help="one per page colour, too")
    args = parser.parse_args()
    mpl.rcParams.update(STYLE)
    for name, draw in {"curves": curves, "variance": variance, "break": break_}.items():
        try:
            figure, path = draw(args.folder), args.folder / name
        except FileNotFoundError as error:
            print(
                f"{name}: no {error.filename}; python tests/evidence/benchmark.py makes it"
            )
            continue
        bare = {"Date": None, "Creator": None}  # else the file changes with the day
        figure.savefig(path.with_suffix(".svg"), transparent=True, metadata=bare)
        for page, colour in PAGES.items() if args.png else ():
            figure.savefig(f"{path}-{page}.png", facecolor=colour, dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()
