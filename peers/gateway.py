"""A read-only trustless HTTP gateway: blocks and CARs of what lies here, by CID; who asks checks each hash (specs.ipfs.tech,
trustless-gateway). No libp2p is needed on either side.

`serve` runs until it is cancelled. Bounded: connections, all of them and from one address; bytes of one answer; time of who sends or
reads slowly.
"""

import asyncio
import contextlib
import ipaddress
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from aiohttp import web

from peers.contents import Contents
from peers.errors import StartError
from swarm.checkpoint.car import car_header, car_section, graph_blocks
from swarm.checkpoint.unixfs import DAG_PB, RAW, Block, cid_text, decode_node, parse_any_cid
from swarm.errors import PeerFault, printable

RAW_TYPE, CAR_TYPE = "application/vnd.ipld.raw", "application/vnd.ipld.car"
CAR_ANSWER = f"{CAR_TYPE}; version=1; order=dfs; dups=n"
EMPTY_CID = "bafkqaaa"  # the identity CID of nothing, by which programs try whether a gateway is one
MAX_LINE_BYTES = 4096
MAX_PATH_PARTS = 32
LINGER_SECONDS = 10.0  # for a body that nobody reads
ENDING_SECONDS = 2.0  # for answers under way when it ends, and once more for what they leave
FOR_EVER = "public, max-age=29030400, immutable"

Root = tuple[bytes, int]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Limits:
    """`car_bytes`: of one CAR's blocks; `idle_seconds`: without a whole request; a reader that takes less than `slow_bytes` in
    `slow_seconds` is let go."""

    connections: int = 128
    from_one_address: int = 32
    waiting: int = 1024  # for their turn, half of them from one address
    car_bytes: int = 4 << 30
    idle_seconds: float = 20.0
    slow_seconds: float = 20.0
    slow_bytes: int = 32 << 10


class Served(Protocol):
    """What `serving` puts behind its doors."""

    @property
    def limits(self) -> Limits: ...

    def application(self, keeper: "Doorkeeper") -> web.Application: ...


