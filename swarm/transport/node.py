"""hivemind's p2p daemon and its streams behind one seam: frames with hard limits, a deadline on every wait.

Upstream: hivemind 1.1.12, `hivemind.p2p.P2P`. It is used in the caller's event loop, without the forked `hivemind.DHT`
process: one loop less, no pipes, and a dead daemon is seen at once.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.p2p.p2p_daemon_bindings.utils import (
    ControlFailure,
    P2PDaemonError,
    P2PHandlerError,
    raise_if_failed,
    read_pbmsg_safe,
    write_pbmsg,
)
from hivemind.proto import p2pd_pb2
from hivemind.utils.multiaddr import Multiaddr

from swarm.atomic import replacing
from swarm.cancelling import cancel_all
from swarm.errors import InputError, PeerFault, RetryError
from swarm.transport.addresses import best_addresses, check_announced, listen_address, listen_hosts
from swarm.transport.daemon import Daemon, PortTaken
from swarm.transport.interfaces import bridge_addresses
from swarm.transport.places import Openings, Place, Places, network_of

log = logging.getLogger(__name__)
MAX_FRAME_BYTES = 4 << 20
# A stranger has so long to say a short frame, to begin a long one, and to take the next bytes of what it asked for.
PATIENCE_SECONDS = 4.0
SHORT_FRAME_BYTES, TAKEN_BYTES = 64 << 10, 16 << 10
HERE = "/sparehive/here/1"  # a nonce comes back, by way of the daemon and this process
NONCE_BYTES, HERE_SECONDS = 32, 8.0
# A busy machine may take long; what is broken is seen at once.
CHECKS = 2  # that fail one after the other until the daemon counts as deaf
WATCH_SECONDS, SILENT_SECONDS, HUNG_SECONDS = 3.0, 6.0, 60.0
TAG = "sparehive"  # of connections, at the daemon
ANSWER_SECONDS = 20.0  # of the daemon, to a question about itself
PORT_TRIES = 20  # to find one that is free on all interfaces
START_TRIES = 5  # of the daemon, whose free port was taken meanwhile
Handler = Callable[["Stream"], Awaitable[None]]
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class Stream:
    """A two-way stream of frames (4-byte big-endian length, then the bytes) with one peer.

    `address`: multiaddr of the other end of the connection that carries it. `patience_seconds`: how long the other end may say
    nothing, or take nothing, whatever time a call gives it."""

    def __init__(self, remote: str, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.remote, self.address, self._reader, self._writer = remote, address, reader, writer
        self.patience_seconds = math.inf
        self.place: Place | None = None
        self._free: Callable[[Place], None] = lambda place: None

    def serve_at(self, place: Place, free: Callable[[Place], None], patience_seconds: float) -> None:
        """It is one that others opened, and has `place` until `free(place)`."""
        self.place, self._free, self.patience_seconds = place, free, patience_seconds

    def settle(self) -> None:
        """From now on its owner bounds it in another way: it takes nobody's place here, and may be silent as long as calls say."""
        self.patience_seconds = math.inf
        self.free_place()

    def free_place(self) -> None:
        if self.place is not None:
            place, self.place = self.place, None
            self._free(place)

    async def send(self, data: bytes, timeout: float) -> None:
        """`RetryError` where the peer does not take it in time or is gone."""
        await self.send_all([data], timeout)

    async def send_all(self, frames: Sequence[bytes], timeout: float) -> None:
        """As `send` for each, in one piece: the daemon, the line's encryption and the other end work for every write."""
        for data in frames:
            if len(data) > MAX_FRAME_BYTES:
                raise InputError("frame", f"{len(data)} bytes", f"at most {MAX_FRAME_BYTES}")
        try:
            self._writer.write(b"".join(part for data in frames for part in (len(data).to_bytes(4, "big"), data)))
            async with asyncio.timeout(timeout):
                await self._drain()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise RetryError(f"peer {self.remote[:12]} does not take data ({type(error).__name__})") from None

    async def _drain(self) -> None:
        """`TimeoutError` where the other end takes less than `TAKEN_BYTES` while we are patient."""
        if math.isinf(self.patience_seconds):
            return await self._writer.drain()
        waiting = asyncio.ensure_future(self._writer.drain())
        try:
            left = self._writer.transport.get_write_buffer_size()
            while not (await asyncio.wait((waiting,), timeout=self.patience_seconds))[0]:
                before, left = left, self._writer.transport.get_write_buffer_size()
                if before - left < TAKEN_BYTES:
                    raise TimeoutError
            waiting.result()
        finally:
            waiting.cancel()

    async def receive(self, timeout: float, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
        """`RetryError`: nothing came in time or the peer is gone; `PeerFault`: a frame over the limit."""
        try:
            async with asyncio.timeout(timeout):
                async with asyncio.timeout(min(timeout, self.patience_seconds)):
                    size = int.from_bytes(await self._reader.readexactly(4), "big")
                    if size > max_bytes:
                        raise PeerFault(f"frame: {size} bytes, at most {max_bytes}")
                    data = await self._reader.readexactly(size) if size <= SHORT_FRAME_BYTES else None
                if data is None:
                    data = await self._reader.readexactly(size)
                if self.place is not None:
                    self.place.has_spoken = True
                return data
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"peer {self.remote[:12]} is silent or gone ({type(error).__name__})") from None

    async def send_delimited(self, data: bytes, timeout: float) -> None:
        """Bytes that carry their length already, as libp2p's protocols do; all else as `send`."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(timeout):
                await self._drain()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise RetryError(f"peer {self.remote[:12]} does not take data ({type(error).__name__})") from None

    async def receive_length(self, idle: float, timeout: float) -> int | None:
        """Of what comes next, a varint, for which there are `idle` seconds until it begins, then `timeout` or our patience; None where
        the other end has ended the stream. Errors as `receive`."""
        try:
            async with asyncio.timeout(idle):
                first = await self._reader.read(1)
            if not first:
                return None
            async with asyncio.timeout(min(timeout, self.patience_seconds)):
                return await self._varint(first[0])
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"peer {self.remote[:12]} is silent or gone ({type(error).__name__})") from None

    async def receive_exactly(
        self, num_bytes: int, timeout: float, on_piece: Callable[[], None] = lambda: None
    ) -> bytes:
        """So many bytes. For each 16 KiB of them there is `timeout`, or our patience. `on_piece`: some have come. `RetryError`."""
        data, seconds = bytearray(), min(timeout, self.patience_seconds)
        try:
            while len(data) < num_bytes:
                async with asyncio.timeout(seconds):
                    enough = min(num_bytes, len(data) + TAKEN_BYTES)
                    while len(data) < enough:
                        piece = await self._reader.read(num_bytes - len(data))
                        if not piece:
                            raise asyncio.IncompleteReadError(b"", None)
                        data += piece
                        on_piece()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"peer {self.remote[:12]} is silent or gone ({type(error).__name__})") from None
        return bytes(data)

    async def _varint(self, byte: int) -> int:
        """The number that begins with `byte`. `PeerFault` beyond four bytes: no length is that large."""
        value = byte & 0x7F
        for shift in (7, 14, 21):
            if byte < 0x80:
                break
            byte = (await self._reader.readexactly(1))[0]
            value |= (byte & 0x7F) << shift
        if byte >= 0x80:
            raise PeerFault("message: its length has more than four bytes")
        return value

    @property
    def has_ended(self) -> bool:
        """Whether the other end says nothing more, or is gone; looked at without waiting."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def ended(self) -> None:
        """Returns once the other end has ended the stream, or said something that nobody asked for."""
        with contextlib.suppress(OSError):
            await self._reader.read(1)

    async def finish(self, timeout: float) -> None:
        """Say that this was all, wait until the other end has it, and close; who does not take it in time loses what is left."""
        try:
            self._writer.write_eof()
            async with asyncio.timeout(min(timeout, self.patience_seconds)):
                await self._writer.drain()
                await self.ended()
        except (OSError, TimeoutError, RuntimeError):
            self._writer.transport.abort()
        self.close()

    async def linger(self, timeout: float) -> None:
        """Wait for the other end's last word, however slow its line: closing at once would drop what the daemon has not sent yet."""
        self.patience_seconds = math.inf
        with contextlib.suppress(RetryError):
            await self.receive(timeout, 1)

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


