"""Units without receipts: how many should have one by now, and why they have none. Pure: clocks are given, in seconds.

The rule. A unit that was just done has no receipt, and that is no news: its epoch has to be certified and a witness to sign. It is
called unpaid, "so far", where

1. something is the matter that lets nobody witness at all (`BLOCKING`: alone, linked to nobody, nobody reachable, the run waits for
   peers): then every unit is, at once; advice has shown patience before it says so; or
2. `LATE_EPOCHS` epochs were certified since it was done, or since the one that has it, and `GRACE_SECONDS` have passed; or
3. longer than the run's rules let an epoch take has passed since it was done, certified or not (`longest_wait_seconds`).

Units are told apart by their number alone: of those that are due, as many are without receipts as there are more than receipts stand
for. That may be too few for a while, never too many."""

from collections import deque
from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.advice import AT_ONCE, GRACE_SECONDS, missing_words

if TYPE_CHECKING:
    from swarm.config.run import RoundsConfig

LATE_EPOCHS = 3  # a receipt may take so long
RECEIPT_SECONDS = 30.0  # from certificate to receipt, counting it included
MAX_SAMPLES = 256  # of one epoch; the longer epochs are, the rarer is one taken

# Codes of advice that say why nobody can witness what is done now, the most telling first.
BLOCKING = (AT_ONCE, "no-link", "waits-for-peers", "alone", "no-witness")


@dataclass(frozen=True, slots=True)
class Counted:
    """By the ledger: receipts that would be paid now and the units in them, units that were certified `LATE_EPOCHS` ago without, and
    the newest epoch in it."""

    receipts: int = 0
    paid_units: int = 0
    late_units: int = 0
    newest: int = 0


def longest_wait_seconds(rounds: "RoundsConfig") -> float:
    """Until a unit has its receipt at the latest, where enough peers are up."""
    attempt = rounds.contribute_seconds + rounds.average_seconds + rounds.vote_seconds
    return rounds.epoch_deadline_seconds + rounds.max_attempts * attempt + RECEIPT_SECONDS


class Overdue:
    """Remembers when units were done, as far as that matters. Of one process: what was done before it counts from its start on."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience = max(GRACE_SECONDS, patience_seconds)
        self._samples: deque[tuple[float, int, int]] = deque()  # when, after which epoch, units done
        self._due = 0
        self._late: deque[tuple[float, int]] = deque()  # when, certified units without a receipt
        self._paid, self._paid_at = 0, float("-inf")

    def at(self, units: int, epoch: int, now: float) -> None:
        """To be told again and again: `units` done in all, while `epoch` was the newest certified one."""
        last = self._samples[-1] if self._samples else None
        if last is None or last[1] != epoch or now - last[0] >= self._patience / MAX_SAMPLES:
            self._samples.append((now, epoch, units))

    def units(self, done: int, counted: Counted, now: float, *, is_blocked: bool) -> int:
        """Of `done` units those that should have a receipt and have none, by a ledger that was read at `now`."""
        if counted.paid_units != self._paid:
            self._paid, self._paid_at = counted.paid_units, now
        while self._samples and self._is_due(*self._samples[0][:2], counted.newest, now):
            self._due = max(self._due, self._samples.popleft()[2])
        return max(
            self._late_units(counted.late_units, now), (done if is_blocked else self._due) - counted.paid_units, 0
        )

    def _late_units(self, found: int, now: float) -> int:
        """As many as have been late for `GRACE_SECONDS`: three epochs of a small run are over in a second or two."""
        self._late.append((now, found))
        while len(self._late) > 1 and now - self._late[1][0] >= GRACE_SECONDS:
            self._late.popleft()
        return min(late for _, late in self._late) if now - self._late[0][0] >= GRACE_SECONDS else 0

    def is_paid_of_late(self, now: float) -> bool:
        """Whether receipts have come as long ago as an epoch takes."""
        return now - self._paid_at <= self._patience

    def _is_due(self, since: float, after: int, newest: int, now: float) -> bool:
        has_passed = newest - after >= LATE_EPOCHS and now - since >= GRACE_SECONDS
        return has_passed or now - since >= self._patience


def is_blocked(codes: Set[str]) -> bool:
    """By the codes of what is advised now."""
    return not codes.isdisjoint(BLOCKING)


def why_overdue(units: int, late_units: int, codes: Set[str], missing_seats: int, *, is_paid_of_late: bool) -> str:
    """Why `units`, of which `late_units` are certified, have no receipt, and what helps; `codes`: of what is advised now."""
    cause = next((code for code in BLOCKING if code in codes), "")
    if cause:
        return _blocked_by(cause, missing_seats)
    if "too-late" in codes:
        return "they reached the others too late: keep line and processor free of other things, or join a run with a smaller model"
    if is_paid_of_late:
        return "their rounds went by without them, or their witnesses left; new work gets receipts: nothing to do"
    if late_units >= units:
        return "the witnesses drawn for them have not signed, or left: if it stays so the run needs more peers that can be reached"
    if not codes.isdisjoint(("unreachable", "announced-address-silent")):
        return "no epoch has certified them, and no address of this peer answers from outside: open the port that the note names"
    return (
        "no epoch has certified them: it goes on by itself; if it stays so ask the organiser whether the others get on"
    )


def _blocked_by(cause: str, missing_seats: int) -> str:
    if cause == AT_ONCE:
        return "the p2p daemon does not answer: if it stays so the peer starts anew by itself"
    if cause == "no-link":
        return "this peer is linked to nobody: is the seed up, and reachable from here?"
    if cause == "waits-for-peers" or (cause == "alone" and missing_seats):
        return f"the run begins once {missing_words(missing_seats)}: invite somebody"
    if cause == "alone":
        return "no other peer trains in this run, and it takes another to witness them: invite somebody"
    return "nobody else here can be reached from outside to witness them: one has to open its port, or the organiser adds a peer"


def unpaid_words(units: int, why: str) -> str:
    """For people; empty where there are none."""
    if not units:
        return ""
    return f"{units} {'unit' if units == 1 else 'units'} without a receipt so far" + (f": {why}" if why else "")


def unpaid_news(units: int, why: str) -> str:
    """What makes it worth telling again where lines are not overwritten: another reason, or twice as many."""
    return f"{units.bit_length()} {why}" if units else ""


__all__ = [
    "LATE_EPOCHS",
    "RECEIPT_SECONDS",
    "Counted",
    "Overdue",
    "is_blocked",
    "longest_wait_seconds",
    "unpaid_news",
    "unpaid_words",
    "why_overdue",
]
