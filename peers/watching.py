"""Watches a peer from outside: reads status.json, events.jsonl and the ledger in its directory, which the peer goes on
writing. Whatever is missing, half-written or of another process counts as not there yet. No torch."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from incentives.amounts import BASE_UNITS, Unit
from incentives.errors import IncentivesError
from peers.directory import PeerDirectory, old_events
from peers.ending import course_words
from peers.errors import PeerError
from peers.overdue import LATE_EPOCHS, unpaid_words
from peers.status import PeerStatus

if TYPE_CHECKING:
    from incentives.closing import OwnWork

UTILISATION_SECONDS = 60.0  # over which the share of time in inner steps is taken
RECEIPT_SECONDS = 2.0  # between two looks into the ledger, and at most 2 % of the time
MAX_READ_BYTES = 4 << 20
FRESH_SECONDS = 30.0  # a status that is older is of a peer that has ended
RECOUNTED_EPOCHS = 64  # what is further behind the newest is not looked at again: nothing comes that late


@dataclass(frozen=True, slots=True)
class Stored:
    """What a storer keeps: objects that are here of those that are to be, bytes on disk, storers that it sees (itself with them)."""

    objects: int
    wanted: int
    size: int
    quota: int
    storers: int
    rotten: int
    receipts: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What a peer said of itself last. `units` are all it ever did, `receipts` those that would be paid now, `unpaid_units` what
    should have such a receipt by now and has none, and `unpaid_why` (`peers.overdue`). `advice`: what its owner should know, one line
    each."""

    phase: str = "starting"
    account: str = ""
    epoch: int = 0
    peers: int = 0
    units: int = 0
    inner_steps: int = 0
    train_loss: float | None = None
    held_out_loss: float | None = None
    utilisation: float | None = None
    received_bytes: int = 0
    total_bytes: int = 0
    faults: int = 0
    ended: str = ""
    receipts: int = 0
    paid_units: int = 0
    unpaid_units: int = 0
    unpaid_why: str = ""
    is_reachable: bool | None = None
    advice: tuple[str, ...] = ()
    warning: str = ""
    pay: str = ""
    run_units: int = 0
    total_units: int = 0
    ends_in_seconds: float | None = None
    stored: Stored | None = None  # of a storer

    @property
    def course(self) -> str:
        """How far the run is, for people."""
        return course_words(self.run_units, self.total_units, self.ends_in_seconds)

    @property
    def unpaid(self) -> str:
        """For people, with the remedy; empty where there are none."""
        return unpaid_words(self.unpaid_units, self.unpaid_why)

    @property
    def is_at_work(self) -> bool:
        return self.phase in ("training", "serving", "finished")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the invite says of the run: its name, what a unit is worth, how many co-signers a receipt needs."""

    name: str
    unit_price_amount: int
    has_chain: bool
    rules: Any
    unit: Unit = BASE_UNITS  # what amounts are shown in


def read_terms(directory: PeerDirectory) -> Terms | None:
    """None where there is no readable invite (a seed writes it when it starts)."""
    from peers.invite import Invite

    try:
        invite = Invite.of_file(directory.invite)
    except (OSError, PeerError):
        return None
    config = invite.config
    unit = invite.limits.unit if invite.limits else BASE_UNITS
    return Terms(config.name, config.unit_price, invite.binding.chain_id != 0, invite.pay_rules(), unit)


class EventTail:
    """New lines of events.jsonl, each once, also where the file is full and a new one is begun. `from_start`: those of earlier
    sessions too."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self.path = path
        self._rest = b""
        self._offset = 0
        self._file = 0  # inode of what was read last
        with contextlib.suppress(OSError):
            status = (path if not from_start else _first(path)).stat()
            self._file, self._offset = status.st_ino, 0 if from_start else status.st_size

    def read(self) -> list[dict[str, Any]]:
        """Complete lines only; what is no JSON object is left out."""
        try:
            new = self._read(old_events(self.path), only=self._file)
            if not new:
                new = self._read(self.path)
        except OSError:
            return []
        *lines, self._rest = (self._rest + new).split(b"\n")
        return [event for event in map(_parse, lines) if event is not None]

    def _read(self, path: Path, only: int | None = None) -> bytes:
        """On from where it was read last; from its start if it is another file (then, with `only`, not at all)."""
        try:
            with open(path, "rb") as handle:
                file = os.fstat(handle.fileno()).st_ino
                if only is not None and file != only:
                    return b""
                if file != self._file or handle.seek(0, 2) < self._offset:
                    self._file, self._offset, self._rest = file, 0, b""
                handle.seek(self._offset)
                new = handle.read(MAX_READ_BYTES)
        except FileNotFoundError:
            return b""
        self._offset += len(new)
        return new


def read_events(directory: PeerDirectory) -> list[dict[str, Any]]:
    """All events of a peer that are kept, oldest first; a last line cut off by a kill is left out."""
    found = []
    for path in (old_events(directory.events), directory.events):
        with contextlib.suppress(FileNotFoundError):
            found += [event for event in map(_parse, path.read_bytes().split(b"\n")) if event is not None]
    return found


def _first(path: Path) -> Path:
    return old_events(path) if old_events(path).exists() else path


