"""The pages say nothing that the repository does not hold."""

import json
import re
import shlex

import pytest
import torch
from torch.distributions import Categorical

from tests.benchmark import measure, readme
from tests.common import ROOT, SCRIPTS, defaults, load

FIRST, BENCHMARK = PAGES = [page.read_text() for page in readme.PAGES]
STORY = FIRST.split("## Questions")[0]
COMMANDS = re.findall(r"python [1-6]_\w+\.py(?! --help)[^`|&\n]*", "".join(PAGES))
on_both = pytest.mark.parametrize("page", [0, 1], ids=["first", "benchmark"])
# what each rung's docstring and section say
EQUATIONS = [
    (1, "log pi(a_t|s_t) R(tau)", r"\log \pi(a_t \mid s_t)\, R(\tau)"),
    (2, "log pi(a_t|s_t) R_t", r"R_t = r_t + r_{t+1} + r_{t+2} + \dots"),
    (3, "log pi(a_t|s_t) A_t", r"A_t = R_t - V(s_t)"),
    (4, "ratio_t A_t", r"\frac{\pi(a_t \mid s_t)}{\pi_{old}(a_t \mid s_t)}\, A_t"),
    (5, "detach(ratio_t) log pi(a_t|s_t) A_t", r"\rho\, \nabla \log \pi"),
    (
        6,
        "min(ratio_t A_t, clip(ratio_t, 1 - eps, 1 + eps) A_t)",
        r"\min\big(\rho_t A_t",
    ),
]


@on_both
def test_diffs_and_tables_are_fresh(page):
    """`python -m tests.benchmark.readme` would change nothing."""
    assert readme.PART.search(PAGES[page])
    assert readme.fresh(PAGES[page]) == PAGES[page]
    assert "```diff" not in readme.PART.sub("", PAGES[page])


def test_measured_with_the_defaults_of_today():
    """A changed default makes the figures those of other scripts: measure them again."""
    today = {path.name: defaults(n) for n, path in SCRIPTS.items()}
    measured = json.loads((measure.HERE / "defaults.json").read_text())
    assert measured == json.loads(json.dumps(today))


def test_quotes_stand_in_the_scripts():
    """Each line of Python that the story quotes is a line of a script."""
    text = "".join(path.read_text() for path in SCRIPTS.values())
    lines = {line.strip() for line in text.splitlines()}
    quotes = re.findall(r"^```python\n(.*?)^```", STORY, re.MULTILINE | re.DOTALL)
    assert quotes
    assert {line.strip() for quote in quotes for line in quote.splitlines()} <= lines


@pytest.mark.parametrize(("n", "docstring", "page"), EQUATIONS)
def test_docstring_and_page_have_the_equation(n, docstring, page):
    """That of the rung, which test_losses.py holds to the code."""
    assert f"loss = -mean of {docstring}\n" in load(n).__doc__
    assert page in STORY.split(f"### {n}. ")[1].split("### ")[0]


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


@pytest.mark.parametrize("command", sorted({*COMMANDS}))
def test_commands_run(command, command_line, tmp_path, monkeypatch, capsys):
    """Each training command of the pages runs, here for one short epoch; one of them in the
    environment that the page shows."""
    _, script, *flags = shlex.split(command)
    (tmp_path / "corridor.py").write_text(readme.snippet("gym.register"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
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


@pytest.mark.parametrize("act", ["sample()", "mode"])
@pytest.mark.parametrize(
    ("env", "low", "high"),
    [("CartPole-v1", 1, 500), ("Pendulum-v1", -2000, 0), ("CliffWalking-v1", -1e5, 0)],
)
def test_a_saved_policy_is_evaluated(
    scripts, tmp_path, monkeypatch, capsys, env, low, high, act
):
    """The snippet that evaluates a saved policy runs as it stands, on Box actions, on
    Discrete observations and without a time limit, too, drawing actions or taking the
    likeliest, and prints a return that the environment can give."""
    flags = {"epochs": 1, "num_envs": 2, "max_ep_len": 200}
    scripts[6].train(env_name=env, **flags, save=str(tmp_path / "policy.pt"))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    code = readme.snippet("policy.pt").replace("CartPole-v1", env)
    assert "dist.sample()" in code
    exec(code.replace("dist.sample()", f"dist.{act}"), {})  # noqa: S102
    assert low <= float(capsys.readouterr().out.splitlines()[-1]) <= high


def test_the_loss_on_answers_of_a_language_model(scripts):
    """The snippet's loss is the mean over the tokens of all answers, and only logp has a
    gradient."""
    logp, logp_old = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(7) < torch.tensor([[2], [7], [4]])
    adv, names = torch.tensor([1.0, -1.0, 0.5]), {"mask": mask}
    leaves = {"logp": logp, "logp_old": logp_old, "adv": adv}
    names |= {name: x.clone().requires_grad_() for name, x in leaves.items()}
    given, names["policy_loss"] = dict(names), scripts[6].policy_loss
    exec(readme.snippet("(answers, tokens)"), names)  # noqa: S102 - the page's own text
    names["loss"].backward()
    assert given["logp_old"].grad is given["adv"].grad is None
    ratio = (logp - logp_old).exp()
    gain = torch.min(ratio * adv[:, None], ratio.clip(0.8, 1.2) * adv[:, None])
    torch.testing.assert_close(names["loss"], -gain[mask].sum() / 13)
    assert given["logp"].grad[~mask].eq(0).all()
    assert given["logp"].grad.any()


def test_kl_in_two_lines(capsys):
    """The snippet prints 0 for the policy itself; for another, over many samples, KL."""
    old, new = (
        Categorical(torch.tensor([0.5, 0.5])),
        Categorical(torch.tensor([0.9, 0.1])),
    )
    act = torch.tensor([0, 1])  # each as often as old draws it
    for policy, kl in (old, 0), (new, torch.distributions.kl_divergence(old, new)):
        names = {"policy": lambda obs, x=policy: x, "obs": None, "act": act}
        exec(readme.snippet("log_ratio ="), names | {"logp_old": old.log_prob(act)})  # noqa: S102
        printed = capsys.readouterr().out.removeprefix("kl: ")
        assert float(printed) == pytest.approx(float(kl), abs=1e-6)
