"""`python -m benchmarks.floods`: what a flood of a stranger costs the round of a peer that hears it: memory, and the longest that its
loop stands for one message. Messages are unpacked and taken in as the driver does it, signatures left out; each flood in a process of
its own, on a lineage of rounds that were certified before.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from swarm.errors import PeerFault
from swarm.records.types import Signed
from swarm.records.wire import pack, unpack


@dataclass(frozen=True)
class Cost:
    """Of one flood. Seconds are of the process, on a core of its own if it has one."""

    what: str
    messages: int
    megabytes: float  # as they travel
    grown_mb: float  # resident memory after all of them, less that before
    mean_ms: float  # of a message
    worst_ms: float


def _of_tests(name: str) -> Any:
    """Which are not checked as strictly as what is shipped."""
    return importlib.import_module(f"tests.machine.{name}")


def said(what: str, world: Any, peer: Any, scale: float) -> Iterator[Any]:
    strangers = _of_tests("strangers")
    lineage, tip = peer.machine.lineage, peer.machine.tip
    if what == "seatings on every old certificate":
        for at in list(lineage.path(tip))[1:-1]:
            certificate, body = strangers.seating(at, lineage[at].certificate, (strangers.key(0),))
            yield Signed(certificate, strangers.key(0), bytes(65), body)
    elif what == "certificates that follow nothing":
        for number in range(int(16_384 * scale)):
            yield strangers.unknown(number, strangers.key(number % 256))
    elif what == "seatings of 0.5 MB":
        for number in range(int(120 * scale)):
            seats = (strangers.key(number // 60),)
            certificate, body = strangers.seating(tip, lineage[tip].certificate, seats, 16_000 - number)
            yield Signed(certificate, seats[0], bytes(65), body)
    elif what == "early sets of 0.5 MB":
        for number in range(int(120 * scale)):
            yield strangers.early_set(number, strangers.key(number), 16_000)
    elif what == "contributions with 4,096 merges":
        for number in range(int(200 * scale)):
            yield strangers.contribution(strangers.key(number), tip, peer.machine.epoch, 2, 4096)
    else:  # chained seatings, newest first
        root = lineage.path(tip)[1]
        identify = peer.notary.certificate_id
        yield from reversed(strangers.chained(int(12_000 * scale), root, lineage[root].certificate, identify))


FLOODS = (
    "seatings on every old certificate",
    "certificates that follow nothing",
    "seatings of 0.5 MB",
    "early sets of 0.5 MB",
    "contributions with 4,096 merges",
    "chained seatings, newest first",
)


def measure(job: tuple[str, int, float]) -> Cost:
    what, rounds, scale = job
    strangers = _of_tests("strangers")
    cheap_cryptography, World = _of_tests("cheap").cheap_cryptography, _of_tests("world").World
    with cheap_cryptography():
        world = World(1)
        world.seat()
        for _ in range(rounds):
            world.round()
        peer = world.peers[0]
        messages = [pack(signed) for signed in said(what, world, peer, scale)]
        link = strangers.key(77)
        process, worst, begun = psutil.Process(), 0.0, time.perf_counter()
        before = process.memory_info().rss
        for data in messages:
            started = time.perf_counter()
            with contextlib.suppress(PeerFault):
                peer.machine.receive(unpack(data), link)
            worst = max(worst, time.perf_counter() - started)
        total = time.perf_counter() - begun
        grown = process.memory_info().rss - before
    count = len(messages)
    return Cost(what, count, sum(map(len, messages)) / 1e6, grown / 1e6, total / count * 1e3, worst * 1e3)


def table(costs: list[Cost]) -> Table:
    out = Table(title="one peer, one link", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("flood")
    for name in ("messages", "sent, MB", "memory, MB", "mean, ms", "worst, ms"):
        out.add_column(name, justify="right")
    for cost in costs:
        figures = [f"{cost.megabytes:.1f}", f"{cost.grown_mb:.1f}", f"{cost.mean_ms:.2f}", f"{cost.worst_ms:.1f}"]
        out.add_row(cost.what, f"{cost.messages:,}", *figures)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floods", description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="certified before")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of messages")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if arguments.rounds < 2 or not 0 < arguments.scale <= 10:
        parser.error("--rounds must be at least 2, --scale above 0 and at most 10")
    costs = []
    for what in FLOODS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            costs.append(replace(pool.map(measure, [(what, arguments.rounds, arguments.scale)])[0], what=what))
    Console(width=None if sys.stdout.isatty() else 110).print(table(costs))
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
