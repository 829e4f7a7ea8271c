"""How long a peer's event loop is held up by its books, with a slow disk and many peers.

    .venv/bin/python -m benchmarks.loop_latency                    # both ways, 64 peers, an fsync of 50 ms
    .venv/bin/python -m benchmarks.loop_latency --fsync-ms 0       # the disk as it is

One real driver with round machine, accounting, ledger, journal and history; 63 peers are keys whose messages were signed before:
in each epoch every one of them sends progress, a contribution, a vote, the certificate, its receipt, and those that it witnesses, all
at once; this peer is a drawn witness of everybody and signs what a reducer with four parts signs. Each peer's messages come in their
order, the next one once the one before is through, as on a link. Left out: sockets, tensors, training, copies of a message by other links.

Emulated: `os.fsync` (the journal's) and the ledger's commit take at least `--fsync-ms`, by a sleep after the real one. sqlite's further
fsyncs at its checkpoints are the disk's own.

"in the loop" is how it was before docs/decisions/0012: the same parts, with signatures checked, the journal fsynced and each receipt
committed where the message is taken. "nothing" is a loop that only waits: what the machine's other load does to any timer. Prints one
line each: how late a timer of 5 ms was, and its p99 without the time for which the loop's thread could have run and had no processor
(Linux: /proc/thread-self/schedstat). A stop of a second counts as all the timers that it delayed, not as one.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch
from coincurve import PrivateKey

from incentives import records
from incentives.checks import drawn_witnesses
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.accounting import Accounting
from peers.books import Books
from peers.gate import Gate, GatedNetwork
from peers.history import LedgerHistory
from peers.notary import JournalNotary, values_of
from swarm import events
from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine, RunRules
from swarm.hashing import sha256
from swarm.models.layout import Layout
from swarm.records import wire
from swarm.records.commitments import (
    body_hash,
    complete_hash,
    contributors_root,
    electorate_hash,
    merges_hash,
    parts_root,
)
from swarm.records.types import (
    KIND_ROUND,
    KIND_SEATING,
    ZERO_HASH,
    Account,
    Average,
    Content,
    Contribution,
    ContributionContent,
    ContributionReceipt,
    ContributorLeaf,
    Hash,
    PartLeaf,
    Progress,
    Record,
    ReducerReport,
    ReportContent,
    RoundBody,
    RoundCertificate,
    RoundVote,
    Signed,
)

DOMAIN = records.Domain(31337, b"\x88" * 20)
PART_VALUES, NUM_PARTS = 256, 4
BEAT_SECONDS = 0.005
SETTLE_SECONDS, CONTROL_SECONDS = 600.0, 5.0


def run_config() -> RunConfig:
    return RunConfig.parse(
        {
            "name": "books",
            "initial_root": "01" * 32,
            "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
            "codec": {"contribution": "float32", "average": "float32", "part_values": PART_VALUES},
            "rounds": {"units_per_epoch": 1_000_000, "epoch_deadline_seconds": 3600.0, "contribute_seconds": 600.0},
        }
    )


@dataclass(frozen=True)
class Epoch:
    """What happens in one, by the peer that sends it."""

    certificate: RoundCertificate
    id: Hash
    body: RoundBody
    messages: tuple[dict[Account, list[bytes]], ...]  # in steps; a step begins when the one before is through
    own: tuple[tuple[Record, Content], ...]  # what this peer signs in the round


class Script:
    """A run of `num_peers`, its first certificate and as many epochs as are asked for. The first of the peers is the one that is
    measured."""

    def __init__(self, num_peers: int, witnesses: int) -> None:
        self.run, self.witnesses = run_config(), witnesses
        keys = [PrivateKey(sha256(b"peer" + number.to_bytes(4, "big"))) for number in range(num_peers + 1)]
        self.founder = records.account_of(keys.pop())
        self.keys = {records.account_of(key): key for key in keys}
        self._founder_key = PrivateKey(sha256(b"peer" + num_peers.to_bytes(4, "big")))
        self.accounts = tuple(sorted(self.keys))
        self.me = self.accounts[0]
        root = bytes.fromhex(self.run.initial_root)
        body = RoundBody((), (), (), (), 0.0, self.accounts)
        self.seating = RoundCertificate(
            self.run.run_id, 1, 0, KIND_SEATING, ZERO_HASH, root, root, contributors_root(()), 0, 0, 0,
            electorate_hash(self.accounts), body_hash(body),
        )  # fmt: skip
        self.first = self.message(self._founder_key, self.seating, body)
        self._last, self._units = self.seating, 0

    def message(self, key: PrivateKey, record: Record, content: Content = None) -> bytes:
        signature = records.sign(key, records.digest(DOMAIN, type(record).__name__, values_of(record)))
        return wire.pack(Signed(record, records.account_of(key), signature, content))

    def _contribution(self, peer: Account, epoch: int, prev: Hash) -> tuple[Contribution, ContributionContent]:
        leaves = tuple(
            PartLeaf(index, 4 * PART_VALUES, sha256(peer + bytes([epoch, index])), 1.0) for index in range(NUM_PARTS)
        )
        record = Contribution(
            self.run.run_id, epoch, peer, prev, ZERO_HASH, 4 * (epoch - 2), 4, 0, ZERO_HASH, merges_hash(()),
            sha256(peer), sha256(peer), parts_root(leaves), 3,
        )  # fmt: skip
        return record, ContributionContent(leaves, ())

    def next_epoch(self) -> Epoch:
        prev, epoch = records.certificate_id(values_of(self._last)), self._last.epoch + 1
        run_id = self.run.run_id
        made = {peer: self._contribution(peer, epoch, prev) for peer in self.accounts}
        hashes = {p: records.hash_struct("Contribution", values_of(record)) for p, (record, _) in made.items()}
        leaves = tuple(ContributorLeaf(p, hashes[p], made[p][0].units, 3) for p in self.accounts)
        reducers = self.accounts[: self.run.rounds.max_reducers]
        averages = tuple(sha256(bytes([epoch, part])) for part in range(NUM_PARTS))
        body = RoundBody(leaves, reducers, averages, (1.0,) * len(leaves), 1.0, self.accounts)
        units = sum(leaf.units for leaf in leaves)
        self._units += units
        certificate = replace(
            self.seating, epoch=epoch, kind=KIND_ROUND, prev_certificate=prev, contributors_root=contributors_root(leaves),
            num_contributors=len(leaves), units=units, cumulative_units=self._units, body=body_hash(body),
        )  # fmt: skip
        identity = records.certificate_id(values_of(certificate))
        self._last = certificate
        contribute, certify, pay = ({p: list[bytes]() for p in self.accounts if p != self.me} for _ in range(3))
        vote = RoundVote(run_id, epoch, 0, prev, identity)
        for peer, (record, content) in made.items():
            if peer == self.me:
                continue
            key = self.keys[peer]
            contribute[peer].append(self.message(key, Progress(run_id, epoch, prev, 4, epoch, 3)))
            contribute[peer].append(self.message(key, record, content))
            certify[peer].append(self.message(key, vote))
            certify[peer].append(self.message(key, certificate, body))
        for leaf in leaves:
            receipt = ContributionReceipt(run_id, epoch, leaf.peer, leaf.units, leaf.contribution, identity)
            for signer in (leaf.peer, *drawn_witnesses(body, leaf.peer, self.witnesses)):
                if signer != self.me:
                    pay[signer].append(self.message(self.keys[signer], receipt))
        complete = tuple(sorted(hashes.values()))
        own: list[tuple[Record, Content]] = [
            (ReducerReport(run_id, epoch, 0, prev, complete_hash(complete)), ReportContent(complete)),
            *(
                (Average(run_id, epoch, 0, prev, ZERO_HASH, part, 1024, averages[part]), None)
                for part in range(NUM_PARTS)
            ),
            (vote, None),
            (certificate, body),
        ]
        return Epoch(certificate, identity, body, (contribute, certify, pay), tuple(own))


class Anchors:
    """Implements `swarm.averaging.member.AnchorSource`."""

    async def load(self, root: Hash, is_obsolete: Callable[[], bool]) -> Anchor:
        return Anchor(torch.zeros(8), torch.zeros(8), Layout(("weight",), ((8,),)), 0, 0)

    async def save(self, anchor: Anchor) -> None: ...


class Outside:
    """Implements `swarm.averaging.delivery.Network`: everybody is linked, what is published is handed on, parts are nobody's."""

    def __init__(self, accounts: Sequence[Account], publish: Callable[[bytes], None]) -> None:
        self._accounts, self._publish = accounts, publish

    def publish(self, data: bytes, again: bool = False) -> None:
        self._publish(data)

    def linked(self) -> dict[Account, int]:
        return dict.fromkeys(self._accounts, 3)

    def unreached(self) -> set[Account]:
        return set()

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None: ...

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Callable[[Hash, bytes], None] = lambda digest, data: None,
    ) -> dict[Hash, bytes]:
        await asyncio.sleep(timeout)
        return {}


