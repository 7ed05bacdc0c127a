"""What was measured: of these scripts, summed up as told."""

import json
import math

from tests.benchmark import measure
from tests.common import SCRIPTS, defaults


def epochs(*rets):
    """Return printed epochs with these returns, 10 steps and a second each."""
    return [
        {"steps": 10 * (i + 1), "seconds": i + 1.0, "return": ret}
        for i, ret in enumerate(rets)
    ]


def test_summary():
    """A run solves with the epoch that lifts the window's mean to 475, or never does."""
    run = measure.summary(epochs(*[100] * 10, 500, 440, 510, 430), window=2)
    assert (run["solved_steps"], run["solved_seconds"]) == (130, 13)
    assert (run["steps"], run["last"], run["tail"]) == (140, 100, 248)
    run = measure.summary(epochs(500, 440), window=2)
    assert run["solved_steps"] == run["solved_seconds"] == math.inf


def test_a_measurement_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """A run that is in the CSV is not run again; one that failed is there with its status."""
    ran, path = [], tmp_path / "a.csv"

    def timed(command):
        ran.append(command[-1])
        return epochs(1, 2), 3.0, int(command[-1] == "1")

    monkeypatch.setattr(measure, "timed", timed)
    jobs = [("6_ppo_clip.py", "", seed) for seed in range(3)]
    measure.measure(path, jobs[:2])
    measure.measure(path, jobs)
    assert ran == ["0", "1", "2"]
    found = measure.read(path)
    assert [row["status"] for row in found.values()] == [0, 1, 0]
    assert [row["tail"] for row in found.values()][::2] == [1.5, 1.5]


def test_measured_with_the_defaults_of_today():
    """A changed default makes the figures those of other scripts: measure them again."""
    today = {path.name: defaults(n) for n, path in SCRIPTS.items()}
    measured = json.loads((measure.HERE / "defaults.json").read_text())
    assert measured == json.loads(json.dumps(today))
