"""Unsigned LEB128, as protobuf and libp2p write numbers (https://protobuf.dev/programming-guides/encoding)."""


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
