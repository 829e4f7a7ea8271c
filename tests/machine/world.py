"""Machines joined by a lossless network in one process, with a notary that journals for real and hashes cheaply.

Tensors are left out: the state after a set is the hash of the state before and the contributions.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from swarm.consensus.actions import (
    Action,
    Adopt,
    Blame,
    Collect,
    Expose,
    FetchAverages,
    MakeContribution,
    Recheck,
    Redo,
    ReduceSet,
    Send,
    SetTimer,
    Timer,
)
from swarm.consensus.machine import RoundMachine, RunRules
from swarm.errors import Equivocation
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    ZERO_HASH,
    Account,
    Contribution,
    ContributionContent,
    Hash,
    PartLeaf,
    Progress,
    Record,
    RoundCertificate,
    RoundVoid,
    SetContent,
    Signed,
)
from swarm.records.wire import pack, unpack

RUN = b"r" * 32


def digest(*things: object) -> bytes:
    return hashlib.sha256(repr(things).encode()).digest()


class CheapNotary:
    """Journals as `peers.notary.JournalNotary` does; a signature is a hash."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.journal: dict[tuple[object, ...], bytes] = {}
        self.kept: list[tuple[Record, bytes]] = []

    def hash(self, record: Record) -> Hash:
        return digest(record)

    def certificate_id(self, certificate: RoundCertificate) -> Hash:
        return digest(certificate.without_attempt())

    def subject(self, record: Record) -> tuple[object, ...]:
        kind = type(record).__name__
        if isinstance(record, RoundVoid) or (isinstance(record, RoundCertificate) and record.kind == 0):
            kind = "RoundDecision"
        elif isinstance(record, RoundCertificate):
            kind = "Seating"
        return (
            kind,
            record.epoch,
            getattr(record, "attempt", 0),
            getattr(record, "prev_certificate", b""),
            getattr(record, "part", 0) if kind == "Average" else 0,
        )

    def sign(self, record: Record, keep: bytes = b"") -> bytes:
        signature = (digest(self.account, record) * 3)[:65]
        if isinstance(record, Progress):
            return signature
        subject, what = self.subject(record), digest(record)
        if self.journal.setdefault(subject, what) != what:
            raise Equivocation(f"{subject}: another digest was signed")
        self.kept.append((record, keep))
        return signature

    def recover(self, record: Record, signature: bytes) -> Account:
        raise AssertionError("the machine gets messages whose signatures were checked")


def true_average(contributors: object, part: int) -> Hash:
    return digest("average", contributors, part)


def account(number: int) -> Account:
    return digest("account", number)[:20]


def rules(founders: tuple[Account, ...], min_seated: int, max_attempts: int = 3) -> RunRules:
    return RunRules(RUN, digest("initial"), founders, 2, max_attempts, 16, 100, min_seated, 10.0, 10.0, 5.0, 60.0)


class Peer:
    """A machine with the simplest driver there can be."""

    def __init__(self, world: "World", number: int, flags: int, notary: CheapNotary | None = None) -> None:
        self.world, self.number, self.flags = world, number, flags
        self.notary = notary or CheapNotary(account(number))
        self.machine = RoundMachine(
            self.notary, world.rules, reduces=bool(flags & FLAG_REDUCES), votes=bool(flags & FLAG_VOTES)
        )
        self.alive = True
        self.timers: dict[Timer, float] = {}
        self.states: dict[Hash, Hash] = {}
        self.units = 1
        self.tips: list[Hash] = []
        self.blamed: list[str] = []
        self.exposed: list[tuple[Account, int]] = []
        self.heard: list[Signed] = []

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.world.send(self, action.signed)
            elif isinstance(action, SetTimer):
                self.timers[action.timer] = self.world.now + action.seconds
            elif isinstance(action, MakeContribution):
                self.contribute(action.call)
            elif isinstance(action, Collect):
                self.report()
            elif isinstance(action, ReduceSet):
                self.reduce(action.proposal)
            elif isinstance(action, Recheck):
                self.recheck(action)
            elif isinstance(action, Redo):
                over = action.proposal.content.contributors
                self.act(self.machine.redone(action.proposal, action.part, 4, true_average(over, action.part)))
            elif isinstance(action, Expose):
                self.exposed.append((action.average.signer, action.average.record.part))
            elif isinstance(action, FetchAverages):
                self.prepare(action)
            elif isinstance(action, Adopt):
                self.tips += [entry.id for entry in action.path]
            elif isinstance(action, Blame):
                self.blamed.append(action.reason)
        self.report()

    def contribute(self, call: Signed) -> None:
        if not self.flags or self.notary.account in self.world.busy:
            return  # a seed trains nothing
        parts = tuple(PartLeaf(i, 4, digest("part", self.number, call.record.epoch, i), 1.0) for i in range(2))  # type: ignore[union-attr]
        record = Contribution(
            RUN, call.record.epoch, self.notary.account, call.record.prev_certificate, ZERO_HASH, 0, self.units, 0,  # type: ignore[union-attr]
            ZERO_HASH, merges_hash(()), ZERO_HASH, ZERO_HASH, parts_root(parts), self.flags,
        )  # fmt: skip
        content = ContributionContent(parts, ())
        try:
            from swarm.records.wire import pack_content

            signed = Signed(record, self.notary.account, self.notary.sign(record, pack_content(content)), content)
        except Equivocation:
            return
        self.act(self.machine.contributed(signed))

    def report(self) -> None:
        known = self.machine.heard.round(self.machine.tip).first()
        complete = frozenset(self.notary.hash(s.record) for a, s in known.items() if a not in self.world.without_parts)
        if complete and complete != self.machine.round.complete:
            self.act(self.machine.report(complete))

    def reduce(self, proposal: Signed) -> None:
        content = proposal.content
        assert isinstance(content, SetContent)
        for part in range(2):
            if content.reducers[part % len(content.reducers)] == self.notary.account:
                lies = self.notary.account in self.world.lying_reducers
                wrong = digest("wrong", self.number, part) if lies else self.average(content, part)
                self.act(self.machine.averaged(proposal, part, 4, wrong))

    def average(self, content: SetContent, part: int) -> Hash:
        colludes = part in self.world.colluding.get(self.notary.account, ())
        return digest("agreed", part) if colludes else true_average(content.contributors, part)

    def recheck(self, action: Recheck) -> None:
        if self.notary.account in self.world.no_rechecks:
            return
        if self.world.late_rechecks:
            self.world.waiting.append((self, action))
            return
        content = action.proposal.content
        others = [p for p in range(2) if content.reducers[p % len(content.reducers)] != self.notary.account]
        for part in others[: action.count]:
            lies = self.notary.account in self.world.false_accusers
            wrong = digest("accused", self.number, part) if lies else self.average(content, part)
            self.act(self.machine.averaged(action.proposal, part, 4, wrong))

    def prepare(self, action: FetchAverages) -> None:
        content = action.proposal.content
        assert isinstance(content, SetContent)
        withheld = {who for _, who in action.averages} & self.world.withholding - {self.notary.account}
        if withheld:
            for who in withheld:
                self.act(self.machine.withheld(action.proposal, who))
            return
        broken = [part for part, (found, _) in enumerate(action.averages) if found in self.world.too_long]
        if broken:
            self.act(self.machine.broken(action.proposal, broken))
            return
        prev = self.machine.lineage[action.proposal.record.prev_certificate]  # type: ignore[union-attr]
        leaves = content.contributors
        root = digest(prev.certificate.next_root, leaves)
        actions, _ = self.machine.prepared(
            action.proposal,
            tuple(d for d, _ in action.averages),
            tuple(1.0 for _ in leaves),
            1.0,
            root,
            sum(x.units for x in leaves),
        )
        self.act(actions)


