"""Blocks by Bitswap between peers with real daemons: honest ones, liars, silent and dead ones, strangers, floods."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from swarm import varint
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.network import SwarmNetwork
from swarm.transport.bitswap import PROTOCOL, Message, cid_of, framed, wantlist
from swarm.transport.dialer import Dialer
from swarm.transport.exchange import GONE_SECONDS, Exchange
from swarm.transport.node import PATIENCE_SECONDS, Node, Stream
from tests.process import raw
from tests.process.test_hostile_links import attacker
from tests.process.test_transport import Member, run, swarm, until

MIB = 1 << 20
LONG = bytes(MIB)


@asynccontextmanager
async def stranger(tmp_path: Path, target: Member) -> AsyncIterator[Member]:
    """Connected, without a link, and serves what it has."""
    async with attacker(tmp_path, target) as member:
        await member.exchange.start()
        yield member
        await member.exchange.close()


@asynccontextmanager
async def serving(
    path: Path, bytes_per_day: int, is_linked: bool = False, upload_bytes_per_day: int = 0
) -> AsyncIterator[Member]:
    async with await Node.open(path) as node:
        member = Member(node, 0)
        member.exchange = Exchange(node, member, lambda peer_id: is_linked, bytes_per_day, upload_bytes_per_day)
        await member.exchange.start()
        yield member
        await member.exchange.close()


def linked(*members: Member) -> bool:
    return all(len(member.links.links) == len(members) - 1 for member in members)


def block(data: bytes) -> Message:
    return Message(blocks=((cid_of(b""), data),))


def big(number: int, size: int = MIB) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


@pytest.mark.parametrize("clients", [0, 1])
def test_blocks_come_also_to_who_accepts_no_connection(tmp_path: Path, clients: int) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2 - clients, clients) as members:
            donor, asking = members
            await until(lambda: linked(*members))
            digests = [donor.put(big(n)) for n in range(40)] + [donor.put(b""), donor.put(b"small")]
            peer_id = donor.node.peer_id
            found = await asking.exchange.get(peer_id, [*digests, b"?" * 32], 64 * MIB, 30.0)
            assert found == {digest: donor.store[digest] for digest in digests}
            assert donor.exchange.sent_bytes == asking.exchange.received_bytes == 40 * MIB + 5
            assert await asking.exchange.get(peer_id, digests[:1], 2 * MIB, 5.0) == {digests[0]: big(0)}
            with pytest.raises(PeerFault, match="more bytes"):
                await asking.exchange.get(peer_id, digests[:2], MIB, 5.0)

    run(work())


def test_two_that_ask_for_the_same_get_it_both(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            donor, asking = members
            await until(lambda: linked(*members))
            digests = [donor.put(big(n)) for n in range(8)]
            gets = [asking.exchange.get(donor.node.peer_id, digests[at:], 64 * MIB, 20.0) for at in (0, 4, 4)]
            found = await asyncio.gather(*gets)
            assert [set(each) for each in found] == [set(digests), set(digests[4:]), set(digests[4:])]

    run(work())


def test_a_liar_is_told_by_its_first_bad_block_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            liar, asking = members
            await until(lambda: linked(*members))
            digests = [liar.put(big(n)) for n in range(8)]
            for digest in digests[1:]:
                liar.store[digest] = liar.store[digest][:-1] + b"!"
            found: dict[bytes, bytes] = {}
            begun = time.monotonic()
            with pytest.raises(PeerFault, match="nobody asked for"):
                await asking.exchange.get(liar.node.peer_id, digests, 64 * MIB, 20.0, found)
            assert time.monotonic() - begun < 5.0
            assert set(found) <= {digests[0]}
            assert asking.exchange.received_bytes <= MIB

    run(work())


def test_who_is_silent_refuses_or_dies_costs_seconds_and_what_came_is_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as donor:
            asking = members[0]
            digests = [donor.put(big(n)) for n in range(3)]

            async def seconds(found: dict[bytes, bytes], patience: float) -> float:
                begun = time.monotonic()
                with pytest.raises(RetryError, match="silent or gone"):
                    await asking.exchange.get(donor.node.peer_id, digests, 64 * MIB, 60.0, found, patience)
                return time.monotonic() - begun

            async def refuse(stream: Stream) -> None:
                pass

            async def stall(stream: Stream) -> None:
                while how[0] is stall:
                    await asyncio.sleep(0.02)

            how = [refuse]
            await donor.node.handle(PROTOCOL, lambda stream: how[0](stream))
            assert await seconds({}, 30.0) < 2 * GONE_SECONDS
            how[0] = stall
            assert 3.0 <= await seconds({}, 3.0) < 5.0

            async def one_and_then_nothing(stream: Stream) -> None:
                back = await donor.node.stream(asking.node.peer_id, PROTOCOL, 5.0)
                await back.send_delimited(framed(block(donor.store[digests[0]])), 5.0)
                await asyncio.sleep(100)

            how[0] = one_and_then_nothing
            await asyncio.sleep(1.0)  # until the stream of before has ended
            found: dict[bytes, bytes] = {}
            getting = asyncio.create_task(seconds(found, 30.0))
            await until(lambda: bool(found))
            donor.node.daemon.kill()
            begun = time.monotonic()
            await getting
            assert time.monotonic() - begun < 5.0
            assert found == {digests[0]: big(0)}

    run(work())


def test_what_is_given_up_is_taken_back_and_no_fault_when_it_comes_late(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            donor, asking = members
            await until(lambda: linked(*members))
            digests = [donor.put(big(n)) for n in range(200)]
            with pytest.raises((TimeoutError, RetryError)):
                await asking.exchange.get(donor.node.peer_id, digests, 256 * MIB, 0.1)
            await asyncio.sleep(1.0)
            sent = donor.exchange.sent_bytes
            assert sent < 200 * MIB
            found = await asking.exchange.get(donor.node.peer_id, digests[-4:], 8 * MIB, 20.0)
            assert set(found) == set(digests[-4:])

    run(work())


def test_who_has_no_link_gets_what_a_day_allows_and_who_has_one_all(tmp_path: Path) -> None:
    async def work() -> None:
        for number, (bytes_per_day, is_linked, given) in enumerate(
            ((0, False, 0), (16 * MIB, False, 4), (0, True, 12))  # half of it at once, half of that for one identity
        ):
            async with serving(tmp_path / str(number), bytes_per_day, is_linked) as target:
                digests = [target.put(big(n)) for n in range(12)]
                async with stranger(tmp_path, target) as free:
                    assert len(await free.exchange.get(target.node.peer_id, digests, 64 * MIB, 20.0)) == given

    run(work())


def test_a_cap_on_what_is_given_away_holds_for_who_is_linked_but_for_what_is_short(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "capped", 0, True, 16 * MIB) as target:
            digests, short = [target.put(big(n)) for n in range(12)], target.put(b"a proof of storage")
            async with stranger(tmp_path, target) as linked:
                assert len(await linked.exchange.get(target.node.peer_id, digests, 64 * MIB, 20.0)) == 4
                assert short in await linked.exchange.get(target.node.peer_id, [short], MIB, 20.0)

    run(work())


def test_members_are_asked_first_and_nobody_waits_long_for_a_stranger(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as staller:
            asking, honest = members
            digest = honest.put(b"a block")

            async def stall(stream: Stream) -> None:
                await asyncio.sleep(100)

            await staller.node.handle(PROTOCOL, stall)
            staller.links.book.add_invited(asking.node.addresses())
            await staller.links.start()
            await until(lambda: len(asking.links.links) == 2)
            asking.links.is_member = lambda account: account == honest.account
            network = SwarmNetwork(asking.node, (), Dialer(tmp_path / "dialer.key"))
            network.links, network.exchange = asking.links, asking.exchange
            assert network.donors()[0] == honest.account
            begun = time.monotonic()
            with pytest.raises(RetryError):
                await network.ask(staller.account, [digest])
            assert time.monotonic() - begun < 3 * PATIENCE_SECONDS
            assert await network.ask(honest.account, [digest]) == {digest: b"a block"}
            await staller.links.close()

    run(work())


# -- against the rules --------------------------------------------------------------------------------------------------
async def said(attacker: Node, target: Member, data: Sequence[bytes], seconds: float = 20.0) -> bool:
    """Whether the target ends the stream on which this is said."""
    stream = await attacker.stream(target.node.peer_id, PROTOCOL, 10)
    try:
        for each in data:
            await stream.send_delimited(each, seconds)
        async with asyncio.timeout(seconds):
            await raw.swallow(stream)
        return True
    except (RetryError, OSError):
        return True
    except TimeoutError:
        return False
    finally:
        stream.close()


BROKEN = {
    "a varint of ten bytes": b"\xff" * 10,
    "5 MiB": varint.encoded(5 * MIB),
    "a long message": varint.encoded(MIB) + bytes(1000),
    "a block": framed(block(b"nobody asked for it")),
    "no message": varint.encoded(4) + b"\x0a\x7f\0\0",
    "more wants than a message of a stranger holds": framed(wantlist(n.to_bytes(32, "big") for n in range(1500))),
}


def test_what_breaks_a_rule_ends_its_stream_and_nothing_else(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as bad:
            await until(lambda: linked(*members))
            for name, data in BROKEN.items():
                begun = time.monotonic()
                assert await said(bad.node, members[0], [data]), name
                assert time.monotonic() - begun < PATIENCE_SECONDS, name
            digest = members[0].put(b"a block")
            assert await members[1].exchange.get(members[0].node.peer_id, [digest], MIB, 10.0)
            assert members[0].exchange.received_bytes == 0

    run(work())


def test_who_reads_slowly_or_not_keeps_nobody_waiting_and_is_given_up_in_seconds(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "target", 10**12) as target, stranger(tmp_path, target) as honest:
            digests = [target.put(big(n)) for n in range(64)]
            last = target.put(b"small")
            async with attacker(tmp_path, target) as deaf:
                coming: list[Stream] = []

                async def take_nothing(stream: Stream) -> None:
                    coming.append(stream)
                    await asyncio.sleep(100)

                await deaf.node.handle(PROTOCOL, take_nothing)
                stream = await deaf.node.stream(target.node.peer_id, PROTOCOL, 10)
                await stream.send_delimited(framed(wantlist(digests)), 10)
                await until(lambda: target.exchange.sent_bytes > 0)
                begun = time.monotonic()
                assert await honest.exchange.get(target.node.peer_id, [last], MIB, 10.0)
                assert time.monotonic() - begun < 2.0
                await until(lambda: target.exchange.num_answered(is_member=False) == 0, 3.5 * PATIENCE_SECONDS)
                assert target.exchange.sent_bytes < 64 * MIB, "it was given up"
                stream.close()

    run(work())


def test_a_flood_costs_little_memory_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """200 MB that nobody asked for, 400,000 wants."""

    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as bad:
            target, honest = members
            await until(lambda: linked(*members))
            digest = target.put(b"a block")
            own = psutil.Process()
            before = own.memory_info().rss
            wants = [framed(wantlist(sha256(bytes([n, m])) for m in range(250))) for n in range(8)]

            async def flood() -> None:
                unwanted = framed(block(big(0)))
                for _ in range(20):
                    await said(bad.node, target, [unwanted] * 10)
                stream = await bad.node.stream(target.node.peer_id, PROTOCOL, 10)
                for n in range(400_000 // 250):
                    await stream.send_delimited(wants[n % 8], 60.0)
                stream.close()

            flooding = asyncio.create_task(flood())
            for _ in range(10):
                begun = time.monotonic()
                assert await honest.exchange.get(target.node.peer_id, [digest], MIB, 10.0)
                assert time.monotonic() - begun < 2.0
                await asyncio.sleep(0.3)
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            assert own.memory_info().rss - before < 16 << 20
            assert target.exchange.received_bytes == 0

    run(work())
