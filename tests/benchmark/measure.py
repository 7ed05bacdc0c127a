"""Measure the six scripts on one core: how soon, how steadily and what they learn.

    python -m tests.benchmark.measure                       everything: some hours
    python -m tests.benchmark.measure cartpole --seeds 3 --out try

Needs tests/requirements.txt, stable-baselines3 and gymnasium[box2d,mujoco]. Programs whose
times are compared run in turn, seed by seed, so that noise hits all alike. Each run is a
row of the section's CSV, written as soon as the run has ended: after an interruption the
same command goes on where it stopped. Seconds differ from machine to machine: read
ratios. Seeds are 0, 100, 200, ...: environment i is seeded with seed + i, so up to 100
environments share none.
"""

import argparse
import csv
import json
import math
import os
import shlex
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from tests.common import ROOT, SCRIPTS, defaults, rows

HERE = Path(__file__).resolve().parent
# what every program that uses torch.optim pays before it learns anything
FLOOR = (
    "import torch, gymnasium; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
)
SOLVED = 475  # mean return of the last 100 training episodes, CartPole-v1
NUM_ENVS = defaults(6)["num_envs"]
# epochs of the scripts: about as many steps as the peer's, fewer where these suffice
EPOCHS = {
    "Acrobot-v1": 180,
    "Pendulum-v1": 120,
    "InvertedPendulum-v5": 70,
    "Hopper-v5": 140,
    "LunarLander-v3": 220,
    "InvertedDoublePendulum-v5": 175,
    "LunarLanderContinuous-v3": 200,
}
# what the defaults do not learn, with flags that do where we know some; other units
OTHERS = (
    "--env MountainCar-v0 --epochs 100",
    "--env FrozenLake-v1 --epochs 100",
    "--env FrozenLake-v1 --epochs 100 --num_envs 256",
    "--env FrozenLake-v1 --epochs 100 --gamma 1",
    "--env FrozenLake-v1 --epochs 100 --num_envs 256 --gamma 1",
    "--env MountainCarContinuous-v0 --epochs 75",
    "--env MountainCarContinuous-v0 --epochs 50 --num_envs 64",
    "--env Pendulum-v1 --epochs 120",
    "--env tests.toy_envs:PendulumTimes100-v0 --epochs 120",
    "--env tests.toy_envs:Pendulum-1To1-v0 --epochs 120",
    "--env tests.toy_envs:Pendulum0To100-v0 --epochs 120",
)
KEYS = ("program", "flags", "seed")
COLUMNS = (*KEYS, "status", "process", "steps", "first", "tail")
COLUMNS = (*COLUMNS, "solved_steps", "solved_seconds", "curve")


def python(program, flags, seed):
    """Return the command that runs a script, the peer or the floor."""
    if program == FLOOR:
        return [sys.executable, "-c", FLOOR]
    path = ROOT / program if program[0].isdigit() else HERE / program
    return [sys.executable, str(path), *shlex.split(flags), "--seed", str(seed)]


def timed(command):
    """Run a command; return its printed epochs, each with the seconds since the process
    began (`seconds`), the seconds until it ended, and its exit status."""
    start, epochs, line = time.perf_counter(), [], ""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **both) as child:
        for line in child.stdout:
            seconds = time.perf_counter() - start
            epochs += [row | {"seconds": seconds} for row in rows(line)]
    if child.returncode:
        print(f"failed: {shlex.join(command)}: {line.strip()}", file=sys.stderr)
    return epochs, time.perf_counter() - start, child.returncode


def summary(epochs, window):
    """Return what a run came to: its steps, the first epoch's return and the mean return of
    the last 10 (`tail`); and steps and seconds at the epoch at which the last ``window``
    epochs averaged SOLVED (infinite if none; of meaning for CartPole-v1 alone)."""
    rets = [row["return"] for row in epochs]
    means = [mean(rets[i - window : i]) for i in range(window, len(rets) + 1)]
    at = next((i for i, x in enumerate(means) if x >= SOLVED), len(means))
    moment = epochs[at + window - 1] if at < len(means) else {}
    return {
        "steps": epochs[-1]["steps"],
        "first": rets[0],
        "tail": mean(rets[-10:]),
        "solved_steps": moment.get("steps", math.inf),
        "solved_seconds": moment.get("seconds", math.inf),
    }


def read(path):
    """Return the rows of a CSV by their key: program, flags and seed.

    Numbers are floats, an empty cell of a number is NaN.
    """
    with path.open() as file:
        found = list(csv.DictReader(file))
    for row in found:
        for name in COLUMNS:
            if name not in ("program", "flags", "curve"):
                row[name] = float(row.get(name) or "nan")
    return {tuple(row[key] for key in KEYS): row for row in found}


