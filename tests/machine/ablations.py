"""The named rules of the round, each of which can be taken out of the product's classes for as long as a test lasts."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from incentives.journal import Subject
from peers.notary import JournalNotary
from swarm.consensus.actions import Action, Adopt
from swarm.consensus.lineage import Entry, Lineage, Trust
from swarm.consensus.machine import STALLS_BEFORE_FEWER, RoundMachine
from swarm.records.types import KIND_SEATING, ZERO_HASH, Account, Hash, Record

__all__ = ["RULES", "STALLS_BEFORE_FEWER", "without"]

Patch = tuple[type[Any], str, Callable[..., Any]]

_subject = JournalNotary._subject
_done = RoundMachine._done
_needed = Lineage.needed


def _subject_without_predecessor(self: JournalNotary, record: Record) -> Subject | None:
    subject = _subject(self, record)
    return None if subject is None else subject._replace(prev_certificate=ZERO_HASH)


def _done_without_undone(self: RoundMachine) -> list[Action]:
    return [replace(action, undone=()) if isinstance(action, Adopt) else action for action in _done(self)]


def _one_signature_seats(self: Lineage, entry: Entry) -> int:
    seating = entry.certificate.kind == KIND_SEATING and entry.certificate.prev_certificate != ZERO_HASH
    return 1 if seating else _needed(self, entry)


def _follow_only_children(self: Lineage, tip: Hash, may_follow: Callable[[Entry, Trust], bool]) -> Hash:
    """No choice between branches: on from the own tip, whatever the others do."""
    while True:
        children = [
            c for c in self.children.get(tip, []) if may_follow(self.entries[c], Trust(self.electorate(tip), 0))
        ]
        if not children:
            return tip
        tip = min(children)


def _whole_branch(self: Lineage, identity: Hash, trust: Trust) -> set[Account]:
    children = self.children.get(identity, ())
    return self.entries[identity].signers().union(*(_whole_branch(self, child, trust) for child in children))


RULES: dict[str, tuple[Patch, ...]] = {
    # two votes and a lock: who is locked votes for nothing else unless a quorum did since
    "lock": ((RoundMachine, "_is_free", lambda self, r, record, identity: True),),
    # one initiator per attempt
    "init": ((Lineage, "may_initiate", lambda self, identity, attempt, who: who in self.electorate(identity)),),
    # fork choice from the oldest fork on, counting whole branches
    "ghost": ((Lineage, "choose", _follow_only_children),),
    "branch": ((Lineage, "branch_signers", lambda self, identity, trust: self.entries[identity].signers()),),
    # the journal's subjects name the predecessor
    "key": ((JournalNotary, "_subject", _subject_without_predecessor),),
    # who changes lineage starts as after lost state
    "linear": ((RoundMachine, "_done", _done_without_undone),),
    # a seating is followed only by who has stalled, with more than a third of the voters in it
    "patient": ((RoundMachine, "_may_follow", lambda self, entry, trust: True),),
    # a seating holds with a quorum of those it seats
    "seatq": ((Lineage, "needed", _one_signature_seats),),
    # a set holds contributions of a quorum of the electorate
    "setq": ((RoundMachine, "_set_has_quorum", lambda self, inside: True),),
    # beyond the model's list: what this machine was found to need
    "resume": ((RoundMachine, "_resume", lambda self, r, record: None),),
    "redo": ((RoundMachine, "_is_acceptable", lambda self, r, record, content: True),),
    "contested": ((Lineage, "contested", lambda self, tip: self.unsettled_after(tip)),),
    # who sees a branch come to hold says its older signatures again
    "again": ((RoundMachine, "_say_fork", lambda self, new, last: None),),
    # what stands on a seating that too few support gives no weight
    "support": ((Lineage, "branch_signers", _whole_branch),),
}


@contextlib.contextmanager
def without(names: tuple[str, ...]) -> Iterator[type[RoundMachine]]:
    """The machine's class while the named rules are missing from the product."""
    unknown = set(names) - RULES.keys()
    if unknown:
        raise SystemExit(f"--off: unknown {', '.join(sorted(unknown))}; one of {', '.join(RULES)}")
    patches = [patch for name in names for patch in RULES[name]]
    before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in patches]
    for owner, name, new in patches:
        setattr(owner, name, new)
    try:
        yield RoundMachine
    finally:
        for owner, name, old in before:
            if old is None:  # inherited
                delattr(owner, name)
            else:
                setattr(owner, name, old)
