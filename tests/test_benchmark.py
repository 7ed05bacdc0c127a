"""What was measured: of these scripts, summed up as told, drawn as it is."""

import json
import math
import re
import shutil
import sys

import figures
import pytest
import readme
from benchmark import ENVIRONMENTS, command, spread, summary
from conftest import ROOT, defaults

DATA = ROOT / "tests" / "figures"
ID, NUMBER = re.compile(r'(?:id="|url\(#|href="#)[^")]+'), re.compile(r"\d+\.?\d*")


def epochs(*rets):
    """Return printed epochs with these returns, 10 steps and a second each."""
    return [
        {"epoch": i, "steps": 10 * (i + 1), "seconds": i + 1.0, "return": ret}
        for i, ret in enumerate(rets)
    ]


def test_summary_of_a_run_that_solves():
    """It solves with the epoch that lifts the window's mean to 475, and falls from there."""
    run = summary(epochs(100, 500, 440, 510, 430, 430, 500), window=2)
    when = {"epoch": 3, "steps": 40, "seconds": 4.0}
    assert run == when | {"tail": pytest.approx(2910 / 7), "low": 430}


def test_summary_of_a_run_that_does_not():
    """Its moment is infinite, and there is nothing to fall from; nor without any epoch."""
    for run in (summary(epochs(500, 440), window=2), summary([], window=2)):
        assert run["epoch"] == run["steps"] == run["seconds"] == math.inf
        assert math.isnan(run["low"])


def test_spread():
    """Median and range, NaN left out, infinity in words."""
    assert spread([3.0, math.nan, 1.0, math.inf], 1) == "3.0 (1.0-never)"
    assert spread([math.nan]) == ""


@pytest.mark.parametrize(
    "section", ["curves", "limit", "scale", "break", "environments"]
)
def test_measured_with_the_defaults_of_today(section):
    """A changed default makes the figures those of other scripts: measure them again."""
    measured = json.loads((DATA / "defaults.json").read_text())[section]
    assert measured == json.loads(json.dumps(defaults(6)))


def test_measured_environments_are_those_of_the_benchmark():
    """The commands in environments.csv, and so on the page, are the benchmark's."""
    typed = [command(line) for line in ENVIRONMENTS.strip().splitlines()]
    assert [*readme.measured("environments", "command")] == typed


def test_figures_are_drawn_from_the_data(tmp_path, monkeypatch):
    """`python tests/figures.py` draws the committed SVGs, up to the last digits of a number
    and the ids that are made of them: these differ from machine to machine."""
    for path in DATA.glob("*.csv"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--folder", str(tmp_path)])
    figures.main()
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn.keys() == {path.name for path in DATA.glob("*.svg")}
    for name, svg in drawn.items():
        new, old = (ID.sub("", x) for x in (svg, (DATA / name).read_text()))
        assert NUMBER.split(new) == NUMBER.split(old)
        numbers = [[float(x) for x in NUMBER.findall(svg)] for svg in (new, old)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)
