"""The README says nothing that the repository does not hold."""

import importlib.util
import re
import shlex

import pytest
import torch

from tests.benchmark import readme
from tests.common import ROOT, SCRIPTS, on_all

FIRST, EVIDENCE = PAGES = [page.read_text() for page in readme.PAGES]
TEXT = FIRST + EVIDENCE
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
on_both = pytest.mark.parametrize("page", [0, 1], ids=["first", "benchmark"])
# regular expressions: the signs of the page and of the docstrings, in this order, as the
# names and operators that compute() knows
SIGNS = {
    r"\\[bB]ig|\\,|\\ |\\sum_t \\nabla ": "",
    r"\\mathrm\{clip\}": "clip",
    r"\\pi_\{old\}": "pi_old",
    r"\\pi_\\theta": "pi",
    r"\\(pi|tau|log|min|mid|epsilon|gamma)\b": r"\1",
    r"\\rho": "ratio",
    r" mid ": "|",
    r"\\frac\{(.*?)\}\{(.*?)\}": r"(\1) / (\2)",
    r"log pi\(a_t\|s_t\)": "logp",
    r"(pi|pi_old)\(a_t\|s_t\)": r"\1",
    r"R\(tau\)": "ret",
    r"V\(s_t\)": "value",
    r"R_\{t ?\+ ?1\}": "ret[1:]",
    r"\b(r|R|A|ratio)_t\b": r"\1",
    r"(?<=[\w)]) +(?=[a-zA-Z(])": " * ",
}
COMMANDS = {*re.findall(r"python [1-6]_\w+\.py[^`|&\n]*", TEXT)}
COMMANDS = sorted(command for command in COMMANDS if "--help" not in command)


def snippet(word):
    """Return the one Python block of the README that contains ``word``."""
    found = [code for language, code in FENCES if language == "python" and word in code]
    assert len(found) == 1
    return found[0]


def compute(formula, names):
    """Return the value of a formula of the page or of a docstring."""
    for sign, name in SIGNS.items():
        formula = re.sub(sign, name, formula)
    known = {"min": torch.min, "clip": torch.clamp, "detach": torch.Tensor.detach}
    return eval(formula, known | names)


@on_both
def test_quotes_diffs_and_tables_are_fresh(page):
    """`python -m tests.benchmark.readme` would change nothing."""
    assert readme.PART.search(PAGES[page])
    assert readme.fresh(PAGES[page]) == PAGES[page]


def test_no_part_is_missing():
    """Every kind of part that readme.py writes is there, each rung's diff, and no diff else."""
    parts = [(match[2] + match[3]).split() for match in readme.PART.finditer(TEXT)]
    assert [x for x in parts if x[0] == "diff"] == [
        ["diff", *pair] for pair in ("12", "23", "34", "45", "46")
    ]
    assert {name for name, *_ in parts} == readme.PARTS
    assert "```diff" not in readme.PART.sub("", TEXT)


def test_the_first_page_is_short():
    """3,000 words at most in all, 1,300 of them prose to the end of rung 6."""
    assert len(FIRST.split()) <= 3000
    story = readme.PART.sub("", FIRST.split("## Questions")[0])
    story = re.sub(
        r"^```.*?^```|\$\$.*?\$\$", "", story, flags=re.MULTILINE | re.DOTALL
    )
    assert len(story.split()) <= 1300


def test_quotes_within_a_line_are_fresh():
    """What the page quotes within a line of text as an update begins a line of a script."""
    lines = {line.strip() for n in SCRIPTS for line in readme.code_lines(n)}
    quoted = re.findall(r"`([^`\n]+ \+= [^`\n]+)`", TEXT)
    assert quoted
    for line in quoted:
        assert any(code.startswith(line) for code in lines), line


def slugs(text):
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]


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
        assert not anchor or anchor in slugs(path.read_text()), link


