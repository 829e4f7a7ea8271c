"""A peer of the scheduler's world: the product's machine, notary and journal, and a small stand-in for driver and trainer.

Tensors are left out: a pseudo-gradient is a bag of work units, a state the hash of what was averaged into it.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from incentives.journal import SigningJournal
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
    Scatter,
    Send,
    SetTimer,
    Timer,
)
from swarm.consensus.machine import RoundMachine
from swarm.errors import Equivocation
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.types import (
    FLAG_REDUCES,
    FLAG_VOTES,
    ZERO_HASH,
    Contribution,
    ContributionContent,
    Hash,
    PartLeaf,
    RoundSet,
    SetContent,
    Signed,
)
from swarm.records.wire import pack_content
from tests.machine.cheap import account, digest

if TYPE_CHECKING:
    from tests.machine.schedules import World


class Crash(BaseException):
    """The power went off between two sends or two signatures."""


class Trainer:
    """protocol §4 with bags: residual r and U, the own contribution that the live weights lack."""

    def __init__(self, first_unit: int) -> None:
        self.units = self.lost = first_unit  # numbers below `lost` were given out before the state was lost
        self.residual: Counter[int] = Counter()
        self.pending: Counter[int] | None = None
        self.pending_hash: Hash | None = None
        self.tip: Hash = ZERO_HASH

    def boundary(self, prev: Hash) -> tuple[int, int, Counter[int]] | None:
        if self.pending is not None or self.tip != prev:
            return None
        first, self.units = self.units, self.units + 1
        bag = self.residual
        bag[first] += 1
        self.residual, self.pending, self.pending_hash = Counter(), bag, None
        return first, 1, bag

    def certified(self, identity: Hash, contributions: frozenset[Hash]) -> None:
        if self.pending is not None:
            if self.pending_hash not in contributions:
                self.residual.update(self.pending)
            self.pending = self.pending_hash = None
        self.tip = identity

    def reset(self, identity: Hash) -> None:
        self.residual, self.pending, self.pending_hash = Counter(), None, None
        self.tip, self.lost = identity, self.units

    def holds(self) -> Counter[int]:
        out = Counter(self.residual)
        out.update(self.pending or {})
        return out


class Disk:
    """What outlives the process, the journal aside."""

    def __init__(self, trainer: Trainer) -> None:
        self.certificates: dict[Signed, None] = {}  # all that were ever followed
        self.tip: Hash = ZERO_HASH
        self.held: set[Hash] = set()  # contributions whose wire bytes are here
        self.averages: set[Hash] = set()
        self.trainer = trainer


class Member:
    def __init__(self, world: "World", number: int, flags: int, directory: Path) -> None:
        self.world, self.number, self.flags = world, number, flags
        self.account = account(number)
        self.path = directory / f"{number}.journal"
        self.path.unlink(missing_ok=True)
        self.disk = Disk(Trainer(0))
        self.live, self.leaving, self.fuse, self.stalls = False, False, 0, 0
        self.journal: SigningJournal | None = None
        self.start()

    # -- life ---------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self.journal = SigningJournal(self.path)
        self.notary = self.world.kit.notary(self.number, self.journal, self.burn, lambda r: self.world.signed(self, r))
        self.machine: RoundMachine = self.world.kit.machine(
            self.notary, self.world.rules, bool(self.flags & FLAG_REDUCES), bool(self.flags & FLAG_VOTES)
        )
        self.live, self.fuse = True, 0
        self.seen: dict[tuple[Signed, object], None] = {}
        self.known: dict[Hash, Signed] = {}
        self.own: dict[Hash, Hash] = {}
        self.call: Signed | None = None
        self.timers: dict[Timer, None] = {}
        self.fetches: list[FetchAverages] = []
        kept = [(record, keep) for record, _, keep in self.notary.replay_records()]
        for record, keep in kept:
            if isinstance(record, Contribution):
                self.learn(
                    Signed(record, self.account, self.notary.sign(record, keep), self.world.unpack_content(keep))
                )
                self.own[record.prev_certificate] = self.notary.hash(record)
        self.restoring = True
        self.attempt(lambda: self.act(self.machine.restore(self.followed(), kept)))
        self.restoring = False

    def stop(self, keep_disk: bool) -> None:
        """SIGKILL; `keep_disk` False: the journal alone is left."""
        self.live = False
        if self.journal is not None:
            self.journal.close()
        if not keep_disk:
            self.disk = Disk(Trainer(self.disk.trainer.units))
        self.machine = None  # type: ignore[assignment]

    def burn(self) -> None:
        if self.fuse:
            self.fuse -= 1
            if self.fuse == 0:
                raise Crash

    def attempt(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Crash:
            self.world.say("crashes at its fuse:", self.number)
            self.stop(self.world.rng.random() < 0.6)

    # -- what happens to it -------------------------------------------------------------------------------------------
    def hear(self, signed: Signed) -> None:
        if not self.live:
            return
        key = (signed, signed.content)
        if key in self.seen:
            return
        self.seen[key] = None
        if isinstance(signed.record, Contribution):
            self.learn(signed)
        self.attempt(lambda: self.act(self.machine.receive(signed)))

    def hear_parts(self, key: Hash) -> None:
        if self.live and key not in self.disk.held:
            self.disk.held.add(key)
            self.attempt(self.reconsider)

    def ready(self, peers: dict[bytes, int]) -> None:
        linked = [m.account for m in self.world.honest() if m is not self and self.world.reach(self.number, m.number)]
        self.attempt(lambda: self.act(self.machine.ready(peers, linked={*peers, *linked})))

    def due(self) -> None:
        if self.live:
            self.attempt(lambda: self.act(self.machine.due()))

    def fire(self, timer: Timer) -> None:
        if self.live and timer in self.timers:
            del self.timers[timer]
            self.attempt(lambda: self.act(self.machine.timeout(timer)))

    def pull(self) -> bool:
        """Bytes that are still wanted, from whoever has them now; whether anything came."""
        came = False
        if self.live and self.call is not None and self.account in self.call.content.reducers:  # type: ignore[union-attr]
            for key, signed in list(self.known.items()):
                wanted = key not in self.disk.held and signed.record.prev_certificate == self.machine.tip  # type: ignore[union-attr]
                if wanted and self.world.holder_of_parts(self, key, signed.signer):
                    self.disk.held.add(key)
                    came = True
            if came:
                self.attempt(self.reconsider)
        if self.live:
            todo, self.fetches = self.fetches, []
            for action in todo:
                if self.live:
                    before = len(self.fetches)
                    self.attempt(lambda action=action: self.prepare(action))
                    came = came or not self.live or len(self.fetches) == before
        return came

    def backlog(self) -> list[Signed]:
        """For a peer that links up: as `peers.peer` does it."""
        return self.followed() + self.machine.current_messages()

    def followed(self) -> list[Signed]:
        """As `peers.history` tells it: the lineage alone, not what was followed once."""
        by_id: dict[Hash, list[Signed]] = {}
        for signed in self.disk.certificates:
            by_id.setdefault(self.notary.certificate_id(signed.record), []).append(signed)  # type: ignore[arg-type]
        way: list[list[Signed]] = []
        at = self.disk.tip
        while at in by_id:
            way.append(by_id[at])
            at = by_id[at][0].record.prev_certificate  # type: ignore[union-attr]
        return [signed for certificate in reversed(way) for signed in certificate]

    def has_followed(self, identity: Hash) -> bool:
        """Whether its disk says so."""
        return any(self.notary.certificate_id(s.record) == identity for s in self.disk.certificates)  # type: ignore[arg-type]

    # -- what its machine asks for ------------------------------------------------------------------------------------
    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.burn()
                self.seen[(action.signed, action.signed.content)] = None
                self.world.send(self, action.signed)
            elif isinstance(action, SetTimer):
                self.timers[action.timer] = None
            elif isinstance(action, MakeContribution):
                self.call = action.call
                self.contribute(action.call)
            elif isinstance(action, Scatter):
                self.scatter(action.call)
            elif isinstance(action, Collect):
                self.call = action.call
                self.reconsider()
            elif isinstance(action, ReduceSet):
                self.reduce(action.proposal)
            elif isinstance(action, Recheck):
                self.recheck(action)
            elif isinstance(action, Redo):
                self.redo(action)
            elif isinstance(action, Expose):
                self.world.exposed(self, action)
            elif isinstance(action, FetchAverages):
                self.fetches.append(action)
            elif isinstance(action, Adopt):
                self.adopt(action)
            elif isinstance(action, Blame):
                self.world.blamed(self, action)

    def learn(self, signed: Signed) -> None:
        self.known.setdefault(self.notary.hash(signed.record), signed)

    def contribute(self, call: Signed) -> None:
        if not self.flags & ~FLAG_REDUCES and not self.leaving:
            return  # a seed trains nothing
        prev: Hash = call.record.prev_certificate  # type: ignore[union-attr]
        epoch: int = call.record.epoch  # type: ignore[union-attr]
        made = self.disk.trainer.boundary(prev)
        if made is None:
            return
        first, units, bag = made
        parts = tuple(PartLeaf(i, 4, digest(self.number, first, i), 1.0) for i in range(self.world.rules.num_parts))
        record = Contribution(
            self.world.rules.run_id, epoch, self.account, prev, ZERO_HASH, first, units, 0, ZERO_HASH, merges_hash(()),
            ZERO_HASH, ZERO_HASH, parts_root(parts), self.flags,
        )  # fmt: skip
        content = ContributionContent(parts, ())
        try:
            signed = Signed(record, self.account, self.notary.sign(record, pack_content(content)), content)
        except Equivocation:
            return
        key = self.notary.hash(record)
        self.disk.trainer.pending_hash = key
        self.disk.held.add(key)
        self.world.bags[key] = (self.number, Counter(bag))
        self.own[prev] = key
        self.learn(signed)
        self.act(self.machine.contributed(signed))
        self.reconsider()

    def scatter(self, call: Signed) -> None:
        key = self.own.get(call.record.prev_certificate)  # type: ignore[union-attr]
        if key is None or key not in self.disk.held:
            return
        for reducer in call.content.reducers:  # type: ignore[union-attr]
            if reducer != self.account:
                self.burn()
                self.world.send_parts(self, reducer, key)
        self.reconsider()

    def reconsider(self) -> None:
        call = self.call
        if call is None or self.account not in call.content.reducers:  # type: ignore[union-attr]
            return
        prev = call.record.prev_certificate  # type: ignore[union-attr]
        complete = frozenset(
            key
            for key, signed in self.known.items()
            if signed.record.prev_certificate == prev and key in self.disk.held  # type: ignore[union-attr]
        )
        if complete:
            self.act(self.machine.report(complete))

    def reduce(self, proposal: Signed) -> None:
        content = proposal.content
        assert isinstance(content, SetContent)
        if any(leaf.contribution not in self.disk.held for leaf in content.contributors):
            return
        for part in range(self.world.rules.num_parts):
            if content.reducers[part % len(content.reducers)] == self.account:
                average = digest("average", content.contributors, part)
                self.disk.averages.add(average)
                self.act(self.machine.averaged(proposal, part, 4, average))

    def recheck(self, action: Recheck) -> None:
        content = action.proposal.content
        if any(leaf.contribution not in self.disk.held for leaf in content.contributors):
            return
        others = [
            part
            for part in range(self.world.rules.num_parts)
            if content.reducers[part % len(content.reducers)] != self.account
        ]
        for part in self.world.rng.sample(others, min(action.count, len(others))):
            average = digest("average", content.contributors, part)
            self.disk.averages.add(average)
            self.act(self.machine.averaged(action.proposal, part, 4, average))

    def redo(self, action: Redo) -> None:
        content = action.proposal.content
        average = digest("average", content.contributors, action.part)
        self.disk.averages.add(average)
        self.act(self.machine.redone(action.proposal, action.part, 4, average))

    def prepare(self, action: FetchAverages) -> None:
        """What is not to be had now is asked for again later."""
        record, content = action.proposal.record, action.proposal.content
        assert isinstance(record, RoundSet) and isinstance(content, SetContent)
        if record.prev_certificate != self.machine.tip:
            return
        digests = tuple(d for d, _ in action.averages)
        for wanted in digests:
            if wanted not in self.disk.averages and not self.world.holder_of_average(self, wanted):
                self.fetches.append(action)
                return
            self.disk.averages.add(wanted)
        leaves = content.contributors
        if any(leaf.contribution not in self.known for leaf in leaves):
            return
        root = digest(self.machine.lineage[record.prev_certificate].certificate.next_root, leaves, digests)
        actions, _ = self.machine.prepared(
            action.proposal, digests, tuple(1.0 for _ in leaves), 1.0, root, sum(leaf.units for leaf in leaves)
        )
        self.act(actions)

    def adopt(self, action: Adopt) -> None:
        trainer = self.disk.trainer
        self.world.adopted(self, action)
        path = list(action.path)
        self.disk.tip = path[-1].id
        for entry in path:
            for who, signature in entry.signatures:
                self.disk.certificates[Signed(entry.certificate, who, signature, entry.body)] = None
        if action.undone:
            trainer.reset(path[-1].id)
            return
        ids = [entry.id for entry in path]
        if trainer.tip in ids:  # a restart: those up to the snapshot were merged before
            path = path[ids.index(trainer.tip) + 1 :]
        elif self.restoring and path[0].certificate.prev_certificate != trainer.tip:
            trainer.reset(path[-1].id)
            return
        for entry in path:
            trainer.certified(entry.id, frozenset(leaf.contribution for leaf in entry.body.contributors))
