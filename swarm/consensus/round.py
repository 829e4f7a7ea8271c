"""The round after one certificate, as one peer knows it: where it stands, what was heard of it, what may follow.

Nothing here signs, asks or waits; `Calls`, `Sets` and `Votes` act on it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from swarm.consensus.findings import Findings
from swarm.consensus.heard import Heard, RoundMessages
from swarm.consensus.lineage import Lineage, LineageEntry
from swarm.records.commitments import quorum
from swarm.records.types import (
    KIND_SEATING,
    ZERO_HASH,
    Account,
    Hash,
    Record,
    RoundBody,
    RoundCertificate,
    RoundSet,
    RoundVoid,
    RoundVote,
    SignedCall,
    SignedSet,
)

MAX_ROUNDS_REMEMBERED = 4096  # with their locks: a branch may become the followed one again
MAX_STRANGE_ROUNDS = 64
Proposal = tuple[RoundCertificate, RoundBody]


class Phase(IntEnum):
    """Of an attempt, for a voter."""

    OPEN = 0  # nothing voted
    VOTED = 1
    CLOSED = 2  # certified or voided


class Act(Enum):
    """What is done once in an attempt."""

    CALL = "its call was acted on"
    REPORT = "what is complete was reported"
    PROPOSE = "its set was proposed"
    FETCH = "its averages were asked for"
    HURRY_OPEN = "its wait was cut short before the vote"
    HURRY_VOTED = "its wait was cut short after the vote"


@dataclass
class Round:
    """`prev`: the certificate that it follows."""

    prev: Hash
    lineage: Lineage = field(repr=False)
    hash: Callable[[Record], Hash] = field(repr=False)
    messages: RoundMessages = field(default_factory=RoundMessages, repr=False)
    attempt: int = 0
    phase: Phase = Phase.OPEN
    due: bool = False  # the epoch's work is done
    lock: Hash | None = None
    lock_attempt: int = -1
    complete: frozenset[Hash] = frozenset()  # contributions all of whose parts for this reducer are here
    proposals: dict[Hash, Proposal] = field(default_factory=dict, repr=False)  # by id; not all are acceptable
    prepared: set[tuple[Hash, int]] = field(default_factory=set)  # ids whose state is here, and the attempt it was for
    reduced: set[bytes] = field(default_factory=set)  # signatures of sets that the driver was asked to average
    fetched: set[tuple[int, tuple[Hash, ...]]] = field(default_factory=set)  # averages by attempt that were asked for
    rechecked: set[bytes] = field(default_factory=set)  # … to average some parts of others of
    found: dict[bytes, Findings] = field(default_factory=dict)  # by signature of the set
    withheld: set[tuple[int, Account]] = field(default_factory=set)  # at which attempt, who hands out no averages
    silent: set[Account] = field(default_factory=set)  # reducers that are not drawn again
    omitted: set[Account] = field(default_factory=set)  # who contributed to the round before, and is not in it
    _done: set[tuple[Act, int]] = field(default_factory=set)

    @property
    def epoch(self) -> int:
        return self.lineage[self.prev].certificate.epoch + 1

    @property
    def voters(self) -> tuple[Account, ...]:
        """Ascending."""
        return self.lineage.electorate(self.prev)

    def leader(self, attempt: int) -> Account:
        return self.lineage.initiator(self.prev, attempt)

    def has_quorum(self, accounts: Iterable[Account]) -> bool:
        voters = set(self.voters)
        return len(voters.intersection(accounts)) >= quorum(len(voters))

    # -- where it stands ----------------------------------------------------------------------------------------------
    def is_first(self, act: Act, attempt: int) -> bool:
        """True once for each act of each attempt; from then on it counts as done."""
        if self.has_done(act, attempt):
            return False
        self._done.add((act, attempt))
        return True

    def has_done(self, act: Act, attempt: int) -> bool:
        return (act, attempt) in self._done

    def resume(self, record: RoundVote | RoundVoid | RoundCertificate, identity: Hash) -> None:
        """What this peer signed before a restart binds it. `identity` of a certificate."""
        if isinstance(record, RoundCertificate) and record.kind == KIND_SEATING:
            return
        phase = Phase.VOTED if isinstance(record, RoundVote) else Phase.CLOSED
        if (record.attempt, phase) >= (self.attempt, self.phase):
            self.attempt, self.phase, self.due = record.attempt, phase, True
        if isinstance(record, RoundCertificate) and record.attempt >= self.lock_attempt:
            self.lock, self.lock_attempt = identity, record.attempt

    def take_certificate(self, entry: LineageEntry) -> None:
        """Of a round after `prev`, as far as it is signed: it may be certified here, and who signed it is through with that
        attempt."""
        if entry.certificate.kind == KIND_SEATING:
            return
        for attempt, signed in entry.signatures.items():
            self.messages.certificates.setdefault(attempt, set()).update(signed)
        self.proposals.setdefault(entry.id, (entry.certificate, entry.body))

    def forget_proposals(self) -> None:
        self.proposals.clear()
        self.prepared.clear()
        self.reduced.clear()
        self.fetched.clear()
        self.rechecked.clear()
        self.found.clear()

    # -- what its messages say ----------------------------------------------------------------------------------------
    def call_of_interest(self, is_voter: bool) -> SignedCall | None:
        """Of the attempt under way; who has no vote reduces and contributes for the newest."""
        calls = self.messages.calls
        return calls.get(self.attempt if is_voter else max(calls, default=0))

    def set_of_interest(self, is_voter: bool) -> SignedSet | None:
        """As `call_of_interest`."""
        sets = self.messages.sets
        return sets.get(self.attempt if is_voter else max(sets, default=0))

    def findings(self, proposal: SignedSet) -> Findings:
        """What is known of its averages, as far as they were heard."""
        found = self.found.get(proposal.signature)
        if found is None:
            found = Findings(self.hash(proposal.record), proposal.content, self.voters)
            self.found[proposal.signature] = found
        found.take(self.messages.averages.get(proposal.record.attempt, {}))
        return found

    def newest_polka(self) -> tuple[int, Hash] | None:
        """The newest (attempt, id) with a quorum of votes."""
        found = [
            (attempt, identity)
            for attempt, ids in self.messages.votes.items()
            for identity, who in ids.items()
            if identity != ZERO_HASH and self.has_quorum(who)
        ]
        return max(found) if found else None

    def was_voted(self, record: RoundSet, identity: Hash) -> bool:
        """Whether a quorum voted for `identity` at the attempt that the set names."""
        if not record.valid_attempt < self.attempt:
            return False
        return self.has_quorum(self.messages.votes.get(record.valid_attempt, {}).get(identity, {}))

    def is_free(self, record: RoundSet, identity: Hash) -> bool:
        """Who is locked votes only for its lock, or where a quorum voted for the id since."""
        if self.lock is None or self.lock == identity:
            return True
        return self.lock_attempt <= record.valid_attempt and self.was_voted(record, identity)

    def certifiable(self) -> Hash | None:
        """An id that a quorum has voted for in this attempt, and whose certificate is known here."""
        for identity, who in self.messages.votes.get(self.attempt, {}).items():
            if identity != ZERO_HASH and identity in self.proposals and self.has_quorum(who):
                return identity
        return None

    def closed_attempts(self) -> list[int]:
        """Attempts, this one if it is closed here or later ones, in which a quorum voided or certified."""
        heard = self.messages
        return [
            a
            for a in heard.voids.keys() | heard.certificates.keys()
            if (a > self.attempt or (a == self.attempt and self.phase == Phase.CLOSED))
            and self.has_quorum(heard.voids.get(a, {}).keys() | heard.certificates.get(a, set()))
        ]

    def is_prepared(self, attempt: int) -> bool:
        return any(a == attempt and identity in self.proposals for identity, a in self.prepared)

    def cannot_win(self, gone: Collection[Account]) -> bool:
        """No id can get a quorum of votes any more, even if all who have not voted and are not gone vote for it."""
        voters = set(self.voters)
        votes = self.messages.votes.get(self.attempt, {})
        voted = {who for signed in votes.values() for who in signed}
        most = max((len(who.keys() & voters) for identity, who in votes.items() if identity != ZERO_HASH), default=0)
        return most + len(voters - voted - set(gone)) < quorum(len(voters))

    def is_hopeless(self, gone: set[Account], finished: Collection[Account]) -> bool:
        """The initiator is gone before its set, a reducer before its report or before it has `finished` its averages, or keeps those to
        itself; or voters are gone before their votes."""
        if self.phase != Phase.OPEN:
            return self.phase == Phase.VOTED and self.cannot_win(gone)
        heard = self.messages
        proposal, call = heard.sets.get(self.attempt), heard.calls.get(self.attempt)
        if proposal is not None:
            if proposal.content.certificate is not None:
                return False
            withheld = {who for attempt, who in self.withheld if attempt == self.attempt}
            lost = gone.difference(finished) | (set() if self.is_prepared(self.attempt) else withheld)
            return bool(lost.intersection(proposal.content.reducers))
        if self.leader(self.attempt) in gone:
            return True
        if call is None:
            return False
        return bool(gone.intersection(call.content.reducers) - heard.reports.get(self.attempt, {}).keys())

    def silent_reducers(self, finished: Collection[Account]) -> list[Account]:
        """Of this attempt: who did not report, or has not `finished` its averages."""
        heard = self.messages
        call, proposal = heard.calls.get(self.attempt), heard.sets.get(self.attempt)
        if call is None:
            return []
        spoke = set(heard.reports.get(self.attempt, {}))
        if proposal is not None and proposal.record.proposal == ZERO_HASH:
            spoke.intersection_update(finished)
        return [a for a in call.content.reducers if a not in spoke]


class Rounds:
    """By the certificate that each follows. What was signed in one stays, for as long as it may be followed again."""

    def __init__(self, lineage: Lineage, heard: Heard, kind: type[Round] = Round) -> None:
        self._lineage, self._heard, self._kind = lineage, heard, kind
        self._followed: dict[Hash, Round] = {}  # the one under way last
        self._strange: dict[Hash, Round] = {}  # of branches that were never followed: anybody can make those
        self._open: dict[Hash, Round] = {}  # that may hold proposals
        self._signed: dict[Hash, list[tuple[RoundVote | RoundVoid | RoundCertificate, Hash]]] = {}

    def remember(self, record: RoundVote | RoundVoid | RoundCertificate, identity: Hash) -> None:
        """What this peer signed before a restart, in a round that may not be known yet. `identity` of a certificate."""
        self._signed.setdefault(record.prev_certificate, []).append((record, identity))

    def after(self, prev: Hash) -> Round:
        """`prev` is a certificate that holds."""
        found = self._followed.get(prev) or self._strange.get(prev)
        if found is None:
            found = self._strange[prev] = self._kind(prev, self._lineage, self._heard.hash)
            for record, identity in self._signed.get(prev, ()):
                found.resume(record, identity)
            if len(self._strange) > MAX_STRANGE_ROUNDS:
                self._open.pop(next(iter(self._strange)), None)
                del self._strange[next(iter(self._strange))]
        found.messages = self._heard.round(prev)
        self._open[prev] = found
        return found

    def forget(self, entry: LineageEntry) -> None:
        """What no quorum signed has made room in the lineage; it may stay where it was made or locked on here."""
        found = self._open.get(entry.certificate.prev_certificate)
        if found is None or found.lock == entry.id or any(identity == entry.id for identity, _ in found.prepared):
            return
        found.proposals.pop(entry.id, None)

    def follow(self, prev: Hash, left: Hash) -> Round:
        """The round that is under way from now on; of others than the one `left` no proposals are needed."""
        found = self.after(prev)
        self._strange.pop(prev, None)
        self._signed.pop(
            prev, None
        )  # not before: a strange round may have to make room, and what was signed binds all the same
        self._followed.pop(prev, None)
        self._followed[prev] = found
        if len(self._followed) > MAX_ROUNDS_REMEMBERED:
            del self._followed[next(iter(self._followed))]
        for other in self._open.keys() - {prev, left}:
            self._open.pop(other).forget_proposals()
        return found
