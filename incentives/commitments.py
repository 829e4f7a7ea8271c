"""What a certificate's hashes stand for, computed from the published JSON (docs/decisions/0002).

`swarm.records.commitments` makes the same hashes from the swarm's own records while it trains; this module is written
apart from it, for whoever checks a ledger with no swarm installed. A test compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from incentives import merkle
from incentives.errors import TamperedError
from incentives.hashing import keccak
from incentives.jsonform import HexAddress, HexHash, Uint32, canonical, first_fault, from_hex
from incentives.records import packer

FLAG_REDUCES, FLAG_VOTES = 1, 2
KIND_ROUND, KIND_SEATING = 0, 1
CONTRIBUTOR_TYPES = ("uint8", "address", "bytes32", "uint32", "uint32")
CONTRIBUTOR_NAMES = ("kind", "peer", "contribution", "units", "flags")
CONTRIBUTOR_KIND = 4
_pack_contributor = packer(CONTRIBUTOR_TYPES, CONTRIBUTOR_NAMES)


@dataclass(frozen=True, slots=True)
class ContributorLeaf:
    peer: bytes
    contribution: bytes
    units: int
    flags: int


@dataclass(frozen=True)
class Body:
    """A certificate's content. Floats stay the 8 bytes that were hashed; nothing is computed with them here. What every receipt
    of the certificate looks up in it is sorted out once."""

    contributors: tuple[ContributorLeaf, ...]
    reducers: tuple[bytes, ...]
    averages: tuple[bytes, ...]
    clip_factors: tuple[bytes, ...]
    median_norm: bytes
    electorate: tuple[bytes, ...]

    @cached_property
    def leaf_of(self) -> dict[bytes, ContributorLeaf]:
        """By peer; each contributes once."""
        return {leaf.peer: leaf for leaf in self.contributors}

    @cached_property
    def able(self) -> tuple[bytes, ...]:
        """See `able_reducers`."""
        return able_reducers(self)


class Contributor(Protocol):
    """What a draw looks at of a contributor."""

    @property
    def peer(self) -> bytes: ...
    @property
    def flags(self) -> int: ...


class Round(Protocol):
    """What a draw looks at of a certificate's body, as the ledger has it or as the swarm does."""

    @property
    def contributors(self) -> Sequence[Contributor]: ...
    @property
    def reducers(self) -> Sequence[bytes]: ...


def able_reducers(body: Round) -> tuple[bytes, ...]:
    """The reducers in rank order that contributed with flag 1: who can witness."""
    able = {leaf.peer for leaf in body.contributors if leaf.flags & FLAG_REDUCES}
    return tuple(reducer for reducer in body.reducers if reducer in able)


_Bits = Annotated[str, Field(pattern="^0x[0-9a-f]{16}$")]


class _BodyModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    contributors: list[tuple[HexAddress, HexHash, Uint32, Uint32]]
    reducers: list[HexAddress]
    averages: list[HexHash]
    clip_factors: list[_Bits]
    median_norm: _Bits
    electorate: list[HexAddress]


@lru_cache(8)  # every check on a certificate, its successor and its receipts asks for it
def parse_body(data: bytes) -> Body:
    """The body whose canonical JSON is `data`. TamperedError for anything that is not exactly that."""
    # pydantic's own parser bounds the depth; json.loads overflows the C stack where the recursion limit was raised.
    try:
        model = _BodyModel.model_validate_json(data)
    except ValidationError as error:
        raise TamperedError(f"certificate body: {first_fault(error)}") from None
    # Whatever was spelled otherwise (spaces, repeated keys, 10.0 for 10) does not come back the same.
    if canonical(model.model_dump()) != data:
        raise TamperedError("certificate body is not canonical JSON (RFC 8785): fetch it again")
    body = Body(
        tuple(
            ContributorLeaf(from_hex(peer), from_hex(contribution), units, flags)
            for peer, contribution, units, flags in model.contributors
        ),
        tuple(map(from_hex, model.reducers)),
        tuple(map(from_hex, model.averages)),
        tuple(map(from_hex, model.clip_factors)),
        from_hex(model.median_norm),
        tuple(map(from_hex, model.electorate)),
    )
    if not is_ascending([leaf.peer for leaf in body.contributors]):
        raise TamperedError("certificate body: contributors are not strictly ascending by peer")
    if not is_ascending(body.electorate):
        raise TamperedError("certificate body: the electorate is not strictly ascending")
    if len(set(body.reducers)) != len(body.reducers):
        raise TamperedError("certificate body: a reducer is listed twice")
    if len(body.clip_factors) != len(body.contributors):
        raise TamperedError("certificate body: there is not one clip factor per contributor")
    return body


def body_hash(data: bytes) -> bytes:
    """`RoundCertificate.body` for the canonical JSON `data`."""
    return bytes(keccak(data))


def contributors_root(body: Body) -> bytes:
    return merkle.build(
        [
            merkle.hash_words(
                _pack_contributor((CONTRIBUTOR_KIND, leaf.peer, leaf.contribution, leaf.units, leaf.flags))
            )
            for leaf in body.contributors
        ]
    ).root


def electorate_hash(body: Body) -> bytes:
    return bytes(keccak(b"".join(body.electorate)))


def clock_units(body: Body, max_units: int) -> int:
    """What a certificate adds to the run's clock (protocol §3.10): of its contributors' units, each at most `max_units`, and none above
    twice their lower median."""
    units = sorted(min(leaf.units, max_units) for leaf in body.contributors if leaf.units)
    most = 2 * units[(len(units) - 1) // 2] if units else 0
    return sum(min(each, most) for each in units)


def quorum(num_voters: int) -> int:
    """Signatures that decide: more than two thirds from 4 voters on, more than half below."""
    return num_voters * 2 // 3 + 1 if num_voters > 3 else num_voters // 2 + 1


def is_ascending(values: tuple[bytes, ...] | list[bytes]) -> bool:
    """Strictly: nothing twice."""
    return all(left < right for left, right in pairwise(values))