class World:
    """Delivers every message once, in order; a test may cut peers off or drop messages by `lose(sender, receiver, signed)`."""

    def __init__(
        self, peers: int, founders: int = 1, clients: int = 0, min_seated: int | None = None, **changed: Any
    ) -> None:
        seeds = tuple(account(1000 + i) for i in range(founders))
        self.rules = replace(rules(seeds, peers if min_seated is None else min_seated), **changed)
        self.now = 0.0
        self.queue: deque[tuple[Peer, Peer, Signed]] = deque()
        self.lose: Callable[[Peer, Peer, Signed], bool] = lambda sender, receiver, signed: False
        self.without_parts: set[Account] = set()  # whose contributions no reducer ever gets
        self.withholding: set[Account] = set()  # who hands out no averages
        self.lying_reducers: set[Account] = set()  # whose averages are wrong
        self.colluding: dict[Account, tuple[int, ...]] = {}  # parts of which they sign the same wrong average
        self.too_long: set[Hash] = set()  # averages that the committed norms do not allow
        self.no_rechecks: set[Account] = set()  # who averages nothing of others
        self.late_rechecks, self.waiting = False, list[tuple[Peer, Recheck]]()  # they come after everything else
        self.false_accusers: set[Account] = set()  # who say so of right ones
        self.behind: set[Account] = set()  # who is linked, and has not said that it has the newest anchor
        self.busy: set[Account] = set()  # whose contribution is not made yet
        self.seeds = [Peer(self, 1000 + i, 0) for i in range(founders)]
        self.peers = [Peer(self, i, FLAG_VOTES | (0 if i >= peers - clients else FLAG_REDUCES)) for i in range(peers)]

    def everyone(self) -> list[Peer]:
        return [p for p in (*self.seeds, *self.peers) if p.alive]

    def send(self, sender: Peer, signed: Signed) -> None:
        for receiver in (*self.seeds, *self.peers):
            if receiver is not sender:
                self.queue.append((sender, receiver, unpack(pack(signed))))

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        for _ in range(100_000):
            if not self.queue:
                return
            sender, receiver, signed = self.queue.popleft()
            if receiver.alive and not self.lose(sender, receiver, signed):
                receiver.heard.append(signed)
                receiver.act(receiver.machine.receive(signed))
        raise AssertionError("messages without end")

    def seat(self) -> None:
        self.everyone_sees_everyone()
        self.settle()

    def everyone_sees_everyone(self) -> None:
        for peer in self.everyone():
            others = {p.notary.account: p.flags for p in self.everyone() if p is not peer}
            current = {a: flags for a, flags in others.items() if a not in self.behind}
            peer.act(peer.machine.ready(current, linked=others))

    def round(self) -> None:
        """The epoch's work is done everywhere."""
        self.everyone_sees_everyone()
        for peer in self.everyone():
            peer.act(peer.machine.due())
        self.settle()

    def time_out(self, name: str = "step") -> None:
        """The timers of one name run out at every live peer."""
        for peer in self.everyone():
            for timer in [t for t in peer.timers if t.name == name and t.prev_certificate == peer.machine.tip]:
                peer.timers.pop(timer)
                peer.act(peer.machine.timeout(timer))
            self.settle()

    def run(self, seconds: float, until: Callable[[], bool]) -> float:
        """Let time pass in ticks of a quarter second, as the driver's; the seconds until `until` holds. Messages take no time."""
        begun = self.now
        while self.now - begun < seconds and not until():
            self.now += 0.25
            self.everyone_sees_everyone()
            for peer in self.everyone():
                for timer in [t for t, at in peer.timers.items() if at <= self.now]:
                    del peer.timers[timer]
                    peer.act(peer.machine.timeout(timer))
            self.settle()
        return self.now - begun