@dataclass
class ReceiptCount:
    """A running count of one account's receipts: what is far behind the newest epoch is counted once, however long the run is."""

    directory: PeerDirectory
    terms: Terms
    account: str
    _upto: int = -1  # epochs that are in `_counted`
    _at: bytes = b""  # the certificate of that epoch
    _counted: tuple[int, int, int] = (0, 0, 0)
    newest: int = 0  # epoch that was there at the last `read`

    def read(self) -> tuple[int, int, int] | None:
        """(receipts, units) that would be paid now, settled ones included, and units that were certified more than `LATE_EPOCHS` ago
        without; None where the ledger is not to be read."""
        from incentives.closing import own_work_after
        from incentives.ledger import Ledger

        try:
            own = bytes.fromhex(self.account.removeprefix("0x"))
            with Ledger.read(self.directory.ledger) as ledger:
                work, lineage = own_work_after(ledger, self.terms.rules, own, self._upto)
                if self._upto >= 0 and (not lineage or lineage[0].prev != self._at):  # another branch is followed now
                    self._upto, self._at, self._counted = -1, b"", (0, 0, 0)
                    work, lineage = own_work_after(ledger, self.terms.rules, own, -1)
        except (ValueError, IncentivesError):
            return None
        self.newest = newest = lineage[-1].epoch if lineage else 0
        settled = [each for each in lineage if each.epoch <= newest - RECOUNTED_EPOCHS]
        upto = settled[-1].epoch if settled else self._upto
        self._counted = _added(self._counted, (each for each in work if each.epoch <= upto), newest)
        if settled:
            self._upto, self._at = upto, settled[-1].id
        return _added(self._counted, (each for each in work if each.epoch > upto), newest)


def _added(counted: tuple[int, int, int], work: Iterable["OwnWork"], newest: int) -> tuple[int, int, int]:
    receipts, paid, late = counted
    for each in work:
        if each.is_paid:
            receipts, paid = receipts + 1, paid + each.units
        elif each.epoch <= newest - LATE_EPOCHS:
            late += each.units
    return receipts, paid, late


@dataclass
class PeerWatcher:
    """Reads one peer's directory again and again. `pid`: whose status counts; None: the last one's, alive or not."""

    directory: PeerDirectory
    pid: int | None = None
    terms: Terms | None = None
    _samples: deque[tuple[float, float]] = field(default_factory=deque)
    _count: ReceiptCount | None = None
    _receipts: tuple[int, int, int] = (0, 0, 0)
    _look_again: float = 0.0

    def read(self) -> Observation:
        if self.terms is None:
            self.terms = read_terms(self.directory)
        status = PeerStatus.read(self.directory.status)
        if self.pid is not None and status.pid != self.pid:
            status = PeerStatus()
            self._samples.clear()
        self._count_receipts(status.account)
        return Observation(
            phase=status.phase,
            account=status.account,
            epoch=status.epoch,
            peers=status.peers,
            units=status.units,
            inner_steps=status.inner_steps or 0,
            train_loss=status.train_loss,
            held_out_loss=status.held_out_loss,
            utilisation=self._utilisation(status),
            received_bytes=status.received_bytes,
            total_bytes=status.total_bytes,
            faults=status.faults,
            ended=status.ended,
            receipts=self._receipts[0],
            paid_units=self._receipts[1],
            unpaid_units=status.unpaid_units,
            unpaid_why=status.unpaid_why,
            is_reachable=status.reachable,
            advice=tuple(each.text for each in status.advice),
            warning=status.warning,
            pay=status.pay,
            run_units=status.run_units,
            total_units=status.total_units,
            ends_in_seconds=status.ends_in_seconds,
            stored=_stored(status) if status.mode == "store" else None,
        )

    def _utilisation(self, status: PeerStatus) -> float | None:
        now, compute = status.time, status.compute_seconds
        if now is None or compute is None:
            return None
        samples = self._samples
        if not samples or now > samples[-1][0]:
            samples.append((now, compute))
        while samples[0][0] < now - UTILISATION_SECONDS:
            samples.popleft()
        seconds = samples[-1][0] - samples[0][0]
        return min(1.0, (samples[-1][1] - samples[0][1]) / seconds) if seconds > 1.0 else None

    def _count_receipts(self, account: str) -> None:
        if self.terms is None or not account or time.monotonic() < self._look_again:
            return
        begun = time.monotonic()
        if self._count is None or self._count.account != account:
            self._count = ReceiptCount(self.directory, self.terms, account)
        found = self._count.read()
        if found is not None:
            self._receipts = found
        self._look_again = time.monotonic() + max(RECEIPT_SECONDS, 50 * (time.monotonic() - begun))

    def look_again(self) -> None:
        """The next `read` looks into the ledger, however short ago the last look was."""
        self._look_again = 0.0


def _stored(status: PeerStatus) -> Stored:
    return Stored(
        status.stored_objects,
        status.wanted_objects,
        status.stored_bytes,
        status.quota_bytes,
        status.storers,
        status.rotten_blocks,
        status.storage_receipts,
    )


def current_advice(directory: PeerDirectory) -> tuple[str, ...]:
    """What a peer that runs now advises its owner; nothing where it does not run."""
    status = PeerStatus.read(directory.status)
    is_running = time.time() - (status.time or 0.0) < FRESH_SECONDS
    return tuple(each.text for each in status.advice) if is_running else ()


def last_unpaid(directory: PeerDirectory) -> tuple[int, str]:
    """Units that a peer said last to have no receipt, and why; also where it does not run: nothing comes by itself then."""
    status = PeerStatus.read(directory.status)
    return status.unpaid_units, status.unpaid_why


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        value = from_json(text)  # bounds the depth; json.loads can overflow the stack
    except ValueError:  # not JSON, or not UTF-8
        return None
    return value if isinstance(value, dict) else None
