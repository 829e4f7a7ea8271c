"""hivemind's p2p daemon (p2pd, a Go program) as a child process that cannot outlive its peer.

Upstream: hivemind 1.1.12. `P2P.create` starts the daemon too, but gives no say in how: here the kernel kills it with the
peer (Linux), its last words become the error, and readiness is its control socket, not a line of its log. `Daemon.connect`
then connects to it as to any running daemon. It is never told the bootstrap peers: it would refuse to start when they are
gone, and links connect to them anyway.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hivemind.p2p import P2P
from hivemind.utils.multiaddr import Multiaddr

from swarm.errors import InputError, RetryError
from swarm.transport.sockets import DAEMON_SOCKET, make_socket_directory, places

log = logging.getLogger(__name__)
POLL_SECONDS = 0.02
TERM_SECONDS = 3.0
# Beyond CONNECTIONS the daemon ends those of least weight (`Node.prefer`) until CONNECTIONS_KEPT are left; none that is so new.
CONNECTIONS, CONNECTIONS_KEPT, CONNECTION_GRACE_SECONDS = 512, 256, 20
_MAX_MESSAGE_BYTES = 4 << 20  # of a unary call; hivemind's default
# Executed by a bare interpreter that becomes the daemon: SIGKILL when the parent dies, also if it has died meanwhile.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


class PortTaken(InputError):
    """Somebody listens at a port that this daemon was to have."""


def _command(identity: Path, socket: Path, listen: Sequence[str]) -> list[str]:
    """`listen` empty: client mode."""
    arguments = [
        f"-listen=/unix{socket}",
        f"-id={identity}",
        *(["-dhtServer=1", f"-hostAddrs={','.join(listen)}"] if listen else ["-dhtClient=1", "-noListenAddrs=1"]),
        "-b=0",
        "-tls=1",
        "-connManager=1",
        f"-connLo={CONNECTIONS_KEPT}",
        f"-connHi={CONNECTIONS}",
        f"-connGrace={CONNECTION_GRACE_SECONDS}s",
        "-idleTimeout=30s",
        *(f"-{feature}=0" for feature in ("autonat", "autoRelay", "natPortMap", "relay", "relayHopLimit")),
        f"-persistentConnMaxMsgSize={_MAX_MESSAGE_BYTES}",
    ]
    command = [str(files("hivemind.hivemind_cli") / "p2pd"), *arguments]
    if sys.platform == "linux":
        return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
    return command


class Daemon:
    """A running p2pd. `close` is idempotent."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        self._process, self.socket = process, socket
        self._words: deque[str] = deque(maxlen=20)
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, identity: Path, listen: Sequence[str], timeout_seconds: float) -> "Daemon":
        """`listen` empty: client mode. `PortTaken`; `InputError`: nowhere for its sockets; `RetryError`: it does not come up in
        time."""
        directory = make_socket_directory(places(identity.parent))
        socket = directory / DAEMON_SOCKET
        command = _command(identity, socket, listen)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"GOLOG_LOG_LEVEL": "error", **os.environ},
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        daemon = cls(process, socket)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await daemon._answers():
                    if process.returncode is not None:
                        await daemon._reader
                        raise daemon._why(listen)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            await daemon.close()
            raise RetryError(
                f"the p2p daemon was not ready within {timeout_seconds:.0f} s; "
                "raise startup_timeout_seconds in peer.toml on a slow machine"
            ) from None
        except BaseException:
            await daemon.close()
            raise
        return daemon

    async def connect(self) -> P2P:
        """hivemind's client of this daemon, its own socket beside the daemon's and not in `/tmp`."""

        class Beside(P2P):  # type: ignore[misc]
            _UNIX_SOCKET_PREFIX = f"/unix{self.socket.parent}/"

        return await Beside.replicate(Multiaddr(f"/unix{self.socket}"))

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        writer.close()
        return True

    def _why(self, listen: Sequence[str]) -> Exception:
        words = " ".join(" ".join(self._words).split())
        if "address already in use" in words or "failed to listen on any addresses" in words:
            return PortTaken("--port", ",".join(listen), "cannot be listened on; choose another or 0 for any free one")
        return RetryError(f"the p2p daemon did not start: {words[-200:] or 'it said nothing'}")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line beyond the reader's limit
                continue
            if not line:
                return
            self._words.append(line.decode(errors="replace")[:500])
            log.debug("p2pd: %s", self._words[-1].rstrip())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(TERM_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        shutil.rmtree(self.socket.parent, ignore_errors=True)
