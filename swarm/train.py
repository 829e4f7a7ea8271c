"""The training loop on one page: inner steps in units, merges between two steps, boundaries between two units.

It runs in a thread of its own, emits events and looks at its `Pace` before every step. It never waits for a round: what the
round has for it lies in a queue that is looked at between two inner steps (protocol §4).
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from swarm import events
from swarm.averaging.member import Boundary, StateKeeper
from swarm.averaging.merge import MadeContribution, MemberState
from swarm.averaging.snapshot import OnDisk, SnapshotFile
from swarm.budget import Boundless, Spending
from swarm.checkpoint.anchor import Anchor
from swarm.config import RunConfig
from swarm.device import device_class
from swarm.errors import RetryError, RoundError, SwarmError
from swarm.models import FlatModel
from swarm.optim.inner import InnerOptimizer
from swarm.optim.schedule import learning_rate
from swarm.pace import Pace
from swarm.records.types import Account, Hash
from swarm.tasks import InPieces, Task

log = logging.getLogger(__name__)
LAST_WRITE_SECONDS = 10.0  # that a leaver waits for the snapshot before the last one
SIGNATURE_SECONDS = 2.0  # that a leaver waits for the signature of a boundary that is made


@dataclass(frozen=True, slots=True)
class TrainerStatistics:
    """Of this process. Seconds of wall clock: in inner steps, at rest after them, and since the first step could be taken."""

    inner_steps: int
    inner_seconds: float
    rest_seconds: float
    training_seconds: float
    data_wait_seconds: float = 0.0  # for leaves of the run's records that were not here yet


def inner_step(
    config: RunConfig, task: Task, model: FlatModel, inner: InnerOptimizer, member: MemberState, account: Account
) -> torch.Tensor:
    """One inner step of `account` where `member` stands; the loss (scalar). Whoever redoes a contribution calls the same."""
    loss = task.step(model, account, member.beacon, member.next_unit, member.unit_step)
    settings = config.inner
    inner.step(model.grad_flat, learning_rate(member.clock(), settings.lr, settings.warmup_units, settings.total_units))
    member.inner_step_done(settings.steps_per_unit)
    return loss


class Trainer:
    """Trains one peer; implements `swarm.averaging.member.Member`. `run()` is the thread's body; all else may be called
    from the event loop's thread."""

    def __init__(
        self,
        config: RunConfig,
        account: Account,
        model: FlatModel,
        task: Task | None,
        snapshot: Path,
        emit: Callable[[events.Event], None],
        pace: Pace | None = None,
        snapshot_seconds: float = 30.0,
        archive: StateKeeper | None = None,
        on_disk: OnDisk | None = None,
        spending: Spending | None = None,
    ) -> None:
        """`on_disk`: what a snapshot need not hold; `spending`: how much may be written for it."""
        self.config, self.account, self.model, self.task, self.emit = config, account, model, task, emit
        self.pace = pace or Pace()
        self.snapshot, self.snapshot_seconds, self.archive = snapshot, snapshot_seconds, archive
        self.on_disk, self.spending = on_disk, spending or Boundless()
        self._snapshot_bytes: dict[bool, int] = {}  # of the last ones, by whether it was right after a boundary
        self.inner = InnerOptimizer(config.inner, model.flat, model.matrices)
        self.first_unit = 0  # numbers below are used up (journal)
        self.member: MemberState | None = None
        self._queue: deque[Callable[[], None]] = deque()  # between two inner steps
        self._at_unit_end: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._units = 0
        self.inner_steps = 0
        self.compute_seconds = self.rest_seconds = 0.0
        self._begun = 0.0
        self.has_data: Callable[[int], bool] = lambda unit: True  # whether a unit's samples are here
        self._data_seconds, self._waits_since = 0.0, 0.0
        self.failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._writer = ThreadPoolExecutor(1, "snapshots")
        self._writing: Future[None] | None = None
        self._is_save_due = False  # another one was on its way
        self._saved_at = time.monotonic()

    # -- called from outside ------------------------------------------------------------------------------------------
    def resume(self, first_unit: int) -> None:
        """Before `start`: take up the snapshot if there is one; units below `first_unit` are used up either way (journal).

        A snapshot from before the last signed contribution, or from between a boundary and its signature, is of no use: its
        units would be contributed twice. The peer begins anew then (protocol §4.6)."""
        self.first_unit = first_unit
        member = MemberState.load(self.snapshot, self.model.flat, self.inner, self.on_disk)
        if member is None and os.path.lexists(self.snapshot):
            log.warning("%s cannot be read, or is of another model: beginning anew from the run's state", self.snapshot)
        if member is not None and (member.unsigned or member.next_unit - member.units < first_unit):
            log.warning("%s is older than the last contribution: beginning anew", self.snapshot)
            member = None
        self.member = member

    def start(self) -> None:
        self._thread = threading.Thread(target=self.run, name="training", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after the inner step under way and write the snapshot, waiting at most `seconds`; idempotent."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            deadline = time.monotonic() + seconds
            self._thread.join(seconds)
            if self._writing is not None and not self._thread.is_alive():
                wait([self._writing], max(0.0, deadline - time.monotonic()))
        self._writer.shutdown(wait=False)

    def statistics(self) -> TrainerStatistics:
        """What is neither inner steps nor rest is waiting and the work around rounds."""
        elapsed = time.monotonic() - self._begun if self._begun else 0.0
        waited = self._data_seconds + self.waits_for_data_seconds()
        return TrainerStatistics(self.inner_steps, self.compute_seconds, self.rest_seconds, elapsed, waited)

    def waits_for_data_seconds(self) -> float:
        """How long it has been waiting now; 0: it does not."""
        since = self._waits_since
        return time.monotonic() - since if since else 0.0

    def units_done(self) -> int:
        return self._units

    def smaller_pieces(self) -> int:
        """Samples that are computed at once since the memory turned out to be too small for more; 0: all are."""
        return self.task.micro_batch if isinstance(self.task, InPieces) and self.task.has_shrunk else 0

    async def boundary(self, prev_certificate: Hash, seconds: float) -> Boundary | None:
        made = await self._made_within(prev_certificate, seconds)
        if made is None:
            return None
        if self.archive is not None:  # before anything is signed: what is not kept cannot be audited
            try:
                await asyncio.to_thread(self.archive.keep_state, made.state)
            except RetryError:
                self.refused()
                raise
        return Boundary(
            made.previous,
            made.first_unit,
            made.units,
            made.merges,
            made.state_before,
            made.state_after,
            made.encoded.parts,
            made.encoded.leaves,
            device_class(self.model.device),
        )

    async def _made_within(self, prev_certificate: Hash, seconds: float) -> MadeContribution | None:
        """At the next end of a unit. Too late it is not made at all: what is made and not signed would have to be done again."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[MadeContribution | None] = loop.create_future()
        turn = threading.Lock()  # of whoever is first: the trainer that begins, or the driver that gives up

        def work() -> None:
            if turn.acquire(blocking=False):
                made = self._boundary(prev_certificate)
                loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(made))

        self._at_unit_end.append(work)
        self._wake.set()
        done, _ = await asyncio.wait((future,), timeout=seconds)
        return await future if done or not turn.acquire(blocking=False) else None

    def signed(self, contribution: Hash) -> None:
        def work() -> None:
            self._member().signed(contribution)
            self._save()

        self.between_steps(work)

    def refused(self) -> None:
        def work() -> None:
            member = self._member()
            if member.unsigned:
                self._begin(member.anchor_id, member.epoch, member.anchor, member.counted_units)

        self.between_steps(work)

    def certified(self, certificate_id: Hash, epoch: int, anchor: Anchor, contributions: frozenset[Hash]) -> None:
        def work() -> None:
            member = self._member()
            member.certificate(
                certificate_id, epoch, anchor.parameters, anchor.counted_units, contributions, self.model.flat
            )

        self.between_steps(work)

    def voided(self, certificate_id: Hash, epoch: int) -> None:
        self.between_steps(lambda: self._member().void(certificate_id, epoch))

    def reset(self, certificate_id: Hash, epoch: int, anchor: Anchor) -> None:
        def work() -> None:
            if self.member is None or self.member.anchor_id != certificate_id or self.member.epoch != epoch:
                self._reset(certificate_id, epoch, anchor)

        self.between_steps(work)

    # -- the thread ---------------------------------------------------------------------------------------------------
    def run(self) -> None:
        try:
            self._train()
        except BaseException as error:  # the process boundary of this thread: the peer ends and is started again
            log.exception("training failed")
            self.failure = error

    def _train(self) -> None:
        self._saved_at = time.monotonic()
        loss_sum = torch.zeros((), device=self.model.device)
        begun = time.monotonic()
        while not self._stop.is_set():
            while self._queue:
                self._queue.popleft()()
            if self._is_save_due and not self._is_writing():
                self._save()
            member = self.member
            if member is not None and member.unit_step == 0:
                self._end_unit(member)
            if member is None or self.pace.is_paused:
                self._wake.wait(0.1)
                self._wake.clear()
                continue
            self._begun = self._begun or time.monotonic()
            if member.unit_step == 0:
                loss_sum, begun = torch.zeros((), device=self.model.device), time.monotonic()
                if time.monotonic() - self._saved_at > self.snapshot_seconds:
                    self._save()
                if self._has_done_enough(member):
                    self._wake.wait(0.05)
                    self._wake.clear()
                    continue
            if not self._has_data(member):
                continue
            loss_sum += self._step(member)
            if member.unit_step == 0:
                self._units = member.units
                mean = float(loss_sum) / self.config.inner.steps_per_unit
                self.emit(
                    events.UnitDone(
                        member.epoch, member.next_unit - 1, self.inner_steps, mean, time.monotonic() - begun
                    )
                )
            if self.pace.rest_seconds:
                rested = time.monotonic()
                self._stop.wait(self.pace.rest_seconds)
                self.rest_seconds += time.monotonic() - rested
        self._take_what_still_comes()
        self._save(is_last=True)

    def _has_data(self, member: MemberState) -> bool:
        """Else it waits a moment, so that certificates are merged meanwhile and who leaves is let go."""
        is_here = self.has_data(member.next_unit)
        if not is_here:
            self._waits_since = self._waits_since or time.monotonic()
            self._wake.wait(0.02)
            self._wake.clear()
        elif self._waits_since:
            self._data_seconds += self.waits_for_data_seconds()
            self._waits_since = 0.0
        return is_here

    def _take_what_still_comes(self) -> None:
        """A signature or a certificate that comes while stopping must be in the snapshot: one that shows a boundary without its
        signature is of no use, and all work since the last one is lost."""
        deadline = time.monotonic() + SIGNATURE_SECONDS
        while True:
            self._wake.clear()
            while self._queue:
                self._queue.popleft()()
            left = deadline - time.monotonic()
            if self.member is None or not self.member.unsigned or left <= 0:
                return
            self._wake.wait(left)

    def _has_done_enough(self, member: MemberState) -> bool:
        """More would not count, or would be done at a learning rate of zero: the run ends with what was done."""
        config = self.config
        return member.units >= config.rounds.max_units_per_contribution or member.clock() >= config.inner.total_units

    def _end_unit(self, member: MemberState) -> None:
        """A boundary may be made here, by who pauses too."""
        self._units = member.units
        while self._at_unit_end:
            self._at_unit_end.popleft()()
        self._units = member.units

    def _step(self, member: MemberState) -> torch.Tensor:
        begun = time.monotonic()
        assert self.task is not None
        loss = inner_step(self.config, self.task, self.model, self.inner, member, self.account)
        self.inner_steps += 1
        self.compute_seconds += time.monotonic() - begun
        return loss

    def _boundary(self, prev_certificate: Hash) -> MadeContribution | None:
        member = self.member
        if member is None or not member.may_contribute(prev_certificate):
            return None
        codec = self.config.codec
        try:
            return member.boundary(self.model.flat, self.inner, codec.contribution, codec.part_values)
        except RoundError as error:
            self.emit(events.Fault(self.account, f"{error}: this peer begins anew"))
            self._begin(member.anchor_id, member.epoch, member.anchor, member.counted_units)
            return None

    def _reset(self, certificate_id: Hash, epoch: int, anchor: Anchor) -> None:
        self._begin(certificate_id, epoch, anchor.parameters, anchor.counted_units)

    def _begin(self, certificate_id: Hash, epoch: int, parameters: torch.Tensor, counted_units: int) -> None:
        next_unit = self.first_unit if self.member is None else max(self.first_unit, self.member.next_unit)
        self.member = MemberState.fresh(certificate_id, epoch, parameters, counted_units, self.inner, next_unit)
        self.model.flat.copy_(parameters)

    def _member(self) -> MemberState:
        if self.member is None:
            raise SwarmError("the trainer has no state yet")
        return self.member

    def between_steps(self, work: Callable[[], None]) -> None:
        self._queue.append(work)
        self._wake.set()

    def _save(self, is_last: bool = False) -> None:
        """Into a file now; its hash, and that it is on disk, in the background: while one is on its way, the next waits. Nothing where no
        task was given: who came after the run's end has done no work, and a snapshot would say that it had. Nothing either while the budget
        has no room for one like the last, but for who leaves."""
        if self.member is None or self.task is None:
            return
        self._is_save_due = self._is_writing()
        if self._is_save_due and is_last:
            wait([self._writing] if self._writing else [], LAST_WRITE_SECONDS)
        if self._is_writing():
            return
        self._saved_at = time.monotonic()  # also of one after a signature: the next is as far from it
        expected = self._snapshot_bytes.get(self.member.inner_step == 0, 0)
        if not is_last and not self.spending.may("snapshots", expected):
            return
        snapshot = self.member.capture(self.model.flat, self.inner)
        slim = snapshot if self.on_disk is None else snapshot.slim(self.on_disk)
        size = slim.num_bytes()
        self._snapshot_bytes[self.member.inner_step == 0] = size
        if not self.spending.take("snapshots", size) and not is_last:
            return
        try:
            self._writing = self._writer.submit(self._finish, slim.begin(self.snapshot))
        except RetryError as error:
            log.warning("snapshot not written: %s", error)

    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def _finish(self, begun: SnapshotFile) -> None:
        try:
            begun.finish()
        except RetryError as error:
            log.warning("snapshot not written: %s", error)
