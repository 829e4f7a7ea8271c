"""Links, bulk and daemon against peers that mean harm, or are merely slow: real p2p daemons on loopback."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

import swarm.transport.node as node_module
from swarm.errors import InputError, RetryError
from swarm.network import SwarmNetwork
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES
from swarm.transport.bulk import GET
from swarm.transport.dialer import Dialer
from swarm.transport.link import MAX_MESSAGE_BYTES, MESSAGE_COST_BYTES, QUEUE_BYTES, RATE_BYTES, Kind, Link
from swarm.transport.links import MAX_LINKS, MAX_STRANGERS_IN, PROTOCOL
from swarm.transport.node import Node, Stream
from swarm.transport.places import MAX_STREAMS_PER_STRANGER
from tests.process import raw
from tests.process.test_transport import Member, joined, run, swarm, until


async def raw_link(member: Member, target: Member) -> Stream:
    """A link of `member` to `target` whose frames the test writes itself."""
    stream = await member.node.stream(target.node.peer_id, PROTOCOL, 20)
    await stream.send(member.links.hello(), 20)
    await stream.receive(20)
    return stream


@asynccontextmanager
async def attacker(tmp_path: Path, target: Member) -> AsyncIterator[Member]:
    """A member that links nowhere by itself."""
    async with await Node.open(tmp_path / f"attacker{time.monotonic_ns()}") as node:
        await node.connect(target.node.addresses(), 20)
        yield Member(node, FLAG_VOTES | FLAG_REDUCES)


def frame(kind: int, data: bytes = b"") -> bytes:
    return bytes((kind,)) + data


def test_a_frame_against_the_rules_ends_its_link_and_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as bad:
            await until(lambda: all(len(m.links.links) == 1 and m.links.synced for m in members))
            for garbage in (b"", frame(0), frame(9), frame(Kind.SUMMARY, bytes(70_000))):
                stream = await raw_link(bad, members[0])
                await until(lambda: bad.account in members[0].links.links)
                await stream.send(garbage, 5)
                await until(lambda: bad.account not in members[0].links.links)
            stream = await raw_link(bad, members[0])
            raw.say(stream, (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
            await until(lambda: bad.account not in members[0].links.links)
            members[1].links.publish(b"still there")
            await until(lambda: members[0].heard == [b"still there"])
            with pytest.raises(InputError, match="message"):
                members[1].links.publish(bytes(MAX_MESSAGE_BYTES))

    run(work())


def test_who_links_up_again_and_again_is_refused_for_a_while(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as bad:
            links = 0
            with contextlib.suppress(RetryError):
                while links < 30:
                    (await raw_link(bad, members[0])).close()
                    links += 1
            assert 10 <= links < 20

    run(work())


def test_two_processes_with_one_account_do_not_throw_each_other_out(tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            swarm(tmp_path, 1) as members,
            attacker(tmp_path, members[0]) as one,
            attacker(tmp_path, members[0]) as two,
        ):
            two.links.account, two.key = one.account, one.key
            first = await raw_link(one, members[0])
            await until(lambda: one.account in members[0].links.links)
            second = await raw_link(two, members[0])
            await asyncio.sleep(1.0)
            assert members[0].links.links[one.account].peer_id == one.node.peer_id
            await first.send(frame(Kind.PING), 5)
            # One identity cannot hold two seats either.
            three = Member(one.node, FLAG_VOTES)
            third = await raw_link(three, members[0])
            await asyncio.sleep(0.5)
            assert set(members[0].links.links) == {one.account}
            for stream in (first, second, third):  # held until here, or they would be closed by this end
                stream.close()

    run(work())


class _Closed:
    """A stream that is not used but to be closed."""

    closed, address = False, "/ip4/192.0.2.1/tcp/1"

    def close(self) -> None:
        self.closed = True


def test_strangers_can_take_neither_all_seats_nor_those_of_members(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members:
            links = members[0].links
            seats: list[_Closed] = []

            def come(name: int, opened_here: bool) -> bool:
                stream = _Closed()
                account = name.to_bytes(20, "big")
                link = Link(account, f"peer{name}", 3, (), (), stream, opened_here)  # type: ignore[arg-type]
                if links.admit(link):
                    links.links[account] = link
                    seats.append(stream)
                    return True
                return False

            links.is_member = lambda account: int.from_bytes(account, "big") >= 1000
            assert sum(come(n, False) for n in range(1, 200)) == MAX_STRANGERS_IN
            assert sum(come(n, True) for n in range(200, 400)) == MAX_LINKS - MAX_STRANGERS_IN
            assert all(come(n, False) for n in range(1000, 1000 + MAX_LINKS))
            assert len(links.links) == MAX_LINKS and all(links.is_member(a) for a in links.links)
            assert sum(s.closed for s in seats) == MAX_LINKS
            assert not come(5000, False) and not come(1, True)
            links.links.clear()

    run(work())


def test_a_peer_that_reads_nothing_costs_bounded_memory_and_its_link(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as deaf:
            await until(lambda: all(len(m.links.links) == 1 and m.links.synced for m in members))
            stream = await raw_link(deaf, members[0])  # held: a stream that nobody refers to is closed
            await until(lambda: deaf.account in members[0].links.links)
            most = 0
            for index in range(60):
                members[0].links.publish(index.to_bytes(4, "big") + bytes(1 << 20))
                link = members[0].links.links.get(deaf.account)
                most = max(most, link.queued_bytes if link else 0)
                await until(lambda i=index: len(members[1].heard) == i + 1)  # type: ignore[misc]
            await until(lambda: deaf.account not in members[0].links.links)
            assert most <= QUEUE_BYTES
            assert members[1].account in members[0].links.links
            stream.close()

    run(work())


def test_a_long_history_comes_in_order_once_and_news_overtake_it(tmp_path: Path) -> None:
    """10,000 certificates of a small run: 40,000 messages of 1.5 kB, more than may come in one burst."""

    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            history = [index.to_bytes(4, "big") + bytes(1500) for index in range(40_000)]
            members[0].history.records = members[1].history.records = history
            await until(lambda: all(len(m.links.links) == 1 and m.links.synced for m in members))
            members[0].history.asked.clear()
            async with joined(tmp_path, members) as joiner:
                # Its summary stays empty while it is told: whoever it asked next on a slow machine would tell it all once more.
                joiner.links.sync_seconds = 60.0
                most = 0
                begun = time.monotonic()

                def done() -> bool:
                    nonlocal most
                    link = members[0].links.links.get(joiner.account)
                    most = max(most, link.queued_bytes if link else 0)
                    return len(joiner.heard) >= len(history)

                await until(lambda: done() or len(joiner.heard) > 1000, 100)
                assert len(joiner.heard) < len(history), "too fast for this test"
                joiner.links.publish(b"news of the joiner")
                await until(lambda: b"news of the joiner" in members[0].heard, 20)
                await until(done, 100)
                print(f"40,000 messages in {time.monotonic() - begun:.1f} s, at most {most} bytes queued")
                is_same = joiner.heard == history
                assert is_same, (
                    f"{len(joiner.heard)} messages, or in another order"
                )  # a difference of 60 MB is not to be printed
                assert most < 1 << 20
                assert members[1].heard == [b"news of the joiner"]  # a joiner hands on no history
                # It has all of it now: what it asks next brings nothing.
                joiner.history.records = history
                joiner.links.sync_seconds = 1.0
                asked = len(members[0].history.asked) + len(members[1].history.asked)
                await until(lambda: len(members[0].history.asked) + len(members[1].history.asked) > asked, 60)
                assert len(joiner.heard) == len(history)

    run(work())


def test_what_a_link_lost_is_asked_for_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            await until(lambda: all(len(m.links.links) == 1 and m.links.synced for m in members))
            members[0].history.records = [b"missed"]  # the other was told nothing
            await until(lambda: members[1].heard == [b"missed"])

    run(work())


def test_a_flood_on_one_link_is_read_slowly_and_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as bad:
            await until(lambda: all(len(m.links.links) == 1 and m.links.synced for m in members))
            stream = await raw_link(bad, members[0])
            await until(lambda: bad.account in members[0].links.links)
            members[0].links.links[bad.account].allowance = 0.0  # as after a burst
            members[0].valid = False
            begun = time.monotonic()
            for index in range(10_000):
                await stream.send(frame(Kind.MESSAGE, index.to_bytes(8, "big")), 60)
                if index % 100 == 0:
                    await asyncio.sleep(0)
            members[1].links.publish(b"honest")
            await until(lambda: b"honest" in members[0].heard)
            assert len(members[0].heard) < 10_000
            await until(lambda: len(members[0].heard) == 10_001)
            assert time.monotonic() - begun > 0.8 * 10_000 * MESSAGE_COST_BYTES / RATE_BYTES

    run(work())


def test_streams_of_one_peer_are_limited(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as bad:
            members[0].put(b"block")
            held = [await bad.node.stream(members[0].node.peer_id, GET, 20) for _ in range(MAX_STREAMS_PER_STRANGER)]
            await asyncio.sleep(0.5)
            one_more = await bad.node.stream(members[0].node.peer_id, GET, 20)
            with pytest.raises(RetryError, match="gone"):
                await one_more.receive(10)
            for stream in held:
                stream.close()
            async with attacker(tmp_path, members[0]) as other:
                digest = next(iter(members[0].store))
                assert await other.bulk.get(members[0].node.peer_id, [digest], 1000, 20)

    run(work())


def test_a_donor_that_stalls_costs_a_part_of_the_time_and_keeps_nothing_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members, attacker(tmp_path, members[0]) as staller:
            asking, honest = members
            digests = [honest.put(bytes([n]) * 1000) for n in range(3)]

            async def stall(stream: Stream) -> None:
                await asyncio.sleep(100)

            await staller.node.handle(GET, stall)
            staller.links.book.add_invited(asking.node.addresses())
            await staller.links.start()
            await until(lambda: len(asking.links.links) == 2)
            network = SwarmNetwork(asking.node, (), Dialer(tmp_path / "dialer.key"))
            network.links, network.bulk = asking.links, asking.bulk
            heard: list[bytes] = []
            found = await network.fetch([staller.account], digests, 10_000, 8.0, lambda digest, _: heard.append(digest))
            assert set(found) == set(digests) and heard == digests
            assert len(await network.fetch([honest.account], digests, 2500, 8.0)) == 2
            await staller.links.close()

    run(work())


def test_the_daemon_dies_with_its_peer_even_if_it_is_stopped(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from swarm.transport.node import Node\n"
        "async def main():\n"
        "    node = await Node.open(Path(sys.argv[1]))\n"
        "    print(node.daemon.pid, flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).parents[2]
    peer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "identity")],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert peer.stdout is not None
    daemon = psutil.Process(int(peer.stdout.readline()))
    daemon.suspend()  # it cannot notice anything by itself
    peer.kill()
    peer.wait()
    try:
        psutil.wait_procs([daemon], timeout=20)
        assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
    finally:
        if daemon.is_running():
            daemon.kill()


def test_a_daemon_that_hangs_is_seen_and_closing_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(node_module, "HUNG_SECONDS", 2.0)

    async def work() -> None:
        async with await Node.open(tmp_path / "a") as node:
            await asyncio.sleep(2.0)
            assert node.is_alive
            os.kill(node.daemon.pid, signal.SIGSTOP)
            await until(lambda: not node.is_alive)
        monkeypatch.setattr(node_module, "WATCH_SECONDS", 1000.0)
        node = await Node.open(tmp_path / "b")
        os.kill(node.daemon.pid, signal.SIGSTOP)
        begun = time.monotonic()
        await node.close()
        assert time.monotonic() - begun < 10
        assert not psutil.pid_exists(node.daemon.pid)

    run(work())


def test_a_daemon_that_is_not_ready_in_time_says_which_setting_helps(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(RetryError, match="startup_timeout_seconds"):
            await Node.open(tmp_path / "a", startup_timeout_seconds=0.001)
        (tmp_path / "b").write_bytes(b"no key")
        with pytest.raises(RetryError, match="did not start"):
            await Node.open(tmp_path / "b")
        with pytest.raises(InputError, match="bootstrap address"):
            await SwarmNetwork.open(
                tmp_path / "c",
                host="127.0.0.1",
                port=0,
                announce=(),
                client_mode=False,
                initial_peers=["nonsense"],
                startup_timeout_seconds=60,
            )

    run(work())


def test_ipv6_is_listened_on_and_linked_over(tmp_path: Path) -> None:
    async def work() -> None:
        async with await Node.open(tmp_path / "six", host="::1") as node:
            assert node.addresses()[0].startswith("/ip6/::1/tcp/")
            member = Member(node, FLAG_VOTES | FLAG_REDUCES)
            await member.links.start()
            async with joined(tmp_path, [member]) as joiner:
                await until(lambda: member.account in joiner.links.links)
            await member.links.close()

    run(work())


def test_who_asks_a_peer_that_tells_nothing_asks_another_soon(tmp_path: Path) -> None:
    """Its link is alive and says that there is more to come: for minutes nobody else was asked, and a newcomer gave up."""

    async def work() -> None:
        async with swarm(tmp_path, 1) as members, await Node.open(tmp_path / "newcomer") as node:
            members[0].history.records = [index.to_bytes(4, "big") for index in range(10)]
            newcomer = Member(node, FLAG_VOTES)
            newcomer.links.sync_seconds = 30.0
            await newcomer.links.start()
            async with attacker(tmp_path, newcomer) as bad:
                stream = await raw_link(bad, newcomer)
                await until(lambda: newcomer.links.syncing is not None)  # the first that came is asked first

                async def ping() -> None:
                    while True:
                        await stream.send(frame(Kind.PING), 5)
                        await stream.send(frame(Kind.HISTORY, b"the same again"), 5)
                        await asyncio.sleep(0.5)

                pinging = asyncio.create_task(ping())
                newcomer.links.book.add_invited(members[0].node.addresses())
                await until(lambda: set(members[0].history.records) <= set(newcomer.heard), 15)
                assert newcomer.links.synced
                pinging.cancel()
                stream.close()
            await newcomer.links.close()

    run(work())


def test_slow_readers_do_not_hold_up_those_who_read(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, attacker(tmp_path, members[0]) as slow:
            wanted = b"".join(members[0].put(bytes([index]) * (1 << 20)) for index in range(8)) * 32
            held = [await slow.node.stream(members[0].node.peer_id, GET, 20) for _ in range(MAX_STREAMS_PER_STRANGER)]
            for stream in held:
                await stream.send(wanted, 20)  # a quarter of a gigabyte each, and reads none of it
            await asyncio.sleep(2.0)
            async with attacker(tmp_path, members[0]) as honest:
                digest = members[0].put(b"a part of the round under way")
                begun = time.monotonic()
                assert await honest.bulk.get(members[0].node.peer_id, [digest], 1000, 20)
                assert time.monotonic() - begun < 5.0
            for stream in held:
                stream.close()

    run(work())
