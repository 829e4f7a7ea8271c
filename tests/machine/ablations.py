"""The named rules of the round, each of which can be missing from a machine that is put together for a test."""

from collections.abc import Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from incentives.journal import Subject
from swarm.consensus.actions import Action, Adopt, Send
from swarm.consensus.lineage import Branch, Lineage, LineageEntry
from swarm.consensus.machine import STALLS_BEFORE_FEWER, Parts, RoundMachine
from swarm.consensus.rechecks import Rechecks, finished
from swarm.consensus.round import Round
from swarm.consensus.seating import Seating
from swarm.consensus.sets import Sets
from swarm.consensus.voice import Voice
from swarm.records.types import KIND_SEATING, ZERO_HASH, Account, Hash, Record, SignedSet
from tests.machine.cheap import CheapNotary

__all__ = ["RULES", "STALLS_BEFORE_FEWER", "Kit", "without"]


class NoLock(Round):
    def is_free(self, *_: Any) -> bool:
        return True


class NoResume(Round):
    def resume(self, *_: Any) -> None:
        pass


class AnyVoterInitiates(Lineage):
    def may_initiate(self, identity: Hash, attempt: int, account: Account) -> bool:
        return account in self.electorate(identity)


class FollowOnlyChildren(Lineage):
    def choose(self, tip: Hash, may_follow: Any) -> Hash:
        """No choice between branches: on from the own tip, whatever the others do."""
        while True:
            children = [c for c in self.children.get(tip, ()) if may_follow(self.entries[c])]
            if not children:
                return tip
            tip = min(children)


class WeighHeadsAlone(Lineage):
    def signers_among(self, identity: Hash, accounts: Set[Account]) -> set[Account]:
        return self.entries[identity].signers() & accounts


class WeighWhatIsNotSupported(Lineage):
    def gives_weight(self, branch: Branch) -> bool:
        return True


class OneSignatureSeats(Lineage):
    def needed(self, entry: LineageEntry) -> int:
        seating = entry.certificate.kind == KIND_SEATING and entry.certificate.prev_certificate != ZERO_HASH
        return 1 if seating else super().needed(entry)


class HandOverTheTipAlone(Lineage):
    def contested(self, tip: Hash) -> list[LineageEntry]:
        return self.undecided_after(tip)


class AnySet(Sets):
    def has_quorum(self, *_: Any) -> bool:
        return True


class AnythingAgain(Sets):
    def is_acceptable(self, *_: Any) -> bool:
        return True


class NobodyElseLooks(Rechecks):
    """Reducers alone, whoever they are."""

    def begin(self, r: Round, proposal: SignedSet) -> None:
        if self._voice.account in proposal.content.reducers:
            super().begin(r, proposal)

    def are_done(self, r: Round, proposal: SignedSet) -> bool:
        return finished(self._rules, r, proposal) >= set(proposal.content.reducers)


class Impatient(Seating):
    def may_follow(self, *_: Any) -> bool:
        return True


class UndoesNothing(Voice):
    def actions(self) -> list[Action]:
        return [replace(action, undone=()) if isinstance(action, Adopt) else action for action in super().actions()]


class SaysNothingAgain(Voice):
    def ask(self, *actions: Action) -> None:
        super().ask(*(a for a in actions if not (isinstance(a, Send) and a.again)))


class SubjectsWithoutPredecessor(CheapNotary):
    def subject(self, record: Record) -> Subject | None:
        subject = super().subject(record)
        return None if subject is None else subject._replace(prev_certificate=ZERO_HASH)


RULES: dict[str, type[Any]] = {
    # two votes and a lock: who is locked votes for nothing else unless a quorum did since
    "lock": NoLock,
    # one initiator per attempt
    "init": AnyVoterInitiates,
    # fork choice from the oldest fork on, counting whole branches
    "ghost": FollowOnlyChildren,
    "branch": WeighHeadsAlone,
    # the journal's subjects name the predecessor
    "key": SubjectsWithoutPredecessor,
    # who changes lineage starts as after lost state
    "linear": UndoesNothing,
    # voters look themselves where too few of those who average are voters
    "looks": NobodyElseLooks,
    # a seating is followed only by who has stalled, with more than a third of the voters in it
    "patient": Impatient,
    # a seating holds with a quorum of those it seats
    "seatq": OneSignatureSeats,
    # a set holds contributions of a quorum of the electorate
    "setq": AnySet,
    # beyond the model's list: what this machine was found to need
    "resume": NoResume,
    "redo": AnythingAgain,
    "contested": HandOverTheTipAlone,
    # who sees a branch come to hold says its older signatures again
    "again": SaysNothingAgain,
    # what stands on a seating that too few support gives no weight
    "support": WeighWhatIsNotSupported,
}


@dataclass(frozen=True)
class Kit:
    """What a peer of a test's world is made of."""

    parts: Parts = field(default_factory=Parts)
    notary: type[CheapNotary] = CheapNotary

    def machine(self, *arguments: Any) -> RoundMachine:
        return partial(RoundMachine, parts=self.parts)(*arguments)


def without(names: tuple[str, ...]) -> Kit:
    """All of it but the named rules."""
    unknown = set(names) - RULES.keys()
    if unknown:
        raise SystemExit(f"--off: unknown {', '.join(sorted(unknown))}; one of {', '.join(RULES)}")
    lacking = [RULES[name] for name in names]

    def made_of(part: type[Any]) -> type[Any]:
        bases = tuple(each for each in lacking if issubclass(each, part))
        return type(part.__name__, bases, {}) if bases else part

    parts = Parts(*(made_of(part) for part in (Lineage, Voice, Round, Rechecks, Sets, Seating)))
    return Kit(parts, made_of(CheapNotary))
