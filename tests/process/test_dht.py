"""Presence in a hivemind DHT of real daemons on loopback: found, refused, renewed, restarted."""

import asyncio
import dataclasses
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from coincurve import PrivateKey
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.p2p import PeerID, ServicerBase
from hivemind.p2p.p2p_daemon_bindings.utils import P2PHandlerError
from hivemind.proto import dht_pb2

from incentives import records
from swarm.dht.board import BoardSettings
from swarm.dht.guard import PresenceStorage, node_id_of, subkey_bytes, value_bytes
from swarm.dht.presence import Presence, presence_key
from swarm.network import Membership, NetworkSettings, SwarmNetwork
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES
from swarm.transport import links
from swarm.transport.reach import Reach
from tests.process.test_transport import ListHistory

RUN = b"d" * 32
KEY = DHTID.generate(source=presence_key(RUN))
TIP = b"t" * 32


def nested_msgpack(depth: int) -> bytes:
    """A value in which hivemind's decoder calls itself `depth` times (its extension type 0x40, in itself)."""
    data = msgpack.packb([])
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(0x40, data))
    return data


class Listener:
    """Implements `swarm.network.Handler`: it remembers what it hears, and has nothing."""

    def __init__(self, heard: list[bytes]) -> None:
        self.heard, self.history = heard, ListHistory()

    async def on_message(self, sender: bytes, data: bytes) -> bool:
        self.heard.append(data)
        return True

    def on_part(self, sender: bytes, header: bytes, payload: bytes) -> None: ...

    def on_link(self, account: bytes, flags: int, up: bool) -> None: ...

    def on_reach(self, reach: Reach) -> None: ...

    def lookup(self, digest: bytes) -> bytes | None:
        return None

    def block(self, digest: bytes) -> bytes | None:
        return None

    def has_block(self, digest: bytes) -> bool:
        return False

    def tip(self) -> tuple[int, bytes]:
        return 7, TIP

    def is_member(self, account: bytes) -> bool:
        return False


class Member:
    """A whole network of one peer, as `peers.peer` builds it."""

    def __init__(self, network: SwarmNetwork, key: PrivateKey) -> None:
        self.network, self.key, self.account = network, key, records.account_of(key)
        self.heard: list[bytes] = []

    @classmethod
    async def start(
        cls,
        directory: Path,
        bootstrap: tuple[str, ...],
        client_mode: bool = False,
        key: PrivateKey | None = None,
        expiry_seconds: float = 60.0,
        flags: int | None = None,
        addresses: tuple[str, ...] | None = None,
    ) -> "Member":
        """`addresses` and `flags` as it says them; by default what is true."""
        directory.mkdir(exist_ok=True)
        network = await SwarmNetwork.open(
            directory / "identity.key",
            host="127.0.0.1",
            port=0,
            announce=(),
            client_mode=client_mode,
            initial_peers=bootstrap,
            startup_timeout_seconds=120.0,
        )
        member = cls(network, key or PrivateKey())
        says = FLAG_VOTES | (0 if client_mode else FLAG_REDUCES) if flags is None else flags
        await network.join(
            Membership(RUN, member.account, says, member.sign, records.recover),
            Listener(member.heard),
            NetworkSettings(
                addresses=network.addresses() if addresses is None else addresses,
                known_file=directory / "known.json",
                sync_seconds=2.0,
                presence=BoardSettings(1.0, expiry_seconds, 5.0),
            ),
        )
        return member

    def sign(self, digest: bytes) -> bytes:
        return records.sign(self.key, digest)

    def presence(self, seconds: float = 60.0) -> Presence:
        node = self.network.node
        return Presence(
            RUN, self.account, node.peer_id, node.addresses(), FLAG_VOTES, 7, TIP, int(time.time() + seconds)
        )

    @property
    def linked(self) -> set[bytes]:
        return set(self.network.linked())

    @property
    def sees(self) -> set[bytes]:
        return {p.account for p in self.network.present()}

    def stored(self) -> dict[bytes, Any]:
        """What this peer's own DHT node keeps: account → (value, expiry)."""
        assert self.network.board is not None and self.network.board.dht is not None
        found = self.network.board.dht.protocol.storage.get(KEY)
        return {} if found is None else {s: (i.value, i.expiration_time) for s, i in found.value.items()}

    async def store(self, target: "Member", *columns: Any, in_cache: bool = False) -> bool:
        """Send a raw store request to `target`; False where it was refused, in either way."""
        key, subkey, value, expiry = columns
        request = dht_pb2.StoreRequest(
            keys=[key], subkeys=[subkey], values=[value], expiration_time=[expiry], in_cache=[in_cache]
        )
        try:
            response = await self._stub(target).rpc_store(request, timeout=15)
        except P2PHandlerError:
            return False
        return list(response.store_ok) == [True]

    def _stub(self, target: "Member") -> Any:
        """hivemind's own caller, without our guard: what an attacker would use."""
        peer = PeerID.from_base58(target.network.node.peer_id)
        return ServicerBase.get_stub.__func__(DHTProtocol, self.network.node.p2p, peer)  # type: ignore[attr-defined]


