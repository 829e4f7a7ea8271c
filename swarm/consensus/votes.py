"""Votes, locks, certificates, voids and the next attempt (protocol §3.6–7)."""

from dataclasses import replace

from swarm.consensus.actions import SetTimer, Timer
from swarm.consensus.rechecks import finished
from swarm.consensus.roster import Roster
from swarm.consensus.round import Act, Phase, Round
from swarm.consensus.rules import RunRules
from swarm.consensus.voice import Voice
from swarm.records.types import ZERO_HASH, Account, Hash, RoundSet, RoundVoid, RoundVote

GONE_SECONDS = 1.0  # a peer that was seen and is no more gets that long to come back before an attempt is given up
LONGER_EACH_ATTEMPT, MAX_LONGER = 1.5, 6  # factor on every wait, and how often at most


class Votes:
    """A voter's part of an attempt, after its set."""

    def __init__(self, rules: RunRules, voice: Voice, roster: Roster) -> None:
        self._rules, self._voice, self._roster = rules, voice, roster

    def begin_waiting(self, r: Round) -> None:
        """The phase under way takes so long at most."""
        rules = self._rules
        seconds = rules.contribute_seconds + rules.average_seconds if r.phase == Phase.OPEN else rules.vote_seconds
        seconds *= LONGER_EACH_ATTEMPT ** min(r.attempt, MAX_LONGER)
        self._voice.ask(SetTimer(Timer("step", r.prev, r.attempt), seconds))

    def vote_if_free(self, r: Round, record: RoundSet, identity: Hash) -> None:
        if r.phase == Phase.OPEN and record.attempt == r.attempt and self._voice.account in r.voters:
            self._vote(r, identity if r.is_free(record, identity) else ZERO_HASH)

    def _vote(self, r: Round, identity: Hash) -> None:
        r.phase = Phase.VOTED
        self._voice.say(RoundVote(self._rules.run_id, r.epoch, r.attempt, r.prev, identity))
        self.begin_waiting(r)

    def certify(self, r: Round) -> None:
        """As soon as a quorum has voted for what is known here; from then on this peer is locked."""
        identity = r.certifiable() if r.phase != Phase.CLOSED else None
        if identity is None:
            return
        self._roster.saw_quorum = True
        r.phase, r.lock, r.lock_attempt = Phase.CLOSED, identity, r.attempt
        certificate, body = r.proposals[identity]
        self.begin_waiting(r)
        self._voice.say(replace(certificate, attempt=r.attempt), body)

    def time_out(self, r: Round) -> None:
        """The phase has taken too long: on to the next, or to the next attempt where a quorum is through with this one."""
        closed = r.closed_attempts()
        if closed:
            self._next_attempt(r, max(closed) + 1)
        elif r.phase == Phase.OPEN:
            self._vote(r, ZERO_HASH)
        elif r.phase == Phase.VOTED:
            self._void(r)
        else:
            self.begin_waiting(r)

    def _void(self, r: Round) -> None:
        self._voice.say(RoundVoid(self._rules.run_id, r.epoch, r.attempt, r.prev))
        r.phase = Phase.CLOSED  # where the journal refuses, the certificate was signed
        self.begin_waiting(r)

    def _next_attempt(self, r: Round, attempt: int) -> None:
        silent = r.silent_reducers(self._finished(r))
        r.silent.update(silent)
        self._roster.pass_over(silent, r.epoch)
        r.attempt, r.phase = attempt, Phase.OPEN
        self.begin_waiting(r)

    def _finished(self, r: Round) -> set[Account]:
        """Reducers of the attempt that have signed all their averages."""
        proposal = r.messages.sets.get(r.attempt)
        return set() if proposal is None else finished(self._rules, r, proposal)

    def hurry(self, r: Round) -> None:
        """Do not wait for what cannot come any more. Time-outs may come at any time, so nothing depends on this being right."""
        if not r.due:
            return
        if r.phase == Phase.VOTED and r.cannot_win(()):
            self._void(r)
            return
        act = Act.HURRY_OPEN if r.phase == Phase.OPEN else Act.HURRY_VOTED
        if (
            r.phase != Phase.CLOSED
            and r.is_hopeless(self._roster.gone, self._finished(r))
            and r.is_first(act, r.attempt)
        ):
            seconds = min(GONE_SECONDS, self._rules.vote_seconds)
            self._voice.ask(SetTimer(Timer("step", r.prev, r.attempt), seconds))
        if r.phase == Phase.CLOSED and r.has_quorum(r.messages.voids.get(r.attempt, {})):
            self._next_attempt(r, r.attempt + 1)
