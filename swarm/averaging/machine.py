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
    merges_hash,
    parts_root,
    quorum,
    reducers_hash,
)
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
    ContributionContent,
    ContributorLeaf,
    Hash,
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
    complete: frozenset[Hash] = frozenset()


_Key = tuple[Hash, int]  # (prevCertificate, attempt); the epoch follows from the certificate


class RoundMachine:
    """One peer's part. Every method returns the actions that follow; none raises for what others send."""

    def __init__(self, notary: Notary, rules: RunRules, reduces: bool = True, votes: bool = True) -> None:
        self.notary, self.rules = notary, rules
        self.reduces, self.votes = reduces, votes  # has a listening address; wants a seat (a seed does not)
        self._asked: set[tuple[bytes, int]] = set()
        self.account = notary.account
        self.lineage = Lineage(rules.run_id, rules.initial_root, rules.founders)
        self.tip: Hash = ZERO_HASH
        self.stalled = 0
        self._first_seating = 0
        self._ready: dict[Account, int] = {}
        self._silent: dict[Hash, set[Account]] = {}
        self._rounds: dict[Hash, _Round] = {}
        self._contributions: dict[Hash, dict[Account, Signed]] = {}
        self._calls: dict[_Key, Signed] = {}
        self._reports: dict[_Key, dict[Account, Signed]] = {}
        self._sets: dict[_Key, Signed] = {}
        self._averages: dict[_Key, dict[int, Signed]] = {}
        self._votes: dict[tuple[Hash, int, Hash], dict[Account, Signed]] = {}
        self._voids: dict[_Key, dict[Account, Signed]] = {}
        self._signed_certificates: dict[_Key, set[Account]] = {}
        self._proposals: dict[Hash, tuple[RoundCertificate, RoundBody]] = {}
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
        """The first-ranked voter; after a time-out the next of the same order, so that a dead one is not drawn twice."""
        order = draw_order(self.tip, self.epoch, 0, self.voters())
        return order[attempt % len(order)]

    def current_messages(self) -> list[Signed]:
        """What was heard and said of the round under way, for a peer that links up in the middle of it."""
        out: list[Signed] = list(self._contributions.get(self.tip, {}).values())
        out += [s for (p, _), s in self._calls.items() if p == self.tip]
        for table in (self._reports, self._averages, self._voids):
            out += [s for (p, _), signed in table.items() if p == self.tip for s in signed.values()]
        out += [s for (p, _), s in self._sets.items() if p == self.tip]
        out += [s for (p, _, _), signed in self._votes.items() if p == self.tip for s in signed.values()]
        for entry in self.lineage.entries.values():
            if entry.certificate.prev_certificate == self.tip and entry.attempt is None:
                out += [
                    Signed(replace(entry.certificate, attempt=a), who, signature, entry.body)
                    for a, signed in entry.signatures.items()
                    for who, signature in signed.items()
                ]
        return out

    def _round(self) -> _Round:
        found = self._rounds.get(self.tip)
        if found is None:
            found = self._rounds[self.tip] = _Round(self.epoch)
            for old in list(self._rounds)[:-64]:
                del self._rounds[old]
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
        """After a start: certificates and other messages from disk, then what this key has signed (record, kept content)."""
        for signed in backlog:
            self._receive(signed)
        for record, keep in kept:
            content = unpack_content(keep) if keep else None
            if isinstance(record, RoundVote | RoundVoid | RoundCertificate) and record.prev_certificate == self.tip:
                self._resume(record)
            if isinstance(record, Contribution | RoundVote | RoundVoid | RoundCertificate):
                self._receive(Signed(record, self.account, self.notary.sign(record, keep), content))
        self._follow()
        self._set_stall_timer()
        return self._done()

    def _resume(self, record: RoundVote | RoundVoid | RoundCertificate) -> None:
        r = self._round()
        if isinstance(record, RoundCertificate) and record.kind == KIND_SEATING:
            return
        step = 1 if isinstance(record, RoundVote) else 2
        if (record.attempt, step) >= (r.attempt, r.step):
            r.attempt, r.step, r.due = record.attempt, step, True
        if isinstance(record, RoundCertificate) and record.attempt >= r.lock_attempt:
            r.lock, r.lock_attempt = self.notary.certificate_id(record), record.attempt

    def ready(self, peers: Mapping[Account, int]) -> list[Action]:
        """Accounts seen alive and training on this peer's anchor now, with their flags (this peer not among them)."""
        self._ready = dict(peers)
        if self.tip == ZERO_HASH and self.account in self.rules.founders:
            seats = self._seats()
            if len(seats) >= self.rules.min_seated:
                self._seat(seats, self._first_seating)
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
        call = self._calls.get((self.tip, self._round().attempt))
        if call is None:
            call = next((c for (p, _), c in reversed(self._calls.items()) if p == self.tip), None)
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
        self._proposals[identity] = (certificate, body)
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
        try:
            self._take(signed)
        except (PeerFault, ValueError) as error:
            self._blame(signed.signer, str(error))
            return
        self._progress()

    def _take(self, signed: Signed) -> None:
        record, content, who = signed.record, signed.content, signed.signer
        if record.run_id != self.rules.run_id:
            raise PeerFault("a record of another run")
        if isinstance(record, RoundCertificate):
            self._take_certificate(record, content, signed)
            return
        if isinstance(record, Contribution):
            self._take_contribution(record, content, signed)
            return
        prev = getattr(record, "prev_certificate", ZERO_HASH)
        attempt = getattr(record, "attempt", 0)
        key = (prev, attempt)
        if attempt > 10_000 or self._is_past(prev):
            return
        if isinstance(record, RoundCall):
            if not isinstance(content, CallContent) or reducers_hash(content.reducers) != record.reducers_hash:
                raise PeerFault("call: its reducers are not what it commits")
            ranked = draw_order(prev, record.epoch, attempt, content.reducers)
            if (
                not content.reducers
                or tuple(ranked) != content.reducers
                or len(content.reducers) > self.rules.max_reducers
            ):
                raise PeerFault("call: reducers out of rank order, none or too many")
            self._first(self._calls, key, signed, "calls")
        elif isinstance(record, ReducerReport):
            if not isinstance(content, ReportContent) or complete_hash(content.complete) != record.complete_hash:
                raise PeerFault("report: its list is not what it commits")
            self._first(self._reports.setdefault(key, {}), who, signed, "reports")
        elif isinstance(record, RoundSet):
            self._check_set(record, content)
            self._first(self._sets, key, signed, "sets")
        elif isinstance(record, Average):
            self._first(self._averages.setdefault(key, {}), record.part, signed, "averages")
        elif isinstance(record, RoundVote):
            for (p, a, i), voters in self._votes.items():
                if (p, a) == key and i != record.id and who in voters:
                    raise PeerFault("vote: a second, different one in one attempt")
            self._votes.setdefault((prev, attempt, record.id), {}).setdefault(who, signed)
        elif isinstance(record, RoundVoid):
            self._voids.setdefault(key, {}).setdefault(who, signed)

    def _is_past(self, prev: Hash) -> bool:
        """Rounds that are certified already need no more messages; unknown predecessors may still come."""
        return prev != self.tip and self.lineage.valid(prev) and prev in set(self.lineage.ancestors(self.tip))

    def _first(self, table: dict, key: object, signed: Signed, what: str) -> None:  # type: ignore[type-arg]
        if what in ("calls", "sets"):
            # only the attempt's initiator has a say; checked where the predecessor is known
            record = signed.record
            if getattr(record, "prev_certificate", None) == self.tip and signed.signer != self.leader(
                getattr(record, "attempt", 0)
            ):
                raise PeerFault(f"{what}: not by the attempt's initiator")
        if what == "averages":
            assert isinstance(signed.record, Average)
            call = self._calls.get((signed.record.prev_certificate, signed.record.attempt))
            if call is not None:
                assert isinstance(call.content, CallContent)
                reducers = call.content.reducers
                if (
                    signed.record.part >= self.rules.num_parts
                    or signed.signer != reducers[signed.record.part % len(reducers)]
                ):
                    raise PeerFault("average: of a part that is not this reducer's")
        old = table.get(key)
        if old is not None and old != signed and old.signer == signed.signer:
            raise PeerFault(f"{what}: two different ones for one subject")
        table.setdefault(key, signed)
        if len(table) > 4096:
            table.pop(next(iter(table)))

    def _take_contribution(self, record: Contribution, content: Content, signed: Signed) -> None:
        if record.peer != signed.signer:
            raise PeerFault("contribution: not signed by its peer")
        if not isinstance(content, ContributionContent) or len(content.parts) != self.rules.num_parts:
            raise PeerFault("contribution: without the list of its parts, or of another model")
        if parts_root(content.parts) != record.parts_root or merges_hash(content.merges) != record.merges_hash:
            raise PeerFault("contribution: its content is not what it commits")
        if [p.index for p in content.parts] != list(range(len(content.parts))):
            raise PeerFault("contribution: parts out of order")
        if any(not 0.0 <= p.squared_norm < float("inf") for p in content.parts):
            raise PeerFault("contribution: a norm that is not finite")
        if record.units > 0xFFFF:
            raise PeerFault("contribution: more units than anybody can do")
        table = self._contributions.setdefault(record.prev_certificate, {})
        old = table.get(record.peer)
        if old is not None and old != signed:
            raise PeerFault("contribution: two different ones for one epoch; the first counts")
        if len(table) < 1024:
            table.setdefault(record.peer, signed)
        while len(self._contributions) > 64:
            self._contributions.pop(next(iter(self._contributions)))

    def _take_certificate(self, record: RoundCertificate, content: Content, signed: Signed) -> None:
        identity = self.notary.certificate_id(record)
        if not isinstance(content, RoundBody):
            known = self._proposals.get(identity)
            if known is None:
                raise PeerFault("certificate: without its body")
            content = known[1]
        self._signed_certificates.setdefault((record.prev_certificate, record.attempt), set()).add(signed.signer)
        new = self.lineage.add(identity, record, content, signed.signer, signed.signature)
        self._proposals.setdefault(identity, (record.without_attempt(), content))
        if new:
            self._follow()
        elif (
            record.kind == KIND_SEATING
            and self.stalled
            and record.prev_certificate == self.tip
            and signed.signer != self.account
        ):
            self._join_seating(self.lineage[identity])

    # -- sets ---------------------------------------------------------------------------------------------------------
    def _check_set(self, record: RoundSet, content: Content) -> None:
        if not isinstance(content, SetContent):
            raise PeerFault("set: without its list")
        peers = [leaf.peer for leaf in content.contributors]
        if (
            peers != sorted(set(peers))
            or len(peers) != record.num_contributors
            or contributors_root(content.contributors) != record.contributors_root
            or reducers_hash(content.reducers) != record.reducers_hash
        ):
            raise PeerFault("set: its list is not what it commits")
        again = record.proposal != ZERO_HASH
        if again != (content.certificate is not None and content.body is not None):
            raise PeerFault("set: a certificate proposed again comes with its body, a new set without")
        if (
            again
            and content.certificate is not None
            and self.notary.certificate_id(content.certificate) != record.proposal
        ):
            raise PeerFault("set: the certificate is not the one proposed")

    def _set_fits(self, content: SetContent, attempt: int) -> bool:
        """Quorum of the electorate, or empty from `max_attempts` on; known contributions; nobody left out twice."""
        voters = set(self.voters())
        if not content.contributors:
            return attempt >= self.rules.max_attempts
        known = self._contributions.get(self.tip, {})
        for leaf in content.contributors:
            signed = known.get(leaf.peer)
            if signed is None:
                return False
            record = signed.record
            assert isinstance(record, Contribution)
            if self.notary.hash(record) != leaf.contribution or (leaf.units, leaf.flags) != (
                self._units(record),
                record.flags,
            ):
                return False
        inside = {leaf.peer for leaf in content.contributors}
        if len(inside & voters) < quorum(len(voters)):
            return False
        reports = self._reports.get((self.tip, attempt), {})
        for peer, signed in known.items():
            if peer in inside or peer not in self._omitted:
                continue
            key = self.notary.hash(signed.record)
            others = [reducer for reducer in content.reducers if reducer != peer]  # nobody attests for itself
            lacking = sum(
                True
                for reducer in others
                if reducer in reports and key not in reports[reducer].content.complete  # type: ignore[union-attr]
            )
            if lacking < min(2, len(others)):
                return False  # left out again without a reason
        return True

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
        proposal = self._sets.get((self.tip, r.attempt if voter or call is None else call.record.attempt))  # type: ignore[union-attr]
        if proposal is not None and proposal.signer == self.leader(proposal.record.attempt):  # type: ignore[union-attr]
            self._act_on_set(r, proposal)
        if voter:
            self._try_certify(r)

    def _current_call(self, r: _Round, voter: bool) -> Signed | None:
        if voter:
            call = self._calls.get((self.tip, r.attempt))
            return call if call is not None and call.signer == self.leader(r.attempt) else None
        newest = max(
            (a for (p, a), c in self._calls.items() if p == self.tip and c.signer == self.leader(a)), default=None
        )
        return None if newest is None else self._calls[self.tip, newest]

    def _step_timer(self, r: _Round) -> None:
        rules = self.rules
        grow = 1.5 ** min(r.attempt, 6)
        seconds = (rules.contribute_seconds + rules.average_seconds if r.step == 0 else rules.vote_seconds) * grow
        self._out.append(SetTimer(Timer("step", self.tip, r.attempt), seconds))

    def _try_call(self, r: _Round) -> None:
        if r.step != 0 or self.leader(r.attempt) != self.account or (self.tip, r.attempt) in self._calls:
            return
        if r.attempt >= self.rules.max_attempts or self._newest_polka() is not None:
            return  # no new contributions: an empty set, or the certificate of the newest quorum of votes
        silent = self._silent.get(self.tip, set())
        able = {a for a, flags in self._ready.items() if flags & FLAG_REDUCES and a not in silent}
        able |= {self.account} if self.reduces else set()
        # who contributed already and can reduce is alive too
        able |= {
            a
            for a, s in self._contributions.get(self.tip, {}).items()
            if s.record.flags & FLAG_REDUCES and a not in silent  # type: ignore[union-attr]
        }
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
        if self.account in self._contributions.get(self.tip, {}):
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
        known = self._contributions.get(self.tip, {})
        # who is alive and trains on this anchor will contribute; a dead voter is not waited for (the set needs a quorum anyway)
        expected = {a for a, flags in self._ready.items() if flags & FLAG_VOTES} | set(known)
        if self.votes:
            expected.add(self.account)
        hashes = {self.notary.hash(s.record) for s in known.values()}
        if not at_deadline and not (expected <= known.keys() and hashes <= r.complete):
            return
        if not r.complete:
            return
        complete = tuple(sorted(r.complete))
        record = ReducerReport(self.rules.run_id, r.epoch, attempt, self.tip, complete_hash(complete))
        r.report_done = attempt
        self._say(record, ReportContent(complete))

    def _newest_polka(self) -> tuple[int, Hash] | None:
        """The newest (attempt, id) with a quorum of votes."""
        voters = set(self.voters())
        found = [
            (a, i)
            for (p, a, i), who in self._votes.items()
            if p == self.tip and i != ZERO_HASH and len(who.keys() & voters) >= quorum(len(voters))
        ]
        return max(found) if found else None

    def _try_set(self, r: _Round) -> None:
        key = (self.tip, r.attempt)
        if r.step != 0 or not r.due or self.leader(r.attempt) != self.account or r.set_done >= r.attempt:
            return
        polka = self._newest_polka()
        if polka is not None and polka[1] in self._proposals:
            certificate, body = self._proposals[polka[1]]
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
        assert key == (self.tip, r.attempt)

    def _new_set(self, r: _Round) -> SetContent | None:
        call = self._calls.get((self.tip, r.attempt))
        if call is None or not isinstance(call.content, CallContent):
            return None
        reports = self._reports.get((self.tip, r.attempt), {})
        complete: set[Hash] | None = None
        for reducer in call.content.reducers:
            if reducer not in reports:
                return None
            content = reports[reducer].content
            assert isinstance(content, ReportContent)
            complete = set(content.complete) if complete is None else complete & set(content.complete)
        leaves = []
        for peer, signed in sorted(self._contributions.get(self.tip, {}).items()):
            record = signed.record
            assert isinstance(record, Contribution)
            key = self.notary.hash(record)
            if key in (complete or ()):
                leaves.append(ContributorLeaf(peer, key, self._units(record), record.flags))
        made = SetContent(tuple(leaves), call.content.reducers)
        return made if leaves and self._set_fits(made, r.attempt) else None

    def _act_on_set(self, r: _Round, proposal: Signed) -> None:
        record, content = proposal.record, proposal.content
        assert isinstance(record, RoundSet) and isinstance(content, SetContent)
        if record.proposal != ZERO_HASH:
            assert content.body is not None
            if (record.proposal, record.attempt) not in self._prepared and r.fetch_done < record.attempt:
                r.fetch_done = record.attempt
                holders = content.body.reducers or (proposal.signer,)
                averages = tuple((d, holders[i % len(holders)]) for i, d in enumerate(content.body.averages))
                if averages:
                    self._out.append(FetchAverages(proposal, averages))
                else:
                    self._prepared.add((record.proposal, record.attempt))
            if (record.proposal, record.attempt) in self._prepared:
                self._vote_if_free(r, record, record.proposal)
            return
        if not content.contributors:
            certificate, body = self._empty()
            identity = self.notary.certificate_id(certificate)
            self._proposals[identity] = (certificate, body)
            if self._set_fits(content, record.attempt):
                self._vote_if_free(r, record, identity)
            return
        if not self._set_fits(content, record.attempt):
            return
        averages_by_part = self._averages.get((self.tip, record.attempt), {})
        if self.account in content.reducers and not any(a.signer == self.account for a in averages_by_part.values()):
            mark = -2 - record.attempt  # ask the driver once
            if (proposal.signature, mark) not in self._asked:
                self._asked.add((proposal.signature, mark))
                self._out.append(ReduceSet(proposal))
        if r.fetch_done < record.attempt and len(averages_by_part) == self.rules.num_parts:
            r.fetch_done = record.attempt
            ordered = [averages_by_part[p] for p in range(self.rules.num_parts)]
            self._out.append(FetchAverages(proposal, tuple((a.record.digest, a.signer) for a in ordered)))  # type: ignore[union-attr]
        for identity, attempt in list(self._prepared):
            if attempt == record.attempt and self._is_of_set(identity, content):
                self._vote_if_free(r, record, identity)

    def _is_of_set(self, identity: Hash, content: SetContent) -> bool:
        known = self._proposals.get(identity)
        return (
            known is not None
            and known[0].prev_certificate == self.tip
            and known[1].contributors == content.contributors
        )

    def _vote_if_free(self, r: _Round, record: RoundSet, identity: Hash) -> None:
        if r.step != 0 or record.attempt != r.attempt or self.account not in self.voters():
            return
        free = r.lock is None or r.lock == identity
        if not free and record.valid_attempt != NO_ATTEMPT and r.lock_attempt <= record.valid_attempt < r.attempt:
            voters = set(self.voters())
            who = self._votes.get((self.tip, record.valid_attempt, identity), {})
            free = len(who.keys() & voters) >= quorum(len(voters))
        self._vote(r, identity if free else ZERO_HASH)

    def _vote(self, r: _Round, identity: Hash) -> None:
        r.step = max(r.step, 1)
        self._say(RoundVote(self.rules.run_id, r.epoch, r.attempt, self.tip, identity))
        self._step_timer(r)
        self._try_certify(r)

    def _try_certify(self, r: _Round) -> None:
        if r.step > 1:
            return
        voters = set(self.voters())
        for (prev, attempt, identity), who in list(self._votes.items()):
            if prev != self.tip or attempt != r.attempt or identity == ZERO_HASH:
                continue
            if len(who.keys() & voters) < quorum(len(voters)) or identity not in self._proposals:
                continue
            r.step, r.lock, r.lock_attempt = 2, identity, attempt
            certificate, body = self._proposals[identity]
            self._step_timer(r)
            self._say(replace(certificate, attempt=attempt), body)
            return

    def _time_out(self, r: _Round) -> None:
        voters = set(self.voters())
        if self.account not in voters:
            return
        closed = [
            a
            for (p, a) in {*self._voids, *self._signed_certificates}
            if p == self.tip
            and (a > r.attempt or (a == r.attempt and r.step == 2))
            and len((self._voids.get((p, a), {}).keys() | self._signed_certificates.get((p, a), set())) & voters)
            >= quorum(len(voters))
        ]
        if closed:
            self._note_silent(r)
            r.attempt, r.step = max(closed) + 1, 0
            self._step_timer(r)
            self._progress()
            return
        if r.step == 0:
            self._vote(r, ZERO_HASH)
        elif r.step == 1:
            if self._say(RoundVoid(self.rules.run_id, r.epoch, r.attempt, self.tip)):
                r.step = 2
            self._step_timer(r)
        else:
            self._step_timer(r)
        self._progress()

    def _note_silent(self, r: _Round) -> None:
        """Reducers that did not report, or did not average, are not drawn again in this round."""
        call = self._calls.get((self.tip, r.attempt))
        if call is None or not isinstance(call.content, CallContent):
            return
        reports = self._reports.get((self.tip, r.attempt), {})
        self._silent.setdefault(self.tip, set()).update(a for a in call.content.reducers if a not in reports)

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
        for entry in list(self.lineage.entries.values()):
            if entry.attempt is None and self._join_seating(entry):
                self._follow()
                return
        seats = self._seats()
        if self.account in seats:
            self._seat(seats, self.stalled)
        self._follow()

    def _join_seating(self, entry: Entry) -> bool:
        certificate = entry.certificate
        ready = set(self._seats())
        if certificate.kind != KIND_SEATING or certificate.prev_certificate != self.tip or self.tip == ZERO_HASH:
            return False
        if self.account not in entry.body.electorate or not set(entry.body.electorate) <= ready:
            return False
        return any([self._say(replace(certificate, attempt=a), entry.body) for a in list(entry.signatures)])  # noqa: C419 (sign all)

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
        if certificate.kind != KIND_SEATING or prev == ZERO_HASH:
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
        known = self._contributions.get(self.lineage[new_path[-1]].certificate.prev_certificate, {})
        inside = {leaf.peer for leaf in self.lineage[new].body.contributors}
        self._omitted = set(known) - inside
        self.tip, self.stalled = new, 0
        path = tuple(self._entry(identity) for identity in new_path[same:])
        self._out.append(Adopt(path, tuple(reversed(old_path[same:]))))
        self._asked.clear()
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
        for table in (self._calls, self._reports, self._sets, self._averages, self._voids, self._signed_certificates):
            for key in [k for k in table if k[0] not in keep and self.lineage.valid(k[0])]:
                del table[key]
        for vote in [k for k in self._votes if k[0] not in keep and self.lineage.valid(k[0])]:
            del self._votes[vote]
        self._prepared = {
            (i, a) for i, a in self._prepared if i in self._proposals and self._proposals[i][0].prev_certificate in keep
        }
        for identity in [i for i, (c, _) in self._proposals.items() if c.prev_certificate not in keep]:
            del self._proposals[identity]
