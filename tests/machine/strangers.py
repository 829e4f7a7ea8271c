"""What somebody with free keys can say, without end: for tests of what it costs who hears it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from swarm.records.commitments import (
    body_hash,
    contributors_root,
    electorate_hash,
    merges_hash,
    parts_root,
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
    Contribution,
    ContributionContent,
    Hash,
    Merge,
    PartLeaf,
    RoundBody,
    RoundCertificate,
    RoundSet,
    SetContent,
    Signed,
)
from tests.machine.cheap import account, digest

RUN = b"r" * 32


def key(number: int) -> Account:
    """One of as many as one likes."""
    return account(1_000_000 + number)


def seating(
    prev: Hash, before: RoundCertificate, seats: tuple[Account, ...], padding: int = 0
) -> tuple[RoundCertificate, RoundBody]:
    """On any certificate; `padding`: digests where a seating has none."""
    body = RoundBody((), (), tuple(digest(prev, i) for i in range(padding)), (), 0.0, tuple(sorted(seats)))
    certificate = RoundCertificate(
        RUN, before.epoch + 1, 0, KIND_SEATING, prev, before.next_root, before.next_root, contributors_root(()), 0, 0,
        before.cumulative_units, electorate_hash(body.electorate), body_hash(body),
    )  # fmt: skip
    return certificate, body


def unknown(number: int, who: Account, seats: int = 1) -> Signed:
    """A certificate that follows nothing."""
    root = digest("root", number)
    body = RoundBody((), (), (), (), 0.0, tuple(sorted(key(-i) for i in range(1, seats + 1))))
    record = RoundCertificate(
        RUN, 7, 0, KIND_ROUND, digest("nothing", number), root, root, contributors_root(()), 0, 0, 0,
        electorate_hash(body.electorate), body_hash(body),
    )  # fmt: skip
    return Signed(record, who, bytes(65), body)


def chained(
    length: int, prev: Hash, before: RoundCertificate, identify: Callable[[RoundCertificate], Hash]
) -> list[Signed]:
    """Seatings, each on the one before, oldest first; of keys that sign sixty each."""
    made = []
    for number in range(length):
        who = key(number // 60)
        certificate, body = seating(prev, before, (who,))
        made.append(Signed(certificate, who, bytes(65), body))
        prev, before = identify(certificate), certificate
    return made


def early_set(number: int, who: Account, averages: int) -> Signed:
    """A set proposed again, with a certificate of many averages, after a certificate that does not exist."""
    prev = digest("nothing", number)
    body = RoundBody((), (), tuple(digest(number, i) for i in range(averages)), (), 0.0, (who,))
    certificate = RoundCertificate(
        RUN,
        7,
        0,
        KIND_ROUND,
        prev,
        prev,
        prev,
        contributors_root(()),
        0,
        0,
        0,
        electorate_hash((who,)),
        body_hash(body),
    )
    record = RoundSet(
        RUN, 7, 0, prev, contributors_root(()), 0, reducers_hash(()), digest(certificate.without_attempt()), NO_ATTEMPT
    )
    return Signed(record, who, bytes(65), SetContent((), (), certificate, body))


def contribution(who: Account, prev: Hash, epoch: int, parts: int, merges: int = 0) -> Signed:
    leaves = tuple(PartLeaf(i, 4, digest(who, i), 1.0) for i in range(parts))
    merged = tuple(Merge("certificate", digest(who, prev, i), i) for i in range(merges))
    record = Contribution(
        RUN, epoch, who, prev, ZERO_HASH, 0, 1, 0, ZERO_HASH, merges_hash(merged), ZERO_HASH, ZERO_HASH,
        parts_root(leaves), FLAG_VOTES | FLAG_REDUCES,
    )  # fmt: skip
    return Signed(record, who, bytes(65), ContributionContent(leaves, merged))


def signed_by(signed: Signed, who: Account) -> Signed:
    return replace(signed, signer=who)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions were called: a measure of cost that no other load changes."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
