"""What is written in a day stays within the day's bytes, whoever asks and however often the peer is started anew."""

import os
from collections import deque
from pathlib import Path

import pytest

from swarm.atomic import DISK_BLOCK_BYTES, write_atomically
from swarm.budget import SHARES, DiskBudget, DiskQuota, Measure

DAY, BYTES = 86400.0, 1_000_000_000


class Disk:
    """A machine with a clock of its own, that counts what is written to it."""

    def __init__(self, path: Path) -> None:
        self.now, self.new, self.path = 1e9, 0, path
        self.log: deque[tuple[float, int]] = deque()
        self.budget = self.opened()

    def opened(self) -> DiskBudget:
        return DiskBudget(BYTES, self.path / "written.json", self.measured, lambda: self.now)

    def measured(self) -> int:
        new, self.new = self.new, 0
        return new

    def write(self, size: int) -> None:
        self.new += size
        self.log.append((self.now, size))

    def ask(self, kind: str, size: int) -> bool:
        given = self.budget.take(kind, size)
        if given:
            self.write(size)
        return given

    def in_a_day(self) -> int:
        return sum(size for at, size in self.log if at > self.now - DAY)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.mark.parametrize("again", [False, True])
def test_whoever_writes_all_that_it_may_stays_within_the_day(disk: Disk, again: bool) -> None:
    most = 0
    for minute in range(4 * 24 * 60):
        disk.now += 60.0
        for kind in SHARES:
            disk.ask(kind, 3_000_000)
        disk.budget.look()
        if again and minute % 97 == 0:
            disk.budget.close()
            disk.budget = disk.opened()
        if minute % 60 == 0:
            most = max(most, disk.in_a_day())
            assert disk.budget.look() <= BYTES
    assert 0.75 * BYTES < most <= BYTES


def test_what_must_be_written_leaves_less_for_what_can_wait(disk: Disk) -> None:
    for _ in range(2 * 24 * 60):
        disk.now += 60.0
        disk.write(BYTES // (24 * 60) * 6 // 10)  # six tenths of the day's bytes, evenly
        for kind in SHARES:
            disk.ask(kind, 1_000_000)
    assert disk.in_a_day() <= 1.01 * BYTES
    for _ in range(60):
        disk.now += 60.0
        disk.write(BYTES)  # far beyond
    assert not any(disk.ask(kind, 1) for kind in SHARES)


def test_nobody_takes_the_share_of_another(disk: Disk) -> None:
    while disk.ask("audits", 1_000_000):
        pass
    assert disk.ask("snapshots", 1_000_000) and disk.ask("anchors", 1_000_000)


def test_what_is_larger_than_its_share_waits_until_that_is_full_and_is_paid_back(disk: Disk) -> None:
    size = BYTES // 10
    assert disk.ask("snapshots", size)  # at once a fifth of a quarter of the day
    times = []
    for minute in range(24 * 60):
        disk.now += 60.0
        if disk.ask("snapshots", size):
            times.append(minute)
    assert 1 <= len(times) <= 3


def test_a_clock_that_is_put_back_gives_nothing_and_a_rotten_count_is_none(disk: Disk, tmp_path: Path) -> None:
    while disk.ask("audits", 1_000_000):
        pass
    disk.now -= 10 * DAY
    assert not disk.ask("audits", 1_000_000)
    disk.budget.close()
    again = disk.opened()
    assert not again.may("audits", 1_000_000)
    for damage in (b"", b"{", b"[]", b'{"time": 1, "credit": {}, "hours": []}', b'{"time": "x"}'):
        (tmp_path / "written.json").write_bytes(damage)
        assert disk.opened().may("audits", 1_000_000)


def test_what_goes_through_the_door_and_what_grows_is_measured(tmp_path: Path) -> None:
    grows = tmp_path / "journal"
    grows.write_bytes(b"\0" * 100)
    measure = Measure([grows, tmp_path / "not-yet"])
    write_atomically(tmp_path / "a", b"\0" * 10_000)
    with open(grows, "ab") as handle:
        handle.write(b"\0" * 700)
        handle.flush()
        os.fsync(handle.fileno())
    (tmp_path / "not-yet").write_bytes(b"\0" * 50)
    first = measure()
    assert first >= 3 * DISK_BLOCK_BYTES + 700 + 50
    assert measure() < first


def test_what_had_to_go_for_the_quota_is_not_written_again_before_there_is_room(disk: Disk) -> None:
    root = disk.path / "peer"
    root.mkdir()
    (root / "ledger").write_bytes(bytes(700))
    snapshot = root / "state.snapshot"
    written = 0
    quota = DiskQuota(root, 1000, disk.budget, [lambda: snapshot.unlink(missing_ok=True)])
    for _ in range(10):  # at the brink: what must stay fits, and a snapshot does not fit beside it
        if disk.ask("snapshots", 400):
            snapshot.write_bytes(bytes(400))
            written += 1
        quota.look()
    assert written == 1 and not snapshot.exists()
    (root / "ledger").write_bytes(bytes(400))
    quota.look()
    assert disk.ask("snapshots", 400)


def test_a_directory_that_gives_nothing_back_ends_no_peer(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    def refused() -> None:
        raise OSError(30, "Read-only file system")

    (disk.path / "ledger").write_bytes(bytes(2000))
    DiskQuota(disk.path, 1000, disk.budget, [refused]).look()
    assert disk.budget.is_full and "Read-only file system" in caplog.text
