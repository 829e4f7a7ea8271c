"""What a peer writes of itself has a bound, and whoever reads it misses nothing."""

import json
from pathlib import Path

import pytest

from peers.directory import PeerDirectory, old_events
from peers.eventlog import EventLog, shown_before
from peers.watching import EventTail, read_events
from swarm.events import Fault, WrongAverage
from swarm.records.types import NO_ATTEMPT, Average, RoundSet, SetContent, Signed

LINE = 120  # bytes, about


def fault(number: int) -> Fault:
    return Fault(number.to_bytes(20, "big"), "a rule")


def numbers(events: list[dict[str, object]]) -> list[int]:
    return [int(str(event["account"]), 16) for event in events]


@pytest.fixture
def directory(tmp_path: Path) -> PeerDirectory:
    return PeerDirectory(tmp_path)


def test_two_files_of_bounded_size_hold_the_newest_events(directory: PeerDirectory) -> None:
    log = EventLog(directory.events, 10 * LINE)
    for number in range(1000):
        log.write(fault(number))
    log.close()
    assert directory.events.stat().st_size <= 10 * LINE
    assert old_events(directory.events).stat().st_size <= 10 * LINE
    found = numbers(read_events(directory))
    assert found == list(range(found[0], 1000)) and len(found) > 10
    assert {p.name for p in directory.root.iterdir()} == {"events.jsonl", "events.old.jsonl"}


def test_the_bound_holds_over_restarts(directory: PeerDirectory) -> None:
    for number in range(100):
        log = EventLog(directory.events, 10 * LINE)
        log.write(fault(number))
        log.close()
    assert directory.events.stat().st_size <= 10 * LINE
    assert numbers(read_events(directory))[-1] == 99


@pytest.mark.parametrize("from_start", [True, False])
def test_who_follows_misses_nothing_when_a_new_file_is_begun(directory: PeerDirectory, from_start: bool) -> None:
    log = EventLog(directory.events, 10 * LINE)
    for number in range(15):  # into the second file
        log.write(fault(number))
    assert old_events(directory.events).exists()
    tail = EventTail(directory.events, from_start=from_start)
    found = numbers(tail.read() + tail.read())
    for number in range(15, 100):
        log.write(fault(number))
        if number % 7 == 0:
            found += numbers(tail.read() + tail.read())
    log.close()
    found += numbers(tail.read() + tail.read())
    assert found == list(range(0 if from_start else 15, 100))


def test_half_a_line_of_a_full_disk_does_not_take_the_next_one_along(directory: PeerDirectory) -> None:
    directory.events.write_text(json.dumps({"event": "Ready", "account": "0x7"}) + '\n{"event": "Fau')
    log = EventLog(directory.events)
    log.write(fault(8))
    log.close()
    assert numbers(read_events(directory)) == [7, 8]


def test_an_empty_directory_has_no_events(directory: PeerDirectory) -> None:
    assert read_events(directory) == []


def test_who_averaged_wrongly_is_known_after_a_restart(directory: PeerDirectory) -> None:
    """From both files; what is torn or rotten says nothing."""
    log = EventLog(directory.events, 4000)
    for number in (1, 2):
        record = Average(bytes(32), 1, 0, bytes(32), bytes(32), 0, 4, bytes(32))
        average = Signed(record, number.to_bytes(20, "big"), bytes(65))
        set_record = RoundSet(bytes(32), 1, 0, bytes(32), bytes(32), 0, bytes(32), bytes(32), NO_ATTEMPT)
        log.write(WrongAverage(Signed(set_record, bytes(20), bytes(65), SetContent((), ())), average, bytes(32)))
        for other in range(10):
            log.write(fault(other))
    log.close()
    assert old_events(directory.events).exists()
    with open(directory.events, "ab") as handle:
        handle.write(b'{"event": "WrongAverage", "account": "0x12"}\n{"event": "WrongAverage", "acc')
    assert shown_before(directory.events) == {n.to_bytes(20, "big") for n in (1, 2)}
    assert shown_before(directory.root / "elsewhere" / "events.jsonl") == set()
