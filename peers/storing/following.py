"""The run as a storer follows it: what is flooded is checked, weighed by the same state machine as everywhere, and passed on; no state
of the model is ever built, so that there is no torch. Implements nothing of a round: a storer neither votes nor averages.

All methods run in one asyncio loop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from swarm import events
from swarm.averaging.inbox import Inbox
from swarm.cancelling import cancel_all
from swarm.consensus.actions import Action, Adopt, Blame, Send, SetTimer, Timer
from swarm.consensus.machine import RoundMachine
from swarm.consensus.progress import ProgressBook
from swarm.errors import ForgottenSignature, PeerFault, RetryError
from swarm.network import SwarmNetwork
from swarm.records import wire
from swarm.records.notary import Notary
from swarm.records.types import ZERO_HASH, Account, ContributionReceipt, Progress, Record, Signed, StorageReceipt

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0
FAULTS_PER_SECOND, FAULTS_AT_ONCE = 2.0, 100.0  # that are told


class Follower:
    """`emit` is told of each certificate that is followed, in order; `on_receipt` takes receipts, and says whether they are passed on."""

    def __init__(
        self,
        notary: Notary,
        machine: RoundMachine,
        network: SwarmNetwork,
        emit: Callable[[events.Event], None],
        on_receipt: Callable[[Signed], bool],
        on_storage: Callable[[Signed], bool] | None = None,
    ) -> None:
        self.notary, self.machine, self.network = notary, machine, network
        self.emit, self.on_receipt, self.on_storage = emit, on_receipt, on_storage
        self.failure: BaseException | None = None
        self.faults = 0
        self.progress = ProgressBook(time.monotonic)
        self._inbox = Inbox(notary, machine.rules.run_id)
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._telling, self._told_at = FAULTS_AT_ONCE, time.monotonic()
        self._closed = False

    def start(self, backlog: Sequence[Signed], kept: Sequence[tuple[Record, bytes]]) -> None:
        """Take up what the ledger and the journal hold."""
        self._act(self.machine.restore(list(backlog), kept))
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def remember(self, signed: Signed) -> None:
        """Of the backlog, after `start`: a receipt of what is newest, of which nobody tells again who has co-signed it."""
        if isinstance(signed.record, ContributionReceipt) and signed.record.certificate == self.machine.tip:
            self.on_receipt(signed)

    async def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._closed = True
            for timer in self._timers.values():
                timer.cancel()
            await cancel_all([] if self._ticking is None else [self._ticking])
            self._inbox.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            linked = self.network.linked()
            try:
                self._act(self.machine.ready(self.progress.ready(linked), self.network.unreached(), linked))
            except Exception as error:
                self.fail(error)

    async def on_message(self, sender: Account, data: bytes) -> bool:
        """A flooded message; whether it may be passed on. Raises nothing."""
        try:
            return self._take(sender, await self._inbox.checked(data))
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
            return self.progress.take(signed.signer, record, lambda: {*self.network.linked(), *self.machine.voters()})
        if isinstance(record, ContributionReceipt):
            return self.on_receipt(signed)
        if isinstance(record, StorageReceipt):
            return self.on_storage is not None and self.on_storage(signed)
        faults = self.faults
        self._act(self.machine.receive(signed, sender))
        return self.faults == faults and self.machine.may_pass_on(signed)

    def _act(self, actions: Sequence[Action]) -> None:
        """What is asked of who averages (collect, reduce, fetch averages and the like) is others' to do."""
        for action in actions:
            match action:
                case Send(signed, again):
                    self.network.publish(wire.pack(signed), again)
                case SetTimer(timer, seconds):
                    self._set_timer(timer, seconds)
                case Blame(account, reason):
                    self.blame(account, reason)
                case Adopt():
                    self._adopt(action)
                case _:
                    pass

    def _adopt(self, action: Adopt) -> None:
        tip = self.machine.tip
        self.progress.moved(tip)
        for timer in [each for each in self._timers if each.prev_certificate != tip]:
            self._timers.pop(timer).cancel()
        if action.undone:
            self.emit(events.Undone(tuple(action.undone)))
        for entry in action.path:
            self.emit(events.Certified(entry.id, entry.certificate, entry.body, entry.signatures, ZERO_HASH))

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

    def on_link(self, account: Account, flags: int, up: bool) -> None:
        """A link has come up, or ended."""
        if not up:
            self.progress.lost(account)
        with contextlib.suppress(OSError):
            self.emit(events.PeerSeen(account, False) if up else events.PeerLost(account))

    def fail(self, error: Exception) -> None:
        """The process has to end."""
        if self.failure is None:
            log.error("this storer cannot go on", exc_info=error)
            self.failure = error

    def blame(self, account: Account, reason: str) -> None:
        """All are counted; of a flood some are told."""
        self.faults += 1
        now = time.monotonic()
        self._telling = min(FAULTS_AT_ONCE, self._telling + (now - self._told_at) * FAULTS_PER_SECOND)
        self._told_at = now
        if self._telling >= 1.0:
            self._telling -= 1.0
            log.info("fault of %s: %s", account.hex()[:8], reason)
            self.emit(events.Fault(account, reason))


__all__ = ["Follower"]