def measure(path, jobs, keep_curve=False):
    """Run the jobs, (program, flags, seed), that the CSV does not have; return its rows."""
    found, start = read(path) if path.exists() else {}, time.perf_counter()
    for i, key in enumerate(jobs, 1):
        if key in found:
            continue
        epochs, seconds, status = timed(python(*key))
        row = dict(zip(KEYS, key)) | {"status": status, "process": round(seconds, 2)}
        if epochs and not status:
            row |= summary(epochs, -(-100 // NUM_ENVS) if key[0][0].isdigit() else 1)
        if epochs and keep_curve:
            pairs = (f"{row['steps']:.0f}:{row['return']:g}" for row in epochs)
            row["curve"] = " ".join(pairs)
        found[key] = row
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found.values())
        told = f"{key[0][:30]} {key[1]} seed {key[2]}: {row.get('tail', status):.1f}"
        minutes = (time.perf_counter() - start) / 60
        print(f"{i}/{len(jobs)} {told}, {seconds:.0f} s; {minutes:.0f} min", flush=True)
    return found


def cartpole(out, seeds):
    """All six at their defaults on CartPole-v1, in turn with the floor and the peer."""
    programs = FLOOR, "sb3_ppo.py", *(path.name for path in SCRIPTS.values())
    jobs = [
        (program, "--zoo" if program == "sb3_ppo.py" else "", seed)
        for seed in seeds[:20]
        for program in programs
    ]
    return measure(out / "cartpole.csv", jobs, keep_curve=True)


def environments(out, seeds):
    """Script 6 with --env and --epochs alone, then 4 and 3; the others on Pendulum-v1."""
    flags = [f"--env {env} --epochs {epochs}" for env, epochs in EPOCHS.items()]
    jobs = [(SCRIPTS[6].name, x, seed) for seed, x in product(seeds[:5], flags)]
    jobs += [
        (SCRIPTS[n].name, x, seed)
        for seed, x, n in product(seeds[:5], flags, (4, 3, 1, 2, 5))
        if n in (4, 3) or "Pendulum-v1" in x
    ]
    return measure(out / "environments.csv", jobs)


def peer(out, seeds):
    """Stable-Baselines3's PPO there, with its own defaults: the runs that peer.csv lists."""
    return measure(out / "peer.csv", list(read(HERE / "peer.csv")))


def others(out, seeds):
    """Script 6 where the defaults do not learn, with flags that do, and in other units."""
    jobs = [(SCRIPTS[6].name, x, seed) for seed, x in product(seeds[:3], OTHERS)]
    return measure(out / "others.csv", jobs)


def break_(out, seeds):
    """Scripts 4 and 6 on CartPole-v1 as --train_pi_iters and --lr grow."""
    lr, iters = (defaults(4)[name] for name in ("lr", "train_pi_iters"))
    jobs = [
        (SCRIPTS[n].name, f"--lr {lr * a:g} --train_pi_iters {iters * b}", seed)
        for seed in seeds[:5]
        for a, b, n in product((1, 2), (1, 2, 4), (4, 6))
    ]
    return measure(out / "break.csv", jobs)


def cuda(out, seeds):
    """Script 6 on the GPU and on one core, episodes of up to 40 steps: seconds per epoch."""
    if not torch.cuda.is_available():
        print("cuda: skipped, for there is no GPU here")
        return
    with (out / "cuda.csv").open("a", newline="") as file:
        for hidden, num_envs in product(
            ("64", "256 256", "1024 1024"), (NUM_ENVS, 256, 4096)
        ):
            flags = f"--hidden_sizes {hidden} --num_envs {num_envs} --max_ep_len 40"
            row = [torch.cuda.get_device_name(), hidden, num_envs]
            for device in ("cuda", "cpu"):
                command = python(
                    SCRIPTS[6].name, f"{flags} --epochs 6 --device {device}", seeds[0]
                )
                first, *_, last = timed(command)[0]
                row.append(f"{(last['seconds'] - first['seconds']) / 5:.2f}")
            csv.writer(file, lineterminator="\n").writerow(row)
            print(*row, flush=True)


SECTIONS = {
    "cartpole": cartpole,
    "environments": environments,
    "peer": peer,
    "break": break_,
    "others": others,
    "cuda": cuda,
}


def main():
    """Read the flags, pin this process and so all its children to one core, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--seeds", type=int, default=20, help="at most so many")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the CSVs")
    parser.add_argument("--core", type=int, help="the core that all programs run on")
    args = parser.parse_args()
    if not set(args.sections) <= SECTIONS.keys():
        parser.error(f"sections: choose from {', '.join(SECTIONS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    # rows of other defaults are of other scripts: never mix them
    today = json.dumps(
        {path.name: defaults(n) for n, path in SCRIPTS.items()}, indent=1
    )
    path = args.out / "defaults.json"
    if path.exists() and path.read_text() != today:
        parser.error(f"the defaults are not those of {path}: remove it and the CSVs")
    path.write_text(today)
    if hasattr(os, "sched_setaffinity"):
        core = max(os.sched_getaffinity(0)) if args.core is None else args.core
        os.sched_setaffinity(0, {core})
    for name in args.sections or SECTIONS:
        SECTIONS[name](args.out, range(0, 100 * args.seeds, 100))


if __name__ == "__main__":
    main()
