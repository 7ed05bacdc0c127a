"""Change the scripts on purpose, one place at a time: does a test notice?

    python -m tests.benchmark.mutate              break them: a test has to notice
    python -m tests.benchmark.mutate refactor     write them in other words: none may notice
    python -m tests.benchmark.mutate 4 7          only those of these numbers, from 0 on

Each change is made in a copy of the repository. A mutation breaks one script, and the test
file that is to notice runs up to its first failure. A refactoring changes no behaviour; it
is made in every script that has the text, and all tests run but those of the pages' quotes
and diffs. The exit status is the number of mutations that no test caught, or of
refactorings that one did. The unchanged copy goes first.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.common import ROOT, SCRIPTS, two_at_a_time

RTG, GAMMA_RTG = "ret[t] += ret[t + 1]", "ret[t] += gamma * ret[t + 1]"
BOOTSTRAP = "rew[cut] += gamma * value(next_obs[cut]).detach()"
NO_PAGES = "-k", "not diffs and not quotes"
DETACHED = "ratio.detach() * logp * adv"
OLD = "logp_old = policy(obs).log_prob(act).detach()"
ADV = "adv = ret - value(obs).detach()"
FIT = """for _ in range(train_v_iters):
            v_optimizer.zero_grad()
            ((value(obs) - ret) ** 2).mean().backward()
            v_optimizer.step()"""
KL = "(torch.expm1(log_ratio) - log_ratio)"
# script, what is wrong, old text, new text, the test file that notices
MUTATIONS = [
    (1, "sign flipped", "-(logp * weights)", "(logp * weights)", "losses"),
    (1, "sum for mean", "(logp * weights).mean()", "(logp * weights).sum()", "losses"),
    (1, "wrong axis", "rew.sum(0).expand_as", "rew.sum(1, True).expand_as", "rollout"),
    (1, "rewards not masked", "np.where(mask, rew, 0)", "np.asarray(rew)", "rollout"),
    (1, "discarded steps kept", "rew, mask))", "rew, mask | True))", "rollout"),
    (1, "networks not seeded", "torch.manual_seed(seed)", "pass", "policies"),
    (1, "environments not seeded", "envs.reset(seed=seed)", "envs.reset()", "policies"),
    (1, "tanh after the last layer", "(in_dim, out_dim))", "(in_dim, out_dim), nn.Tanh())", "rollout"),
    (1, "return not per episode", "ep_ret = rew.sum() / num_envs", "ep_ret = rew.sum()", "rollout"),
    (1, "length not per episode", "ep_len = mask.sum() / num_envs", "ep_len = mask.sum()", "rollout"),
    (1, "act lent out", "act.copy()", "act", "rollout"),
    (1, "first obs lent out", "obs = np.array(obs, np.float32)  #", "obs = np.asarray(obs, np.float32)  #", "rollout"),
    (2, "past for future", RTG, "ret[-1 - t] += ret[-2 - t]", "exact"),
    (2, "last step left out", "range(len(ret) - 1)", "range(len(ret) - 2)", "exact"),
    (2, "rewards overwritten", "ret = rew.clone()", "ret = rew", "copy"),
    (2, "one step too many", "len(steps) + 1 == max_ep_len", "len(steps) == max_ep_len", "rollout"),
    (2, "ReLU for tanh", "nn.Tanh()", "nn.ReLU()", "ladder"),
    (2, "lr doubled", "policy.parameters(), lr=lr", "policy.parameters(), lr=2 * lr", "rollout"),
    (2, "act on NaN", ".nan_to_num()", "", "practice"),
    (3, "gamma forgotten", GAMMA_RTG, RTG, "exact"),
    (3, "bootstrap dropped", BOOTSTRAP, "pass", "rollout"),
    (3, "bootstrap undiscounted", "+= gamma * value", "+= value", "rollout"),
    (3, "bootstrap from s_{T-1}", "value(next_obs[cut])", "value(obs[cut])", "rollout"),
    (3, "bootstrap everywhere", "mask & done & ~terminated", "mask & done", "rollout"),
    (3, "terminated for truncated", "done & ~terminated", "done & ~truncated", "rollout"),
    (3, "bootstrap not detached", "value(next_obs[cut]).detach()", "value(next_obs[cut])", "rollout"),
    (3, "no baseline", ADV, "adv = ret", "rollout"),
    (3, "baseline added", "ret - value(obs)", "ret + value(obs)", "rollout"),
    (3, "V is a column", "self.net(obs).squeeze(-1)", "self.net(obs)", "rollout"),
    (3, "V of another size", "Value(obs_dim, hidden_sizes)", "Value(obs_dim, [16])", "policies"),
    (3, "vf_lr halved", "lr=vf_lr)", "lr=vf_lr / 2)", "rollout"),
    (3, "kept past the end", "mask = next_obs, mask & ~done", "mask = next_obs, ~done", "rollout"),
    (6, "last obs lent out", "next_obs = np.array(next_obs", "next_obs = np.asarray(next_obs", "rollout"),
    (4, "ratio upside down", "exp(logp - logp_old)", "exp(logp_old - logp)", "losses"),
    (4, "log-ratio for ratio", "torch.exp(logp - logp_old)", "1 + logp - logp_old", "losses"),
    (4, "logp_old recomputed", "loss = policy", "logp_old = logp.detach(); loss = policy", "policies rollout"),
    (4, "logp_old not detached", OLD, OLD.removesuffix(".detach()"), "policies"),
    (4, "adv not detached", ADV, ADV.removesuffix(".detach()"), "policies rollout"),
    (4, "one step too few", "range(train_pi_iters)", "range(train_pi_iters - 1)", "policies rollout"),
    (4, "gradients pile up", "pi_optimizer.zero_grad()", "pass", "rollout"),
    (4, "kl can be negative", KL, "-log_ratio", "rollout"),
    (5, "kl the wrong way round", KL, "(torch.expm1(-log_ratio) + log_ratio)", "rollout"),
    (4, "steps miss the discarded", "mask.numel()", "int(mask.sum())", "rollout"),
    (5, "detach dropped", DETACHED, "ratio * logp * adv", "losses"),
    (5, "products swapped", DETACHED, "ratio.detach() * adv * logp", "losses"),
    (5, "log dropped", DETACHED, "ratio.detach() * adv", "losses"),
    (5, "log-probs not summed", "Independent(normal, 1)", "normal", "rollout"),
    (6, "std is log_std", "self.log_std.exp()", "self.log_std.abs() + 1", "rollout"),
    (6, "one std for all axes", "torch.zeros(act_dim)", "torch.zeros(1)", "rollout"),
    (5, "V fitted before adv", ADV, f"{FIT}\n        {ADV}", "rollout"),
    (6, "clip above only", "1 - clip_ratio, 1 +", "0.0, 1 +", "losses"),
    (6, "clip below only", "1 + clip_ratio)", "1e9)", "losses"),
    (6, "max for min", "torch.min(", "torch.max(", "losses"),
    (6, "min dropped", "torch.min(ratio * adv, clipped * adv)", "(clipped * adv)", "losses"),
    (6, "actions not clipped", "TransformAction(envs, lambda act: act.clip(low, high))", "TransformAction(envs, lambda act: act)", "rollout practice"),
    (6, "actions not rescaled", "envs = gym.wrappers.vector.RescaleAction(envs, -1, 1)", "pass", "rollout"),
    (6, "infinite bounds rescaled", "act_space.is_bounded()", "True", "rollout"),
    (6, "not flattened", "envs = gym.wrappers.vector.FlattenObservation(envs)", "pass", "rollout practice"),
    (6, "flags of other types", "np.array([terminated, truncated], bool)", "terminated, truncated", "rollout"),
    (2, "divergence unnoticed", "assert loss.isfinite()", "assert True", "save"),
    (6, "saved at the end only", "if save:\n            torch", "if save and epoch == epochs - 1:\n            torch", "save"),
    (6, "saved in place", 'f"{save}.tmp")\n            os.replace(f"{save}.tmp", save)', "save)", "save"),
    (6, "a bad reward unnoticed", "assert ep_ret.isfinite()", "assert True", "practice"),
    (6, "a bad observation unnoticed", "assert obs[mask].isfinite().all()", "assert True", "practice"),
    (3, "a bad last observation unnoticed", "assert next_obs[cut].isfinite().all()", "assert True", "practice"),
    (5, "--render ignored", 'action="store_true"', 'action="store_false"', "practice"),
    (3, "no window for CartPole", 'vectorization_mode="sync", ', "", "practice"),
    (6, "Discrete from 1 accepted", " and act_space.start == 0", "", "practice"),
    (6, "integer Box accepted", '(box and act_space.dtype.kind == "f")', "box", "practice"),
    (6, "Box of two axes accepted", " and len(act_space.shape) == 1", "", "practice"),
    (6, "no flat form accepted", "gym.spaces.flatdim(obs_space)", "pass", "practice"),
    (2, "a count of 0 accepted", "int(text) < 1", "int(text) < 0", "practice"),
    (6, "defaults not handed over", "parser.set_defaults(", "dict(", "ladder"),
    (6, "threads of the machine", "torch.set_num_threads(1)", "pass", "policies"),
    (2, "--env is another keyword", '"--env_name", "--env"', '"--env"', "ladder"),
    (4, "--help without defaults", "argparse.ArgumentDefaultsHelpFormatter", "argparse.HelpFormatter", "ladder"),
    (6, "lines kept back", "flush=True", "flush=False", "learning"),
]  # fmt: skip
# what is written in other words, and [(old text, new text), ...]
REFACTORINGS = [
    ("a temporary is renamed", [("log_ratio", "d")]),
    ("a temporary is named", [("kl = (torch.expm1(log_ratio) - log_ratio).mean()", "estimate = torch.expm1(log_ratio) - log_ratio\n        kl = estimate.mean()")]),
    ("from_numpy for as_tensor", [("torch.as_tensor(np.stack(x), device=device)", "torch.from_numpy(np.stack(x)).to(device)"), ("torch.as_tensor(obs, device=device)", "torch.from_numpy(obs).to(device)")]),
    ("np.array for np.stack", [("np.stack(x)", "np.array(x)")]),
    ("astype for np.array", [("np.array(obs, np.float32)", "obs.astype(np.float32)"), ("np.array(next_obs, np.float32)", "next_obs.astype(np.float32)")]),
    ("extend for +=", [("layers += [nn.Linear(in_dim, size), nn.Tanh()]", "layers.extend([nn.Linear(in_dim, size), nn.Tanh()])")]),
    ("an f-string is split", [('return: {ep_ret:.3f} \\t "', 'return: "\n            f"{ep_ret:.3f} \\t "')]),
    ("a helper is inlined", [("rew = np.where(mask, rew, 0).astype(np.float32)", "rew = np.float32(rew)\n        rew[~mask] = 0")]),
    ("zero_grad after the step", [("pi_optimizer.zero_grad()\n", "pass\n"), ("pi_optimizer.step()", "pi_optimizer.step(); pi_optimizer.zero_grad()")]),
    ("the loss by keywords", [("policy_loss(logp, adv)\n        pi", "policy_loss(logp=logp, adv=adv)\n        pi"), ("policy_loss(logp, logp_old, adv, clip_ratio)\n            pi", "policy_loss(logp=logp, logp_old=logp_old, adv=adv, clip_ratio=clip_ratio)\n            pi")]),
    ("clip for clamp", [("torch.clamp(ratio, 1 - clip_ratio, 1 + clip_ratio)", "ratio.clip(1 - clip_ratio, 1 + clip_ratio)")]),
    ("a while loop for the sum", [("for t in reversed(range(len(ret) - 1)):", "for t in range(len(ret) - 2, -1, -1):")]),
    ("squeeze by index", [("self.net(obs).squeeze(-1)", "self.net(obs)[:, 0]")]),
    ("the bootstrap not in place", [(BOOTSTRAP, "rew = rew.index_put((cut,), rew[cut] + gamma * value(next_obs[cut]).detach())")]),
    ("mse_loss for the square", [("((value(obs) - ret) ** 2).mean()", "nn.functional.mse_loss(value(obs), ret)")]),
    ("options of the parser in one", [('description=__doc__.splitlines()[0]', 'description=__doc__.split("\\n")[0]')]),
]  # fmt: skip


def failed(edit, tests, *options):
    """Edit a copy of the repository, see `main`; return the first test that fails there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".*_cache"))
        edit(copy)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", *options]
        command += ["-p", "no:cacheprovider", *tests]
        done = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, check=False
        )
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return found and found[1]


