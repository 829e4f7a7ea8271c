"""What happened in training, as frozen records: the only thing that the other packages learn from swarm.

`train` hands each to one callback, from any thread; a callback must return at once.
"""

from dataclasses import dataclass
from typing import TypeAlias, Union

from swarm.records.types import Account, Hash, RoundBody, RoundCertificate, Signed


@dataclass(frozen=True, slots=True)
class Ready:
    """The peer holds the anchor of `epoch` and trains (or serves)."""

    epoch: int
    root: Hash


@dataclass(frozen=True, slots=True)
class UnitDone:
    epoch: int
    unit: int  # numbered per peer without gaps
    inner_steps: int  # of this process, in all
    loss: float  # mean over the unit
    seconds: float


@dataclass(frozen=True, slots=True)
class Contributed:
    """This peer's contribution was signed; its parts are on their way."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class PartsReceived:
    """This peer, as drawn reducer, holds every part it was to get of a contribution, and all checks passed."""

    contribution: Hash
    peer: Account


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate joined the lineage this peer follows. `signatures` are (account, signature), ascending by account."""

    id: Hash
    certificate: RoundCertificate
    body: RoundBody
    signatures: tuple[tuple[Account, bytes], ...]
    own: Hash  # hash of this peer's contribution in it, or zero


@dataclass(frozen=True, slots=True)
class Undone:
    """Fork choice left these certificates (ids, newest first)."""

    ids: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Voided:
    """The epoch's contributions went back to the residual."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has ended with the certificate of `epoch`, whose state is here. `units` on the run's clock."""

    epoch: int
    units: int
    root: Hash


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Held-out loss of the anchor of `epoch`, in nats per token."""

    epoch: int
    loss: float


@dataclass(frozen=True, slots=True)
class PeerSeen:
    account: Account
    reachable: bool


@dataclass(frozen=True, slots=True)
class PeerLost:
    account: Account


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was dropped: who broke which rule (zero account: nobody known)."""

    account: Account
    reason: str


@dataclass(frozen=True, slots=True)
class WrongAverage:
    """A reducer signed an average that the set's contributions do not give; whoever has their parts can redo it."""

    proposal: Signed  # RoundSet
    average: Signed  # Average
    digest: Hash  # of the right one


Event: TypeAlias = Union[
    Ready,
    UnitDone,
    Contributed,
    PartsReceived,
    Certified,
    Undone,
    Voided,
    Finished,
    Evaluated,
    PeerSeen,
    PeerLost,
    Fault,
    WrongAverage,
]