def test_named_tests_exist():
    """Every test that the page names is a function in tests/, every file a file."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    assert names
    for name in names:
        assert f"def {name}(" in tests, name
    for name in re.findall(r"`(?:python )?(tests/\S+?\.py)\b", TEXT):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, command_line, tmp_path, monkeypatch, capsys):
    """Each training command of the page runs, here for one short epoch."""
    _, script, *flags = shlex.split(command)
    number = int(script[0])
    assert SCRIPTS[number].name == script
    extra = {"LunarLander": "Box2D", "InvertedPendulum": "mujoco"}
    for env, package in extra.items():
        if env in command and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    command_line(number, *flags, "--epochs", 1, "--num_envs", 2, "--max_ep_len", 5)
    assert capsys.readouterr().out.startswith("epoch:   0")


@pytest.mark.parametrize(
    ("env", "low", "high"),
    [("CartPole-v1", 1, 500), ("Pendulum-v1", -3300, 0), ("FrozenLake-v1", 0, 1)],
)
def test_saved_policy_can_be_loaded_and_watched(
    scripts, tmp_path, monkeypatch, capsys, env, low, high
):
    """The snippet that evaluates a saved policy runs as it stands, on Box actions and on
    Discrete observations too, and prints a return that the environment can give."""
    scripts[6].train(env, epochs=1, save=str(tmp_path / "policy.pt"))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    exec(snippet("policy.pt").replace("CartPole-v1", env), {})  # noqa: S102
    assert low <= float(capsys.readouterr().out) <= high


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


@on_all
def test_equations_are_the_losses(scripts, n):
    """The docstring's loss, and the page's where it shows one, is policy_loss, slope and all."""
    batch = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).double()
    logp, old, ret, value = (x.clone().requires_grad_() for x in batch)
    adv = ret - value
    names = {"logp": logp, "ret": ret, "R": ret, "A": adv, "value": value}
    names |= {"pi": logp.exp(), "pi_old": old.exp(), "ratio": (logp - old).exp()}
    names |= {"epsilon": 0.2, "clip_ratio": 0.2}
    lines = ",   ".join(re.findall(r"^    (.*)", scripts[n].__doc__, re.MULTILINE))
    (_, formula), *meanings = (line.split(" = ") for line in lines.split(",   "))
    formula = formula.removeprefix("-mean of ")
    for name, meaning in meanings:
        if name in ("ratio_t", "A_t", "eps"):
            names[name.removesuffix("_t")] = compute(meaning, names)
    args = {1: [ret], 2: [ret], 3: [adv], 6: [old, adv, 0.2]}.get(n, [old, adv])
    formulas = [formula]
    if n in (1, 4, 6):
        section = FIRST.split(f"### {n}. ")[1]
        expectation = r"\\mathbb\{E\}(?:_\{\S*( \S+ \S+)?\})?\\[bB]ig\[(.*)\\[bB]ig\]"
        (formula,) = re.findall(rf"\$\$.* = {expectation}\$\$", section.split("###")[0])
        formulas.append(formula[1])
    losses = [-compute(formula, names).mean() for formula in formulas]
    losses.append(scripts[n].policy_loss(logp, *args))
    slopes = [torch.autograd.grad(x, logp, retain_graph=True)[0] for x in losses]
    for loss, slope in zip(losses, slopes, strict=True):
        torch.testing.assert_close((loss, slope), (losses[-1], slopes[-1]))


def test_equations_are_the_rewards_to_go(scripts):
    """The page's sum in rung 2, and rung 3's recursion in docstring and page, are the code."""
    rew = torch.randn(9, 1, generator=torch.Generator().manual_seed(0)).double()
    (sign,) = re.findall(r"\$\$R_t = \\sum_\{t' (\S+) t\} r_\{t'\}\$\$", TEXT)
    counts = {r"\ge": torch.triu, r"\le": torch.tril}[sign](torch.ones(9, 9).double())
    torch.testing.assert_close(counts @ rew, scripts[2].reward_to_go(rew))
    page = re.search(r"discounts: \$R_t = (.*?)\$", TEXT)[1]
    two, three = (
        re.search(r"R_t = (r_t.*)", scripts[n].__doc__)[1].strip() for n in (2, 3)
    )
    undiscounted, ret = scripts[2].reward_to_go(rew), scripts[3].reward_to_go(rew, 0.9)
    for formula, true in ((two, undiscounted), (three, ret), (page, ret)):
        names = {"r": rew[:-1], "ret": true, "gamma": 0.9}
        torch.testing.assert_close(compute(formula, names), true[:-1])
