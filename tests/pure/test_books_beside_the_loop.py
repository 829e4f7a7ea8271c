"""What a peer signs and hears is written beside its loop: nothing leaves before it is on disk, and nothing waits that need not."""

import asyncio
import errno
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.accounting import Accounting
from peers.books import ROOM, Books
from peers.gate import Gate
from peers.history import LedgerHistory
from peers.notary import JournalNotary
from swarm.errors import DiskError, Equivocation
from swarm.events import Certified, PartsReceived
from swarm.records.types import ZERO_HASH, RoundVote, Signed
from tests.pure.small_lineage import (
    BY_ACCOUNT,
    DOMAIN,
    FOUNDER,
    LEAVES,
    PEERS,
    REDUCERS,
    ROUND,
    ROUND_BODY,
    ROUND_RECORD,
    RUN,
    SEATING,
    SEATING_BODY,
    SEATING_RECORD,
    receipt,
    signatures,
    values,
)

WITNESS = REDUCERS[0]
VOTES = [RoundVote(RUN, epoch, 0, bytes(32), bytes(32)) for epoch in range(1, 200)]


class Disk:
    """`os.fsync` as the test wants it: counted, and held back while `open` is not set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.count, self.error = threading.Event(), 0, 0
        self.open.set()
        real = os.fsync

        def fsync(file: int) -> None:
            self.count += 1
            assert self.open.wait(30.0), "the disk was never let go"
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            real(file)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class Peer:
    def __init__(self, tmp_path: Path, ledger: Ledger, reader: Ledger, journal: SigningJournal) -> None:
        self.path, self.ledger, self.reader, self.journal = tmp_path, ledger, reader, journal
        self.published: list[Signed] = []
        self.gate, self.books = Gate(journal), Books(ledger, reader, journal)
        self.notary = JournalNotary(BY_ACCOUNT[WITNESS], DOMAIN, journal, self.gate)
        bodies = {SEATING.id: SEATING_BODY, ROUND.id: ROUND_BODY}
        self.accounting = Accounting(self.notary, self.books, 1, self._publish, bodies.get)

    def _publish(self, signed: Signed) -> None:
        self.books.after(lambda: self.published.append(signed))

    def say(self, record: RoundVote) -> Signed:
        signed = Signed(record, WITNESS, self.notary.sign(record))
        self.gate.after(lambda: self.published.append(signed))
        return signed

    def certify(self) -> None:
        own = next(leaf.contribution for leaf in LEAVES if leaf.peer == WITNESS)
        for certificate, record, body, signers, mine in (
            (SEATING, SEATING_RECORD, SEATING_BODY, (FOUNDER,), ZERO_HASH),
            (ROUND, ROUND_RECORD, ROUND_BODY, PEERS[:4], own),
        ):
            self.accounting.on_event(Certified(certificate.id, record, body, signatures(record, signers), mine))


@asynccontextmanager
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    with (
        SigningJournal(tmp_path / "journal") as journal,
        Ledger(tmp_path / "ledger", run_id=RUN, domain=DOMAIN) as ledger,
        Ledger.read(tmp_path / "ledger") as reader,
    ):
        made = Peer(tmp_path, ledger, reader, journal)
        try:
            yield made
        finally:
            await made.gate.close()
            await made.books.close()


def on_disk(path: Path) -> list[int]:
    """Epochs of what another process would find in the journal."""
    copy = path / f"copy{time.monotonic_ns()}"
    copy.write_bytes((path / "journal").read_bytes())
    with SigningJournal(copy) as journal:
        return [entry.subject.epoch for entry in journal.entries()]


async def until(what: str, holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.01)


def test_what_is_signed_leaves_in_its_order_once_its_frame_is_on_disk(tmp_path: Path, disk: Disk) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            disk.open.clear()
            said = [made.say(vote) for vote in VOTES[:20]]
            with pytest.raises(Equivocation):  # from memory: no second word, though the first is nowhere yet
                made.notary.sign(RoundVote(RUN, 1, 0, bytes(32), b"\1" * 32))
            await asyncio.sleep(0.1)
            assert made.published == []
            assert not any(made.notary.may_show(signed) for signed in said)
            disk.open.set()
            await made.gate.written()
            assert made.published == said
            assert all(made.notary.may_show(signed) for signed in said)
            assert on_disk(tmp_path) == list(range(1, 21))

    asyncio.run(work())


def test_what_decides_nothing_keeps_its_place_behind_what_does(tmp_path: Path, disk: Disk) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            order: list[str] = []
            made.gate.after(lambda: order.append("at once"))
            assert order == ["at once"]
            disk.open.clear()
            made.say(VOTES[0])
            made.gate.after(lambda: order.append("progress"))
            await asyncio.sleep(0.05)
            assert order == ["at once"]
            disk.open.set()
            await until("the progress", lambda: order == ["at once", "progress"])
            assert len(made.published) == 1

    asyncio.run(work())


def test_nothing_overtakes_what_is_on_disk_and_about_to_leave(tmp_path: Path) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            order: list[str] = []
            made.notary.sign(VOTES[0])
            made.gate.after(lambda: order.append("vote"))
            made.journal.flush()  # and the loop has not heard of it yet
            made.gate.after(lambda: order.append("progress"))
            await until("both", lambda: len(order) == 2)
            assert order == ["vote", "progress"]

    asyncio.run(work())


def test_many_signatures_share_an_fsync_and_the_loop_waits_for_none(tmp_path: Path, disk: Disk) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            disk.open.clear()
            before = disk.count
            for vote in VOTES:
                made.say(vote)  # would never return if it waited for the disk
            disk.open.set()
            await made.gate.written()
            assert disk.count - before <= 3
            assert len(on_disk(tmp_path)) == len(VOTES)

    asyncio.run(work())


def test_who_links_up_is_not_shown_what_the_journal_may_lose(tmp_path: Path, disk: Disk) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            disk.open.clear()
            own = made.say(VOTES[0])
            other = Signed(VOTES[1], PEERS[0], signatures(VOTES[1], PEERS[:1])[0][1])
            history = LedgerHistory(made.reader, lambda: [own, other], may_show=made.notary.may_show)
            assert len(list(history.current())) == 1
            disk.open.set()
            await made.gate.written()
            assert len(list(history.current())) == 2

    asyncio.run(work())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_the_disk_refused_never_leaves(tmp_path: Path, disk: Disk, number: int) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            made.say(VOTES[0])
            await made.gate.written()
            disk.error = number
            made.say(VOTES[1])
            with pytest.raises(DiskError, match="nothing was signed"):
                await made.gate.written()
            assert [signed.record.epoch for signed in made.published] == [1]
            assert isinstance(made.gate.failure, DiskError) and "\n" not in str(made.gate.failure)
            disk.error = 0
            with pytest.raises(DiskError):
                made.say(VOTES[2])
            with pytest.raises(DiskError):
                await made.gate.written()
            made.books.set_tip(ROUND.id)
            await until("the books stop as well", lambda: made.books.failure is not None)
            await made.books.room()

    asyncio.run(work())


def test_a_receipt_leaves_once_ledger_and_journal_hold_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            for leaf in LEAVES:
                made.accounting.on_event(PartsReceived(leaf.contribution, leaf.peer))
            other = sqlite3.connect(tmp_path / "ledger", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")  # somebody else writes: every commit has to wait
            made.certify()
            signed = Signed(receipt(0), PEERS[0], signatures(receipt(0), PEERS[:1])[0][1])
            assert made.accounting.on_receipt(signed)
            await asyncio.sleep(0.2)
            assert made.published == [] and made.books.tip() is None and made.books.num_waiting > 0
            other.execute("ROLLBACK")
            other.close()
            await until("both receipts", lambda: len(made.published) == 2)
            assert made.books.tip() == ROUND.id
            shown = {r.peer: {a for a, _ in r.signatures} for r in made.reader.receipts(ROUND.id)}
            assert shown == {PEERS[0]: {PEERS[0], WITNESS}, WITNESS: {WITNESS}}
            assert on_disk(tmp_path) == [ROUND.epoch, ROUND.epoch]

    asyncio.run(work())


def test_the_ledger_shows_no_own_signature_that_the_journal_may_lose(tmp_path: Path, disk: Disk) -> None:
    """A start compares the two, and refuses where the journal has less."""

    async def work() -> None:
        async with peer(tmp_path) as made:
            disk.open.clear()
            made.notary.sign(ROUND_RECORD)
            made.certify()
            await asyncio.sleep(0.2)
            assert list(made.reader.certificates()) == []
            disk.open.set()
            await until("the certificates", lambda: len(list(made.reader.certificates())) == 2)
            assert ROUND.epoch in on_disk(tmp_path)

    asyncio.run(work())


def test_what_cannot_be_stored_ends_the_books_and_nothing_of_that_commit_leaves(tmp_path: Path) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            made.books.add_receipt(values(receipt(0)), signatures(receipt(0), PEERS[:1]))
            made.books.add_receipt(values(receipt(1)), [(PEERS[1], bytes(65))])
            made.books.after(lambda: made.published.append(VOTES[0]))  # type: ignore[arg-type]
            await until("a failure", lambda: made.books.failure is not None)
            assert made.reader.statistics().receipts in (0, 1)  # the first may have had a commit of its own
            assert made.published == []

    asyncio.run(work())


def test_links_wait_while_too_much_is_to_be_written(tmp_path: Path, disk: Disk) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            await asyncio.wait_for(made.books.room(), 5)
            disk.open.clear()
            made.notary.sign(VOTES[0])
            for _ in range(ROOM + 1000):
                made.books.set_tip(ROUND.id)
            waiting = asyncio.create_task(made.books.room())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            disk.open.set()
            await asyncio.wait_for(waiting, 20)
            assert made.books.num_waiting <= ROOM

    asyncio.run(work())


def test_closing_writes_what_was_added(tmp_path: Path) -> None:
    async def work() -> None:
        async with peer(tmp_path) as made:
            made.certify()
            made.say(VOTES[5])
        assert len(on_disk(tmp_path)) == 2
        await made.gate.close()
        await made.books.close()

    asyncio.run(work())
    with Ledger.read(tmp_path / "ledger") as reader:
        assert reader.tip() == ROUND.id
        assert [r.peer for r in reader.receipts(ROUND.id)] == [WITNESS]
