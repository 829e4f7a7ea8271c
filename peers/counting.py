"""A peer's own receipts, counted in its ledger beside its loop, and the units that have none: for status.json."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

from peers.advice import Advice
from peers.assembly import Assembled
from peers.directory import PeerDirectory
from peers.overdue import Counted, Overdue, is_blocked, longest_wait_seconds, why_overdue
from peers.status import PeerStatus
from peers.watching import ReceiptCount, Terms

COUNT_SECONDS = 2.0  # between two looks into the ledger
LAST_SECONDS = 1.0
SHARE = 0.01  # of the time at most


class Counting:
    """Of one process of a peer that trains; writes into `status`. `look` is to be called twice a second, in the loop."""

    def __init__(self, directory: PeerDirectory, status: PeerStatus) -> None:
        self._directory, self._status = directory, status
        self._count: ReceiptCount | None = None
        self._overdue: Overdue | None = None
        self._found = Counted()
        self._doing: asyncio.Task[Counted | None] | None = None
        self._seconds, self._next = 0.0, 0.0
        self._codes, self._missing_seats = frozenset[str](), 0
        self._is_over = False

    @property
    def is_counting(self) -> bool:
        """In a thread, right now."""
        return self._doing is not None and not self._doing.done()

    def look(self, made: Assembled, missing_seats: int) -> None:
        """Takes what was counted meanwhile, and has it counted again when that is due."""
        if self._is_over:
            return
        now, status = time.monotonic(), self._status
        if self._count is None or self._overdue is None:
            config, invite = made.run, made.invite
            terms = Terms(config.name, config.unit_price, made.is_paid_run, invite.pay_rules())
            self._count = ReceiptCount(self._directory, terms, status.account)
            self._overdue = Overdue(longest_wait_seconds(config.rounds))
        self._codes, self._missing_seats = _codes(status.advice), missing_seats
        self._overdue.at(status.units, status.epoch, now)
        if self._doing is not None and self._doing.done():
            self._take(self._doing.result(), now)
            self._doing, self._next = None, now + max(COUNT_SECONDS, self._seconds / SHARE)
        if self._doing is None and now >= self._next:
            self._doing = asyncio.create_task(asyncio.to_thread(self._read))

    async def look_last(self) -> None:
        """Before the links go, after which all would be alone: what came with the last receipts is in it, unless it takes too long."""
        self._is_over = True
        if self._count is not None and not self.is_counting:
            with contextlib.suppress(TimeoutError):
                found = await asyncio.wait_for(asyncio.to_thread(self._read), LAST_SECONDS)
                self._take(found, time.monotonic())

    def _read(self) -> Counted | None:
        """None where the ledger is not to be read now."""
        assert self._count is not None
        begun = time.thread_time()
        found = self._count.read()
        self._seconds = time.thread_time() - begun
        return None if found is None else Counted(*found, self._count.newest)

    def _take(self, found: Counted | None, now: float) -> None:
        assert self._overdue is not None
        self._found = counted = found or self._found
        status, codes = self._status, self._codes
        units = self._overdue.units(status.units, counted, now, is_blocked=is_blocked(codes))
        is_paid_of_late = self._overdue.is_paid_of_late(now)
        why = why_overdue(units, counted.late_units, codes, self._missing_seats, is_paid_of_late=is_paid_of_late)
        status.receipts, status.paid_units = counted.receipts, counted.paid_units
        status.unpaid_units, status.unpaid_why = units, why if units else ""


def _codes(advice: Sequence[Advice]) -> frozenset[str]:
    return frozenset(each.code for each in advice)


__all__ = ["Counting"]
