"""Sets: which contributions count, and the certificate that follows (protocol §3.4–7)."""

from collections.abc import Sequence

from swarm.consensus.actions import FetchAverages, ReduceSet
from swarm.consensus.lineage import MAX_ELECTORATE, Lineage
from swarm.consensus.rechecks import Rechecks
from swarm.consensus.round import Act, Phase, Proposal, Round
from swarm.consensus.rules import RunRules
from swarm.consensus.voice import Voice
from swarm.consensus.votes import Votes
from swarm.records.commitments import body_hash, contributors_root, draw_order, electorate_hash, reducers_hash
from swarm.records.types import (
    FLAG_VOTES,
    KIND_ROUND,
    NO_ATTEMPT,
    ZERO_HASH,
    Account,
    ContributorLeaf,
    Hash,
    RoundBody,
    RoundCertificate,
    RoundSet,
    SetContent,
    SignedSet,
)
from swarm.records.units import capped_units


class Sets:
    """From the reports to the vote."""

    def __init__(self, rules: RunRules, voice: Voice, lineage: Lineage, votes: Votes, rechecks: Rechecks) -> None:
        self._rules, self._voice, self._lineage, self._votes, self._rechecks = rules, voice, lineage, votes, rechecks

    # -- what a set may be --------------------------------------------------------------------------------------------
    def fits(self, r: Round, content: SetContent, attempt: int) -> bool:
        """Quorum of the electorate, or empty from `max_attempts` on; known contributions; nobody left out twice."""
        if not content.contributors:
            return attempt >= self._rules.max_attempts
        if len(content.reducers) > self._rules.max_reducers:
            return False
        for leaf in content.contributors:
            signed = r.messages.contributions.get(leaf.peer, {}).get(leaf.contribution)
            if signed is None:
                return False
            record = signed.record
            if (leaf.units, leaf.flags) != (capped_units(record.units, self._rules.max_units), record.flags):
                return False
        inside = {leaf.peer for leaf in content.contributors}
        return self.has_quorum(r, inside) and not self._omits(r, inside, content.reducers, attempt)

    def has_quorum(self, r: Round, inside: set[Account]) -> bool:
        """So that one round never takes the majority away from those who decide now."""
        return r.has_quorum(inside)

    def _omits(self, r: Round, inside: set[Account], reducers: tuple[Account, ...], attempt: int) -> bool:
        """Whether somebody was left out again without a reason. Two reducers' word is one; from the last attempt but one
        one's is enough: parts are spread, so only one reducer may lack them."""
        heard = r.messages
        reports = heard.reports.get(attempt, {})
        wanted = 2 if attempt < self._rules.max_attempts - 1 else 1
        for peer in r.omitted & heard.contributions.keys() - inside - heard.lying:
            (key,) = heard.contributions[peer]
            others = [a for a in reducers if a != peer]  # nobody attests for itself
            lacking = [a for a in others if a in reports and key not in reports[a].content.complete]
            if len(lacking) < min(wanted, len(others)):
                return True
        return False

    # -- what is certified for it -------------------------------------------------------------------------------------
    def certificate(
        self,
        prev: Hash,
        content: SetContent,
        averages: tuple[Hash, ...],
        factors: tuple[float, ...],
        median: float,
        next_root: Hash,
        units: int,
    ) -> Proposal:
        """What follows `prev` with this set, its averages and the state after them."""
        before, leaves = self._lineage[prev].certificate, content.contributors
        electorate = self._next_electorate(leaves, prev)
        body = RoundBody(leaves, content.reducers, averages, factors, median, electorate)
        certificate = RoundCertificate(
            self._rules.run_id,
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

    def _next_electorate(self, leaves: Sequence[ContributorLeaf], prev: Hash) -> tuple[Account, ...]:
        able = [leaf.peer for leaf in leaves if leaf.flags & FLAG_VOTES]
        if not able:
            return self._lineage.electorate(prev)
        epoch = self._lineage[prev].certificate.epoch + 1
        return tuple(sorted(draw_order(prev, epoch, 0, able)[:MAX_ELECTORATE]))

    def _propose_empty(self, r: Round) -> Hash:
        """The void epoch: state and electorate unchanged, no units. Its id."""
        before = self._lineage[r.prev]
        root = before.certificate.next_root
        made = self.certificate(r.prev, SetContent((), ()), (), (), before.body.median_norm, root, 0)
        identity = self._voice.notary.certificate_id(made[0])
        r.proposals[identity] = made
        return identity

    def prepared(
        self,
        r: Round,
        proposal: SignedSet,
        averages: tuple[Hash, ...],
        factors: tuple[float, ...],
        median: float,
        next_root: Hash,
        units: int,
    ) -> Hash:
        """The state after a set is here; the id of the certificate that follows."""
        record, content = proposal.record, proposal.content
        made = self.certificate(r.prev, content, averages, factors, median, next_root, units)
        identity = self._voice.notary.certificate_id(made[0])
        r.proposals[identity] = made
        r.prepared.add((identity, record.attempt))
        return identity

    # -- the initiator's set ------------------------------------------------------------------------------------------
    def propose(self, r: Round) -> None:
        """As the initiator: the certificate of the newest quorum of votes again, an empty set, or a new one."""
        if r.phase != Phase.OPEN or not r.due or r.has_done(Act.PROPOSE, r.attempt):
            return
        if not r.lineage.may_initiate(r.prev, r.attempt, self._voice.account):
            return
        polka = r.newest_polka()
        content: SetContent | None
        if polka is not None and polka[1] in r.proposals:
            certificate, body = r.proposals[polka[1]]
            content = SetContent(body.contributors, body.reducers, certificate.without_attempt(), body)
            valid = polka[0]
        elif r.attempt >= self._rules.max_attempts:
            content, valid = SetContent((), ()), NO_ATTEMPT
        else:
            content, valid = self._new_set(r), NO_ATTEMPT
        if content is None or not r.is_first(Act.PROPOSE, r.attempt):
            return
        record = RoundSet(
            self._rules.run_id,
            r.epoch,
            r.attempt,
            r.prev,
            contributors_root(content.contributors),
            len(content.contributors),
            reducers_hash(content.reducers),
            ZERO_HASH if content.certificate is None else self._voice.notary.certificate_id(content.certificate),
            valid,
        )
        self._voice.say(record, content)

    def _new_set(self, r: Round) -> SetContent | None:
        heard = r.messages
        call, reports = heard.calls.get(r.attempt), heard.reports.get(r.attempt, {})
        if call is None:
            return None
        complete: set[Hash] | None = None
        for reducer in call.content.reducers:
            if reducer not in reports:
                return None
            reported = set(reports[reducer].content.complete)
            complete = reported if complete is None else complete & reported
        leaves = []
        for peer, signed in sorted(heard.first().items()):
            record = signed.record
            key = self._voice.notary.hash(record)
            if key in (complete or ()) and peer not in heard.lying:
                leaves.append(
                    ContributorLeaf(peer, key, capped_units(record.units, self._rules.max_units), record.flags)
                )
        made = SetContent(tuple(leaves), call.content.reducers)
        return made if leaves and self.fits(r, made, r.attempt) else None

    # -- a set that was proposed --------------------------------------------------------------------------------------
    def act_on(self, r: Round, proposal: SignedSet) -> None:
        record, content = proposal.record, proposal.content
        if record.proposal != ZERO_HASH:
            self._act_on_proposal(r, proposal, record, content)
        elif not content.contributors:
            identity = self._propose_empty(r)
            if self.fits(r, content, record.attempt):
                self._votes.vote_if_free(r, record, identity)
        elif self.fits(r, content, record.attempt):
            self._act_on_new_set(r, proposal, record, content)

    def _act_on_proposal(self, r: Round, proposal: SignedSet, record: RoundSet, content: SetContent) -> None:
        """A certificate proposed again. Whoever can has its averages by now; it is redone like any other before a vote."""
        assert content.body is not None
        if not self.is_acceptable(r, record, content):
            return
        if not content.contributors:
            if record.proposal == self._propose_empty(r):
                self._votes.vote_if_free(r, record, record.proposal)
            return
        if len(content.body.averages) != self._rules.num_parts:
            return
        if (record.proposal, record.attempt) in r.prepared:
            self._votes.vote_if_free(r, record, record.proposal)
        elif r.is_first(Act.FETCH, record.attempt):
            holders = content.body.reducers
            averages = tuple((d, holders[i % len(holders)]) for i, d in enumerate(content.body.averages))
            self._voice.ask(FetchAverages(proposal, averages))

    def is_acceptable(self, r: Round, record: RoundSet, content: SetContent) -> bool:
        """What is proposed again: the own lock, or what a quorum has voted for. Nobody has signed its averages, so that it would do as a
        new set is not enough: its initiator could have put anything into them."""
        return r.lock == record.proposal or r.was_voted(record, record.proposal)

    def _act_on_new_set(self, r: Round, proposal: SignedSet, record: RoundSet, content: SetContent) -> None:
        if self._voice.account in content.reducers and proposal.signature not in r.reduced:
            r.reduced.add(proposal.signature)
            self._voice.ask(ReduceSet(proposal))
        averages = self._rechecks.averages(r, proposal)
        if averages is None:
            return
        self._rechecks.begin(r, proposal)
        digests = tuple(digest for digest, _ in averages)
        if (record.attempt, digests) not in r.fetched:
            r.fetched.add((record.attempt, digests))
            self._voice.ask(FetchAverages(proposal, averages))
        if not self._rechecks.are_done(r, proposal):
            return
        for identity, attempt in sorted(r.prepared):
            body = r.proposals[identity][1]
            if attempt == record.attempt and (body.contributors, body.averages) == (content.contributors, digests):
                self._votes.vote_if_free(r, record, identity)
