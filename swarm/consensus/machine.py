"""The round, its votes and locks, seating and fork choice as one state machine: messages, inputs and time-outs in, actions out.

No clock, no stream, no tensor: the driver owns those. Signing journals before it returns (`swarm.records.notary`), so whatever
leaves here is bound. An attempt has three steps: 0 nothing voted, 1 voted, 2 certified or voided (PROTOCOL §3.6–7).
"""

from collections.abc import Collection, Mapping, Sequence

from swarm.consensus.actions import (
    Action,
    Scatter,
    Send,
    Timer,
)
from swarm.consensus.heard import ROUND_MESSAGES
from swarm.consensus.seating import STALLS_BEFORE_FEWER, Seating
from swarm.consensus.standing import Phase, RunRules
from swarm.errors import PeerFault
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
    RoundSet,
    RoundVoid,
    RoundVote,
    SetContent,
    Signed,
)
from swarm.records.wire import unpack_content

__all__ = ["STALLS_BEFORE_FEWER", "Phase", "RoundMachine", "RunRules"]


class RoundMachine(Seating):
    """One peer's part. Every method returns the actions that follow; none raises for what others send."""

    def body(self, identity: Hash) -> RoundBody | None:
        entry = self.lineage.entries.get(identity)
        return None if entry is None else entry.body

    def certified_body(self, identity: Hash) -> RoundBody | None:
        """Of a certificate that a quorum has signed, on any branch."""
        return self.lineage[identity].body if self.lineage.valid(identity) else None

    def current_messages(self) -> list[Signed]:
        """What was heard and said of the round under way, for a peer that links up in the middle of it, and all signatures
        that weigh in the choice between branches."""
        signatures = [signed for entry in self.lineage.contested(self.tip) for signed in entry.messages()]
        return list(self.heard.round(self.tip).messages()) + signatures

    def certificates_since(self, epoch: int) -> list[Signed]:
        """Those of the own lineage after `epoch`, oldest first, as their quorum signed them."""
        found = []
        for identity in self.lineage.ancestors(self.tip):
            entry = self.lineage[identity]
            if entry.certificate.epoch <= epoch:
                break
            found.append([s for s in entry.messages() if s.record.attempt == entry.attempt])  # type: ignore[union-attr]
        return [signed for messages in reversed(found) for signed in messages]

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
        return self._done()

    def ready(
        self, peers: Mapping[Account, int], unreached: Collection[Account] = (), linked: Collection[Account] = ()
    ) -> list[Action]:
        """Accounts seen alive and training on this peer's anchor now, with their flags (this peer not among them). `unreached`:
        who says that it reduces, and does not answer when it is dialled; `linked`: all that have a link, those that are behind
        too."""
        self._unreached = frozenset(unreached)
        self._gone = (self._gone | self._ready.keys()) - peers.keys()
        while len(self._gone) > 256:
            self._gone.pop()
        changed = peers != self._ready or self._linked != set(linked)
        self._ready, self._linked = dict(peers), set(linked)
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

    def withheld(self, proposal: Signed, reducer: Account) -> list[Action]:
        """A reducer of a set hands out nothing of what it says that it has averaged, and nobody else has it."""
        record = proposal.record
        assert isinstance(record, RoundSet)
        if record.prev_certificate == self.tip and reducer != self.account:
            self._round().withheld.add((record.attempt, reducer))
            self._pass_over([reducer])
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
        if new and self.lineage.is_before(prev, self.tip) and not self._restoring:
            self._say_fork(new, signed)
        is_branch = self.lineage.valid(identity) and not self._is_own(identity)
        if new or is_branch:  # one more signer adds weight to it
            self._follow()
        elif prev == self.tip and signed.signer != self.account and (prev == ZERO_HASH or self.stalled):
            self._join_seating(self.lineage[identity])

    def _say_fork(self, new: Sequence[Hash], last: Signed) -> None:
        """A branch off the own path came to hold by `last`. What was signed in it before was not handed to those who linked up
        since (`Lineage.contested`); they have to weigh it too."""
        entries = [e for held in new for e in (self.lineage[held], *self.lineage.unsettled_after(held))]
        self._out += [Send(said, again=True) for entry in entries for said in entry.messages() if said != last]

    def _is_own(self, identity: Hash) -> bool:
        return identity == self.tip or self.lineage.is_before(identity, self.tip)

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
