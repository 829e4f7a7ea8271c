"""Bitswap 1.2 as the IPFS world speaks it: messages and policy (decision 0026). Pure: no socket, no clock, neither torch nor hivemind.

Whoever wants blocks opens a stream and sends a wantlist; whoever has them opens one the other way and sends them. A block is named by its
CID, of which only sha2-256 is served; what was asked for is known again by the digest of the bytes that came, so that wrong bytes are
bytes that nobody asked for.

Source: specs.ipfs.tech/bitswap-protocol; the numbers of fields are those of its message.proto.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from swarm import varint
from swarm.errors import PeerFault
from swarm.hashing import sha256

PROTOCOL = "/ipfs/bitswap/1.2.0"
MAX_MESSAGE_BYTES = 4 << 20
MAX_BLOCK_BYTES = 2 << 20
MAX_ENTRIES = 4096  # of wants, of blocks and of presences in a message
MAX_WANTS = 1024  # of one peer that wait for their answer; more are not kept
MAX_CID_BYTES = 128
ANSWER_BYTES = 512 << 10  # from here on an answer is long enough to leave
RAW, DAG_PB = 0x55, 0x70
_SHA256 = b"\x12\x20"
_Field = TypeVar("_Field", int, bytes)


@dataclass(frozen=True, slots=True)
class Want:
    """One entry of a wantlist. `is_have`: whether the block is there is asked, not the block. `wants_word`: that it is not there is to be
    said, too (sendDontHave). `is_cancel`: it is wanted no longer."""

    cid: bytes
    is_have: bool = False
    wants_word: bool = True
    is_cancel: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """`is_full`: what was wanted before is not wanted any more. `blocks`: (first bytes of the CID, data). `haves`, `absent`: CIDs."""

    wants: tuple[Want, ...] = ()
    is_full: bool = False
    blocks: tuple[tuple[bytes, bytes], ...] = ()
    haves: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()


# -- CIDs ---------------------------------------------------------------------------------------------------------------
def cid_of(digest: bytes, codec: int = RAW) -> bytes:
    """CIDv1 of a block by its sha-256 digest. Nobody looks at the codec to find the block."""
    return bytes((1, codec)) + _SHA256 + digest


def digest_of(cid: bytes) -> bytes | None:
    """The sha-256 digest in a CID of either version; None where it names its block in another way."""
    if len(cid) == 34 and cid[:2] == _SHA256:
        return cid[2:]
    try:
        version, at = varint.decoded(cid, 0)
        _, at = varint.decoded(cid, at)
    except ValueError:
        return None
    return cid[at + 2 :] if version == 1 and cid[at : at + 2] == _SHA256 and len(cid) == at + 34 else None


def _prefix_of(cid: bytes) -> bytes:
    """What a block is sent under: the CID without the digest, of version 0 written out."""
    return bytes((0, DAG_PB)) + _SHA256 if len(cid) == 34 else cid[:-32]


# -- messages -----------------------------------------------------------------------------------------------------------
def encode(message: Message) -> bytes:
    """Protobuf bytes; at most `MAX_MESSAGE_BYTES` of what an `Answer` holds."""
    out = []
    if message.wants or message.is_full:
        entries = b"".join(varint.field(1, _encode_want(want)) for want in message.wants)
        out.append(varint.field(1, entries + (varint.integer(2, 1) if message.is_full else b"")))
    for prefix, data in message.blocks:  # a megabyte, which is copied once
        head = varint.field(1, prefix) + varint.encoded(2 << 3 | 2) + varint.encoded(len(data))
        out += [varint.encoded(3 << 3 | 2) + varint.encoded(len(head) + len(data)) + head, data]
    for kind, cids in enumerate((message.haves, message.absent)):
        for cid in cids:
            out.append(varint.field(4, varint.field(1, cid) + (varint.integer(2, kind) if kind else b"")))
    return b"".join(out)


def _encode_want(want: Want) -> bytes:
    out = varint.field(1, want.cid) + varint.integer(2, 1)
    for number, is_set in ((3, want.is_cancel), (4, want.is_have), (5, want.wants_word)):
        if is_set:
            out += varint.integer(number, 1)
    return out


def framed(message: Message) -> bytes:
    """As it goes over a stream: its length, then its bytes."""
    data = encode(message)
    return varint.encoded(len(data)) + data


def decode(data: bytes) -> Message:
    """`PeerFault` where it is none, or holds more than `MAX_ENTRIES` of a kind, a block over `MAX_BLOCK_BYTES` or a CID over
    `MAX_CID_BYTES`. Fields that are not known are passed over."""
    wants: list[Want] = []
    blocks: list[tuple[bytes, bytes]] = []
    presences: tuple[list[bytes], list[bytes]] = ([], [])
    is_full = False
    for number, value in _fields(data):
        if number == 1:
            is_full = _decode_wantlist(_of(bytes, value), wants) or is_full
        elif number == 2:  # of Bitswap 1.0: the bytes alone
            blocks.append((_prefix_of(bytes(34)), _of(bytes, value)))
        elif number == 3:
            blocks.append(_decode_block(_of(bytes, value)))
        elif number == 4:
            cid, kind = _decode_presence(_of(bytes, value))
            presences[kind].append(cid)
        if max(len(wants), len(blocks), len(presences[0]), len(presences[1])) > MAX_ENTRIES:
            raise PeerFault(f"bitswap: more than {MAX_ENTRIES} entries in a message")
    if any(len(block) > MAX_BLOCK_BYTES for _, block in blocks):
        raise PeerFault(f"bitswap: a block of more than {MAX_BLOCK_BYTES} bytes")
    return Message(tuple(wants), is_full, tuple(blocks), tuple(presences[0]), tuple(presences[1]))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    try:
        yield from varint.fields(data)
    except ValueError as error:
        raise PeerFault(f"bitswap: {error}") from None


def _of(kind: type[_Field], value: int | bytes) -> _Field:
    if not isinstance(value, kind):
        raise PeerFault("bitswap: a field of another type")
    return value


def _decode_wantlist(data: bytes, wants: list[Want]) -> bool:
    """Appends to `wants`; whether the list is full."""
    is_full = False
    for number, value in _fields(data):
        if number == 1:
            wants.append(_decode_want(_of(bytes, value)))
            if len(wants) > MAX_ENTRIES:
                raise PeerFault(f"bitswap: more than {MAX_ENTRIES} wants in a message")
        elif number == 2:
            is_full = bool(_of(int, value))
    return is_full


def _decode_want(data: bytes) -> Want:
    cid, is_cancel, is_have, wants_word = b"", False, False, False
    for number, value in _fields(data):
        if number == 1:
            cid = _cid(value)
        elif number == 3:
            is_cancel = bool(_of(int, value))
        elif number == 4:
            is_have = _of(int, value) == 1
        elif number == 5:
            wants_word = bool(_of(int, value))
    return Want(_cid(cid), is_have, wants_word, is_cancel)


def _cid(value: int | bytes) -> bytes:
    cid = _of(bytes, value)
    if not 0 < len(cid) <= MAX_CID_BYTES:
        raise PeerFault(f"bitswap: a CID of {len(cid)} bytes")
    return cid


def _decode_block(data: bytes) -> tuple[bytes, bytes]:
    prefix, block = b"", b""
    for number, value in _fields(data):
        if number == 1:
            prefix = _of(bytes, value)
        elif number == 2:
            block = _of(bytes, value)
    if len(prefix) > MAX_CID_BYTES:
        raise PeerFault("bitswap: the first bytes of a CID are too many")
    return prefix, block


def _decode_presence(data: bytes) -> tuple[bytes, bool]:
    cid, is_absent = b"", False
    for number, value in _fields(data):
        if number == 1:
            cid = _cid(value)
        elif number == 2:
            is_absent = _of(int, value) == 1
    return _cid(cid), is_absent


# -- who asks -----------------------------------------------------------------------------------------------------------
def wantlist(digests: Iterable[bytes], is_cancel: bool = False) -> Message:
    """Asks for blocks, and for a word of those that are not there; or takes that back."""
    return Message(tuple(Want(cid_of(digest), wants_word=not is_cancel, is_cancel=is_cancel) for digest in digests))


class Asked:
    """What one peer was asked for and has not answered. Blocks that come late, after they were given up, are no fault of it."""

    def __init__(self) -> None:
        self._open: dict[bytes, int] = {}  # digest → how many wait for it
        self._late: dict[bytes, None] = {}  # given up, the oldest first

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def expects_blocks(self) -> bool:
        """Whether a long message of this peer is read at all."""
        return bool(self._open or self._late)

    def ask(self, digests: Collection[bytes]) -> None:
        for digest in digests:
            self._open[digest] = self._open.get(digest, 0) + 1

    def give_up(self, digests: Collection[bytes]) -> None:
        """One that asked for them waits no longer."""
        for digest in digests:
            left = self._open.pop(digest, 0) - 1
            if left > 0:
                self._open[digest] = left
            elif left == 0:
                self._may_come(digest)

    def _may_come(self, digest: bytes) -> None:
        self._late[digest] = None
        if len(self._late) > MAX_WANTS:
            del self._late[next(iter(self._late))]

    def take(self, message: Message) -> tuple[dict[bytes, bytes], set[bytes]]:
        """Blocks by digest, each of which was asked for, and digests of those that the peer says it does not have. `PeerFault` at the
        first block that nobody asked for, as any wrong one is."""
        found: dict[bytes, bytes] = {}
        for _, data in message.blocks:
            digest = sha256(data)
            if digest in self._open:
                found[digest] = data
                if self._open.pop(digest) > 1:
                    self._may_come(digest)  # once for each that asked
            elif digest in self._late:
                del self._late[digest]
            else:
                raise PeerFault(f"bitswap: a block of {len(data)} bytes that nobody asked for")
        absent = {digest for digest in map(digest_of, message.absent) if digest is not None and digest in self._open}
        for digest in absent:
            del self._open[digest]
        return found, absent


# -- who is asked -------------------------------------------------------------------------------------------------------
class Wants:
    """What one peer wants of this one, the oldest first, bounded by `MAX_WANTS`; further ones are not kept."""

    def __init__(self) -> None:
        self._wants: dict[bytes, Want] = {}

    def __len__(self) -> int:
        return len(self._wants)

    def take(self, message: Message) -> None:
        if message.is_full:
            self._wants.clear()
        for want in message.wants:
            if want.is_cancel:
                self._wants.pop(want.cid, None)
            elif want.cid in self._wants or len(self._wants) < MAX_WANTS:
                before = self._wants.get(want.cid)
                if before is None or before.is_have:  # who wants a block wants to know whether it is there, too
                    self._wants[want.cid] = want

    def next(self) -> Want | None:
        return self._wants.pop(next(iter(self._wants))) if self._wants else None


class Answer:
    """A message that is being made for one peer, answer by answer."""

    def __init__(self) -> None:
        self._blocks: list[tuple[bytes, bytes]] = []
        self._haves: list[bytes] = []
        self._absent: list[bytes] = []
        self.num_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._blocks or self._haves or self._absent)

    @property
    def is_long(self) -> bool:
        """It is to leave before anything else is put into it."""
        words = len(self._haves) + len(self._absent)
        return self.num_bytes >= ANSWER_BYTES or words >= MAX_WANTS or len(self._blocks) >= MAX_WANTS

    def put(self, want: Want, found: bytes | bool | None) -> None:
        """`found`: the block, or that it is there, which answers a want that asks no more; None or False: it is not there."""
        if isinstance(found, bytes):
            self._blocks.append((_prefix_of(want.cid), found))
            self.num_bytes += len(found)
        elif found:
            self._haves.append(want.cid)
        elif want.wants_word:
            self._absent.append(want.cid)

    def message(self) -> Message:
        return Message(blocks=tuple(self._blocks), haves=tuple(self._haves), absent=tuple(self._absent))


__all__ = [
    "PROTOCOL",
    "Answer",
    "Asked",
    "Message",
    "Want",
    "Wants",
    "cid_of",
    "decode",
    "digest_of",
    "encode",
    "framed",
    "wantlist",
]
