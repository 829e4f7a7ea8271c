"""The round's messages, clocks and tasks: it feeds `RoundMachine` and carries out what it asks for; `delivery` brings the bytes.

Nothing here decides; nothing here waits for training, and training never waits for anything here. Every wait has a
deadline. All methods run in one asyncio loop; tensors are handled in a worker thread.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from swarm import events
from swarm.averaging.averages import Averages
from swarm.averaging.delivery import Delivery, Network
from swarm.averaging.follow import Follower
from swarm.averaging.inbox import Inbox
from swarm.averaging.member import AnchorSource, Boundary, Member
from swarm.averaging.reception import Reception
from swarm.averaging.states import States
from swarm.cancelling import cancel_all
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.consensus.actions import (
    Action,
    Adopt,
    Blame,
    Collect,
    Expose,
    FetchAverages,
    MakeContribution,
    Recheck,
    Redo,
    ReduceSet,
    Scatter,
    Send,
    SetTimer,
    Timer,
)
from swarm.consensus.machine import RoundMachine
from swarm.consensus.progress import ProgressBook, swarm_units
from swarm.errors import DiskError, ForgottenSignature, PeerFault, RetryError, SwarmError
from swarm.pace import Pace
from swarm.records import wire
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.notary import Notary
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    ZERO_ACCOUNT,
    ZERO_HASH,
    Account,
    Contribution,
    ContributionContent,
    ContributionReceipt,
    Hash,
    Progress,
    Record,
    Signed,
    SignedCall,
    StorageReceipt,
)

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25
NUDGE_SECONDS = 0.02  # between two looks at what is due, at least
SAY_SECONDS = 0.25  # between two words on progress, at least
PENDING_SECONDS = 0.05
PROGRESS_SECONDS = 0.5
FAULTS_PER_SECOND, FAULTS_AT_ONCE = 2.0, 100.0  # that are told; strangers can send thousands a second


@dataclass(frozen=True, slots=True)
class DriverStatistics:
    epoch: int
    attempt: int
    tip: Hash
    swarm_units: int
    linked: int
    faults: int
    clock: int  # of the run, in units


class Driver:
    """Runs one peer's part of all rounds. `member` is None at a seed, which trains nothing."""

    def __init__(
        self,
        config: RunConfig,
        notary: Notary,
        machine: RoundMachine,
        network: Network,
        anchors: AnchorSource,
        reception: Reception,
        member: Member | None,
        emit: Callable[[events.Event], None],
        on_receipt: Callable[[Signed], bool],
        flags: int,
        pace: Pace | None = None,
        on_storage: Callable[[Signed], bool] | None = None,
    ) -> None:
        self.config, self.notary, self.machine, self.network = config, notary, machine, network
        self.anchors, self.member, self.emit, self.on_receipt = anchors, member, emit, on_receipt
        self.on_storage = on_storage  # None: the run pays nobody for storing
        self.reception, self.parts = reception, reception.parts
        self.flags, self.pace = flags, pace or Pace()
        self.states = States(config)
        self.delivery = Delivery(config, machine, network, reception, self)
        self.run_id = config.run_id
        self.inbox = Inbox(notary, config.run_id)
        self.averages = Averages(config, machine, self.states, reception, self.delivery, self._act, self.blame, emit)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self.progress = ProgressBook(time.monotonic)
        self._own: dict[tuple[Hash, int], Hash] = {}
        self._received: set[Hash] = set()
        self._sequence = int(time.time() * 1000)
        self._said, self._spoke = (ZERO_HASH, -1, 0), 0.0  # of progress, and when
        self._nudged = asyncio.Event()  # something may be due before the next tick
        self._faults = 0
        self._telling, self._told_at = FAULTS_AT_ONCE, time.monotonic()
        self._closed = False
        # Of a task that may not end, or of the disk: the peer is to be started again.
        self.failure: BaseException | None = None
        self.follower = Follower(config, notary.account, self.states, anchors, member, emit, self.delivery.gather)

    @property
    def anchor(self) -> Anchor | None:
        """Of the newest certificate that has been applied here; None while it is being fetched."""
        return self.follower.anchor

    @property
    def tip(self) -> Hash:
        return self.follower.tip

    # -- life ---------------------------------------------------------------------------------------------------------
    async def start(self, backlog: Sequence[Signed], kept: Sequence[tuple[Record, bytes]]) -> None:
        """Restore what was kept and begin; the anchor comes in the background (`Follower.waiting_seconds`)."""
        for signed in backlog:
            if isinstance(signed.record, Contribution):
                self.learn(signed)
        for record, keep in kept:
            if isinstance(record, Contribution):
                content = wire.unpack_content(keep)
                self.learn(Signed(record, self.notary.account, self.notary.sign(record, keep), content))
                self._own[record.prev_certificate, record.epoch] = self.notary.hash(record)
        self._act(self.machine.restore(list(backlog), kept))
        self.spawn(self.follower.run())
        self.spawn(self._tick_loop())

    async def close(self) -> None:
        """Idempotent. Ends all tasks and timers; what is not certified stays pending in the trainer's snapshot."""
        if self._closed:
            return
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        await cancel_all(set(self._tasks))
        self.inbox.close()
        self.averages.close()

    def statistics(self) -> DriverStatistics:
        return DriverStatistics(
            self.machine.epoch,
            self.machine.attempt,
            self.tip,
            self._swarm_units(),
            len(self.network.linked()),
            self._faults,
            self.machine.clock,
        )

    def holds_the_end(self) -> bool:
        """The run has ended, and its last state is here and kept for others."""
        return self.machine.has_ended and self.follower.kept == self.machine.tip

    def behind(self) -> set[Account]:
        """Linked peers that train, or have founded the run and hand its state out, and have not said that they hold the newest one: they
        may ask this one for it."""
        linked, heard = self.network.linked().keys(), self.progress.heard_lately()
        needing = {account for account in linked if heard.get(account, 0) & FLAG_VOTES}
        needing |= linked & set(self.machine.rules.founders)
        return needing - self.progress.units(needing, self.machine.tip).keys()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)  # asyncio holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except DiskError as error:
            self.fail(error)
        except SwarmError as error:
            self.blame(ZERO_ACCOUNT, str(error))
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """What was refused to be written may not be signed or shown to others: this peer has to stop."""
        if self.failure is None:
            log.error("this peer cannot go on", exc_info=error)
            self.failure = error

    def blame(self, account: Account, reason: str) -> None:
        """All are counted; of a flood some are told, so that it does not push everything else out of the log and the events."""
        self._faults += 1
        now = time.monotonic()
        self._telling = min(FAULTS_AT_ONCE, self._telling + (now - self._told_at) * FAULTS_PER_SECOND)
        self._told_at = now
        if self._telling >= 1.0:
            self._telling -= 1.0
            log.info("fault of %s: %s", account.hex()[:8], reason)
            self.emit(events.Fault(account, reason))

    def training(self) -> dict[Account, int]:
        """Other peers that train now → their flags; who cannot be reached from here does not reduce."""
        reached = self.network.linked().keys() - self.network.unreached()
        heard = self.progress.heard_lately()
        return {a: f if a in reached else f & ~FLAG_REDUCES for a, f in heard.items() if f & FLAG_VOTES}

    def declare(self, flags: int) -> None:
        """What this peer does from the next contribution on; the others hear of it with the next word on progress."""
        self.flags = flags
        self._tell_machine()

    def _flags_now(self) -> int:
        """Who pauses neither trains nor reduces: nobody waits for it, and it is not drawn."""
        return 0 if self.pace.is_paused else self.flags

    def _tell_machine(self) -> None:
        flags = self._flags_now()
        self.machine.reduces, self.machine.votes = bool(flags & FLAG_REDUCES), bool(flags & FLAG_VOTES)

    # -- messages -----------------------------------------------------------------------------------------------------
    async def on_message(self, sender: Account, data: bytes) -> bool:
        """A flooded message; whether it may be passed on. Called by the gossip layer in the loop. Raises nothing."""
        try:
            return self._take(sender, await self.inbox.checked(data))
        except PeerFault as error:
            self.blame(sender, str(error))
        except RetryError:
            pass  # this peer is leaving
        except Exception as error:
            self.fail(error)
        return False

    def _take(self, sender: Account, signed: Signed) -> bool:
        record = signed.record
        if signed.signer == self.notary.account and not self.notary.remembers(record):
            raise ForgottenSignature(f"a {type(record).__name__} of epoch {record.epoch}")
        if isinstance(record, Progress):
            is_news = self.progress.take(signed.signer, record, self._members)
            if is_news:
                self._nudged.set()
            return is_news
        if isinstance(record, ContributionReceipt):
            return self.on_receipt(signed)
        if isinstance(record, StorageReceipt):
            return self.on_storage is not None and self.on_storage(signed)
        if isinstance(record, Contribution):
            try:
                self.learn(signed)
            except PeerFault as error:  # before the machine keeps it: its signer's fault, and not the sender's
                self.blame(signed.signer, str(error))
                return False
        faults = self._faults
        self._act(self.machine.receive(signed, sender))
        return self._faults == faults and self.machine.may_pass_on(signed)

    def _members(self) -> set[Account]:
        return {*self.network.linked(), *self.machine.voters()}

    def learn(self, signed: Signed) -> None:
        if self.reception.learn(signed):
            key = self.notary.hash(signed.record)
            for sender, index, payload in self.reception.take_early(key):
                self.delivery.take(sender, key, index, payload)

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(signed, again):
                    self.network.publish(wire.pack(signed), again)
                case SetTimer(timer, seconds):
                    self._set_timer(timer, seconds)
                case MakeContribution(call):
                    self.delivery.call = call
                    self.spawn(self._contribute(call))
                case Scatter(call):
                    key = self._own.get((call.record.prev_certificate, call.record.epoch))
                    if key is not None:
                        self.spawn(self.delivery.scatter(call, key))
                case Collect(call):
                    self.delivery.call = call
                    self.spawn(self.delivery.collect(call))
                case ReduceSet():
                    self.spawn(self.averages.reduce(action))
                case Recheck():
                    self.spawn(self.averages.recheck(action))
                case Redo():
                    self.spawn(self.averages.redo(action))
                case Expose():
                    self.averages.expose(action)
                case FetchAverages():
                    self.spawn(self.averages.prepare(action))
                case Adopt():
                    self._adopt(action)
                case Blame(account, reason):
                    self.blame(account, reason)
                case _:
                    assert_never(action)

    def _adopt(self, action: Adopt) -> None:
        self.progress.moved(self.machine.tip)
        self._cancel_timers_before(self.machine.tip)
        self.reception.moved(self.machine.tip, self.machine.voters())
        self._received = {key for key in self._received if key in self.reception}
        self.delivery.moved()
        self.follower.adopt(action)

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        old = self._timers.pop(timer, None)
        if old is not None:
            old.cancel()

        def fire() -> None:
            self._timers.pop(timer, None)
            if not self._closed:
                try:
                    self._act(self.machine.timeout(timer))
                except Exception as error:
                    self.fail(error)

        self._timers[timer] = asyncio.get_running_loop().call_later(seconds, fire)

    def _cancel_timers_before(self, tip: Hash) -> None:
        """The machine minds timers of its own tip only; a history of thousands of certificates sets one for each."""
        for timer in [t for t in self._timers if t.prev_certificate != tip]:
            self._timers.pop(timer).cancel()

    # -- own progress -------------------------------------------------------------------------------------------------
    def _swarm_units(self) -> int:
        units = self.progress.units(self.machine.voters(), self.tip)
        if self.member is not None:
            units[self.notary.account] = self.member.units_done()
        return swarm_units(units, self.config.rounds.max_units_per_contribution)

    def on_link(self, account: Account, flags: int, up: bool) -> None:
        """A link has come up, or ended: whoever links up next with this account has to say anew where it stands."""
        if up:
            self.emit(events.PeerSeen(account, bool(flags & FLAG_REDUCES)))
        else:
            self.progress.lost(account)
            self.emit(events.PeerLost(account))

    def unit_done(self) -> None:
        """A unit has ended here: it is said now and not at the next tick, so that rounds begin no later than they are due."""
        self._nudged.set()

    async def _tick_loop(self) -> None:
        ticked, due_after = float("-inf"), None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._nudged.wait()
            self._nudged.clear()
            self._tell_machine()
            is_tick = time.monotonic() - ticked >= TICK_SECONDS
            if is_tick:
                ticked = time.monotonic()
                linked = self.network.linked()
                self._act(self.machine.ready(self.progress.ready(linked), self.network.unreached(), linked))
            self._say_progress()
            if self.anchor is not None and not self.machine.has_ended and self._is_due():
                if is_tick or due_after != self.tip:
                    self._act(self.machine.due())
                due_after = self.tip
            await asyncio.sleep(NUDGE_SECONDS)

    def _say_progress(self) -> None:
        """Where it has changed, or for long. A seed, which trains nothing, is to be heard once: others do not leave the ended run before
        it has its last state."""
        if self.anchor is None or (self.member is None and not self.holds_the_end()):
            return
        units = self.member.units_done() if self.member is not None else 0
        now, since = (self.tip, units, self._flags_now()), time.monotonic() - self._spoke
        if (now != self._said and since > SAY_SECONDS) or since > 6 * PROGRESS_SECONDS:
            self._said, self._spoke = now, time.monotonic()
            self._sequence = max(self._sequence + 1, int(time.time() * 1000))
            record = Progress(self.run_id, self.machine.epoch, self.tip, units, self._sequence, now[2])
            self.network.publish(wire.pack(Signed(record, self.notary.account, self.notary.sign(record))))

    def _is_due(self) -> bool:
        """The run's last epoch is as short as what is left, so that little is done beyond its end."""
        rounds = self.config.rounds
        if time.monotonic() - self.follower.moved_at > rounds.epoch_deadline_seconds:
            return True
        return self._swarm_units() >= min(rounds.units_per_epoch, self.machine.units_left)

    async def _contribute(self, call: SignedCall) -> None:
        prev = call.record.prev_certificate
        made = await self._boundary(prev, call.record.epoch)
        if made is None or self.member is None:
            return
        try:
            await asyncio.to_thread(self.parts.keep_all, made.parts)
        except DiskError:
            self.member.refused()
            raise
        record = Contribution(
            self.run_id,
            call.record.epoch,
            self.notary.account,
            prev,
            made.previous,
            made.first_unit,
            made.units,
            0,
            made.device_class,
            merges_hash(made.merges),
            made.state_before,
            made.state_after,
            parts_root(made.leaves),
            self.flags,
        )
        content = ContributionContent(made.leaves, made.merges)
        try:
            signed = Signed(record, self.notary.account, self.notary.sign(record, wire.pack_content(content)), content)
            await self.notary.written()  # snapshot and archive hold no contribution that the journal may have lost
        except SwarmError as error:
            self.member.refused()
            if isinstance(error, DiskError):
                raise
            self.blame(self.notary.account, str(error))
            return
        key = self.notary.hash(record)
        self.member.signed(key)
        self._own[(prev, record.epoch)] = key
        while len(self._own) > 64:
            self._own.pop(next(iter(self._own)))
        self.learn(signed)
        self.reception.hold_own(key, signed)
        self.emit(events.Contributed(signed))
        self._act(self.machine.contributed(signed))

    async def _boundary(self, prev: Hash, epoch: int) -> Boundary | None:
        """At the end of a unit, however long that takes while the round goes on: a slow peer is in a later attempt. None: there is
        none to be had any more."""
        seconds = self.config.rounds.contribute_seconds
        while self.member is not None and not self.pace.is_paused:
            made = await self.member.boundary(prev, seconds)
            if made is not None:
                return made
            await asyncio.sleep(PENDING_SECONDS)  # the certificate before may still be on its way to the trainer
            if self.machine.tip != prev or (prev, epoch) in self._own:
                break
        return None

    # -- parts --------------------------------------------------------------------------------------------------------
    def on_part(self, sender: Account, header: bytes, payload: bytes) -> None:
        """As `Delivery.on_part`."""
        self.delivery.on_part(sender, header, payload)

    def arrived(self, key: Hash) -> None:
        """As reducer: tell the machine what is complete here."""
        call = self.delivery.call
        if call is None or self.notary.account not in call.content.reducers:
            return
        signed, prev = self.reception.get(key), call.record.prev_certificate
        if signed is None or signed.record.prev_certificate != prev or self.delivery.missing(call, key):
            return
        if key not in self._received and signed.signer != self.notary.account:
            self._received.add(key)
            self.emit(events.PartsReceived(key, signed.signer))
        complete = frozenset(k for k in self.reception.on_tip(prev) if not self.delivery.missing(call, k))
        self._act(self.machine.report(complete))


__all__ = ["Driver", "DriverStatistics"]
