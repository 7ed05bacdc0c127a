"""The ladder itself: what a diff of two neighbours shows, and what the six files share."""

import ast
import inspect
import re

import pytest
from readme import changes

from tests.benchmark.mutate import MUTATIONS
from tests.common import ROOT, SCRIPTS, defaults, definitions, load, on_all

CAPS = {(1, 2): 10, (2, 3): 45, (3, 4): 28, (4, 6): 10}
FLAGS = ["env", "env_name", "seed", "epochs", "num_envs", "max_ep_len"]
FLAGS += ["hidden_sizes", "lr", "device", "render", "save"]
ADDED = {3: ["gamma", "vf_lr", "train_v_iters"], 4: ["train_pi_iters"]}
ADDED |= {6: ["clip_ratio"]}
LOSS = {1: ["logp", "weights"], 2: ["logp", "weights"], 3: ["logp", "adv"]}
LOSS |= {4: ["logp", "logp_old", "adv"], 5: ["logp", "logp_old", "adv"]}
LOSS |= {6: ["logp", "logp_old", "adv", "clip_ratio"]}


@on_all
def test_help(n, command_line, capsys, monkeypatch):
    """--help opens with the script's idea; each flag of the contract, and no other, has
    its meaning and the default of train(), whose keywords are the same."""
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        command_line(n, "--help")
    _, idea, options = capsys.readouterr().out.split("\n\n")
    assert idea == load(n).__doc__.splitlines()[0]
    told = re.findall(
        r"^  (--.*?)\s{2,}(\w.*) \(default: (.*)\)$", options, re.MULTILINE
    )
    flags = [re.findall(r"--(\w+)", names) for names, _, _ in told]
    assert {flag for names in flags for flag in names} == {*FLAGS}.union(
        *(ADDED[m] for m in ADDED if m <= n)
    )
    shown = {names[-1]: default for names, (_, _, default) in zip(flags, told)}
    assert shown == {name: str(default) for name, default in defaults(n).items()}


@pytest.mark.parametrize("pair", CAPS, ids=str)
def test_each_rung_changes_few_lines_of_code(pair):
    """Removed and added lines of code between neighbours stay within the design's cap."""
    assert 0 < len(changes(*pair)) <= CAPS[pair]


def test_4_to_5_replaces_one_line():
    """The log comes back in a single line of code."""
    assert [line[0] for line in changes(4, 5)] == ["-", "+"]


@on_all
def test_imports(n):
    """A script needs torch, gymnasium, numpy and Python, and none of the other scripts."""
    source = SCRIPTS[n].read_text()
    roots = set(re.findall(r"^ *(?:import|from) (\w+)", source, re.MULTILINE))
    roots -= {"argparse", "inspect", "os"}
    assert roots == {"torch", "gymnasium", "numpy"}
    # a name that starts with a digit can only be imported by one of these
    assert not re.search(r"importlib|runpy|__import__|exec\(|eval\(", source)


def test_shared_flags_have_one_default():
    """A flag that several scripts have means the same number in all of them; those that
    the contract fixes, most of them Spinning Up's, are as it says."""
    shared = {}
    for n in SCRIPTS:
        for flag, default in defaults(n).items():
            shared.setdefault(flag, set()).add(default)
    assert {flag: x for flag, x in shared.items() if len(x) > 1} == {}
    fixed = {"env_name": {"CartPole-v1"}, "max_ep_len": {1000}, "device": {"cpu"}}
    assert shared == shared | fixed | {"gamma": {0.99}}


@on_all
def test_policy_loss_signature(n, scripts):
    """policy_loss takes the contract's arguments under the contract's names."""
    assert [*inspect.signature(scripts[n].policy_loss).parameters] == LOSS[n]


@pytest.mark.parametrize("name", ["mlp", "Policy", "make_envs", "watch"])
def test_shared_definitions_are_copies(name):
    """Networks and environments are the same to the letter in all six."""
    assert len({definitions(n)[name] for n in SCRIPTS}) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda x: f"{x[0]} {x[1]}")
def test_a_mutation_is_up_to_date(mutation):
    """What `mutate.py` replaces is in the script once, and what it makes is Python."""
    n, _, old, new, test = mutation
    assert (ROOT / "tests" / f"test_{test}.py").exists()
    source = SCRIPTS[n].read_text()
    assert source.count(old) == 1
    assert ast.dump(ast.parse(source.replace(old, new))) != ast.dump(ast.parse(source))
