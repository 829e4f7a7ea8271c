"""What strangers send to a served model and to a licensee's proxy: it costs them a connection, and nobody else anything."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest
from coincurve import PrivateKey

from peers.gateway import Limits, serving
from peers.market.asking import Doorman
from peers.market.proxying import Proxy
from peers.market.serving import Served, Wish

MODEL = "31337:0x" + "11" * 32
KEY = PrivateKey(b"\x07" * 32)
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SERVERS = ("serve", "proxy")


def words(wish: Wish, told: Callable[[str], None]) -> str:
    return "words"


def at(kind: str, test: Callable[[int], Awaitable[None]], limits: Limits = Limits()) -> None:
    """`test(port)` of one of the two servers."""

    async def run() -> None:
        served = Served(MODEL, Doorman(time.time, lambda account: True), words, limits)
        proxy = Proxy(MODEL, "http://127.0.0.1:9", lambda request, when: request.sign(KEY, when), limits)
        try:
            async with serving(served if kind == "serve" else proxy, "127.0.0.1", 0) as port:
                await test(port)
        finally:
            served.close()

    asyncio.run(asyncio.wait_for(run(), 60))


async def said(port: int, request: bytes) -> bytes:
    """All that comes on a connection, until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 15)
    finally:
        writer.close()


@pytest.mark.parametrize("kind", SERVERS)
def test_half_a_body_holds_a_connection_for_a_short_time(kind: str) -> None:
    async def test(port: int) -> None:
        halves = [said(port, POST + b"Content-Length: 1000\r\n\r\nx") for _ in range(2)]
        for answer in await asyncio.gather(*halves):
            assert answer.startswith(b"HTTP/1.1 408 ") and b"send it at once" in answer
        assert (await said(port, POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")).startswith(b"HTTP/1.1 ")

    at(kind, test, Limits(connections=2, idle_seconds=0.5))


@pytest.mark.parametrize("kind", SERVERS)
def test_who_hangs_up_in_a_body_is_no_error_of_ours(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 1000\r\n\r\nx")
        await asyncio.sleep(0.2)  # the server has begun to read
        writer.transport.abort()
        await asyncio.sleep(0.2)

    with caplog.at_level(logging.WARNING):
        at(kind, test)
    assert not caplog.records
