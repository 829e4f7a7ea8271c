"""The transport with real p2p daemons on loopback."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
from coincurve import PrivateKey

from incentives import records
from swarm.errors import InputError, PeerFault, RetryError
from swarm.hashing import sha256
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, Account
from swarm.transport import node as node_module
from swarm.transport.bulk import Bulk
from swarm.transport.exchange import Exchange
from swarm.transport.links import PROTOCOL, Links
from swarm.transport.node import Node

RUN = b"r" * 32


class ListHistory:
    """History of `Member`: messages in a list. The summary is their number: a prefix is what everybody has."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.under_way: list[bytes] = []
        self.asked: list[bytes] = []

    def summary(self) -> bytes:
        return len(self.records).to_bytes(4, "big")

    def missing(self, summary: bytes) -> Iterator[bytes]:
        self.asked.append(summary)
        yield from self.records[int.from_bytes(summary, "big") :]

    def current(self) -> Iterable[bytes]:
        return list(self.under_way)


class Member:
    """One node with links, bulk transfer and blocks, of which who has no link gets none."""

    def __init__(self, node: Node, flags: int, run_id: bytes = RUN) -> None:
        self.node = node
        self.key = PrivateKey()
        self.account = records.account_of(self.key)
        self.heard: list[bytes] = []
        self.store: dict[bytes, bytes] = {}
        self.pushed: list[tuple[bytes, bytes]] = []
        self.valid = True
        self.checking: dict[bytes, asyncio.Event] = {}  # account → until when what it sends is not known to be valid
        self.history = ListHistory()
        self.links = Links(
            node,
            run_id,
            self.account,
            flags,
            lambda digest: records.sign(self.key, digest),
            records.recover,
            self.on_message,
            self.history,
            sync_seconds=1.0,
        )
        self.bulk = Bulk(node, self.store.get, self.on_part)
        self.exchange = Exchange(node, self, lambda peer_id: peer_id in {x.peer_id for x in self.links.links.values()})

    async def on_message(self, account: Account, data: bytes) -> bool:
        self.heard.append(data)
        if account in self.checking:
            await self.checking[account].wait()
        return self.valid

    def on_part(self, peer_id: str, header: bytes, payload: bytes) -> None:
        self.pushed.append((header, payload))
        if payload == b"bad":
            raise PeerFault("norm: no")
        if payload == b"early":
            raise RetryError("its contribution has not come yet")

    def block(self, digest: bytes) -> bytes | None:
        return self.store.get(digest)

    def has_block(self, digest: bytes) -> bool:
        return digest in self.store

    def put(self, data: bytes) -> bytes:
        self.store[sha256(data)] = data
        return sha256(data)


@asynccontextmanager
async def swarm(tmp_path: Path, listeners: int, clients: int = 0) -> AsyncIterator[list[Member]]:
    async with AsyncExitStack() as stack:
        members: list[Member] = []
        for index in range(listeners + clients):
            client = index >= listeners
            first = members[0].node.addresses() if members else ()
            node = await stack.enter_async_context(await Node.open(tmp_path / f"identity{index}", client_mode=client))
            member = Member(node, FLAG_VOTES | (0 if client else FLAG_REDUCES))
            members.append(member)
            await member.bulk.start()
            await member.exchange.start()
            await member.links.start()
            stack.push_async_callback(member.links.close)
            stack.push_async_callback(member.exchange.close)
            member.links.book.add_invited(first)
        yield members


@asynccontextmanager
async def joined(tmp_path: Path, members: list[Member], client_mode: bool = False) -> AsyncIterator[Member]:
    """One more member, that knows the first."""
    async with await Node.open(tmp_path / f"joiner{time.monotonic_ns()}", client_mode=client_mode) as node:
        member = Member(node, FLAG_VOTES)
        await member.bulk.start()
        member.links.book.add_invited(members[0].node.addresses())
        await member.links.start()
        try:
            yield member
        finally:
            await member.links.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 120)

    asyncio.run(bounded())


def test_a_message_reaches_all_also_from_one_client_to_another(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2, 2) as members:
            await until(lambda: all(len(m.links.links) >= 2 and m.links.synced for m in members))
            members[2].links.publish(b"from a client")
            members[1].links.publish(b"from a listener")
            for member in members:
                others = {b"from a client", b"from a listener"} - (
                    {b"from a client"}
                    if member is members[2]
                    else {b"from a listener"}
                    if member is members[1]
                    else set()
                )
                await until(lambda m=member, o=others: set(m.heard) == o)  # type: ignore[misc]
                assert len(member.heard) == len(others)  # each once

    run(work())


