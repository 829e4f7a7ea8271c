"""What one link sends at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from swarm.transport.link import PIECE_BYTES, Kind, Link

ACCOUNT = b"\1" * 20


class Taking:
    """A stream whose other end takes everything."""

    def __init__(self) -> None:
        self.pieces: list[list[bytes]] = []

    async def send_all(self, frames: Sequence[bytes], timeout: float) -> None:
        self.pieces.append(list(frames))


def run(work: Callable[[Link, Taking], Awaitable[None]]) -> list[list[bytes]]:
    """The pieces that `work` makes a link send."""

    async def main() -> list[list[bytes]]:
        stream = Taking()
        await work(Link(ACCOUNT, "peer", 0, (), (), stream, True), stream)  # type: ignore[arg-type]
        return stream.pieces

    return asyncio.run(main())


def message(data: bytes) -> bytes:
    return bytes((Kind.MESSAGE,)) + data


def test_what_waits_goes_in_one_piece_and_in_order() -> None:
    async def work(link: Link, _: Taking) -> None:
        for data in (b"a", b"b", b"c"):
            link.put(Kind.MESSAGE, data)
        assert await link.send_next(5.0, 5.0) == 6
        assert link.queued_bytes == 0

    assert run(work) == [[message(b"a"), message(b"b"), message(b"c")]]


def test_a_piece_is_bounded() -> None:
    large = b"x" * (PIECE_BYTES // 2)

    async def work(link: Link, _: Taking) -> None:
        for _ in range(5):
            link.put(Kind.MESSAGE, large)
        while link.queued_bytes:
            await link.send_next(5.0, 5.0)

    assert [len(piece) for piece in run(work)] == [2, 2, 1]


def test_news_goes_before_history_and_at_once() -> None:
    async def work(link: Link, _: Taking) -> None:
        link.answer([b"old"], lambda: [b"now"])
        link.put(Kind.MESSAGE, b"new")
        await link.send_next(5.0, 5.0)

    assert run(work) == [
        [message(b"new"), bytes((Kind.HISTORY,)) + b"old", bytes((Kind.DONE,)), message(b"now")],
    ]


def test_whoever_lingers_collects_what_comes_in_the_meantime() -> None:
    async def pieces(linger_seconds: float) -> list[list[bytes]]:
        stream = Taking()
        link = Link(ACCOUNT, "peer", 0, (), (), stream, True)  # type: ignore[arg-type]

        async def send() -> None:
            while True:
                await link.send_next(5.0, 5.0, linger_seconds)

        sending = asyncio.create_task(send())
        for number in range(5):
            await asyncio.sleep(0.01)
            link.put(Kind.MESSAGE, bytes((number,)))
        while sum(map(len, stream.pieces)) < 5:
            await asyncio.sleep(0.01)
        sending.cancel()
        return stream.pieces

    assert len(asyncio.run(pieces(0.0))) == 5
    assert len(asyncio.run(pieces(1.0))) == 1


def test_a_silent_link_pings() -> None:
    async def work(link: Link, _: Taking) -> None:
        await link.send_next(0.01, 5.0)
        await link.send_next(0.01, 5.0)

    assert run(work)[0] == [bytes((Kind.PING,))]
