"""Calls, contributions and reports: who begins an attempt, and what is complete at a reducer (PROTOCOL §3.1–4)."""

from swarm.consensus.actions import (
    Collect,
    MakeContribution,
    Scatter,
    SetTimer,
    Timer,
)
from swarm.consensus.standing import Phase, Standing
from swarm.consensus.votes import Votes
from swarm.records.commitments import (
    complete_hash,
    draw_order,
    reducers_hash,
)
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    Account,
    CallContent,
    ReducerReport,
    ReportContent,
    RoundCall,
    Signed,
)

MIN_REDUCERS = 2


class Calls(Votes):
    """From the call to the report."""

    def _current_call(self, r: Standing, voter: bool) -> Signed | None:
        calls = self.heard.round(self.tip).calls
        return calls.get(r.attempt if voter else max(calls, default=0))

    def _try_call(self, r: Standing) -> None:
        heard = self.heard.round(self.tip)
        if r.phase != Phase.OPEN or r.attempt in heard.calls or not self._initiates(r.attempt):
            return
        if r.attempt >= self.rules.max_attempts or self._newest_polka() is not None:
            return  # no new contributions: an empty set, or the certificate of the newest quorum of votes
        reducers = self._draw_reducers(r)
        if not reducers:
            return
        record = RoundCall(self.rules.run_id, r.epoch, r.attempt, self.tip, reducers_hash(reducers), 0, 0, 0, 0)
        self._say(record, CallContent(reducers))

    def _draw_reducers(self, r: Standing) -> tuple[Account, ...]:
        """Voters before all others: a key costs nothing, a vote a contribution that was certified. Where fewer than two of them
        will do, so many others that two can witness for each other."""
        heard = self.heard.round(self.tip)
        voters = set(self.voters())
        able = {a for a, flags in self._ready.items() if flags & FLAG_REDUCES}
        # a voter that contributed already and can reduce is alive too
        able |= {a for a, s in heard.first().items() if s.record.flags & FLAG_REDUCES and a in voters}  # type: ignore[union-attr]
        able |= {self.account} if self.reduces else set()
        able -= heard.lying | self._gone | self._unreached | self._silent.get(self.tip, set())
        late = {a for a in able if self._passed_over.get(a, 0) >= r.epoch}
        drawn: list[Account] = sorted(able & voters - late)
        for others in (able & voters & late, able - voters - late, able - voters & late):
            room = max(0, MIN_REDUCERS - len(drawn))
            drawn += draw_order(self.tip, r.epoch, r.attempt, others)[:room]
        ranked = draw_order(self.tip, r.epoch, r.attempt, drawn)
        return tuple(ranked[: min(self.rules.max_reducers, self.rules.num_parts)])

    def _act_on_call(self, r: Standing, call: Signed) -> None:
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

    def was_whole(self, attempt: int) -> dict[Account, tuple[Account, ...]]:
        """Whose contribution all reducers of an earlier attempt had, as far as its bytes are still to be had → those reducers. The
        next attempt is for the same contributions: who died since, or is passed over, is not left out for it. What a dead reducer
        had of the dead is lost."""
        heard = self.heard.round(self.tip)
        live = self._ready.keys() | {self.account}
        found: dict[Account, tuple[Account, ...]] = {}
        for earlier in sorted(a for a in heard.calls if a < attempt):
            content, reports = heard.calls[earlier].content, heard.reports.get(earlier, {})
            assert isinstance(content, CallContent)
            if not reports.keys() >= set(content.reducers):
                continue
            complete = [set(reports[a].content.complete) for a in content.reducers]  # type: ignore[union-attr]
            for peer, signed in heard.first().items():
                can_be_had = peer in live or live.issuperset(content.reducers)
                if (
                    can_be_had
                    and peer not in heard.lying
                    and self.notary.hash(signed.record) in set.intersection(*complete)
                ):
                    found[peer] = content.reducers
        return found

    def _try_report(self, r: Standing, at_deadline: bool) -> None:
        call = self._current_call(r, self.account in self.voters())
        if call is None or not isinstance(call.content, CallContent) or self.account not in call.content.reducers:
            return
        attempt = call.record.attempt  # type: ignore[union-attr]
        if r.report_done >= attempt:
            return
        heard = self.heard.round(self.tip)
        known = heard.first()
        voters, ready = {*self.voters(), self.account}, self._ready
        # a joiner that did not keep its word is not waited for again, nor is a key that nobody has a link with
        joiners = {a for a in ready if a not in voters and self._unawaited.get(a, 0) < r.epoch}
        # who is alive and trains on this anchor will contribute, a voter also where it is a little behind: it may come yet. A dead
        # one is not waited for (the set needs a quorum anyway)
        behind = voters & self._linked - ready.keys()
        expected = {a for a, flags in ready.items() if flags & FLAG_VOTES and a in voters | joiners} | behind
        if self.votes:
            expected.add(self.account)
        near = (voters | joiners) - self._gone - heard.lying | behind - heard.lying
        was_whole = self.was_whole(attempt)
        awaited = {a: self.notary.hash(s.record) for a, s in known.items() if a in near or a in was_whole}
        missing = expected - known.keys() | {a for a, key in awaited.items() if key not in r.complete}
        if missing and not at_deadline:
            return
        self._defer(self._unawaited, missing & joiners)
        if not r.complete:
            return
        complete = tuple(sorted(r.complete))
        record = ReducerReport(self.rules.run_id, r.epoch, attempt, self.tip, complete_hash(complete))
        r.report_done = attempt
        self._say(record, ReportContent(complete))
