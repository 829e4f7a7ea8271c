"""A peer's books in a process of their own, killed at drawn moments: python -m tests.process.bookkeeper FOLDER DRAWS.

Each draw has a folder of its own, where `published` holds what had left the process when it was killed. What the books wait for takes
long, so that a kill mostly finds something on its way. The processes are forked, so that torch is imported once."""

import asyncio
import os
import random
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.loop_latency import Desk, Epoch, Script, slow_fsync

PEERS, WITNESSES, EPOCHS, FSYNC_SECONDS, SECONDS = 6, 2, 4, 0.05, 60.0


def script() -> Script:
    return Script(PEERS, WITNESSES)


async def keep(folder: Path, run: Script, played: Sequence[Epoch], pipe: int) -> None:
    def publish(data: bytes) -> None:
        os.write(pipe, struct.pack(">I", len(data)) + data)  # less than a pipe takes whole

    async with Desk.open(folder, run, publish) as desk:
        await desk.hear(run.founder, run.first)
        for epoch in played:
            await desk.play(epoch)


def begin(folder: Path, run: Script, played: Sequence[Epoch], pipe: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            with slow_fsync(FSYNC_SECONDS):
                asyncio.run(keep(folder, run, played, pipe))
        finally:
            os._exit(0)
    return child


def messages(data: bytes) -> list[bytes]:
    """That are whole."""
    found, position = list[bytes](), 0
    while position + 4 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        position += 4 + length
        if position <= len(data):
            found.append(data[position - length : position])
    return found


def read(pipe: int, least: int, until: float) -> bytes:
    """At least so many messages, or what came before the end."""
    found = b""
    while len(messages(found)) < least and time.monotonic() < until:
        if select.select([pipe], [], [], 0.5)[0]:
            data = os.read(pipe, 1 << 16)
            if not data:
                break
            found += data
    return found


def kill(number: int, place: Path, child: int, pipe: int) -> None:
    """At a moment that `number` draws."""
    drawn, until = random.Random(number), time.monotonic() + SECONDS
    found = read(pipe, drawn.randrange(1, 12 * EPOCHS), until)  # of 13 in an epoch
    time.sleep(max(0.0, drawn.uniform(-1.0, 2.0) * FSYNC_SECONDS))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found += read(pipe, 1 << 30, until)  # what left before the kill
    os.close(pipe)
    (place / "published").write_bytes(found)


def main(folder: Path, draws: int) -> None:
    """All at once: they wait for the slow fsync of their own. Forked first, killed by a thread each."""
    run = script()
    played = [run.next_epoch() for _ in range(EPOCHS)]
    begun = []
    for number in range(draws):
        place = folder / str(number)
        place.mkdir()
        ours, theirs = os.pipe()
        begun.append((number, place, begin(place, run, played, theirs), ours))
        os.close(theirs)
    with ThreadPoolExecutor(draws) as pool:
        for _ in pool.map(lambda each: kill(*each), begun):
            pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
