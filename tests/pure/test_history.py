"""What two ledgers tell each other: only the windows of epochs that differ."""

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from incentives.ledger import Ledger
from peers.history import WINDOW_EPOCHS, LedgerHistory
from swarm.errors import PeerFault
from swarm.records.commitments import body_bytes
from swarm.records.types import RoundCertificate
from swarm.records.wire import unpack
from swarm.transport.sync import MAX_SUMMARY_BYTES
from tests.machine.world import Peer, World
from tests.pure.small_lineage import DOMAIN, PEERS, ROUND, ROUND_BODY, ROUND_RECORD, RUN, receipt, signatures, values


def rounds(
    ledger: Ledger, epochs: range, signers: tuple[bytes, ...] = PEERS[:1], is_followed: bool = True, branch: int = 0
) -> None:
    """Each on the one of the epoch before it, where that is held; of another `branch` with other state."""
    for epoch in epochs:
        root = ROUND_RECORD.next_root if not branch else bytes([branch]) * 32
        held = list(ledger.certificates(epoch - 1, epoch))
        on = [c.id for c in held if c.values["next_root"] == root]
        before = on or [c.id for c in held] or [i for i in [ledger.tip()] if i]
        prev = before[0] if before else ROUND_RECORD.prev_certificate
        record = replace(ROUND_RECORD, epoch=epoch, prev_certificate=prev, next_root=root)
        identity = ledger.add_certificate(values(record), body_bytes(ROUND_BODY), signatures(record, signers))
        if is_followed:
            ledger.set_tip(identity)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Ledger, Ledger]]:
    with (
        Ledger(tmp_path / "a", run_id=RUN, domain=DOMAIN) as a,
        Ledger(tmp_path / "b", run_id=RUN, domain=DOMAIN) as b,
    ):
        yield a, b


def history(ledger: Ledger) -> LedgerHistory:
    return LedgerHistory(ledger, list)


def missing_epochs(ours: Ledger, theirs: Ledger) -> list[int]:
    return [unpack(m).record.epoch for m in history(ours).missing(history(theirs).summary())]


def test_equal_ledgers_have_nothing_to_tell(pair: tuple[Ledger, Ledger]) -> None:
    for ledger in pair:
        rounds(ledger, range(1, 70))
    assert missing_epochs(*pair) == []
    assert missing_epochs(pair[0], pair[0]) == []


def test_a_joiner_gets_all_and_who_lags_gets_the_end(pair: tuple[Ledger, Ledger]) -> None:
    ours, theirs = pair
    rounds(ours, range(1, 70))
    assert missing_epochs(ours, theirs) == list(range(1, 70))
    assert [unpack(m).record.epoch for m in history(ours).everything()] == list(range(1, 70))
    rounds(theirs, range(1, 65))
    assert missing_epochs(ours, theirs) == list(range(64, 70))
    assert missing_epochs(theirs, ours) == [64]


def test_one_lost_receipt_brings_its_window_alone(pair: tuple[Ledger, Ledger]) -> None:
    ours, theirs = pair
    for ledger in pair:
        rounds(ledger, range(1, 70))
    record = replace(receipt(0), epoch=5, certificate=next(ours.certificates(5, 6)).id)
    ours.add_receipt(values(record), signatures(record, PEERS[:1]))
    found = [unpack(m).record for m in history(ours).missing(history(theirs).summary())]
    assert record in found and {r.epoch for r in found} <= set(range(WINDOW_EPOCHS))


def test_what_was_followed_once_is_told_no_more(pair: tuple[Ledger, Ledger]) -> None:
    """A newcomer got every branch that a peer had ever followed, and two peers that had left different ones told them for ever."""
    ours, theirs = pair
    for ledger in pair:
        rounds(ledger, range(1, 40))
    rounds(ours, range(30, 60), branch=9)  # left
    rounds(ours, range(40, 70))
    rounds(theirs, range(40, 70))
    assert missing_epochs(ours, theirs) == missing_epochs(theirs, ours) == []
    told = [unpack(m).record for m in history(ours).everything()]
    assert [r.epoch for r in told] == list(range(1, 70))
    assert {r.next_root for r in told} == {ROUND_RECORD.next_root}  # type: ignore[union-attr]


def test_who_changes_branches_tells_the_new_one_from_then_on(pair: tuple[Ledger, Ledger]) -> None:
    ours, theirs = pair
    for ledger in pair:
        rounds(ledger, range(1, 40))
    told = history(ours)
    assert list(told.missing(history(theirs).summary())) == []
    rounds(ours, range(5, 38), branch=9)
    found = [unpack(m).record for m in told.missing(history(theirs).summary())]
    assert [r.epoch for r in found] == list(range(1, 38))
    assert {r.next_root for r in found[5:]} == {b"\x09" * 32}  # type: ignore[union-attr]


