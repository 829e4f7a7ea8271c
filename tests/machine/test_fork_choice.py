"""The incremental fork choice takes the branch that protocol §5.4 says, whatever was heard in whatever order."""

import random
from collections.abc import Iterator

import pytest

from swarm.consensus.lineage import LineageEntry
from swarm.consensus.shelf import Shelf
from swarm.records.commitments import body_hash, contributors_root, electorate_hash, quorum
from swarm.records.types import (
    KIND_ROUND,
    KIND_SEATING,
    ZERO_HASH,
    Account,
    ContributorLeaf,
    Hash,
    RoundBody,
    RoundCertificate,
)
from tests.machine.cheap import account, cheap_cryptography, digest
from tests.machine.full_choice import Compared

RUN = b"r" * 32
FOUNDER = account(1000)
Word = tuple[Hash, RoundCertificate, RoundBody, Account]


@pytest.fixture(autouse=True)
def _cheap() -> Iterator[None]:
    with cheap_cryptography():
        yield


class Tree:
    """Certificates as they might be made by a few voters, some of whom lie, and by strangers; nobody has signed them yet."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.rng, self.count = rng, 0
        self.people = [account(n) for n in range(rng.choice((1, 2, 3, 4, 5, 7)))]
        self.strangers = [account(50 + n) for n in range(3)]
        root = digest("initial")
        self.made: dict[Hash, tuple[RoundCertificate, RoundBody]] = {}
        first = self.make(ZERO_HASH, KIND_SEATING, self.people, root, 0)
        self.words: list[Word] = [(first, *self.made[first], FOUNDER)]
        tip = first
        for _ in range(size):
            tip = self.follow(tip)

    def make(self, prev: Hash, kind: int, seats: list[Account], root: Hash, epoch: int) -> Hash:
        self.count += 1
        some = [p for p in self.people if self.rng.random() < 0.7] if kind == KIND_ROUND else []
        leaves = tuple(ContributorLeaf(p, digest(p, self.count), 0, 3) for p in sorted(some))
        body = RoundBody(leaves, (), (), (1.0,) * len(leaves), float(self.count), tuple(sorted(seats)))
        certificate = RoundCertificate(
            RUN, epoch + 1, 0, kind, prev, root, root, contributors_root(leaves), len(leaves), 0, 0,
            electorate_hash(body.electorate), body_hash(body),
        )  # fmt: skip
        identity = digest(certificate)
        self.made[identity] = (certificate, body)
        return identity

    def follow(self, tip: Hash) -> Hash:
        """One more certificate, mostly on the newest; the one to go on from."""
        rng = self.rng
        u = rng.random()
        prev = tip if u < 0.75 else rng.choice(list(self.made))
        before, body = self.made[prev]
        everyone = self.people + self.strangers
        if rng.random() < 0.7:
            kind, deciders = KIND_ROUND, list(body.electorate)
            seats = [p for p in everyone if rng.random() < 0.5] or [rng.choice(everyone)]
        else:
            kind = KIND_SEATING
            seats = deciders = [p for p in everyone if rng.random() < rng.choice((0.2, 0.6))] or [rng.choice(everyone)]
        identity = self.make(prev, kind, seats, before.next_root, before.epoch)
        needed = quorum(len(deciders)) if rng.random() < 0.9 else 0
        signing = rng.sample(deciders, min(len(deciders), needed + rng.choice((0, 0, 1, 2))))
        self.words += [(identity, *self.made[identity], who) for who in signing]
        return identity if rng.random() < 0.9 else tip


@pytest.mark.parametrize("seed", range(40))
def test_it_chooses_as_the_full_one(seed: int) -> None:
    rng = random.Random(seed)
    tree = Tree(rng, rng.choice((10, 30, 60)))
    lineage, tip = Compared(RUN, digest("initial"), (FOUNDER,)), ZERO_HASH
    far = rng.choice((1, 4, 1000))  # how much out of order
    words = [word for _, word in sorted(enumerate(tree.words), key=lambda each: each[0] + rng.random() * far)]
    for number, (identity, certificate, body, who) in enumerate(words):
        lineage.add(identity, certificate, body, who, b"")
        manner = rng.random()

        def may_follow(entry: LineageEntry, manner: float = manner) -> bool:
            held_back = entry.certificate.kind == KIND_SEATING and entry.certificate.prev_certificate != ZERO_HASH
            return manner < 0.1 or not held_back or (manner < 0.8 and lineage.is_supported(entry.id))

        if number % 3 == 0 or rng.random() < 0.3:
            tip = lineage.choose(tip, may_follow)
        if rng.random() < 0.03:
            lineage.choose(rng.choice([i for i in lineage.entries if lineage.valid(i)]), may_follow)
        for entry in lineage.contested(tip):
            assert entry.id in lineage.entries


@pytest.mark.parametrize("seed", range(40, 55))
def test_it_does_so_where_strangers_branches_make_room_all_the_time(seed: int) -> None:
    rng = random.Random(seed)
    tree = Tree(rng, 60)
    shelf = Shelf(rng.choice((10_000, 30_000)), 1 << 20)
    lineage, tip = Compared(RUN, digest("initial"), (FOUNDER,), shelf), ZERO_HASH
    for identity, certificate, body, who in tree.words * 2:
        lineage.add(identity, certificate, body, who, b"")
        tip = lineage.choose(tip, lambda entry: lineage.is_supported(entry.id))
        assert shelf.num_bytes <= 30_000
        strange = [e for e in lineage.entries.values() if e.ticket is not None]
        assert len(strange) == len(shelf)
        assert all(e.attempt is not None or e.creator for e in lineage.entries.values())
    for entry in lineage.entries.values():
        assert entry.id == ZERO_HASH or entry.attempt is None or lineage.valid(entry.certificate.prev_certificate)


def test_an_ancestor_is_found_in_few_steps_wherever_it_is() -> None:
    rng = random.Random(1)
    tree = Tree(rng, 0)
    lineage, tip = Compared(RUN, digest("initial"), (FOUNDER,)), ZERO_HASH
    for identity, certificate, body, who in tree.words:
        lineage.add(identity, certificate, body, who, b"")
        tip = identity
    for _ in range(300):
        before, body = tree.made[tip]
        certificate = RoundCertificate(
            RUN, before.epoch + 1, 0, KIND_ROUND, tip, before.next_root, before.next_root, contributors_root(()), 0, 0,
            0, electorate_hash(body.electorate), body_hash(body := RoundBody((), (), (), (), 0.0, body.electorate)),
        )  # fmt: skip
        tip = digest(certificate)
        tree.made[tip] = (certificate, body)
        for who in body.electorate:
            lineage.add(tip, certificate, body, who, b"")
    path = lineage.path(tip)
    assert len(path) == 302
    for at in rng.sample(path[:-1], 40):
        end = rng.choice(path[path.index(at) + 1 :])
        assert lineage.is_before(at, end) and not lineage.is_before(end, at) and not lineage.is_before(at, at)
