"""The emulated home line with real sockets in its namespaces."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import wan

RATE = wan.LineRate(up_bits=8e6, down_bits=32e6, round_trip_seconds=0.060)
WHY_NOT = wan.refused()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"no network namespaces here: {WHY_NOT}")

RECEIVER = """
import json, socket, sys, time
with socket.create_server((sys.argv[1], 7000)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection:
        connection.recv(1)
        connection.sendall(b"x")  # the sender times this round trip
        begun, got = time.monotonic(), 0
        while piece := connection.recv(1 << 16):
            got += len(piece)
        print(json.dumps({"bytes": got, "seconds": time.monotonic() - begun}), flush=True)
"""
SENDER = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 7000), timeout=20) as connection:
    begun = time.monotonic()
    connection.sendall(b"x"); connection.recv(1)
    print(time.monotonic() - begun, flush=True)
    connection.sendall(bytes(int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wan.build(tmp_path_factory.mktemp("wan"))


@pytest.fixture
def places(program: Path) -> Iterator[list[wan.Place]]:
    with wan.line(program, 3, RATE) as made:
        yield made


def transfer(sender: wan.Place, receiver: wan.Place, size: int) -> tuple[float, float]:
    """(round trip in seconds, delivered bits per second)."""
    server = subprocess.Popen(
        receiver.command(sys.executable, "-c", RECEIVER, receiver.address), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        sent = subprocess.run(
            sender.command(sys.executable, "-c", SENDER, receiver.address, str(size)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        got = json.loads(server.stdout.readline())
        assert got["bytes"] == size
        return float(sent.stdout), got["bytes"] * 8 / got["seconds"]
    finally:
        server.kill()
        server.communicate()


def test_the_line_delivers_at_its_upload_rate_and_round_trip(places: list[wan.Place]) -> None:
    before = places[0].sent_bytes()
    size = 3_000_000
    trips, rates = [], []
    for _ in range(3):  # load on this machine only ever slows it down
        trip, rate = transfer(places[0], places[1], size)
        trips.append(trip)
        rates.append(rate)
        if rate > 0.85 * RATE.up_bits and trip < 1.5 * RATE.round_trip_seconds:
            break
    assert 0.85 * RATE.up_bits < max(rates) < 1.15 * RATE.up_bits
    assert RATE.round_trip_seconds <= min(trips) < 1.5 * RATE.round_trip_seconds
    counted = (places[0].sent_bytes() - before) / len(rates)
    assert size < counted < 1.15 * size  # payload, headers, acknowledgements


def test_a_slower_download_is_the_limit(program: Path) -> None:
    slow = wan.LineRate(up_bits=32e6, down_bits=8e6, round_trip_seconds=0.01)
    with wan.line(program, 2, slow) as places:
        rates: list[float] = []
        while not rates or (rates[-1] < 0.85 * slow.down_bits and len(rates) < 3):
            rates.append(transfer(places[0], places[1], 3_000_000)[1])
    assert 0.85 * slow.down_bits < max(rates) < 1.15 * slow.down_bits


def test_a_namespace_reaches_its_line_and_nothing_else(places: list[wan.Place]) -> None:
    code = "import socket; s = socket.socket(); s.settimeout(3); s.connect(('192.0.2.1', 80))"
    done = subprocess.run(places[0].command(sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert done.returncode
    assert "Network is unreachable" in done.stderr


def test_a_killed_owner_leaves_no_emulator(program: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom benchmarks import wan\n"
        f"with wan.line(Path({str(program)!r}), 2, wan.LineRate()) as places:\n"
        "    print(places[0].prefix[2], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the emulator outlived its owner"
        time.sleep(0.05)


def test_the_loopback_namespace_counts_only_what_runs_in_it(program: Path) -> None:
    with wan.loopback(program, 2) as places:
        assert places[0].sent_bytes() == 0
        transfer(places[0], places[1], 100_000)
        assert 100_000 < places[0].sent_bytes() < 150_000


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(wan.WanUnavailable, match="no C compiler"):
        wan.build(tmp_path / "out")
