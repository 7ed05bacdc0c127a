"""The pages say nothing that the repository does not hold."""

import re
import shlex

import pytest
import torch

from tests.benchmark import readme
from tests.common import ROOT, SCRIPTS, load

FIRST, BENCHMARK = PAGES = [page.read_text() for page in readme.PAGES]
STORY = FIRST.split("## Questions")[0]
COMMANDS = sorted({*re.findall(r"python [1-6]_\w+\.py[^`|&\n]*", "".join(PAGES))})
on_both = pytest.mark.parametrize("page", [0, 1], ids=["first", "benchmark"])
# what each rung's docstring and section say, and the same once more as code
EQUATIONS = [
    (1, "log pi(a_t|s_t) R(tau)", r"\log \pi(a_t \mid s_t)\, R(\tau)"),
    (2, "log pi(a_t|s_t) R_t", r"R_t = r_t + r_{t+1} + r_{t+2} + \dots"),
    (3, "log pi(a_t|s_t) A_t", r"A_t = R_t - V(s_t)"),
    (4, "ratio_t A_t", r"\frac{\pi(a_t \mid s_t)}{\pi_{old}(a_t \mid s_t)}\, A_t"),
    (5, "detach(ratio_t) log pi(a_t|s_t) A_t", r"\rho\, \nabla \log \pi"),
    (
        6,
        "min(ratio_t A_t, clip(ratio_t, 1 - eps, 1 + eps) A_t)",
        r"\min\big(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\, A_t\big)",
    ),
]


def by_hand(n, logp, weights, logp_old=None):
    """Return script n's loss, the equations above written once more."""
    if n <= 3:
        return -(logp * weights).mean()
    ratio = logp.exp() / logp_old.exp()
    if n == 5:
        return -(ratio.detach() * logp * weights).mean()
    if n == 6:
        return -torch.min(ratio * weights, ratio.clip(0.8, 1.2) * weights).mean()
    return -(ratio * weights).mean()


def snippet(word):
    """Return the one Python block of the pages that contains ``word``."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", "".join(PAGES), re.MULTILINE | re.DOTALL
    )
    (found,) = [code for code in blocks if word in code]
    return found


@on_both
def test_diffs_and_tables_are_fresh(page):
    """`python -m tests.benchmark.readme` would change nothing."""
    assert readme.PART.search(PAGES[page])
    assert readme.fresh(PAGES[page]) == PAGES[page]
    assert "```diff" not in readme.PART.sub("", PAGES[page])


def test_quotes_stand_in_the_scripts():
    """Each line of Python that the story quotes is a line of a script."""
    text = "".join(path.read_text() for path in SCRIPTS.values())
    lines = {line.strip() for line in text.splitlines()}
    quotes = re.findall(r"^```python\n(.*?)^```", STORY, re.MULTILINE | re.DOTALL)
    assert quotes
    assert {line.strip() for quote in quotes for line in quote.splitlines()} <= lines


@pytest.mark.parametrize(("n", "docstring", "page"), EQUATIONS)
def test_equations_are_the_losses(n, docstring, page):
    """The docstring's loss, and the equation of the rung's section, are policy_loss."""
    assert f"loss = -mean of {docstring}\n" in load(n).__doc__
    assert page in STORY.split(f"### {n}. ")[1].split("### ")[0]
    gen = torch.Generator().manual_seed(0)
    logp, logp_old, adv = torch.randn(3, 9, generator=gen).double()
    logp.requires_grad_()
    rest = {4: [logp_old, adv], 5: [logp_old, adv], 6: [logp_old, adv, 0.2]}
    loss = load(n).policy_loss(logp, *rest.get(n, [adv]))
    other = by_hand(n, logp, adv, logp_old)
    slopes = [torch.autograd.grad(x, logp)[0] for x in (loss, other)]
    torch.testing.assert_close((loss, slopes[0]), (other, slopes[1]))


@on_both
def test_links_lead_somewhere(page):
    """Relative links name files that exist, and headings of the page they lead to."""
    links = re.findall(r"\]\(([^)\s]+)\)", PAGES[page])
    local = [link for link in links if not link.startswith("http")]
    assert local
    for link in local:
        file, _, anchor = link.partition("#")
        path = readme.PAGES[page].parent / file if file else readme.PAGES[page]
        assert path.exists(), link
        titles = (
            re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE) if anchor else []
        )
        slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
        assert not anchor or anchor in slugs, link


def test_named_tests_exist():
    """Every test that the pages name is a function in tests/."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", "".join(PAGES)))
    assert names
    assert {name for name in names if f"def {name}(" not in tests} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, command_line, tmp_path, monkeypatch, capsys):
    """Each training command of the pages runs, here for one short epoch."""
    _, script, *flags = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    if "--help" not in flags:
        short = "--epochs", 1, "--num_envs", 2, "--max_ep_len", 5
        command_line(int(script[0]), *flags, *short)
        assert capsys.readouterr().out.startswith("epoch:   0")


def test_a_run_prints_what_the_page_shows(command_line, capsys):
    """Three lines with these fields; the numbers may be another machine's."""
    shown = re.search(r"^```\n(epoch:.*?)^```", FIRST, re.MULTILINE | re.DOTALL)[1]
    command_line(6, "--epochs", 3)
    printed = capsys.readouterr().out.replace("\t", " ")
    fields = [re.sub(r"-?\d+(\.\d+)?", "", x).split() for x in (shown, printed)]
    assert fields[0] == fields[1]
    assert shown.count("\n") == printed.count("\n") == 3


@pytest.mark.parametrize(
    ("env", "low", "high"),
    [("CartPole-v1", 1, 500), ("Pendulum-v1", -2000, 0), ("FrozenLake-v1", 0, 1)],
)
def test_a_saved_policy_is_evaluated(
    scripts, tmp_path, monkeypatch, capsys, env, low, high
):
    """The snippet that evaluates a saved policy runs as it stands, on Box actions and on
    Discrete observations too, and prints a return that the environment can give."""
    scripts[6].train(env_name=env, epochs=1, save=str(tmp_path / "policy.pt"))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    exec(snippet("policy.pt").replace("CartPole-v1", env), {})  # noqa: S102
    assert low <= float(capsys.readouterr().out.splitlines()[-1]) <= high


def test_log_form_of_the_clip_is_6(scripts):
    """The page's log form of rung 6 has its gradient, to the bit but a zero's sign."""
    gen = torch.Generator().manual_seed(0)
    logp, logp_old, adv = torch.randn(3, 1000, generator=gen)
    names = {"torch": torch, "adv": adv, "clip_ratio": 0.2}
    names |= {"logp": logp.requires_grad_(), "ratio": torch.exp(logp - logp_old)}
    exec(snippet("keep ="), names)  # noqa: S102 - the page's own text
    loss = scripts[6].policy_loss(logp, logp_old, adv, 0.2)
    ours, theirs = (torch.autograd.grad(x, logp)[0] for x in (names["loss"], loss))
    assert theirs.eq(0).any()
    assert torch.equal(ours, theirs)
