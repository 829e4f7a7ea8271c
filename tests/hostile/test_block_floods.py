"""Floods of blocks, wants and streams from who has no link: the memory of the peer's process and of its daemon, and who is served beside
them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.blocks import Part, part, write_file
from swarm import varint
from swarm.errors import RetryError
from swarm.hashing import sha256
from swarm.transport.bitswap import PROTOCOL, Message, cid_of, framed, wantlist
from swarm.transport.exchange import Exchange, Nothing
from swarm.transport.node import PATIENCE_SECONDS, Node, Stream
from tests.process import raw

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
MIB = 1 << 20
MOST_BYTES = 16 * MIB  # that a flood may cost
FILE_BYTES = 64 * MIB
SERVED_SECONDS = 5.0


class Target:
    """A donor that is a process of its own, warm: one has fetched its file."""

    def __init__(self, donor: Part, digests: list[bytes]) -> None:
        self.peer_id, self.addresses, self.digests = donor.first["peer"], donor.first["addresses"], digests
        self._processes = [psutil.Process(donor.process.pid), psutil.Process(donor.first["daemon"])]

    def memory(self) -> list[int]:
        """Resident bytes of the process and of its daemon."""
        return [process.memory_info().rss for process in self._processes]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("floods")
    write_file(root, FILE_BYTES)
    digests = [bytes.fromhex(path.name) for path in (root / "blocks").iterdir()]
    with part(str(root), "--part", "donor", "--strangers-bytes", str(10**12)) as donor:
        made = Target(donor, digests)

        async def warm() -> None:
            async with client(root / "warm", made) as node:
                exchange = Exchange(node, Nothing())
                await exchange.start()
                assert len(await exchange.get(made.peer_id, digests, 2 * FILE_BYTES, 60.0)) == len(digests)
                await exchange.close()

        asyncio.run(warm())
        yield made


@asynccontextmanager
async def client(identity: Path, target: Target) -> AsyncIterator[Node]:
    async with await Node.open(identity, client_mode=True) as node:
        await node.connect(target.addresses, 20.0)
        yield node


async def opened(node: Node, target: Target) -> Stream:
    """Again and again, though it be disconnected: that is the flood."""
    while True:
        try:
            return await node.stream(target.peer_id, PROTOCOL, 10.0)
        except RetryError:
            await asyncio.sleep(0.2)
            with contextlib.suppress(RetryError):
                await node.connect(target.addresses, 10.0)


async def pour(node: Node, target: Target, data: bytes, times: int) -> None:
    """On one stream after the other, as far as each is listened to."""
    left = times
    while left:
        stream = await opened(node, target)
        try:
            while left:
                left -= 1
                await stream.send_delimited(data, 20.0)
        except RetryError:
            pass
        finally:
            stream.close()


async def unrequested(node: Node, target: Target) -> None:
    await pour(node, target, framed(Message(blocks=((cid_of(b""), bytes(MIB)),))), 200)


async def small_unrequested(node: Node, target: Target) -> None:
    await pour(node, target, framed(Message(blocks=((cid_of(b""), bytes(50_000)),))), 400)


async def wants(node: Node, target: Target) -> None:
    """400,000, each another one, as fast as they are read; of those that are not read the other side has nothing."""
    stream = await opened(node, target)
    with contextlib.suppress(RetryError, TimeoutError):
        async with asyncio.timeout(15.0):
            for number in range(400_000 // 1000):
                digests = (sha256(bytes((number % 256, number // 256, n % 256, n // 256))) for n in range(1000))
                await stream.send_delimited(framed(wantlist(digests)), 20.0)
    stream.close()


async def varints(node: Node, target: Target) -> None:
    await pour(node, target, b"\xff" * 10, 100)


async def long_messages(node: Node, target: Target) -> None:
    await pour(node, target, varint.encoded(5 * MIB) + bytes(5 * MIB), 20)


async def drips(node: Node, target: Target) -> None:
    """A byte a second of a message, on as many streams as are given; each is closed in seconds."""
    streams = [await opened(node, target) for _ in range(4)]
    begun = time.monotonic()

    async def drip(stream: Stream) -> None:
        raw.say(stream, varint.encoded(60_000))
        ended = asyncio.create_task(raw.swallow(stream))
        while not (await asyncio.wait((ended,), timeout=1.0))[0]:
            raw.say(stream, b"x")
        with contextlib.suppress(OSError):
            ended.result()

    await asyncio.gather(*map(drip, streams))
    assert time.monotonic() - begun < 3 * PATIENCE_SECONDS
    for stream in streams:
        stream.close()


async def thousand_streams(node: Node, target: Target) -> None:
    held = [await opened(node, target) for _ in range(250)]  # of each of four
    for stream in held:
        stream.close()


async def deaf(node: Node, target: Target) -> None:
    """Wants all there is, and takes nothing of it."""

    async def take_nothing(stream: Stream) -> None:
        await asyncio.sleep(60.0)

    await node.handle(PROTOCOL, take_nothing)
    for _ in range(4):
        stream = await opened(node, target)
        await stream.send_delimited(framed(wantlist(target.digests)), 10.0)
        await asyncio.sleep(2.0)
        stream.close()


Flood = Callable[[Node, Target], Awaitable[None]]
FLOODS: tuple[Flood, ...] = (
    unrequested,
    small_unrequested,
    wants,
    varints,
    long_messages,
    drips,
    thousand_streams,
    deaf,
)
ATTACKERS = 4


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood_costs_sixteen_megabytes_at_most_and_others_are_served(
    target: Target, flood: Flood, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async def work() -> None:
        before = most = target.memory()
        slowest = 0.0
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(client(tmp_path / str(n), target)) for n in range(ATTACKERS)]
            honest = await stack.enter_async_context(client(tmp_path / "honest", target))
            exchange = Exchange(honest, Nothing())
            await exchange.start()
            flooding = asyncio.gather(*(flood(node, target) for node in nodes))
            number = 0
            while not flooding.done():
                most = [max(pair) for pair in zip(most, target.memory(), strict=True)]
                begun, digest = time.monotonic(), target.digests[number % len(target.digests)]
                assert await exchange.get(target.peer_id, [digest], 2 * MIB, 20.0)
                slowest, number = max(slowest, time.monotonic() - begun), number + 1
                await asyncio.sleep(0.25)
            flooding.result()
            await exchange.close()
        grown = [(high - low) / MIB for high, low in zip(most, before, strict=True)]
        print(f"\n{flood.__name__}: process +{grown[0]:.1f} MiB, daemon +{grown[1]:.1f} MiB, slowest {slowest:.2f} s")
        record_property("grown_mib", grown)
        assert grown[0] * MIB <= MOST_BYTES
        assert slowest < SERVED_SECONDS

    asyncio.run(asyncio.wait_for(work(), 200.0))
