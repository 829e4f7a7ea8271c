"""Seatings and the change of lineage (PROTOCOL §5); the choice itself is `Lineage.choose`."""

from dataclasses import replace

from swarm.consensus.actions import (
    Adopt,
    CertifiedEntry,
    SetTimer,
    Timer,
)
from swarm.consensus.lineage import MAX_ELECTORATE, Entry, Trust
from swarm.consensus.sets import Sets
from swarm.records.commitments import (
    body_hash,
    contributors_root,
    draw_order,
    electorate_hash,
)
from swarm.records.types import (
    FLAG_VOTES,
    KIND_SEATING,
    ZERO_HASH,
    Account,
    Hash,
    RoundBody,
    RoundCertificate,
)

STALLS_BEFORE_FEWER = 10
MAX_JOINED = 3  # attempts at which one seating of others is signed


class Seating(Sets):
    """What ready peers do when no certificate comes."""

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
        for entry in self.lineage.unsettled_after(self.tip):
            if self._join_seating(entry):
                self._follow()
                return
        seats = self._seats()
        if self.account in seats:
            self._seat(seats, self.stalled)
        self._follow()

    def _seat_first(self) -> None:
        """As a founder: what another founder proposed if it fits what is seen here, else an own proposal."""
        seats = self._seats()
        if len(seats) < self.rules.min_seated:
            return
        for entry in self.lineage.unsettled_after(ZERO_HASH):
            if self._join_seating(entry):
                return
        self._seat(seats, self._first_seating)

    def _join_seating(self, entry: Entry) -> bool:
        """Sign a seating that another proposed: at the attempts that have most signatures, a few at most."""
        certificate, seated = entry.certificate, entry.body.electorate
        if certificate.kind != KIND_SEATING or certificate.prev_certificate != self.tip:
            return False
        if self.tip == ZERO_HASH:
            may = self.account in self.rules.founders and len(seated) >= self.rules.min_seated
        else:
            may = self.account in seated
        if not may or not set(seated) <= set(self._seats()):
            return False
        unsigned = [a for a, signed in entry.signatures.items() if self.account not in signed]
        attempts = sorted(unsigned, key=lambda a: (-len(entry.signatures[a]), a))[:MAX_JOINED]
        return any([self._say(replace(certificate, attempt=a), entry.body) for a in attempts])  # noqa: C419 (sign all)

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

    def _may_follow(self, entry: Entry, trust: Trust) -> bool:
        """Whether a seating off the own path may be followed: only with a third of the voters in it, and on the own tip only by
        who has stalled, or has not seen this tip alive since its start and may have slept through the stall."""
        certificate = entry.certificate
        prev = certificate.prev_certificate
        if certificate.kind != KIND_SEATING or prev == ZERO_HASH or self._restoring:
            return True
        if prev == self.tip and self.stalled > STALLS_BEFORE_FEWER:
            return True
        patient = prev != self.tip or self.stalled > 0 or not self._saw_quorum
        signers = self.lineage.branch_signers(entry.id, trust) if patient else set[Account]()
        return patient and self.lineage.is_supported(entry.id, signers, trust)

    def _follow(self) -> None:
        new = self.lineage.choose(self.tip, self._may_follow)
        if new == self.tip:
            return
        old = self.tip
        undone, taken = self.lineage.steps(old, new)
        known = self.heard.round(self.lineage[new].certificate.prev_certificate).contributions
        inside = {leaf.peer for leaf in self.lineage[new].body.contributors}
        self._omitted = set(known) - inside
        self.tip, self.stalled = new, 0
        self._out.append(Adopt(tuple(self._entry(identity) for identity in taken), tuple(undone)))
        self._reduced.clear()
        self._forget(old)
        self._set_stall_timer()
        r = self._round()
        if r.due:  # before a restart, or before another branch was followed: its time-outs passed unheard
            self._step_timer(r)
        self._progress()

    def _entry(self, identity: Hash) -> CertifiedEntry:
        entry = self.lineage[identity]
        attempt = entry.attempt or 0
        signatures = tuple(sorted(entry.signatures.get(attempt, {}).items()))
        return CertifiedEntry(identity, replace(entry.certificate, attempt=attempt), entry.body, signatures)

    def _forget(self, old: Hash) -> None:
        """Messages of rounds before the last one; the bounds on memory."""
        keep = {old, self.tip}
        self.heard.keep_rounds(self.tip, old)
        self._prepared = {
            (i, a) for i, a in self._prepared if i in self.proposals and self.proposals[i][0].prev_certificate in keep
        }
        for identity in [i for i, (c, _) in self.proposals.items() if c.prev_certificate not in keep]:
            del self.proposals[identity]
