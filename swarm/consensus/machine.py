"""The round, its votes and locks, seating and fork choice as one state machine: messages, inputs and time-outs in, actions out.

No clock, no stream, no tensor: the driver owns those. `RoundMachine` routes: `Heard` and `Lineage` take in what others say, `Roster`
knows who is there, `Calls`, `Sets` and `Votes` act on the `Round` under way, `Seating` where there is none, `Voice` signs and speaks.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from swarm.consensus.actions import Action, Adopt, CertifiedEntry, Scatter, Send, Timer
from swarm.consensus.calls import Calls
from swarm.consensus.heard import ROUND_MESSAGES, Heard
from swarm.consensus.lineage import Lineage, LineageEntry
from swarm.consensus.rechecks import Rechecks
from swarm.consensus.roster import Roster
from swarm.consensus.round import Phase, Proposal, Round, Rounds
from swarm.consensus.rules import RunRules
from swarm.consensus.seating import STALLS_BEFORE_FEWER, Seating
from swarm.consensus.sets import Sets
from swarm.consensus.voice import Voice
from swarm.consensus.votes import Votes
from swarm.errors import PeerFault
from swarm.records.notary import Notary
from swarm.records.types import (
    KIND_ROUND,
    ZERO_HASH,
    Account,
    Average,
    ContributionReceipt,
    Hash,
    Progress,
    Record,
    RoundBody,
    RoundCertificate,
    RoundVoid,
    RoundVote,
    Signed,
    SignedSet,
    StorageReceipt,
)
from swarm.records.wire import unpack_content

__all__ = ["STALLS_BEFORE_FEWER", "Parts", "Phase", "RoundMachine", "RunRules"]


@dataclass(frozen=True)
class Parts:
    """What a machine is made of; a test of what a rule is good for puts one in that lacks it."""

    lineage: type[Lineage] = Lineage
    voice: type[Voice] = Voice
    round: type[Round] = Round
    rechecks: type[Rechecks] = Rechecks
    sets: type[Sets] = Sets
    seating: type[Seating] = Seating


class RoundMachine:
    """One peer's part. Every method returns the actions that follow; none raises for what others send.

    `reduces`: it has a listening address; `votes`: it wants a seat (a seed does not)."""

    def __init__(
        self, notary: Notary, rules: RunRules, reduces: bool = True, votes: bool = True, parts: Parts | None = None
    ) -> None:
        parts = parts or Parts()
        self.notary, self.rules, self.account = notary, rules, notary.account
        self.lineage = parts.lineage(
            rules.run_id,
            rules.initial_root,
            rules.founders,
            max_units=rules.max_units,
            total_units=rules.total_units,
        )
        self.heard = Heard(notary, self.lineage, rules.num_parts, rules.max_reducers)
        self.tip: Hash = ZERO_HASH
        self._voice = parts.voice(notary)
        self._roster = Roster(notary.account, reduces, votes)
        self._rounds = Rounds(self.lineage, self.heard, parts.round)
        self._votes = Votes(rules, self._voice, self._roster)
        self._calls = Calls(rules, self._voice, self._roster, self._votes)
        self._rechecks = parts.rechecks(rules, self._voice, self._roster)
        self._sets = parts.sets(rules, self._voice, self.lineage, self._votes, self._rechecks)
        self._seating = parts.seating(rules, self._voice, self._roster, self.lineage)
        self._restoring = False
        self._kept: dict[Hash, list[Signed]] = {}  # own words from before a restart, until their predecessor is known
        self._rounds.follow(ZERO_HASH, ZERO_HASH)
        self._familiar: set[Account] = set(self.voters())  # who votes, or has contributed of late
        self.lineage.forgotten = self._rounds.forget

    # -- what it knows ------------------------------------------------------------------------------------------------
    @property
    def round(self) -> Round:
        """The one under way."""
        return self._rounds.after(self.tip)

    @property
    def epoch(self) -> int:
        """Of the round under way."""
        return self.lineage[self.tip].certificate.epoch + 1

    @property
    def attempt(self) -> int:
        return self.round.attempt

    @property
    def clock(self) -> int:
        """Of the run: the weights of all that was certified."""
        return self.lineage[self.tip].clock

    @property
    def root(self) -> Hash:
        """Of the newest state that is certified."""
        return self.lineage[self.tip].certificate.next_root

    @property
    def units_left(self) -> int:
        """Until the run ends, on its clock."""
        return self.lineage.units_left(self.tip)

    @property
    def has_ended(self) -> bool:
        """The run, on the branch that this peer follows: no round is under way and none follows, no seating either."""
        return self.lineage.is_last(self.tip)

    @property
    def reduces(self) -> bool:
        return self._roster.reduces

    @reduces.setter
    def reduces(self, reduces: bool) -> None:
        self._roster.reduces = reduces

    @property
    def votes(self) -> bool:
        return self._roster.votes

    @votes.setter
    def votes(self, votes: bool) -> None:
        self._roster.votes = votes

    def voters(self) -> tuple[Account, ...]:
        return self.lineage.electorate(self.tip)

    def leader(self, attempt: int) -> Account:
        return self.lineage.initiator(self.tip, attempt)

    def body(self, identity: Hash) -> RoundBody | None:
        entry = self.lineage.entries.get(identity)
        return None if entry is None else entry.body

    def certified_body(self, identity: Hash) -> RoundBody | None:
        """Of a certificate that a quorum has signed, on any branch."""
        return self.lineage[identity].body if self.lineage.valid(identity) else None

    def proposed_after(self, prev: Hash) -> Mapping[Hash, Proposal]:
        """What might be certified next after `prev`, by id, as far as it is known here."""
        return self._rounds.after(prev).proposals if self.lineage.valid(prev) else {}

    def was_whole(self, attempt: int) -> dict[Account, tuple[Account, ...]]:
        """As `Calls.was_whole`, of the round under way."""
        return self._calls.was_whole(self.round, attempt)

    def is_passed_over(self, account: Account) -> bool:
        """Whether others are drawn as reducers before it: it was silent of late."""
        return self._roster.is_passed_over(account, self.epoch)

    def current_messages(self) -> list[Signed]:
        """What was heard and said of the round under way, for a peer that links up in the middle of it, and all signatures
        that weigh in the choice between branches."""
        signatures = [signed for entry in self.lineage.contested(self.tip) for signed in entry.messages()]
        return list(self.round.messages.messages()) + signatures

    def certificates_since(self, epoch: int) -> list[Signed]:
        """Those of the own lineage after `epoch`, oldest first, as their quorum signed them."""
        found: list[list[Signed]] = []
        for identity in self.lineage.ancestors(self.tip):
            entry = self.lineage[identity]
            if entry.certificate.epoch <= epoch:
                break
            found.append([s for s in entry.messages() if s.record.attempt == entry.attempt])
        return [signed for messages in reversed(found) for signed in messages]

    def convict(self, accounts: Iterable[Account]) -> None:
        """Before the start: whom this peer has shown to average wrongly in an earlier one."""
        for account in accounts:
            self._roster.convict(account)

    # -- inputs -------------------------------------------------------------------------------------------------------
    def restore(self, backlog: Sequence[Signed], kept: Sequence[tuple[Record, bytes]] = ()) -> list[Action]:
        """After a start: certificates and other messages from disk, then what this key has signed (record, kept content).

        What binds this key in a round that is not known yet (the journal may be all that is left) binds it when it is."""
        own: list[tuple[Hash, Signed]] = []
        for record, keep in kept:
            if isinstance(record, RoundVote | RoundVoid | RoundCertificate):
                identity = self.notary.certificate_id(record) if isinstance(record, RoundCertificate) else ZERO_HASH
                self._rounds.remember(record, identity)
            if not isinstance(record, ContributionReceipt | StorageReceipt | Progress):
                content = unpack_content(keep) if keep else None
                said = Signed(record, self.account, self.notary.sign(record, keep), content)
                own.append((record.prev_certificate, said))
        self._restoring = True  # what is on disk was followed before
        for signed in backlog:
            self._hear(signed)
        self._restoring = False
        for prev, word in own:
            if self.lineage.valid(prev):
                self._hear(word)
            else:
                self._kept.setdefault(prev, []).append(word)
        self._follow()
        self._seating.begin_waiting(self.tip)
        return self._go_on()

    def ready(
        self, peers: Mapping[Account, int], unreached: Collection[Account] = (), linked: Collection[Account] = ()
    ) -> list[Action]:
        """Accounts seen alive and training on this peer's anchor now, with their flags (this peer not among them). `unreached`:
        who says that it reduces, and does not answer when it is dialled; `linked`: all that have a link, those that are behind
        too."""
        changed = self._roster.look(peers, unreached, linked)
        if self.tip == ZERO_HASH and self.account in self.rules.founders:
            self._seating.seat_first()
        elif not changed:
            return self._voice.actions()
        return self._go_on()

    def due(self) -> list[Action]:
        """The epoch's work is done, or its deadline has passed."""
        r = self.round
        if self.account in r.voters and self.tip != ZERO_HASH and not r.due:
            r.due = True
            self._votes.begin_waiting(r)
        return self._go_on()

    def receive(self, signed: Signed, sender: Account | None = None) -> list[Action]:
        """A message whose signature was checked, as `sender` handed it on."""
        self._hear(signed, sender)
        return self._go_on()

    def may_pass_on(self, signed: Signed) -> bool:
        """Whether others need what was taken in: not what no trusted voter stands behind and anybody can make without end."""
        record = signed.record
        if signed.signer in self._familiar or self._seating.stalls > STALLS_BEFORE_FEWER:
            return True
        if isinstance(record, RoundCertificate):
            identity = self.notary.certificate_id(record)
            entry = self.lineage.entries.get(identity)
            return self.lineage.is_known(identity) or (entry is not None and entry.is_vouched)
        if isinstance(record, ROUND_MESSAGES):
            return self.lineage.is_known(record.prev_certificate)
        return False

    def contributed(self, signed: Signed) -> list[Action]:
        """The own contribution, signed by the driver."""
        self._voice.ask(Send(signed))
        self._hear(signed)
        self._advance()
        call = self.round.call_of_interest(self.account in self.voters())
        if call is not None:
            self._voice.ask(Scatter(call))
        return self._go_on()

    def report(self, complete: frozenset[Hash]) -> list[Action]:
        """As reducer: contributions all of whose parts for this peer are here."""
        self.round.complete = complete
        return self._go_on()

    def averaged(self, proposal: SignedSet, part: int, length: int, digest: Hash) -> list[Action]:
        """As reducer: the average of `part`, of the own ones or of some of others, over the proposed set is encoded."""
        record = proposal.record
        if record.prev_certificate == self.tip:
            over = self.round.findings(proposal).round_set
            run, epoch, attempt = self.rules.run_id, record.epoch, record.attempt
            self._voice.say(Average(run, epoch, attempt, self.tip, over, part, length, digest))
        return self._go_on()

    def redone(self, proposal: SignedSet, part: int, length: int, digest: Hash) -> list[Action]:
        """The average of a part in dispute, as this peer has found it itself."""
        if proposal.record.prev_certificate == self.tip:
            self._rechecks.redone(self.round, proposal, part, length, digest)
        return self._go_on()

    def broken(self, proposal: SignedSet, parts: Sequence[int]) -> list[Action]:
        """The averages of these parts are longer than any average of the set's contributions, or are not of the run's codec."""
        if proposal.record.prev_certificate == self.tip:
            self._rechecks.broken(self.round, proposal, parts)
        return self._go_on()

    def withheld(self, proposal: SignedSet, reducer: Account) -> list[Action]:
        """A reducer of a set hands out nothing of what it says that it has averaged, and nobody else has it."""
        record, r = proposal.record, self.round
        if record.prev_certificate == self.tip and reducer != self.account:
            r.withheld.add((record.attempt, reducer))
            r.silent.add(reducer)
            self._roster.pass_over([reducer], r.epoch)
        return self._go_on()

    def prepared(
        self,
        proposal: SignedSet,
        averages: tuple[Hash, ...],
        factors: tuple[float, ...],
        median: float,
        next_root: Hash,
        units: int,
    ) -> tuple[list[Action], Hash]:
        """All averages of a set are here and the outer step is taken; also the id of the certificate that follows."""
        r = self._rounds.after(proposal.record.prev_certificate)
        identity = self._sets.prepared(r, proposal, averages, factors, median, next_root, units)
        return self._go_on(), identity

    def timeout(self, timer: Timer) -> list[Action]:
        """A timer that was set has run out."""
        r = self.round
        if timer.prev_certificate != self.tip or self.has_ended:
            return self._voice.actions()
        if timer.name == "stall":
            self._seating.stall(self.tip)
            self._take_own_words()
            self._follow()
        elif timer.attempt == r.attempt and timer.name == "report":
            call = r.call_of_interest(self.account in r.voters)
            if call is not None:
                self._calls.report(r, call, at_deadline=True)
        elif timer.attempt == r.attempt and timer.name == "step" and self.account in r.voters:
            self._votes.time_out(r)
        return self._go_on()

    # -- routing ------------------------------------------------------------------------------------------------------
    def _go_on(self) -> list[Action]:
        """Take in what this peer has said itself and do what the messages heard so far allow, until that changes nothing."""
        stood = None
        while self._take_own_words() or stood != self._stands():
            stood = self._stands()
            self._advance()
        return self._voice.actions()

    def _stands(self) -> tuple[Hash, int, Phase]:
        r = self.round
        return self.tip, r.attempt, r.phase

    def _take_own_words(self) -> bool:
        took = False
        while (own := self._voice.own_word()) is not None:
            self._hear(own)
            took = True
        return took

    def _hear(self, signed: Signed, sender: Account | None = None) -> None:
        self._roster.heard_of(signed.signer)
        record = signed.record
        try:
            if record.run_id != self.rules.run_id:
                raise PeerFault("a record of another run")
            if isinstance(record, RoundCertificate):
                self._take_certificate(record, signed, sender)
            elif isinstance(record, ROUND_MESSAGES):
                self.heard.take(signed, self.tip, sender)
        except (PeerFault, ValueError) as error:
            self._voice.blame(signed.signer, str(error))

    def _take_certificate(self, record: RoundCertificate, signed: Signed, sender: Account | None) -> None:
        identity = self.notary.certificate_id(record)
        content = signed.content
        known = self.lineage.entries.get(identity)
        if known is not None:
            content = known.body
        elif not isinstance(content, RoundBody):
            raise PeerFault("certificate: without its body")
        else:
            self.heard.check_body(content)
        new = self.lineage.add(identity, record, content, signed.signer, signed.signature, sender)
        entry = self.lineage.entries.get(identity)
        if entry is None:
            return  # it had to make room at once
        prev = record.prev_certificate
        is_open = self.lineage.valid(prev) and not self.lineage.is_before(prev, self.tip)
        if record.kind == KIND_ROUND and is_open and not self.lineage.is_strange(prev):
            self._rounds.after(prev).take_certificate(entry)
        for held in new:
            self._take_what_waited(held, held == identity, sender)
        if new and self.lineage.is_before(prev, self.tip) and not self._restoring:
            self._say_fork(new, signed)
        is_branch = self.lineage.valid(identity) and not self._is_own(identity)
        if new or is_branch:  # one more signer adds weight to it
            self._follow()
        elif prev == self.tip and signed.signer != self.account and (prev == ZERO_HASH or self._seating.stalls):
            self._seating.join(entry, self.tip)

    def _take_what_waited(self, held: Hash, is_last: bool, sender: Account | None) -> None:
        """For a certificate that holds now. Who was not known before it was not passed on (`may_pass_on`), and is now."""
        for word in self._kept.pop(held, []):
            self._hear(word)
        early = self.heard.early(held)
        for waited in early:
            self._hear(waited, sender)
        if self._restoring or not self.lineage.is_known(held):
            return
        entries = [] if is_last else [self.lineage[held]]
        entries += [e for e in self.lineage.undecided_after(held) if e.ticket is None]
        late = early + [said for entry in entries for said in entry.messages()]
        self._voice.ask(*(Send(said, again=True) for said in late if said.signer not in self._familiar))

    def _say_fork(self, new: Sequence[Hash], last: Signed) -> None:
        """A branch off the own path came to hold by `last`. What was signed in it before was not handed to those who linked up
        since (`Lineage.contested`); they have to weigh it too. Not what strangers alone have signed."""
        known = [held for held in new if self.lineage.is_known(held)]
        entries = [e for held in known for e in (self.lineage[held], *self.lineage.undecided_after(held))]
        self._voice.ask(*(Send(said, again=True) for e in entries for said in e.messages() if said != last))

    def _is_own(self, identity: Hash) -> bool:
        return identity == self.tip or self.lineage.is_before(identity, self.tip)

    def _may_follow(self, entry: LineageEntry) -> bool:
        return self._restoring or self._seating.may_follow(entry, self.tip)

    def _follow(self) -> None:
        """Go over to the branch that fork choice takes, if it is another one."""
        old, new = self.tip, self.lineage.choose(self.tip, self._may_follow)
        if new == old:
            return
        undone, taken = self.lineage.steps(old, new)
        contributed = self.heard.round(self.lineage[new].certificate.prev_certificate).contributions
        self.tip = new
        r = self._rounds.follow(new, old)
        for entry in self.lineage.after(new):
            r.take_certificate(entry)
        self._familiar = {*self.voters(), *self.lineage[new].trust.voters, *self.lineage.recent(new)}
        r.omitted = contributed.keys() - {leaf.peer for leaf in self.lineage[new].body.contributors}
        self._voice.ask(Adopt(tuple(self._entry(identity) for identity in taken), tuple(undone)))
        self.heard.keep_rounds(new, old)
        self._seating.moved(new)
        if r.due:  # before a restart, or before another branch was followed: its time-outs passed unheard
            self._votes.begin_waiting(r)

    def _entry(self, identity: Hash) -> CertifiedEntry:
        entry = self.lineage[identity]
        attempt = entry.attempt or 0
        signatures = tuple(sorted(entry.signatures.get(attempt, {}).items()))
        return CertifiedEntry(identity, replace(entry.certificate, attempt=attempt), entry.body, signatures)

    def _advance(self) -> None:
        """One pass over the round under way."""
        if self.tip == ZERO_HASH or self.has_ended:
            return
        r = self.round
        is_voter = self.account in r.voters
        if is_voter and r.due:
            self._calls.call(r)
        call = r.call_of_interest(is_voter)
        if call is not None:
            self._calls.act_on(r, call)
            self._calls.report(r, call, at_deadline=False)
        if is_voter:
            self._sets.propose(r)
        proposal = r.set_of_interest(is_voter)
        if proposal is not None:
            self._sets.act_on(r, proposal)
        if is_voter:
            self._votes.certify(r)
            self._votes.hurry(r)
