"""hivemind's p2p daemon and its streams behind one seam: frames with hard limits, a deadline on every wait.

Upstream: hivemind 1.1.12, `hivemind.p2p.P2P`. It is used in the caller's event loop, without the forked `hivemind.DHT`
process: one loop less, no pipes, and a dead daemon is seen at once.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure, P2PDaemonError, P2PHandlerError
from hivemind.utils.multiaddr import Multiaddr

from swarm.errors import InputError, PeerFault, RetryError
from swarm.transport.addresses import check_announced, listen_address
from swarm.transport.daemon import Daemon

log = logging.getLogger(__name__)
MAX_FRAME_BYTES = 4 << 20
MAX_STREAMS, MAX_STREAMS_PER_PEER = 256, 16  # served at once, per protocol
WATCH_SECONDS, HUNG_SECONDS = 10.0, 60.0
Handler = Callable[["Stream"], Awaitable[None]]


class Stream:
    """A two-way stream of frames (4-byte big-endian length, then the bytes) with one peer."""

    def __init__(self, remote: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.remote, self._reader, self._writer = remote, reader, writer

    async def send(self, data: bytes, timeout: float) -> None:
        """`RetryError` where the peer does not take it in time or is gone."""
        if len(data) > MAX_FRAME_BYTES:
            raise InputError("frame", f"{len(data)} bytes", f"at most {MAX_FRAME_BYTES}")
        try:
            self._writer.write(len(data).to_bytes(4, "big") + data)
            async with asyncio.timeout(timeout):
                await self._writer.drain()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise RetryError(f"peer {self.remote[:12]} does not take data ({type(error).__name__})") from None

    async def receive(self, timeout: float, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
        """`RetryError`: nothing came in time or the peer is gone; `PeerFault`: a frame over the limit."""
        try:
            async with asyncio.timeout(timeout):
                size = int.from_bytes(await self._reader.readexactly(4), "big")
                if size > max_bytes:
                    raise PeerFault(f"frame: {size} bytes, at most {max_bytes}")
                return await self._reader.readexactly(size)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"peer {self.remote[:12]} is silent or gone ({type(error).__name__})") from None

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


class Node:
    """A p2p daemon of this peer's own. Use as an async context manager; `close` is idempotent and ends the daemon."""

    def __init__(self, daemon: Daemon, p2p: P2P) -> None:
        self.daemon, self.p2p = daemon, p2p
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses: tuple[str, ...] = ()
        self._watch_task: asyncio.Task[None] | None = None
        self._closed = False

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
    ) -> "Node":
        """Start the daemon. `InputError`: port taken or a malformed address; `RetryError`: it does not come up."""
        listen = [] if client_mode else [listen_address(host, port)]
        announced = [] if client_mode else [check_announced(a) for a in announce]
        if not identity.exists():
            identity.parent.mkdir(parents=True, exist_ok=True)
            part = identity.with_name(identity.name + ".part")
            part.unlink(missing_ok=True)
            P2P.generate_identity(str(part))
            os.chmod(part, 0o600)
            os.replace(part, identity)
        if port and not client_mode:
            _check_port_free(host, port)
        daemon = await Daemon.start(identity, listen, announced, startup_timeout_seconds)
        try:
            async with asyncio.timeout(startup_timeout_seconds):
                p2p = await P2P.replicate(Multiaddr(f"/unix{daemon.socket}"))
                node = cls(daemon, p2p)
                if not client_mode:
                    node._addresses = tuple(str(a) for a in await p2p.get_visible_maddrs())
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
        """Multiaddrs with this peer's id under which others reach it; empty in client mode."""
        return self._addresses

    @property
    def is_alive(self) -> bool:
        """False once the daemon has died; the peer then ends and its supervisor starts both anew."""
        return self.daemon.is_alive

    async def _watch(self) -> None:
        """A daemon that hangs is as good as dead: kill it, so that `is_alive` says so."""
        while self.daemon.is_alive:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                async with asyncio.timeout(HUNG_SECONDS):
                    await self.p2p._client.identify()
            except (P2PDaemonError, OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
                if self.daemon.is_alive:
                    log.error("the p2p daemon does not answer (%s): killed", type(error).__name__)
                    self.daemon.kill()
                return

    async def handle(self, protocol: str, handler: Handler) -> None:
        """Serve streams of `protocol`; a handler's known errors close its stream and nothing else. Streams beyond
        `MAX_STREAMS_PER_PEER` of one peer or `MAX_STREAMS` in all are closed at once."""
        serving: Counter[str] = Counter()

        async def on_stream(info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stream = Stream(info.peer_id.to_base58(), reader, writer)
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if serving[stream.remote] >= MAX_STREAMS_PER_PEER or serving.total() >= MAX_STREAMS:
                stream.close()
                return
            serving[stream.remote] += 1
            try:
                await handler(stream)
            except (PeerFault, RetryError) as error:
                log.debug("stream %s of %s: %s", protocol, stream.remote[:12], error)
            except asyncio.CancelledError:
                if not self._closed:  # else asyncio, which made this task, would report it as an error
                    raise
            finally:
                stream.close()
                serving[stream.remote] -= 1
                if not serving[stream.remote]:
                    del serving[stream.remote]

        try:
            await self.p2p.add_binary_stream_handler(protocol, on_stream)
        except (P2PDaemonError, OSError, asyncio.IncompleteReadError) as error:
            raise RetryError(f"the p2p daemon does not take {protocol} ({type(error).__name__})") from None

    async def connect(self, address: str, timeout: float) -> None:
        """Tell the daemon where a peer is, and connect. `RetryError` if that fails."""
        try:
            whole = Multiaddr(address)
            peer = PeerID.from_base58(whole["p2p"])
            bare = whole.decapsulate(f"/p2p/{peer.to_base58()}")
            async with asyncio.timeout(timeout):
                await self.p2p._client.connect(peer, [bare])
        except (
            ControlFailure,
            P2PDaemonError,
            OSError,
            ValueError,
            LookupError,
            asyncio.IncompleteReadError,
            TimeoutError,
        ) as error:
            raise RetryError(f"cannot reach {address} ({type(error).__name__})") from None

    async def stream(self, peer_id: str, protocol: str, timeout: float) -> Stream:
        """Open a stream. `RetryError` where the peer cannot be reached."""
        try:
            async with asyncio.timeout(timeout):
                _, reader, writer = await self.p2p.call_binary_stream_handler(PeerID.from_base58(peer_id), protocol)
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
        return Stream(peer_id, reader, writer)

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


def _check_port_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise InputError(
                "--port", port, f"cannot be used on {host} ({error.strerror}); choose another or 0"
            ) from None
