"""A peer with free keys that says to one of its links, without end, what costs those who hear it: which is written in its `attack` file."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from coincurve import PrivateKey

from incentives import records
from peers.notary import values_of
from swarm.records.commitments import (
    body_hash,
    contributors_root,
    electorate_hash,
    merges_hash,
    parts_root,
    reducers_hash,
)
from swarm.records.types import (
    KIND_ROUND,
    KIND_SEATING,
    NO_ATTEMPT,
    ZERO_HASH,
    Account,
    Content,
    Contribution,
    ContributionContent,
    Hash,
    Merge,
    PartLeaf,
    Record,
    RoundBody,
    RoundCertificate,
    RoundSet,
    SetContent,
    Signed,
)
from swarm.records.wire import pack
from swarm.transport.link import Kind
from tests.faults.runner import FaultyPeer
from tests.machine.cheap import digest

MANY_AVERAGES, MANY_MERGES = 16_000, 4096
QUEUED_BYTES = 2 << 20  # of one link: it says no more than is read


class Words:
    """Signed messages about a run, as somebody with free keys makes them."""

    def __init__(self, peer: "Flooder", count: int) -> None:
        assert peer.made is not None
        self.run_id, self.machine = peer.made.run.run_id, peer.made.machine
        self.count, self.notary = count, peer.made.notary
        self.domain = self.notary._domain
        self.keys: list[PrivateKey] = []

    def key(self, number: int) -> tuple[PrivateKey, Account]:
        """Each signs few enough to keep its place."""
        while len(self.keys) <= number // 60:
            self.keys.append(PrivateKey())
        found = self.keys[number // 60]
        return found, records.account_of(found)

    def signed(self, key: PrivateKey, record: Record, content: Content) -> bytes:
        said = records.digest(self.domain, type(record).__name__, values_of(record))
        return pack(Signed(record, records.account_of(key), records.sign(key, said), content))

    def certificate(self, prev: Hash, before: RoundCertificate, kind: int, body: RoundBody) -> RoundCertificate:
        return RoundCertificate(
            self.run_id, before.epoch + 1, 0, kind, prev, before.next_root, before.next_root,
            contributors_root(body.contributors), 0, 0, before.cumulative_units, electorate_hash(body.electorate),
            body_hash(body),
        )  # fmt: skip

    def seating(
        self, number: int, prev: Hash, before: RoundCertificate, averages: int = 0
    ) -> tuple[RoundCertificate, bytes]:
        key, who = self.key(number)
        body = RoundBody((), (), tuple(digest(number, i) for i in range(averages)), (), 0.0, (who,))
        certificate = self.certificate(prev, before, KIND_SEATING, body)
        return certificate, self.signed(key, certificate, body)

    # -- floods -------------------------------------------------------------------------------------------------------
    def old(self) -> Iterator[bytes]:
        """Seatings on old certificates, as many as there are."""
        lineage = self.machine.lineage
        for number, at in enumerate(list(lineage.ancestors(self.machine.tip))[1:-1][: self.count]):
            yield self.seating(number, at, lineage[at].certificate)[1]

    def nothing(self) -> Iterator[bytes]:
        """Certificates that follow nothing."""
        tip = self.machine.lineage[self.machine.tip].certificate
        for number in range(self.count):
            key, who = self.key(number)
            body = RoundBody((), (), (), (), 0.0, (who,))
            yield self.signed(key, self.certificate(digest("nothing", number), tip, KIND_ROUND, body), body)

    def large(self) -> Iterator[bytes]:
        """Seatings with half a megabyte of averages."""
        tip = self.machine.lineage[self.machine.tip]
        for number in range(self.count):
            yield self.seating(number, tip.id, tip.certificate, MANY_AVERAGES)[1]

    def sets(self) -> Iterator[bytes]:
        """Sets of half a megabyte before their certificate."""
        tip = self.machine.lineage[self.machine.tip].certificate
        for number in range(self.count):
            key, who = self.key(number)
            prev = digest("nothing", number)
            body = RoundBody((), (), tuple(digest(number, i) for i in range(MANY_AVERAGES)), (), 0.0, (who,))
            again = self.certificate(prev, tip, KIND_ROUND, body)
            record = RoundSet(
                self.run_id, again.epoch, 0, prev, contributors_root(()), 0, reducers_hash(()),
                self.notary.certificate_id(again), NO_ATTEMPT,
            )  # fmt: skip
            yield self.signed(key, record, SetContent((), (), again, body))

    def merges(self) -> Iterator[bytes]:
        """Contributions to the round under way with thousands of merges, each of another key."""
        slices = self.machine.rules.num_parts
        merged = tuple(Merge("certificate", digest(i), i) for i in range(MANY_MERGES))
        for number in range(self.count):
            key, who = self.key(60 * number)
            leaves = tuple(PartLeaf(i, 4, digest(number, i), 1.0) for i in range(slices))
            record = Contribution(
                self.run_id, self.machine.epoch, who, self.machine.tip, ZERO_HASH, 0, 1, 0, ZERO_HASH,
                merges_hash(merged), ZERO_HASH, ZERO_HASH, parts_root(leaves), 3,
            )  # fmt: skip
            yield self.signed(key, record, ContributionContent(leaves, merged))

    def chain(self) -> Iterator[bytes]:
        """Seatings one on the other, the newest first."""
        lineage = self.machine.lineage
        at = lineage.path(self.machine.tip)[1]
        before, made = lineage[at].certificate, []
        for number in range(self.count):
            before, data = self.seating(number, at, before)
            at = self.notary.certificate_id(before)
            made.append(data)
        yield from reversed(made)


class Flooder(FaultyPeer):
    """Takes part as any peer does until its `attack` file says {"what", "count"}; `done-…` has the accounts that it made for it."""

    async def _work(self) -> None:
        flood = asyncio.create_task(self._flood())
        try:
            await super()._work()
        finally:
            flood.cancel()

    async def _flood(self) -> None:
        root = self.directory.root
        done: set[Any] = set()
        while True:
            await asyncio.sleep(0.1)
            with contextlib.suppress(OSError, ValueError):
                order = json.loads((root / "attack").read_text())
                if order["what"] in done:
                    continue
                done.add(order["what"])
                words = Words(self, order["count"])
                make: Callable[[], Iterator[bytes]] = getattr(words, order["what"])
                messages = await asyncio.to_thread(lambda make=make: list(make()))
                for data in messages:
                    await self._say(data)
                while any(link.queued_bytes for link in self._links()):
                    await asyncio.sleep(0.05)
                accounts = [records.account_of(key).hex() for key in words.keys]
                (root / "done.part").write_text(json.dumps(accounts))
                (root / "done.part").replace(root / f"done-{order['what']}")

    def _links(self) -> list[Any]:
        """The one that it says everything to, whom the others have to be spared by."""
        assert self.network.links is not None
        return sorted(self.network.links.links.values(), key=lambda link: str(link.account.hex()))[:1]

    async def _say(self, data: bytes) -> None:
        for link in self._links():
            while link.queued_bytes > QUEUED_BYTES and link in self._links():
                await asyncio.sleep(0.01)
            link.put(Kind.MESSAGE, data)