def test_where_all_are_linked_each_message_comes_once(tmp_path: Path) -> None:
    """Seven listeners and two clients, which no client can reach: two listeners hand on to each what the other says."""

    async def work() -> None:
        async with swarm(tmp_path, 7, 2) as members:
            clients = {member.account for member in members[7:]}
            for member in members:
                member.links.is_member = lambda account: True

            def has_all(member: Member) -> bool:
                links = member.links.links.values()
                return len(links) == 8 - (member.account in clients) and all(
                    len(x.linked) == 8 - (x.account in clients) for x in links
                )

            await until(lambda: all(m.links.synced and has_all(m) for m in members), 60)
            for number, member in enumerate(members):
                for index in range(20):
                    member.links.publish(b"message %d of %d" % (index, number))
            await until(lambda: all(len(m.heard) >= 160 for m in members))
            assert all(len(set(m.heard)) == len(m.heard) == 160 for m in members)
            extra = [m.links.num_duplicates for m in members]
            assert sum(extra[:7]) < 20 and all(each <= 20 + 5 for each in extra[7:]), extra  # by flooding 160 × 7

    run(work())


def test_a_message_said_again_reaches_who_came_later_and_nobody_twice(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            await until(lambda: all(m.links.links and m.links.synced for m in members))
            members[0].links.publish(b"signature")
            await until(lambda: members[1].heard == [b"signature"])
            async with joined(tmp_path, members) as joiner:
                await until(lambda: len(members[0].links.links) == 2 and joiner.links.synced)
                members[0].links.publish(b"signature")
                members[0].links.publish(b"next")
                await until(lambda: joiner.heard == [b"next"])
                members[0].links.publish(b"signature", again=True)
                await until(lambda: joiner.heard == [b"next", b"signature"])
                assert members[1].heard == [b"signature", b"next"]

    run(work())


def test_a_message_that_is_being_checked_holds_back_its_own_link_alone(tmp_path: Path) -> None:
    """It is passed on once it is known to be valid; what else its sender says is read after it."""

    async def work() -> None:
        async with swarm(tmp_path, 1, 3) as (between, slow, other, third):
            members = (between, slow, other, third)
            await until(lambda: len(between.links.links) == 3 and all(m.links.synced for m in members))
            done = between.checking[slow.account] = asyncio.Event()
            slow.links.publish(b"first")
            slow.links.publish(b"second")
            await until(lambda: b"first" in between.heard)
            other.links.publish(b"of another")
            await until(lambda: b"of another" in third.heard)
            assert b"second" not in between.heard and b"first" not in third.heard
            del between.checking[slow.account]
            done.set()
            await until(lambda: third.heard.count(b"first") == third.heard.count(b"second") == 1)
            assert third.heard.index(b"first") < third.heard.index(b"second")

    run(work())


def test_what_a_peer_calls_invalid_it_does_not_pass_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1, 2) as members:
            await until(lambda: len(members[0].links.links) == 2 and all(m.links.synced for m in members))
            members[0].valid = False
            members[1].links.publish(b"rubbish")
            await until(lambda: members[0].heard == [b"rubbish"])
            members[0].valid = True
            members[1].links.publish(b"sound")
            await until(lambda: b"sound" in members[2].heard)
            assert members[2].heard == [b"sound"]

    run(work())


