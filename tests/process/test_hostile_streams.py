"""Streams that take up places and say nothing, against one peer with a real daemon: members, newcomers, silence, floods of openings."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import swarm.transport.daemon as daemon_module
import swarm.transport.links as links_module
from swarm.errors import PeerFault, RetryError
from swarm.network import SwarmNetwork
from swarm.transport import bitswap
from swarm.transport.bulk import GET, PUSH
from swarm.transport.dialer import Dialer
from swarm.transport.door import Door
from swarm.transport.link import Kind, Link
from swarm.transport.links import MAX_LINKS, MAX_STRANGERS_IN, MEMBER_WEIGHT, PROTOCOL
from swarm.transport.node import HERE, PATIENCE_SECONDS, Node, Stream
from swarm.transport.places import MAX_STRANGER_STREAMS, MAX_STREAMS_PER_STRANGER, OPENINGS_AT_ONCE
from tests.process import raw
from tests.process.test_hostile_links import attacker, frame, raw_link
from tests.process.test_transport import RUN, Member, joined, run, swarm, until

SQUATTERS = 3


async def opened(node: Node, target: Member, protocol: str, first: bytes = b"") -> Stream | None:
    try:
        stream = await node.stream(target.node.peer_id, protocol, 20)
        raw.say(stream, first)
        return stream
    except (RetryError, OSError):
        return None


async def ended(stream: Stream, seconds: float) -> bool:
    """Whether the other side closes it within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await raw.swallow(stream)
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@asynccontextmanager
async def squatters(tmp_path: Path, target: Member, number: int = SQUATTERS) -> AsyncIterator[list[Member]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(attacker(tmp_path, target)) for _ in range(number)]


@pytest.mark.parametrize("protocol", [PROTOCOL, GET, PUSH, HERE, bitswap.PROTOCOL])
def test_a_stream_that_says_nothing_or_half_is_closed_in_seconds(tmp_path: Path, protocol: str) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as bad:
            held = [
                await opened(bad.node, members[0], protocol, first) for first in (b"", (32).to_bytes(4, "big") + b"x")
            ]
            begun = time.monotonic()
            for stream in held:
                assert stream is not None and await ended(stream, 3 * PATIENCE_SECONDS)
            assert time.monotonic() - begun < 2 * PATIENCE_SECONDS
            await until(lambda: members[0].node.places(protocol).num_held(is_member=False) == 0, 2.0)

    run(work())


