"""The ladder itself: what a diff of two neighbours shows, and what the six files share."""

import re

import pytest

from tests.benchmark.readme import changes
from tests.common import SCRIPTS, defaults, definitions, on_all

CAPS = {(1, 2): 10, (2, 3): 45, (3, 4): 28, (4, 5): 2, (4, 6): 10}
NEW = {(1, 2): {"train"}, (2, 3): {"rollout", "reward_to_go", "policy_loss", "train"}}
NEW |= {(3, 4): {"policy_loss", "train"}, (4, 5): {"policy_loss"}}
NEW |= {(5, 6): {"policy_loss", "train"}}
FLAGS = {1: "env env_name seed epochs num_envs max_ep_len hidden_sizes lr device"}
FLAGS[1] += " render save"
FLAGS |= {3: "gamma vf_lr train_v_iters", 4: "train_pi_iters", 6: "clip_ratio"}


@on_all
def test_help(n, command_line, capsys, monkeypatch):
    """--help has each flag of the contract and no other, with the default of train(), whose
    keywords are the same."""
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        command_line(n, "--help")
    told = capsys.readouterr().out
    flags = {flag for m in FLAGS if m <= n for flag in FLAGS[m].split()}
    assert set(re.findall(r"--(\w+)", told)) == flags | {"help"}
    assert defaults(n).keys() == flags - {"env"}
    entries = told.split("\n  -")
    for name, default in defaults(n).items():
        shown = rf"default: {re.escape(str(default))}(?!\w)" if default else ""
        assert any(re.search(rf"-{name}\b.*{shown}", x, re.DOTALL) for x in entries)


@pytest.mark.parametrize("pair", CAPS, ids=str)
def test_each_rung_changes_few_lines_of_code(pair):
    """Removed and added lines of code between neighbours stay within the design's cap: from
    4 to 5 a single line is replaced."""
    assert 0 < len(changes(*pair)) <= CAPS[pair]


@pytest.mark.parametrize("pair", NEW, ids=str)
def test_shared_definitions_are_copies(pair):
    """A function or class of two neighbours is the same to the letter, unless it is what
    the rung changes."""
    a, b = map(definitions, pair)
    assert {name for name in a.keys() & b.keys() if a[name] != b[name]} <= NEW[pair]


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