def test_a_joiner_gets_the_history_and_then_the_round_under_way(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members:
            members[0].history.records = [b"old one", b"old two"]
            members[0].history.under_way = [b"vote"]
            async with joined(tmp_path, members) as joiner:
                await until(lambda: joiner.heard == [b"old one", b"old two", b"vote"])

    run(work())


def test_blocks_are_fetched_and_a_liar_is_seen(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            honest, asking = members
            await until(lambda: honest.account in asking.links.links)
            digests = [honest.put(bytes([i]) * 100_000) for i in range(40)]
            found = await asking.bulk.get(honest.node.peer_id, [*digests, b"?" * 32], 5_000_000, 20)
            assert set(found) == set(digests)
            honest.store[b"x" * 32] = b"not what was asked for"
            with pytest.raises(PeerFault, match="another hash"):
                await asking.bulk.get(honest.node.peer_id, [b"x" * 32], 1000, 20)
            with pytest.raises(PeerFault, match="at most"):
                await asking.bulk.get(honest.node.peer_id, [digests[0]], 1000, 20)

    run(work())


def test_parts_are_pushed_and_a_refusal_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1, 1) as members:
            reducer, client = members
            await until(lambda: reducer.account in client.links.links)
            await client.bulk.push(reducer.node.peer_id, [(b"h1", b"p" * 1_000_000), (b"h2", b"q")], 20)
            assert [h for h, _ in reducer.pushed] == [b"h1", b"h2"]
            with pytest.raises(PeerFault, match="norm: no"):
                await client.bulk.push(reducer.node.peer_id, [(b"h3", b"bad")], 20)
            with pytest.raises(RetryError, match="wants a part later"):
                await client.bulk.push(reducer.node.peer_id, [(b"h4", b"early")], 20)

    run(work())


def test_a_dead_peer_is_unlinked_and_requests_to_it_fail_in_time(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            await until(lambda: all(len(m.links.links) == 1 for m in members))
            psutil.Process(members[1].node.daemon.pid).kill()
            await until(lambda: members[0].links.links == {})
            await until(lambda: not members[1].node.is_alive)
            with pytest.raises((RetryError, TimeoutError)):
                await members[0].bulk.get(members[1].node.peer_id, [b"x" * 32], 1000, 5)

    run(work())


def test_garbage_ends_its_stream_and_nothing_else(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 2) as members:
            await until(lambda: members[0].account in members[1].links.links)
            for garbage in (b"", b"{}", b"[" * 30_000, b"[" * 50_000, b"\7" * 100):
                stream = await members[1].node.stream(members[0].node.peer_id, PROTOCOL, 10)
                await stream.send(garbage, 5)
                with pytest.raises(RetryError):
                    await stream.receive(5)
                stream.close()
            await until(lambda: all(m.links.synced for m in members))
            members[1].links.publish(b"still there")
            await until(lambda: members[0].heard == [b"still there"])

    run(work())


def test_a_peer_of_another_run_or_with_anothers_account_gets_no_link(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members:
            first = members[0].node.addresses()
            async with await Node.open(tmp_path / "other") as node:
                await node.connect(first[:1], 10)
                stranger = Member(node, 3, b"s" * 32)
                thief = Member(node, 3)
                for bad in (stranger, thief):
                    if bad is thief:
                        bad.links.account = members[0].account[::-1]
                    stream = await node.stream(members[0].node.peer_id, PROTOCOL, 10)
                    await stream.send(bad.links.hello(), 5)
                    with pytest.raises(RetryError):
                        await stream.receive(5)
                    stream.close()
                assert members[0].links.links == {}

    run(work())


def test_a_port_that_another_takes_in_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for a free port and the daemon's own listening lie milliseconds, and many daemons start at once."""

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            look, taken_port = node_module.free_port, taken.getsockname()[1]
            answers = [(("127.0.0.1",), taken_port)]
            monkeypatch.setattr(node_module, "free_port", lambda *args: answers.pop() if answers else look(*args))
            async with await Node.open(tmp_path / "b") as other:
                assert not answers and other.port not in (0, taken_port)

    asyncio.run(body())


def test_a_taken_port_and_a_silent_bootstrap_peer_are_one_line(tmp_path: Path) -> None:
    async def work() -> None:
        async with await Node.open(tmp_path / "a") as node:
            port = int(node.addresses()[0].split("/")[4])
            with pytest.raises(InputError, match="port"):
                await Node.open(tmp_path / "b", port=port)
            other = node.addresses()[0]
        with pytest.raises(RetryError):
            async with await Node.open(tmp_path / "c") as lonely:
                await lonely.connect([other], 5)

    run(work())


def test_closing_leaves_no_daemon(tmp_path: Path) -> None:
    async def work() -> None:
        node = await Node.open(tmp_path / "a")
        assert psutil.pid_exists(node.daemon.pid)
        await node.close()
        await node.close()
        assert not psutil.pid_exists(node.daemon.pid)
        assert not node.daemon.socket.exists()

    run(work())


def test_a_peer_of_another_swarm_of_the_run_gets_no_link_and_both_know_why(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm(tmp_path, 1) as members, await Node.open(tmp_path / "other") as node:
            here, other = members[0], Member(node, FLAG_VOTES)
            here.links.founders, other.links.founders = (b"a" * 20, b"b" * 20), (b"c" * 20,)
            other.links.book.add_invited(here.node.addresses())
            await other.links.start()
            await until(lambda: other.links.other_swarms.get(here.node.peer_id) == b"a" * 20)
            await until(lambda: here.links.other_swarms.get(node.peer_id) == b"c" * 20)
            assert not here.links.links and not other.links.links
            assert "another swarm of this run" in other.links.problems[here.node.peer_id]
            other.links.founders = (b"b" * 20, b"a" * 20)  # the same, in another order
            await until(lambda: other.account in here.links.links and here.account in other.links.links)
            assert not here.links.other_swarms and not other.links.other_swarms
            await other.links.close()

    run(work())
