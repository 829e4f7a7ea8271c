"""What strangers send to a served model and to a licensee's proxy: it costs them a connection, and nobody else anything."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest
from coincurve import PrivateKey

from peers.gateway import Limits, serving
from peers.market.asking import Doorman, Request
from peers.market.names import Names, name_of
from peers.market.proxying import Proxy
from peers.market.serving import Served, Wish

MODEL = "31337:0x" + "11" * 32
KEY = PrivateKey(b"\x07" * 32)
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SERVERS = ("serve", "proxy")


def words(wish: Wish, told: Callable[[str], None]) -> str:
    return "words"


def at(kind: str, test: Callable[[int], Awaitable[None]], limits: Limits | None = None) -> None:
    """`test(port)` of one of the two servers."""

    async def run() -> None:
        served = Served(MODEL, Doorman(time.time, lambda account: True), words, Names(("localhost",)), limits)
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


def signed(host: str, nonce: str | None = None) -> bytes:
    body = b'{"prompt":"a"}'
    header = Request("POST", host, "/v1/completions", MODEL, body).sign(KEY, int(time.time()), nonce)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: {header}\r\nConnection: close\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_what_was_signed_for_another_server_is_refused() -> None:
    async def run() -> None:
        doormen = [Doorman(time.time, lambda account: True) for _ in range(3)]
        one, other, nameless = (
            Served(MODEL, doorman, words, names)
            for doorman, names in zip(
                doormen, (Names(("a.org",)), Names(("b.org:8000", "c.org:443")), Names()), strict=True
            )
        )
        async with (
            serving(one, "127.0.0.1", 0) as at_one,
            serving(other, "127.0.0.1", 0) as at_other,
            serving(nameless, "0.0.0.0", 0) as at_nameless,
        ):
            request = signed("a.org")
            assert (await said(at_one, request)).startswith(b"HTTP/1.1 200 ")
            for port in (at_other, at_nameless):
                answer = await said(port, request)
                assert answer.startswith(b"HTTP/1.1 421 ") and b"a.org" in answer
            for host in ("B.org:8000", "c.org", "c.org:443"):
                assert (await said(at_other, signed(host))).startswith(b"HTTP/1.1 200 "), host
            for host in ("b.org", "c.org:80", f"127.0.0.1:{at_other}"):
                assert (await said(at_other, signed(host))).startswith(b"HTTP/1.1 421 "), host
            for host in (f"127.0.0.1:{at_nameless}", f"localhost:{at_nameless}"):
                assert (await said(at_nameless, signed(host))).startswith(b"HTTP/1.1 200 "), host
            for host in (f"127.0.0.1:{at_one}", "127.0.0.1", f"127.0.0.2:{at_nameless}", ""):
                assert (await said(at_nameless, signed(host))).startswith(b"HTTP/1.1 421 "), host
        for each in (one, other, nameless):
            each.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_names_are_written_as_clients_send_them() -> None:
    assert [name_of(text) for text in ("Model.Example.ORG", "h:8000", "[::1]:80", "203.0.113.7")] == [
        "model.example.org",
        "h:8000",
        "[::1]:80",
        "203.0.113.7",
    ]
    for wrong in ("", "https://h", "h/v1", "me@h", "h:99999", "h:x", "h:0", "a b", "[::1", "h\n", ":80"):
        with pytest.raises(ValueError, match="HOST"):
            name_of(wrong)


def test_who_starts_a_server_hears_its_names() -> None:
    assert Names(("a.org", "b.org:8000")).words("0.0.0.0", 8000) == "a.org, b.org:8000"
    assert Names().words("0.0.0.0", 8000) == "any address of this machine with port 8000"
    assert Names().words("127.0.0.1", 8000) == "127.0.0.1:8000, localhost:8000"
    assert Names().words("localhost", 8000) == "localhost:8000"
    assert Names().words("::1", 80) == "[::1], [::1]:80, localhost, localhost:80"
    assert Names().has("[2001:db8::1]:8000", ("2001:db8::1", 8000))
    assert not Names().has("localhost:8000", ("203.0.113.7", 8000)), "what was signed for somebody's own machine"


@pytest.mark.parametrize("kind", SERVERS)
def test_a_body_that_is_not_as_its_headers_say_is_one_error(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test(port: int) -> None:
        answer = await said(port, POST + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nnotgzip")
        assert (
            answer.startswith(b"HTTP/1.1 400 ")
            and b'{"error": {"message": "the body is not as its headers say' in answer
        )

    with caplog.at_level(logging.WARNING):
        at(kind, test)
    assert not caplog.records


@pytest.mark.parametrize("request_line", [POST + b"Content-Length: 1000\r\n\r\nx", POST[:30]])
@pytest.mark.parametrize("kind", SERVERS)
def test_what_is_half_sent_does_not_hold_the_end_up(kind: str, request_line: bytes) -> None:
    async def test(port: int) -> None:
        nonlocal begun
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_line)
        await asyncio.sleep(0.2)  # the server has begun to read
        begun = time.monotonic()
        open_ones.append(writer)

    begun, open_ones = 0.0, list[asyncio.StreamWriter]()
    at(kind, test)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"200 OK\r\nContent-Type: application/json; charset=utf-8", 200),
        (b"429 Wait\r\nContent-Type: application/json", 429),
        (b"200 OK\r\nContent-Type: text/\x01x", 502),
        (b"200 OK\r\nContent-Type: te\xffxt", 502),
        (b"200 OK\r\nContent-Type: text/html", 502),
        (b"200 OK\r\nX: y", 502),
        (b"101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade", 502),
        (b"304 Not Modified\r\nContent-Type: application/json", 502),
        (b"999 No\r\nContent-Type: application/json", 502),
        (b"200 OK\r\nContent-Type: application/json\r\nCache-Control: \x01\r\nSet-Cookie: a=b", 200),
    ],
)
def test_only_what_a_model_answers_is_passed_on(head: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def run() -> None:
        upstream = await asyncio.start_server(answers, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
        async with serving(Proxy(MODEL, url, lambda request, when: "signed"), "127.0.0.1", 0) as port:
            answer = await said(port, POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        upstream.close()
        said_head, _, body = answer.partition(b"\r\n\r\n")
        assert said_head.startswith(b"HTTP/1.1 %d " % status) and b"Content-Type: application/json" in said_head, answer
        assert b"Set-Cookie" not in said_head
        assert (b"no usable answer" in body or b"sends elsewhere" in body) if status == 502 else b"{}" in body

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(run(), 60))
    assert not caplog.records
