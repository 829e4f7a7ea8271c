"""Storing for pay: who is asked for what, who witnesses, what is a proof, and whom an epoch pays how much."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives.errors import InputError
from incentives.hashing import keccak
from incentives.storage import (
    Draw,
    Piece,
    StorageRules,
    StoredObject,
    drawn_segments,
    drawn_storers,
    encode_proof,
    fault_of_proof,
    held_objects,
    held_of,
    pool_id,
    proof_bytes,
    storage_units,
    storage_witnesses,
)
from peers.storage import storage_rules
from swarm.checkpoint.segments import SegmentTree
from swarm.config import RunConfig
from tests.pure.test_run_config import storage as table
from tests.pure.test_run_config import stored, values

CONTENTS = [random.Random(size).randbytes(size) for size in (1, 3000, 1025, 70_000)]
OBJECTS = tuple(StoredObject(SegmentTree.of([content]).root, len(content)) for content in CONTENTS)
RULES = StorageRules(OBJECTS, 2, 1, 4, 1)
CERTIFICATE, STORER = b"\x11" * 32, b"\x22" * 20
EVERYTHING = held_of(range(4))


def pieces(draws: tuple[Draw, ...], contents: list[bytes] = CONTENTS) -> list[Piece]:
    found = []
    for draw in draws:
        tree = SegmentTree.of([contents[draw.object]])
        start, size = tree.group_of(draw.segment)
        found.append(Piece(*tree.prove(draw.segment, contents[draw.object][start : start + size])))
    return found


def proof(held: bytes = EVERYTHING, rules: StorageRules = RULES) -> bytes:
    draws = drawn_segments(rules, CERTIFICATE, STORER, held)
    return encode_proof(rules, draws, pieces(draws))


def test_the_table_of_a_run_becomes_its_rules() -> None:
    run = RunConfig.parse(values(storage=table(stored(), every_epochs=3, segments=5, replicas=2), witnesses=4))
    rules = storage_rules(run)
    assert rules is not None
    assert rules == StorageRules((StoredObject(bytes.fromhex(stored()["segments_root"]), 5000),), 2, 3, 5, 4)
    assert [epoch for epoch in range(1, 8) if rules.is_challenged(epoch)] == [3, 6]
    assert storage_rules(RunConfig.parse(values())) is None
    assert pool_id(run.run_id) == keccak(b"sparehive storage" + run.run_id)


def test_a_draw_is_what_the_protocol_says() -> None:
    held = held_of([1, 3])
    assert held == bytes(31) + b"\x0a"
    for number, draw in enumerate(drawn_segments(RULES, CERTIFICATE, STORER, held)):
        seed = b"sparehive storage" + CERTIFICATE + STORER + held + bytes(3) + bytes([number])
        at = int.from_bytes(keccak(seed), "big") % (3 + 69)
        assert draw == (Draw(1, at) if at < 3 else Draw(3, at - 3))


def test_draws_differ_by_certificate_storer_and_held_and_reach_every_segment() -> None:
    one = drawn_segments(RULES, CERTIFICATE, STORER, EVERYTHING)
    assert one == drawn_segments(RULES, CERTIFICATE, STORER, EVERYTHING) and len(one) == 4
    for other in (
        drawn_segments(RULES, bytes(32), STORER, EVERYTHING),
        drawn_segments(RULES, CERTIFICATE, bytes(20), EVERYTHING),
        drawn_segments(RULES, CERTIFICATE, STORER, held_of([0, 2, 3])),
    ):
        assert other != one
    reached = {
        draw for n in range(600) for draw in drawn_segments(RULES, n.to_bytes(32, "big"), STORER, held_of([1, 2]))
    }
    assert reached == {Draw(1, 0), Draw(1, 1), Draw(1, 2), Draw(2, 0), Draw(2, 1)}


@pytest.mark.parametrize("held", [bytes(32), held_of([4]), held_of([0, 255]), b"\1", b""])
def test_nothing_and_what_the_run_does_not_list_cannot_be_held(held: bytes) -> None:
    with pytest.raises(InputError, match="must name some of the run's 4 stored objects"):
        held_objects(held, RULES)
    assert "must name some" in str(fault_of_proof(RULES, CERTIFICATE, STORER, held, proof()))


@given(st.sets(st.integers(0, 3), min_size=1), st.integers(1, 16), st.binary(min_size=32, max_size=32))
@settings(max_examples=40, deadline=None)
def test_who_has_the_bytes_proves_it(held: set[int], segments: int, certificate: bytes) -> None:
    rules, bitmap = replace(RULES, segments=segments), held_of(held)
    draws = drawn_segments(rules, certificate, STORER, bitmap)
    block = encode_proof(rules, draws, pieces(draws))
    assert len(block) == proof_bytes(rules, draws) < 40_000
    assert fault_of_proof(rules, certificate, STORER, bitmap, block) is None


def test_another_storers_proof_and_one_of_before_are_none() -> None:
    block = proof()
    assert fault_of_proof(RULES, CERTIFICATE, STORER, EVERYTHING, block) is None
    for certificate, storer in ((CERTIFICATE, b"\x23" * 20), (b"\x12" * 32, STORER)):
        assert fault_of_proof(RULES, certificate, storer, EVERYTHING, block) is not None
    assert fault_of_proof(RULES, CERTIFICATE, STORER, held_of([3]), block) is not None


def test_any_changed_byte_is_no_proof_and_lengths_are_exact() -> None:
    block = proof()
    for at in (*range(len(b"sparehive-storage-proof-1\n") + 40), *range(100, len(block), 97), len(block) - 1):
        changed = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
        assert fault_of_proof(RULES, CERTIFICATE, STORER, EVERYTHING, changed) is not None
    for wrong in (b"", block[:-1], block + b"\0", block * 2):
        fault = fault_of_proof(RULES, CERTIFICATE, STORER, EVERYTHING, wrong)
        assert fault == f"the proof has {len(wrong)} bytes, not {len(block)}"


def test_who_lost_bytes_makes_no_proof() -> None:
    rotten = [bytes([content[0] ^ 1]) + content[1:] for content in CONTENTS]
    draws = drawn_segments(RULES, CERTIFICATE, STORER, held_of([0]))
    with pytest.raises(InputError, match=r"proof\[0\].*read the object again"):
        encode_proof(RULES, draws, pieces(draws, rotten))
    good = pieces(draws)
    with pytest.raises(ValueError, match="zip"):
        encode_proof(RULES, draws, good[:-1])


def test_witnesses_are_drawn_voters_other_than_the_storer() -> None:
    voters = tuple(bytes([number]) * 20 for number in range(1, 9))
    drawn = storage_witnesses(voters, CERTIFICATE, voters[0], 3)
    assert len(drawn) == 3 and set(drawn) < set(voters) - {voters[0]}
    assert drawn == storage_witnesses(voters[::-1], CERTIFICATE, voters[0], 3)
    ranks = [keccak(b"sparehive storage witness" + CERTIFICATE + voters[0] + voter) for voter in drawn]
    assert ranks == sorted(ranks)
    assert storage_witnesses(voters, CERTIFICATE, voters[0], 16)[:3] == drawn
    assert len(storage_witnesses(voters, CERTIFICATE, voters[0], 16)) == 7
    assert storage_witnesses(voters[:1], CERTIFICATE, voters[0], 3) == ()
    assert len({storage_witnesses(voters, n.to_bytes(32, "big"), voters[0], 1) for n in range(99)}) == 7


def test_the_first_replicas_by_rank_share_an_object_and_the_rest_gets_nothing() -> None:
    storers = [bytes([number]) * 20 for number in range(1, 5)]
    ranked = sorted(storers, key=lambda s: keccak(b"sparehive storage storer" + OBJECTS[1].segments_root + s))
    assert drawn_storers(RULES, 1, storers) == tuple(ranked[:2])
    units = storage_units(RULES, dict.fromkeys(storers, held_of([1])))
    assert units == {ranked[0]: 1, ranked[1]: 1, ranked[2]: 0, ranked[3]: 0}  # 3 KiB: ⌊3 / 2⌋ each
    assert storage_units(RULES, {storers[0]: EVERYTHING}) == {storers[0]: 1 + 3 + 2 + 69}
    assert storage_units(RULES, {storers[0]: held_of([1]), storers[1]: held_of([3])}) == {storers[0]: 3, storers[1]: 69}
    assert storage_units(RULES, {}) == {}


@given(
    st.dictionaries(st.binary(min_size=20, max_size=20), st.sets(st.integers(0, 3), min_size=1), max_size=8),
    st.integers(1, 5),
)
def test_no_epoch_pays_more_than_the_bytes_that_are_listed(held: dict[bytes, set[int]], replicas: int) -> None:
    rules = replace(RULES, replicas=replicas)
    bitmaps = {storer: held_of(each) for storer, each in held.items()}
    units = storage_units(rules, bitmaps)
    total = sum(each.num_segments for each in OBJECTS)
    assert sum(units.values()) <= total and units == storage_units(rules, dict(reversed(bitmaps.items())))
    # one more storer takes from the others and adds nothing to the whole, but where nobody held what it holds
    more = storage_units(rules, {**bitmaps, b"\xfe" * 20: EVERYTHING})
    assert all(more[storer] <= units[storer] for storer in bitmaps if storer != b"\xfe" * 20)


def test_ranks_of_objects_are_apart() -> None:
    storers = [bytes([number]) * 20 for number in range(1, 30)]
    orders = [drawn_storers(replace(RULES, replicas=29), index, storers) for index in range(4)]
    assert all(one != other for one, other in pairwise(orders))
