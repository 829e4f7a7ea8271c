"""Fork choice as protocol §5.4 words it, computed anew from all that holds each time: what the incremental one is compared with."""

from collections.abc import Callable
from typing import Any

from swarm.consensus.lineage import RECENT_CERTIFICATES, Lineage, LineageEntry, Trust
from swarm.records.types import KIND_SEATING, Account, Hash


def trust_after(lineage: Lineage, trust: Trust, identity: Hash) -> Trust:
    entry = lineage[identity]
    if entry.certificate.kind == KIND_SEATING:
        is_trusted = has_support(lineage, identity, entry.signers(), trust)
    else:
        is_trusted = not 0 < trust.age < RECENT_CERTIFICATES
    return Trust(entry.body.electorate, 0) if is_trusted else Trust(trust.voters, trust.age + 1)


def has_support(lineage: Lineage, identity: Hash, signers: set[Account], trust: Trust) -> bool:
    is_seating = lineage[identity].certificate.kind == KIND_SEATING
    return not is_seating or len(signers.intersection(trust.voters)) > len(trust.voters) // 3


def branch_signers(lineage: Lineage, identity: Hash, trust: Trust) -> set[Account]:
    order = [(identity, trust)]
    for at, before in order:
        after = trust_after(lineage, before, at)
        order += [(child, after) for child in lineage.children.get(at, ())]
    signed: dict[Hash, set[Account]] = {}
    trusts = dict(order)
    for at, _ in reversed(order):
        signed[at] = lineage[at].signers()
        for child in lineage.children.get(at, ()):
            signers = signed.pop(child)
            if has_support(lineage, child, signers, trusts[child]):
                signed[at] |= signers
    return signed[identity]


def oldest_fork(lineage: Lineage, tip: Hash) -> Hash:
    forks = [at for at in lineage.path(tip)[:-1] if len(lineage.children.get(at, ())) > 1]
    return forks[0] if forks else tip


def choose(lineage: Lineage, tip: Hash, may_follow: Callable[[LineageEntry, Trust], bool]) -> Hash:
    at = oldest_fork(lineage, tip)
    path = lineage.path(tip)
    on_path = set(path[path.index(at) :])
    trust = Trust(lineage.electorate(path[0]), 0)
    for before in lineage.path(at)[1:]:
        trust = trust_after(lineage, trust, before)
    while lineage.children.get(at):
        children = [c for c in lineage.children[at] if (at in on_path and at != tip) or may_follow(lineage[c], trust)]
        if not children:
            break
        weight = lineage.recent(at)

        def key(child: Hash, weight: set[Account] = weight, trust: Trust = trust) -> tuple[Any, ...]:
            signers = branch_signers(lineage, child, trust)
            kind = lineage[child].certificate.kind
            return not has_support(lineage, child, signers, trust), -len(signers & weight), kind, child

        at = min(children, key=key)
        trust = trust_after(lineage, trust, at)
    return at


class Compared(Lineage):
    """A lineage each of whose choices is compared with the full one."""

    def choose(self, tip: Hash, may_follow: Callable[[LineageEntry], bool]) -> Hash:
        def full(entry: LineageEntry, trust: Trust) -> bool:
            signers = branch_signers(self, entry.id, trust)
            assert self.is_supported(entry.id) == has_support(self, entry.id, signers, trust)
            assert self[entry.certificate.prev_certificate].trust == trust
            return may_follow(entry)

        expected = choose(self, tip, full)
        found = super().choose(tip, may_follow)
        assert found == expected, (found.hex()[:6], expected.hex()[:6])
        return found
