"""Who stores what a run lists is challenged, witnessed and paid (protocol §14; docs/decisions/0029): the draws, the proof, the units.

Pure, and everybody computes the same from the run's table and a certificate. A proof shows that its signer could reach the bytes when it
was asked, and not that it alone keeps them: see docs/threat-model.md.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from incentives.errors import InputError
from incentives.hashing import keccak

SEGMENT_BYTES = 1024
MAX_CONTENT_BYTES = 2**53 - 1
MAX_OBJECTS = 256  # bits of a receipt's `held`
GRACE_EPOCHS = 2  # certified epochs after the challenged one, in which witnesses sign
_CHALLENGE, _WITNESS, _STORER = b"sparehive storage", b"sparehive storage witness", b"sparehive storage storer"
_FORMAT = b"sparehive-storage-proof-1\n"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object that a run pays for. `segments_root`: 32 bytes; `num_bytes` of its content, at least 1."""

    segments_root: bytes
    num_bytes: int

    @property
    def num_segments(self) -> int:
        """Of 1 KiB, the last one begun: the KiB that are paid, too."""
        return -(-self.num_bytes // SEGMENT_BYTES)

    def segment_bytes(self, index: int) -> int:
        return min(SEGMENT_BYTES, self.num_bytes - SEGMENT_BYTES * index)

    def path_length(self, index: int) -> int:
        """How many hashes lead from that segment to the top of its tree."""
        length, last = 0, self.num_segments - 1
        while last:
            length += index & 1 or index < last
            index, last = index >> 1, last >> 1
        return length


@dataclass(frozen=True, slots=True)
class StorageRules:
    """The run's table `[storage]`, as far as draws and units go. `witnesses`: k of the run."""

    objects: tuple[StoredObject, ...]
    replicas: int
    every_epochs: int
    segments: int
    witnesses: int

    def is_challenged(self, epoch: int) -> bool:
        """Whether the certificate of that epoch is a challenge."""
        return epoch % self.every_epochs == 0


@dataclass(frozen=True, slots=True)
class Draw:
    """One segment that is asked for: number of the object in the run's list, and of the segment in it."""

    object: int
    segment: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The answer to a draw: the segment's bytes, and its path, the sibling of the leaf first."""

    segment: bytes
    path: tuple[bytes, ...]


def pool_id(run_id: bytes) -> bytes:
    """The `runId` of the Settlement that pays for storage: keccak("sparehive storage" ‖ run id)."""
    return bytes(keccak(_CHALLENGE + run_id))


def held_of(indices: Iterable[int]) -> bytes:
    """The bitmap of objects by their numbers: 32 bytes, object 0 is the lowest bit of the last one."""
    return sum(1 << index for index in set(indices)).to_bytes(32, "big")


def held_objects(held: bytes, rules: StorageRules) -> tuple[int, ...]:
    """The numbers of the objects in a bitmap, ascending. InputError: none, or one that the run does not list."""
    bits = int.from_bytes(held, "big")
    if len(held) != 32 or not bits or bits >> len(rules.objects):
        raise InputError("held", f"0x{held.hex()}", f"must name some of the run's {len(rules.objects)} stored objects")
    return tuple(index for index in range(len(rules.objects)) if bits >> index & 1)


def drawn_segments(rules: StorageRules, certificate: bytes, storer: bytes, held: bytes) -> tuple[Draw, ...]:
    """What `storer`, saying that it holds `held`, has to show for a certificate's id: number i is
    keccak("sparehive storage" ‖ certificate ‖ storer ‖ held ‖ uint32 i) modulo the segments of all that it holds, one object after the
    other. InputError as `held_objects`."""
    objects = held_objects(held, rules)
    total = sum(rules.objects[index].num_segments for index in objects)
    draws = []
    for number in range(rules.segments):
        seed = _CHALLENGE + certificate + storer + held + number.to_bytes(4, "big")
        at = int.from_bytes(keccak(seed), "big") % total
        for index in objects:
            if at < rules.objects[index].num_segments:
                draws.append(Draw(index, at))
                break
            at -= rules.objects[index].num_segments
    return tuple(draws)


def storage_witnesses(
    electorate: Iterable[bytes], certificate: bytes, storer: bytes, witnesses: int
) -> tuple[bytes, ...]:
    """Who has to co-sign `storer`'s receipt: of the electorate that the certificate seats, the storer left out, the first `witnesses` by
    keccak("sparehive storage witness" ‖ certificate ‖ storer ‖ voter); fewer where there are no more. None: unpaid."""
    voters = set(electorate) - {storer}
    return tuple(sorted(voters, key=lambda voter: keccak(_WITNESS + certificate + storer + voter))[:witnesses])


def storer_rank(segments_root: bytes, storer: bytes) -> bytes:
    """keccak("sparehive storage storer" ‖ segments root ‖ storer): the smallest `replicas` are to hold the object, and are paid for it."""
    return bytes(keccak(_STORER + segments_root + storer))


def drawn_storers(rules: StorageRules, index: int, storers: Iterable[bytes]) -> tuple[bytes, ...]:
    """Of these the ones that are to hold object number `index`, in the order of their rank."""
    root = rules.objects[index].segments_root
    return tuple(sorted(set(storers), key=lambda storer: storer_rank(root, storer))[: rules.replicas])


def storage_units(rules: StorageRules, held: Mapping[bytes, bytes]) -> dict[bytes, int]:
    """Units of each storer for one certificate, from all of its payable receipts (storer → `held`): of each object ⌊KiB / number paid⌋ to
    each of the first `replicas` by rank among those that hold it. Who gets nothing has 0. InputError as `held_objects`."""
    units = dict.fromkeys(held, 0)
    holders: dict[int, list[bytes]] = {}
    for storer, bitmap in held.items():
        for index in held_objects(bitmap, rules):
            holders.setdefault(index, []).append(storer)
    for index, storers in holders.items():
        paid = drawn_storers(rules, index, storers)
        for storer in paid:
            units[storer] += rules.objects[index].num_segments // len(paid)
    return units


# -- the proof --------------------------------------------------------------------------------------------------------
def proof_bytes(rules: StorageRules, draws: Sequence[Draw]) -> int:
    """Length of the proof for these draws, to the byte: nobody has to fetch more to see that a proof is none."""
    return len(_FORMAT) + sum(
        9 + _segment_bytes(rules, draw) + 32 * rules.objects[draw.object].path_length(draw.segment) for draw in draws
    )


def encode_proof(rules: StorageRules, draws: Sequence[Draw], pieces: Sequence[Piece]) -> bytes:
    """The proof block, whose SHA-256 the receipt signs: a line of its format, then for each draw the object's number (1 byte), the
    segment's (8 bytes, big-endian), the segment, its path. Each length follows from the run's table: one set of pieces has one proof.

    InputError where a piece does not answer its draw."""
    for number, (draw, piece) in enumerate(zip(draws, pieces, strict=True)):
        if not _answers(rules, draw, piece.segment, piece.path):
            raise InputError(f"proof[{number}]", draw, "is not answered by these bytes; read the object again")
    return _FORMAT + b"".join(
        _head(draw) + piece.segment + b"".join(piece.path) for draw, piece in zip(draws, pieces, strict=True)
    )


def fault_of_proof(rules: StorageRules, certificate: bytes, storer: bytes, held: bytes, block: bytes) -> str | None:
    """Why `block` is no proof that `storer` holds `held` at that certificate; None: it is one. Raises nothing."""
    try:
        draws = drawn_segments(rules, certificate, storer, held)
    except InputError as error:
        return str(error)
    if len(block) != proof_bytes(rules, draws):
        return f"the proof has {len(block)} bytes, not {proof_bytes(rules, draws)}"
    if not block.startswith(_FORMAT):
        return "the proof is of another format"
    at = len(_FORMAT)
    for number, draw in enumerate(draws):
        size, length = _segment_bytes(rules, draw), rules.objects[draw.object].path_length(draw.segment)
        if block[at : at + 9] != _head(draw):
            return f"piece {number} of the proof is not the one that is asked for"
        at += 9
        segment, hashes = block[at : at + size], block[at + size : at + size + 32 * length]
        path = [hashes[start : start + 32] for start in range(0, len(hashes), 32)]
        if not _answers(rules, draw, segment, path):
            return f"piece {number} of the proof is not what the run lists"
        at += size + 32 * length
    return None


def is_segment(root: bytes, num_bytes: int, index: int, segment: bytes, path: Sequence[bytes]) -> bool:
    """Whether `segment` is number `index` of the content of `num_bytes` under a segments root (RFC 9162, section 2.1 with SHA-256)."""
    if not 0 < num_bytes <= MAX_CONTENT_BYTES or not 0 <= index < -(-num_bytes // SEGMENT_BYTES):
        return False
    content = StoredObject(root, num_bytes)
    if len(segment) != content.segment_bytes(index) or len(path) != content.path_length(index):
        return False
    if any(len(sibling) != 32 for sibling in path):
        return False
    node, rest, last = _sha256(b"\0" + segment), list(path), content.num_segments - 1
    while last:
        if index & 1:
            node = _sha256(b"\1" + rest.pop(0) + node)
        elif index < last:
            node = _sha256(b"\1" + node + rest.pop(0))
        index, last = index >> 1, last >> 1
    return _sha256(b"\2" + num_bytes.to_bytes(8, "big") + node) == root


def _answers(rules: StorageRules, draw: Draw, segment: bytes, path: Sequence[bytes]) -> bool:
    content = rules.objects[draw.object]
    return is_segment(content.segments_root, content.num_bytes, draw.segment, segment, path)


def _segment_bytes(rules: StorageRules, draw: Draw) -> int:
    return rules.objects[draw.object].segment_bytes(draw.segment)


def _head(draw: Draw) -> bytes:
    return bytes([draw.object]) + draw.segment.to_bytes(8, "big")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


__all__ = [
    "GRACE_EPOCHS",
    "MAX_CONTENT_BYTES",
    "MAX_OBJECTS",
    "SEGMENT_BYTES",
    "Draw",
    "Piece",
    "StorageRules",
    "StoredObject",
    "drawn_segments",
    "drawn_storers",
    "encode_proof",
    "fault_of_proof",
    "held_objects",
    "held_of",
    "is_segment",
    "pool_id",
    "proof_bytes",
    "storage_units",
    "storage_witnesses",
    "storer_rank",
]
