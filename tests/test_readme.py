"""The README says nothing that the repository does not hold."""

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest
import readme
import torch
from conftest import ROOT, SCRIPTS, run

TEXT = readme.README.read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = sorted(set(re.findall(r"python [1-6]_\w+\.py[^`|&\n]*", TEXT)))


def snippet(word):
    """Return the one Python block of the README that contains ``word``."""
    found = [code for language, code in FENCES if language == "python" and word in code]
    assert len(found) == 1
    return found[0]


def test_quotes_diffs_and_tables_are_fresh():
    """`python tests/readme.py` would change nothing."""
    assert readme.PART.search(TEXT)
    assert readme.fresh(TEXT) == TEXT


def test_a_stale_part_is_noticed():
    """The check above fails for a diff with one sign changed."""
    stale = TEXT.replace("+    return -(ratio.detach()", "-    return -(ratio.detach()")
    assert stale != TEXT
    assert readme.fresh(stale) != stale


def test_links_lead_somewhere():
    """Relative links name files that exist, and #links headings of the page."""
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    local = [link for link in links if not link.startswith("http")]
    titles = re.findall(r"^#+ (.*)", TEXT, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
    assert local
    for link in local:
        assert link[1:] in slugs if link[0] == "#" else (ROOT / link).exists(), link


def test_named_tests_exist():
    """Every test that the page names is a function in tests/, every file a file."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    assert names
    for name in names:
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`(?:python )?(?:tests/)?(\w+\.py)`", TEXT):
        assert any((ROOT / folder / name).exists() for folder in (".", "tests")), name


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command):
    """Each training command of the page runs, here for one short epoch."""
    _, script, *flags = shlex.split(command)
    number = int(script[0])
    assert SCRIPTS[number].name == script
    extra = {"LunarLander": "Box2D", "InvertedPendulum": "mujoco"}
    for env, package in extra.items():
        if env in command and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    short = ["--epochs", "1", "--num_envs", "2", "--max_ep_len", "5"]
    child = run(number, *flags, *short)
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("epoch:   0")


@pytest.mark.parametrize(
    ("env", "low", "high"),
    [("CartPole-v1", 1, 500), ("Pendulum-v1", -3300, 0), ("FrozenLake-v1", 0, 1)],
)
def test_saved_policy_can_be_loaded_and_watched(tmp_path, env, low, high):
    """The snippet that evaluates a saved policy runs as it stands, on Box actions and on
    Discrete observations too, and prints a return that the environment can give."""
    saved = run(6, "--env", env, "--epochs", 1, "--save", tmp_path / "policy.pt")
    assert saved.returncode == 0
    code = snippet("policy.pt").replace("CartPole-v1", env)
    if env == "FrozenLake-v1":
        line = "env = gym.wrappers.FlattenObservation(env)\n"
        code = code.replace("script =", f"{line}script =")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert low <= float(child.stdout) <= high


def test_log_form_of_the_clip_is_6(scripts):
    """The page's log form of rung 6 has its gradient, to the bit but a zero's sign."""
    logp, logp_old, adv = torch.randn(
        3, 1000, generator=torch.Generator().manual_seed(0)
    )
    names = {"torch": torch, "adv": adv, "clip_ratio": 0.2}
    names["logp"] = logp.requires_grad_()
    names["ratio"] = torch.exp(logp - logp_old)
    exec(snippet("keep ="), names)  # noqa: S102 - the page's own text
    (ours,) = torch.autograd.grad(names["loss"], logp)
    loss = scripts[6].policy_loss(logp, logp_old, adv, 0.2)
    (theirs,) = torch.autograd.grad(loss, logp)
    assert theirs.eq(0).any()
    assert torch.equal(ours, theirs)
