"""The scripts' losses are those of the libraries, which run here where they are installed."""

import csv
import inspect

import peers
import pytest
import torch
from common import load
from exact import mutant

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
LOSSES = [peer for peer in peers.PEERS if peer.kind == "random"]


def name(peer):
    """Return what pytest calls a peer."""
    return f"{peer.library}-{peers.called(peer)}-{peer.script}-{peer.kind}"


def need(peer):
    """Skip a comparison whose library is not installed."""
    if not peers.installed(peer.library):
        pytest.skip(f"{peer.library} is not installed, see peers-requirements.txt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", peers.PEERS, ids=name)
def test_a_library_has_the_loss(peer):
    """The library's own code gives what PEERS says: equal in every bit where it says so."""
    need(peer)
    for dtype, expected in zip(peers.DTYPES, peer.verdicts, strict=True):
        equal, largest = peers.compare(peer, dtype, count=12)
        assert peers.verdict(equal, 12, largest, dtype) == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", LOSSES, ids=name)
def test_a_changed_loss_is_noticed(peer):
    """The comparison fails for each of four slips in the script's loss."""
    need(peer)
    for change in MUTATIONS[peer.script]:
        wrong = mutant(load(peer.script), *change)
        equal, largest = peers.compare(peer, torch.float32, 12, wrong)
        found = peers.verdict(equal, 12, largest, torch.float32)
        assert found != peer.verdicts[0], change


@pytest.mark.filterwarnings("ignore")
def test_a_whole_update_of_stable_baselines3():
    """PPO's update on its own rollout buffer, and script 6's loss on the same buffer, give
    the same gradient of every parameter of its policy network in every bit."""
    pytest.importorskip("stable_baselines3")
    theirs, mine = peers.sb3_update(load(6).policy_loss)
    assert len(theirs) == len(mine) > 0
    assert any(x.any() for x in theirs)
    assert all(x.numpy().tobytes() == y.numpy().tobytes() for x, y in zip(theirs, mine))
    wrong = mutant(load(6), "torch.min", "torch.max")
    theirs, mine = peers.sb3_update(wrong)
    assert any(x.numpy().tobytes() != y.numpy().tobytes() for x, y in zip(theirs, mine))


def test_the_table_is_that_of_the_comparison():
    """peers.csv has the rows of PEERS, with their verdicts, at least eight libraries."""
    with open(peers.HERE / "peers.csv") as file:
        rows = list(csv.DictReader(file))
    told = [
        (
            row["library"],
            row["called"],
            row["script"],
            row["dtype"],
            row["equal_to_the_bit"],
        )
        for row in rows
    ]
    expected = [
        (peer.library, peers.called(peer), str(peer.script), str(dtype)[6:], verdict)
        for peer in peers.PEERS
        for dtype, verdict in zip(peers.DTYPES, peer.verdicts, strict=True)
    ]
    assert told == expected
    assert len({row["library"] for row in rows}) >= 8


def test_1_has_the_loss_of_2(scripts):
    """The libraries are held against 2 and 3; 1's loss is 2's to the letter."""
    one, two = (inspect.getsource(scripts[n].policy_loss) for n in (1, 2))
    assert one == two