def test_all_of_the_way_is_read_once_and_then_what_is_new() -> None:
    """However long the run: a look costs what came since the last one."""
    read: list[int] = []

    class Counting(Ledger):
        def way_back(self, tip: bytes) -> Iterator[tuple[int, bytes]]:
            for epoch, identity in super().way_back(tip):
                read.append(epoch)
                yield epoch, identity

    with tempfile.TemporaryDirectory() as folder, Counting(Path(folder) / "a", run_id=RUN, domain=DOMAIN) as ledger:
        rounds(ledger, range(1, 600))
        told = history(ledger)
        told.summary()
        assert read == list(range(599, 0, -1))
        rounds(ledger, range(600, 603))
        told.summary()
        assert read[599:] == [602, 601, 600, 599]


def test_ledgers_that_heard_other_signatures_under_the_same_certificates_have_nothing_to_tell(
    pair: tuple[Ledger, Ledger],
) -> None:
    """Each peer keeps the quorum that it heard first. All history was sent anew with every summary, to peers that had it."""
    ours, theirs = pair
    rounds(ours, range(1, 70), PEERS[:2])
    rounds(theirs, range(1, 70), PEERS[1:3])
    assert missing_epochs(ours, theirs) == missing_epochs(theirs, ours) == []


def test_an_answer_goes_on_to_what_was_certified_while_it_went_out(pair: tuple[Ledger, Ledger]) -> None:
    """A joiner takes no news before its first answer is through: what it missed by then it asked for again only after twice as long
    as the answer had taken, and stood still until then."""
    ours, theirs = pair
    rounds(ours, range(1, 40))
    answer = history(ours).missing(history(theirs).summary())
    heard = [unpack(next(answer)).record.epoch for _ in range(20)]
    rounds(ours, range(40, 60))
    heard += [unpack(message).record.epoch for message in answer]
    assert sorted(set(heard)) == list(range(1, 60))
    rounds(theirs, range(1, 60))
    assert missing_epochs(ours, theirs) == []


def test_what_the_ledger_lacks_yet_comes_with_the_round_under_way(tmp_path: Path) -> None:
    world = World(3)
    world.seat()
    for _ in range(5):
        world.round()
    machine = world.peers[0].machine
    joiner = Peer(world, 9, 3)
    with Ledger(tmp_path / "a", run_id=RUN, domain=DOMAIN) as ledger:
        rounds(ledger, range(1, 4))
        current = LedgerHistory(ledger, machine.current_messages, machine.certificates_since).current()
    known = [s for s in world.peers[1].heard if isinstance(s.record, RoundCertificate) and s.record.epoch <= 3]
    for signed in (*known, *map(unpack, current)):
        joiner.act(joiner.machine.receive(signed))
    assert joiner.machine.tip == machine.tip
    assert machine.epoch == 7


def test_a_receipt_without_its_certificate_is_not_asked_for_for_ever(pair: tuple[Ledger, Ledger]) -> None:
    ours, theirs = pair
    record = replace(receipt(0), certificate=b"\1" * 32)
    ours.add_receipt(values(record), signatures(record, PEERS[:1]))
    assert history(ours).summary() == history(theirs).summary()


def test_a_late_receipt_of_long_ago_is_found_by_a_history_that_has_scanned(pair: tuple[Ledger, Ledger]) -> None:
    ours, theirs = pair
    for ledger in pair:
        rounds(ledger, range(1, 200))
    told, heard = history(ours), history(theirs)
    assert list(told.missing(heard.summary())) == []
    record = replace(receipt(0), epoch=5, certificate=next(ours.certificates(5, 6)).id)
    ours.add_receipt(values(record), signatures(record, PEERS[:1]))
    assert list(told.missing(heard.summary())) == []  # the newest windows only, until
    told.complete_at = float("-inf")  # the next scan of all
    assert {unpack(m).record.epoch for m in told.missing(heard.summary())} == set(range(1, 16))


def test_a_long_run_has_longer_windows_in_a_summary_of_bounded_size(pair: tuple[Ledger, Ledger]) -> None:
    ours, theirs = pair
    for ledger in pair:
        rounds(ledger, range(1, 4))
        rounds(ledger, range(1_000_000, 1_000_003))
    assert len(history(ours).summary()) <= MAX_SUMMARY_BYTES
    assert missing_epochs(ours, theirs) == []
    rounds(ours, range(1_000_003, 1_000_004))
    assert missing_epochs(ours, theirs) == [1_000_000, 1_000_001, 1_000_002, 1_000_003]


@pytest.mark.parametrize("summary", [b"", b"1234567", struct.pack(">Q", 0), struct.pack(">Q", 17), bytes(8 * 5000)])
def test_a_malformed_summary_is_a_fault(pair: tuple[Ledger, Ledger], summary: bytes) -> None:
    with pytest.raises(PeerFault, match="summary"):
        history(pair[0]).missing(summary)
    assert ROUND.epoch == ROUND_RECORD.epoch
