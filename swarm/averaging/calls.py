"""Calls, contributions and reports: who begins an attempt, and what is complete at a reducer (PROTOCOL §3.1–4)."""

from swarm.averaging.commitments import (
    complete_hash,
    draw_order,
    reducers_hash,
)
from swarm.averaging.messages import (
    Collect,
    MakeContribution,
    Scatter,
    SetTimer,
    Timer,
)
from swarm.averaging.records import (
    FLAG_REDUCES,
    FLAG_VOTES,
    CallContent,
    ReducerReport,
    ReportContent,
    RoundCall,
    Signed,
)
from swarm.averaging.standing import Standing
from swarm.averaging.votes import Votes


class Calls(Votes):
    """From the call to the report."""

    def _current_call(self, r: Standing, voter: bool) -> Signed | None:
        calls = self.heard.round(self.tip).calls
        return calls.get(r.attempt if voter else max(calls, default=0))

    def _try_call(self, r: Standing) -> None:
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

    def _try_report(self, r: Standing, at_deadline: bool) -> None:
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
