"""The adversary: fewer than a third of the voters (from n = 4), who sign anything and show it to whom they like.

A liar knows what every honest peer knows. Signatures are not checked by the machine, but a liar can sign only as a liar.
"""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from swarm.records.commitments import (
    body_hash,
    complete_hash,
    contributors_root,
    draw_order,
    electorate_hash,
    merges_hash,
    parts_root,
    quorum,
    reducers_hash,
)
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    KIND_ROUND,
    KIND_SEATING,
    NO_ATTEMPT,
    ZERO_HASH,
    Account,
    Average,
    CallContent,
    Content,
    Contribution,
    ContributionContent,
    ContributorLeaf,
    Hash,
    PartLeaf,
    Record,
    ReducerReport,
    ReportContent,
    RoundBody,
    RoundCall,
    RoundCertificate,
    RoundSet,
    RoundVoid,
    RoundVote,
    SetContent,
    Signed,
)
from tests.machine.cheap import account, digest

if TYPE_CHECKING:
    from tests.machine.member import Member
    from tests.machine.schedules import World

FREE_KEY = 999_999


class Liars:
    def __init__(self, world: "World", accounts: tuple[Account, ...]) -> None:
        self.world, self.accounts = world, accounts
        self.made = 0
        self.proposed: set[tuple[Hash, int]] = set()
        # They lie in one way alone, so that no other lie gives them away.
        self.devoted = world.rules.recheck_share > 0.0 and world.rng.random() < 0.4

    @property
    def rng(self) -> Random:
        return self.world.rng

    def say(self, who: Account, record: Record, content: Content, to: list["Member"]) -> None:
        signed = Signed(record, who, (digest(record)[:32] + who + bytes(13)), content)
        if isinstance(record, RoundCertificate):
            self.world.count_certificate(who, record, content)
        for member in to:
            self.world.wire.append((-1, member.number, signed))

    def lie(self) -> None:
        rng, world = self.rng, self.world
        honest = world.honest()
        if not honest:
            return
        victim = rng.choice(honest)
        machine, who = victim.machine, rng.choice(self.accounts)
        tip, epoch, attempt = machine.tip, machine.epoch, machine.attempt
        leader = machine.leader(attempt)
        if leader in self.accounts and rng.random() < 0.5:
            who = leader
        to = [m for m in world.members if rng.random() < 0.6]
        run = world.rules.run_id
        self.made += 1
        if self.devoted:
            if leader in self.accounts:
                self._draw_themselves(victim, leader)
            return
        what = rng.randrange(10)
        if who == leader and rng.random() < 0.6:
            what = rng.choice((0, 1, 2, 2))  # leads a round of its own making
        if tip == ZERO_HASH and what < 8:
            return
        if what == 0:
            self._contribution(who, epoch, tip, to)
        elif what == 1:
            able = [m.account for m in honest] + (list(self.accounts) if rng.random() < 0.3 else [])
            some = [a for a in able if rng.random() < 0.5] or [who]
            reducers = draw_order(tip, epoch, attempt, some)[: min(2, world.rules.num_parts)]
            record = RoundCall(run, epoch + (rng.random() < 0.1), attempt, tip, reducers_hash(reducers), 0, 0, 0, 0)
            self.say(who, record, CallContent(reducers), to)
        elif what == 2:
            self._set(victim, who, to)
        elif what in (3, 4, 5):
            proposed = machine.proposed_after(tip)
            ids = [*proposed, digest("junk", self.made)]
            identity = rng.choice(ids)
            self.say(who, RoundVote(run, epoch, attempt, tip, rng.choice((identity, identity, ZERO_HASH))), None, to)
            if identity in proposed:
                certificate, body = proposed[identity]
                self.say(who, replace(certificate, attempt=attempt), body, to)
            if what == 5:
                self.say(who, RoundVoid(run, epoch, attempt, tip), None, to)
        elif what == 6:
            part = rng.randrange(world.rules.num_parts)
            average = digest("lie", self.made)
            if rng.random() < 0.5:
                world.liars_bytes.add(average)
            over = machine.round.messages.sets.get(attempt)
            named = digest("no set") if over is None else victim.notary.hash(over.record)
            self.say(who, Average(run, epoch, attempt, tip, named, part, 4, average), None, to)
        elif what == 7:
            known = [victim.notary.hash(s.record) for s in victim.known.values()]
            some_hashes = tuple(sorted(k for k in known if rng.random() < 0.6))
            record_ = ReducerReport(run, epoch, attempt, tip, complete_hash(some_hashes))
            self.say(who, record_, ReportContent(some_hashes), to)
        elif what == 8:
            seats = sorted(self.accounts if rng.random() < 0.5 else {who, victim.account})
            prev = rng.choice(machine.lineage.path(tip))
            if rng.random() < 0.1:
                seats = []
            self._seating(prev, tuple(seats), rng.randrange(3), victim, to)
        else:
            self._forged(victim, to)

    def _contribution(self, who: Account, epoch: int, tip: Hash, to: list["Member"]) -> None:
        world, rng = self.world, self.rng
        parts = tuple(PartLeaf(i, 4, digest(who, self.made, i), 1.0) for i in range(world.rules.num_parts))
        record = Contribution(
            world.rules.run_id, epoch, who, tip, ZERO_HASH, self.made, 1, 0, ZERO_HASH, merges_hash(()),
            ZERO_HASH, ZERO_HASH, parts_root(parts), FLAG_REDUCES | FLAG_VOTES,
        )  # fmt: skip
        self.say(who, record, ContributionContent(parts, ()), to)
        key = to[0].notary.hash(record) if to and to[0].live else digest(record)
        for member in world.members:
            if rng.random() < 0.8:
                world.wire.append((-1, member.number, key))

    def _set(self, victim: "Member", who: Account, to: list["Member"]) -> None:
        world, rng, machine = self.world, self.rng, victim.machine
        tip, epoch, attempt, run = machine.tip, machine.epoch, machine.attempt, world.rules.run_id
        leaves, others = [], rng.choice((0.2, 0.7))
        for signed in sorted(victim.known.values(), key=lambda s: s.signer):
            record = signed.record
            assert isinstance(record, Contribution)
            mine = record.peer in self.accounts
            if (
                record.prev_certificate == tip
                and (mine or rng.random() < others)
                and (not leaves or leaves[-1].peer != record.peer)
            ):
                leaves.append(ContributorLeaf(record.peer, victim.notary.hash(record), 1, record.flags))
        reducers = draw_order(tip, epoch, attempt, [m.account for m in world.honest() if m.flags & FLAG_REDUCES])
        reducers = reducers[: world.rules.num_parts]
        content = SetContent(tuple(leaves), reducers)
        again, valid = ZERO_HASH, NO_ATTEMPT
        if rng.random() < 0.5:
            known = [made for made in machine.proposed_after(tip).values() if made[0].kind == 0]
            certificate, body = rng.choice(known) if known and rng.random() < 0.5 else self._certificate(victim)
            content = SetContent(body.contributors, body.reducers, certificate.without_attempt(), body)
            again, valid = victim.notary.certificate_id(certificate), rng.choice((NO_ATTEMPT, *range(attempt + 1)))
        root = contributors_root(content.contributors)
        size = len(content.contributors)
        record_ = RoundSet(run, epoch, attempt, tip, root, size, reducers_hash(content.reducers), again, valid)
        self.say(who, record_, content, to)

    def _draw_themselves(self, victim: "Member", leader: Account) -> None:
        """It calls liars alone, and a key that costs nothing; when contributions are there, their set is proposed and averaged wrongly, so
        that nobody honest is among those who average."""
        world, machine = self.world, victim.machine
        tip, epoch, attempt, run = machine.tip, machine.epoch, machine.attempt, world.rules.run_id
        everyone = list(world.members)
        heard = machine.round.messages
        if tip == ZERO_HASH or attempt >= world.rules.max_attempts:
            return
        call = heard.calls.get(attempt)
        if call is None:
            able = [*self.accounts, account(FREE_KEY)][: world.rules.max_reducers]
            reducers = draw_order(tip, epoch, attempt, able)
            record = RoundCall(run, epoch, attempt, tip, reducers_hash(reducers), 0, 0, 0, 0)
            self.say(leader, record, CallContent(reducers), everyone)
            return
        reducers = call.content.reducers
        if set(reducers) - {*self.accounts, account(FREE_KEY)} or attempt in heard.sets:
            return
        contributions = [s for s in victim.known.values() if isinstance(s.record, Contribution)]
        known = [s for s in contributions if s.record.prev_certificate == tip]
        first = {s.signer: s for s in reversed(known)}
        keys = {victim.notary.hash(s.record): s.record for s in first.values()}
        complete = tuple(sorted(keys))
        leaves = tuple(
            sorted(
                (ContributorLeaf(r.peer, key, 1, r.flags) for key, r in keys.items() if isinstance(r, Contribution)),
                key=lambda leaf: leaf.peer,
            )
        )
        if len(leaves) < quorum(len(machine.voters())) or (tip, attempt) in self.proposed:
            return  # more will come
        self.proposed.add((tip, attempt))
        for who in reducers:
            self.say(
                who, ReducerReport(run, epoch, attempt, tip, complete_hash(complete)), ReportContent(complete), everyone
            )
        content = SetContent(leaves, reducers)
        proposal = RoundSet(
            run,
            epoch,
            attempt,
            tip,
            contributors_root(leaves),
            len(leaves),
            reducers_hash(reducers),
            ZERO_HASH,
            NO_ATTEMPT,
        )
        self.say(leader, proposal, content, everyone)
        over = victim.notary.hash(proposal)
        for part in range(world.rules.num_parts):
            average = digest("lie", self.made, part)
            world.liars_bytes.add(average)
            for who in reducers:  # they redo each other's, and agree
                self.say(who, Average(run, epoch, attempt, tip, over, part, 4, average), None, everyone)
        world.count["sets that liars alone average"] += 1

    def _certificate(self, victim: "Member") -> tuple[RoundCertificate, RoundBody]:
        """Of a round with the liars alone, or of nobody with another state."""
        world, machine = self.world, victim.machine
        before = machine.lineage[machine.tip].certificate
        leaves = (
            tuple(ContributorLeaf(a, digest(a), 1, 3) for a in sorted(self.accounts)) if self.rng.random() < 0.7 else ()
        )
        electorate = tuple(sorted(self.accounts)) if leaves else machine.voters()
        averages = (digest("bad"),) * world.rules.num_parts if self.rng.random() < 0.5 else ()
        body = RoundBody(leaves, (), averages, tuple(1.0 for _ in leaves), 1.0, electorate)
        certificate = RoundCertificate(
            world.rules.run_id, before.epoch + 1, 0, KIND_ROUND, machine.tip, before.next_root, digest("bad"),
            contributors_root(leaves), len(leaves), len(leaves), before.cumulative_units + len(leaves),
            electorate_hash(electorate), body_hash(body),
        )  # fmt: skip
        return certificate, body

    def _forged(self, victim: "Member", to: list["Member"]) -> None:
        certificate, body = self._certificate(victim)
        for who in self.accounts:
            self.say(who, replace(certificate, attempt=self.rng.randrange(3)), body, to)
        if self.rng.random() < 0.5:  # and what would follow it
            self._seating(victim.notary.certificate_id(certificate), tuple(sorted(self.accounts)), 0, victim, to)

    def _seating(
        self, prev: Hash, seats: tuple[Account, ...], attempt: int, victim: "Member", to: list["Member"]
    ) -> None:
        lineage = victim.machine.lineage
        before = lineage[prev].certificate if lineage.valid(prev) else lineage[victim.machine.tip].certificate
        body = RoundBody((), (), (), (), 0.0, seats)
        certificate = RoundCertificate(
            self.world.rules.run_id, before.epoch + 1, attempt, KIND_SEATING, prev, before.next_root, before.next_root,
            contributors_root(()), 0, 0, before.cumulative_units, electorate_hash(seats), body_hash(body),
        )  # fmt: skip
        for who in self.accounts:
            self.say(who, certificate, body, to)
