"""Free identities that take up places at peers and do no work: `python -m tests.hostile.squatting DIRECTORY RUN_ID NUMBER ADDRESS…`.

One process with so many nodes of the product's own, each with a key of its own. It is told what to do by words on stdin, a line
each: the names of functions below, or `rest`, in which no stream is open. On stdout it says a line for each: `{"doing": word}`
once every stream was opened once, and on `count` how many streams were opened, refused and closed by the other side since.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from coincurve import PrivateKey

from incentives import records
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, Account
from swarm.transport import bulk, dialback, links, node
from swarm.transport.addresses import peer_id_of
from swarm.transport.link import Kind
from swarm.transport.links import Links
from swarm.transport.node import Node, Stream
from tests.process import raw

STREAMS_EACH = 16  # of a protocol, of an identity, at a peer: what anybody gets
TRY_SECONDS = 10.0
STARTED_AT_ONCE = 4
# It shares a machine with those that it attacks: their time is not what it is after. Who is not heard tries again after REFUSED_SECONDS.
PAUSE_SECONDS, REFUSED_SECONDS, HELD_SECONDS = 2.0, 30.0, 6.0
OPENING_AT_ONCE = 4  # of an identity: its daemon shares the machine with those that are attacked
HELD = (links.PROTOCOL, bulk.PUSH, bulk.GET)  # without which no round ends
PROTOCOLS = (*HELD, dialback.PROTOCOL, node.HERE)


async def hears_nothing(account: Account, data: bytes) -> bool:
    return False


class NoHistory:
    def summary(self) -> bytes:
        return b""

    def missing(self, summary: bytes) -> Iterator[bytes]:
        return iter(())

    def current(self) -> Iterable[bytes]:
        return ()


class Squatter:
    """One identity."""

    def __init__(self, own: Node, run_id: bytes, targets: list[str]) -> None:
        self.node, self.targets = own, targets
        self.key = PrivateKey()
        self.hello = Links(
            own,
            run_id,
            records.account_of(self.key),
            FLAG_VOTES | FLAG_REDUCES,
            lambda digest: records.sign(self.key, digest),
            records.recover,
            hears_nothing,
            NoHistory(),
        ).hello
        self.opening = asyncio.Semaphore(OPENING_AT_ONCE)
        self.counts: Counter[str] = Counter()

    async def open(self, target: str, protocol: str) -> Stream | None:
        try:
            async with self.opening:
                stream = await self.node.stream(str(peer_id_of(target)), protocol, TRY_SECONDS)
        except RetryError:
            self.counts["unopened"] += 1
            with contextlib.suppress(RetryError):
                await self.node.connect([target], TRY_SECONDS)
            return None
        self.counts["opened"] += 1
        return stream

    async def hold(self, target: str, protocol: str, first: bytes, reads: bool = True) -> None:
        """Open, say `first` (raw bytes), and then nothing until the other side has had enough; again, more seldom where nobody
        listens."""
        while True:
            stream = await self.open(target, protocol)
            if stream is None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            begun = time.monotonic()
            try:
                raw.say(stream, first)
                if not reads:
                    await asyncio.sleep(3600.0)
                await raw.swallow(stream)
            except OSError:
                pass
            finally:
                stream.close()
            seconds = time.monotonic() - begun
            self.counts["closed" if seconds > 0.5 else "refused"] += 1
            await asyncio.sleep(PAUSE_SECONDS if seconds > HELD_SECONDS else REFUSED_SECONDS)

    async def link(self, target: str) -> None:
        """A link like any other, on which nothing is ever said but pings."""
        while True:
            stream = await self.open(target, links.PROTOCOL)
            if stream is not None:
                with contextlib.suppress(RetryError, PeerFault):
                    await stream.send(self.hello(), TRY_SECONDS)
                    await stream.receive(TRY_SECONDS)
                    self.counts["linked"] += 1
                    reading = asyncio.create_task(self._swallow(stream))
                    while not reading.done():
                        await stream.send(bytes((Kind.PING,)), TRY_SECONDS)
                        await asyncio.wait((reading,), timeout=4.0)
                stream.close()
            await asyncio.sleep(1.0)

    async def _swallow(self, stream: Stream) -> None:
        with contextlib.suppress(OSError):
            await raw.swallow(stream)

    async def open_and_close(self, target: str, protocol: str) -> None:
        while True:
            stream = await self.open(target, protocol)
            if stream is not None:
                stream.close()
            await asyncio.sleep(0.0 if stream is not None else 0.5)


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def doing(word: str, squatter: Squatter, target: str) -> list[object]:
    """The work of one identity at one peer."""
    each = range(STREAMS_EACH)
    if word == "silent":
        return [squatter.hold(target, p, b"") for p in HELD for _ in each]
    if word == "everywhere":
        return [squatter.hold(target, p, b"") for p in PROTOCOLS for _ in each]
    if word == "half":
        half_a_hello = framed(squatter.hello())[:-20]
        first = {
            bulk.GET: b"\0\0",
            links.PROTOCOL: half_a_hello,
            bulk.PUSH: framed(bytes(36)) + (2048).to_bytes(4, "big") + bytes(2000),
        }
        return [squatter.hold(target, p, first[p]) for p in HELD for _ in each]
    if word == "linked":
        return [squatter.link(target)]
    if word == "deaf":
        wanted = framed(sha256(b"") * 256)  # answers that nobody reads
        return [squatter.link(target), *(squatter.hold(target, bulk.GET, wanted, reads=False) for _ in each)]
    if word == "loop":
        return [squatter.open_and_close(target, p) for p in PROTOCOLS]
    raise SystemExit(f"no such word: {word}")


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main(directory: Path, run_id: bytes, number: int, targets: list[str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        squatters: list[Squatter] = []
        paths = [directory / f"squatter{index}" for index in range(number)]
        for at in range(0, number, STARTED_AT_ONCE):
            started = [Node.open(path, client_mode=True) for path in paths[at : at + STARTED_AT_ONCE]]
            for own in await asyncio.gather(*started):
                squatters.append(Squatter(await stack.enter_async_context(own), run_id, targets))
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks: list[asyncio.Task[None]] = []
        say(doing="rest")
        while word := (await reader.readline()).decode().strip():
            if word == "count":
                say(count=sum((s.counts for s in squatters), Counter()))
                for squatter in squatters:
                    squatter.counts.clear()
                continue
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks = []
            if word != "rest":
                for squatter in squatters:
                    squatter.counts.clear()
                    for target in targets:
                        tasks += [asyncio.create_task(work) for work in doing(word, squatter, target)]  # type: ignore[arg-type]
                deadline = time.monotonic() + 30.0
                while min(s.counts.total() for s in squatters) < len(tasks) / number and time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
            say(doing=word)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
