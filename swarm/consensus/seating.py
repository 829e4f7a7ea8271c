"""Seatings: what ready peers do when no certificate comes (protocol §5.2–3); the choice between branches is `Lineage.choose`."""

from dataclasses import replace

from swarm.consensus.actions import SetTimer, Timer
from swarm.consensus.lineage import Lineage, LineageEntry
from swarm.consensus.roster import Roster
from swarm.consensus.rules import RunRules
from swarm.consensus.voice import Voice
from swarm.records.commitments import body_hash, contributors_root, electorate_hash
from swarm.records.types import KIND_SEATING, ZERO_HASH, Account, Hash, RoundBody, RoundCertificate

STALLS_BEFORE_FEWER = 10
MAX_JOINED = 3  # attempts at which one seating of others is signed


class Seating:
    """Of one peer, from stall to stall."""

    def __init__(self, rules: RunRules, voice: Voice, roster: Roster, lineage: Lineage) -> None:
        self._rules, self._voice, self._roster, self._lineage = rules, voice, roster, lineage
        self.stalls = 0  # since the last certificate
        self._first_attempt = 0

    def begin_waiting(self, tip: Hash) -> None:
        """A certificate is to come within the run's `stall_seconds`."""
        self._voice.ask(SetTimer(Timer("stall", tip), self._rules.stall_seconds))

    def moved(self, tip: Hash) -> None:
        """A certificate has come."""
        self.stalls = 0
        self.begin_waiting(tip)

    def stall(self, tip: Hash) -> None:
        """None has come: sign what others propose, or propose."""
        self.begin_waiting(tip)
        if tip == ZERO_HASH:
            self._first_attempt += 1  # only founders seat the first; they try again with who is ready then
            return
        self.stalls += 1
        seats = self._seats(tip)
        if any(self.join(entry, tip, seats) for entry in self._lineage.undecided_after(tip)):
            return
        if self._voice.account in seats:
            self._seat(seats, self.stalls, tip)

    def seat_first(self) -> None:
        """As a founder: what another founder proposed if it fits what is seen here, else an own proposal."""
        seats = self._seats(ZERO_HASH)
        if len(seats) < self._rules.min_seated:
            return
        if not any(self.join(entry, ZERO_HASH, seats) for entry in self._lineage.undecided_after(ZERO_HASH)):
            self._seat(seats, self._first_attempt, ZERO_HASH)

    def join(self, entry: LineageEntry, tip: Hash, seats: tuple[Account, ...] | None = None) -> bool:
        """Sign a seating that another proposed: at the attempts that have most signatures, a few at most. `seats`: as seen now."""
        certificate, seated = entry.certificate, entry.body.electorate
        if certificate.kind != KIND_SEATING or certificate.prev_certificate != tip:
            return False
        if tip == ZERO_HASH:
            may = self._voice.account in self._rules.founders and len(seated) >= self._rules.min_seated
        else:
            may = self._voice.account in seated
        if not may or not set(seated) <= set(self._seats(tip) if seats is None else seats):
            return False
        unsigned = [a for a, signed in entry.signatures.items() if self._voice.account not in signed]
        attempts = sorted(unsigned, key=lambda a: (-len(entry.signatures[a]), a))[:MAX_JOINED]
        signed = [self._voice.say(replace(certificate, attempt=a), entry.body) for a in attempts]
        return any(signed)

    def _seats(self, tip: Hash) -> tuple[Account, ...]:
        return self._roster.seats(tip, self._lineage[tip].certificate.epoch + 1)

    def _seat(self, seats: tuple[Account, ...], attempt: int, tip: Hash) -> None:
        before = self._lineage[tip]
        body = RoundBody((), (), (), (), before.body.median_norm, seats)
        certificate = RoundCertificate(
            self._rules.run_id,
            before.certificate.epoch + 1,
            attempt,
            KIND_SEATING,
            tip,
            before.certificate.next_root,
            before.certificate.next_root,
            contributors_root(()),
            0,
            0,
            before.certificate.cumulative_units,
            electorate_hash(seats),
            body_hash(body),
        )
        self._voice.say(certificate, body)

    def may_follow(self, entry: LineageEntry, tip: Hash) -> bool:
        """Whether a seating off the own path may be followed: only with a third of the voters in it, and on the own tip only by
        who has stalled, or has not seen this tip alive since its start and may have slept through the stall."""
        certificate = entry.certificate
        prev = certificate.prev_certificate
        if certificate.kind != KIND_SEATING or prev == ZERO_HASH:
            return True
        if prev == tip and self.stalls > STALLS_BEFORE_FEWER:
            return True
        if prev == tip and self.stalls == 0 and self._roster.saw_quorum:
            return False
        return self._lineage.is_supported(entry.id)