class Node:
    """A p2p daemon of this peer's own. Use as an async context manager; `close` is idempotent and ends the daemon."""

    def __init__(self, daemon: Daemon, p2p: P2P, announced: Sequence[str] = (), port: int = 0) -> None:
        self.daemon, self.p2p, self.port = daemon, p2p, port
        self.announced = tuple(f"{address}/p2p/{self.peer_id}" for address in announced)
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses: tuple[str, ...] = ()
        self._watch_task: asyncio.Task[None] | None = None
        self.failure = ""  # why the daemon was given up
        self.silent_seconds = 0.0  # how long it has not answered by now
        self._closed = False
        # Whose streams have places of their own, by peer id; the owner says so.
        self.is_member: Callable[[str], bool] = lambda peer_id: False
        self._openings = Openings(time.monotonic)
        self._places: dict[str, Places] = {}
        self._leaving: set[str] = set()  # that are being disconnected

    @classmethod
    async def open(
        cls,
        identity: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        announce: Sequence[str] = (),
        client_mode: bool = False,
        startup_timeout_seconds: float = 120.0,
        preferred_port: int = 0,
    ) -> "Node":
        """Start the daemon. `port` 0: any that is free, the same one on all interfaces, `preferred_port` before others.
        `announce`: where the owner says that this peer can be reached besides. `InputError`: port taken or a malformed
        address; `RetryError`: it does not come up."""
        hosts = () if client_mode else listen_hosts(host)
        announced = [] if client_mode else [check_announced(a) for a in announce]
        if not identity.exists():
            identity.parent.mkdir(parents=True, exist_ok=True)
            with replacing(identity) as part:
                part.unlink(missing_ok=True)
                P2P.generate_identity(str(part))
                os.chmod(part, 0o600)
        daemon, port = await _start(identity, hosts, port, preferred_port, startup_timeout_seconds)
        try:
            async with asyncio.timeout(startup_timeout_seconds):
                p2p = await daemon.connect()
                node = cls(daemon, p2p, announced, port)
                await node.handle(HERE, node._answer_here)
                await node.look_at_interfaces()
                await node.check()
        except (P2PDaemonError, OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
            await daemon.close()
            raise RetryError(f"the p2p daemon does not answer ({type(error).__name__})") from None
        except BaseException:
            await daemon.close()
            raise
        node._watch_task = asyncio.create_task(node._watch())
        return node

    async def __aenter__(self) -> "Node":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def peer_id(self) -> str:
        return str(self.p2p.peer_id.to_base58())

    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs with this peer's id at which it listens or is said to be reached, the best first; empty in client mode."""
        return self._addresses

    async def look_at_interfaces(self) -> None:
        """Interfaces come and go: bring `addresses` up to date. `RetryError` where the daemon is silent."""
        if not self.port:
            return  # in client mode
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                listening = [str(a) for a in await self.p2p.get_visible_maddrs(latest=True)]
        except (P2PDaemonError, OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise RetryError(f"the p2p daemon does not answer ({type(error).__name__})") from None
        self._addresses = best_addresses((*self.announced, *listening), bridge_addresses())

    @property
    def is_alive(self) -> bool:
        """False once the daemon has died; the peer then ends and its supervisor starts both anew."""
        return self.daemon.is_alive

    async def _watch(self) -> None:
        """A daemon that hangs, or that can no longer hand streams to this process, is as good as dead: kill it, so that
        `is_alive` says so. Nothing else would: the peer would go on, linked to nobody."""
        failed = 0
        while self.daemon.is_alive:
            await asyncio.sleep(WATCH_SECONDS)
            check = asyncio.create_task(self.check())
            begun = asyncio.get_running_loop().time()
            try:
                while not (await asyncio.wait((check,), timeout=SILENT_SECONDS))[0]:
                    self.silent_seconds = asyncio.get_running_loop().time() - begun
                    if self.silent_seconds > HUNG_SECONDS:
                        raise RetryError(f"the p2p daemon has not answered for {HUNG_SECONDS:.0f} s")
                self.silent_seconds = 0.0
                await check
                failed = 0
            except RetryError as error:
                failed += 1
                if failed < CHECKS and self.silent_seconds <= HUNG_SECONDS:
                    continue  # one connection that was reset is no deaf daemon
                if self.daemon.is_alive:
                    self.failure = str(error)
                    log.error("%s: the daemon is killed", error)
                    self.daemon.kill()
                return
            finally:
                await cancel_all((check,))

    async def check(self) -> None:
        """Both ways: the daemon answers this process, and a stream comes through the socket by which it hands streams over.
        `RetryError` says which way is broken; takes as long as the daemon does."""
        try:
            await self.p2p._client.identify()
        except (P2PDaemonError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"the p2p daemon does not answer ({_reason(error)})") from None
        path = self.p2p._client_listen_maddr.value_for_protocol("unix")
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise RetryError(
                f"the p2p daemon cannot hand over what others send: {path} ({_reason(error)}); was it removed?"
            ) from None
        stream = Stream(self.peer_id, "", reader, writer)
        try:
            own = StreamInfo(self.p2p.peer_id, Multiaddr("/ip4/127.0.0.1/tcp/1"), HERE)
            await write_pbmsg(writer, own.to_protobuf())
            nonce = secrets.token_bytes(NONCE_BYTES)
            await stream.send(nonce, HUNG_SECONDS)
            if await stream.receive(HUNG_SECONDS, NONCE_BYTES) != nonce:
                raise RetryError("this process does not get what the p2p daemon hands over")
        except (OSError, PeerFault) as error:
            raise RetryError(f"this process does not get what the p2p daemon hands over ({_reason(error)})") from None
        finally:
            stream.close()

    async def _answer_here(self, stream: Stream) -> None:
        await stream.send(await stream.receive(HERE_SECONDS, NONCE_BYTES), HERE_SECONDS)
        await stream.linger(PATIENCE_SECONDS)

    async def ask_whether_here(self, peer_id: str) -> bool:
        """Whether the process of the peer at the other end of the daemon's connection answers. `RetryError`, `PeerFault`: no."""
        stream = await self.stream(peer_id, HERE, HERE_SECONDS)
        try:
            nonce = secrets.token_bytes(NONCE_BYTES)
            await stream.send(nonce, HERE_SECONDS)
            return await stream.receive(HERE_SECONDS, NONCE_BYTES) == nonce
        finally:
            stream.close()

    async def handle(self, protocol: str, handler: Handler) -> None:
        """Serve streams of `protocol`; a handler's known errors close its stream and nothing else. Streams for which there is no
        place (`places`) are closed at once; a stranger that opens too many is disconnected."""
        places = self._places[protocol] = Places()

        async def on_stream(info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stream = Stream(info.peer_id.to_base58(), str(info.addr), reader, writer)
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            is_member = stream.remote == self.peer_id or self.is_member(stream.remote)
            if not is_member and not self._openings.may_open(stream.remote):
                stream.close()
                await self._disconnect(info.peer_id)
                return
            place = Place(stream.remote, network_of(stream.address), is_member, stream.close)
            if not places.take(place):
                stream.close()
                return
            stream.serve_at(place, places.free, math.inf if is_member else PATIENCE_SECONDS)
            try:
                await handler(stream)
            except (PeerFault, RetryError) as error:
                log.debug("stream %s of %s: %s", protocol, stream.remote[:12], error)
            except asyncio.CancelledError:
                if not self._closed:  # else asyncio, which made this task, would report it as an error
                    raise
            finally:
                stream.close()
                stream.free_place()

        try:
            await self.p2p.add_binary_stream_handler(protocol, on_stream)
        except (P2PDaemonError, OSError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"the p2p daemon does not take {protocol} ({type(error).__name__})") from None

    def places(self, protocol: str) -> Places:
        """Of the streams that others open here; for a protocol that is served."""
        return self._places[protocol]

    async def _disconnect(self, peer: PeerID) -> None:
        """All its streams end; it may come again. Who opens streams without end would cost more by being answered."""
        peer_id = peer.to_base58()
        if peer_id in self._leaving:
            return
        self._leaving.add(peer_id)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.p2p._client.disconnect(peer)
        except (
            ControlFailure,
            P2PDaemonError,
            OSError,
            ValueError,
            asyncio.IncompleteReadError,
            TimeoutError,
        ) as error:
            log.debug("%s is not disconnected: %s", peer_id[:12], _reason(error))
        finally:
            self._leaving.discard(peer_id)

    async def prefer(self, peer_id: str, weight: int) -> None:
        """Of too many connections the daemon ends those of least weight first; 0 is that of all others. `RetryError`."""
        kind = p2pd_pb2.ConnManagerRequest.TAG_PEER if weight else p2pd_pb2.ConnManagerRequest.UNTAG_PEER
        request = p2pd_pb2.Request(
            type=p2pd_pb2.Request.CONNMANAGER,
            connManager=p2pd_pb2.ConnManagerRequest(
                type=kind, peer=PeerID.from_base58(peer_id).to_bytes(), tag=TAG, weight=weight
            ),
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await self.p2p._client.control.daemon_connector.open_connection()
                with contextlib.closing(writer):
                    await write_pbmsg(writer, request)
                    response = p2pd_pb2.Response()
                    await read_pbmsg_safe(reader, response)
            raise_if_failed(response)
        except (P2PDaemonError, OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise RetryError(f"the p2p daemon does not answer ({_reason(error)})") from None

    async def connect(self, addresses: Sequence[str], timeout: float) -> None:
        """Tell the daemon where a peer is, and connect at whichever of its addresses answers first. `RetryError` if none does."""
        try:
            wholes = [Multiaddr(address) for address in addresses]
            peer = PeerID.from_base58(wholes[0]["p2p"])
            bare = [whole.decapsulate(f"/p2p/{peer.to_base58()}") for whole in wholes]
            async with asyncio.timeout(timeout):
                await self.p2p._client.connect(peer, bare)
        except (
            ControlFailure,
            P2PDaemonError,
            OSError,
            ValueError,
            LookupError,
            asyncio.IncompleteReadError,
            TimeoutError,
        ) as error:
            raise RetryError(f"cannot reach {', '.join(addresses)} ({type(error).__name__})") from None

    async def stream(self, peer_id: str, protocol: str, timeout: float) -> Stream:
        """Open a stream. `RetryError` where the peer cannot be reached."""
        try:
            async with asyncio.timeout(timeout):
                info, reader, writer = await self.p2p.call_binary_stream_handler(PeerID.from_base58(peer_id), protocol)
        except (
            ControlFailure,
            P2PDaemonError,
            P2PHandlerError,
            OSError,
            ValueError,
            asyncio.IncompleteReadError,
            TimeoutError,
        ) as error:
            raise RetryError(f"cannot open a stream to {peer_id[:12]} ({type(error).__name__})") from None
        return Stream(peer_id, str(info.addr), reader, writer)

    async def close(self) -> None:
        self._closed = True
        tasks = [t for t in (*self._tasks, self._watch_task) if t is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)
        with contextlib.suppress(P2PDaemonError, OSError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self.p2p.shutdown()
        await self.daemon.close()


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


async def _start(
    identity: Path, hosts: Sequence[str], wanted: int, preferred: int, timeout_seconds: float
) -> tuple[Daemon, int]:
    """The daemon and its port, 0 in client mode. A port that was free may be another's before the daemon has it: try the
    next, but for one that the owner `wanted`."""
    tries = 1 if wanted else START_TRIES
    while True:
        found, port = free_port(hosts, wanted, preferred) if hosts else ((), 0)
        try:
            return await Daemon.start(identity, [listen_address(h, port) for h in found], timeout_seconds), port
        except PortTaken:
            tries, preferred = tries - 1, 0
            if not tries:
                raise


def free_port(hosts: Sequence[str], port: int, preferred: int = 0) -> tuple[tuple[str, ...], int]:
    """Those of `hosts` that this machine has, and a port that is free on all of them: `port`, or any if it is 0."""
    for number in range(PORT_TRIES):
        bound, chosen = [], port or (0 if number else preferred)
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                with socket.socket(family) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((host, chosen))
                    chosen = probe.getsockname()[1]
            except OSError as error:
                if len(hosts) > 1 and error.errno in _NO_SUCH_FAMILY:
                    continue  # a machine without IPv6
                if port:
                    raise InputError(
                        "--port", port, f"cannot be used on {host} ({error.strerror}); choose another or 0"
                    ) from None
                if error.errno != errno.EADDRINUSE:
                    raise InputError("--host", host, f"cannot be listened on ({error.strerror})") from None
                break
            bound.append(host)
        else:
            if bound:
                return tuple(bound), chosen
    raise InputError("--port", port, "no port is free on all interfaces; give --host or --port")
