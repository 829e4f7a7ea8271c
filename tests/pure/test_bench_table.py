"""The benchmark's arithmetic and its table."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.swarms import Counters, loss_at
from benchmarks.table import Measured, build_table, markdown, not_measured, rows, write_results
from benchmarks.wan import LineRate, WanUnavailable, parse_sent_bytes
from benchmarks.workload import Workload

OURS = Measured(
    system="sparehive",
    peers=2,
    line="loopback",
    repeat=0,
    is_finished=True,
    seconds=30.0,
    epochs=4,
    samples=1000,
    utilisation=0.98,
    utilisation_least=0.97,
    speed=0.96,
    sent_bytes_per_peer=10e6,
    sent_bytes_base=None,
    loss=2.5,
    cpu_seconds_per_peer=7.0,
    cpu_share=0.5,
    peak_rss_bytes_per_peer=900e6,
    peak_pss_bytes_per_peer=700e6,
)
THEIRS = dataclasses.replace(
    OURS, system="hivemind default", seconds=48.0, samples=800, utilisation=0.5, sent_bytes_per_peer=64e6, loss=None
)


def test_ratios_are_per_sample_and_against_the_same_configuration() -> None:
    elsewhere = dataclasses.replace(THEIRS, line="20/100", seconds=1e6)
    ours, theirs, _ = rows([OURS, THEIRS, elsewhere])
    assert ours.cells["faster"] == "2.0×"  # 48 s / 800 samples against 30 s / 1000
    assert ours.cells["less sent"] == "8.0×"  # 80 kB a sample against 10 kB
    assert theirs.cells["faster"] == theirs.cells["less sent"] == theirs.cells["loss"] == "–"


def test_without_the_reference_there_is_no_ratio() -> None:
    (row,) = rows([OURS])
    assert row.cells["faster"] == row.cells["less sent"] == "–"


def test_repeats_are_joined_to_their_median_and_spread() -> None:
    (row,) = rows([dataclasses.replace(OURS, repeat=i, utilisation=u) for i, u in enumerate((0.91, 0.99, 0.98))])
    assert row.cells["utilisation"] == "0.980 (0.910–0.990)"


def test_memory_is_pss_where_the_system_tells_it() -> None:
    with_pss, without = rows([OURS, dataclasses.replace(OURS, system="other", peak_pss_bytes_per_peer=0.0)])
    assert (with_pss.cells["MB memory"], without.cells["MB memory"]) == ("700", "900")


def test_what_did_not_finish_or_could_not_be_measured_says_so() -> None:
    late = dataclasses.replace(OURS, is_finished=False, epochs=3, seconds=150.0)
    found = [*rows([late]), not_measured(2, str(LineRate()), "no C compiler")]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(build_table(found, "title"))
    text = console.export_text()
    for expected in ("2 peers, loopback", "stopped after 3 epochs, 150 s", "20/100 Mbit/s, 50 ms", "no C compiler"):
        assert expected in " ".join(text.split())
        assert expected.removeprefix("2 peers, ") in markdown(found)
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_json_holds_every_single_result(tmp_path: Path) -> None:
    path = tmp_path / "results" / "one.json"
    write_results(path, {"commit": "abc"}, [OURS, THEIRS])
    read = json.loads(path.read_text())
    assert read["commit"] == "abc"
    assert [Measured(**value) for value in read["results"]] == [OURS, THEIRS]


def test_utilisation_is_work_and_rest_over_the_time_between_two_readings() -> None:
    earlier = Counters(10, 1.0, 3.0, 5.0)
    later = Counters(110, 11.0, 33.0, 55.0)
    assert later.since(earlier).utilisation == pytest.approx(0.8)
    assert later.since(earlier).steps_per_second == pytest.approx(2.0)


def test_the_loss_at_equal_samples_lies_on_the_line_between_two_anchors() -> None:
    known = [(0, 5.0), (12, 4.0), (24, 3.0)]
    assert loss_at(known, 18) == pytest.approx(3.5)
    assert loss_at(known, 24) == pytest.approx(3.0)
    assert loss_at(known, 40) == pytest.approx(3.0)


def test_counters_are_read_from_the_right_interface() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier\n"
        "    lo:  111 1 0 0 0 0 0 0  222 1 0 0 0 0 0 0\n"
        "  wan0: 3333 5 0 0 0 0 0 0 4444 6 0 0 0 0 0 0\n"
    )
    assert parse_sent_bytes(text, "wan0") == 4444
    with pytest.raises(WanUnavailable, match="eth7"):
        parse_sent_bytes(text, "eth7")


def test_both_systems_average_after_the_same_number_of_samples() -> None:
    work = Workload(peers=4, epochs=3, units_per_peer=5, steps_per_unit=5, batch_size=4)
    assert work.samples_per_epoch == 4 * 5 * 5 * 4
    assert work.total_units * work.samples_per_unit == work.epochs * work.samples_per_epoch
    assert work.steps_per_peer * work.batch_size * work.peers == work.epochs * work.samples_per_epoch
    assert work.settings()["rounds.units_per_epoch"] == work.units_per_epoch
