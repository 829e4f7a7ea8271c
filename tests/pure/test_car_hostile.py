"""CAR files from strangers: each that is not one, whole and true, is refused in one line, and reading is bounded."""

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm import varint
from swarm.checkpoint.car import MAX_BLOCK_BYTES, CarReader, car_bytes, car_header, car_section
from swarm.checkpoint.unixfs import DAG_PB, RAW, Block, encode_file
from swarm.errors import PeerFault
from swarm.hashing import sha256

LINK, BLOCKS = encode_file(b"x" * 3000, 1000)
WHOLE = b"".join(car_bytes((LINK.digest, LINK.codec), BLOCKS))
HEADER = car_header([(LINK.digest, LINK.codec)])


def read(data: bytes) -> list[Block]:
    return list(CarReader(io.BytesIO(data)))


def section(cid: bytes, data: bytes) -> bytes:
    return varint.encoded(len(cid) + len(data)) + cid + data


def lying(codec: int = RAW) -> bytes:
    return car_section(Block(sha256(b"other"), codec, b"data"))


CASES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "no CAR": (b"PK\x03\x04" + bytes(2000), "header"),
    "text": (b"hello, this is no CAR at all", "cut off|begin"),
    "version 2": (bytes.fromhex("0aa16776657273696f6e02") + bytes(40), "version 2"),
    "no roots": (car_header([]) + WHOLE[len(HEADER) :], "header"),
    "header with more": (
        varint.encoded(len(HEADER[1:]) + 1) + HEADER[1:] + b"\0" + WHOLE[len(HEADER) :], "header"
    ),
    "header beyond any": (varint.encoded(1 << 20) + bytes(64), "begin"),
    "endless varint": (b"\xff" * 64, "no CAR"),
    "another's bytes": (HEADER + lying(), "not the one"),
    "another's node": (HEADER + lying(DAG_PB), "not the one"),
    "CID of version 0": (HEADER + section(b"\x12\x20" + bytes(32), b"x" * 30), "version 0"),
    "another hash": (HEADER + section(bytes((1, RAW, 0x1B, 32)) + bytes(32), b"x"), "sha2-256"),
    "another codec": (HEADER + section(bytes((1, 0x71, 0x12, 32)) + bytes(32), b"x"), "raw or dag-pb"),
    "zero padding": (WHOLE + b"\0", "section of 0"),
    "a section beyond any": (HEADER + varint.encoded(MAX_BLOCK_BYTES + 37) + bytes(100), "at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_line(case: str) -> None:
    data, why = CASES[case]
    with pytest.raises(PeerFault, match=why) as refused:
        read(data)
    assert "\n" not in str(refused.value)


def test_a_whole_one_is_read() -> None:
    assert sum(len(block.data) for block in read(WHOLE) if block.codec == RAW) == 3000
    assert {block.digest for block in read(WHOLE)} >= {LINK.digest}


@pytest.mark.parametrize("at", range(1, 12))
def test_a_cut_off_one_is_refused(at: int) -> None:
    ends = [len(HEADER)]
    stream = io.BytesIO(WHOLE)
    for block, begin in CarReader(stream).placed():
        ends.append(begin + len(block.data))
    cut = at * len(WHOLE) // 12
    if cut not in ends:
        with pytest.raises(PeerFault, match="cut off"):
            read(WHOLE[:cut])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(WHOLE)), st.integers(0, 8))
def test_whatever_is_changed_no_wrong_block_comes_out(noise: bytes, at: int, cut: int) -> None:
    changed = WHOLE[:at] + noise + WHOLE[at + cut :]
    try:
        blocks = read(changed)
    except PeerFault:
        return
    assert all(sha256(block.data) == block.digest for block in blocks)


def test_a_section_is_not_read_before_its_length_was_judged() -> None:
    class Counting(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    stream = Counting(HEADER + varint.encoded(1 << 40) + bytes(64))
    reader: Callable[[], list[Block]] = lambda: list(CarReader(stream))  # noqa: E731
    with pytest.raises(PeerFault):
        reader()
    assert stream.most <= 1 << 16
