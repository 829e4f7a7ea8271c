"""What was heard of the rounds: messages checked as far as they can be on their own, and kept within bounds.

Nothing here decides or signs. A message that breaks a rule raises `PeerFault`; one that comes before its predecessor
certificate waits. Whoever signs two different things for one subject is *lying*; both are kept (and may be passed on, so
that everyone sees it), a third is refused. Whoever says too much makes room at its own expense only: what waits, and what
is said by who has no vote, lies on the lineage's shelf and is bounded in bytes with the certificates of strangers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from swarm.consensus.lineage import MAX_ELECTORATE, Lineage
from swarm.consensus.shelf import Shelf, kept_bytes
from swarm.errors import PeerFault
from swarm.records.commitments import (
    complete_hash,
    contributors_root,
    draw_order,
    merges_hash,
    parts_root,
    reducers_hash,
)
from swarm.records.notary import Notary
from swarm.records.types import (
    ZERO_HASH,
    Account,
    Average,
    CallContent,
    Content,
    Contribution,
    ContributionContent,
    Hash,
    Record,
    ReducerReport,
    ReportContent,
    RoundBody,
    RoundCall,
    RoundSet,
    RoundVoid,
    RoundVote,
    SetContent,
    Signed,
    SignedCall,
    SignedContribution,
    SignedReport,
    SignedSet,
)

MAX_ROUNDS = 32  # branches whose next round is listened to
MAX_CONTRIBUTORS = 256
MAX_STRANGERS = 256  # who are no voters, and report or average
MAX_IDS = 16  # different ids that one voter may vote for in one attempt, lying
MAX_EARLY = 4096
MAX_EARLY_OF_ONE = 64
MAX_EARLY_CONTRIBUTIONS = 256
MAX_REPORTED = 1024  # contributions of one report

Subject: TypeAlias = tuple[int, int, bytes]  # attempt, kind, rest
AttemptMessage: TypeAlias = RoundCall | ReducerReport | RoundSet | Average | RoundVote | RoundVoid
ROUND_MESSAGES = (Contribution, RoundCall, ReducerReport, RoundSet, Average, RoundVote, RoundVoid)


@dataclass
class RoundMessages:
    """Of the round after one certificate, by attempt."""

    # The first of each counts here.
    contributions: dict[Account, dict[Hash, SignedContribution]] = field(default_factory=dict)
    calls: dict[int, SignedCall] = field(default_factory=dict)
    reports: dict[int, dict[Account, SignedReport]] = field(default_factory=dict)
    sets: dict[int, SignedSet] = field(default_factory=dict)
    averages: dict[int, dict[tuple[int, Account], tuple[int, Signed[Average]]]] = field(default_factory=dict)
    num_averages: int = 0  # that came so far: each has its number, ascending in the tables above
    votes: dict[int, dict[Hash, dict[Account, Signed]]] = field(default_factory=dict)
    voids: dict[int, dict[Account, Signed]] = field(default_factory=dict)
    certificates: dict[int, set[Account]] = field(default_factory=dict)  # who signed one of kind 0
    lying: set[Account] = field(default_factory=set)
    said: dict[Account, dict[Subject, Signed]] = field(default_factory=dict)
    tickets: dict[tuple[Account, Subject | Hash], int] = field(default_factory=dict)  # of what lies on the shelf

    def first(self) -> dict[Account, SignedContribution]:
        """The contribution of each peer that was heard first."""
        return {peer: next(iter(variants.values())) for peer, variants in self.contributions.items()}

    def messages(self) -> Iterator[Signed]:
        for variants in self.contributions.values():
            yield from variants.values()
        for said in self.said.values():
            yield from said.values()

    def drop(self, signed: Signed) -> None:
        """Forget one message."""
        record, who = signed.record, signed.signer
        if isinstance(record, RoundCall) and self.calls.get(record.attempt) == signed:
            del self.calls[record.attempt]
        elif isinstance(record, RoundSet) and self.sets.get(record.attempt) == signed:
            del self.sets[record.attempt]
        elif isinstance(record, ReducerReport):
            self.reports.get(record.attempt, {}).pop(who, None)
        elif isinstance(record, Average):
            self.averages.get(record.attempt, {}).pop((record.part, who), None)
        elif isinstance(record, RoundVote):
            self.votes.get(record.attempt, {}).get(record.id, {}).pop(who, None)
        elif isinstance(record, RoundVoid):
            self.voids.get(record.attempt, {}).pop(who, None)


class Heard:
    """All rounds that may still matter. `lineage` says which certificates hold, hence who votes and who initiates."""

    def __init__(self, notary: Notary, lineage: Lineage, num_parts: int, max_reducers: int) -> None:
        self._notary, self._lineage = notary, lineage
        self._num_parts, self._max_reducers = num_parts, max_reducers
        self._rounds: dict[Hash, RoundMessages] = {}
        self._waiting = Waiting(lineage.shelf)

    def hash(self, record: Record) -> Hash:
        return self._notary.hash(record)

    def round(self, prev: Hash) -> RoundMessages:
        found = self._rounds.get(prev)
        if found is None:
            found = self._rounds[prev] = RoundMessages()
        return found

    def keep_rounds(self, tip: Hash, before: Hash) -> None:
        """Forget rounds that are certified, and the oldest where branches are too many."""
        lineage = self._lineage
        for prev in [p for p in self._rounds if p != before and (not lineage.valid(p) or lineage.is_before(p, tip))]:
            self._forget_round(prev)
        for prev in [p for p in self._rounds if p not in (tip, before)][: max(0, len(self._rounds) - MAX_ROUNDS)]:
            self._forget_round(prev)

    def _forget_round(self, prev: Hash) -> None:
        for ticket in self._rounds.pop(prev).tickets.values():
            self._lineage.shelf.take(ticket)

    def early(self, prev: Hash) -> list[Signed]:
        """What waited for this certificate; it is given once."""
        return self._waiting.take(prev)

    def sizes(self) -> dict[str, int]:
        """How much is kept, for tests of the bounds."""
        said = sum(len(s) for r in self._rounds.values() for s in r.said.values())
        contributions = sum(len(v) for r in self._rounds.values() for v in r.contributions.values())
        return {
            "rounds": len(self._rounds),
            "said": said,
            "contributions": contributions,
            "early": len(self._waiting),
            "strange bytes": self._lineage.shelf.num_bytes,
        }

    # -- taking in ----------------------------------------------------------------------------------------------------
    def take(self, signed: Signed, tip: Hash, sender: Account | None = None) -> None:
        """Any of `ROUND_MESSAGES` whose signature was checked, as `sender` handed it on. Rounds before `tip`'s need no more."""
        record = signed.record
        assert isinstance(record, ROUND_MESSAGES)
        prev = record.prev_certificate
        is_known = self._lineage.valid(prev)
        if is_known and prev != tip and self._lineage.is_before(prev, tip):
            return
        self._check(record, signed)  # before it waits, too: what nobody could use is not kept
        if not is_known:
            self._waiting.put(prev, signed, signed.signer if sender is None else sender)
            return
        if self._lineage.is_last(prev):
            raise PeerFault("a word on a round after the run's last one")
        if record.epoch != self._lineage[prev].certificate.epoch + 1:
            raise PeerFault("a record of another epoch than follows its certificate")
        most = MAX_ROUNDS // 2 if self._lineage.is_strange(prev) else MAX_ROUNDS + 1
        if prev not in self._rounds and len(self._rounds) > most:
            return
        if isinstance(record, Contribution):
            self._contribution(record, signed)
        else:
            self._in_attempt(record, signed)

    def _check(self, record: Contribution | AttemptMessage, signed: Signed) -> None:
        """What needs no other record."""
        content = signed.content
        if isinstance(record, Contribution):
            self._check_contribution(record, signed)
        elif isinstance(record, RoundCall):
            self._check_call(record, content)
        elif isinstance(record, ReducerReport):
            if (
                not isinstance(content, ReportContent)
                or len(content.complete) > MAX_REPORTED
                or complete_hash(content.complete) != record.complete_hash
            ):
                raise PeerFault("report: its list is not what it commits, or too long")
        elif isinstance(record, RoundSet):
            check_set(record, content, self._notary)
            assert isinstance(content, SetContent)
            if len(content.reducers) > self._max_reducers:
                raise PeerFault("set: more reducers than the run has")
            if content.body is not None:
                self.check_body(content.body)
        elif isinstance(record, Average) and record.part >= self._num_parts:
            raise PeerFault("average: of a part that the model does not have")
        elif content is not None:
            raise PeerFault("a record with a content that is not its own")

    def check_body(self, body: RoundBody) -> None:
        """`PeerFault` where a certificate's lists are longer than those of any in this run."""
        if (
            len(body.contributors) > MAX_CONTRIBUTORS
            or len(body.clip_factors) > MAX_CONTRIBUTORS
            or len(body.reducers) > self._max_reducers
            or len(body.averages) > self._num_parts
            or len(body.electorate) > MAX_ELECTORATE
        ):
            raise PeerFault("certificate: a body that is larger than any of this run")

    def _check_contribution(self, record: Contribution, signed: Signed) -> None:
        content = signed.content
        if record.peer != signed.signer:
            raise PeerFault("contribution: not signed by its peer")
        if not isinstance(content, ContributionContent) or len(content.parts) != self._num_parts:
            raise PeerFault("contribution: without the list of its parts, or of another model")
        if parts_root(content.parts) != record.parts_root or merges_hash(content.merges) != record.merges_hash:
            raise PeerFault("contribution: its content is not what it commits")
        if record.units > 0xFFFF:
            raise PeerFault("contribution: more units than anybody can do")
        if record.flags > 0xFFFFFFFF:
            raise PeerFault("contribution: unknown flags")

    def _contribution(self, record: Contribution, signed: Signed) -> None:
        table = self.round(record.prev_certificate)
        variants = table.contributions.get(record.peer, {})
        key = self._notary.hash(record)
        if key in variants:
            return
        if len(variants) >= 2:
            raise PeerFault("contribution: a third one for one epoch")
        voters = self._lineage.electorate(record.prev_certificate)
        if not variants and len(table.contributions) >= MAX_CONTRIBUTORS and record.peer not in voters:
            return
        if variants:
            table.lying.add(record.peer)
        table.contributions.setdefault(record.peer, {})[key] = signed.of(Contribution).holding(ContributionContent)
        if record.peer not in voters or self._lineage.is_strange(record.prev_certificate):
            self._shelve(table, signed, key)

    def _shelve(self, table: RoundMessages, signed: Signed, what: Subject | Hash) -> None:
        """Said by who has no vote, or of a branch that anybody can make: it may have to make room for more of that."""
        who, shelf = signed.signer, self._lineage.shelf

        def forget() -> None:
            table.tickets.pop((who, what), None)
            if isinstance(what, bytes):
                table.contributions.get(who, {}).pop(what, None)
                if not table.contributions.get(who):
                    table.contributions.pop(who, None)
            elif what in table.said.get(who, {}):
                self._drop(table, who, what)

        ticket = shelf.put(who, kept_bytes(signed.content), forget)
        if ticket in shelf:
            table.tickets[who, what] = ticket

    def _drop(self, table: RoundMessages, who: Account, subject: Subject) -> None:
        """One thing that somebody said in an attempt."""
        self._lineage.shelf.take(table.tickets.pop((who, subject), None))
        said = table.said[who]
        table.drop(said.pop(subject))
        if not said:
            del table.said[who]

    def _in_attempt(self, record: AttemptMessage, signed: Signed) -> None:
        prev, attempt, who = record.prev_certificate, record.attempt, signed.signer
        voter = who in self._lineage.electorate(prev)
        if isinstance(record, RoundVote | RoundVoid) and not voter:
            raise PeerFault("vote: not by a voter")
        if isinstance(record, RoundCall | RoundSet) and not self._lineage.may_initiate(prev, attempt, who):
            raise PeerFault("call or set: not by the attempt's initiator")
        rest = b""
        if isinstance(record, Average):
            rest = record.part.to_bytes(4, "big")
        elif isinstance(record, RoundVote):
            rest = record.id
        table = self.round(prev)
        if (
            who not in table.said
            and not voter
            and len(table.said) >= MAX_STRANGERS + len(self._lineage.electorate(prev))
        ):
            return
        subject = (attempt, ROUND_MESSAGES.index(type(record)), rest)
        said = table.said.setdefault(who, {})
        if subject in said:
            if said[subject].record != record:
                self._second(table, said, subject, signed, is_strange=not voter or self._lineage.is_strange(prev))
            return
        if isinstance(record, RoundVote):
            others = [s for s in said if s[:2] == subject[:2]]
            if others:
                table.lying.add(who)  # both count: some may have locked on the one, some on the other
            if len(others) >= MAX_IDS:
                raise PeerFault("vote: too many different ones in one attempt")
        while len(said) >= 512 + 4 * self._num_parts:
            self._drop(table, who, min(said))
        said[subject] = signed
        self._index(table, record, signed)
        if not voter or self._lineage.is_strange(prev):
            self._shelve(table, signed, subject)

    def _second(
        self, table: RoundMessages, said: dict[Subject, Signed], subject: Subject, signed: Signed, is_strange: bool
    ) -> None:
        attempt, kind, rest = subject
        shadow = (attempt, kind, rest + b" again")
        if shadow in said and said[shadow].record != signed.record:
            raise PeerFault("a third, different record for one subject")
        table.lying.add(signed.signer)
        if shadow not in said:
            said[shadow] = signed
            if is_strange:
                self._shelve(table, signed, shadow)

    def _index(self, table: RoundMessages, record: AttemptMessage, signed: Signed) -> None:
        who = signed.signer
        if isinstance(record, RoundCall):
            table.calls.setdefault(record.attempt, signed.of(RoundCall).holding(CallContent))
        elif isinstance(record, RoundSet):
            table.sets.setdefault(record.attempt, signed.of(RoundSet).holding(SetContent))
        elif isinstance(record, ReducerReport):
            table.reports.setdefault(record.attempt, {})[who] = signed.of(ReducerReport).holding(ReportContent)
        elif isinstance(record, Average):
            table.num_averages += 1
            found = table.averages.setdefault(record.attempt, {})
            found[record.part, who] = (table.num_averages, signed.of(Average))
        elif isinstance(record, RoundVote):
            table.votes.setdefault(record.attempt, {}).setdefault(record.id, {})[who] = signed
        elif isinstance(record, RoundVoid):
            table.voids.setdefault(record.attempt, {})[who] = signed
        else:
            assert_never(record)

    def _check_call(self, record: RoundCall, content: Content) -> None:
        if not isinstance(content, CallContent) or reducers_hash(content.reducers) != record.reducers_hash:
            raise PeerFault("call: its reducers are not what it commits")
        ranked = draw_order(record.prev_certificate, record.epoch, record.attempt, content.reducers)
        if not content.reducers or ranked != content.reducers or len(content.reducers) > self._max_reducers:
            raise PeerFault("call: reducers out of rank order, none or too many")


