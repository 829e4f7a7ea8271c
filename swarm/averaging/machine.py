"""The round, its votes and locks, seating and fork choice as one state machine: messages, inputs and time-outs in, actions out.

No clock, no stream, no tensor: the driver owns those. Signing journals before it returns (`swarm.notary`), so whatever
leaves here is bound. An attempt has three steps: 0 nothing voted, 1 voted, 2 certified or voided (PROTOCOL §3.6–7).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from swarm.averaging.commitments import (
    body_hash,
    complete_hash,
    contributors_root,
    draw_order,
    electorate_hash,
    quorum,
    reducers_hash,
)
from swarm.averaging.heard import ROUND_MESSAGES, Heard
from swarm.averaging.lineage import MAX_ELECTORATE, Entry, Lineage
from swarm.averaging.messages import (
    Action,
    Adopt,
    Blame,
    CertifiedEntry,
    Collect,
    FetchAverages,
    MakeContribution,
    ReduceSet,
    Scatter,
    Send,
    SetTimer,
    Timer,
)
from swarm.averaging.records import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_ROUND,
    KIND_SEATING,
    NO_ATTEMPT,
    ZERO_HASH,
    Account,
    Average,
    CallContent,
    Content,
    Contribution,
    ContributionReceipt,
    ContributorLeaf,
    Hash,
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
)
from swarm.averaging.wire import pack_content, unpack_content
from swarm.config import RunConfig
from swarm.errors import Equivocation, PeerFault
from swarm.notary import Notary

STALLS_BEFORE_FEWER = 10
GONE_SECONDS = 1.0  # a peer that was seen and is no more gets that long to come back before an attempt is given up
MAX_ROUNDS_REMEMBERED = 4096  # with their locks: a branch may become the followed one again
MAX_JOINED = 3  # attempts at which one seating of others is signed


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


@dataclass
class _Round:
    """Where this peer stands in the round after a certificate."""

    epoch: int
    attempt: int = 0
    step: int = 0
    lock: Hash | None = None
    lock_attempt: int = -1
    due: bool = False
    call_done: int = -1  # attempts whose call was acted on
    report_done: int = -1
    set_done: int = -1
    fetch_done: int = -1
    hurried: int = -1
    complete: frozenset[Hash] = frozenset()


class RoundMachine:
    """One peer's part. Every method returns the actions that follow; none raises for what others send."""

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
        self._first_seating = 0
        self._ready: dict[Account, int] = {}
        self._gone: set[Account] = set()  # were ready, and are no more
        self._silent: dict[Hash, set[Account]] = {}
        self._rounds: dict[Hash, _Round] = {}
        self._signed: dict[Hash, list[RoundVote | RoundVoid | RoundCertificate]] = {}  # before a restart
        self._kept: dict[Hash, list[Signed]] = {}  # the same and all else, while its predecessor is unknown
        self._reduced: set[bytes] = set()  # signatures of sets that the driver was asked to average
        self._prepared: set[tuple[Hash, int]] = set()
        self._omitted: set[Account] = set()
        self._out: list[Action] = []

    # -- what is known ------------------------------------------------------------------------------------------------
    @property
    def epoch(self) -> int:
        """Of the round under way."""
        return self.lineage[self.tip].certificate.epoch + 1

    @property
    def attempt(self) -> int:
        return self._round().attempt

    def voters(self) -> tuple[Account, ...]:
        return self.lineage.electorate(self.tip)

    def body(self, identity: Hash) -> RoundBody | None:
        entry = self.lineage.entries.get(identity)
        return None if entry is None else entry.body

    def certified_body(self, identity: Hash) -> RoundBody | None:
        """Of a certificate that a quorum has signed, on any branch."""
        return self.lineage[identity].body if self.lineage.valid(identity) else None

    def leader(self, attempt: int) -> Account:
        return self.lineage.initiator(self.tip, attempt)

    def current_messages(self) -> list[Signed]:
        """What was heard and said of the round under way, for a peer that links up in the middle of it, and all signatures
        that weigh in the choice between branches."""
        return list(self.heard.round(self.tip).messages()) + [
            Signed(replace(entry.certificate, attempt=attempt), who, signature, entry.body)
            for entry in self.lineage.contested(self.tip)
            for attempt, signed in entry.signatures.items()
            for who, signature in signed.items()
        ]

    def _round(self) -> _Round:
        found = self._rounds.get(self.tip)
        if found is None:
            found = self._rounds[self.tip] = _Round(self.epoch)
            for old in list(self._rounds)[:-MAX_ROUNDS_REMEMBERED]:
                del self._rounds[old]
            for record in self._signed.pop(self.tip, ()):
                self._resume(found, record)
        return found

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

    # -- inputs -------------------------------------------------------------------------------------------------------
    def restore(self, backlog: Sequence[Signed], kept: Sequence[tuple[Record, bytes]] = ()) -> list[Action]:
        """After a start: certificates and other messages from disk, then what this key has signed (record, kept content).

        What binds this key in a round that is not known yet (the journal may be all that is left) binds it when it is."""
        own: list[Signed] = []
        for record, keep in kept:
            if isinstance(record, RoundVote | RoundVoid | RoundCertificate):
                self._signed.setdefault(record.prev_certificate, []).append(record)
            if not isinstance(record, ContributionReceipt | Progress):
                content = unpack_content(keep) if keep else None
                own.append(Signed(record, self.account, self.notary.sign(record, keep), content))
        self._restoring = True  # what is on disk was followed before
        for signed in backlog:
            self._receive(signed)
        self._restoring = False
        for signed in own:
            prev = signed.record.prev_certificate  # type: ignore[union-attr]
            if self.lineage.valid(prev):
                self._receive(signed)
            else:
                self._kept.setdefault(prev, []).append(signed)
        self._follow()
        self._set_stall_timer()
        r = self._round()
        if r.due:
            self._step_timer(r)
        return self._done()

    def _resume(self, r: _Round, record: RoundVote | RoundVoid | RoundCertificate) -> None:
        if isinstance(record, RoundCertificate) and record.kind == KIND_SEATING:
            return
        step = 1 if isinstance(record, RoundVote) else 2
        if (record.attempt, step) >= (r.attempt, r.step):
            r.attempt, r.step, r.due = record.attempt, step, True
        if isinstance(record, RoundCertificate) and record.attempt >= r.lock_attempt:
            r.lock, r.lock_attempt = self.notary.certificate_id(record), record.attempt

    def ready(self, peers: Mapping[Account, int]) -> list[Action]:
        """Accounts seen alive and training on this peer's anchor now, with their flags (this peer not among them)."""
        self._gone = (self._gone | self._ready.keys()) - peers.keys()
        while len(self._gone) > 256:
            self._gone.pop()
        changed = peers != self._ready
        self._ready = dict(peers)
        if self.tip == ZERO_HASH and self.account in self.rules.founders:
            self._seat_first()
        elif changed:
            self._progress()
        return self._done()

    def due(self) -> list[Action]:
        """The epoch's work is done, or its deadline has passed."""
        r = self._round()
        if self.account in self.voters() and self.tip != ZERO_HASH and not r.due:
            r.due = True
            self._step_timer(r)
            self._progress()
        return self._done()

    def receive(self, signed: Signed) -> list[Action]:
        """A message whose signature was checked."""
        self._receive(signed)
        return self._done()

    def contributed(self, signed: Signed) -> list[Action]:
        """The own contribution, signed by the driver."""
        self._out.append(Send(signed))
        self._receive(signed)
        call = self._current_call(self._round(), self.account in self.voters())
        if call is not None:
            self._out.append(Scatter(call))
        return self._done()

    def report(self, complete: frozenset[Hash]) -> list[Action]:
        """As reducer: contributions all of whose parts for this peer are here."""
        r = self._round()
        r.complete = complete
        self._try_report(r, False)
        self._progress()
        return self._done()

    def averaged(self, proposal: Signed, part: int, length: int, digest: Hash) -> list[Action]:
        """As reducer: the own average of `part` over the proposed set is encoded."""
        record = proposal.record
        assert isinstance(record, RoundSet)
        if record.prev_certificate == self.tip:
            self._say(Average(self.rules.run_id, record.epoch, record.attempt, self.tip, part, length, digest))
        self._progress()
        return self._done()

    def prepared(
        self,
        proposal: Signed,
        averages: tuple[Hash, ...],
        factors: tuple[float, ...],
        median: float,
        next_root: Hash,
        units: int,
    ) -> tuple[list[Action], Hash]:
        """All averages of a set are here and the outer step is taken; also the id of the certificate that follows."""
        record, content = proposal.record, proposal.content
        assert isinstance(record, RoundSet) and isinstance(content, SetContent)
        if content.certificate is not None and content.body is not None:
            reducers = content.body.reducers
        else:
            reducers = content.reducers
        certificate, body = self._compose(
            record.prev_certificate, content.contributors, reducers, averages, factors, median, next_root, units
        )
        identity = self.notary.certificate_id(certificate)
        self.proposals[identity] = (certificate, body)
        self._prepared.add((identity, record.attempt))
        self._progress()
        return self._done(), identity

    def timeout(self, timer: Timer) -> list[Action]:
        """A timer that was set has run out."""
        if timer.name == "stall":
            if timer.prev_certificate == self.tip:
                self._stall()
            return self._done()
        r = self._round()
        if timer.prev_certificate != self.tip or timer.attempt != r.attempt:
            return self._done()
        if timer.name == "report":
            self._try_report(r, True)
            self._progress()
        elif timer.name == "step":
            self._time_out(r)
        return self._done()

    # -- taking messages in -------------------------------------------------------------------------------------------
    def _receive(self, signed: Signed) -> None:
        self._gone.discard(signed.signer)
        try:
            self._take(signed)
        except (PeerFault, ValueError) as error:
            self._blame(signed.signer, str(error))
            return
        self._progress()

    def _take(self, signed: Signed) -> None:
        record = signed.record
        if record.run_id != self.rules.run_id:
            raise PeerFault("a record of another run")
        if isinstance(record, RoundCertificate):
            self._take_certificate(record, signed)
        elif isinstance(record, ROUND_MESSAGES):
            self.heard.take(signed, self.tip)

    def _take_certificate(self, record: RoundCertificate, signed: Signed) -> None:
        identity = self.notary.certificate_id(record)
        content = signed.content
        known = self.lineage.entries.get(identity)
        if known is not None:
            content = known.body
        elif not isinstance(content, RoundBody):
            raise PeerFault("certificate: without its body")
        new = self.lineage.add(identity, record, content, signed.signer, signed.signature)
        prev = record.prev_certificate
        if record.kind == KIND_ROUND and self.lineage.valid(prev) and not self.lineage.is_before(prev, self.tip):
            self.heard.round(prev).certificates.setdefault(record.attempt, set()).add(signed.signer)
            self.proposals.setdefault(identity, (record.without_attempt(), content))
        for held in new:
            for waited in self._kept.pop(held, []) + self.heard.early(held):
                self._receive(waited)
        if new:
            self._follow()
        elif prev == self.tip and signed.signer != self.account and (prev == ZERO_HASH or self.stalled):
            self._join_seating(self.lineage[identity])

    # -- sets ---------------------------------------------------------------------------------------------------------
    def _set_fits(self, content: SetContent, attempt: int) -> bool:
        """Quorum of the electorate, or empty from `max_attempts` on; known contributions; nobody left out twice."""
        if not content.contributors:
            return attempt >= self.rules.max_attempts
        if len(content.reducers) > self.rules.max_reducers:
            return False
        heard = self.heard.round(self.tip)
        for leaf in content.contributors:
            signed = heard.contributions.get(leaf.peer, {}).get(leaf.contribution)
            if signed is None:
                return False
            record = signed.record
            assert isinstance(record, Contribution)
            if (leaf.units, leaf.flags) != (self._units(record), record.flags):
                return False
        inside = {leaf.peer for leaf in content.contributors}
        return self._set_has_quorum(inside) and not self._omits(inside, content.reducers, attempt)

    def _has_quorum(self, accounts: Iterable[Account]) -> bool:
        voters = set(self.voters())
        return len(voters.intersection(accounts)) >= quorum(len(voters))

    def _set_has_quorum(self, inside: set[Account]) -> bool:
        """So that one round never takes the majority away from those who decide now."""
        return self._has_quorum(inside)

    def _omits(self, inside: set[Account], reducers: tuple[Account, ...], attempt: int) -> bool:
        """Whether somebody was left out again without a reason. Two reducers' word is one; from the last attempt but one
        one's is enough: parts are spread, so only one reducer may lack them."""
        heard = self.heard.round(self.tip)
        reports = heard.reports.get(attempt, {})
        wanted = 2 if attempt < self.rules.max_attempts - 1 else 1
        for peer in self._omitted & heard.contributions.keys() - inside - heard.lying:
            (key,) = heard.contributions[peer]
            others = [a for a in reducers if a != peer]  # nobody attests for itself
            lacking = [a for a in others if a in reports and key not in reports[a].content.complete]  # type: ignore[union-attr]
            if len(lacking) < min(wanted, len(others)):
                return True
        return False

    def _units(self, record: Contribution) -> int:
        return min(record.units, self.rules.max_units)

    def _next_electorate(self, leaves: Sequence[ContributorLeaf], prev: Hash) -> tuple[Account, ...]:
        able = [leaf.peer for leaf in leaves if leaf.flags & FLAG_VOTES]
        if not able:
            return self.lineage.electorate(prev)
        epoch = self.lineage[prev].certificate.epoch + 1
        return tuple(sorted(draw_order(prev, epoch, 0, able)[:MAX_ELECTORATE]))

    def _compose(
        self,
        prev: Hash,
        leaves: tuple[ContributorLeaf, ...],
        reducers: tuple[Account, ...],
        averages: tuple[Hash, ...],
        factors: tuple[float, ...],
        median: float,
        next_root: Hash,
        units: int,
    ) -> tuple[RoundCertificate, RoundBody]:
        before = self.lineage[prev].certificate
        electorate = self._next_electorate(leaves, prev)
        body = RoundBody(leaves, reducers, averages, factors, median, electorate)
        certificate = RoundCertificate(
            self.rules.run_id,
            before.epoch + 1,
            0,
            KIND_ROUND,
            prev,
            before.next_root,
            next_root,
            contributors_root(leaves),
            len(leaves),
            units,
            before.cumulative_units + units,
            electorate_hash(electorate),
            body_hash(body),
        )
        return certificate, body

    def _empty(self) -> tuple[RoundCertificate, RoundBody]:
        """The void epoch: state and electorate unchanged, no units."""
        before = self.lineage[self.tip]
        return self._compose(self.tip, (), (), (), (), before.body.median_norm, before.certificate.next_root, 0)

    # -- progress -----------------------------------------------------------------------------------------------------
    def _progress(self) -> None:
        """Do whatever the messages heard so far allow."""
        if self.tip == ZERO_HASH:
            return
        r = self._round()
        voter = self.account in self.voters()
        if voter and r.due:
            self._try_call(r)
        call = self._current_call(r, voter)
        if call is not None:
            self._act_on_call(r, call)
            self._try_report(r, False)
        if voter:
            self._try_set(r)
        proposal = self._current_set(r, voter)
        if proposal is not None:
            self._act_on_set(r, proposal)
        if voter:
            self._try_certify(r)
            self._hurry(r)

    def _current_call(self, r: _Round, voter: bool) -> Signed | None:
        calls = self.heard.round(self.tip).calls
        return calls.get(r.attempt if voter else max(calls, default=0))

    def _current_set(self, r: _Round, voter: bool) -> Signed | None:
        """Who has no vote reduces for the newest."""
        sets = self.heard.round(self.tip).sets
        return sets.get(r.attempt if voter else max(sets, default=0))

    def _hurry(self, r: _Round) -> None:
        """Do not wait for what cannot come any more. Time-outs may come at any time, so nothing depends on this being right."""
        if not r.due:
            return
        if r.step == 1 and self._cannot_win(r, set()):
            self._void(r)
        elif r.hurried < 2 * r.attempt + r.step and self._is_hopeless(r):
            r.hurried = 2 * r.attempt + r.step
            self._out.append(SetTimer(Timer("step", self.tip, r.attempt), min(GONE_SECONDS, self.rules.vote_seconds)))
        if r.step == 2 and self._has_quorum(self.heard.round(self.tip).voids.get(r.attempt, {})):
            self._next_attempt(r, r.attempt + 1)

    def _is_hopeless(self, r: _Round) -> bool:
        """The initiator is gone before its set, a reducer before its report or its averages, or voters before their votes."""
        if r.step:
            return r.step == 1 and self._cannot_win(r, self._gone)
        heard = self.heard.round(self.tip)
        proposal, call = heard.sets.get(r.attempt), heard.calls.get(r.attempt)
        if proposal is not None:
            assert isinstance(proposal.content, SetContent)
            if any(a == r.attempt for _, a in self._prepared) or proposal.content.certificate is not None:
                return False
            averaged = {who for _, who in heard.averages.get(r.attempt, {})}
            return bool(self._gone.intersection(proposal.content.reducers) - averaged)
        if self.leader(r.attempt) in self._gone:
            return True
        if call is None:
            return False
        assert isinstance(call.content, CallContent)
        return bool(self._gone.intersection(call.content.reducers) - heard.reports.get(r.attempt, {}).keys())

    def _cannot_win(self, r: _Round, gone: set[Account]) -> bool:
        """No id can get a quorum of votes any more, even if all who have not voted and are not gone vote for it."""
        voters = set(self.voters())
        votes = self.heard.round(self.tip).votes.get(r.attempt, {})
        voted = {who for signed in votes.values() for who in signed}
        most = max((len(who.keys() & voters) for identity, who in votes.items() if identity != ZERO_HASH), default=0)
        return most + len(voters - voted - gone) < quorum(len(voters))

    def _step_timer(self, r: _Round) -> None:
        rules = self.rules
        grow = 1.5 ** min(r.attempt, 6)
        seconds = (rules.contribute_seconds + rules.average_seconds if r.step == 0 else rules.vote_seconds) * grow
        self._out.append(SetTimer(Timer("step", self.tip, r.attempt), seconds))

    def _try_call(self, r: _Round) -> None:
        heard = self.heard.round(self.tip)
        if r.step != 0 or r.attempt in heard.calls or not self._initiates(r.attempt):
            return
        if r.attempt >= self.rules.max_attempts or self._newest_polka() is not None:
            return  # no new contributions: an empty set, or the certificate of the newest quorum of votes
        silent = self._silent.get(self.tip, set())
        able = {a for a, flags in self._ready.items() if flags & FLAG_REDUCES and a not in silent}
        able |= {self.account} if self.reduces else set()
        # who contributed already and can reduce is alive too
        able |= {
            a
            for a, s in heard.first().items()
            if s.record.flags & FLAG_REDUCES and a not in silent  # type: ignore[union-attr]
        }
        able -= heard.lying | self._gone
        reducers = tuple(draw_order(self.tip, r.epoch, r.attempt, able))[
            : min(self.rules.max_reducers, self.rules.num_parts)
        ]
        if not reducers:
            return
        record = RoundCall(self.rules.run_id, r.epoch, r.attempt, self.tip, reducers_hash(reducers), 0, 0, 0, 0)
        self._say(record, CallContent(reducers))

    def _act_on_call(self, r: _Round, call: Signed) -> None:
        attempt = call.record.attempt  # type: ignore[union-attr]
        if r.call_done >= attempt:
            return
        r.call_done = attempt
        r.complete = frozenset()  # of another draw of reducers
        assert isinstance(call.content, CallContent)
        if not r.due and self.account in self.voters():
            r.due = True
            self._step_timer(r)
        if self.account in call.content.reducers:
            self._out.append(Collect(call))
            self._out.append(SetTimer(Timer("report", self.tip, attempt), self.rules.contribute_seconds * 0.8))
        if self.account in self.heard.round(self.tip).contributions:
            self._out.append(Scatter(call))
        else:
            self._out.append(MakeContribution(call))

    def _try_report(self, r: _Round, at_deadline: bool) -> None:
        call = self._current_call(r, self.account in self.voters())
        if call is None or not isinstance(call.content, CallContent) or self.account not in call.content.reducers:
            return
        attempt = call.record.attempt  # type: ignore[union-attr]
        if r.report_done >= attempt:
            return
        heard = self.heard.round(self.tip)
        known = heard.first()
        # who is alive and trains on this anchor will contribute; a dead voter is not waited for (the set needs a quorum anyway)
        expected = {a for a, flags in self._ready.items() if flags & FLAG_VOTES}
        if self.votes:
            expected.add(self.account)
        awaited = {self.notary.hash(s.record) for a, s in known.items() if a not in self._gone | heard.lying}
        if not at_deadline and not (expected <= known.keys() and awaited <= r.complete):
            return
        if not r.complete:
            return
        complete = tuple(sorted(r.complete))
        record = ReducerReport(self.rules.run_id, r.epoch, attempt, self.tip, complete_hash(complete))
        r.report_done = attempt
        self._say(record, ReportContent(complete))

    def _newest_polka(self) -> tuple[int, Hash] | None:
        """The newest (attempt, id) with a quorum of votes."""
        found = [
            (attempt, identity)
            for attempt, ids in self.heard.round(self.tip).votes.items()
            for identity, who in ids.items()
            if identity != ZERO_HASH and self._has_quorum(who)
        ]
        return max(found) if found else None

    def _initiates(self, attempt: int) -> bool:
        return self.lineage.may_initiate(self.tip, attempt, self.account)

    def _try_set(self, r: _Round) -> None:
        if r.step != 0 or not r.due or r.set_done >= r.attempt or not self._initiates(r.attempt):
            return
        polka = self._newest_polka()
        if polka is not None and polka[1] in self.proposals:
            certificate, body = self.proposals[polka[1]]
            content = SetContent(body.contributors, body.reducers, certificate.without_attempt(), body)
            valid = polka[0]
        elif r.attempt >= self.rules.max_attempts:
            content, valid = SetContent((), ()), NO_ATTEMPT
        else:
            made = self._new_set(r)
            if made is None:
                return
            content, valid = made, NO_ATTEMPT
        r.set_done = r.attempt
        record = RoundSet(
            self.rules.run_id,
            r.epoch,
            r.attempt,
            self.tip,
            contributors_root(content.contributors),
            len(content.contributors),
            reducers_hash(content.reducers),
            ZERO_HASH if content.certificate is None else self.notary.certificate_id(content.certificate),
            valid,
        )
        self._say(record, content)

    def _new_set(self, r: _Round) -> SetContent | None:
        heard = self.heard.round(self.tip)
        call, reports = heard.calls.get(r.attempt), heard.reports.get(r.attempt, {})
        if call is None or not isinstance(call.content, CallContent):
            return None
        complete: set[Hash] | None = None
        for reducer in call.content.reducers:
            if reducer not in reports:
                return None
            content = reports[reducer].content
            assert isinstance(content, ReportContent)
            complete = set(content.complete) if complete is None else complete & set(content.complete)
        leaves = []
        for peer, signed in sorted(heard.first().items()):
            record = signed.record
            assert isinstance(record, Contribution)
            key = self.notary.hash(record)
            if key in (complete or ()) and peer not in heard.lying:
                leaves.append(ContributorLeaf(peer, key, self._units(record), record.flags))
        made = SetContent(tuple(leaves), call.content.reducers)
        return made if leaves and self._set_fits(made, r.attempt) else None

    def _act_on_set(self, r: _Round, proposal: Signed) -> None:
        record, content = proposal.record, proposal.content
        assert isinstance(record, RoundSet) and isinstance(content, SetContent)
        if record.proposal != ZERO_HASH:
            self._act_on_proposal(r, proposal, record, content)
        elif not content.contributors:
            certificate, body = self._empty()
            identity = self.notary.certificate_id(certificate)
            self.proposals[identity] = (certificate, body)
            if self._set_fits(content, record.attempt):
                self._vote_if_free(r, record, identity)
        elif self._set_fits(content, record.attempt):
            self._act_on_new_set(r, proposal, record, content)

    def _act_on_proposal(self, r: _Round, proposal: Signed, record: RoundSet, content: SetContent) -> None:
        """A certificate proposed again. Whoever can has its averages by now; it is redone like any other before a vote."""
        assert content.body is not None
        if not self._is_acceptable(r, record, content):
            return
        if not content.contributors:
            certificate, body = self._empty()
            if record.proposal == self.notary.certificate_id(certificate):
                self.proposals[record.proposal] = (certificate, body)
                self._vote_if_free(r, record, record.proposal)
            return
        if len(content.body.averages) != self.rules.num_parts:
            return
        if (record.proposal, record.attempt) in self._prepared:
            self._vote_if_free(r, record, record.proposal)
        elif r.fetch_done < record.attempt:
            r.fetch_done = record.attempt
            holders = content.body.reducers
            averages = tuple((d, holders[i % len(holders)]) for i, d in enumerate(content.body.averages))
            self._out.append(FetchAverages(proposal, averages))

    def _is_acceptable(self, r: _Round, record: RoundSet, content: SetContent) -> bool:
        """What is proposed again: the own lock, what a quorum has voted for, or a set that would do as a new one."""
        if r.lock == record.proposal or self._voted(record, r, record.proposal):
            return True
        return self._set_fits(SetContent(content.contributors, content.reducers), record.attempt)

    def _act_on_new_set(self, r: _Round, proposal: Signed, record: RoundSet, content: SetContent) -> None:
        heard, reducers = self.heard.round(self.tip).averages.get(record.attempt, {}), content.reducers
        found = [heard.get((part, reducers[part % len(reducers)])) for part in range(self.rules.num_parts)]
        averages = [s for s in found if s is not None]
        if self.account in reducers and proposal.signature not in self._reduced:
            self._reduced.add(proposal.signature)
            self._out.append(ReduceSet(proposal))
        if r.fetch_done < record.attempt and len(averages) == self.rules.num_parts:
            r.fetch_done = record.attempt
            self._out.append(FetchAverages(proposal, tuple((s.record.digest, s.signer) for s in averages)))  # type: ignore[union-attr]
        for identity, attempt in sorted(self._prepared):
            if attempt == record.attempt and self._is_of_set(identity, content):
                self._vote_if_free(r, record, identity)

    def _is_of_set(self, identity: Hash, content: SetContent) -> bool:
        known = self.proposals.get(identity)
        return (
            known is not None
            and known[0].prev_certificate == self.tip
            and known[1].contributors == content.contributors
        )

    def _vote_if_free(self, r: _Round, record: RoundSet, identity: Hash) -> None:
        if r.step != 0 or record.attempt != r.attempt or self.account not in self.voters():
            return
        self._vote(r, identity if self._is_free(r, record, identity) else ZERO_HASH)

    def _is_free(self, r: _Round, record: RoundSet, identity: Hash) -> bool:
        """Who is locked votes only for its lock, or where a quorum voted for the id since."""
        if r.lock is None or r.lock == identity:
            return True
        return r.lock_attempt <= record.valid_attempt and self._voted(record, r, identity)

    def _voted(self, record: RoundSet, r: _Round, identity: Hash) -> bool:
        """Whether a quorum voted for `identity` at the attempt that the set names."""
        if not record.valid_attempt < r.attempt:
            return False
        return self._has_quorum(self.heard.round(self.tip).votes.get(record.valid_attempt, {}).get(identity, {}))

    def _vote(self, r: _Round, identity: Hash) -> None:
        r.step = max(r.step, 1)
        self._say(RoundVote(self.rules.run_id, r.epoch, r.attempt, self.tip, identity))
        self._step_timer(r)
        self._try_certify(r)

    def _try_certify(self, r: _Round) -> None:
        if r.step > 1:
            return
        for identity, who in list(self.heard.round(self.tip).votes.get(r.attempt, {}).items()):
            if identity == ZERO_HASH or identity not in self.proposals or not self._has_quorum(who):
                continue
            r.step, r.lock, r.lock_attempt = 2, identity, r.attempt
            certificate, body = self.proposals[identity]
            self._step_timer(r)
            self._say(replace(certificate, attempt=r.attempt), body)
            return

    def _time_out(self, r: _Round) -> None:
        if self.account not in self.voters():
            return
        heard = self.heard.round(self.tip)
        closed = [
            a
            for a in heard.voids.keys() | heard.certificates.keys()
            if (a > r.attempt or (a == r.attempt and r.step == 2))
            and self._has_quorum(heard.voids.get(a, {}).keys() | heard.certificates.get(a, set()))
        ]
        if closed:
            self._next_attempt(r, max(closed) + 1)
            return
        if r.step == 0:
            self._vote(r, ZERO_HASH)
        elif r.step == 1:
            self._void(r)
        else:
            self._step_timer(r)
        self._progress()

    def _void(self, r: _Round) -> None:
        self._say(RoundVoid(self.rules.run_id, r.epoch, r.attempt, self.tip))
        r.step = 2  # where the journal refuses, the certificate was signed
        self._step_timer(r)

    def _next_attempt(self, r: _Round, attempt: int) -> None:
        self._note_silent(r)
        r.attempt, r.step = attempt, 0
        self._step_timer(r)
        self._progress()

    def _note_silent(self, r: _Round) -> None:
        """Reducers that did not report, or did not average, are not drawn again in this round."""
        heard = self.heard.round(self.tip)
        call, proposal = heard.calls.get(r.attempt), heard.sets.get(r.attempt)
        if call is None or not isinstance(call.content, CallContent):
            return
        spoke = set(heard.reports.get(r.attempt, {}))
        if proposal is not None and proposal.record.proposal == ZERO_HASH:  # type: ignore[union-attr]
            spoke &= {who for _, who in heard.averages.get(r.attempt, {})}
        self._silent.setdefault(self.tip, set()).update(a for a in call.content.reducers if a not in spoke)
        while len(self._silent) > 64:
            del self._silent[next(iter(self._silent))]

    # -- seating and fork choice --------------------------------------------------------------------------------------
    def _set_stall_timer(self) -> None:
        self._out.append(SetTimer(Timer("stall", self.tip), self.rules.stall_seconds))

    def _seats(self) -> tuple[Account, ...]:
        ready = {a for a, flags in self._ready.items() if flags & FLAG_VOTES}
        if self.votes:
            ready.add(self.account)
        return tuple(sorted(draw_order(self.tip, self.epoch, 0, ready)[:MAX_ELECTORATE]))

    def _stall(self) -> None:
        self._set_stall_timer()
        if self.tip == ZERO_HASH:
            self._first_seating += 1  # only founders seat the first; they try again with who is ready then
            return
        self.stalled += 1
        for entry in self.lineage.unsettled_after(self.tip):
            if self._join_seating(entry):
                self._follow()
                return
        seats = self._seats()
        if self.account in seats:
            self._seat(seats, self.stalled)
        self._follow()

    def _seat_first(self) -> None:
        """As a founder: what another founder proposed if it fits what is seen here, else an own proposal."""
        seats = self._seats()
        if len(seats) < self.rules.min_seated:
            return
        for entry in self.lineage.unsettled_after(ZERO_HASH):
            if self._join_seating(entry):
                return
        self._seat(seats, self._first_seating)

    def _join_seating(self, entry: Entry) -> bool:
        """Sign a seating that another proposed: at the attempts that have most signatures, a few at most."""
        certificate, seated = entry.certificate, entry.body.electorate
        if certificate.kind != KIND_SEATING or certificate.prev_certificate != self.tip:
            return False
        if self.tip == ZERO_HASH:
            may = self.account in self.rules.founders and len(seated) >= self.rules.min_seated
        else:
            may = self.account in seated
        if not may or not set(seated) <= set(self._seats()):
            return False
        attempts = sorted(entry.signatures, key=lambda a: (-len(entry.signatures[a]), a))[:MAX_JOINED]
        return any([self._say(replace(certificate, attempt=a), entry.body) for a in attempts])  # noqa: C419 (sign all)

    def _seat(self, seats: tuple[Account, ...], attempt: int) -> None:
        before = self.lineage[self.tip]
        body = RoundBody((), (), (), (), before.body.median_norm, seats)
        certificate = RoundCertificate(
            self.rules.run_id,
            before.certificate.epoch + 1,
            attempt,
            KIND_SEATING,
            self.tip,
            before.certificate.next_root,
            before.certificate.next_root,
            contributors_root(()),
            0,
            0,
            before.certificate.cumulative_units,
            electorate_hash(seats),
            body_hash(body),
        )
        self._say(certificate, body)

    def _may_follow(self, entry: Entry) -> bool:
        """Whether a seating off the own path may be followed: only by who has stalled, with a third of the voters in it."""
        certificate = entry.certificate
        prev = certificate.prev_certificate
        if certificate.kind != KIND_SEATING or prev == ZERO_HASH or self._restoring:
            return True
        if prev == self.tip and self.stalled > STALLS_BEFORE_FEWER:
            return True
        old = set(self.lineage.electorate(prev))
        enough = len(self.lineage.branch_signers(entry.id) & old) > len(old) // 3
        return (self.stalled > 0 or prev != self.tip) and enough

    def _follow(self) -> None:
        new = self.lineage.choose(self.tip, self._may_follow)
        if new == self.tip:
            return
        old_path, new_path = self.lineage.path(self.tip), self.lineage.path(new)
        same = 0
        while same < min(len(old_path), len(new_path)) and old_path[same] == new_path[same]:
            same += 1
        known = self.heard.round(self.lineage[new_path[-1]].certificate.prev_certificate).contributions
        inside = {leaf.peer for leaf in self.lineage[new].body.contributors}
        self._omitted = set(known) - inside
        self.tip, self.stalled = new, 0
        path = tuple(self._entry(identity) for identity in new_path[same:])
        self._out.append(Adopt(path, tuple(reversed(old_path[same:]))))
        self._reduced.clear()
        self._forget(old_path[-1])
        self._set_stall_timer()
        self._progress()

    def _entry(self, identity: Hash) -> CertifiedEntry:
        entry = self.lineage[identity]
        attempt = entry.attempt or 0
        signatures = tuple(sorted(entry.signatures.get(attempt, {}).items()))
        return CertifiedEntry(identity, replace(entry.certificate, attempt=attempt), entry.body, signatures)

    def _forget(self, old: Hash) -> None:
        """Messages of rounds before the last one; the bounds on memory."""
        keep = {old, self.tip}
        self.heard.keep_rounds(self.tip, old)
        self._prepared = {
            (i, a) for i, a in self._prepared if i in self.proposals and self.proposals[i][0].prev_certificate in keep
        }
        for identity in [i for i, (c, _) in self.proposals.items() if c.prev_certificate not in keep]:
            del self.proposals[identity]