class SlowLedger(Ledger):
    """A commit takes at least so long."""

    commit_seconds = 0.0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            is_outer = not self._db.in_transaction
            begun = time.monotonic()
            with super()._transaction():
                yield
                begun = time.monotonic()
            if is_outer:
                time.sleep(max(0.0, self.commit_seconds - (time.monotonic() - begun)))


@contextlib.contextmanager
def slow_fsync(seconds: float) -> Iterator[None]:
    real = os.fsync

    def fsync(fd: Any) -> None:
        begun = time.monotonic()
        real(fd)
        time.sleep(max(0.0, seconds - (time.monotonic() - begun)))

    os.fsync = fsync
    SlowLedger.commit_seconds = seconds
    try:
        yield
    finally:
        os.fsync = real
        SlowLedger.commit_seconds = 0.0


class Desk:
    """The measured peer, put together as `peers.assembly` does, or as it was before."""

    def __init__(self, script: Script, driver: Driver, accounting: Accounting, history: LedgerHistory) -> None:
        self.script, self.driver, self.accounting, self.history = script, driver, accounting, history
        self.books: Books | None = None
        self.gate: Gate | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, directory: Path, script: Script, publish: Callable[[bytes], None], in_the_loop: bool = False
    ) -> AsyncIterator["Desk"]:
        async with contextlib.AsyncExitStack() as stack:
            outside = Outside(script.accounts, publish)
            journal = stack.enter_context(SigningJournal(directory / "journal"))
            gate = None if in_the_loop else Gate(journal)
            notary = JournalNotary(script.keys[script.me], DOMAIN, journal, gate)
            ledger = stack.enter_context(
                SlowLedger(directory / "ledger.sqlite", run_id=script.run.run_id, domain=DOMAIN)
            )
            reader = stack.enter_context(Ledger.read(directory / "ledger.sqlite"))
            books = None if in_the_loop else Books(ledger, reader, journal)
            rules = RunRules.of(script.run, (script.founder,), PART_VALUES * NUM_PARTS)
            machine = RoundMachine(notary, rules)

            def publish_receipt(signed: Signed) -> None:
                if books is None:
                    outside.publish(wire.pack(signed))
                else:
                    books.after(lambda: outside.publish(wire.pack(signed)))

            accounting = Accounting(
                notary, ledger if books is None else books, script.witnesses, publish_receipt, machine.certified_body
            )
            driver = Driver(
                script.run,
                notary,
                machine,
                outside if gate is None else GatedNetwork(outside, gate),
                Anchors(),
                Reception(script.run, PART_VALUES * NUM_PARTS, PartStore(directory / "parts"), notary.hash),
                None,
                accounting.on_event,
                accounting.on_receipt,
                3,
            )
            if gate is not None and books is not None:
                stack.push_async_callback(gate.close)
                stack.push_async_callback(books.close)
            stack.push_async_callback(driver.close)
            made = cls(
                script,
                driver,
                accounting,
                LedgerHistory(reader, machine.current_messages, machine.certificates_since, notary.may_show),
            )
            made.books, made.gate = books, gate
            await driver.start([], [])
            yield made

    async def hear(self, sender: Account, data: bytes) -> None:
        """As the link of `sender` does."""
        if self.books is not None:
            await self.books.room()
            await self.driver.on_message(sender, data)
            return
        signed = wire.unpack(data)  # where it was checked before
        assert self.driver.notary.recover(signed.record, signed.signature) == signed.signer
        self.driver._take(sender, signed)

    def say(self, record: Record, content: Content) -> None:
        """As the round machine and its driver do."""
        notary = self.driver.notary
        signature = notary.sign(record, wire.pack_content(content))
        self.driver.network.publish(wire.pack(Signed(record, notary.account, signature, content)))

    async def play(self, epoch: Epoch) -> None:
        """One epoch, until all of it is in the books."""
        contribute, certify, pay = epoch.messages
        await self._step(contribute)
        for leaf in epoch.body.contributors:
            self.accounting.on_event(events.PartsReceived(leaf.contribution, leaf.peer))
        for record, content in epoch.own:
            self.say(record, content)
            await asyncio.sleep(0)
        await self._step(certify)
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.driver.follower.tip != epoch.id:
            assert time.monotonic() < deadline and self.driver.failure is None, self.driver.failure
            await asyncio.sleep(0.05)
        await self._step(pay)
        while not self.is_through():
            assert time.monotonic() < deadline, "the books are not written in time"
            await asyncio.sleep(0.05)

    async def _step(self, by_peer: dict[Account, list[bytes]]) -> None:
        async def link(sender: Account, messages: Sequence[bytes]) -> None:
            for data in messages:
                await self.hear(sender, data)
                await asyncio.sleep(0)

        await asyncio.gather(*(link(sender, messages) for sender, messages in by_peer.items()))

    def is_through(self) -> bool:
        written = self.books is None or self.gate is None or not (self.books.num_waiting or self.gate.num_waiting)
        return written and self.accounting.is_quits()