def test_a_reader_that_takes_nothing_is_closed_in_seconds(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as deaf:
            wanted = b"".join(members[0].put(bytes([n]) * (1 << 20)) for n in range(8)) * 32
            stream = await deaf.node.stream(members[0].node.peer_id, GET, 20)
            await stream.send(wanted, 20)
            await until(lambda: members[0].bulk.sent_bytes > 0)
            places = members[0].node.places(GET)
            await until(lambda: places.num_held(is_member=False) == 0, 4 * PATIENCE_SECONDS)
            assert members[0].bulk.sent_bytes < 256 << 20, "it was not read to the end"
            stream.close()

    run(work())


def test_a_member_and_a_newcomer_are_served_beside_squatters(tmp_path: Path) -> None:
    """They open as many streams as they are let, again and again; nobody else waits for one of them."""

    async def work() -> None:
        async with (
            swarm(tmp_path, 1) as members,
            attacker(tmp_path, members[0]) as member,
            attacker(tmp_path, members[0]) as newcomer,
            squatters(tmp_path, members[0]) as bad,
        ):
            target = members[0]
            target.links.is_member = lambda account: account == member.account
            target.node.is_member = target.links.is_member_identity
            digest = target.put(b"a block")
            holding = await raw_link(member, target)
            await until(lambda: member.account in target.links.links)
            half = (36).to_bytes(4, "big")  # of a header or a list of digests

            async def squat(each: Member, protocol: str) -> None:
                while True:
                    streams = [await opened(each.node, target, protocol, half) for _ in range(MAX_STREAMS_PER_STRANGER)]
                    await asyncio.sleep(PATIENCE_SECONDS)
                    for stream in streams:
                        if stream is not None:
                            stream.close()

            squatting = [asyncio.create_task(squat(each, p)) for each in bad for p in (GET, PUSH, PROTOCOL)]
            places = target.node.places(GET)
            await until(lambda: places.num_held(is_member=False) >= SQUATTERS)
            for _ in range(6):
                assert await member.bulk.get(target.node.peer_id, [digest], 1000, 5.0)
                await member.bulk.push(target.node.peer_id, [(b"h" * 36, b"part")], 5.0)
                assert await newcomer.bulk.get(target.node.peer_id, [digest], 1000, 5.0)
                assert places.num_held(is_member=False) <= MAX_STRANGER_STREAMS
                await holding.send(frame(Kind.PING), 5)
                await asyncio.sleep(0.1)
            joined = await raw_link(newcomer, target)
            await until(lambda: newcomer.account in target.links.links, 5.0)
            for task in squatting:
                task.cancel()
            await asyncio.gather(*squatting, return_exceptions=True)
            for stream in (holding, joined):
                stream.close()

    run(work())


def test_who_opens_streams_without_end_is_disconnected(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as bad:
            kept = await opened(bad.node, members[0], GET)
            assert kept is not None

            async def is_connected() -> bool:
                return bad.node.p2p.peer_id in [p.peer_id for p in await members[0].node.p2p.list_peers()]

            assert await is_connected()
            for _ in range(int(OPENINGS_AT_ONCE) + 8):
                stream = await opened(bad.node, members[0], HERE)
                if stream is None:
                    break
                stream.close()
            begun = time.monotonic()
            while await is_connected():
                assert time.monotonic() - begun < 10.0
                await asyncio.sleep(0.1)
            assert await ended(kept, 2.0)

    run(work())


def test_no_part_is_taken_from_who_has_no_link(tmp_path: Path) -> None:
    async def work() -> None:
        async with await Node.open(tmp_path / "a") as node:
            target = Member(node, 3)
            target.bulk._may_push = lambda peer_id: peer_id in {x.peer_id for x in target.links.links.values()}
            await target.bulk.start()
            await target.links.start()
            async with attacker(tmp_path, target) as pusher:
                with pytest.raises((RetryError, PeerFault)):
                    await pusher.bulk.push(node.peer_id, [(b"h" * 36, bytes(4 << 10))], 5.0)
                assert not target.pushed and target.bulk.received_bytes == 0
                link = await raw_link(pusher, target)
                await until(lambda: pusher.account in target.links.links)
                await pusher.bulk.push(node.peer_id, [(b"h" * 36, bytes(4 << 10))], 5.0)
                assert len(target.pushed) == 1
                link.close()
            await target.links.close()

    run(work())


def test_blocks_are_asked_of_members_first_and_nobody_waits_long_for_a_stranger(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as staller:
            asking, honest = members
            digest = honest.put(b"a block")

            async def stall(stream: Stream) -> None:
                await asyncio.sleep(100)

            await staller.node.handle(bitswap.PROTOCOL, stall)
            staller.links.book.add_invited(asking.node.addresses())
            await staller.links.start()
            await until(lambda: len(asking.links.links) == 2)
            asking.links.is_member = lambda account: account == honest.account
            network = SwarmNetwork(asking.node, (), Dialer(tmp_path / "dialer.key"))
            network.links, network.exchange = asking.links, asking.exchange
            assert network.donors()[0] == honest.account
            begun = time.monotonic()
            with contextlib.suppress(RetryError):
                await network.ask(staller.account, [digest])
            assert time.monotonic() - begun < 3 * PATIENCE_SECONDS
            await staller.links.close()

    run(work())


class _Seat:
    """The stream of a link that is not used but to be closed, seen from an address."""

    def __init__(self, network: str) -> None:
        self.address, self.closed = f"/ip4/{network}/tcp/1", False

    def close(self) -> None:
        self.closed = True


def test_seats_of_links_go_to_other_networks_and_to_who_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members:
            links = members[0].links
            free = iter(range(1, 10_000))

            def come(network: str, opened_here: bool = False) -> _Seat | None:
                name, seat = next(free), _Seat(network)
                link = Link(name.to_bytes(20, "big"), f"peer{name}", 3, (), (), seat, opened_here)  # type: ignore[arg-type]
                if not links.admit(link):
                    return None
                links.links[link.account] = link
                return seat

            dialled = [come("192.0.2.7", opened_here=True) for _ in range(MAX_LINKS)]
            assert sum(seat is not None for seat in dialled) == MAX_LINKS - MAX_STRANGERS_IN
            first = [come("192.0.2.1") for _ in range(MAX_STRANGERS_IN)]
            assert all(first) and come("192.0.2.1") is None
            assert come("198.51.100.1") and [seat.closed for seat in first if seat] == [True] + [False] * 47
            monkeypatch.setattr(links_module, "SEAT_SECONDS", 0.0)
            assert come("192.0.2.1") is not None, "who has not worked for so long gives way"
            assert len(links.links) == MAX_LINKS
            links.links.clear()

    run(work())


def test_of_too_many_connections_members_keep_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CONNECTIONS", 4), ("CONNECTIONS_KEPT", 2), ("CONNECTION_GRACE_SECONDS", 1)):
        monkeypatch.setattr(daemon_module, name, value)

    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as member:
            target = members[0]
            target.links.is_member = lambda account: account == member.account
            link = await raw_link(member, target)
            await until(lambda: any(x.weight == MEMBER_WEIGHT for x in target.links.links.values()))
            async with AsyncExitStack() as stack:
                for n in range(5):  # clients: a few of those that serve the DHT are kept for its sake
                    free = await Node.open(tmp_path / f"free{n}", client_mode=True)
                    await stack.enter_async_context(free)
                    await free.connect(target.node.addresses(), 20)
                kept: list[str] = []
                begun = time.monotonic()
                while not 0 < len(kept) <= 3:
                    assert time.monotonic() - begun < 40.0, kept
                    await asyncio.sleep(0.5)
                    kept = [p.peer_id.to_base58() for p in await target.node.p2p.list_peers()]
                assert member.node.peer_id in kept
            link.close()

    run(work())


def test_strangers_that_are_dialled_at_deaf_addresses_keep_no_member_waiting(tmp_path: Path) -> None:
    async def work() -> None:
        dialer, found = Dialer(tmp_path / "dialer.key"), list[str]()
        deaf = await asyncio.start_server(lambda reader, writer: asyncio.sleep(100), "127.0.0.1", 0)
        port = deaf.sockets[0].getsockname()[1]
        async with await Node.open(tmp_path / "a") as node:
            address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{node.peer_id}"
            strangers = [asyncio.create_task(dialer.answering([address], found.append, False)) for _ in range(8)]
            await asyncio.sleep(1.0)
            async with asyncio.timeout(15.0):
                await dialer.answering(node.addresses(), found.append, True)
            assert found == list(node.addresses()) and not all(task.done() for task in strangers)
            for task in strangers:
                task.cancel()
            await asyncio.gather(*strangers, return_exceptions=True)
        deaf.close()
        dialer.close()

    run(work())


def test_a_stranger_without_a_stamp_is_refused_with_a_reason_and_members_need_none(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as helper:
            target = members[0]
            target.links.door = Door(RUN, target.account, 0.05, None, lambda account: account == helper.account)
            link = await raw_link(helper, target)  # one that has worked; its history is what is known from now on
            await until(lambda: helper.account in target.links.links)
            await link.send(frame(Kind.DONE), 5)
            target.links.knows_lineage = True
            async with joined(tmp_path, members) as newcomer:
                peer_id = target.node.peer_id
                await until(lambda: "asks newcomers for a stamp" in newcomer.links.problems.get(peer_id, ""))
                assert "\n" not in newcomer.links.problems[peer_id]
                assert newcomer.account not in target.links.links
                newcomer.links.door = Door(RUN, newcomer.account, 0.05)
                await newcomer.links.door.make()
                await until(lambda: newcomer.account in target.links.links)
            link.close()

    run(work())
