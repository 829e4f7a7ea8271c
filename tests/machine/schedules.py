"""A randomised scheduler of the product's own round: storms of faults, then healing, then the properties of docs/decisions/0003.

    python -m tests.machine.schedules --schedules 20000 --processes 2
    python -m tests.machine.schedules --seed 1 --only 123 --trace
    python -m tests.machine.schedules --off lock,ghost          # rules taken out (names: tests.machine.ablations)

S1 one kind-0 certificate per (prevCertificate, epoch)    S2 no honest peer signs two digests for one subject, restarts included
S3 one lineage after healing, one anchor                  S4 a unit is on the lineage or in its peer's residual, once
S5 a lineage signed by liars alone is never followed      S6 one round never takes an honest electorate's majority away
A1 nobody honest is shown to average wrongly              A2 a wrong average that somebody has to look at is not certified
L1 certificates go on after healing, without a seating if a quorum lives    L2 they also go on when more than that died
E1 nobody honest signs anything on a round after the run's last certificate, nor follows it; L1 and L2 hold up to there
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import random
import sys
import time
from collections import Counter
from pathlib import Path

from swarm.consensus.actions import Adopt, Blame, Expose, Timer
from swarm.consensus.lineage import Lineage
from swarm.consensus.machine import RunRules
from swarm.consensus.rechecks import MIN_CONTRIBUTORS
from swarm.consensus.rules import NO_END
from swarm.records.commitments import quorum
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_ROUND,
    ZERO_HASH,
    Account,
    Average,
    Content,
    Contribution,
    Hash,
    Progress,
    Record,
    RoundBody,
    RoundCall,
    RoundCertificate,
    RoundSet,
    RoundVote,
    Signed,
)
from swarm.records.wire import unpack_content
from tests.machine import ablations
from tests.machine.cheap import account, cheap_cryptography, digest, journal_directory
from tests.machine.liars import Liars
from tests.machine.member import Member

RUN = b"r" * 32
SEED_PEER = 100
STEPS = 240
RECHECK_SHARES = (0.0, 0.1, 1.0)
END_AFTER = (NO_END, NO_END, NO_END, 5, NO_END, NO_END, NO_END, 40)  # units on the run's clock


class Violation(Exception):
    pass


class World:
    unpack_content = staticmethod(unpack_content)

    def __init__(
        self,
        rng: random.Random,
        directory: Path,
        kit: ablations.Kit,
        trace: bool = False,
        recheck_share: float = 0.0,
        total_units: int = NO_END,
    ) -> None:
        self.rng, self.directory, self.kit, self.trace = rng, directory, kit, trace
        self.log = hashlib.sha256()
        self.count: Counter[str] = Counter()
        size = rng.choice((1, 2, 3, 4, 4, 5, 6, 7))
        numbers = list(range(size))
        byzantine = sorted(rng.sample(numbers, rng.randint(0, (size - 1) // 3))) if size >= 4 else []
        self.size, self.calm, self.left, self.loss = size, False, False, 0.0
        self.lossy: tuple[type[Record], ...] = ()
        self.lossy_until = 0
        num_seeds = rng.choice((1, 1, 2, 3))
        founders = tuple(sorted(account(SEED_PEER + i) for i in range(num_seeds)))
        parts = rng.choice((1, 2, 2, 3))
        self.rules = RunRules(
            RUN, digest("initial"), founders, parts, 3, rng.choice((1, 2, 16)), 100, max(1, size - len(byzantine)),
            10.0, 10.0, 5.0, 60.0, recheck_share, total_units,
        )  # fmt: skip
        self.wire: list[
            tuple[int, int, Signed | Hash]
        ] = []  # from (−1: a liar), to, message or parts of a contribution
        self.part: dict[int, int] = {}
        self.journals: dict[tuple[object, ...], Record] = {}
        self.bags: dict[Hash, tuple[int, Counter[int]]] = {}
        self.electorates: dict[Hash, tuple[Account, ...]] = {ZERO_HASH: founders}
        self.signers: dict[tuple[Hash, int], set[Account]] = {}
        self.certified: dict[tuple[Hash, int], set[Hash]] = {}
        self.liars_bytes: set[Hash] = set()
        self.byzantine = {account(n) for n in byzantine}
        self.members: list[Member] = []
        self.by_account: dict[Account, Member] = {}
        clients = rng.choice((0, 0, 0, 1))
        for n in numbers:
            if n not in byzantine:
                self.add(n, FLAG_VOTES | (0 if clients and n == size - 1 and size > 1 else FLAG_REDUCES))
        for i in range(num_seeds):
            self.add(SEED_PEER + i, 0)
        self.liars = Liars(self, tuple(sorted(self.byzantine)))
        if rng.random() < 0.75:
            self.seat_at_first()

    def add(self, number: int, flags: int) -> Member:
        member = Member(self, number, flags, self.directory)
        self.members.append(member)
        self.by_account[member.account] = member
        return member

    def seat_at_first(self) -> None:
        """The founders have seated everybody, liars too, before the storm begins."""
        seats = {account(n): FLAG_VOTES | FLAG_REDUCES for n in range(self.size)}
        for member in self.members:
            if member.flags == 0:
                member.ready(seats)
        while self.wire:
            self.deliver(0)
        if self.rng.random() < 0.5:
            for member in [m for m in self.members if m.flags == 0]:
                member.stop(True)
                self.members.remove(member)

    def close(self) -> None:
        for member in self.by_account.values():
            if member.live:
                member.stop(True)

    def say(self, *what: object) -> None:
        if self.trace:
            print("   ", *what)

    # -- what others see ----------------------------------------------------------------------------------------------
    def name(self, who: Account) -> str:
        member = self.by_account.get(who)
        return "liar " + who.hex()[:4] if member is None else str(member.number)

    def honest(self) -> list[Member]:
        return [m for m in self.members if m.live]

    def reach(self, a: int, b: int) -> bool:
        return self.part.get(a, 0) == self.part.get(b, 0) or a < 0

    def send(self, sender: Member, signed: Signed) -> None:
        self.log.update(repr((sender.number, signed)).encode())
        self.say(sender.number, "says", short(signed, self))
        for member in self.members:
            if member is not sender:
                self.wire.append((sender.number, member.number, signed))

    def send_parts(self, sender: Member, reducer: Account, key: Hash) -> None:
        member = self.by_account.get(reducer)
        if member is not None:
            self.wire.append((sender.number, member.number, key))

    def holder_of_parts(self, asker: Member, key: Hash, owner: Account) -> bool:
        member = self.by_account.get(owner)
        return (
            member is not None and member.live and self.reach(asker.number, member.number) and key in member.disk.held
        )

    def holder_of_average(self, asker: Member, average: Hash) -> bool:
        return average in self.liars_bytes or any(
            m.live and average in m.disk.averages and self.reach(asker.number, m.number) for m in self.members
        )

    def ready_of(self, member: Member, everyone: bool) -> dict[Account, int]:
        out = {
            m.account: m.flags
            for m in self.honest()
            if m is not member
            and m.flags
            and self.reach(member.number, m.number)
            and m.machine.epoch >= member.machine.epoch - 1
            and (everyone or self.rng.random() < 0.9)
        }
        if not self.calm:
            out.update({a: FLAG_VOTES | FLAG_REDUCES for a in sorted(self.byzantine) if self.rng.random() < 0.8})
        return out

    # -- properties ---------------------------------------------------------------------------------------------------
    def healthy(self, voters: tuple[Account, ...]) -> bool:
        lying = len(self.byzantine & set(voters))
        return 3 * lying < len(voters) if len(voters) >= 4 else lying == 0

    def signed(self, member: Member, record: Record) -> None:
        """S2: by the rules as written, not by what the notary takes for a subject."""
        if isinstance(record, Progress):
            return
        kind = type(record).__name__
        attempt = 0 if isinstance(record, Contribution) else record.attempt  # type: ignore[union-attr]
        rest = record.part if isinstance(record, Average) else getattr(record, "kind", 0)
        subject = (member.number, kind, record.epoch, attempt, record.prev_certificate, rest)  # type: ignore[union-attr]
        if self.is_after_the_end(member, record.prev_certificate):  # type: ignore[union-attr]
            raise Violation("E1 a word on a round after the last one")
        if self.journals.setdefault(subject, record) != record:
            raise Violation("S2 two digests for one subject")
        other = {"RoundVoid": "RoundCertificate", "RoundCertificate": "RoundVoid"}.get(kind)
        if other and rest == KIND_ROUND and (member.number, other, *subject[2:]) in self.journals:
            raise Violation("S2 a certificate and a void in one attempt")
        if isinstance(record, RoundCertificate):
            self.count_certificate(member.account, record, None)

    def is_after_the_end(self, member: Member, prev: Hash) -> bool:
        """By the sum of all weights before it, counted here."""
        lineage = getattr(getattr(member, "machine", None), "lineage", None)  # None: it is being restored
        if lineage is None or not lineage.valid(prev):
            return False
        clock = 0
        for identity in lineage.path(prev):
            units = sorted(leaf.units for leaf in lineage[identity].body.contributors if leaf.units)
            clock += sum(min(each, 2 * units[(len(units) - 1) // 2]) for each in units)
        return clock >= self.rules.total_units

    def count_certificate(self, who: Account, record: RoundCertificate, content: Content) -> None:
        """S1 and S6, on all signatures that exist, also those that nobody has received."""
        identity = self.members[0].notary.certificate_id(record) if self.members else b""
        if isinstance(content, RoundBody) and who in self.byzantine:
            self.electorates.setdefault(identity, content.electorate)
        elif who in self.by_account:
            known = self.by_account[who].machine
            body = known.proposed_after(record.prev_certificate).get(identity)
            if body is not None:
                self.electorates.setdefault(identity, body[1].electorate)
        signers = self.signers.setdefault((identity, record.attempt), set())
        signers.add(who)
        voters = self.electorates.get(record.prev_certificate)
        if record.kind != KIND_ROUND or voters is None:
            return
        if len((signers | self.byzantine) & set(voters)) < quorum(len(voters)) or not signers - self.byzantine:
            return  # a liar's signature can come at any time
        done = self.certified.setdefault((record.prev_certificate, record.epoch), set())
        done.add(identity)
        if not self.healthy(voters):
            return
        if len(done) > 1:
            raise Violation("S1 two certificates with a quorum")
        after = self.electorates.get(identity)
        captured = after and 2 * len(set(after) & self.byzantine) >= len(after)
        if captured and len(voters) >= 4 and record.num_contributors and not self.left:
            raise Violation("S6 electorate captured in one round")

    def adopted(self, member: Member, action: Adopt) -> None:
        machine = member.machine
        first = action.path[0]
        prev = first.certificate.prev_certificate
        self.say("peer", member.number, "follows", [(e.certificate.epoch, e.id.hex()[:6]) for e in action.path],
                 "undone", len(action.undone))  # fmt: skip
        for entry in action.path:
            if self.is_after_the_end(member, entry.certificate.prev_certificate):
                raise Violation("E1 a certificate after the last one is followed")
            self.electorates.setdefault(entry.id, entry.body.electorate)
            self.check_averages(machine.lineage.electorate(entry.certificate.prev_certificate), entry.body)
        self.log.update(repr((member.number, [e.id for e in action.path], action.undone)).encode())
        old = machine.lineage.electorate(prev)
        if action.undone:
            self.count["lineage changes"] += 1
            self.count["rounds undone"] += any(not machine.lineage[i].certificate.kind for i in action.undone)
            since: set[Account] = set()
            for entry in action.path:
                since |= machine.lineage[entry.id].signers()
            left_behind = whole_branch(machine.lineage, action.undone[-1]) & set(old)
            if len(old) >= 4 and since <= self.byzantine and self.healthy(old) and len(left_behind) > len(old) // 3:
                raise Violation("S5 a lineage of liars was followed")
        elif (
            first.certificate.kind != KIND_ROUND
            and prev != ZERO_HASH
            and self.healthy(old)
            and member.stalls <= ablations.STALLS_BEFORE_FEWER
            and not (member.restoring and member.has_followed(first.id))  # judged then
            and not whole_branch(machine.lineage, first.id) - self.byzantine
        ):
            raise Violation("S5 a seating of liars alone was followed")
        member.stalls = 0

    def blamed(self, member: Member, action: Blame) -> None:
        self.say("peer", member.number, "blames", self.name(action.account), action.reason)
        self.count["blames"] += 1
        if action.account in self.by_account and not self.ablated:
            self.count[f"innocent blamed: {action.reason}"] += 1

    def exposed(self, member: Member, action: Expose) -> None:
        """A1: nobody honest is shown to have averaged wrongly."""
        self.count["wrong averages exposed"] += 1
        if action.average.signer in self.by_account and not self.ablated:
            raise Violation("A1 an honest reducer is exposed")

    def check_averages(self, voters: tuple[Account, ...], body: RoundBody) -> None:
        """A2: of a model of one part, at which everybody looks who looks at all, no wrong average is certified."""
        true = tuple(digest("average", body.contributors, part) for part in range(len(body.averages)))
        if body.averages != true and self.rules.recheck_share > 0.0 and len(body.contributors) >= MIN_CONTRIBUTORS:
            self.count["wrong averages certified"] += 1
            if self.rules.num_parts == 1 and self.healthy(voters):
                raise Violation("A2 a wrong average was certified")

    ablated = False

    # -- the scheduler ------------------------------------------------------------------------------------------------
    def member(self, number: int) -> Member | None:
        return next((m for m in self.members if m.number == number), None)

    def deliver(self, position: int) -> None:
        wire, rng = self.wire, self.rng
        source, target, item = wire.pop(position)
        member = self.member(target)
        if member is None or not member.live:
            return
        if not self.reach(source, target):
            return  # the link is down; what is missed comes with the backlog when it is up again
        lossy = not self.lossy or (
            isinstance(item, Signed)
            and isinstance(item.record, self.lossy)
            and getattr(item.record, "attempt", 0) <= self.lossy_until
        )
        if not self.calm and lossy and rng.random() < self.loss:
            if rng.random() < 0.5:
                wire.append((source, target, item))  # twice
            else:
                return
        if isinstance(item, Signed):
            member.hear(item)
        else:
            member.hear_parts(item)

    def link_up(self, a: Member, b: Member) -> bool:
        """Both hand over their backlog; whether anything in it was new."""
        before = len(a.seen) + len(b.seen)
        for giver, taker in ((a, b), (b, a)):
            if giver.live and taker.live:
                for signed in giver.backlog():
                    taker.hear(signed)
        return a.live and b.live and len(a.seen) + len(b.seen) != before

    def stall(self, member: Member) -> None:
        if member.live:
            member.stalls += 1
            member.fire(Timer("stall", member.machine.tip))

    def storm(self, steps: int) -> None:
        rng = self.rng
        rough, lies = rng.choice((0, 0.004, 0.01, 0.04)), rng.choice((0.04, 0.2, 0.4))
        late, gossip = rng.choice((0.005, 0.02, 0.06, 0.12)), rng.choice((0.0, 0.0, 0.03))
        self.loss = rng.choice((0.0, 0.05, 0.3, 0.6))
        # what gets lost: anything, or what decides a round, so that everything before it gets that far
        certificate, vote = (RoundCertificate,), (RoundVote,)
        self.lossy = rng.choice(((), (), certificate, vote, certificate + vote, (RoundSet,), (Average, RoundCall)))
        self.lossy_until = rng.choice((0, 1, 10_000)) if self.lossy else 10_000  # and then only in the first attempts
        reordering, pace = rng.choice((1, 8, 10_000)), rng.choice((1, 3, 8))
        for member in self.members:
            member.ready(self.ready_of(member, True))
        for _ in range(steps):
            live = self.honest()
            u = rng.random()
            if u < rough:
                self.fault(live)
            elif u < lies and self.byzantine:
                self.liars.lie()
            elif u < lies + gossip and len(live) > 1:
                a, b = rng.sample(live, 2)
                if self.reach(a.number, b.number):
                    self.link_up(a, b)
            elif u < lies + gossip + late and live:
                member = rng.choice(live)
                timers = [t for t in member.timers if t.name != "stall"]
                if timers:
                    member.fire(rng.choice(timers))
            elif (u < lies + gossip + late + 0.08 or not self.wire) and live:
                member = rng.choice(live)
                what = rng.randrange(4)
                if what == 0:
                    member.ready(self.ready_of(member, False))
                elif what == 1:
                    member.due()
                elif what == 2:
                    member.pull()
                elif not self.wire:
                    for timer in [t for t in member.timers if t.name != "stall"]:
                        member.fire(timer)
            elif self.wire:
                for _ in range(min(pace, len(self.wire))):
                    self.deliver(rng.randrange(min(len(self.wire), reordering)))

    def fault(self, live: list[Member]) -> None:
        rng = self.rng
        what = rng.randrange(9)
        if what == 0 and live:
            member = rng.choice(live)
            if rng.random() < 0.5:
                member.fuse = rng.randint(1, 8)
            else:
                self.kill(member)
        elif what == 1:
            dead = [m for m in self.members if not m.live]
            if dead:
                self.restart(rng.choice(dead))
        elif what == 2:
            self.part = {m.number: rng.randrange(2) for m in self.members} if rng.random() < 0.6 else {}
        elif what == 3 and len(self.members) < self.size + 3:
            self.say("joins", self.size + 10 + len(self.members))
            joiner = self.add(self.size + 10 + len(self.members), FLAG_VOTES | FLAG_REDUCES)
            for other in live:
                if self.reach(joiner.number, other.number) and rng.random() < 0.7:
                    self.link_up(joiner, other)
        elif what == 4 and live:
            self.leave(rng.choice(live))
        elif what == 5 and rng.random() < 0.5:
            self.schism(live)
        elif what >= 5 and live:
            member = rng.choice(live)
            member.ready(self.ready_of(member, False))
            self.stall(member)

    def schism(self, live: list[Member]) -> None:
        """Two halves that cannot hear each other for so long that each seats itself anew."""
        self.part = {m.number: self.rng.randrange(2) for m in self.members}
        self.say("schism", self.part)
        times = self.rng.choice((2, 2 + ablations.STALLS_BEFORE_FEWER))
        for member in live:
            member.ready(self.ready_of(member, True))
        for _ in range(times):
            for member in live:
                self.stall(member)
            for _ in range(min(len(self.wire), 60)):
                self.deliver(self.rng.randrange(len(self.wire)))

    def leave(self, member: Member) -> None:
        if member.flags & FLAG_VOTES:
            self.say("leaves", member.number)
            member.leaving = self.left = True
            member.flags &= ~FLAG_VOTES
            if member.live:
                member.machine.votes = False

    def kill(self, member: Member) -> None:
        self.say("killed", member.number)
        member.stop(self.rng.random() < 0.6)
        self.wire = [w for w in self.wire if w[0] != member.number or self.rng.random() < 0.5]

    def restart(self, member: Member) -> None:
        self.say("restarts", member.number)
        member.start()
        for other in self.honest():
            if other is not member and self.reach(member.number, other.number) and self.rng.random() < 0.7:
                self.link_up(member, other)

    # -- healing ------------------------------------------------------------------------------------------------------
    def flush(self) -> None:
        for _ in range(10_000):
            while self.wire:
                self.deliver(self.rng.randrange(len(self.wire)))
            if not any([m.pull() for m in self.honest()]) and not self.wire:  # noqa: C419 (all of them pull)
                return
        raise Violation("L1 messages without end")

    def everyone_ready(self) -> None:
        for member in self.honest():
            member.ready(self.ready_of(member, True))

    def heal(self) -> None:
        """All heals and messages are timely; returns after two more round certificates on one lineage."""
        rng = self.rng
        self.calm, self.part = True, {}
        self.say("heals")
        for member in self.members:
            member.fuse = 0
            if not member.live and (rng.random() < 0.6 or member.leaving):
                self.restart(member)
        live = self.honest()
        if not any(m.flags & FLAG_VOTES for m in live):
            return
        if all(m.machine.tip == ZERO_HASH for m in live):
            founders = sum(m.account in self.rules.founders for m in live)
            able_to_seat = founders >= quorum(len(self.rules.founders))
            if not able_to_seat or sum(bool(m.flags & FLAG_VOTES) for m in live) < self.rules.min_seated:
                return
        self.flush()
        while any([self.link_up(a, b) for i, a in enumerate(live) for b in live[:i]]):  # noqa: C419 (all of them)
            self.flush()
        self.count["healed"] += 1
        alive = {m.account for m in live}
        split = done = 0
        for _ in range(60):
            if all(m.machine.has_ended for m in live):
                self.count["ended"] += 1
                done = 2
                break
            before = {m.number: m.machine.tip for m in live}
            tips = set(before.values())
            voters = live[0].machine.voters()
            able = (
                len(tips) == 1 and live[0].machine.tip != ZERO_HASH and len(alive & set(voters)) >= quorum(len(voters))
            )
            if self.settle(live, tips, 6 * (self.rules.max_attempts + len(voters) + 2)):
                for member in live:
                    if member.machine.tip == before[member.number]:  # the others went on: its own stall timer fires
                        self.stall(member)
                self.flush()
            else:
                self.count["seatings after healing"] += 1
                split += able
                for member in live:
                    self.stall(member)
                    self.stall(member)
                self.flush()
                continue
            if len({m.machine.tip for m in live}) == 1:
                tip = live[0].machine.lineage[live[0].machine.tip]
                done += tip.certificate.kind == KIND_ROUND
                if done >= 2:
                    break
        if len({m.machine.tip for m in live}) > 1:
            raise Violation("S3 more than one lineage")
        if done < 2:
            raise Violation("L1 no certificates after healing")
        if split:
            raise Violation("L1 stalled with a quorum alive")
        self.check_units(live)

    def settle(self, live: list[Member], tips: set[Hash], time_outs: int) -> bool:
        """Whether a tip changed before that many time-outs of a step."""
        for turn in range(time_outs):
            self.everyone_ready()
            for member in self.rng.sample(live, len(live)):
                member.due()
            self.flush()
            for name in ("report", "step"):
                if {m.machine.tip for m in live} != tips:
                    self.count["time-outs in calm"] += turn
                    self.count["certificates in calm"] += 1
                    return True
                for member in self.rng.sample(live, len(live)):
                    timer = next((t for t in member.timers if t.name == name and t.prev_certificate == member.machine.tip
                                  and t.attempt == member.machine.attempt), None)  # fmt: skip
                    if timer is not None:
                        member.fire(timer)
                self.flush()
        return {m.machine.tip for m in live} != tips

    def check_units(self, live: list[Member]) -> None:
        """S4."""
        spent: Counter[tuple[int, int]] = Counter()
        lineage = live[0].machine.lineage
        for identity in lineage.path(live[0].machine.tip):
            for leaf in lineage[identity].body.contributors:
                number, bag = self.bags.get(leaf.contribution, (-1, Counter()))
                for unit, times in bag.items():
                    spent[number, unit] += times
        for member in self.members:
            trainer = member.disk.trainer
            holds = trainer.holds() if member.live else Counter()
            for unit in range(trainer.units):
                times = spent[member.number, unit] + holds[unit]
                if times > 1:
                    raise Violation("S4 a unit applied twice")
                if times == 0 and unit >= trainer.lost and member.live:
                    raise Violation("S4 a unit lost silently")


def whole_branch(lineage: Lineage, identity: Hash) -> set[Account]:
    """All who signed anything from `identity` on."""
    return lineage[identity].signers().union(*(whole_branch(lineage, c) for c in lineage.children.get(identity, ())))


def short(signed: Signed, world: World) -> str:
    record = signed.record
    shown = [f"{k}={getattr(record, k)}" for k in ("epoch", "attempt") if hasattr(record, k)]
    for key in ("prev_certificate", "id", "proposal", "digest"):
        if hasattr(record, key):
            shown.append(f"{key}={getattr(record, key).hex()[:6]}")
    if isinstance(record, RoundCertificate):
        shown.append(f"kind={record.kind} itself={world.members[0].notary.certificate_id(record).hex()[:6]}")
    return type(record).__name__ + " " + " ".join(shown)


def one(
    seed: int, index: int, directory: Path, off: tuple[str, ...] = (), trace: bool = False
) -> tuple[str | None, Counter[str], str]:
    """The violation of a schedule, if any; counts; a digest of everything that was said and followed."""
    rng = random.Random(seed * 1_000_003 + index)
    # most rules that can be missing have to do with the rest
    share = 0.0 if set(off) - {"looks"} else RECHECK_SHARES[index % len(RECHECK_SHARES)]
    world = World(rng, directory, ablations.without(off), trace, share, END_AFTER[index % len(END_AFTER)])
    world.ablated = bool(off)
    try:
        world.storm(rng.choice((STEPS // 4, STEPS // 2, STEPS)))
        world.heal()
        return None, world.count, world.log.hexdigest()
    except Violation as violation:
        return str(violation), world.count, world.log.hexdigest()
    finally:
        world.close()


def reproduction(seed: int, index: int, off: tuple[str, ...] = ()) -> str:
    return f"python -m tests.machine.schedules --seed {seed} --only {index} --trace" + (
        f" --off {','.join(off)}" if off else ""
    )


def many(job: tuple[int, range, tuple[str, ...], float]) -> tuple[list[tuple[int, str]], Counter[str], int]:
    """Violations by index, counts and how many were run before the time was over."""
    seed, indices, off, until = job
    found, total, ran = [], Counter[str](), 0
    with cheap_cryptography(), journal_directory() as directory:
        for index in indices:
            if time.time() > until:
                break
            violation, count, _ = one(seed, index, directory, off)
            total.update(count)
            ran += 1
            if violation is not None:
                found.append((index, violation))
    return found, total, ran


def main() -> int:
    parser = argparse.ArgumentParser(description="randomised schedules of the round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--only", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--off", default="")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    off = tuple(sorted(set(arguments.off.split(",")) - {""}))
    begun = time.time()
    if arguments.only is not None:
        with cheap_cryptography(), journal_directory() as directory:
            violation, count, log = one(arguments.seed, arguments.only, directory, off, arguments.trace)
        print(violation or "no violation", dict(count), log[:16])
        return int(violation is not None)
    step = 50
    jobs = [
        (arguments.seed, range(i, min(i + step, arguments.schedules)), off, begun + arguments.seconds)
        for i in range(0, arguments.schedules, step)
    ]
    kinds: dict[str, list[int]] = {}
    total, ran = Counter[str](), 0
    with contextlib.ExitStack() as stack:
        results = map(many, jobs)
        if arguments.processes > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(arguments.processes))
            results = pool.imap_unordered(many, jobs)
        for found, count, number in results:
            total.update(count)
            ran += number
            for index, violation in found:
                kinds.setdefault(violation, []).append(index)
                if len(kinds[violation]) == 1:
                    print(f"{violation}: {reproduction(arguments.seed, index, off)}", flush=True)
    print(f"{ran} schedules, {time.time() - begun:.0f} s", dict(total))
    for violation, indices in sorted(kinds.items()):
        print(f"VIOLATION {violation}: {len(indices)}; --only {min(indices)}")
    return int(bool(kinds))


if __name__ == "__main__":
    sys.exit(main())
