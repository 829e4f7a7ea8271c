"""What `RoundMachine` asks its driver to do. Frozen values; order matters."""

from dataclasses import dataclass
from typing import TypeAlias, Union

from swarm.records.types import Account, Average, Hash, RoundBody, RoundCertificate, Signed, SignedCall, SignedSet


@dataclass(frozen=True, slots=True)
class Timer:
    """name: "step" (an attempt's current step takes too long), "report" (time to report what is complete), "stall"."""

    name: str
    prev_certificate: Hash
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call `timeout(timer)` in `seconds`; setting it again replaces it."""

    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class Send:
    """To everyone; `again`: also where it was sent or heard before, to those who came later."""

    signed: Signed
    again: bool = False


@dataclass(frozen=True, slots=True)
class MakeContribution:
    """Ask the trainer for a boundary, then call `contributed`."""

    call: SignedCall


@dataclass(frozen=True, slots=True)
class Scatter:
    """Send the own parts to the call's reducers: part p to reducers[p mod number of reducers]."""

    call: SignedCall


@dataclass(frozen=True, slots=True)
class Collect:
    """As a reducer of this call: gather parts, call `report` whenever more is complete."""

    call: SignedCall


@dataclass(frozen=True, slots=True)
class ReduceSet:
    """As a reducer: average the own parts over this set, call `averaged` for each."""

    proposal: SignedSet


@dataclass(frozen=True, slots=True)
class Recheck:
    """As a reducer: choose `count` parts that others average, at random and for oneself, average them as well, call `averaged` for
    each. All averages of the set are signed by now: who lies cannot know which will be looked at."""

    proposal: SignedSet
    count: int


@dataclass(frozen=True, slots=True)
class Redo:
    """Reducers differ on this part, or its average cannot be true: average it and call `redone`."""

    proposal: SignedSet
    part: int


@dataclass(frozen=True, slots=True)
class Expose:
    """This average is not what the set's contributions give; `digest` is what they give."""

    proposal: SignedSet
    average: Signed[Average]
    digest: Hash


@dataclass(frozen=True, slots=True)
class FetchAverages:
    """Get the averages (digest and probable holder by part), take the outer step, call `prepared`."""

    proposal: SignedSet
    averages: tuple[tuple[Hash, Account], ...]


@dataclass(frozen=True, slots=True)
class CertifiedEntry:
    id: Hash
    certificate: RoundCertificate
    body: RoundBody
    signatures: tuple[tuple[Account, bytes], ...]


@dataclass(frozen=True, slots=True)
class Adopt:
    """Follow `path` (in order, after the common ancestor). `undone`: ids left behind, newest first."""

    path: tuple[CertifiedEntry, ...]
    undone: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Blame:
    account: Account
    reason: str


Action: TypeAlias = Union[
    SetTimer, Send, MakeContribution, Scatter, Collect, ReduceSet, Recheck, Redo, Expose, FetchAverages, Adopt, Blame
]
