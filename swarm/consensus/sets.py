"""Sets: which contributions count, and the certificate that follows (PROTOCOL §3.4–7)."""

from collections.abc import Sequence

from swarm.consensus.actions import (
    FetchAverages,
    ReduceSet,
)
from swarm.consensus.calls import Calls
from swarm.consensus.lineage import MAX_ELECTORATE
from swarm.consensus.standing import Phase, Standing
from swarm.records.commitments import (
    body_hash,
    contributors_root,
    draw_order,
    electorate_hash,
    reducers_hash,
)
from swarm.records.types import (
    FLAG_VOTES,
    KIND_ROUND,
    NO_ATTEMPT,
    ZERO_HASH,
    Account,
    CallContent,
    Contribution,
    ContributorLeaf,
    Hash,
    ReportContent,
    RoundBody,
    RoundCertificate,
    RoundSet,
    SetContent,
    Signed,
)


class Sets(Calls):
    """From the reports to the vote."""

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

    def _current_set(self, r: Standing, voter: bool) -> Signed | None:
        """Who has no vote reduces for the newest."""
        sets = self.heard.round(self.tip).sets
        return sets.get(r.attempt if voter else max(sets, default=0))

    def _try_set(self, r: Standing) -> None:
        if r.phase != Phase.OPEN or not r.due or r.set_done >= r.attempt or not self._initiates(r.attempt):
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

    def _new_set(self, r: Standing) -> SetContent | None:
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

    def _act_on_set(self, r: Standing, proposal: Signed) -> None:
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

    def _act_on_proposal(self, r: Standing, proposal: Signed, record: RoundSet, content: SetContent) -> None:
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

    def _is_acceptable(self, r: Standing, record: RoundSet, content: SetContent) -> bool:
        """What is proposed again: the own lock, what a quorum has voted for, or a set that would do as a new one."""
        if r.lock == record.proposal or self._voted(record, r, record.proposal):
            return True
        return self._set_fits(SetContent(content.contributors, content.reducers), record.attempt)

    def _act_on_new_set(self, r: Standing, proposal: Signed, record: RoundSet, content: SetContent) -> None:
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
