"""Bitswap's messages against protobuf's own library, and what strangers write in them; who is asked, and who asks, is bounded."""

import contextlib
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm import varint
from swarm.errors import PeerFault
from swarm.hashing import sha256
from swarm.transport.bitswap import (
    ANSWER_BYTES,
    DAG_PB,
    MAX_BLOCK_BYTES,
    MAX_CID_BYTES,
    MAX_ENTRIES,
    MAX_MESSAGE_BYTES,
    MAX_WANTS,
    RAW,
    Answer,
    Asked,
    Message,
    Want,
    Wants,
    cid_of,
    decode,
    digest_of,
    encode,
    framed,
    wantlist,
)


def theirs() -> Any:
    """The class of a message by the numbers and types of the specification's message.proto."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="bitswap.proto", package="bitswap", syntax="proto3")
    whole = file.message_type.add(name="Message")

    def add(to: Any, number: int, name: str, kind: int, inner: str = "", many: bool = False) -> None:
        label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
        to.field.add(number=number, name=name, type=kind, type_name=inner or None, label=label)

    wants, block, presence = (whole.nested_type.add(name=name) for name in ("Wantlist", "Block", "BlockPresence"))
    entry = wants.nested_type.add(name="Entry")
    for number, name, kind in (
        (1, "block", kinds.TYPE_BYTES),
        (2, "priority", kinds.TYPE_INT32),
        (3, "cancel", kinds.TYPE_BOOL),
        (4, "wantType", kinds.TYPE_INT32),
        (5, "sendDontHave", kinds.TYPE_BOOL),
    ):
        add(entry, number, name, kind)
    add(wants, 1, "entries", kinds.TYPE_MESSAGE, ".bitswap.Message.Wantlist.Entry", many=True)
    add(wants, 2, "full", kinds.TYPE_BOOL)
    add(block, 1, "prefix", kinds.TYPE_BYTES)
    add(block, 2, "data", kinds.TYPE_BYTES)
    add(presence, 1, "cid", kinds.TYPE_BYTES)
    add(presence, 2, "type", kinds.TYPE_INT32)
    add(whole, 1, "wantlist", kinds.TYPE_MESSAGE, ".bitswap.Message.Wantlist")
    add(whole, 2, "blocks", kinds.TYPE_BYTES, many=True)
    add(whole, 3, "payload", kinds.TYPE_MESSAGE, ".bitswap.Message.Block", many=True)
    add(whole, 4, "blockPresences", kinds.TYPE_MESSAGE, ".bitswap.Message.BlockPresence", many=True)
    add(whole, 5, "pendingBytes", kinds.TYPE_INT32)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bitswap.Message"))


THEIRS = theirs()
DIGEST = sha256(b"a block")
CIDS = st.binary(min_size=1, max_size=MAX_CID_BYTES)
WANTS = st.builds(Want, CIDS, st.booleans(), st.booleans(), st.booleans())
MESSAGES = st.builds(
    Message,
    st.lists(WANTS, max_size=4).map(tuple),
    st.booleans(),
    st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=300)), max_size=4).map(tuple),
    st.lists(CIDS, max_size=4).map(tuple),
    st.lists(CIDS, max_size=4).map(tuple),
)


@given(MESSAGES)
def test_protobuf_s_own_library_reads_what_is_written(message: Message) -> None:
    read = THEIRS.FromString(encode(message))
    entries = [Want(e.block, e.wantType == 1, e.sendDontHave, e.cancel) for e in read.wantlist.entries]
    assert (tuple(entries), read.wantlist.full) == (message.wants, message.is_full)
    assert tuple((block.prefix, block.data) for block in read.payload) == message.blocks
    assert tuple(p.cid for p in read.blockPresences if p.type == 0) == message.haves
    assert tuple(p.cid for p in read.blockPresences if p.type == 1) == message.absent
    assert all(e.priority == 1 for e in read.wantlist.entries)


@given(MESSAGES)
def test_what_protobuf_s_own_library_writes_is_read(message: Message) -> None:
    made = THEIRS(pendingBytes=7)
    for want in message.wants:
        made.wantlist.entries.add(
            block=want.cid, priority=9, cancel=want.is_cancel, wantType=int(want.is_have), sendDontHave=want.wants_word
        )
    made.wantlist.full = message.is_full
    for prefix, data in message.blocks:
        made.payload.add(prefix=prefix, data=data)
    for kind, cids in enumerate((message.haves, message.absent)):
        for cid in cids:
            made.blockPresences.add(cid=cid, type=kind)
    assert decode(made.SerializeToString()) == message


def test_a_message_goes_under_its_length_and_a_block_of_version_1_0_is_read() -> None:
    data = framed(wantlist([DIGEST]))
    length, at = varint.decoded(data, 0)
    assert length == len(data) - at
    assert decode(data[at:]).wants == (Want(cid_of(DIGEST)),)
    assert decode(THEIRS(blocks=[b"old"]).SerializeToString()).blocks[0][1] == b"old"


def test_cids_of_both_versions_name_their_digest_and_others_none() -> None:
    assert digest_of(cid_of(DIGEST)) == digest_of(cid_of(DIGEST, DAG_PB)) == DIGEST
    assert digest_of(b"\x12\x20" + DIGEST) == DIGEST
    for other in (
        b"",
        b"\x01",
        b"\x01\x55\x13\x20" + DIGEST,  # sha2-512
        b"\x02\x55\x12\x20" + DIGEST,
        cid_of(DIGEST)[:-1],
        cid_of(DIGEST) + b"\0",
        b"\x12\x20" + DIGEST + b"\0",
        b"\x80" * 12,
    ):
        assert digest_of(other) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(PeerFault):
        decode(data)


def entries(number: int, cid: bytes = b"c") -> bytes:
    return varint.field(1, varint.field(1, varint.field(1, cid)) * number)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x28" + b"\x80" * 9 + b"\x01", "varint"),
        (b"\x80" * 12, "varint"),
        (b"\x0a\x7f", "cut off"),
        (b"\x0d\0\0\0\0", "wire type"),
        (varint.integer(1, 7), "another type"),
        (varint.field(4, varint.field(1, b"c") + varint.field(2, b"")), "another type"),
        (entries(MAX_ENTRIES + 1), "more than"),
        (entries(MAX_ENTRIES) + entries(1), "more than"),
        (varint.field(2, b"") * (MAX_ENTRIES + 1), "more than"),
        (varint.field(4, varint.field(1, b"c")) * (MAX_ENTRIES + 1), "more than"),
        (entries(1, b""), "a CID of 0"),
        (entries(1, b"c" * (MAX_CID_BYTES + 1)), "a CID of"),
        (varint.field(4, b""), "a CID of 0"),
        (varint.field(3, varint.field(1, b"p" * (MAX_CID_BYTES + 1))), "too many"),
        (varint.field(3, varint.field(2, bytes(MAX_BLOCK_BYTES + 1))), "a block of more"),
        (varint.field(2, bytes(MAX_BLOCK_BYTES + 1)), "a block of more"),
    ],
)
def test_what_breaks_a_bound_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(PeerFault, match=words) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_as_much_as_is_allowed_is_read() -> None:
    assert len(decode(entries(MAX_ENTRIES)).wants) == MAX_ENTRIES
    whole = Message(blocks=((cid_of(DIGEST)[:4], bytes(MAX_BLOCK_BYTES)),))
    assert decode(encode(whole)) == whole


# -- who asks -----------------------------------------------------------------------------------------------------------
def blocks(*data: bytes) -> Message:
    return Message(blocks=tuple((cid_of(DIGEST)[:4], each) for each in data))


def test_only_what_was_asked_for_is_taken() -> None:
    asked = Asked()
    asked.ask([sha256(b"one"), sha256(b"two")])
    assert asked.take(blocks(b"one")) == ({sha256(b"one"): b"one"}, set())
    for wrong in (b"one", b"two!", b""):  # a second time, a bit of it changed, cut off
        with pytest.raises(PeerFault, match="nobody asked for"):
            asked.take(blocks(wrong))
    assert asked.take(Message(absent=(cid_of(sha256(b"two"), DAG_PB), cid_of(DIGEST), b"?"))) == ({}, {sha256(b"two")})
    assert not asked


def test_a_good_block_beside_a_wrong_one_is_not_taken() -> None:
    asked = Asked()
    asked.ask([sha256(b"one"), sha256(b"two")])
    with pytest.raises(PeerFault):
        asked.take(blocks(b"one", b"wrong"))


def test_what_was_given_up_may_come_late_once_and_is_no_fault() -> None:
    asked = Asked()
    asked.ask([DIGEST])
    asked.give_up([DIGEST])
    assert not asked
    assert asked.expects_blocks
    asked.ask([DIGEST])  # asked for again: both answers are on their way
    assert asked.take(blocks(b"a block"))[0]
    assert asked.take(blocks(b"a block")) == ({}, set())
    with pytest.raises(PeerFault):
        asked.take(blocks(b"a block"))
    datas = [number.to_bytes(4, "big") for number in range(MAX_WANTS + 1)]
    asked.ask([sha256(data) for data in datas])
    asked.give_up([sha256(data) for data in datas])
    assert asked.take(blocks(datas[1])) == ({}, set())
    with pytest.raises(PeerFault):
        asked.take(blocks(datas[0]))  # so many are remembered


def test_two_that_ask_for_one_block_may_get_it_twice() -> None:
    asked = Asked()
    asked.ask([DIGEST])
    asked.ask([DIGEST])
    asked.give_up([DIGEST])
    assert asked
    asked.ask([DIGEST])
    assert asked.take(blocks(b"a block"))[0]
    assert asked.take(blocks(b"a block")) == ({}, set())


# -- who is asked -------------------------------------------------------------------------------------------------------
def test_wants_of_one_peer_are_bounded_and_keep_their_order() -> None:
    wants = Wants()
    for at in range(0, 40_000, MAX_ENTRIES):
        wants.take(Message(tuple(Want(number.to_bytes(36, "big")) for number in range(at, at + MAX_ENTRIES))))
    assert len(wants) == MAX_WANTS
    assert [want.cid for want in iter(wants.next, None)] == [number.to_bytes(36, "big") for number in range(MAX_WANTS)]


def test_cancels_full_lists_and_questions_whether_it_is_there() -> None:
    one, two = cid_of(DIGEST), cid_of(sha256(b"two"))
    wants = Wants()
    wants.take(Message((Want(one), Want(two, is_have=True))))
    wants.take(Message((Want(one, is_have=True), Want(two))))
    assert [(w.cid, w.is_have) for w in iter(wants.next, None)] == [(one, False), (two, False)]
    wants.take(wantlist([DIGEST, sha256(b"two")]))
    wants.take(wantlist([DIGEST], is_cancel=True))
    assert len(wants) == 1
    wants.take(Message((Want(one),), is_full=True))
    assert [w.cid for w in iter(wants.next, None)] == [one]


def test_an_answer_names_the_cid_as_it_was_asked_for() -> None:
    asked_for = (cid_of(DIGEST, DAG_PB), b"\x12\x20" + DIGEST, cid_of(DIGEST, 0x71))
    answer = Answer()
    for cid in asked_for:
        answer.put(Want(cid), b"a block")
    prefixes = [prefix for prefix, _ in decode(encode(answer.message())).blocks]
    assert prefixes == [b"\x01\x70\x12\x20", b"\x00\x70\x12\x20", b"\x01\x71\x12\x20"]


def test_an_answer_says_what_is_there_and_what_is_not_to_who_wants_to_know() -> None:
    answer = Answer()
    answer.put(Want(b"a", wants_word=False), None)
    assert not answer
    answer.put(Want(b"b", is_have=True), True)
    answer.put(Want(b"c"), None)
    answer.put(Want(b"d", is_have=True), False)
    assert answer.message() == Message(haves=(b"b",), absent=(b"c", b"d"))


def test_an_answer_never_outgrows_a_message() -> None:
    answer = Answer()
    for size in (ANSWER_BYTES - 1, MAX_BLOCK_BYTES):
        assert not answer.is_long
        answer.put(Want(cid_of(DIGEST)), bytes(size))
    assert answer.is_long
    for _ in range(MAX_WANTS):
        answer.put(Want(bytes([1]) * MAX_CID_BYTES), None)
    assert len(encode(answer.message())) < MAX_MESSAGE_BYTES
    words = Answer()
    while not words.is_long:
        words.put(Want(cid_of(DIGEST, RAW)), None)
    assert len(words.message().absent) == MAX_WANTS


def test_it_is_read_without_torch_and_hivemind() -> None:
    """A light install has neither."""
    program = (
        "import sys, swarm.transport.bitswap; "
        "found = {'torch', 'hivemind', 'numpy', 'google'} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
