"""What stands between other peers and hivemind's DHT (upstream 1.1.12). Both directions pass here, before hivemind decodes.

hivemind's protocol unpacks whatever it is sent: its msgpack decoder calls itself for nested extension types without a limit,
so that 1.5 kB end the process; it stores any key, under any subkey, for anyone; it believes node ids; and `TimedStorage.store`
notes the earlier expiry of a record that it then rejects, which deletes the honest one when that time comes. Here:

- a sender may ask only so often; its DHT id is the hash of its libp2p identity, so it cannot choose where it stands;
- a store is exactly one kind of record, in the run's key, under the account's subkey, from its owner's own identity;
- an answer is taken apart with bounded depth and only its valid records and neighbours are handed on.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgpack
from hivemind.dht.crypto import RecordValidatorBase
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils.serializer import MSGPackSerializer

from swarm.dht.presence import MAX_RECORD_BYTES, Presence, decode_presence, presence_key
from swarm.errors import PeerFault
from swarm.records.types import Account

MAX_RECORDS = 1024
MAX_STORED_BYTES = 2 << 20  # an answer has to fit in one message of the daemon (4 MiB)
MAX_KEYS = 4  # of one request
MAX_NEIGHBOURS = 64
REQUESTS_AT_ONCE, REQUESTS_PER_SECOND = 60.0, 10.0  # of one sender
MAX_SENDERS = 1024
_DICTIONARY = 0x50  # msgpack extension code of hivemind's DictionaryDHTValue


def node_id_of(peer_id: PeerID) -> DHTID:
    return DHTID.generate(source=peer_id.to_bytes())


def subkey_bytes(account: Account) -> bytes:
    """The account as hivemind packs a subkey: one spelling, nothing else."""
    return bytes(msgpack.packb(account, use_bin_type=True))


def value_bytes(record: bytes) -> bytes:
    return bytes(msgpack.packb(record, use_bin_type=True))


def flat_bytes(packed: bytes, max_bytes: int) -> bytes:
    """A msgpack value that is one byte string and nothing else; `PeerFault` otherwise."""
    try:
        value = msgpack.unpackb(
            packed, max_bin_len=max_bytes, max_str_len=0, max_array_len=0, max_map_len=0, max_ext_len=0
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        raise PeerFault("dht: not a plain byte string") from None
    if not isinstance(value, bytes) or packed != msgpack.packb(value, use_bin_type=True):
        raise PeerFault("dht: not a plain byte string")
    return value


def dictionary_items(packed: bytes) -> list[tuple[bytes, bytes, float]]:
    """(subkey, value, expiry) of a DictionaryDHTValue, undecoded: two levels and no recursion. `PeerFault` if it is none."""
    if len(packed) > 2 * MAX_STORED_BYTES:
        raise PeerFault("dht: a dictionary over the limit")
    try:
        outer = msgpack.unpackb(packed, max_array_len=0, max_map_len=0, max_str_len=0, max_bin_len=0)
        if not isinstance(outer, msgpack.ExtType) or outer.code != _DICTIONARY:
            raise PeerFault("dht: not a dictionary")
        _, _, items = msgpack.unpackb(
            outer.data, max_array_len=max(MAX_RECORDS, 3), max_map_len=0, max_ext_len=0, max_str_len=0
        )
        found = [(subkey, value, float(expiry)) for subkey, value, expiry in items]
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        raise PeerFault("dht: cannot be read") from None
    if not all(isinstance(s, bytes) and isinstance(v, bytes) and math.isfinite(e) for s, v, e in found):
        raise PeerFault("dht: a dictionary of other things")
    return found


class PresenceValidator(RecordValidatorBase):  # type: ignore[misc]
    """hivemind's hook on store and on read: true for a sound presence record in its own place."""

    def __init__(self, run_id: bytes, recover: Callable[[bytes, bytes], Account]) -> None:
        self.run_id, self._recover = run_id, recover
        self.key = DHTID.generate(source=presence_key(run_id)).to_bytes()
        self._checked: OrderedDict[bytes, Presence] = OrderedDict()  # a signature need be checked once

    def read(self, key: bytes, subkey: bytes, value: bytes, expiry: float) -> Presence:
        """The record, or `PeerFault` with the rule that it breaks."""
        if key != self.key:
            raise PeerFault("dht: not a key of this run")
        if len(value) > MAX_RECORD_BYTES:
            raise PeerFault(f"presence: {len(value)} bytes, at most {MAX_RECORD_BYTES}")
        presence = self._checked.get(value)
        if presence is None or presence.expires_at <= time.time():
            presence = decode_presence(flat_bytes(value, MAX_RECORD_BYTES), self.run_id, time.time(), self._recover)
            self._checked[value] = presence
            if len(self._checked) > MAX_RECORDS:
                self._checked.popitem(last=False)
        if subkey != subkey_bytes(presence.account):
            raise PeerFault("presence: under a subkey that is not its account")
        if expiry != presence.expires_at:
            raise PeerFault("presence: with another expiry than was signed")
        return presence

    def identity_of(self, value: bytes) -> str | None:
        """Of a record that was read before."""
        presence = self._checked.get(value)
        return None if presence is None else presence.peer_id

    def validate(self, record: DHTRecord) -> bool:
        try:
            self.read(record.key, record.subkey, record.value, record.expiration_time)
        except PeerFault:
            return False
        return True


