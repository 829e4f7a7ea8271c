"""What strangers send may not push out what the round needs, and nothing grows without a bound."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from swarm.averaging.contribution import encode_parts
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import (
    EARLY_BYTES,
    EARLY_COST_BYTES,
    EARLY_SECONDS,
    EARLY_SENDER_BYTES,
    MAX_CONTRIBUTIONS,
    MAX_PER_SIGNER,
    Reception,
)
from swarm.config import RunConfig
from swarm.consensus.shelf import kept_bytes
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.optim.codec import wire_bytes
from swarm.records.commitments import merges_hash, parts_root
from swarm.records.types import ZERO_HASH, Account, Contribution, ContributionContent, Hash, PartLeaf, Signed

RUN, TIP = b"\1" * 32, b"\2" * 32
VALUES = 700  # three parts of 256, the last of 188
CONFIG = RunConfig.parse(
    {
        "name": "test",
        "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
        "initial_root": "0" * 64,
        "codec": {"contribution": "int8", "part_values": 256},
    }
)
MADE = encode_parts(torch.linspace(-1.0, 1.0, VALUES), "int8", 256)
OTHER = encode_parts(torch.linspace(-2.0, 2.0, VALUES), "int8", 256)


def digest(record: Contribution) -> Hash:
    return hashlib.sha256(repr(record).encode()).digest()


def account(number: int) -> Account:
    return number.to_bytes(20, "big")


def contribution(
    who: int, prev: Hash = TIP, epoch: int = 3, leaves: tuple[PartLeaf, ...] = MADE.leaves
) -> tuple[Hash, Signed]:
    record = Contribution(
        RUN, epoch, account(who), prev, ZERO_HASH, 0, 1, 0, ZERO_HASH, merges_hash(()), ZERO_HASH, ZERO_HASH,
        parts_root(leaves), 3,
    )  # fmt: skip
    return digest(record), Signed(record, account(who), bytes(65), ContributionContent(leaves, ()))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reception(tmp_path: Path, clock: Clock) -> Reception:
    made = Reception(CONFIG, VALUES, PartStore(tmp_path), digest, clock)
    made.moved(TIP, [account(1), account(2)])
    return made


def test_a_contribution_is_complete_at_a_reducer_once_its_share_of_the_parts_is_here(reception: Reception) -> None:
    key, signed = contribution(1)
    reducers = [account(8), account(9)]
    assert reception.learn(signed)
    assert reception.missing(key, reducers, account(8)) == [0, 2]
    assert reception.missing(key, reducers, account(9)) == [1]
    assert reception.missing(key, reducers, account(7)) == []
    assert reception.take(key, 0, MADE.parts[0])
    assert not reception.take(key, 0, MADE.parts[0])  # known already
    assert reception.take(key, 2, MADE.parts[2])
    assert reception.missing(key, reducers, account(8)) == []
    assert reception.parts.get(sha256(MADE.parts[2])) == MADE.parts[2]


def test_a_contribution_whose_content_is_another_is_not_taken(reception: Reception) -> None:
    _, signed = contribution(1)
    assert not reception.learn(replace(signed, content=ContributionContent(OTHER.leaves, ())))
    assert not reception.learn(replace(signed, content=None))
    assert not reception.learn(replace(signed, signer=account(2)))


def test_of_two_contributions_to_one_round_the_first_counts(reception: Reception) -> None:
    key, signed = contribution(1)
    other, again = contribution(1, leaves=OTHER.leaves)
    assert reception.learn(signed) and not reception.learn(again)
    assert key in reception and other not in reception


def test_one_signer_can_push_out_only_its_own(reception: Reception) -> None:
    current, signed = contribution(1)
    reception.learn(signed)
    for number in range(3 * MAX_PER_SIGNER):
        reception.learn(contribution(5, number.to_bytes(32, "big"))[1])
    assert current in reception
    assert sum(contribution(5, n.to_bytes(32, "big"))[0] in reception for n in range(3 * MAX_PER_SIGNER)) == 4


def test_a_thousand_strangers_push_out_neither_the_round_nor_its_voters(reception: Reception) -> None:
    current, signed = contribution(1)
    reception.learn(signed)
    for number in range(MAX_CONTRIBUTIONS + 10):
        reception.learn(contribution(100 + number, b"\x09" * 32)[1])
    assert current in reception and reception.sizes()["contributions"] == MAX_CONTRIBUTIONS
    for number in range(MAX_CONTRIBUTIONS + 10):
        reception.learn(contribution(5000 + number)[1])  # on the tip: these push out the others
    late, voter = contribution(2)
    assert reception.learn(voter)
    assert current in reception and late in reception and reception.sizes()["contributions"] == MAX_CONTRIBUTIONS


def test_what_strangers_list_is_bounded_by_bytes(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 5 * kept_bytes(ContributionContent(MADE.leaves, ()))
    monkeypatch.setattr("swarm.averaging.reception.MAX_STRANGE_BYTES", room)
    old = [contribution(100 + number, b"\x09" * 32) for number in range(9)]
    for _, signed in old:
        assert reception.learn(signed)
    assert [key in reception for key, _ in old] == [False] * 4 + [True] * 5
    for number in range(9):
        assert reception.learn(contribution(200 + number)[1]) is (number < 5)  # on the tip: before those that are not
    assert reception.sizes()["contributions"] == 5
    for number in (1, 2):
        assert reception.learn(contribution(number)[1])  # voters are not counted
    assert reception.sizes()["contributions"] == 7


def test_the_own_contribution_is_here_whatever_strangers_filled(reception: Reception) -> None:
    for number in range(MAX_CONTRIBUTIONS):
        assert reception.learn(contribution(100 + number)[1])
    own, signed = contribution(99)
    assert not reception.learn(signed)
    reception.hold_own(own, signed.of(Contribution).holding(ContributionContent))
    for number in (1, 2):
        reception.learn(contribution(number)[1])
    assert own in reception and reception.missing(own, [account(8)], account(8)) == []


def test_parts_of_strangers_push_out_no_others(tmp_path: Path, clock: Clock) -> None:
    reception = Reception(CONFIG, VALUES, PartStore(tmp_path, strange_bytes=400), digest, clock)
    reception.moved(TIP, [account(1)])
    voters, signed = contribution(1)
    strange, other = contribution(5, leaves=OTHER.leaves)
    assert reception.learn(signed) and reception.learn(other)
    for index in range(3):
        assert reception.take(voters, index, MADE.parts[index]) and reception.take(strange, index, OTHER.parts[index])
    assert [reception.parts.get(sha256(part)) is not None for part in MADE.parts] == [True] * 3
    assert [reception.parts.get(sha256(part)) is not None for part in OTHER.parts] == [False, False, True]
    reception.parts.put(OTHER.parts[2])  # as an average, or asked for: strange no more
    reception.parts.put(b"x" * 400, is_strange=True)
    assert reception.parts.get(sha256(OTHER.parts[2])) == OTHER.parts[2]


def test_wrong_bytes_are_the_senders_fault_and_the_contribution_may_still_be_completed(reception: Reception) -> None:
    key, signed = contribution(1)
    reception.learn(signed)
    for wrong in (MADE.parts[0][:-1], b"\1" + MADE.parts[0][1:]):
        with pytest.raises(PeerFault, match=r"length|hash"):
            reception.take(key, 0, wrong)
    assert reception.on_tip(TIP) == [key]
    assert reception.take(key, 0, MADE.parts[0])


def test_a_commitment_that_breaks_a_rule_is_out_for_good(reception: Reception) -> None:
    bad = b"\x00\x7c" + MADE.parts[0][2:]
    leaves = (PartLeaf(0, len(bad), sha256(bad), 1.0), *MADE.leaves[1:])
    key, signed = contribution(1, leaves=leaves)
    reception.learn(signed)
    with pytest.raises(PeerFault, match="finite"):
        reception.take(key, 0, bad)
    assert reception.on_tip(TIP) == []
    with pytest.raises(PeerFault, match="before"):
        reception.take(key, 1, MADE.parts[1])


def test_a_part_that_the_model_does_not_have_is_refused(reception: Reception) -> None:
    key, signed = contribution(1)
    reception.learn(signed)
    for index in (3, 1 << 20):
        with pytest.raises(PeerFault, match="parts"):
            reception.take(key, index, MADE.parts[0])


LONG = tuple(PartLeaf(n, 1, b"\7" * 32, 1.0) for n in range(1 << 14))


@pytest.mark.parametrize("leaves", [MADE.leaves[:2], LONG])
def test_a_contribution_of_another_model_is_not_kept(reception: Reception, leaves: tuple[PartLeaf, ...]) -> None:
    """A list as long as a message can hold is megabytes of memory, for every key that signs one."""
    key, signed = contribution(1, leaves=leaves)
    with pytest.raises(PeerFault, match="of another model"):
        reception.learn(signed)
    assert key not in reception


def test_early_parts_wait_for_their_contribution_for_a_while(reception: Reception, clock: Clock) -> None:
    key, _ = contribution(1)
    reception.early(account(4), key, 0, b"part")
    assert reception.take_early(key) == [(account(4), 0, b"part")]
    assert reception.take_early(key) == []
    for index, part in ((3, b"part"), (0, bytes(wire_bytes(256, "int8") + 1))):  # the model has three
        with pytest.raises(PeerFault, match="part:"):
            reception.early(account(4), key, index, part)
    reception.early(account(4), key, 0, b"part")
    clock.now += EARLY_SECONDS + 1.0
    reception.early(account(4), b"\7" * 32, 0, b"another")
    assert reception.take_early(key) == []


def test_early_parts_are_bounded_by_sender_and_in_all(reception: Reception, clock: Clock) -> None:
    """Those without a byte too: each is remembered."""

    def is_kept(sender: int, number: int, size: int) -> bool:
        try:
            reception.early(account(sender), number.to_bytes(32, "big"), 0, bytes(size))
        except RetryError:
            return False
        return True

    for size in (0, wire_bytes(256, "int8")):
        of_one = [is_kept(4, n, size) for n in range(10_000)]
        assert of_one.count(True) == EARLY_SENDER_BYTES // EARLY_COST_BYTES
        assert not of_one[-1]
        of_all = [is_kept(5 + n % 20, n, size) for n in range(100_000)]
        assert of_all.count(True) == (EARLY_BYTES - EARLY_SENDER_BYTES) // EARLY_COST_BYTES
        clock.now += EARLY_SECONDS + 1.0
    assert is_kept(4, 0, 0)
    assert (reception.sizes()["early"], reception.sizes()["early_order"]) == (1, 1)  # what waited too long is forgotten
