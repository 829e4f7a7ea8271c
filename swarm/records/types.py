"""The signed records of a round (protocol §2.2), as plain frozen values, and the content that travels with them.

Field order is the order of the EIP-712 types in `incentives.records`; `peers.notary` joins the two and a test compares
them. Types: 32-byte hashes and 20-byte accounts are `bytes`, everything else is `int`. A record's *hash* is its EIP-712
hashStruct (no domain, no signature); what is *signed* is the EIP-712 digest (with the domain).
"""

from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, Union, cast

from typing_extensions import TypeVar  # its defaults came into typing with Python 3.13

Account: TypeAlias = bytes  # 20 bytes
Hash: TypeAlias = bytes  # 32 bytes
ZERO_HASH: Hash = bytes(32)
ZERO_ACCOUNT: Account = bytes(20)

FLAG_REDUCES = 1  # reachable from outside: may reduce and witness
FLAG_VOTES = 2  # wants a seat in the next electorate
FLAG_STORES = 4  # keeps content of the run; said in links and presence alone
KIND_ROUND, KIND_SEATING = 0, 1
NO_ATTEMPT = 2**32 - 1  # RoundSet.valid_attempt of a new proposal


@dataclass(frozen=True, slots=True)
class Contribution:
    run_id: Hash
    epoch: int
    peer: Account
    prev_certificate: Hash
    previous: Hash
    first_unit: int
    units: int
    beacon_block: int
    device_class: Hash
    merges_hash: Hash
    state_before: Hash
    state_after: Hash
    parts_root: Hash
    flags: int


@dataclass(frozen=True, slots=True)
class RoundCall:
    """An initiator's word that attempt `attempt` begins. The four deadlines are reserved: written as zeros and read by nobody
    (protocol §2.2, §12)."""

    run_id: Hash
    epoch: int
    attempt: int
    prev_certificate: Hash
    reducers_hash: Hash
    contribute_by: int
    set_by: int
    average_by: int
    vote_by: int


@dataclass(frozen=True, slots=True)
class ReducerReport:
    run_id: Hash
    epoch: int
    attempt: int
    prev_certificate: Hash
    complete_hash: Hash


@dataclass(frozen=True, slots=True)
class RoundSet:
    """The initiator's proposal. `proposal` is 0 for a new set, else the id of the certificate proposed again, for
    which a quorum voted at `valid_attempt`."""

    run_id: Hash
    epoch: int
    attempt: int
    prev_certificate: Hash
    contributors_root: Hash
    num_contributors: int
    reducers_hash: Hash
    proposal: Hash
    valid_attempt: int


@dataclass(frozen=True, slots=True)
class Average:
    run_id: Hash
    epoch: int
    attempt: int
    prev_certificate: Hash
    round_set: Hash  # hash of the RoundSet that it is the average over
    part: int
    length: int
    digest: Hash  # sha-256 of the encoded part


@dataclass(frozen=True, slots=True)
class RoundCertificate:
    run_id: Hash
    epoch: int
    attempt: int
    kind: int
    prev_certificate: Hash
    prev_root: Hash
    next_root: Hash
    contributors_root: Hash
    num_contributors: int
    units: int
    cumulative_units: int
    electorate: Hash
    body: Hash

    def without_attempt(self) -> "RoundCertificate":
        return replace(self, attempt=0)


@dataclass(frozen=True, slots=True)
class RoundVote:
    run_id: Hash
    epoch: int
    attempt: int
    prev_certificate: Hash
    id: Hash  # certificate id, or zero


@dataclass(frozen=True, slots=True)
class RoundVoid:
    run_id: Hash
    epoch: int
    attempt: int
    prev_certificate: Hash


@dataclass(frozen=True, slots=True)
class ContributionReceipt:
    run_id: Hash
    epoch: int
    peer: Account
    units: int
    contribution: Hash
    certificate: Hash


