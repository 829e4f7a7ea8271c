"""Whoever may have blocks: a folder here, a CAR file, an HTTP gateway, a libp2p node. Each gives what it has of what it is asked for; who
fetches checks the bytes."""

import asyncio
import contextlib
import math
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import aiohttp

from peers.contents import Contents
from peers.errors import ConfigError
from peers.pipes import ABSENT, ASK, BLOCK, FAILED, LIED, READY, frame, frames_in
from swarm.checkpoint.car import MAX_BLOCK_BYTES, CarReader
from swarm.checkpoint.unixfs import cid_text
from swarm.errors import PeerFault, RetryError, printable

IN_FLIGHT = 4  # requests to one gateway at once
START_SECONDS = 60.0  # that the process which speaks libp2p may take until it listens to us
ANSWER_SECONDS = 20.0  # after so long what has come of a batch is taken, and the rest asked for again
CONNECT_SECONDS = 10.0
AGAIN_SECONDS = 5.0  # within which a donor that has just become ready is asked again, though it gave nothing before

Want = tuple[bytes, int]  # digest, codec


class Donor(Protocol):
    """`name`: as its user has written it, without secrets; `lacks`: digests that it has said it does not have; `last_error`: why it gave
    nothing, in words."""

    name: str
    lacks: set[bytes]
    last_error: str

    @property
    def is_preparing(self) -> bool:
        """Nothing can come of it yet, for what is at work on it here takes its time: that is no silence of others."""

    async def ask(self, wants: Sequence[Want]) -> dict[bytes, bytes]:
        """What it has of them, unchecked. `RetryError`: nothing now; `PeerFault`: it does not keep to the rules."""

    async def close(self) -> None: ...


class FolderDonor:
    """A store of data, a run's or peer's directory, a folder of blocks."""

    is_preparing = False

    def __init__(self, directory: Path) -> None:
        self.name, self.lacks, self.last_error = str(directory), set[bytes](), ""
        self._contents = Contents([directory])

    async def ask(self, wants: Sequence[Want]) -> dict[bytes, bytes]:
        return await asyncio.to_thread(self._read, wants)

    def _read(self, wants: Sequence[Want]) -> dict[bytes, bytes]:
        found = {digest: data for digest, _ in wants if (data := self._contents.get(digest)) is not None}
        self.lacks.update(digest for digest, _ in wants if digest not in found)
        return found

    async def close(self) -> None:
        pass


class CarDonor:
    """A CAR file, which is read through once, however long that takes: whoever asks meanwhile waits for the same reading."""

    def __init__(self, file: Path) -> None:
        self.name, self.lacks, self.last_error = str(file), set[bytes](), ""
        self._file: BinaryIO = open(file, "rb")  # noqa: SIM115  closed by `close`
        self._indexing: asyncio.Task[dict[bytes, tuple[int, int]]] | None = None
        self._ready_by = 0.0
        self._closing = threading.Event()

    @property
    def is_preparing(self) -> bool:
        return time.monotonic() < self._ready_by

    def _index(self) -> dict[bytes, tuple[int, int]]:
        places = {}
        self._file.seek(0)
        for block, begin in CarReader(self._file).placed():
            places[block.digest] = (begin, len(block.data))
            if self._closing.is_set():
                break  # nobody asks any more
        return places

    def _indexed(self, task: asyncio.Task[dict[bytes, tuple[int, int]]]) -> None:
        self._ready_by = time.monotonic() + AGAIN_SECONDS

    def _read(self, places: dict[bytes, tuple[int, int]], wants: Sequence[Want]) -> dict[bytes, bytes]:
        self.lacks.update(digest for digest, _ in wants if digest not in places)
        handle, found = self._file.fileno(), [(digest, places[digest]) for digest, _ in wants if digest in places]
        return {digest: os.pread(handle, size, begin) for digest, (begin, size) in found}

    async def ask(self, wants: Sequence[Want]) -> dict[bytes, bytes]:
        if self._closing.is_set():
            raise RetryError("it is closed")
        if self._indexing is None:
            self.last_error = "is still being read through"
            self._indexing, self._ready_by = asyncio.create_task(asyncio.to_thread(self._index)), math.inf
            self._indexing.add_done_callback(self._indexed)
        try:
            try:
                places = await asyncio.shield(self._indexing)  # who asks gives up after a while, and asks again
            finally:
                if self._indexing.done():
                    self._ready_by = 0.0
            self.last_error = ""
            return await asyncio.to_thread(self._read, places, wants)
        except OSError as error:
            self.last_error = f"cannot be read ({_why(error)})"
            raise RetryError(self.last_error) from None

    async def close(self) -> None:
        self._closing.set()
        if self._indexing is not None:
            await asyncio.gather(self._indexing, return_exceptions=True)
        self._ready_by = 0.0
        self._file.close()


