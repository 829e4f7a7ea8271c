"""The one module of the round with streams and clocks: it feeds `RoundMachine` and carries out what it asks for.

Nothing here decides; nothing here waits for training, and training never waits for anything here. Every wait has a
deadline. All methods run in one asyncio loop; tensors are handled in a worker thread.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from swarm import events
from swarm.averaging import messages, wire
from swarm.averaging.commitments import merges_hash, parts_root
from swarm.averaging.contribution import check_part
from swarm.averaging.machine import RoundMachine
from swarm.averaging.parts import PartStore
from swarm.averaging.progress import swarm_units
from swarm.averaging.records import (
    ZERO_ACCOUNT,
    ZERO_HASH,
    Account,
    CallContent,
    Contribution,
    ContributionContent,
    ContributionReceipt,
    Hash,
    Merge,
    PartLeaf,
    Progress,
    Record,
    SetContent,
    Signed,
)
from swarm.averaging.states import States, reduce_part, weights
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.errors import PeerFault, SwarmError
from swarm.notary import Notary
from swarm.optim.codec import part_slices

log = logging.getLogger(__name__)
PUSH_SECONDS = 20.0
TICK_SECONDS = 0.25
PROGRESS_SECONDS = 0.5
READY_SECONDS = 15.0  # a progress record older than this says nothing


class Network(Protocol):
    """What the driver needs of the transport."""

    def publish(self, data: bytes) -> None:
        """Flood to everyone."""

    def linked(self) -> dict[Account, int]:
        """Accounts with a live link → their flags."""

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        """(header, payload) pairs to one peer; RetryError if it does not take them in time."""

    async def fetch(
        self, accounts: Sequence[Account], digests: Sequence[Hash], max_bytes: int, timeout: float
    ) -> dict[Hash, bytes]:
        """Verified bytes by digest, from whichever of the accounts (or anyone linked) has them; may be incomplete."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """What the trainer hands over at a boundary (PROTOCOL §4): the record's fields that it alone knows, and the bytes."""

    previous: Hash
    first_unit: int
    units: int
    merges: tuple[Merge, ...]
    state_before: Hash
    state_after: Hash
    parts: tuple[bytes, ...]
    leaves: tuple[PartLeaf, ...]


class Member(Protocol):
    """The trainer as the driver sees it. All calls return at once; the trainer acts between two inner steps."""

    async def boundary(self, prev_certificate: Hash) -> Boundary | None:
        """At the next end of a unit; None when something is pending or the anchor is another one."""

    def signed(self, contribution: Hash) -> None:
        """The boundary's contribution has been signed with this hash."""

    def refused(self) -> None:
        """The boundary's contribution could not be kept or signed: it will never be known to anybody."""

    def certified(self, certificate_id: Hash, epoch: int, anchor: Anchor, contributions: frozenset[Hash]) -> None: ...

    def voided(self, certificate_id: Hash, epoch: int) -> None: ...

    def reset(self, certificate_id: Hash, epoch: int, anchor: Anchor) -> None:
        """State lost, joiner or another lineage."""

    def units_done(self) -> int:
        """Since the boundary."""


class AnchorSource(Protocol):
    """Anchors as content: blocks on disk and from other peers, each checked against a certified root."""

    async def load(self, root: Hash) -> Anchor: ...

    async def save(self, anchor: Anchor) -> None: ...


@dataclass(frozen=True, slots=True)
class DriverStatistics:
    epoch: int
    attempt: int
    tip: Hash
    swarm_units: int
    linked: int
    faults: int