class PresenceStorage(DHTLocalStorage):  # type: ignore[misc]
    """Where a node keeps what others store with it. Unlike its base it is bounded, and what it rejects changes nothing. Accounts cost
    nothing, so of one identity (`identity_of` a value) it keeps the newest record alone."""

    def __init__(self, identity_of: Callable[[bytes], str | None] = lambda value: None) -> None:
        super().__init__()
        self._identity_of = identity_of
        self._subkeys: dict[str, bytes] = {}  # identity → where its record is

    def store(self, key: DHTID, value: bytes, expiration_time: float, subkey: bytes | None = None) -> bool:
        return subkey is not None and self.store_subkey(key, subkey, value, expiration_time)

    def store_subkey(self, key: DHTID, subkey: bytes, value: bytes, expiration_time: float) -> bool:
        found, identity = self.get(key), self._identity_of(value)
        if found is not None:
            entries = found.value
            before = subkey if identity is None else self._subkeys.get(identity, subkey)
            for old in (entries.get(subkey), entries.get(before)):
                if old is not None and old.expiration_time >= expiration_time:
                    return False
            if before != subkey:
                del entries[before]
            size = sum(len(item.value) for _, item in entries.items())
            if entries.get(subkey) is None and (len(entries) >= MAX_RECORDS or size + len(value) > MAX_STORED_BYTES):
                return False
            if len(self._subkeys) > 2 * MAX_RECORDS:
                self._subkeys = {who: at for who, at in self._subkeys.items() if at in entries}
        if identity is not None:
            self._subkeys[identity] = subkey
        return bool(super().store_subkey(key, subkey, value, expiration_time))

    def items(self) -> Iterable[Any]:
        """Nothing is handed over to new neighbours: owners renew their records themselves, and only from them are they
        taken."""
        return ()


