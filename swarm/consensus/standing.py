"""What a peer knows and where it stands: the state on which the layers of `RoundMachine` work, and how it speaks.

Signing journals before it returns (`swarm.records.notary`), so whatever leaves here is bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from swarm.config import RunConfig
from swarm.consensus.actions import (
    Action,
    Blame,
    Send,
    SetTimer,
    Timer,
)
from swarm.consensus.heard import Heard
from swarm.consensus.lineage import Lineage
from swarm.errors import Equivocation
from swarm.records.commitments import (
    quorum,
)
from swarm.records.notary import Notary
from swarm.records.types import (
    KIND_SEATING,
    ZERO_HASH,
    Account,
    Content,
    Hash,
    Record,
    RoundBody,
    RoundCertificate,
    RoundVoid,
    RoundVote,
    Signed,
)
from swarm.records.wire import pack_content

MAX_ROUNDS_REMEMBERED = 4096  # with their locks: a branch may become the followed one again


@dataclass(frozen=True, slots=True)
class RunRules:
    """What of a run the machine needs."""

    run_id: Hash
    initial_root: Hash
    founders: tuple[Account, ...]
    num_parts: int
    max_attempts: int
    max_reducers: int
    max_units: int
    min_seated: int
    contribute_seconds: float
    average_seconds: float
    vote_seconds: float
    stall_seconds: float

    @classmethod
    def of(cls, run: RunConfig, founders: Iterable[Account], num_values: int) -> "RunRules":
        r = run.rounds
        return cls(
            run.run_id,
            bytes.fromhex(run.initial_root),
            tuple(sorted(founders)),
            -(-num_values // run.codec.part_values),
            r.max_attempts,
            r.max_reducers,
            r.max_units_per_contribution,
            r.min_seated,
            r.contribute_seconds,
            r.average_seconds,
            r.vote_seconds,
            r.stall_seconds,
        )


class Phase(IntEnum):
    """Of an attempt, for a voter."""

    OPEN = 0  # nothing voted
    VOTED = 1
    CLOSED = 2  # certified or voided


@dataclass
class Standing:
    """Where this peer stands in the round after a certificate."""

    epoch: int
    attempt: int = 0
    phase: Phase = Phase.OPEN
    lock: Hash | None = None
    lock_attempt: int = -1
    due: bool = False
    call_done: int = -1  # attempts whose call was acted on
    report_done: int = -1
    set_done: int = -1
    fetch_done: int = -1
    hurried: int = -1
    complete: frozenset[Hash] = frozenset()
    withheld: set[tuple[int, Account]] = field(default_factory=set)  # at which attempt, who hands out no averages


class MachineState:
    """Of one peer. The layers above decide; `_progress` and `_take` are theirs."""

    def __init__(self, notary: Notary, rules: RunRules, reduces: bool = True, votes: bool = True) -> None:
        self.notary, self.rules = notary, rules
        self.reduces, self.votes = reduces, votes  # has a listening address; wants a seat (a seed does not)
        self.account = notary.account
        self.lineage = Lineage(rules.run_id, rules.initial_root, rules.founders)
        self.heard = Heard(notary, self.lineage, rules.num_parts, rules.max_reducers)
        self.tip: Hash = ZERO_HASH
        self.stalled = 0
        self.proposals: dict[Hash, tuple[RoundCertificate, RoundBody]] = {}
        self._restoring = False
        self._saw_quorum = False  # agree on a round, since the start
        self._first_seating = 0
        self._ready: dict[Account, int] = {}
        self._linked: set[Account] = set()
        self._gone: set[Account] = set()  # were ready, and are no more
        self._unreached: frozenset[Account] = frozenset()  # cannot reduce, whatever they say
        self._silent: dict[Hash, set[Account]] = {}
        # Reducers that were silent of late → epoch up to which others are drawn first.
        self._passed_over: dict[Account, int] = {}
        # Joiners that did not keep their word → epoch up to which nobody waits for them.
        self._unawaited: dict[Account, int] = {}
        self._rounds: dict[Hash, Standing] = {}
        self._signed: dict[Hash, list[RoundVote | RoundVoid | RoundCertificate]] = {}  # before a restart
        self._kept: dict[Hash, list[Signed]] = {}  # the same and all else, while its predecessor is unknown
        self._reduced: set[bytes] = set()  # signatures of sets that the driver was asked to average
        self._prepared: set[tuple[Hash, int]] = set()
        self._omitted: set[Account] = set()
        self._out: list[Action] = []

    @property
    def epoch(self) -> int:
        """Of the round under way."""
        return self.lineage[self.tip].certificate.epoch + 1

    @property
    def attempt(self) -> int:
        return self.round.attempt

    @property
    def round(self) -> Standing:
        """The one under way."""
        return self._round()

    def proposed_after(self, prev: Hash) -> dict[Hash, tuple[RoundCertificate, RoundBody]]:
        """What might be certified next after `prev`, by id, as far as it is known here."""
        return {identity: made for identity, made in self.proposals.items() if made[0].prev_certificate == prev}

    def is_passed_over(self, account: Account) -> bool:
        """Whether others are drawn as reducers before it: it was silent of late."""
        return self._passed_over.get(account, 0) >= self.epoch

    def voters(self) -> tuple[Account, ...]:
        return self.lineage.electorate(self.tip)

    def leader(self, attempt: int) -> Account:
        return self.lineage.initiator(self.tip, attempt)

    def _has_quorum(self, accounts: Iterable[Account]) -> bool:
        voters = set(self.voters())
        return len(voters.intersection(accounts)) >= quorum(len(voters))

    def _round(self) -> Standing:
        found = self._rounds.get(self.tip)
        if found is None:
            found = self._rounds[self.tip] = Standing(self.epoch)
            for old in list(self._rounds)[:-MAX_ROUNDS_REMEMBERED]:
                del self._rounds[old]
            for record in self._signed.pop(self.tip, ()):
                self._resume(found, record)
        return found

    def _resume(self, r: Standing, record: RoundVote | RoundVoid | RoundCertificate) -> None:
        if isinstance(record, RoundCertificate) and record.kind == KIND_SEATING:
            return
        phase = Phase.VOTED if isinstance(record, RoundVote) else Phase.CLOSED
        if (record.attempt, phase) >= (r.attempt, r.phase):
            r.attempt, r.phase, r.due = record.attempt, phase, True
        if isinstance(record, RoundCertificate) and record.attempt >= r.lock_attempt:
            r.lock, r.lock_attempt = self.notary.certificate_id(record), record.attempt

    def _done(self) -> list[Action]:
        out, self._out = self._out, []
        return out

    def _blame(self, account: Account, reason: str) -> None:
        self._out.append(Blame(account, reason))

    def _sign(self, record: Record, content: Content = None) -> Signed | None:
        try:
            signature = self.notary.sign(record, pack_content(content))
        except Equivocation:
            return None  # signed otherwise before a restart: stay silent
        return Signed(record, self.account, signature, content)

    def _say(self, record: Record, content: Content = None) -> bool:
        signed = self._sign(record, content)
        if signed is None:
            return False
        self._out.append(Send(signed))
        self._take(signed)
        return True

    def _take(self, signed: Signed) -> None:
        raise NotImplementedError  # RoundMachine

    def _progress(self) -> None:
        raise NotImplementedError  # RoundMachine

    def _step_timer(self, r: Standing) -> None:
        rules = self.rules
        grow = 1.5 ** min(r.attempt, 6)
        seconds = (
            rules.contribute_seconds + rules.average_seconds if r.phase == Phase.OPEN else rules.vote_seconds
        ) * grow
        self._out.append(SetTimer(Timer("step", self.tip, r.attempt), seconds))
