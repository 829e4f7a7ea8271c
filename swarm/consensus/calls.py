"""Calls, contributions and reports: who begins an attempt, and what is complete at a reducer (protocol §3.1–4)."""

from swarm.consensus.actions import Collect, MakeContribution, Scatter, SetTimer, Timer
from swarm.consensus.roster import Roster
from swarm.consensus.round import Act, Phase, Round
from swarm.consensus.rules import RunRules
from swarm.consensus.voice import Voice
from swarm.consensus.votes import Votes
from swarm.records.commitments import complete_hash, reducers_hash
from swarm.records.types import (
    FLAG_VOTES,
    Account,
    CallContent,
    ReducerReport,
    ReportContent,
    RoundCall,
    SignedCall,
)

REPORT_AT = 0.8  # of `contribute_seconds`: what is complete by then is reported


class Calls:
    """From the call to the report."""

    def __init__(self, rules: RunRules, voice: Voice, roster: Roster, votes: Votes) -> None:
        self._rules, self._voice, self._roster, self._votes = rules, voice, roster, votes

    def call(self, r: Round) -> None:
        """As the initiator: begin the attempt under way."""
        if r.phase != Phase.OPEN or r.attempt in r.messages.calls:
            return
        if not r.lineage.may_initiate(r.prev, r.attempt, self._voice.account):
            return
        if r.attempt >= self._rules.max_attempts or r.newest_polka() is not None:
            return  # no new contributions: an empty set, or the certificate of the newest quorum of votes
        reducers = self._roster.draw_reducers(r, min(self._rules.max_reducers, self._rules.num_parts))
        if reducers:
            record = RoundCall(self._rules.run_id, r.epoch, r.attempt, r.prev, reducers_hash(reducers), 0, 0, 0, 0)
            self._voice.say(record, CallContent(reducers))

    def act_on(self, r: Round, call: SignedCall) -> None:
        attempt = call.record.attempt
        if not r.is_first(Act.CALL, attempt):
            return
        r.complete = frozenset()  # of another draw of reducers
        if not r.due and self._voice.account in r.voters:
            r.due = True
            self._votes.begin_waiting(r)
        if self._voice.account in call.content.reducers:
            seconds = self._rules.contribute_seconds * REPORT_AT
            self._voice.ask(Collect(call), SetTimer(Timer("report", r.prev, attempt), seconds))
        if self._voice.account in r.messages.contributions:
            self._voice.ask(Scatter(call))
        else:
            self._voice.ask(MakeContribution(call))

    def was_whole(self, r: Round, attempt: int) -> dict[Account, tuple[Account, ...]]:
        """Whose contribution all reducers of an earlier attempt had, as far as its bytes are still to be had → those reducers. The
        next attempt is for the same contributions: who died since, or is passed over, is not left out for it. What a dead reducer
        had of the dead is lost."""
        live = self._roster.ready.keys() | {self._voice.account}
        found: dict[Account, tuple[Account, ...]] = {}
        for earlier in sorted(a for a in r.messages.calls if a < attempt):
            content, reports = r.messages.calls[earlier].content, r.messages.reports.get(earlier, {})
            if not reports.keys() >= set(content.reducers):
                continue
            complete = [set(reports[a].content.complete) for a in content.reducers]
            whole = set.intersection(*complete)
            for peer, signed in r.messages.first().items():
                can_be_had = peer in live or live.issuperset(content.reducers)
                if can_be_had and peer not in r.messages.lying and self._voice.notary.hash(signed.record) in whole:
                    found[peer] = content.reducers
        return found

    def report(self, r: Round, call: SignedCall, at_deadline: bool) -> None:
        """As a reducer of `call`: what is complete, once all that is to be expected is, or it takes too long."""
        attempt = call.record.attempt
        if self._voice.account not in call.content.reducers or r.has_done(Act.REPORT, attempt):
            return
        joiners = self._roster.joiners(r)
        missing = self._missing(r, attempt, joiners)
        if missing and not at_deadline:
            return
        self._roster.await_no_more(missing & joiners, r.epoch)
        if not r.complete:
            return
        complete = tuple(sorted(r.complete))
        record = ReducerReport(self._rules.run_id, r.epoch, attempt, r.prev, complete_hash(complete))
        if r.is_first(Act.REPORT, attempt):
            self._voice.say(record, ReportContent(complete))

    def _missing(self, r: Round, attempt: int, joiners: set[Account]) -> set[Account]:
        """Who is to be waited for. Who is alive and trains on this anchor will contribute, a voter also where it is a little behind:
        it may come yet. A dead one is not waited for (the set needs a quorum anyway)."""
        roster, known = self._roster, r.messages.first()
        voters, lying = {*r.voters, self._voice.account}, r.messages.lying
        behind = voters & roster.linked - roster.ready.keys()
        expected = {a for a, flags in roster.ready.items() if flags & FLAG_VOTES and a in voters | joiners} | behind
        if roster.votes:
            expected.add(self._voice.account)
        near = (voters | joiners) - roster.gone - lying | behind - lying
        was_whole = self.was_whole(r, attempt)
        awaited = {a: self._voice.notary.hash(s.record) for a, s in known.items() if a in near or a in was_whole}
        return expected - known.keys() | {a for a, key in awaited.items() if key not in r.complete}