class Driver:
    """Runs one peer's part of all rounds. `member` is None at a seed, which trains nothing."""

    def __init__(
        self,
        config: RunConfig,
        notary: Notary,
        machine: RoundMachine,
        network: Network,
        anchors: AnchorSource,
        parts: PartStore,
        member: Member | None,
        emit: Callable[[events.Event], None],
        on_receipt: Callable[[Signed], bool],
        flags: int,
    ) -> None:
        self.config, self.notary, self.machine, self.network = config, notary, machine, network
        self.anchors, self.parts, self.member, self.emit, self.on_receipt = anchors, parts, member, emit, on_receipt
        self.flags = flags
        self.states = States(config)
        self.run_id = config.run_id
        self._pool = ThreadPoolExecutor(1, "averaging")
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[messages.Timer, asyncio.TimerHandle] = {}
        self._contributions: dict[Hash, Signed] = {}
        self._progress: dict[Account, Progress] = {}
        self._own: dict[tuple[Hash, int], Hash] = {}
        self._held: dict[Hash, set[int]] = {}  # contribution → part indices that passed, here
        self._early: dict[Hash, list[tuple[int, bytes]]] = {}  # parts that came before their contribution
        self._received: set[Hash] = set()
        self._call: Signed | None = None
        self._adopting: asyncio.Queue[messages.Adopt] = asyncio.Queue()
        self._epoch_begun = time.monotonic()
        self._sequence = int(time.time() * 1000)
        self._faults = 0
        self._closed = False
        self.anchor: Anchor | None = None
        self.tip: Hash = ZERO_HASH

    # -- life ---------------------------------------------------------------------------------------------------------
    async def start(self, backlog: Sequence[Signed], kept: Sequence[tuple[Record, bytes]]) -> None:
        """Take the initial anchor, restore what was kept and begin. `RetryError` if nobody has the anchor's blocks."""
        self.anchor = await self.anchors.load(bytes.fromhex(self.config.initial_root))
        self.states.put(ZERO_HASH, self.anchor)
        for signed in backlog:
            if isinstance(signed.record, Contribution):
                self._learn(signed)
        for record, keep in kept:
            if isinstance(record, Contribution):
                content = wire.unpack_content(keep)
                self._learn(Signed(record, self.notary.account, self.notary.sign(record, keep), content))
                self._own[record.prev_certificate, record.epoch] = self.notary.hash(record)
        before = self.machine.tip
        actions = self.machine.restore(list(backlog), kept)
        self._restored = True
        self._act(actions)
        while not self._adopting.empty():
            await self._adopt(self._adopting.get_nowait())
        if self.machine.tip == before and self.member is not None:
            self.member.reset(ZERO_HASH, 0, self.anchor)
        self.emit(events.Ready(self.machine.epoch - 1, self.machine.lineage[self.machine.tip].certificate.next_root))
        self._spawn(self._adopt_loop())
        self._spawn(self._tick_loop())

    async def close(self) -> None:
        """Idempotent. Ends all tasks and timers; what is not certified stays pending in the trainer's snapshot."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def statistics(self) -> DriverStatistics:
        return DriverStatistics(
            self.machine.epoch,
            self.machine.attempt,
            self.tip,
            self._swarm_units(),
            len(self.network.linked()),
            self._faults,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)  # asyncio holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except SwarmError as error:
            self._blame(ZERO_ACCOUNT, str(error))
        except Exception:
            log.exception("a task of the round failed")

    def _blame(self, account: Account, reason: str) -> None:
        self._faults += 1
        log.info("fault of %s: %s", account.hex()[:8], reason)
        self.emit(events.Fault(account, reason))

    # -- messages -----------------------------------------------------------------------------------------------------
    def on_message(self, sender: Account, data: bytes) -> bool:
        """A flooded message; whether it may be passed on. Called by the gossip layer in the loop."""
        try:
            signed = wire.unpack(data)
            if (
                signed.record.run_id != self.run_id
                or self.notary.recover(signed.record, signed.signature) != signed.signer
            ):
                raise PeerFault("a record of another run or with a wrong signature")
        except PeerFault as error:
            self._blame(sender, str(error))
            return False
        record = signed.record
        if isinstance(record, Progress):
            old = self._progress.get(signed.signer)
            if old is not None and old.sequence >= record.sequence:
                return False
            self._progress[signed.signer] = record
            return True
        if isinstance(record, ContributionReceipt):
            return self.on_receipt(signed)
        if isinstance(record, Contribution):
            self._learn(signed)
        faults = self._faults
        self._act(self.machine.receive(signed))
        return self._faults == faults

    def _learn(self, signed: Signed) -> None:
        record, content = signed.record, signed.content
        assert isinstance(record, Contribution)
        if not isinstance(content, ContributionContent) or parts_root(content.parts) != record.parts_root:
            return  # the machine says so too
        key = self.notary.hash(record)
        if key not in self._contributions:
            self._contributions[key] = signed
            while len(self._contributions) > 1024:
                gone = next(iter(self._contributions))
                del self._contributions[gone]
                self._held.pop(gone, None)
            for index, payload in self._early.pop(key, []):
                self._take_part(signed.signer, key, index, payload)

    def _act(self, actions: Sequence[messages.Action]) -> None:
        for action in actions:
            if isinstance(action, messages.Send):
                self.network.publish(wire.pack(action.signed))
            elif isinstance(action, messages.SetTimer):
                self._set_timer(action)
            elif isinstance(action, messages.MakeContribution):
                self._call = action.call
                self._spawn(self._contribute(action.call))
            elif isinstance(action, messages.Scatter):
                self._spawn(self._scatter(action.call))
            elif isinstance(action, messages.Collect):
                self._call = action.call
                self._spawn(self._collect(action.call))
            elif isinstance(action, messages.ReduceSet):
                self._spawn(self._reduce(action.proposal))
            elif isinstance(action, messages.FetchAverages):
                self._spawn(self._prepare(action.proposal, action.averages))
            elif isinstance(action, messages.Adopt):
                self._adopting.put_nowait(action)
            elif isinstance(action, messages.Blame):
                self._blame(action.account, action.reason)

    def _set_timer(self, action: messages.SetTimer) -> None:
        timer = action.timer
        old = self._timers.pop(timer, None)
        if old is not None:
            old.cancel()

        def fire() -> None:
            self._timers.pop(timer, None)
            if not self._closed:
                self._act(self.machine.timeout(timer))

        self._timers[timer] = asyncio.get_running_loop().call_later(action.seconds, fire)

    # -- own progress -------------------------------------------------------------------------------------------------
    def _swarm_units(self) -> int:
        units = {a: p.units for a, p in self._progress.items() if p.prev_certificate == self.tip}
        if self.member is not None:
            units[self.notary.account] = self.member.units_done()
        return swarm_units(units, self.config.rounds.max_units_per_contribution)

    def _ready(self) -> dict[Account, int]:
        """Linked peers that said of late that they train on about the newest anchor. One that is ahead counts (its word comes
        before its certificate), one that is still catching up does not."""
        linked = self.network.linked()
        old = (time.time() - READY_SECONDS) * 1000
        return {
            account: progress.flags
            for account, progress in self._progress.items()
            if account in linked and progress.epoch >= self.machine.epoch - 2 and progress.sequence >= old
        }

    async def _tick_loop(self) -> None:
        said = (ZERO_HASH, -1)
        spoke = 0.0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._act(self.machine.ready(self._ready()))
            if self.member is not None and self.anchor is not None:
                now = (self.tip, self.member.units_done())
                if (
                    now != said and time.monotonic() - spoke > TICK_SECONDS
                ) or time.monotonic() - spoke > 6 * PROGRESS_SECONDS:
                    said, spoke = now, time.monotonic()
                    self._sequence = max(self._sequence + 1, int(time.time() * 1000))
                    record = Progress(self.run_id, self.machine.epoch, self.tip, now[1], self._sequence, self.flags)
                    self.network.publish(wire.pack(Signed(record, self.notary.account, self.notary.sign(record))))
            rounds = self.config.rounds
            late = time.monotonic() - self._epoch_begun > rounds.epoch_deadline_seconds
            if self.anchor is not None and (late or self._swarm_units() >= rounds.units_per_epoch):
                self._act(self.machine.due())

    async def _contribute(self, call: Signed) -> None:
        if self.member is None:
            return
        prev = call.record.prev_certificate  # type: ignore[union-attr]
        deadline = time.monotonic() + self.config.rounds.contribute_seconds
        made = await self.member.boundary(prev)
        while made is None:  # the certificate before may still be on its way to the trainer
            await asyncio.sleep(0.05)
            if self.machine.tip != prev or time.monotonic() > deadline:
                return
            made = await self.member.boundary(prev)
        try:
            for part in made.parts:
                await asyncio.to_thread(self.parts.keep, part)
        except SwarmError as error:
            self._blame(self.notary.account, str(error))
            self.member.refused()
            return
        record = Contribution(
            self.run_id,
            call.record.epoch,
            self.notary.account,
            prev,
            made.previous,
            made.first_unit,
            made.units,
            0,
            ZERO_HASH,
            merges_hash(made.merges),
            made.state_before,
            made.state_after,
            parts_root(made.leaves),
            self.flags,
        )
        content = ContributionContent(made.leaves, made.merges)
        try:
            signed = Signed(record, self.notary.account, self.notary.sign(record, wire.pack_content(content)), content)
        except SwarmError as error:
            self._blame(self.notary.account, str(error))
            self.member.refused()
            return
        key = self.notary.hash(record)
        self.member.signed(key)
        self._own[(prev, record.epoch)] = key
        while len(self._own) > 64:
            self._own.pop(next(iter(self._own)))
        self._learn(signed)
        self._held[key] = {leaf.index for leaf in made.leaves}
        self.emit(events.Contributed(signed))
        self._act(self.machine.contributed(signed))

    # -- scatter and collect ------------------------------------------------------------------------------------------
    async def _scatter(self, call: Signed) -> None:
        key = self._own.get((call.record.prev_certificate, call.record.epoch))  # type: ignore[union-attr]
        own = self._contributions.get(key) if key else None
        if own is None or key is None:
            return
        assert isinstance(own.content, ContributionContent)
        assert isinstance(call.content, CallContent)
        reducers = call.content.reducers
        for position, reducer in enumerate(reducers):
            if reducer == self.notary.account:
                continue
            payload = []
            for leaf in own.content.parts:
                if leaf.index % len(reducers) == position:
                    data = self.parts.get(leaf.digest)
                    if data is not None:
                        payload.append((key + leaf.index.to_bytes(4, "big"), data))
            if payload:
                self._spawn(self.network.push_parts(reducer, payload, PUSH_SECONDS))
        self._reconsider(key)

    def on_part(self, sender: Account, header: bytes, payload: bytes) -> str:
        """A pushed part; "" or why it was refused. The sender may be any member: the digest decides."""
        if len(header) != 36:
            return "header: 36 bytes expected"
        key, index = header[:32], int.from_bytes(header[32:], "big")
        if key not in self._contributions:
            early = self._early.setdefault(key, [])
            if len(self._early) > 64 or len(early) > 4096:
                self._early.pop(next(iter(self._early)))
                return "too many parts of unknown contributions"
            early.append((index, payload))
            return ""
        return self._take_part(sender, key, index, payload)

    def _take_part(self, sender: Account, key: Hash, index: int, payload: bytes) -> str:
        content = self._contributions[key].content
        assert isinstance(content, ContributionContent)
        if index in self._held.get(key, set()):
            return ""
        try:
            if not 0 <= index < len(content.parts) or self.anchor is None:
                raise PeerFault(f"part {index}: the contribution has {len(content.parts)} parts")
            slices = part_slices(self.anchor.parameters.numel(), self.config.codec.part_values)
            if len(content.parts) != len(slices):
                raise PeerFault(f"parts: {len(content.parts)} given, the model has {len(slices)}")
            size = slices[index].stop - slices[index].start
            check_part(content.parts[index], payload, size, self.config.codec.contribution)
        except PeerFault as error:
            self._blame(sender, str(error))
            return str(error)
        self.parts.put(payload)
        self._held.setdefault(key, set()).add(index)
        self._reconsider(key)
        return ""

    async def _collect(self, call: Signed) -> None:
        """As reducer: parts that are here already count; missing ones are asked for from whoever holds them."""
        for key in list(self._contributions):
            self._reconsider(key)
        while self._call is call and call.record.prev_certificate == self.tip:  # type: ignore[union-attr]
            await asyncio.sleep(1.0)
            for key, signed in list(self._contributions.items()):
                if signed.record.prev_certificate != self.tip:  # type: ignore[union-attr]
                    continue
                missing = self._missing(call, key)
                if missing:
                    assert isinstance(signed.content, ContributionContent)
                    digests = [signed.content.parts[i].digest for i in missing]
                    size = sum(signed.content.parts[i].length for i in missing)
                    found = await self.network.fetch([signed.signer], digests, size, 10.0)
                    for i in missing:
                        if signed.content.parts[i].digest in found:
                            self._take_part(signed.signer, key, i, found[signed.content.parts[i].digest])

    def _missing(self, call: Signed, key: Hash) -> list[int]:
        content = self._contributions[key].content
        assert isinstance(content, ContributionContent)
        assert isinstance(call.content, CallContent)
        reducers = call.content.reducers
        if self.notary.account not in reducers:
            return []
        mine = reducers.index(self.notary.account)
        held = self._held.get(key, set())
        return [leaf.index for leaf in content.parts if leaf.index % len(reducers) == mine and leaf.index not in held]

    def _reconsider(self, key: Hash) -> None:
        call = self._call
        if (
            call is None
            or not isinstance(call.content, CallContent)
            or self.notary.account not in call.content.reducers
        ):
            return
        signed = self._contributions[key]
        if signed.record.prev_certificate != call.record.prev_certificate or self._missing(call, key):  # type: ignore[union-attr]
            return
        if key not in self._received and signed.signer != self.notary.account:
            self._received.add(key)
            self.emit(events.PartsReceived(key, signed.signer))
        complete = frozenset(
            k
            for k, s in self._contributions.items()
            if s.record.prev_certificate == call.record.prev_certificate and not self._missing(call, k)  # type: ignore[union-attr]
        )
        self._act(self.machine.report(complete))

    # -- averages -----------------------------------------------------------------------------------------------------
    def _previous_median(self, prev: Hash) -> float:
        body = self.machine.body(prev)
        return 0.0 if body is None else body.median_norm

    async def _reduce(self, proposal: Signed) -> None:
        content = proposal.content
        assert isinstance(content, SetContent)
        if self.anchor is None or self.notary.account not in content.reducers:
            return
        slices = part_slices(self.anchor.parameters.numel(), self.config.codec.part_values)
        contributions = [self._contributions[leaf.contribution] for leaf in content.contributors]
        contents = [c.content for c in contributions if isinstance(c.content, ContributionContent)]
        prev = proposal.record.prev_certificate  # type: ignore[union-attr]
        max_units = self.config.rounds.max_units_per_contribution
        factors = weights(content.contributors, contents, self._previous_median(prev), max_units).factors
        mine = content.reducers.index(self.notary.account)
        loop = asyncio.get_running_loop()
        for index, where in enumerate(slices):
            if index % len(content.reducers) != mine:
                continue
            wires = [self.parts.get(c.parts[index].digest) for c in contents]
            if any(w is None for w in wires):
                return
            size = where.stop - where.start
            data = await loop.run_in_executor(
                self._pool,
                reduce_part,
                self.config,
                size,
                content.contributors,
                [w for w in wires if w is not None],
                factors,
            )
            digest = self.parts.put(data)
            self._act(self.machine.averaged(proposal, index, len(data), digest))

    async def _prepare(self, proposal: Signed, averages: Sequence[tuple[Hash, Account]]) -> None:
        """Get every average of the set, take the outer step, tell the machine the certificate that follows."""
        content, record = proposal.content, proposal.record
        assert isinstance(content, SetContent)
        prev: Hash = record.prev_certificate  # type: ignore[union-attr]
        anchor = self.states.get(prev)
        if anchor is None:
            return
        digests = [digest for digest, _ in averages]
        holders = [holder for _, holder in averages]
        data = await self._gather(digests, holders)
        if data is None:
            return
        contents = []
        for leaf in content.contributors:
            known = self._contributions.get(leaf.contribution)
            if known is None or not isinstance(known.content, ContributionContent):
                return
            contents.append(known.content)
        max_units = self.config.rounds.max_units_per_contribution
        found = weights(content.contributors, contents, self._previous_median(prev), max_units)
        units = sum(min(leaf.units, max_units) for leaf in content.contributors)
        new, root = await asyncio.get_running_loop().run_in_executor(
            self._pool, self.states.next_state, anchor, data, units
        )
        actions, identity = self.machine.prepared(proposal, tuple(digests), found.factors, found.median, root, units)
        self.states.put(identity, new)
        self._act(actions)

    async def _gather(self, digests: Sequence[Hash], holders: Sequence[Account]) -> list[bytes] | None:
        deadline = time.monotonic() + self.config.rounds.average_seconds + self.config.rounds.vote_seconds
        have: dict[Hash, bytes] = {}
        while True:
            for digest in digests:
                local = None if digest in have else self.parts.get(digest)
                if local is not None:
                    have[digest] = local
            missing = [d for d in digests if d not in have]
            if not missing:
                return [have[d] for d in digests]
            if time.monotonic() > deadline:
                return None
            by_holder: dict[Account, list[Hash]] = {}
            for digest, holder in zip(digests, holders or [ZERO_ACCOUNT] * len(digests), strict=True):
                if digest in missing:
                    by_holder.setdefault(holder, []).append(digest)
            results = await asyncio.gather(
                *(self.network.fetch([h], wanted, 64 * 2**20, 10.0) for h, wanted in by_holder.items()),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, dict):
                    for digest, payload in result.items():
                        self.parts.put(payload)
                        have[digest] = payload
            if any(d not in have for d in digests):
                await asyncio.sleep(0.3)

    # -- adopting -----------------------------------------------------------------------------------------------------
    async def _adopt_loop(self) -> None:
        """Certificates are applied one after the other, in order; the trainer merges each at its next inner step."""
        while True:
            action = await self._adopting.get()
            try:
                await self._adopt(action)
            except SwarmError as error:
                self._blame(ZERO_ACCOUNT, f"cannot follow the lineage yet: {error}")
                await asyncio.sleep(1.0)
                self._adopting.put_nowait(action)

    async def _adopt(self, action: messages.Adopt) -> None:
        if action.undone:
            self.emit(events.Undone(tuple(action.undone)))
        reset = bool(action.undone) or self.anchor is None
        for entry in action.path:
            anchor = self.states.get(entry.id)
            if anchor is None and not reset and entry.certificate.next_root == entry.certificate.prev_root:
                anchor = self.anchor
            if anchor is None and not reset and entry is not action.path[-1] and len(action.path) > 2:
                reset = True  # far behind: the newest anchor is enough
            if anchor is None and entry is action.path[-1]:
                anchor = await self.anchors.load(entry.certificate.next_root)
            if anchor is not None:
                self.states.put(entry.id, anchor)
            self._announce(entry)
            if anchor is not None and not reset:
                await self._merge(entry, anchor)
        last = action.path[-1]
        if reset:
            anchor = self.states.get(last.id)
            if anchor is None:
                anchor = await self.anchors.load(last.certificate.next_root)
                self.states.put(last.id, anchor)
            self.anchor, self.tip = anchor, last.id
            if self.member is not None:
                self.member.reset(last.id, last.certificate.epoch, anchor)
        self._epoch_begun = time.monotonic()
        self._received &= set(self._contributions)
        if self.anchor is not None:
            await self.anchors.save(self.anchor)

    async def _merge(self, entry: messages.CertifiedEntry, anchor: Anchor) -> None:
        self.anchor, self.tip = anchor, entry.id
        if self.member is None:
            return
        if entry.certificate.kind == 0 and not entry.body.contributors:
            self.emit(events.Voided(entry.certificate.epoch))
            self.member.voided(entry.id, entry.certificate.epoch)
        else:
            self.member.certified(
                entry.id,
                entry.certificate.epoch,
                anchor,
                frozenset(leaf.contribution for leaf in entry.body.contributors),
            )

    def _announce(self, entry: messages.CertifiedEntry) -> None:
        own = next((x.contribution for x in entry.body.contributors if x.peer == self.notary.account), ZERO_HASH)
        self.emit(events.Certified(entry.id, entry.certificate, entry.body, tuple(entry.signatures), own))


__all__ = ["AnchorSource", "Boundary", "Driver", "DriverStatistics", "Member", "Network"]
