"""Break the scripts on purpose, one line at a time: does a test notice?

    python -m tests.benchmark.mutate          all mutations: prints which test caught which
    python -m tests.benchmark.mutate 4 7      only those of these numbers, from 0 on

Each mutation changes one place of one script in a copy of the repository, where the test
file that is to notice runs up to its first failure. The exit status is the number of
mutations that no test caught. The unchanged copy goes first, for a test that fails anyway
would pass for one that noticed.
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
DETACHED = "ratio.detach() * logp * adv"
OLD = "logp_old = policy(obs).log_prob(act).detach()"
ADV = "adv = ret - value(obs).detach()"
FIT = """for _ in range(train_v_iters):
            v_optimizer.zero_grad()
            ((value(obs) - ret) ** 2).mean().backward()
            v_optimizer.step()"""
DONE = "(len(steps) + 1 == max_ep_len)"
# script, what is wrong, old text, new text, the test file that notices
MUTATIONS = [
    (1, "sign flipped", "-(logp * weights)", "(logp * weights)", "losses"),
    (1, "sum for mean", "(logp * weights).mean()", "(logp * weights).sum()", "losses"),
    (1, "wrong axis", "rew.sum(0).expand_as", "rew.sum(1, True).expand_as", "rollout"),
    (1, "rewards not masked", "np.where(mask, rew, 0)", "rew", "rollout"),
    (1, "discarded steps kept", "rew, mask))", "rew, mask | True))", "rollout"),
    (1, "networks not seeded", "torch.manual_seed(seed)", "pass", "rollout"),
    (1, "environments not seeded", "envs.reset(seed=seed)", "envs.reset()", "rollout"),
    (1, "no reset in rollout", "mask & ~done", "mask & done", "rollout"),
    (1, "tanh after the last layer", "(in_dim, out_dim))", "(in_dim, out_dim), nn.Tanh())", "rollout"),
    (2, "past for future", RTG, "ret[-1 - t] += ret[-2 - t]", "rollout"),
    (2, "reward-to-go shifted", RTG, "ret[t] = ret[t + 1]", "rollout"),
    (2, "last step left out", "range(len(ret) - 1)", "range(len(ret) - 2)", "rollout"),
    (2, "rewards overwritten", "ret = rew.clone()", "ret = rew", "copy"),
    (2, "one step too many", DONE, "(len(steps) == max_ep_len)", "rollout"),
    (2, "ReLU for tanh", "nn.Tanh()", "nn.ReLU()", "rollout"),
    (2, "lr doubled", "policy.parameters(), lr=lr", "policy.parameters(), lr=2 * lr", "rollout"),
    (3, "gamma forgotten", GAMMA_RTG, RTG, "rollout"),
    (3, "gamma squared", GAMMA_RTG, f"{GAMMA_RTG} * gamma", "exact"),
    (3, "bootstrap dropped", BOOTSTRAP, "pass", "rollout"),
    (3, "bootstrap undiscounted", "+= gamma * value", "+= value", "rollout"),
    (3, "bootstrap from s_{T-1}", "value(next_obs[cut])", "value(obs[cut])", "rollout"),
    (3, "bootstrap everywhere", "mask & done & ~terminated", "mask & done", "rollout"),
    (3, "terminated for truncated", "done & ~terminated", "done & ~truncated", "rollout"),
    (3, "max_ep_len never cuts", "done & ~terminated", "truncated", "rollout"),
    (3, "no baseline", "adv = ret - value(obs).detach()", "adv = ret", "rollout"),
    (3, "baseline added", "ret - value(obs)", "ret + value(obs)", "rollout"),
    (3, "V is a column", "self.net(obs).squeeze(-1)", "self.net(obs)", "rollout"),
    (3, "V of another size", "Value(obs_dim, hidden_sizes)", "Value(obs_dim, [16])", "rollout"),
    (3, "return not per episode", "ep_ret = rew.sum() / num_envs", "ep_ret = rew.sum()", "rollout"),
    (3, "vf_lr halved", "lr=vf_lr)", "lr=vf_lr / 2)", "rollout"),
    (3, "V fitted away", "((value(obs) - ret) ** 2)", "(-((value(obs) - ret) ** 2))", "rollout"),
    (4, "ratio upside down", "exp(logp - logp_old)", "exp(logp_old - logp)", "losses"),
    (4, "log_ratio for ratio", "torch.exp(logp - logp_old)", "1 + logp - logp_old", "losses"),
    (4, "logp_old recomputed", "loss = policy", "logp_old = logp.detach(); loss = policy", "rollout"),
    (4, "logp_old not detached", OLD, OLD.removesuffix(".detach()"), "rollout"),
    (4, "one step too few", "range(train_pi_iters)", "range(train_pi_iters - 1)", "rollout"),
    (4, "gradients pile up", "pi_optimizer.zero_grad()", "pass", "rollout"),
    (4, "kl can be negative", "(torch.expm1(logp - logp_old) - (logp - logp_old))", "(logp_old - logp)", "losses"),
    (4, "steps miss the discarded", "mask.numel()", "int(mask.sum())", "rollout"),
    (5, "detach dropped", DETACHED, "ratio * logp * adv", "losses"),
    (5, "products swapped", DETACHED, "ratio.detach() * adv * logp", "losses"),
    (5, "log dropped", DETACHED, "ratio.detach() * adv", "losses"),
    (5, "log-probs not summed", "Independent(normal, 1)", "normal", "rollout"),
    (5, "std is log_std", "self.log_std.exp()", "self.log_std.abs() + 1", "rollout"),
    (5, "one std for all axes", "torch.zeros(act_dim)", "torch.zeros(1)", "rollout"),
    (6, "clip above only", "1 - clip_ratio, 1 +", "0.0, 1 +", "losses"),
    (6, "clip below only", "1 + clip_ratio)", "1e9)", "losses"),
    (6, "max for min", "torch.min(", "torch.max(", "losses"),
    (6, "min dropped", "torch.min(ratio * adv, clipped * adv)", "(clipped * adv)", "losses"),
    (6, "actions not clipped", "envs = gym.wrappers.vector.ClipAction(envs)", "pass", "rollout"),
    (6, "not flattened", "envs = gym.wrappers.vector.FlattenObservation(envs)", "pass", "rollout"),
    (6, "same-step reset accepted", "AutoresetMode.NEXT_STEP, (", "AutoresetMode.NEXT_STEP or True, (", "copy"),
    (6, "saved at the end only", "if save:\n            torch", "if save and epoch == epochs - 1:\n            torch", "save"),
    (6, "saved in place", 'f"{save}.tmp")\n            os.replace(f"{save}.tmp", save)', "save)", "save"),
    (6, "divergence unnoticed", "assert logp.isfinite().all()", "assert True", "save"),
    (6, "divergence found late", "logp = policy(obs).log_prob(act)\n        assert", "assert", "save"),
    (6, "any path is saved to", "assert writable,", "assert True,", "save"),
    (6, "a device replaced", "assert not taken,", "assert True,", "save"),
    (6, "watching draws", "with torch.random.fork_rng():", "if True:", "practice"),
    (5, "--render ignored", 'action="store_true"', 'action="store_false"', "practice"),
    (4, "device forgotten", "torch.as_tensor(obs, device=device)", "torch.as_tensor(obs)", "rollout"),
    (3, "V stays on the CPU", "Value(obs_dim, hidden_sizes).to(device)", "Value(obs_dim, hidden_sizes)", "rollout"),
    (3, "gamma 0 refused", "0 <= gamma", "0 < gamma", "practice"),
    (6, "clip ratio 0 accepted", "clip_ratio > 0", "clip_ratio >= 0", "practice"),
    (2, "no epoch accepted", "epochs >= 1", "epochs >= 0", "practice"),
    (2, "empty layers accepted", "min(hidden_sizes) >= 1", "min(hidden_sizes) >= 0", "practice"),
    (1, "Discrete from 1 accepted", "and act_space.start == 0", "", "practice"),
    (1, "integer Box accepted", "(np.float32, np.float64)", "(np.float32, np.int64)", "practice"),
    (1, "Box of two axes accepted", "len(act_space.shape) == 1\n    floats", "len(act_space.shape) > 0\n    floats", "practice"),
    (6, "defaults not handed over", "parser.set_defaults(", "dict(", "ladder"),
    (6, "threads of the machine", "torch.set_num_threads(1)", "pass", "policies"),
    (3, "bootstrap not detached", "value(next_obs[cut]).detach()", "value(next_obs[cut])", "rollout"),
    (4, "adv not detached", "ret - value(obs).detach()", "ret - value(obs)", "rollout"),
    (5, "V fitted before adv", ADV, f"{FIT}\n        {ADV}", "rollout"),
    (3, "kept past the end", "mask = next_obs, mask & ~done", "mask = next_obs, ~done", "rollout"),
    (5, "kl the wrong way round", "(torch.expm1(logp - logp_old) - (logp - logp_old))", "(torch.expm1(logp_old - logp) - (logp_old - logp))", "losses"),
    (1, "length not per episode", "ep_len = mask.sum() / num_envs", "ep_len = mask.sum()", "rollout"),
    (4, "no policy step accepted", "train_pi_iters >= 1", "train_pi_iters >= 0", "practice"),
    (3, "no step of V accepted", "train_v_iters >= 1", "train_v_iters >= 0", "practice"),
    (2, "no environment accepted", "num_envs >= 1", "num_envs >= 0", "practice"),
    (1, "no step accepted", "max_ep_len >= 1", "max_ep_len >= 0", "practice"),
    (4, "gamma above 1 accepted", "gamma <= 1,", "gamma <= 2,", "practice"),
    (2, "--env is another keyword", '"--env_name", dest="env_name"', '"--env_name"', "ladder"),
    (3, "--help without the idea", "description=__doc__.splitlines()[0]", "description=None", "ladder"),
    (4, "--help without defaults", "argparse.ArgumentDefaultsHelpFormatter", "argparse.HelpFormatter", "ladder"),
    (3, "no window for CartPole", 'vectorization_mode="sync", ', "", "practice"),
    (6, "lines kept back", "flush=True", "flush=False", "learning"),
]  # fmt: skip


def caught(n, old, new, test):
    """Change script n in a copy of the repository; return the first test that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".*_cache"))
        path = copy / SCRIPTS[n].name
        path.write_text(path.read_text().replace(old, new))
        # every test but those of this list, which would notice any change
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-k"]
        command += ["not mutation", "-p", "no:cacheprovider"]
        command += [f"tests/test_{name}.py" for name in test.split()]
        done = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, check=False
        )
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    return found and found[1]


def main():
    """Try the mutations and print what became of each."""
    chosen = [int(x) for x in sys.argv[1:]] or range(len(MUTATIONS))
    files = {MUTATIONS[i][-1] for i in chosen}
    if failed := caught(1, "", "", " ".join(files)):
        sys.exit(f"{failed} fails on the scripts as they are")

    def job(i):
        n, name, old, new, test = MUTATIONS[i]
        found = caught(n, old, new, test)
        print(f"{i:2d}  {n}  {name:26} {found or 'SURVIVED'}", flush=True)
        return found is None

    survivors = sum(two_at_a_time(job, [(i,) for i in chosen]).values())
    print(f"{len(chosen) - survivors} of {len(chosen)} mutations were caught")
    sys.exit(survivors)


if __name__ == "__main__":
    main()