class GatewayDonor:
    """A trustless HTTP gateway, block by block."""

    is_preparing = False

    def __init__(self, url: str) -> None:
        """ConfigError where it is no URL of one."""
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            parts, port = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError("--from", url.split("@")[-1], "is no URL of a gateway: give http(s)://HOST[:PORT]")
        self.name = f"{parts.scheme}://{parts.hostname}{port}"
        path = parts.path.rstrip("/")
        self._base = parts._replace(path=path if path.endswith("/ipfs") else f"{path}/ipfs").geturl()
        self.lacks, self.last_error = set[bytes](), ""
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=IN_FLIGHT), timeout=limits, auto_decompress=False, read_bufsize=1 << 20,
                headers={"Accept": "application/vnd.ipld.raw", "Accept-Encoding": "identity", "User-Agent": "sparehive"},
            )  # fmt: skip
        return self._session

    async def ask(self, wants: Sequence[Want]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        tasks = [asyncio.create_task(self._one(want, found)) for want in wants]
        try:
            done, late = await asyncio.wait(tasks, timeout=ANSWER_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        faults = [error for task in done if not task.cancelled() and (error := task.exception()) is not None]
        for error in faults:
            if isinstance(error, PeerFault):
                self.last_error = str(error)
                raise error
        if late and not faults:
            self.last_error = f"does not answer within {ANSWER_SECONDS:.0f} s"
        if faults and not found:
            raise RetryError(self.last_error) from None
        return found

    async def _one(self, want: Want, found: dict[bytes, bytes]) -> None:
        digest, codec = want
        async with self._slots:
            try:
                async with self._open().get(f"{self._base}/{cid_text(digest, codec)}?format=raw") as answer:
                    if answer.status in (404, 410, 451):
                        self.last_error = (
                            f"has it not ({answer.status})"
                            if answer.status == 404
                            else f"gives it no more ({answer.status})"
                        )
                        self.lacks.add(digest)
                    elif answer.status != 200:
                        self.last_error = f"answers {answer.status} {printable(answer.reason or '', 60)}".rstrip()
                        raise RetryError(self.last_error)
                    else:
                        found[digest] = await self._body(answer)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                self.last_error = f"does not answer ({_why(error)})"
                raise RetryError(self.last_error) from None

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.content_length is not None:
            if answer.content_length > MAX_BLOCK_BYTES:
                raise PeerFault(f"sends {answer.content_length} bytes as one block")
            return await answer.read()
        taken = bytearray()
        async for piece in answer.content.iter_any():
            taken += piece
            if len(taken) > MAX_BLOCK_BYTES:
                raise PeerFault("sends a block without end")
        return bytes(taken)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class IpfsProcess:
    """The process that speaks libp2p, one for all addresses of a fetch; started when the first of them is asked."""

    def __init__(self) -> None:
        self.donors: list[IpfsDonor] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._began = asyncio.Event()  # it is there, or has ended

    @property
    def is_starting(self) -> bool:
        """Nobody has been asked through it yet: what it imports takes seconds."""
        return self._process is not None and not self._began.is_set()

    async def send(self, data: bytes) -> None:
        """`RetryError` where the process has ended, or never begins."""
        async with self._starting:
            if self._process is None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "peers.ipfs_node", "ask",
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                self._reading = asyncio.create_task(self._read(self._process))
                for number, donor in enumerate(self.donors):
                    self._write(frame(READY, number, donor.name.encode()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(START_SECONDS):
                        await self._began.wait()
                self._began.set()
            self._write(data)

    def _write(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        if self._process.returncode is not None or self._process.stdin.is_closing():
            raise RetryError("the process that speaks libp2p has ended")
        self._process.stdin.write(data)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for kind, number, payload in frames_in(process.stdout.read):
            self._began.set()
            if 0 <= number < len(self.donors):
                self.donors[number].take(kind, payload)
        self._began.set()
        for donor in self.donors:
            donor.take(FAILED, b"the process that speaks libp2p has ended")

    async def close(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()  # it holds nothing
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


class IpfsDonor:
    """A libp2p node that speaks Bitswap: kubo, a peer of a run, the sidecar of one."""

    def __init__(self, address: str, process: IpfsProcess) -> None:
        """ConfigError where it is no address of a node, or libp2p is not installed."""
        if not re.fullmatch(
            r"/(ip4|ip6|dns|dns4|dns6)/[0-9A-Za-z.:_-]{1,150}/tcp/[0-9]{1,5}/p2p/[1-9A-HJ-NP-Za-km-z]{1,64}", address
        ):
            raise ConfigError("--from", address, "is no address of a node: /ip4/HOST/tcp/PORT/p2p/ID")
        if find_spec("libp2p") is None:
            raise ConfigError(
                "--from", address, "needs libp2p: pip install 'sparehive[ipfs]' (in a checkout '.[ipfs]')"
            )
        self.name, self.lacks, self.last_error = address, set[bytes](), ""
        self._process, self._waiting = process, dict[bytes, asyncio.Future[bytes | None]]()
        self._lie = ""
        process.donors.append(self)
        self._number = len(process.donors) - 1

    @property
    def is_preparing(self) -> bool:
        return self._process.is_starting

    def take(self, kind: int, payload: bytes) -> None:
        """What the process says of it."""
        if kind in (BLOCK, ABSENT):
            digest = payload[:32]
            waiting = self._waiting.pop(digest, None)
            if kind == ABSENT:
                self.lacks.add(digest)
                self.last_error = "has it not"
            if waiting is not None and not waiting.done():
                waiting.set_result(payload[32:] if kind == BLOCK else None)
        elif kind in (FAILED, LIED):
            self.last_error = printable(payload.decode(errors="replace"), 200)
            self._lie = self.last_error if kind == LIED else self._lie
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(None)
            self._waiting.clear()

    async def ask(self, wants: Sequence[Want]) -> dict[bytes, bytes]:
        loop = asyncio.get_running_loop()
        mine = {digest: self._waiting.setdefault(digest, loop.create_future()) for digest, _ in wants}
        await self._process.send(frame(ASK, self._number, b"".join(mine)))
        await asyncio.wait(mine.values(), timeout=ANSWER_SECONDS)
        if self._lie:
            raise PeerFault(self._lie)
        found = {digest: data for digest, each in mine.items() if each.done() and (data := each.result()) is not None}
        if not found and not self.last_error:
            self.last_error = f"does not answer within {ANSWER_SECONDS:.0f} s"
        if not found and not self.lacks.issuperset(mine):
            raise RetryError(self.last_error)
        return found

    async def close(self) -> None:
        await self._process.close()


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "time is over"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(words.split()), 120)


def open_donor(given: str, process: IpfsProcess) -> Donor:
    """What --from names: a gateway's URL, a node's address (asked by `process`), a CAR file, a folder of blocks. ConfigError where it is
    none."""
    if re.match(r"/(ip4|ip6|dns|dns4|dns6)/", given):
        return IpfsDonor(given, process)
    if given.lower().startswith(("http://", "https://")):
        return GatewayDonor(given)
    path = Path(given).expanduser()
    if path.is_dir():
        return FolderDonor(path)
    if path.is_file():
        return CarDonor(path)
    raise ConfigError(
        "--from",
        given,
        "is no http(s):// URL of a gateway, no /ip4/…/p2p/… of a node, no CAR file and no folder of blocks",
    )


__all__ = ["CarDonor", "Donor", "FolderDonor", "GatewayDonor", "Want", "open_donor"]