@asynccontextmanager
async def swarm() -> AsyncIterator[Callable[..., Awaitable[Member]]]:
    async with AsyncExitStack() as stack:

        async def start(directory: Path, bootstrap: tuple[str, ...] = (), **options: Any) -> Member:
            member = await Member.start(directory, bootstrap, **options)
            stack.push_async_callback(member.network.close)
            return member

        yield start


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 200)

    asyncio.run(bounded())


def test_peers_that_share_only_a_third_find_each_other_and_see_its_tip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_TOLD", 0)  # no hello tells of others: the DHT alone must do

    async def work() -> None:
        async with swarm() as start:
            seed = await start(tmp_path / "seed")
            first = seed.network.addresses()
            one = await start(tmp_path / "one", first)
            two = await start(tmp_path / "two", first)
            client = await start(tmp_path / "client", first, client_mode=True)
            everyone = {m.account for m in (seed, one, two, client)}
            for member in (seed, one, two, client):
                await until(lambda m=member: m.sees == everyone - {m.account})  # type: ignore[misc]
                await until(lambda m=member: m.linked == everyone - {m.account})  # type: ignore[misc]
            shown = {p.account: p for p in one.network.present()}
            assert shown[client.account].addresses == () and shown[two.account].addresses == two.network.addresses()
            assert (shown[seed.account].epoch, shown[seed.account].tip) == (7, TIP)

    run(work())


