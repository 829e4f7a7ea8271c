"""Votes, locks, certificates, voids and the next attempt (PROTOCOL §3.6–7)."""

from collections.abc import Iterable
from dataclasses import replace

from swarm.consensus.actions import (
    SetTimer,
    Timer,
)
from swarm.consensus.standing import MachineState, Phase, Standing
from swarm.records.commitments import (
    quorum,
)
from swarm.records.types import (
    ZERO_HASH,
    Account,
    CallContent,
    Hash,
    RoundSet,
    RoundVoid,
    RoundVote,
    SetContent,
)

PASSED_OVER_EPOCHS, MAX_PASSED_OVER = 16, 1024
GONE_SECONDS = 1.0  # a peer that was seen and is no more gets that long to come back before an attempt is given up


class Votes(MachineState):
    """An attempt has three steps: 0 nothing voted, 1 voted, 2 certified or voided."""

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

    def _voted(self, record: RoundSet, r: Standing, identity: Hash) -> bool:
        """Whether a quorum voted for `identity` at the attempt that the set names."""
        if not record.valid_attempt < r.attempt:
            return False
        return self._has_quorum(self.heard.round(self.tip).votes.get(record.valid_attempt, {}).get(identity, {}))

    def _is_free(self, r: Standing, record: RoundSet, identity: Hash) -> bool:
        """Who is locked votes only for its lock, or where a quorum voted for the id since."""
        if r.lock is None or r.lock == identity:
            return True
        return r.lock_attempt <= record.valid_attempt and self._voted(record, r, identity)

    def _vote_if_free(self, r: Standing, record: RoundSet, identity: Hash) -> None:
        if r.phase != Phase.OPEN or record.attempt != r.attempt or self.account not in self.voters():
            return
        self._vote(r, identity if self._is_free(r, record, identity) else ZERO_HASH)

    def _vote(self, r: Standing, identity: Hash) -> None:
        r.phase = max(r.phase, Phase.VOTED)
        self._say(RoundVote(self.rules.run_id, r.epoch, r.attempt, self.tip, identity))
        self._step_timer(r)
        self._try_certify(r)

    def _try_certify(self, r: Standing) -> None:
        if r.phase == Phase.CLOSED:
            return
        for identity, who in list(self.heard.round(self.tip).votes.get(r.attempt, {}).items()):
            if identity == ZERO_HASH or identity not in self.proposals or not self._has_quorum(who):
                continue
            self._saw_quorum = True
            r.phase, r.lock, r.lock_attempt = Phase.CLOSED, identity, r.attempt
            certificate, body = self.proposals[identity]
            self._step_timer(r)
            self._say(replace(certificate, attempt=r.attempt), body)
            return

    def _time_out(self, r: Standing) -> None:
        if self.account not in self.voters():
            return
        heard = self.heard.round(self.tip)
        closed = [
            a
            for a in heard.voids.keys() | heard.certificates.keys()
            if (a > r.attempt or (a == r.attempt and r.phase == Phase.CLOSED))
            and self._has_quorum(heard.voids.get(a, {}).keys() | heard.certificates.get(a, set()))
        ]
        if closed:
            self._next_attempt(r, max(closed) + 1)
            return
        if r.phase == Phase.OPEN:
            self._vote(r, ZERO_HASH)
        elif r.phase == Phase.VOTED:
            self._void(r)
        else:
            self._step_timer(r)
        self._progress()

    def _void(self, r: Standing) -> None:
        self._say(RoundVoid(self.rules.run_id, r.epoch, r.attempt, self.tip))
        r.phase = Phase.CLOSED  # where the journal refuses, the certificate was signed
        self._step_timer(r)

    def _next_attempt(self, r: Standing, attempt: int) -> None:
        self._note_silent(r)
        r.attempt, r.phase = attempt, Phase.OPEN
        self._step_timer(r)
        self._progress()

    def _note_silent(self, r: Standing) -> None:
        """Reducers that did not report, or did not average, are not drawn again in this round."""
        heard = self.heard.round(self.tip)
        call, proposal = heard.calls.get(r.attempt), heard.sets.get(r.attempt)
        if call is None or not isinstance(call.content, CallContent):
            return
        spoke = set(heard.reports.get(r.attempt, {}))
        if proposal is not None and proposal.record.proposal == ZERO_HASH:  # type: ignore[union-attr]
            spoke &= {who for _, who in heard.averages.get(r.attempt, {})}
        self._pass_over(a for a in call.content.reducers if a not in spoke)

    def _pass_over(self, reducers: Iterable[Account]) -> None:
        """Not drawn again in this round, and after others for some more: one that keeps silent in each would cost each an attempt."""
        chosen = set(reducers)
        self._silent.setdefault(self.tip, set()).update(chosen)
        self._defer(self._passed_over, chosen)
        while len(self._silent) > 64:
            del self._silent[next(iter(self._silent))]

    def _defer(self, deferred: dict[Account, int], accounts: Iterable[Account]) -> None:
        for account in accounts:
            deferred.pop(account, None)
            deferred[account] = self.epoch + PASSED_OVER_EPOCHS
        while len(deferred) > MAX_PASSED_OVER:
            del deferred[next(iter(deferred))]

    def _hurry(self, r: Standing) -> None:
        """Do not wait for what cannot come any more. Time-outs may come at any time, so nothing depends on this being right."""
        if not r.due:
            return
        if r.phase == Phase.VOTED and self._cannot_win(r, set()):
            self._void(r)
        elif r.hurried < 2 * r.attempt + r.phase and self._is_hopeless(r):
            r.hurried = 2 * r.attempt + r.phase
            self._out.append(SetTimer(Timer("step", self.tip, r.attempt), min(GONE_SECONDS, self.rules.vote_seconds)))
        if r.phase == Phase.CLOSED and self._has_quorum(self.heard.round(self.tip).voids.get(r.attempt, {})):
            self._next_attempt(r, r.attempt + 1)

    def _is_hopeless(self, r: Standing) -> bool:
        """The initiator is gone before its set, a reducer before its report or its averages, or keeps those to itself; or
        voters are gone before their votes."""
        if r.phase != Phase.OPEN:
            return r.phase == Phase.VOTED and self._cannot_win(r, self._gone)
        heard = self.heard.round(self.tip)
        proposal, call = heard.sets.get(r.attempt), heard.calls.get(r.attempt)
        if proposal is not None:
            assert isinstance(proposal.content, SetContent)
            if self._is_prepared(r.attempt) or proposal.content.certificate is not None:
                return False
            averaged = {who for _, who in heard.averages.get(r.attempt, {})}
            withheld = {who for attempt, who in r.withheld if attempt == r.attempt}
            return bool(((self._gone - averaged) | withheld).intersection(proposal.content.reducers))
        if self.leader(r.attempt) in self._gone:
            return True
        if call is None:
            return False
        assert isinstance(call.content, CallContent)
        return bool(self._gone.intersection(call.content.reducers) - heard.reports.get(r.attempt, {}).keys())

    def _is_prepared(self, attempt: int) -> bool:
        ready = [self.proposals.get(identity) for identity, a in self._prepared if a == attempt]
        return any(known is not None and known[0].prev_certificate == self.tip for known in ready)

    def _cannot_win(self, r: Standing, gone: set[Account]) -> bool:
        """No id can get a quorum of votes any more, even if all who have not voted and are not gone vote for it."""
        voters = set(self.voters())
        votes = self.heard.round(self.tip).votes.get(r.attempt, {})
        voted = {who for signed in votes.values() for who in signed}
        most = max((len(who.keys() & voters) for identity, who in votes.items() if identity != ZERO_HASH), default=0)
        return most + len(voters - voted - gone) < quorum(len(voters))