def mutate(i):
    """Try mutation i; return whether no test noticed."""
    n, name, old, new, test = MUTATIONS[i]

    def edit(copy):
        path = copy / SCRIPTS[n].name
        assert path.read_text().count(old) == 1, f"{old!r} is not once in {path.name}"
        path.write_text(path.read_text().replace(old, new))

    found = failed(edit, [f"tests/test_{x}.py" for x in test.split()])
    print(f"{i:2d}  {n}  {name:28} {found or 'SURVIVED'}", flush=True)
    return found is None


def refactor(i):
    """Try refactoring i; return whether a test noticed."""
    name, changes = REFACTORINGS[i]

    def edit(copy):
        for old, new in changes:
            paths = [copy / path.name for path in SCRIPTS.values()]
            paths = [path for path in paths if old in path.read_text()]
            assert paths, f"{old!r} is in no script"
            for path in paths:
                path.write_text(path.read_text().replace(old, new))

    found = failed(edit, ["tests"], *NO_PAGES)
    print(f"{i:2d}  {name:28} {found or 'unnoticed'}", flush=True)
    return found is not None


def main():
    """Try the mutations or the refactorings and print what became of each."""
    words = sys.argv[1:]
    job, every = mutate, MUTATIONS
    if words[:1] == ["refactor"]:
        job, every, words = refactor, REFACTORINGS, words[1:]
    chosen = [int(x) for x in words] or range(len(every))
    if found := failed(lambda copy: None, ["tests"], *NO_PAGES):
        sys.exit(f"{found} fails on the scripts as they are")
    wrong = sum(two_at_a_time(job, [(i,) for i in chosen]).values())
    print(f"{len(chosen) - wrong} of {len(chosen)} as they should be")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