class Gateway:
    """Answers requests out of `contents`."""

    def __init__(self, contents: Contents, limits: Limits = Limits()) -> None:
        self.contents, self.limits = contents, limits
        self.sent_bytes = 0

    def application(self, keeper: "Doorkeeper") -> web.Application:
        made = web.Application(middlewares=[keeper.answering, _errors])
        made.router.add_get("/ipfs/{path:.*}", self.content)
        made.router.add_get("/", self._word)
        return made

    async def _word(self, request: web.Request) -> web.Response:
        return _line(200, "a trustless IPFS gateway: /ipfs/CID?format=raw or format=car")

    async def content(self, request: web.Request) -> web.StreamResponse:
        """/ipfs/CID[/PATH], as raw block or CAR, by `format` or Accept."""
        cid, _, path = request.match_info["path"].partition("/")
        form = _form(request)
        if cid == EMPTY_CID and form == "raw" and not path:
            return web.Response(body=b"", content_type=RAW_TYPE)
        try:
            root = parse_any_cid(cid)
        except ValueError as error:
            return _line(400, f"{printable(cid, 80)} {error}")
        if self.contents.is_withdrawn(root[0]):
            return _line(410, f"{cid} was withdrawn by who published it")
        parts = [part for part in path.split("/") if part]
        if len(parts) > MAX_PATH_PARTS:
            return _line(400, "the path has too many parts")
        way = await asyncio.to_thread(self._walk, root, parts)
        if isinstance(way, str):
            return _line(404, way)
        if form == "raw":
            return await self._raw(request, way[-1])
        return await self._car(request, root, way)

    def _walk(self, root: Root, parts: list[str]) -> list[Root] | str:
        """The nodes from `root` to what the path names, or in words what is missing."""
        way = [root]
        for part in parts:
            data = self.contents.get(way[-1][0]) if way[-1][1] == DAG_PB else b""
            if data is None:
                return f"block {cid_text(*way[-1])} is not here"
            node = decode_node(data) if data else None
            link = (
                next((each for each in node.links if each.name == part), None) if node and node.is_directory else None
            )
            if link is None:
                return f"{printable(part, 80)} is not in {cid_text(*way[-1])}"
            way.append((link.digest, link.codec))
        return way

    async def _raw(self, request: web.Request, root: Root) -> web.StreamResponse:
        cid = cid_text(*root)
        headers = _headers(request, cid, "raw", "bin") | {"Accept-Ranges": "bytes"}
        if _is_known(request, headers["ETag"]):
            return web.Response(status=304, headers=headers)
        data = await asyncio.to_thread(self.contents.get, root[0])
        if data is None:
            return self._absent(request, cid)
        begin, end, status = 0, len(data), 200
        if "Range" in request.headers and request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
            try:
                wanted = request.http_range
                begin, end, _ = slice(wanted.start, wanted.stop).indices(len(data))
            except ValueError:
                begin = end = 0
            if begin >= end:
                return _line(416, f"the block has {len(data)} bytes", {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            data = data[begin:end]
        self.sent_bytes += len(data)
        return web.Response(status=status, body=data, headers=headers, content_type=RAW_TYPE)

    def _absent(self, request: web.Request, cid: str) -> web.Response:
        if "only-if-cached" in request.headers.get("Cache-Control", ""):
            return _line(412, f"{cid} is not here")
        return _line(404, f"{cid} is not here")

    async def _car(self, request: web.Request, root: Root, way: list[Root]) -> web.StreamResponse:
        scope = request.query.get("dag-scope", "all")
        wrong = _wrong_car(request, scope)
        if wrong:
            return _line(400, wrong)
        headers = _headers(request, cid_text(*way[-1]), f"car.{scope}.{len(way)}", "car") | {"Accept-Ranges": "none"}
        if _is_known(request, headers["ETag"]):
            return web.Response(status=304, headers=headers)
        first = await asyncio.to_thread(self.contents.get, way[-1][0])
        if first is None:
            return self._absent(request, cid_text(*way[-1]))
        size = len(first) + (sum(link.total for link in decode_node(first).links) if way[-1][1] == DAG_PB else 0)
        if scope == "all" and size > self.limits.car_bytes:
            return _line(
                413, f"is larger than the {self.limits.car_bytes} bytes of one CAR: ask for its blocks, format=raw"
            )
        answer = web.StreamResponse(headers=headers | {"Content-Type": CAR_ANSWER})
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        await answer.write(car_header([root]))
        await self._send_blocks(request, answer, self._in_scope(way, scope))
        await answer.write_eof()
        return answer

    def _in_scope(self, way: list[Root], scope: str) -> Iterator[Block]:
        for digest, codec in way[:-1]:
            yield Block(digest, codec, self._there(digest))
        digest, codec = way[-1]
        first = self._there(digest)
        is_folder = codec == DAG_PB and decode_node(first).is_directory
        if scope == "block" or (scope == "entity" and is_folder):
            yield Block(digest, codec, first)
        else:
            yield from graph_blocks(way[-1], self._there)

    def _there(self, digest: bytes) -> bytes:
        data = self.contents.get(digest)
        if data is None:
            raise PeerFault(f"block {digest.hex()[:12]} is not here")
        return data

    async def _send_blocks(self, request: web.Request, answer: web.StreamResponse, blocks: Iterator[Block]) -> None:
        """What is missing on the way breaks the connection off: a CAR that ends well is whole."""
        sent = 0
        try:
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                sent += len(block.data)
                self.sent_bytes += len(block.data)
                if sent > self.limits.car_bytes:
                    raise PeerFault("larger than it says")
                await answer.write(car_section(block))
        except PeerFault:
            transport = request.transport
            if transport is not None:
                transport.abort()


def _form(request: web.Request) -> str:
    """raw or car. HTTPBadRequest where neither is asked for: files are put together, and checked, by who reads."""
    form = request.query.get("format")
    if form is None:
        accepted = request.headers.get("Accept", "")
        form = "raw" if RAW_TYPE in accepted else "car" if CAR_TYPE in accepted else ""
    if form not in ("raw", "car"):
        raise web.HTTPBadRequest(
            text="ask for format=raw or format=car (or with Accept): files are put together by who reads\n"
        )
    return form


def _wrong_car(request: web.Request, scope: str) -> str:
    accepted = request.headers.get("Accept", "") if "format" not in request.query else ""
    if scope not in ("block", "entity", "all"):
        return f"dag-scope={printable(scope, 40)}: block, entity or all"
    if request.query.get("car-version", "1") != "1" or "version=2" in accepted:
        return "only CARs of version 1 are made here"
    if request.query.get("entity-bytes", "0:*") != "0:*":
        return "entity-bytes is not known here: ask for the blocks, format=raw"
    return ""


def _headers(request: web.Request, cid: str, form: str, suffix: str) -> dict[str, str]:
    return {
        "ETag": f'"{cid}.{form}"',
        "Cache-Control": FOR_EVER,
        "Content-Disposition": f'attachment; filename="{cid}.{suffix}"',
        "X-Content-Type-Options": "nosniff",
        "X-Ipfs-Path": printable(request.path, 2000),
        "X-Ipfs-Roots": cid,
        "Vary": "Accept",
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "Content-Range, X-Ipfs-Path, X-Ipfs-Roots",
    }


def _is_known(request: web.Request, etag: str) -> bool:
    given = request.headers.get("If-None-Match", "")
    return given.strip() == "*" or etag in (each.strip().removeprefix("W/") for each in given.split(","))


def _line(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    kept = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": "*"}
    return web.Response(status=status, text=printable(text, 500) + "\n", headers={**kept, **(headers or {})})


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _line(error.status, error.text or error.reason)
    except PeerFault as fault:
        return _line(404, f"what is here is no content of ours ({fault})")


# -- connections ---------------------------------------------------------------------------------------------------------
class Doorkeeper:
    """Counts connections. Beyond its limits they wait their turn, as programs that open one for each block need it; and it lets go who says
    nothing, or does not take what it asked for."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open: Counter[str] = Counter()
        self.waiting: list[Watched] = []
        self.connections: dict[object, Watched] = {}  # by the protocol that answers

    def is_full(self, host: str) -> bool:
        return self.open.total() >= self.limits.connections or self.open[host] >= self.limits.from_one_address

    def has_seats(self, host: str) -> bool:
        """Whether one more may wait."""
        of_one = sum(each.host == host for each in self.waiting)
        return len(self.waiting) < self.limits.waiting and of_one < self.limits.waiting // 2

    def next(self) -> None:
        """Lets in who has waited longest and is not one too many of its address."""
        for each in self.waiting:
            if not self.is_full(each.host):
                self.waiting.remove(each)
                each.begin()
                return

    def close(self) -> None:
        """Breaks off who is left. Again: does nothing."""
        for each in (*self.waiting, *self.connections.values()):
            each.abort()

    @web.middleware
    async def answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A connection on which a request is answered is not idle; while others wait it is the last one on it. A handler that reads a body
        bounds the time for it, as nobody else does."""
        connection = self.connections.get(request.protocol)
        if connection is None:
            return await handler(request)
        connection.is_busy = True
        try:
            answer = await handler(request)
            if self.waiting and not answer.prepared:
                answer.force_close()
            return answer
        finally:
            connection.is_busy = False
            connection.seen = asyncio.get_running_loop().time()


class Watched(asyncio.Protocol):
    """Stands between a connection and the protocol that answers it."""

    def __init__(self, inner: Any, keeper: Doorkeeper) -> None:
        self._inner, self._keeper = inner, keeper
        self.host = ""
        self._is_in = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0
        self.is_busy = False
        self.seen = 0.0  # when its last request was answered, by the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.host = str((transport.get_extra_info("peername") or ("",))[0])
        if not self._keeper.is_full(self.host):
            self.begin()
        elif self._keeper.has_seats(self.host):
            self._transport.pause_reading()
            self._keeper.waiting.append(self)
            self._wait(self._keeper.limits.idle_seconds, self._refuse)
        else:
            self._refuse()

    def begin(self) -> None:
        """Its turn has come."""
        assert self._transport is not None
        self._is_in = True
        self._keeper.open[self.host] += 1
        self._keeper.connections[self._inner] = self
        self.seen = asyncio.get_running_loop().time()
        self._inner.connection_made(self._transport)
        self._transport.resume_reading()
        self._wait(self._keeper.limits.idle_seconds, self._look_idle)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self) -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self in self._keeper.waiting:
            self._keeper.waiting.remove(self)
        if self._is_in:
            self._keeper.open[self.host] -= 1
            if not self._keeper.open[self.host]:
                del self._keeper.open[self.host]
            del self._keeper.connections[self._inner]
            self._inner.connection_lost(error)
            self._keeper.next()

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return cast(bool | None, self._inner.eof_received()) if self._is_in else None

    def pause_writing(self) -> None:
        if self._is_in and self._transport is not None:
            self._inner.pause_writing()
            self._left = self._transport.get_write_buffer_size()
            self._wait(self._keeper.limits.slow_seconds, self._look_slow)

    def resume_writing(self) -> None:
        if self._is_in:
            self._inner.resume_writing()
            self._wait(self._keeper.limits.idle_seconds, self._look_idle)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _look_idle(self) -> None:
        assert self._transport is not None
        idle = asyncio.get_running_loop().time() - self.seen
        if self.is_busy or self._transport.get_write_buffer_size() or idle < self._keeper.limits.idle_seconds:
            self._wait(self._keeper.limits.idle_seconds, self._look_idle)
        else:
            self._transport.abort()

    def _look_slow(self) -> None:
        assert self._transport is not None
        left = self._transport.get_write_buffer_size()
        if self._left - left < self._keeper.limits.slow_bytes:
            self._transport.abort()
        else:
            self._left = left
            self._wait(self._keeper.limits.slow_seconds, self._look_slow)


class _OurFaults(logging.Filter):
    """A body that is none is its sender's fault, which is answered and needs no traceback here."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], web.RequestPayloadError))


_log = logging.getLogger(__name__)
_log.addFilter(_OurFaults())


@contextlib.asynccontextmanager
async def serving(gateway: Served, host: str, port: int) -> AsyncIterator[int]:
    """Answers while this lasts; gives the port. At its end answers under way have `ENDING_SECONDS`. StartError where it cannot listen
    there."""
    keeper, idle = Doorkeeper(gateway.limits), gateway.limits.idle_seconds
    runner = web.AppRunner(gateway.application(keeper), access_log=None, max_line_size=MAX_LINE_BYTES, max_field_size=MAX_LINE_BYTES,
                           keepalive_timeout=idle, lingering_time=min(LINGER_SECONDS, idle), shutdown_timeout=ENDING_SECONDS,
                           logger=_log)  # fmt: skip
    await runner.setup()
    assert runner.server is not None
    answering = runner.server
    try:
        try:
            server = await asyncio.get_running_loop().create_server(lambda: Watched(answering(), keeper), host, port)
        except OSError as error:
            raise StartError(
                f"--gateway {host}:{port}: cannot be listened on ({error.strerror or error}); choose another port"
            ) from None
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()  # and does not wait: from Python 3.12 on that is for all who are connected
    finally:
        await runner.cleanup()
        keeper.close()


def parse_listen(text: str) -> tuple[str, int]:
    """[HOST:]PORT; loopback where no host is named. ValueError, without the text, where it is none."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("is no [HOST:]PORT, as 8080 or 0.0.0.0:8080")
    host = host.strip("[]") or "127.0.0.1"
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(
                "names no address of this machine: write 127.0.0.1:PORT, or 0.0.0.0:PORT for all"
            ) from None
    return host, int(port)


__all__ = ["CAR_TYPE", "RAW", "RAW_TYPE", "Gateway", "Limits", "parse_listen", "serving"]