def test_a_record_that_breaks_a_rule_is_refused_and_the_honest_one_stays(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            honest = await start(tmp_path / "honest")
            liar = await start(tmp_path / "liar", honest.network.addresses())
            await until(lambda: liar.account in honest.stored() and honest.account in honest.stored())
            key, own = KEY.to_bytes(), liar.presence(120)
            stranger = PrivateKey()

            def columns(presence: Presence, sign: Callable[[bytes], bytes], **changed: Any) -> tuple[Any, ...]:
                fields = {
                    "key": key,
                    "subkey": subkey_bytes(presence.account),
                    "value": value_bytes(presence.encode(sign)),
                    "expiry": float(presence.expires_at),
                }
                return tuple((fields | changed).values())

            before = honest.stored()[honest.account]
            victim = honest.presence(120)
            long = dataclasses.replace(own, addresses=tuple(a + "0" * 600 for a in own.addresses) * 8)
            refused = {
                "forged": columns(victim, liar.sign),
                "the victim's own words, sent by another": columns(victim, honest.sign),
                "another identity": columns(dataclasses.replace(own, peer_id=victim.peer_id), liar.sign),
                "foreign address": columns(dataclasses.replace(own, addresses=victim.addresses), liar.sign),
                "another run": columns(dataclasses.replace(own, run_id=b"x" * 32), liar.sign),
                "expired": columns(liar.presence(-1), liar.sign),
                "for ever": columns(liar.presence(10_000), liar.sign),
                "longer than signed": columns(own, liar.sign, expiry=own.expires_at + 60.0),
                "oversized": columns(long, liar.sign),
                "wrong subkey": columns(own, liar.sign, subkey=subkey_bytes(honest.account)),
                "subkey spelt otherwise": columns(own, liar.sign, subkey=b"\xc5\x00\x14" + liar.account),
                "other key": columns(own, liar.sign, key=DHTID.generate().to_bytes()),
                "no subkey": columns(own, liar.sign, subkey=DHTProtocol.IS_REGULAR_VALUE),
                "a dictionary": columns(own, liar.sign, subkey=DHTProtocol.IS_DICTIONARY),
                "not packed": columns(own, liar.sign, value=own.encode(liar.sign)),
                "nested value": columns(own, liar.sign, value=nested_msgpack(500)),
                "stranger's signature": columns(own, lambda digest: records.sign(stranger, digest)),
            }
            for name, request in refused.items():
                assert not await liar.store(honest, *request), name
            assert not await liar.store(honest, *columns(own, liar.sign), in_cache=True)
            stored = honest.stored()
            assert set(stored) == {honest.account, liar.account}
            assert stored[honest.account][1] >= before[1]
            assert await liar.store(honest, *columns(own, liar.sign))  # the same, honestly

    run(work())


def test_an_identity_has_one_record_however_many_accounts_it_makes(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            honest = await start(tmp_path / "honest")
            liar = await start(tmp_path / "liar", honest.network.addresses())
            await until(lambda: liar.account in honest.stored())
            own = liar.presence(100)
            for number in range(12):
                key = PrivateKey()
                other = dataclasses.replace(own, account=records.account_of(key), expires_at=own.expires_at + number)
                value = value_bytes(other.encode(lambda digest, key=key: records.sign(key, digest)))  # type: ignore[misc]
                assert await liar.store(
                    honest, KEY.to_bytes(), subkey_bytes(other.account), value, float(other.expires_at)
                )
                assert set(honest.stored()) == {honest.account, other.account}

    run(work())


def test_nested_msgpack_kills_a_plain_node_and_not_ours(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            honest = await start(tmp_path / "honest")
            liar = await start(tmp_path / "liar", honest.network.addresses())
            await until(lambda: honest.account in liar.linked)
            for payload in (nested_msgpack(500), nested_msgpack(20_000), b"\x91" * 60_000 + b"\xc0"):
                for tag in (payload, DHTProtocol.IS_DICTIONARY):
                    assert not await liar.store(honest, KEY.to_bytes(), tag, payload, time.time() + 30)
            await until(lambda: liar.account in honest.sees)
            assert honest.network.node.is_alive

    run(work())
    # The same 1.5 kB given to hivemind's decoder as it is, in a process of its own.
    program = (
        "import sys; from hivemind.utils.serializer import MSGPackSerializer as S; "
        "data = bytes.fromhex(sys.argv[1]); print(len(data), flush=True); S.loads(data)"
    )
    died = subprocess.run([sys.executable, "-c", program, nested_msgpack(400).hex()], capture_output=True, timeout=120)
    assert died.returncode != 0


def test_an_answer_with_forged_nested_or_alien_entries_gives_only_the_sound_ones(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            asking = await start(tmp_path / "asking")
            liar = await start(tmp_path / "liar", asking.network.addresses())
            await until(lambda: liar.account in asking.sees)
            assert asking.network.board is not None
            sound = liar.presence(90)
            forged = dataclasses.replace(sound, account=b"f" * 20)
            answers = []
            entries = DictionaryDHTValue()
            for presence in (sound, forged):
                entries.store(presence.account, value_bytes(presence.encode(liar.sign)), float(presence.expires_at))
            answers.append(DHTProtocol.serializer.dumps(entries))
            answers += [nested_msgpack(500), msgpack.packb(msgpack.ExtType(0x50, nested_msgpack(500))), b"\xc1", b""]
            answers.append(msgpack.packb(msgpack.ExtType(0x50, msgpack.packb(["x", "y", [[[], {}, "z"]]]))))
            mine = node_id_of(PeerID.from_base58(liar.network.node.peer_id)).to_bytes()
            for value in answers:
                result = dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value, expiration_time=9e99)
                result.nearest_node_ids.extend([mine, DHTID.generate().to_bytes()])
                result.nearest_peer_ids.extend([PeerID.from_base58(liar.network.node.peer_id).to_bytes()] * 2)
                asking.network.board.p2p.clean(KEY.to_bytes(), result)
                assert list(result.nearest_node_ids) == [mine]
                if value is answers[0]:
                    kept = DHTProtocol.serializer.loads(result.value)
                    assert [account for account, _ in kept.items()] == [liar.account]
                    assert result.expiration_time == sound.expires_at
                else:
                    assert result.type == dht_pb2.NOT_FOUND and result.value == b""

    run(work())


@pytest.mark.parametrize("storage", [DHTLocalStorage, PresenceStorage])
def test_what_a_storage_rejects_does_not_delete_what_it_holds(storage: type[DHTLocalStorage]) -> None:
    """hivemind's storage notes the earlier expiry of what it rejects, and the honest record goes with it."""
    kept, now = storage(), time.time()
    assert kept.store_subkey(KEY, b"owner", b"honest", now + 60)
    assert not kept.store_subkey(KEY, b"owner", b"older", now + 0.2)
    time.sleep(0.3)
    survived = [(k, v.value) for k, v in kept.get(KEY).value.items()]
    assert survived == ([(b"owner", b"honest")] if storage is PresenceStorage else [])


def test_a_storage_keeps_the_newest_record_of_an_identity() -> None:
    kept, now = PresenceStorage(lambda value: value[:1].decode()), time.time()

    def held() -> dict[bytes, bytes]:
        return {k: v.value for k, v in kept.get(KEY).value.items()}

    assert kept.store_subkey(KEY, b"one", b"a1", now + 60)
    assert kept.store_subkey(KEY, b"other", b"b1", now + 60)
    assert not kept.store_subkey(KEY, b"two", b"a2", now + 50)
    assert held() == {b"one": b"a1", b"other": b"b1"}
    assert kept.store_subkey(KEY, b"two", b"a2", now + 70)
    assert held() == {b"two": b"a2", b"other": b"b1"}
    assert kept.store_subkey(KEY, b"two", b"a3", now + 80)
    assert held() == {b"two": b"a3", b"other": b"b1"}


def test_who_asks_too_often_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            honest = await start(tmp_path / "honest")
            flood = await start(tmp_path / "flood", honest.network.addresses())
            calm = await start(tmp_path / "calm", honest.network.addresses())
            await until(lambda: flood.account in honest.linked and calm.account in honest.linked)
            request = dht_pb2.FindRequest(keys=[KEY.to_bytes()])
            results = await asyncio.gather(
                *(flood._stub(honest).rpc_find(request, timeout=20) for _ in range(200)), return_exceptions=True
            )
            assert sum(isinstance(r, P2PHandlerError) for r in results) >= 50
            assert len((await calm._stub(honest).rpc_find(request, timeout=20)).results) == 1
            many = dht_pb2.FindRequest(keys=[KEY.to_bytes()] * 100)
            with pytest.raises(P2PHandlerError, match="too many keys"):
                await calm._stub(honest).rpc_find(many, timeout=20)
            posing = dht_pb2.NodeInfo(node_id=KEY.to_bytes())
            with pytest.raises(P2PHandlerError, match="node id"):
                await calm._stub(honest).rpc_ping(dht_pb2.PingRequest(peer=posing), timeout=20)

    run(work())


def test_the_swarm_goes_on_and_admits_joiners_without_its_seed(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            seed = await start(tmp_path / "seed")
            first = seed.network.addresses()
            one = await start(tmp_path / "one", first, expiry_seconds=6.0)
            two = await start(tmp_path / "two", first, expiry_seconds=6.0)
            await until(lambda: two.account in one.linked and one.account in two.linked)
            await seed.network.close()
            await until(lambda: seed.account not in one.linked | two.linked)
            # Whoever knows any live peer gets in, with the dead seed first in the invite.
            late = await start(tmp_path / "late", (*first, *one.network.addresses()), client_mode=True)
            await until(lambda: {one.account, two.account} <= late.linked)
            await until(lambda: late.account in two.sees)
            # Who has gone is no longer present once its word has run out.
            await two.network.close()
            await until(lambda: two.account not in one.sees)

    run(work())


def test_whom_it_knows_is_on_disk_as_soon_as_a_link_is_up(tmp_path: Path) -> None:
    """A seed that is killed in its first seconds would find nobody again: its invite names itself alone."""

    def known(name: str) -> str:
        path = tmp_path / name / "known.json"
        return path.read_text() if path.exists() else ""

    async def work() -> None:
        async with swarm() as start:
            seed = await start(tmp_path / "seed")
            one = await start(tmp_path / "one", seed.network.addresses())
            await until(lambda: one.account in seed.linked)
            await until(lambda: one.account.hex() in known("seed") and seed.account.hex() in known("one"), 5.0)
            two = await start(tmp_path / "two", seed.network.addresses())
            await until(lambda: two.account in seed.linked)
            await until(lambda: two.account.hex() in known("seed"), 5.0)

    run(work())


def test_a_restart_finds_the_swarm_by_the_addresses_it_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with swarm() as start:
            seed = await start(tmp_path / "seed")
            first = seed.network.addresses()
            one = await start(tmp_path / "one", first)
            two = await start(tmp_path / "two", first)
            client = await start(tmp_path / "client", first, client_mode=True)
            await until(lambda: two.account in one.linked and {one.account, two.account} <= client.linked)
            await seed.network.close()
            await two.network.close()
            await until(lambda: two.account not in client.linked)
            again = await start(tmp_path / "two", first, key=two.key)
            assert again.network.node.peer_id == two.network.node.peer_id
            await until(lambda: one.account in again.linked and again.account in one.linked)
            # Nobody can call the client: it has to follow the peer to its new port.
            await until(lambda: again.account in client.linked)
            # Without what it kept it would know the dead seed alone.
            await again.network.close()
            (tmp_path / "two" / "known.json").write_text("{broken")
            lost = await start(tmp_path / "two", first, key=two.key, client_mode=True)
            await asyncio.sleep(3)
            assert lost.linked == set()

    run(work())
