"""Measure the six scripts on one core: how soon, how steadily, at what cost they learn.

    python tests/benchmark.py                             everything, 20 seeds: hours
    python tests/benchmark.py --only curves --peer sb3    with Stable-Baselines3 in turn
    python tests/benchmark.py --only limit,imports --seeds 2 --out try

Programs that are compared take turns, seed by seed, so that noise hits all alike.
Tables give medians (and the range). Seconds differ from machine to machine, so read
their ratio to the time of `python -c "import torch, gymnasium"`. Raw rows go to --out
as CSV; seconds count from the start of the process. Nothing here asserts a time.
"""

import argparse
import copy
import csv
import importlib.util
import inspect
import json
import math
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import mean, median

import gymnasium as gym
import torch
from conftest import ROOT, SCRIPTS, defaults, groups, load, rows

BARE, SB3 = "import torch, gymnasium", "sb3"
SOLVED = 475  # mean return of the last 100 training episodes
# a line each: script, environment, flags that learn it
ENVIRONMENTS = """
3 CartPole-v1
6 CartPole-v1
3 Acrobot-v1 --num_envs 32 --hidden_sizes 64 --epochs 60 --lr 0.01 --vf_lr 0.01 --train_v_iters 8
6 Acrobot-v1 --num_envs 32 --hidden_sizes 64 64 --epochs 140 --gamma 0.98 --lr 0.003 --vf_lr 0.01 --train_pi_iters 10 --train_v_iters 20
3 Pendulum-v1 --num_envs 32 --hidden_sizes 64 --epochs 300 --gamma 0.97 --lr 0.01 --vf_lr 0.05 --train_v_iters 20
6 Pendulum-v1 --num_envs 16 --hidden_sizes 64 --epochs 160 --gamma 0.9 --lr 0.003 --vf_lr 0.01 --train_pi_iters 20 --train_v_iters 20
3 FrozenLake-v1 --num_envs 1024 --hidden_sizes 64 --epochs 200 --gamma 1 --lr 0.005 --vf_lr 0.01 --train_v_iters 20
6 FrozenLake-v1 --num_envs 1024 --hidden_sizes 64 --epochs 200 --gamma 1 --lr 0.003 --vf_lr 0.01 --train_pi_iters 2 --train_v_iters 20
3 InvertedPendulum-v5 --num_envs 16 --hidden_sizes 64 --epochs 60 --lr 0.02 --vf_lr 0.03 --train_v_iters 8
6 InvertedPendulum-v5 --num_envs 16 --hidden_sizes 64 --epochs 40 --lr 0.003 --vf_lr 0.03 --train_pi_iters 10 --train_v_iters 10
3 LunarLander-v3 --num_envs 32 --hidden_sizes 64 64 --epochs 300 --max_ep_len 500 --lr 0.005 --vf_lr 0.01 --train_v_iters 20
6 LunarLander-v3 --num_envs 16 --hidden_sizes 64 64 --epochs 120 --lr 0.003 --vf_lr 0.01 --train_pi_iters 30 --train_v_iters 30
"""


def script(n, **flags):
    """Return Python's arguments to run script n."""
    return [SCRIPTS[n], *(f"--{name}={x}" for name, x in flags.items())]


def timed(arguments):
    """Run Python. Return the printed epochs, each with the seconds since the process
    began, then the seconds until it ended, and its exit status."""
    start, epochs, line = time.perf_counter(), [], ""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, **both) as child:
        for line in child.stdout:
            seconds = time.perf_counter() - start
            epochs += [{**row, "seconds": seconds} for row in rows(line)]
    if child.returncode:
        what = " ".join(map(str, arguments))[:200]
        print(f"\n{what} failed: {line.strip()}", file=sys.stderr)
    return epochs, time.perf_counter() - start, child.returncode


