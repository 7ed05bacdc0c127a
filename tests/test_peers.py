"""The scripts' losses are those of the libraries, which run here where they are installed."""

import csv
import inspect

import pytest
import torch

from tests.common import load, same_bits
from tests.exact import mutant
from tests.peers import compare

# four slips for each script's loss, as (old, new) in the source of policy_loss
MUTATIONS = {
    2: [
        ("-(logp", "(logp"),
        (".mean()", ".sum()"),
        ("logp * weights", "logp + weights"),
        ("logp * weights", "logp * weights.abs()"),
    ],
    3: [
        ("-(logp", "(logp"),
        (".mean()", ".sum()"),
        ("logp * adv", "logp.exp() * adv"),
        ("logp * adv", "logp * (adv - adv.mean())"),
    ],
    4: [
        ("-(ratio", "(ratio"),
        (".mean()", ".sum()"),
        ("logp - logp_old", "logp_old - logp"),
        ("ratio * adv", "ratio.detach() * adv * logp"),
    ],
    5: [
        ("-(ratio", "(ratio"),
        (".mean()", ".sum()"),
        (".detach()", ""),
        ("logp - logp_old", "logp_old - logp"),
    ],
    6: [
        ("torch.min", "torch.max"),
        (".mean()", ".sum()"),
        ("1 + clip_ratio", "1 + 2 * clip_ratio"),
        ("torch.min(ratio * adv, clipped * adv)", "(clipped * adv)"),
    ],
}
COUNT = 4  # batches; peers.py itself takes 300
LOSSES = [peer for peer in compare.PEERS if peer.kind == "random"]


def name(peer):
    """Return what pytest calls a peer."""
    return f"{peer.library}-{compare.called(peer)}-{peer.script}-{peer.kind}"


def holds(peer, dtype, policy_loss=None):
    """Tell whether a few batches say what PEERS does: BIT has no tolerance, CLOSE a
    bound, and OTHER is beyond it."""
    expected = peer.verdicts[compare.DTYPES.index(dtype)]
    found, _ = compare.verdict(peer, dtype, COUNT, policy_loss)
    # on another machine the last bits may agree
    return found == expected or (expected, found) == (compare.CLOSE, compare.BIT)


def need(peer):
    """Skip a comparison whose library is not installed."""
    if not compare.installed(peer.library):
        pytest.skip(
            f"{peer.library} is not installed, see tests/peers/requirements.txt"
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", compare.PEERS, ids=name)
def test_a_library_has_the_loss(peer):
    """The library's own code gives what PEERS says: equal in every bit where it says so."""
    need(peer)
    for dtype in compare.DTYPES:
        assert holds(peer, dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", LOSSES, ids=name)
def test_a_changed_loss_is_noticed(peer):
    """The comparison fails for each of four slips in the script's loss."""
    need(peer)
    for change in MUTATIONS[peer.script]:
        wrong = mutant(load(peer.script), *change)
        assert not holds(peer, torch.float32, wrong), change


@pytest.mark.filterwarnings("ignore")
def test_a_whole_update_of_stable_baselines3():
    """PPO's update on its own rollout buffer, and script 6's loss on the same buffer, give
    the same gradient of every parameter of its policy network in every bit."""
    pytest.importorskip("stable_baselines3")
    theirs, mine = compare.sb3_update(load(6).policy_loss)
    assert len(theirs) > 0
    assert all(x.any() for x in theirs)
    assert [*map(same_bits, theirs, mine)] == [True] * len(theirs)
    for change in MUTATIONS[6]:
        theirs, mine = compare.sb3_update(mutant(load(6), *change))
        assert not all(map(same_bits, theirs, mine)), change


def test_the_table_is_that_of_the_comparison():
    """peers.csv has the rows of PEERS, with their verdicts, at least eight libraries."""
    keys = "library", "called", "script", "dtype", "equal_to_the_bit"
    with open(compare.HERE / "peers.csv") as file:
        rows = [[row[key] for key in keys] for row in csv.DictReader(file)]
    assert rows == [
        [peer.library, compare.called(peer), str(peer.script), str(dtype)[6:], verdict]
        for peer in compare.PEERS
        for dtype, verdict in zip(compare.DTYPES, peer.verdicts, strict=True)
    ]
    assert len({row[0] for row in rows}) >= 8


def test_1_has_the_loss_of_2(scripts):
    """The libraries are held against 2 and 3; 1's loss is 2's to the letter."""
    one, two = (inspect.getsource(scripts[n].policy_loss) for n in (1, 2))
    assert one == two