class Waiting:
    """What came before its predecessor, by that."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._by_prev: dict[Hash, dict[int, Signed]] = {}
        self._of: dict[Account, dict[int, Hash]] = {}  # by signer: ticket → predecessor
        self._tickets: dict[int, tuple[Account, Hash]] = {}  # oldest first
        self._num_contributions = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def put(self, prev: Hash, signed: Signed, sender: Account) -> None:
        """No fault: who catches up hears much before its predecessor."""
        own = self._of.get(signed.signer, {})
        if len(own) >= MAX_EARLY_OF_ONE:
            self._forget(next(iter(own)))
        is_contribution = isinstance(signed.record, Contribution)
        if is_contribution and self._num_contributions >= MAX_EARLY_CONTRIBUTIONS:
            return
        if len(self._tickets) >= MAX_EARLY:
            self._forget(next(iter(self._tickets)))
        tickets: list[int] = []
        ticket = self._shelf.put(sender, kept_bytes(signed.content), lambda: self._forget(*tickets))
        if ticket not in self._shelf:
            return
        tickets.append(ticket)
        self._by_prev.setdefault(prev, {})[ticket] = signed
        self._of.setdefault(signed.signer, {})[ticket] = prev
        self._tickets[ticket] = (signed.signer, prev)
        self._num_contributions += is_contribution

    def take(self, prev: Hash) -> list[Signed]:
        """What waits for it; given once."""
        waited = self._by_prev.get(prev, {})
        found = list(waited.values())
        for ticket in list(waited):
            self._forget(ticket)
        return found

    def _forget(self, *tickets: int) -> None:
        for ticket in tickets:
            signer, prev = self._tickets.pop(ticket)
            signed = self._by_prev[prev].pop(ticket)
            if not self._by_prev[prev]:
                del self._by_prev[prev]
            del self._of[signer][ticket]
            if not self._of[signer]:
                del self._of[signer]
            self._num_contributions -= isinstance(signed.record, Contribution)
            self._shelf.take(ticket)


def check_set(record: RoundSet, content: Content, notary: Notary) -> None:
    """`PeerFault` where a set's content is not what it commits."""
    if not isinstance(content, SetContent):
        raise PeerFault("set: without its list")
    if (
        len(content.contributors) > MAX_CONTRIBUTORS
        or len(content.contributors) != record.num_contributors
        or contributors_root(content.contributors) != record.contributors_root
        or reducers_hash(content.reducers) != record.reducers_hash
        or bool(content.contributors) != bool(content.reducers)
    ):
        raise PeerFault("set: its list is not what it commits")
    again = content.certificate is not None and content.body is not None
    if again != (record.proposal != ZERO_HASH):
        raise PeerFault("set: a certificate proposed again comes with its body, a new set without")
    if content.certificate is None or content.body is None:
        return
    if notary.certificate_id(content.certificate) != record.proposal:
        raise PeerFault("set: the certificate is not the one proposed")
    if content.body.contributors != content.contributors or content.body.reducers != content.reducers:
        raise PeerFault("set: its list is not that of the certificate proposed again")