def turns(section, jobs):
    """Run the jobs, {key: arguments}, in their order; yield (key, *timed) of each."""
    start = time.perf_counter()
    for i, (key, arguments) in enumerate(jobs.items()):
        bar = ("#" * (30 * i // len(jobs))).ljust(30, ".")
        spent, what = time.perf_counter() - start, " ".join(map(str, key))
        line = f"{section} [{bar}] {i}/{len(jobs)}, {spent:.0f} s, {what}"
        print(f"\r{line[:99]:99}", end="", file=sys.stderr, flush=True)
        yield key, *timed(arguments)
    print(f"\r{'':99}\r", end="", file=sys.stderr, flush=True)


def write(path, raw):
    """Write rows, dicts, as CSV."""
    columns = dict.fromkeys(key for row in raw for key in row)
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, columns, lineterminator="\n")
        out.writeheader()
        for row in raw:
            floats = {k: f"{x:.7g}" for k, x in row.items() if isinstance(x, float)}
            out.writerow(row | floats)


def record(folder, section):
    """Note in defaults.json with which default flags a section was measured."""
    path = folder / "defaults.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | {section: defaults(6)}, indent=1) + "\n")


def spread(values, digits=0):
    """Return 'median (min-max)' of all but NaN; infinity reads 'never'."""
    values = [x for x in values if not math.isnan(x)]
    three = [f(values) for f in (median, min, max)] if values else []
    three = ["never" if x == math.inf else f"{x:.{digits}f}" for x in three]
    return "{} ({}-{})".format(*three) if three else ""


def table(title, head, body):
    """Print a table in aligned columns."""
    body = [[str(cell) for cell in row] for row in (head.split(", "), *body)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    print(f"\n{title}\n")
    for first, *cells in body:
        cells = [x.rjust(w) for x, w in zip(cells, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip(), flush=True)


def summary(epochs, window):
    """Return what a run came to: epoch, steps and seconds when the last `window` epochs
    averaged SOLVED (infinity if never, so that it improves no median), the lowest such
    average from then on (`low`), and the mean return of the last 10 epochs (`tail`)."""
    rets = [row["return"] for row in epochs]
    means = [mean(rets[i - window : i]) for i in range(window, len(rets) + 1)]
    at = next((i for i, x in enumerate(means) if x >= SOLVED), len(means))
    row = epochs[at + window - 1] if at < len(means) else {}
    when = {key: row.get(key, math.inf) for key in ("epoch", "steps", "seconds")}
    tail, low = mean(rets[-10:] or [math.nan]), min(means[at:], default=math.nan)
    return when | {"tail": tail, "low": low}


def curves(seeds, args):
    """How soon and how steadily the scripts solve CartPole-v1 with their default flags.

    curves.csv: every printed epoch; of the peer, only the moment at which it solved.
    runs.csv: each run's summary, the seconds of its whole process, its exit status.
    """
    windows = {p.name: -(-100 // defaults(n)["num_envs"]) for n, p in SCRIPTS.items()}
    child, jobs, raw, runs = inspect.getsource(sb3_child), {}, [], []
    for seed in range(seeds):
        jobs[BARE, seed] = ["-c", BARE]
        if args.peer:
            jobs[SB3, seed] = ["-c", f"{child}\nsb3_child({seed}, {SOLVED})"]
        jobs |= {(SCRIPTS[n].name, seed): script(n, seed=seed) for n in SCRIPTS}
    for (name, seed), epochs, seconds, status in turns("curves", jobs):
        who = {"script": name, "seed": seed}
        raw += [who | row for row in epochs]
        run = who | summary(epochs, windows.get(name, 1))
        runs.append(run | {"process": seconds, "status": status})
    write(args.out / "curves.csv", raw)
    write(args.out / "runs.csv", runs)
    programs = {name: run for (name,), run in groups(runs, "script").items()}
    bare, body = median(programs.pop(BARE)["process"]), []
    for name, run in programs.items():
        seconds = median(run["seconds"])
        count = seeds - run["epoch"].count(math.inf)
        when = spread(run["epoch"]), spread(run["steps"]), spread(run["seconds"], 1)
        ratio = f"{median(programs[SB3]['seconds']) / seconds:.2f}" if args.peer else ""
        after = spread(run["tail"], 1), run["tail"].count(500), spread(run["low"], 1)
        after = ("", "", "") if name == SB3 else after  # it stopped when it had solved
        body.append([name, count, *when, f"{seconds / bare:.2f}", ratio, *after])
    head = "script, solved, epochs, steps, seconds, / import, sb3's / its"
    head += ", last 10 epochs, at 500, falls back to"
    table(f"CartPole-v1, {seeds} seeds; {BARE}: {bare:.2f} s", head, body)


def sb3_child(seed, goal):
    """Train Stable-Baselines3's PPO on CartPole-v1 with rl-zoo's settings; once the
    last 100 episodes average `goal`, print a line and stop. This runs as a program of
    its own, so that it pays for its own imports and for no others."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Stop(BaseCallback):
        rets = ()

        def _on_step(self):
            infos = [x for x in self.locals["infos"] if "episode" in x]
            self.rets = (*self.rets, *(x["episode"]["r"] for x in infos))[-100:]
            ret, steps = sum(self.rets) / 100, self.num_timesteps
            if len(self.rets) < 100 or ret < goal:
                return True
            print(f"epoch: {steps // 256} \t return: {ret} \t steps: {steps}")
            return False

    sizes = {"n_steps": 32, "batch_size": 256, "n_epochs": 20}
    factors = {"gae_lambda": 0.8, "gamma": 0.98, "ent_coef": 0.0}
    falling = {"learning_rate": lambda x: 0.001 * x, "clip_range": lambda x: 0.2 * x}
    envs = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
    settings = sizes | factors | falling | {"seed": seed, "device": "cpu"}
    PPO("MlpPolicy", envs, **settings).learn(100_000, callback=Stop())


def limit(seeds, args):
    """How close an epoch of scripts 3 to 6 is to the calls that it cannot do without.

    limit.csv: for each of the last 10 of 40 epochs, the seconds of training (`real`)
    and of the bare calls (`bare`), made right after it in the same process.
    """
    child, jobs, raw = "import sys; sys.path[0] = 'tests'; import benchmark; ", {}, []
    for seed, n in product(range(seeds), (3, 4, 5, 6)):
        source = f"{child}benchmark.limit_child({n}, {seed})"
        jobs[SCRIPTS[n].name, seed] = ["-c", source]
    for (name, seed), epochs, *_ in turns("limit", jobs):
        who = {"script": name, "seed": seed}
        raw += [{**who, **row, "ratio": row["real"] / row["bare"]} for row in epochs]
    write(args.out / "limit.csv", raw)
    body = []
    for (name,), x in groups(raw, "script").items():
        times = (f"{1000 * median(x[key]):.1f}" for key in ("real", "bare"))
        body.append([name, spread(x["steps"]), *times, spread(x["ratio"], 2)])
    head = "script, steps, an epoch (ms), its bare calls (ms), ratio"
    table("An epoch of CartPole-v1 at the end of training", head, body)


def limit_child(n, seed):
    """Train for 40 epochs; print the seconds of the last 10 and of their bare calls."""
    module, flags, played, ends = load(n), defaults(n), {}, [time.perf_counter()]
    play = module.rollout

    def rollout(envs, policy, *rest):
        batch = play(envs, policy, *rest)
        played.update(policy=policy, mask=batch[3])
        return batch

    def tick(_, end="\n", flush=False):
        """Stand in for the script's print, whose last call ends an epoch."""
        real = time.perf_counter() - ends[-1]
        if end == "\n":
            if len(ends) > 30:
                with torch.random.fork_rng():  # the training goes on as it would have
                    bare = bare_calls(module, flags, **played)
                line = f"epoch: {len(ends)} \t steps: {played['mask'].numel()}"
                print(f"{line} \t real: {real} \t bare: {bare}", flush=True)
            ends.append(time.perf_counter())

    module.rollout, module.print = rollout, tick
    module.train(epochs=40, seed=seed)


def bare_calls(module, flags, policy, mask):
    """Return the seconds that nothing but an epoch's calls take, in its shapes: forward
    pass, sample and step of all environments for each row of the mask, then optimizer
    steps of the policy and of V on as many rows as the mask has true elements."""
    size = int(mask.sum())
    envs = gym.make_vec(flags["env_name"], mask.shape[1])
    obs = envs.reset(seed=0)[0]
    student, value = copy.deepcopy(policy), module.mlp(4, *flags["hidden_sizes"], 1)
    pi_optimizer = module.Adam(student.parameters(), flags["lr"])
    v_optimizer = module.Adam(value.parameters(), flags["vf_lr"])
    batch_obs, adv = torch.randn(size, 4), torch.randn(size)
    batch_act = policy(batch_obs).sample()
    start = time.perf_counter()
    with torch.no_grad():
        for _ in mask:
            act = policy(torch.as_tensor(obs)).sample().numpy()
            obs = envs.step(act)[0]
    for _ in range(flags.get("train_pi_iters", 1)):
        student.zero_grad()
        (student(batch_obs).log_prob(batch_act) * adv).mean().backward()
        pi_optimizer.step()
    for _ in range(flags["train_v_iters"]):
        value.zero_grad()
        ((value(batch_obs).flatten() - adv) ** 2).mean().backward()
        v_optimizer.step()
    return time.perf_counter() - start


def scale(seeds, args):
    """Environment steps per second, updates included, against --num_envs, script 6.

    scale.csv: for each run that rate and the share of steps that came after the end of
    an episode. The first epoch counts only for the share: it also starts things up.
    """
    jobs, raw = {}, []
    for seed, env, e in product(range(seeds), ("CartPole-v1", "Acrobot-v1"), range(6)):
        epochs = 20 if env == "CartPole-v1" else 3  # Acrobot has no vectorised version
        flags = {"env": env, "num_envs": 4**e, "epochs": epochs, "seed": seed}
        jobs[env, 4**e, seed] = script(6, **flags)
    for (env, n, seed), epochs, _, status in turns("scale", jobs):
        if status:
            continue  # timed() has told
        first, last = epochs[0], epochs[-1]
        rate = (last["steps"] - first["steps"]) / (last["seconds"] - first["seconds"])
        lost = 1 - sum(row["ep_len"] * n for row in epochs) / last["steps"]
        run = {"env": env, "num_envs": n, "seed": seed, "rate": rate, "discarded": lost}
        raw.append(run)
    write(args.out / "scale.csv", raw)
    body = []
    for key, x in groups(raw, "env", "num_envs").items():
        body.append([*key, spread(x["rate"]), f"{median(x['discarded']):.1%}"])
    head = "environment, num_envs, steps per second, discarded"
    table("Script 6, updates included", head, body)


def imports(seeds, args):
    """What a process costs before it learns; imports.csv: seconds of whole processes.

    The two Adams differ in what the wrappers of torch's import when first called.
    """
    start = f"{BARE}; x = torch.ones(1, requires_grad=True); x.sum().backward(); "
    ours = f"from importlib import import_module as m; m('{SCRIPTS[6].stem}').Adam"
    programs = {
        BARE: ["-c", BARE],
        "and a step of the scripts' Adam": ["-c", f"{start}{ours}([x]).step()"],
        "and a step of torch's Adam": ["-c", f"{start}torch.optim.Adam([x]).step()"],
        f"{SCRIPTS[6].name} --epochs 1": script(6, epochs=1),
    }
    jobs = {(name, i): programs[name] for i in range(seeds) for name in programs}
    raw = []
    for (name, i), _, seconds, _ in turns("imports", jobs):
        raw.append({"program": name, "turn": i, "seconds": seconds})
    write(args.out / "imports.csv", raw)
    times = {name: x["seconds"] for (name,), x in groups(raw, "program").items()}
    bare = median(times[BARE])
    body = [[k, spread(x, 2), f"{median(x) / bare:.2f}"] for k, x in times.items()]
    table("Whole processes", "program, seconds, / import", body)


def break_(seeds, args):
    """How large a policy step scripts 4 and 6 bear: --lr and --train_pi_iters grow.

    break.csv: the summary of each run, without its seconds, and its exit status. A run
    that diverged has failed: it never solved, and its tail is 0.
    """
    usual = defaults(4)
    lrs = usual["lr"], 2 * usual["lr"]
    counts = usual["train_pi_iters"], 10, 20, 40
    names, jobs, raw = ("script", "lr", "train_pi_iters", "seed"), {}, []
    for seed, lr, iters, n in product(range(seeds), lrs, counts, (4, 6)):
        flags = dict(zip(names[1:], (lr, iters, seed), strict=True))
        jobs[SCRIPTS[n].name, lr, iters, seed] = script(n, **flags)
    for key, epochs, _, status in turns("break", jobs):
        run = summary([] if status else epochs, -(-100 // usual["num_envs"]))
        del run["seconds"]
        run["tail"] = 0.0 if status else run["tail"]
        raw.append(dict(zip(names, key, strict=True)) | run | {"status": status})
    write(args.out / "break.csv", raw)
    body = []
    for key, x in sorted(groups(raw, "lr", "train_pi_iters", "script").items()):
        failed = seeds - x["status"].count(0) or ""
        count = seeds - x["epoch"].count(math.inf)
        body.append([key[2], *key[:2], spread(x["tail"], 1), count, failed])
    head = "script, lr, train_pi_iters, last 10 epochs, solved, failed"
    table(f"The policy step grows, {seeds} seeds", head, body)


def command(line):
    """Return a line of ENVIRONMENTS as what one types."""
    n, *words = line.split()
    return " ".join(["python", SCRIPTS[int(n)].name, "--env", *words])


def environments(seeds, args):
    """What the settings in ENVIRONMENTS reach; environments.csv: for each run the mean
    return of its last 10 epochs (`tail`), and its steps and seconds in all."""
    jobs, raw = {}, []
    for seed, line in product(range(seeds), ENVIRONMENTS.strip().splitlines()):
        jobs[command(line), seed] = [*command(line).split()[1:], f"--seed={seed}"]
    for (typed, seed), epochs, seconds, status in turns("environments", jobs):
        run = {"command": typed, "seed": seed, "tail": math.nan, "steps": math.nan}
        if not status:  # what a failed run reached says nothing
            run |= {"tail": summary(epochs, 1)["tail"], "steps": epochs[-1]["steps"]}
        raw.append(run | {"seconds": seconds, "status": status})
    write(args.out / "environments.csv", raw)
    body = []
    for (typed,), x in groups(raw, "command").items():
        took = spread(x["steps"]), spread(x["seconds"])
        body.append([typed, spread(x["tail"], 2), *took])
    head = "command, last 10 epochs, steps, seconds"
    table(f"Other environments, {seeds} seeds", head, body)


def main():
    """Read the flags, pin this process and so all its children to one core, measure."""
    names = ("curves", "limit", "scale", "imports", "break", "environments")
    most = {"limit": 5, "scale": 3, "break": 5, "environments": 5}  # enough for these
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help=f"at most, of {most}")
    parser.add_argument("--only", default=",".join(names), help="some of %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "figures")
    parser.add_argument("--peer", choices=[SB3], help="timed in turn in curves")
    args = parser.parse_args()
    only = args.only.split(",")
    if args.seeds < 1 or not set(only) <= set(names):
        parser.error(f"--seeds from 1 on; --only from {','.join(names)}")
    if args.peer and importlib.util.find_spec("stable_baselines3") is None:
        parser.error("--peer sb3 needs its package: pip install stable-baselines3")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = "1"
    args.out.mkdir(parents=True, exist_ok=True)
    timed(["-c", BARE])  # the first import reads the disk, which is nobody's time
    sections = curves, limit, scale, imports, break_, environments
    sections = dict(zip(names, sections, strict=True))
    for name in only:
        sections[name](min(args.seeds, most.get(name, args.seeds)), args)
        record(args.out, name)


if __name__ == "__main__":
    main()
