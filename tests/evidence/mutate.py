"""Break the scripts on purpose, one line at a time: does a test notice?

    python tests/evidence/mutate.py          all mutations: prints which test caught which
    python tests/evidence/mutate.py 4 7      only those of these numbers, from 0 on

Each mutation changes one place of one script in a copy of the repository, where the
tests of behaviour then run up to the first failure. The exit status is the number of
mutations that no test caught. The tests that compare texts (the ladder's diffs, the
README's quotes) stay out: they would notice any change. The unchanged copy goes first,
for a test that fails anyway would pass for one that noticed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, SCRIPTS

TESTS = ["losses", "exact", "rollout", "policies", "practice", "save", "learning"]
RTG = "rew.flip(0).cumsum(0).flip(0)"
BOOTSTRAP = "rew[cut] += gamma * value(next_obs[cut]).detach()"
MUTATIONS = [
    (1, "sign flipped", "-(logp * weights)", "(logp * weights)"),
    (1, "sum for mean", "(logp * weights).mean()", "(logp * weights).sum()"),
    (1, "wrong axis", "rew.sum(0).expand_as", "rew.sum(1, keepdim=True).expand_as"),
    (1, "rewards not masked", "np.where(mask, rew, 0)", "rew"),
    (
        1,
        "mask forgotten",
        "obs[mask], act[mask], rew.sum(0).expand_as(rew)[mask]",
        "[x.flatten(0, 1) for x in (obs, act, rew.sum(0).expand_as(rew))]",
    ),
    (1, "discarded steps kept", "act, rew, mask))", "act, rew, mask | True))"),
    (1, "networks not seeded", "torch.manual_seed(seed)", "torch.manual_seed(0)"),
    (1, "environments not seeded", "envs.reset(seed=seed)", "envs.reset()"),
    (1, "numbers too big for float32", "x < 1e37", "x < np.inf"),
    (1, "no strings", ', str: "UO"}', "}"),
    (1, "types not checked", "x.dtype.kind in ok", "True"),
    (1, "lists for numbers", "x.ndim == np.ndim(d) and ", ""),
    (1, "layers beyond 2^63", '"bi")', '"biu")'),
    (1, "render=0 is no number", ', "gamma", "render")', ', "gamma")'),
    (1, "integer Box accepted", "(np.float32, np.float64)", "(np.float32, np.int64)"),
    (2, "past for future", RTG, "rew.cumsum(0)"),
    (2, "off by one", RTG, f"({RTG} - rew)"),
    (2, "observations aliased", ".astype(np.float32).reshape(obs.shape)", ""),
    (2, "one step too many", "len(steps) + 1 >=", "len(steps) >="),
    (3, "gamma forgotten", "r + gamma * R", "r + R"),
    (3, "bootstrap dropped", BOOTSTRAP, "pass"),
    (3, "bootstrap undiscounted", "+= gamma * value", "+= value"),
    (3, "bootstrap from s_{T-1}", "value(next_obs[cut])", "value(obs[cut])"),
    (3, "bootstrap at true ends", "mask & done & ~terminated", "mask & done"),
    (3, "terminated for truncated", "done & ~terminated", "done & ~truncated"),
    (3, "max_ep_len never cuts", "done & ~terminated", "truncated & ~terminated"),
    (3, "no baseline", "adv = ret - value(obs).detach()", "adv = ret"),
    (3, "baseline added", "ret - value(obs).detach()", "ret + value(obs)"),
    (
        4,
        "ratio upside down",
        "logp - logp_old)\n    return",
        "logp_old - logp)\n    return",
    ),
    (
        4,
        "logp_old recomputed",
        "loss = policy",
        "logp_old = logp.detach(); loss = policy",
    ),
    (4, "first step on old logp", "logp_old = logp.detach()", "logp_old = logp"),
    (4, "one step too few", "range(train_pi_iters)", "range(train_pi_iters - 1)"),
    (
        4,
        "kl can be negative",
        "(torch.expm1(logp - logp_old) - (logp - logp_old))",
        "(logp_old - logp)",
    ),
    (4, "steps miss the discarded", "mask.numel()", "int(mask.sum())"),
    (5, "detach dropped", "ratio.detach() * logp", "ratio * logp"),
    (
        5,
        "products swapped",
        "ratio.detach() * logp * adv",
        "ratio.detach() * adv * logp",
    ),
    (5, "log dropped", "ratio.detach() * logp * adv", "ratio.detach() * adv"),
    (
        5,
        "log-probs not summed",
        "dist.Independent(normal, 1, validate_args=False)",
        "normal",
    ),
    (
        5,
        "V before adv",
        "adv = ret - value(obs).detach()",
        "((value(obs) - ret) ** 2).mean().backward(); v_optimizer.step(); adv = ret - value(obs).detach()",
    ),
    (6, "clip above only", "1 - clip_ratio, 1 +", "0.0, 1 +"),
    (6, "clip below only", "1 + clip_ratio)", "1e9)"),
    (6, "max for min", "torch.min(", "torch.max("),
    (6, "min dropped", "torch.min(ratio * adv, clipped * adv)", "(clipped * adv)"),
    (6, "actions not clipped", "envs = gym.wrappers.vector.ClipAction(envs)", "pass"),
    (6, "saved at the end only", "if save:", "if save and epoch == epochs - 1:"),
    (
        6,
        "saved in place",
        'f"{save}.tmp")\n            os.replace(f"{save}.tmp", save)',
        "save)",
    ),
    (6, "divergence unnoticed", "norm < 1e6", "True or norm < 1e6"),
    (3, "std overflows", "[*params, policy(obs[:1]).entropy()]", "params"),
    (6, "watching draws", "torch.random.fork_rng()(rollout)", "rollout"),
    (1, "last layer squashed", "*layers[:-1]", "*layers"),
    (2, "ReLU for tanh", "nn.Tanh()", "nn.ReLU()"),
    (4, "one std for all axes", "torch.zeros(act_space.shape)", "torch.zeros(1)"),
    (3, "V of another size", "mlp(obs_dim, *hidden_sizes, 1)", "mlp(obs_dim, 16, 1)"),
    (
        2,
        "lr doubled",
        "Adam(policy.parameters(), lr)",
        "Adam([*policy.parameters()], 2 * lr)",
    ),
    (
        5,
        "vf_lr halved",
        "Adam(value.parameters(), vf_lr)",
        "Adam(value.parameters(), vf_lr / 2)",
    ),
    (
        1,
        "device forgotten",
        "(torch.as_tensor(obs, device=device))",
        "(torch.as_tensor(obs))",
    ),
    (6, "V stays on the CPU", "nn.Flatten(0)).to(device)", "nn.Flatten(0))"),
    (5, "only infinities diverge", "norm < 1e6", "norm.isfinite()"),
    (2, "--render ignored", 'action="store_true"', 'action="store_false"'),
    (3, "gamma 0 refused", "0 <= gamma", "0 < gamma"),
]


def caught(n, old, new):
    """Change script n in a copy of the repository; return the first test that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignore = shutil.ignore_patterns(".git", "__pycache__", "figures", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignore)
        path = copy / SCRIPTS[n].name
        source = path.read_text()
        assert source.count(old) == 1, (
            f"{path.name} has {old!r} {source.count(old)} times"
        )
        path.write_text(source.replace(old, new))
        files = [f"tests/test_{name}.py" for name in TESTS]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", *files]
        out = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", out, re.MULTILINE)
    return found and found[1]


def main():
    """Try the mutations and print what became of each."""
    chosen = [int(x) for x in sys.argv[1:]] or range(len(MUTATIONS))
    if failed := caught(1, "import os\n", "import os\n"):
        sys.exit(f"{failed} fails on the scripts as they are")
    survivors = 0
    for i in chosen:
        n, name, old, new = MUTATIONS[i]
        test = caught(n, old, new)
        survivors += test is None
        print(f"{i:2d}  {n}  {name:26} {test or 'SURVIVED'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutations were caught")
    sys.exit(survivors)


if __name__ == "__main__":
    main()
