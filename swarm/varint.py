"""Unsigned LEB128, as protobuf and libp2p write numbers (https://protobuf.dev/programming-guides/encoding)."""

from collections.abc import Iterator


def encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decoded(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends. `ValueError` where it is cut off or has more than 9 bytes."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 56:
            raise ValueError("a varint is cut off or too long")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


# -- the fields of a protobuf message, of which we need two wire types ---------------------------------------------------
def field(number: int, data: bytes) -> bytes:
    """Bytes, a string or a message (wire type 2)."""
    return encoded(number << 3 | 2) + encoded(len(data)) + data


def integer(number: int, value: int) -> bytes:
    """An integer that is not negative (wire type 0)."""
    return encoded(number << 3) + encoded(value)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field, in order. `ValueError` where they end amid one, or have another wire type."""
    at = 0
    while at < len(data):
        key, at = decoded(data, at)
        if key & 7 == 0:
            value, at = decoded(data, at)
            yield key >> 3, value
        elif key & 7 == 2:
            length, at = decoded(data, at)
            if at + length > len(data):
                raise ValueError("a field is cut off")
            yield key >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError("a wire type that is not read here")
