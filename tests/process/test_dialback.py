"""Who can be reached, and how a peer finds out: with real daemons."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.errors import RetryError
from swarm.transport.dialback import DialBack
from swarm.transport.dialer import Dialer
from swarm.transport.node import Node
from tests.process.test_dht import Member

pytestmark = pytest.mark.timeout(120)


async def until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, f"after {seconds:.0f} s not yet: {what}"
        await asyncio.sleep(0.05)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


def test_an_address_answers_only_where_its_peer_is(tmp_path: Path) -> None:
    async def main() -> None:
        dialer, found = Dialer(tmp_path / "dialer.key"), list[str]()
        async with await Node.open(tmp_path / "a") as a, await Node.open(tmp_path / "b") as b:
            (at_a,), (at_b,) = a.addresses(), b.addresses()
            stolen = at_b.replace(b.peer_id, a.peer_id)  # b's port, said to be a's
            dead = f"/ip4/127.0.0.1/tcp/9/p2p/{a.peer_id}"
            await dialer.answering([dead, stolen, at_a], found.append)
        await dialer.answering([at_a], found.append)  # a is gone
        dialer.close()
        assert found == [at_a]

    run(main())


def test_only_linked_peers_are_dialled_back_and_not_without_end(tmp_path: Path) -> None:
    async def main() -> None:
        linked, reached, dialer = set[str](), list[str](), Dialer(tmp_path / "dialer.key")
        async with await Node.open(tmp_path / "a") as asking, await Node.open(tmp_path / "b") as asked:
            await asking.connect(asked.addresses(), 20)
            await DialBack(asked, dialer, linked.__contains__, reached.append).start()
            dialback = DialBack(asking, dialer, linked.__contains__, reached.append)
            with pytest.raises(RetryError):
                await dialback.ask(asked.peer_id, asking.addresses())
            linked.add(asking.peer_id)
            dead = f"/ip4/127.0.0.1/tcp/9/p2p/{asking.peer_id}"
            answer = await dialback.ask(asked.peer_id, [dead, *asking.addresses()])
            assert (answer.answered, answer.seen) == (asking.addresses(), "127.0.0.1")
            assert reached == [asking.peer_id]
            answers = await asyncio.gather(
                *(dialback.ask(asked.peer_id, [dead]) for _ in range(8)), return_exceptions=True
            )
            assert any(isinstance(each, RetryError) for each in answers)
        dialer.close()

    run(main())


def test_linked_peers_tell_a_newcomer_where_it_is_reached_and_the_others_link_up(tmp_path: Path) -> None:
    """The newcomers name no address at first; once the seed has reached them, each hears of the other from it."""

    async def main() -> None:
        seed = await Member.start(tmp_path / "seed", ())
        members = [seed]
        try:
            bootstrap = seed.network.addresses()
            for name in ("alice", "bob"):
                members.append(await Member.start(tmp_path / name, bootstrap, addresses=()))
            _, alice, bob = members
            assert alice.network.told_addresses() == ()
            for member in (alice, bob):
                await until(lambda m=member: m.network.reach.is_reachable, "it is reached")  # type: ignore[misc]
                assert member.network.told_addresses() == member.network.addresses()
            await until(lambda: alice.account in bob.linked and bob.account in alice.linked, "they link up")
        finally:
            for member in reversed(members):
                await member.network.close()

    run(main())


def test_who_says_that_it_reduces_and_answers_nobody_is_found_out(tmp_path: Path) -> None:
    """It links up from its side, names an address that leads nowhere, and claims to reduce."""

    async def main() -> None:
        seed = await Member.start(tmp_path / "seed", ())
        liar = await Member.start(
            tmp_path / "liar", seed.network.addresses(), client_mode=True, flags=3, addresses=("dead",)
        )
        try:
            await until(lambda: liar.account in seed.linked, "the liar is linked")
            await until(lambda: seed.network.unreached() == {liar.account}, "it is found out")
            assert not liar.network.reach.is_known, "in client mode there is nothing to ask about"
        finally:
            await liar.network.close()
            await seed.network.close()

    run(main())


@pytest.mark.parametrize("broken", ["streams", "control"])
def test_a_daemon_that_is_cut_off_is_noticed_within_ten_seconds(tmp_path: Path, broken: str) -> None:
    """The sockets in between are removed, as cleaners of /tmp do: nothing else would ever tell the peer."""

    async def main() -> None:
        async with await Node.open(tmp_path / "a") as node:
            await node.check()
            streams = Path(node.p2p._client_listen_maddr.value_for_protocol("unix"))
            (streams if broken == "streams" else node.daemon.socket).unlink()
            begun = asyncio.get_running_loop().time()
            await until(lambda: not node.is_alive, "it is noticed", 10.0)
            assert asyncio.get_running_loop().time() - begun < 10.0
            assert "p2p daemon" in node.failure

    run(main())