@dataclass
class Beats:
    """How late short timers were, in seconds; and how late without waiting for a processor."""

    late: list[float] = field(default_factory=list)
    held_up: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            begun, without = time.monotonic(), _waited_for_a_processor()
            await asyncio.sleep(BEAT_SECONDS)
            delay = max(0.0, time.monotonic() - begun - BEAT_SECONDS)
            _spread(delay, self.late)
            _spread(max(0.0, delay - (_waited_for_a_processor() - without)), self.held_up)

    def __str__(self) -> str:
        cuts, net = statistics.quantiles(self.late, n=1000), statistics.quantiles(self.held_up, n=1000)
        return " ".join(f"{1000 * x:9.1f}" for x in (cuts[499], cuts[989], max(self.late), net[989]))


def _spread(delay: float, found: list[float]) -> None:
    """Of a long stop, each timer that it held up."""
    found.append(delay)
    while (delay := delay - BEAT_SECONDS) > 0:
        found.append(delay)


def _waited_for_a_processor() -> float:
    """Seconds of this thread so far; 0 where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
    except OSError:
        return 0.0


async def measure_nothing() -> str:
    beats = Beats()
    beating = asyncio.create_task(beats.run())
    await asyncio.sleep(CONTROL_SECONDS)
    beating.cancel()
    return f"{'nothing':12} {beats}"


async def measure(directory: Path, peers: int, epochs: int, witnesses: int, in_the_loop: bool) -> str:
    published = 0

    def publish(data: bytes) -> None:
        nonlocal published
        published += 1

    script, beats = Script(peers, witnesses), Beats()
    played = [script.next_epoch() for _ in range(epochs)]
    async with Desk.open(directory, script, publish, in_the_loop) as desk:
        await desk.hear(script.founder, script.first)
        beating = asyncio.create_task(beats.run())
        begun = time.monotonic()
        for epoch in played:
            await desk.play(epoch)
        seconds = (time.monotonic() - begun) / epochs
        beating.cancel()
    with Ledger.read(directory / "ledger.sqlite") as ledger:
        found = ledger.statistics()
    assert found.receipts == peers * epochs, f"{found.receipts} receipts of {peers * epochs}"
    way = "in the loop" if in_the_loop else "beside it"
    return f"{way:12} {beats} {seconds:12.1f} {found.receipts:9} {found.signatures:11} {published:10}"


@click.command()
@click.option("--peers", default=64, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--witnesses", default=3, show_default=True)
@click.option("--fsync-ms", default=50.0, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), help="Where the books lie; default: a temporary one.")
def main(peers: int, epochs: int, witnesses: int, fsync_ms: float, directory: Path | None) -> None:
    """Measure the loop's delay with the books in it and beside it."""
    with tempfile.TemporaryDirectory(dir=directory) as root, slow_fsync(fsync_ms / 1000):
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"{peers} peers, {epochs} epochs, {witnesses} witnesses, fsync {fsync_ms:g} ms, load {load}")
        print("books           p50 ms    p99 ms    max ms   net p99  s per epoch  receipts  signatures  published")
        print(asyncio.run(measure_nothing()), flush=True)
        for in_the_loop in (True, False):
            place = Path(root) / str(in_the_loop)
            place.mkdir()
            print(asyncio.run(measure(place, peers, epochs, witnesses, in_the_loop)), flush=True)


if __name__ == "__main__":
    main()
