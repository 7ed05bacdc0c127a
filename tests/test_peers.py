"""The scripts' losses are those of the libraries, which run here where they are installed."""

import csv

import pytest
from torch.distributions import Distribution

from tests.common import same_bits
from tests.peers import compare

COUNT = 5  # batches; compare.py itself takes more
# slips in each script's loss, for (logp, [logp_old,] adv[, eps])
SLIPS = {
    3: [
        lambda logp, adv: -(logp * adv).sum(),
        lambda logp, adv: -(logp * (adv - adv.mean())).mean(),
    ],
    4: [lambda logp, old, adv: -((old - logp).exp() * adv).mean()],
    5: [lambda logp, old, adv: -((logp - old).exp() * logp * adv).mean()],
    6: [
        lambda logp, old, adv, eps: -((logp - old).exp() * adv).mean(),
        lambda logp, old, adv, eps: (
            -((logp - old).exp().clamp(1 - eps, 1 + eps) * adv).mean()
        ),
    ],
}
SLIPS[2] = SLIPS[3]


@pytest.fixture(scope="module", autouse=True)
def validation():
    """Some libraries, once imported, have switched off torch's validation for everybody."""
    yield
    Distribution.set_default_validate_args(True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", compare.PEERS, ids=lambda x: f"{x.library} {x.called}")
def test_a_library_has_the_loss(peer):
    """The library's own code gives what PEERS says, equal in every bit where it says so,
    and a slip in the script's loss is noticed."""
    if not compare.installed(peer.library):
        pytest.skip(f"{peer.library} is not installed, see tests/peers")
    found, _ = compare.verdict(peer, COUNT)
    # on another machine the last bits may agree
    assert found == peer.verdict or (peer.verdict, found) == ("last bits", "yes")
    for slip in SLIPS[peer.script] if peer.verdict != compare.OTHER else ():
        assert compare.verdict(peer, COUNT, slip)[0] == compare.OTHER


@pytest.mark.filterwarnings("ignore")
def test_a_whole_update_of_stable_baselines3():
    """PPO's update of its policy network is that of script 6's loss, in every bit."""
    pytest.importorskip("stable_baselines3")
    theirs, mine = compare.sb3_update(compare.SCRIPTS[6].policy_loss)
    assert theirs and all(x.any() for x in theirs)
    assert all(map(same_bits, theirs, mine))
    for slip in SLIPS[6]:
        assert not all(map(same_bits, *compare.sb3_update(slip)))


def test_the_table_is_that_of_the_comparison():
    """peers.csv has the rows of PEERS, with their verdicts."""
    keys = "library", "called", "script", "equal_to_the_bit"
    with open(compare.HERE / "peers.csv") as file:
        rows = [[row[key] for key in keys] for row in csv.DictReader(file)]
    peers = [[x.library, x.called, str(x.script), x.verdict] for x in compare.PEERS]
    assert rows == peers