class GuardedP2P:
    """The part of `hivemind.p2p.P2P` that its DHT uses, with the checks of this module on every request and answer."""

    def __init__(self, p2p: P2P, validator: PresenceValidator) -> None:
        self._p2p, self._validator = p2p, validator
        self._senders: OrderedDict[PeerID, tuple[float, float]] = OrderedDict()
        self.refused = 0

    @property
    def peer_id(self) -> PeerID:
        return self._p2p.peer_id

    # -- served -------------------------------------------------------------------------------------------------------
    async def add_protobuf_handler(
        self, name: str, handler: Callable[[Any, P2PContext], Awaitable[Any]], input_protobuf_type: type, **options: Any
    ) -> None:
        async def guarded(request: Any, context: P2PContext) -> Any:
            try:
                self._check_request(request, context.remote_id)
            except PeerFault:
                self.refused += 1
                raise
            return await handler(request, context)

        await self._p2p.add_protobuf_handler(name, guarded, input_protobuf_type, **options)

    async def remove_protobuf_handler(self, name: str, **options: Any) -> None:
        await self._p2p.remove_protobuf_handler(name, **options)

    def _check_request(self, request: Any, sender: PeerID) -> None:
        self._count(sender)
        _check_sender(request.peer.node_id, sender)
        if isinstance(request, dht_pb2.FindRequest):
            if len(request.keys) > MAX_KEYS or any(len(key) != DHTID.HASH_NBYTES for key in request.keys):
                raise PeerFault("dht: too many keys, or malformed ones")
        elif isinstance(request, dht_pb2.StoreRequest):
            columns = (request.keys, request.subkeys, request.values, request.expiration_time, request.in_cache)
            if {len(column) for column in columns} != {1} or request.in_cache[0]:
                raise PeerFault("dht: a store must be one record, and not for the cache")
            record = self._validator.read(*(column[0] for column in columns[:4]))
            if record.peer_id != sender.to_base58():
                raise PeerFault("presence: stored by somebody else than its owner")

    def _count(self, sender: PeerID) -> None:
        now = time.monotonic()
        allowance, when = self._senders.pop(sender, (REQUESTS_AT_ONCE, now))
        allowance = min(REQUESTS_AT_ONCE, allowance + (now - when) * REQUESTS_PER_SECOND)
        self._senders[sender] = (max(allowance - 1, 0.0), now)
        if len(self._senders) > MAX_SENDERS:
            self._senders.popitem(last=False)
        if allowance < 1:
            raise PeerFault("dht: too many requests")

    # -- asked --------------------------------------------------------------------------------------------------------
    async def call_protobuf_handler(self, peer_id: PeerID, name: str, input: Any, output_protobuf_type: type) -> Any:
        response = await self._p2p.call_protobuf_handler(peer_id, name, input, output_protobuf_type)
        _check_sender(response.peer.node_id, peer_id)
        if isinstance(response, dht_pb2.FindResponse):
            if len(response.results) != len(input.keys):
                raise PeerFault("dht: an answer to something else")
            for key, result in zip(input.keys, response.results, strict=True):
                self.clean(key, result)
        return response

    def clean(self, key: bytes, result: Any) -> None:
        """Leave in the answer what is sound; what hivemind decodes afterwards was encoded here."""
        pairs = list(zip(result.nearest_node_ids, result.nearest_peer_ids, strict=False))[:MAX_NEIGHBOURS]
        sound = [
            (node, peer) for node, peer in pairs if len(peer) <= 64 and node_id_of(PeerID(peer)).to_bytes() == node
        ]
        del result.nearest_node_ids[:], result.nearest_peer_ids[:]
        result.nearest_node_ids.extend(node for node, _ in sound)
        result.nearest_peer_ids.extend(peer for _, peer in sound)
        kept = DictionaryDHTValue()
        if result.type == dht_pb2.FOUND_DICTIONARY:
            try:
                items = dictionary_items(result.value)
            except PeerFault:
                self.refused += 1
                items = []
            for subkey, value, expiry in items:
                try:
                    self._validator.read(key, subkey_bytes(subkey), value, expiry)
                    kept.store(subkey, value, expiry)
                except PeerFault:
                    self.refused += 1
        if len(kept):
            result.value, result.expiration_time = MSGPackSerializer.dumps(kept), kept.latest_expiration_time
        else:
            result.type, result.value = dht_pb2.NOT_FOUND, b""


def _check_sender(node_id: bytes, peer_id: PeerID) -> None:
    """A node in client mode has no DHT id; every other has that of its identity."""
    if node_id and node_id != node_id_of(peer_id).to_bytes():
        raise PeerFault("dht: a node id that is not the hash of the identity")
