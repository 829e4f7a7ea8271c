"""Between `sparehive fetch` and the process that speaks libp2p for it: frames over pipes. Pure; neither of the two networks is imported.

A frame: length of what follows as 4 bytes, kind as 1, number of the address as 2, payload; big-endian."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable

READY, ASK, BLOCK, ABSENT, FAILED, LIED = range(6)
_HEAD = struct.Struct(">IBh")
MAX_FRAME_BYTES = 4 << 20


def frame(kind: int, number: int, payload: bytes) -> bytes:
    """READY: the address of a number (from who asks), or that asking may begin; ASK: digests; BLOCK: digest and bytes; ABSENT: a digest;
    FAILED, LIED: why."""
    return _HEAD.pack(len(payload) + 3, kind, number) + payload


async def frames_in(read: Callable[[int], Awaitable[bytes | bytearray]]) -> AsyncIterator[tuple[int, int, bytes]]:
    """(kind, number, payload) until the stream ends. ValueError for what is none."""
    buffer = bytearray()
    while True:
        while len(buffer) >= _HEAD.size and len(buffer) >= 4 + int.from_bytes(buffer[:4]):
            size, kind, number = _HEAD.unpack_from(buffer)
            yield kind, number, bytes(buffer[_HEAD.size : 4 + size])
            del buffer[: 4 + size]
        if len(buffer) >= 4 and int.from_bytes(buffer[:4]) > MAX_FRAME_BYTES:
            raise ValueError("a frame without end")
        data = await read(1 << 20)
        if not data:
            return
        buffer += data


def place_of_pair(listen: str) -> str:
    """[HOST:]PORT as a multiaddr; loopback where no host is named. ValueError as `peers.gateway.parse_listen`."""
    from peers.gateway import parse_listen

    host, port = parse_listen(listen)
    host = "127.0.0.1" if host == "localhost" else host
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"


__all__ = ["ABSENT", "ASK", "BLOCK", "FAILED", "LIED", "READY", "frame", "frames_in", "place_of_pair"]
