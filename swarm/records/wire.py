"""`Signed` messages as bytes: strict, canonical, bounded. One message has one encoding; anything else is a `PeerFault`.

kind (1) ‖ record fields in order (accounts 20, hashes 32, integers 8 bytes big-endian) ‖ signer ‖ signature ‖ content.
Lists are a 4-byte count and their items; floats are fp64 bits. Nothing here is signed or hashed: EIP-712 does that.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from swarm.errors import PeerFault
from swarm.records.types import (
    Average,
    CallContent,
    Content,
    Contribution,
    ContributionContent,
    ContributionReceipt,
    ContributorLeaf,
    Merge,
    PartLeaf,
    Progress,
    Record,
    ReducerReport,
    ReportContent,
    RoundBody,
    RoundCall,
    RoundCertificate,
    RoundSet,
    RoundVoid,
    RoundVote,
    SetContent,
    Signed,
    StorageReceipt,
)

T = TypeVar("T")
MAX_BYTES = 2 << 20
MAX_PARTS = 1 << 14
MAX_PEERS = 4096
MAX_MERGES = 64  # since a peer's last contribution; more stand as one (protocol §4.7)
SIGNATURE_BYTES = 65
_KINDS: tuple[type[Any], ...] = (
    Contribution,
    RoundCall,
    ReducerReport,
    RoundSet,
    Average,
    RoundCertificate,
    RoundVote,
    RoundVoid,
    ContributionReceipt,
    Progress,
    StorageReceipt,
)
_MERGE_KINDS = ("start", "certificate", "void")
_ACCOUNTS = {"peer"}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise PeerFault("message: cut off")
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece

    def number(self, size: int = 8) -> int:
        return int.from_bytes(self.take(size), "big")

    def real(self) -> float:
        value: float = struct.unpack(">d", self.take(8))[0]
        if not math.isfinite(value):
            raise PeerFault("message: a number that is not finite")
        return value

    def many(self, limit: int, item: Callable[[], T]) -> tuple[T, ...]:
        count = self.number(4)
        if count > limit:
            raise PeerFault(f"message: a list of {count} items, at most {limit}")
        return tuple(item() for _ in range(count))


def _size(name: str, kind: Any) -> int:
    """0 for integers, else the number of bytes of a bytes field."""
    if kind is int or kind == "int":
        return 0
    return 20 if name in _ACCOUNTS else 32


def _pack_record(record: Record) -> bytes:
    out = bytearray()
    for field in fields(record):
        value = getattr(record, field.name)
        size = _size(field.name, field.type)
        if size == 0:
            if not 0 <= value < 1 << 64:
                raise PeerFault(f"message: {field.name} = {value} is out of range")
            out += value.to_bytes(8, "big")
        else:
            if len(value) != size:
                raise PeerFault(f"message: {field.name} has {len(value)} bytes, not {size}")
            out += value
    return bytes(out)


def _read_record(kind: type[Any], reader: _Reader) -> Any:
    values = {}
    for field in fields(kind):
        size = _size(field.name, field.type)
        values[field.name] = reader.number() if size == 0 else reader.take(size)
    return kind(**values)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _leaves(leaves: tuple[ContributorLeaf, ...]) -> bytes:
    return _u32(len(leaves)) + b"".join(x.peer + x.contribution + _u32(x.units) + _u32(x.flags) for x in leaves)


def _items(items: tuple[bytes, ...]) -> bytes:
    return _u32(len(items)) + b"".join(items)


def _body(body: RoundBody) -> bytes:
    return (
        _leaves(body.contributors)
        + _items(body.reducers)
        + _items(body.averages)
        + _u32(len(body.clip_factors))
        + b"".join(struct.pack(">d", f) for f in body.clip_factors)
        + struct.pack(">d", body.median_norm)
        + _items(body.electorate)
    )


def pack_content(content: Content) -> bytes:
    """The content alone: a tag and its fields."""
    if content is None:
        return b"\0"
    if isinstance(content, ContributionContent):
        parts = b"".join(
            _u32(p.index) + _u32(p.length) + p.digest + struct.pack(">d", p.squared_norm) for p in content.parts
        )
        merges = b"".join(bytes((_MERGE_KINDS.index(m.kind),)) + m.hash + _u32(m.inner_step) for m in content.merges)
        return b"\1" + _u32(len(content.parts)) + parts + _u32(len(content.merges)) + merges
    if isinstance(content, CallContent):
        return b"\2" + _items(content.reducers)
    if isinstance(content, ReportContent):
        return b"\3" + _items(content.complete)
    if isinstance(content, RoundBody):
        return b"\5" + _body(content)
    head = b"\4" + _leaves(content.contributors) + _items(content.reducers)
    if content.certificate is None or content.body is None:
        return head + b"\0"
    return head + b"\1" + _pack_record(content.certificate) + _body(content.body)


def _read_leaves(reader: _Reader) -> tuple[ContributorLeaf, ...]:
    return reader.many(
        MAX_PEERS, lambda: ContributorLeaf(reader.take(20), reader.take(32), reader.number(4), reader.number(4))
    )


def _read_body(reader: _Reader) -> RoundBody:
    return RoundBody(
        _read_leaves(reader),
        reader.many(MAX_PEERS, lambda: reader.take(20)),
        reader.many(MAX_PARTS, lambda: reader.take(32)),
        reader.many(MAX_PEERS, reader.real),
        reader.real(),
        reader.many(MAX_PEERS, lambda: reader.take(20)),
    )


def _read_merge(reader: _Reader) -> Merge:
    kind = reader.number(1)
    if kind >= len(_MERGE_KINDS):
        raise PeerFault("message: an unknown kind of merge")
    return Merge(_MERGE_KINDS[kind], reader.take(32), reader.number(4))


def _read_content(reader: _Reader) -> Content:
    tag = reader.number(1)
    if tag == 0:
        return None
    if tag == 1:
        parts = reader.many(
            MAX_PARTS, lambda: PartLeaf(reader.number(4), reader.number(4), reader.take(32), reader.real())
        )
        return ContributionContent(parts, reader.many(MAX_MERGES, lambda: _read_merge(reader)))
    if tag == 2:
        return CallContent(reader.many(MAX_PEERS, lambda: reader.take(20)))
    if tag == 3:
        return ReportContent(reader.many(MAX_PEERS, lambda: reader.take(32)))
    if tag == 5:
        return _read_body(reader)
    if tag == 4:
        leaves, reducers = _read_leaves(reader), reader.many(MAX_PEERS, lambda: reader.take(20))
        again = reader.number(1)
        if again == 0:
            return SetContent(leaves, reducers)
        if again == 1:
            return SetContent(leaves, reducers, _read_record(RoundCertificate, reader), _read_body(reader))
    raise PeerFault("message: unknown content")


def unpack_content(data: bytes) -> Content:
    """What `pack_content` packed; `PeerFault` for anything else."""
    reader = _Reader(data)
    content = _read_content(reader)
    if reader.at != len(data):
        raise PeerFault("message: bytes after its end")
    return content


def pack(signed: Signed) -> bytes:
    """The message as it travels. `PeerFault` where a value does not fit (own errors show before they are sent)."""
    if len(signed.signer) != 20 or len(signed.signature) != SIGNATURE_BYTES:
        raise PeerFault("message: signer or signature has a wrong length")
    kind = bytes((_KINDS.index(type(signed.record)),))
    return kind + _pack_record(signed.record) + signed.signer + signed.signature + pack_content(signed.content)


def unpack(data: bytes) -> Signed:
    """What `pack` packed. `PeerFault`: unknown kind, wrong length, number out of range, list too long, bytes left over."""
    if len(data) > MAX_BYTES:
        raise PeerFault(f"message: {len(data)} bytes, at most {MAX_BYTES}")
    reader = _Reader(data)
    kind = reader.number(1)
    if kind >= len(_KINDS):
        raise PeerFault("message: unknown kind")
    record = _read_record(_KINDS[kind], reader)
    signer, signature = reader.take(20), reader.take(SIGNATURE_BYTES)
    content = _read_content(reader)
    if reader.at != len(data):
        raise PeerFault("message: bytes after its end")
    return Signed(record, signer, signature, content)