@dataclass(frozen=True, slots=True)
class StorageReceipt:
    """That `peer` showed pieces of what it stores for a run (protocol §14). `held`: a bitmap of the run's stored objects, object 0 the
    lowest bit of the last byte; `proof`: sha-256 of the proof block."""

    run_id: Hash
    epoch: int
    peer: Account
    certificate: Hash
    held: Hash
    proof: Hash


@dataclass(frozen=True, slots=True)
class Progress:
    """Units done since the boundary, said again and again; `sequence` only grows. Not journaled: it decides nothing."""

    run_id: Hash
    epoch: int
    prev_certificate: Hash
    units: int
    sequence: int
    flags: int


Record: TypeAlias = Union[
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
]


@dataclass(frozen=True, slots=True)
class PartLeaf:
    """One part of a contribution as it goes over the wire."""

    index: int
    length: int  # bytes
    digest: Hash  # sha-256 of the wire bytes
    squared_norm: float  # of the decoded values, fp64, summed as a tree (`swarm.optim.codec.squared_norm`)


@dataclass(frozen=True, slots=True)
class Merge:
    """One entry of a contribution's list of merges (protocol §4.7). kind: "start", "certificate" or "void"."""

    kind: str
    hash: Hash
    inner_step: int


@dataclass(frozen=True, slots=True)
class ContributionContent:
    parts: tuple[PartLeaf, ...]
    merges: tuple[Merge, ...]


@dataclass(frozen=True, slots=True)
class CallContent:
    reducers: tuple[Account, ...]  # in rank order


@dataclass(frozen=True, slots=True)
class ReportContent:
    complete: tuple[Hash, ...]  # contribution hashes all of whose parts for this reducer are there and passed


@dataclass(frozen=True, slots=True)
class ContributorLeaf:
    peer: Account
    contribution: Hash
    units: int
    flags: int


@dataclass(frozen=True, slots=True)
class RoundBody:
    """What `RoundCertificate.body` hashes. A seating's body has only `electorate`."""

    contributors: tuple[ContributorLeaf, ...]  # ascending by peer
    reducers: tuple[Account, ...]  # in rank order
    averages: tuple[Hash, ...]  # digest per part
    clip_factors: tuple[float, ...]  # fp64, one per contributor
    median_norm: float  # 0.0: none
    electorate: tuple[Account, ...]  # next voters, ascending


@dataclass(frozen=True, slots=True)
class SetContent:
    contributors: tuple[ContributorLeaf, ...]
    reducers: tuple[Account, ...]
    certificate: RoundCertificate | None = None  # with `proposal`: what is proposed again, and its body
    body: RoundBody | None = None


Content: TypeAlias = Union[ContributionContent, CallContent, ReportContent, SetContent, RoundBody, None]


R_co = TypeVar("R_co", bound=Record, default=Record, covariant=True)
C_co = TypeVar("C_co", bound=Content, default=Content, covariant=True)
R = TypeVar("R", bound=Record)
C = TypeVar("C", bound=Content)


@dataclass(frozen=True, slots=True)
class Signed(Generic[R_co, C_co]):
    """A record, who signed it, and the content whose hash is in it. Equality ignores the content."""

    record: R_co
    signer: Account
    signature: bytes
    content: C_co = field(default=cast(Any, None), compare=False)

    def of(self, record: type[R]) -> "Signed[R, C_co]":
        """The same, where it is known to be such a record."""
        assert isinstance(self.record, record)
        return cast("Signed[R, C_co]", self)

    def holding(self, content: type[C]) -> "Signed[R_co, C]":
        """The same, where it is known to hold such content."""
        assert isinstance(self.content, content)
        return cast("Signed[R_co, C]", self)


SignedCall: TypeAlias = Signed[RoundCall, CallContent]
SignedReport: TypeAlias = Signed[ReducerReport, ReportContent]
SignedSet: TypeAlias = Signed[RoundSet, SetContent]
SignedContribution: TypeAlias = Signed[Contribution, ContributionContent]
