"""How much a peer writes to its disk in a day: counted, not guessed, and spread over the day (decision 0019).

What has to be written is (certified averages, what is signed, records); it is counted, and leaves less for what can wait. What can
wait asks first, each kind for a share of its own, so that none takes another's.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pydantic_core import from_json

from swarm.atomic import write_atomically, written_bytes
from swarm.errors import SwarmError

log = logging.getLogger(__name__)
DAY_SECONDS = 86400.0
AT_ONCE = 0.2  # of a day's bytes may be written at once; the rest comes evenly: in no 24 hours is it more than a day's
SHARES = {"anchors": 0.3, "joiners": 0.2, "snapshots": 0.25, "audits": 0.25}
FULL = 0.9  # of a quota: then room is made, so that what must be written fits
KEEP_SECONDS = 10.0  # how often the count is written down: so much of it a kill may lose
_IO = Path("/proc/self/io")


class Spending(Protocol):
    """Whoever writes what can wait asks this before."""

    def take(self, kind: str, num_bytes: int) -> bool:
        """Whether `num_bytes` may be written now; they are counted as written then. `kind`: one of `SHARES`."""

    def may(self, kind: str, num_bytes: int) -> bool:
        """The same question, and nothing is counted."""


class Boundless:
    """No budget: for who keeps count of nothing, a test or a reader."""

    def take(self, kind: str, num_bytes: int) -> bool:
        return True

    def may(self, kind: str, num_bytes: int) -> bool:
        return True


class Measure:
    """Bytes that this process has written: by the kernel's count where it keeps one, and at least what went through `swarm.atomic` and
    what `growing` files (journal, ledger, logs) have grown by."""

    def __init__(self, growing: Sequence[Path] = ()) -> None:
        self._growing = {path: _size(path) for path in growing}
        self._grown, self._kernel, self._door = 0, _kernel_bytes(), written_bytes()

    def __call__(self) -> int:
        """Since the last call."""
        for path, before in self._growing.items():
            now = _size(path)
            self._grown += max(0, now - before)
            self._growing[path] = now
        door, kernel = written_bytes(), _kernel_bytes()
        new = max(door - self._door + self._grown, kernel - self._kernel)
        self._door, self._kernel, self._grown = door, kernel, 0
        return new


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _kernel_bytes() -> int:
    """0 where it does not say (another system, or a disk in memory)."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(": ") for line in _IO.read_text(encoding="ascii").splitlines())
        return int(lines["write_bytes"])
    return 0


class DiskBudget:
    """Thread-safe. Implements `Spending`. `measured()`: bytes written since it was asked last; `clock`: unix seconds. The count is in
    `file`, so that a start anew is no new day; a clock that was put back gives nothing."""

    def __init__(
        self, bytes_per_day: int, file: Path, measured: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self.bytes_per_day, self._file, self._measured, self._clock = bytes_per_day, file, measured, clock
        self.is_full = False  # the directory: nothing that can wait is written
        self._lock = threading.Lock()
        self._credit = {"": AT_ONCE * bytes_per_day}  # "": of all together
        self._credit |= {kind: share * AT_ONCE * bytes_per_day for kind, share in SHARES.items()}
        self._hours: dict[int, int] = {}  # hour → bytes
        self._at = self._kept_at = clock()
        self._read()

    def may(self, kind: str, num_bytes: int) -> bool:
        with self._lock:
            self._catch_up()
            return self._has(kind, num_bytes)

    def take(self, kind: str, num_bytes: int) -> bool:
        with self._lock:
            self._catch_up()
            if not self._has(kind, num_bytes):
                return False
            self._credit[kind] -= num_bytes  # the sum is taken off by what is measured
            return True

    def _has(self, kind: str, num_bytes: int) -> bool:
        """What is more than fits into a share waits until it is full, and is paid back."""
        if self.is_full:
            return False
        limits = {"": AT_ONCE * self.bytes_per_day, kind: SHARES[kind] * AT_ONCE * self.bytes_per_day}
        return all(self._credit[name] >= min(num_bytes, 0.999 * limit) for name, limit in limits.items())

    def _catch_up(self) -> None:
        now, new = self._clock(), self._measured()
        passed, self._at = max(0.0, now - self._at), now
        for name in self._credit:
            share = SHARES.get(name, 1.0) * self.bytes_per_day
            more = self._credit[name] + passed / DAY_SECONDS * (1.0 - AT_ONCE) * share
            self._credit[name] = min(more, AT_ONCE * share)
        self._credit[""] -= new
        hour = int(now // 3600)
        if new:
            self._hours[hour] = self._hours.get(hour, 0) + new
        self._hours = {h: n for h, n in self._hours.items() if hour - 24 < h <= hour}

    def look(self) -> int:
        """Bytes written in the last 24 hours; to be called every few seconds: the count is kept then."""
        with self._lock:
            self._catch_up()
            if not 0.0 <= self._at - self._kept_at < KEEP_SECONDS:
                self._keep()
            return sum(self._hours.values())

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._catch_up()
            self._keep()

    def _keep(self) -> None:
        self._kept_at = self._at
        value = {"time": self._at, "credit": self._credit, "hours": self._hours}
        with contextlib.suppress(OSError):  # a disk that takes nothing has no budget to keep
            write_atomically(self._file, json.dumps(value).encode(), sync=False)

    def _read(self) -> None:
        """What cannot be read is as if nothing had been written."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
            value = from_json(self._file.read_bytes())
            credit = {name: min(float(value["credit"][name]), full) for name, full in self._credit.items()}
            hours = {int(hour): int(count) for hour, count in value["hours"].items()}
            self._at = min(float(value["time"]), self._at)
            self._credit, self._hours = credit, hours


class DiskQuota:
    """Keeps what lies below `root` within `quota_bytes`. `relief`: what makes room, the most dispensable first. Where even the last had to,
    nothing that can wait is written (`budget.is_full`) until there is room for what it removed, too: it would be written to be removed
    again. Not thread-safe."""

    def __init__(
        self, root: Path, quota_bytes: int, budget: DiskBudget, relief: Sequence[Callable[[], object]]
    ) -> None:
        self._root, self._most, self._budget, self._relief = root, int(FULL * quota_bytes), budget, relief
        self._gone_bytes = 0  # that had to go, and there is no room for them yet

    def look(self) -> int:
        """Bytes below `root`, after what could be done. What cannot be removed is told in the log."""
        size = size_of_tree(self._root)
        for level, make_room in enumerate(self._relief, 1):
            if size > self._most:
                before = size
                self._try(make_room)
                size = size_of_tree(self._root)
                if level == len(self._relief):
                    self._gone_bytes = max(self._gone_bytes, before - size)
        if size + self._gone_bytes <= self._most:
            self._gone_bytes = 0
        self._budget.is_full = size + self._gone_bytes > self._most
        return size

    def _try(self, make_room: Callable[[], object]) -> None:
        try:
            make_room()
        except (OSError, SwarmError) as error:
            log.warning("%s: no room can be made there: %s", self._root, error)


def size_of_tree(root: Path) -> int:
    """Bytes of all files below; what goes meanwhile is passed over."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


__all__ = ["SHARES", "Boundless", "DiskBudget", "DiskQuota", "Measure", "Spending", "size_of_tree"]
