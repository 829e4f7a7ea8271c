"""A libp2p host that speaks Bitswap 1.2, in a process of its own: the only place that imports libp2p, which cannot live beside hivemind.

    python -m peers.ipfs_node ask               what `sparehive fetch --from /ip4/…/p2p/…` starts: asks others for blocks
    python -m peers.ipfs_node serve DIR…        `sparehive ipfs`: hands out the blocks that lie in DIR
    python -m peers.ipfs_node -- DIR            the same beside a peer, as its peer.toml says

libp2p gives host, transports, identity and streams; messages and what is asked and answered are `swarm.transport.bitswap` (decision 0027).
Answers go out on streams of their own, one for each message: kubo and Helia read no others, and Helia keeps none open.
"""

import argparse
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr

from peers.contents import Contents
from peers.errors import PeerError, in_one_line
from peers.pipes import ABSENT, ASK, BLOCK, FAILED, LIED, READY, frame, frames_in, place_of_pair
from swarm import varint
from swarm.atomic import replacing
from swarm.errors import PeerFault
from swarm.transport.bitswap import (
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    Answer,
    Asked,
    Message,
    Wants,
    decode,
    digest_of,
    framed,
    wantlist,
)

READ_BYTES = 1 << 16
WANTLIST_BYTES = 512 << 10  # of a message from who was asked for nothing
SECONDS_CONNECT, SECONDS_SEND, SECONDS_MESSAGE = 10.0, 60.0, 60.0
MAX_PEERS, MAX_STREAMS_OF_ONE = 128, 16


async def messages(stream: Any, most: Callable[[], int]) -> AsyncIterator[Message]:
    """What comes in, message by message, until the other side ends. `PeerFault`: larger than `most()`, no Bitswap, or one that takes more
    than a minute."""
    buffer = bytearray()
    while True:
        size: int | None = None
        with trio.move_on_after(SECONDS_MESSAGE) as waiting:
            while True:
                if size is None:
                    size = _length(buffer, most())
                if size is not None and len(buffer) >= size:
                    break
                data = await stream.read(READ_BYTES)
                if not data:
                    return
                buffer += data
                waiting.deadline = trio.current_time() + SECONDS_MESSAGE if size is None else waiting.deadline
        if waiting.cancelled_caught:
            if buffer:
                raise PeerFault("bitswap: a message that does not end")
            continue  # idle
        assert size is not None
        yield decode(bytes(buffer[:size]))
        del buffer[:size]


def _length(buffer: bytearray, most: int) -> int | None:
    """Takes the length of the next message off, once it is there."""
    end = next((i for i, byte in enumerate(buffer[:10]) if byte < 0x80), None)
    if end is None:
        if len(buffer) >= 10:
            raise PeerFault("bitswap: a length that is none")
        return None
    size, at = varint.decoded(bytes(buffer[: end + 1]), 0)
    if size > most:
        raise PeerFault(f"bitswap: a message of {size} bytes")
    del buffer[:at]
    return size


@dataclass
class _Other:
    """Somebody at the other end. `number`: of the address that was asked, for who asks."""

    peer_id: Any
    number: int = -1
    wants: Wants = field(default_factory=Wants)
    asked: Asked = field(default_factory=Asked)
    is_answering: bool = False


class Node:
    """`contents`: what is handed out, None: nothing. `told`: gets frames for who asked (see `peers.pipes`)."""

    def __init__(self, host: Any, contents: Contents | None, told: Callable[[bytes], None] = lambda data: None) -> None:
        self.host, self.contents, self.told = host, contents, told
        self.others: dict[str, _Other] = {}
        self.streams: Counter[str] = Counter()
        self.sent_bytes = 0
        self._nursery: trio.Nursery | None = None

    @contextlib.asynccontextmanager
    async def running(self, listen: Sequence[str]) -> AsyncIterator["Node"]:
        async with (
            self.host.run(listen_addrs=[multiaddr.Multiaddr(each) for each in listen]),
            trio.open_nursery() as nursery,
        ):
            self._nursery = nursery
            self.host.set_stream_handler(PROTOCOL, self._on_stream)
            yield self
            nursery.cancel_scope.cancel()

    def addresses(self) -> list[str]:
        """With the node's id, as others dial them."""
        found = [str(each) for each in self.host.get_addrs()]
        mine = f"/p2p/{self.host.get_id()}"
        return [each if mine in each else each + mine for each in found]

    # -- others come -----------------------------------------------------------------------------------------------------
    async def _on_stream(self, stream: Any) -> None:
        peer_id = stream.muxed_conn.peer_id
        name = str(peer_id)
        if self.streams[name] >= MAX_STREAMS_OF_ONE or (name not in self.others and not self._has_room()):
            await self._quietly(stream.reset)
            return
        self.streams[name] += 1
        other = self.others.setdefault(name, _Other(peer_id))
        try:
            async for message in messages(
                stream, lambda: MAX_MESSAGE_BYTES if other.asked.expects_blocks else WANTLIST_BYTES
            ):
                self._take(other, message)
            await self._quietly(stream.close)
        except PeerFault as fault:
            self._fault(other, str(fault))
            await self._quietly(stream.reset)
            await self._quietly(lambda: self.host.disconnect(peer_id))  # with all that waits to be read
        except Exception:  # of libp2p and what lies below: the stream is gone
            await self._quietly(stream.reset)
        finally:
            self.streams[name] -= 1
            if not self.streams[name]:
                del self.streams[name]

    def _has_room(self) -> bool:
        """Whoever has no stream and wants nothing goes first."""
        if len(self.others) < MAX_PEERS:
            return True
        for name, other in self.others.items():
            if other.number < 0 and not self.streams[name] and not other.is_answering:
                del self.others[name]
                return True
        return False

    def _take(self, other: _Other, message: Message) -> None:
        found, absent = other.asked.take(message)
        for digest, data in found.items():
            self.told(frame(BLOCK, other.number, digest + data))
        for digest in absent:
            self.told(frame(ABSENT, other.number, digest))
        if message.wants and self.contents is not None and self._nursery is not None:
            other.wants.take(message)
            if not other.is_answering and len(other.wants):
                other.is_answering = True
                self._nursery.start_soon(self._answer, other)

    async def _answer(self, other: _Other) -> None:
        """Until it wants nothing more, or takes nothing."""
        try:
            while len(other.wants):
                answer = Answer()
                while not answer.is_long and (want := other.wants.next()) is not None:
                    digest = digest_of(want.cid)
                    answer.put(want, None if digest is None else await self._found(digest, want.is_have))
                if answer:
                    self.sent_bytes += answer.num_bytes
                    await self._send(other.peer_id, answer.message())
        except Exception:  # it has gone, or reads nothing
            other.wants = Wants()
        finally:
            other.is_answering = False

    async def _found(self, digest: bytes, is_have: bool) -> bytes | bool | None:
        assert self.contents is not None
        if self.contents.is_withdrawn(digest):
            return None
        found: bytes | bool | None
        if is_have:
            found = await trio.to_thread.run_sync(self.contents.has, digest)
        else:
            found = await trio.to_thread.run_sync(self.contents.get, digest)
        return found

    async def _send(self, peer_id: Any, message: Message) -> None:
        with trio.fail_after(SECONDS_SEND):
            stream = await self.host.new_stream(peer_id, [PROTOCOL])
            try:
                await stream.write(framed(message))
                await stream.close()
            except BaseException:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await self._quietly(stream.reset)
                raise

    async def _quietly(self, work: Callable[[], Any]) -> None:
        with contextlib.suppress(Exception):
            await work()

    def _fault(self, other: _Other, why: str) -> None:
        if other.number >= 0:
            self.told(frame(LIED, other.number, why.encode()))
        other.wants = Wants()

    # -- others are asked ------------------------------------------------------------------------------------------------
    async def ask(self, number: int, address: str, digests: Sequence[bytes]) -> None:
        """What comes of it is told in frames."""
        try:
            other = await self._linked(number, address)
            other.asked.ask(digests)
            await self._send(other.peer_id, wantlist(digests))
        except Exception as error:
            why = "does not answer" if isinstance(error, trio.TooSlowError) else f"cannot be reached ({_words(error)})"
            self.told(frame(FAILED, number, why.encode()))

    async def _linked(self, number: int, address: str) -> _Other:
        info = info_from_p2p_addr(multiaddr.Multiaddr(address))
        other = self.others.setdefault(str(info.peer_id), _Other(info.peer_id))
        other.number = number
        with trio.fail_after(SECONDS_CONNECT):
            await self.host.connect(info)
        return other


def _words(error: BaseException) -> str:
    inner = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return " ".join(str(inner).split())[:160] or type(inner).__name__


# -- the two processes ---------------------------------------------------------------------------------------------------
async def ask_for_others() -> None:
    """Frames in at stdin, frames out at stdout, until stdin ends."""
    out = trio.lowlevel.FdStream(os.dup(1))
    sending, queued = trio.open_memory_channel[bytes](1 << 16)
    node = Node(new_host(key_pair=create_new_key_pair(secrets.token_bytes(32))), None, sending.send_nowait)
    addresses: dict[int, str] = {}
    async with node.running([]), trio.open_nursery() as nursery:
        nursery.start_soon(_write_all, out, queued)
        sending.send_nowait(frame(READY, 0, b""))
        async with trio.lowlevel.FdStream(os.dup(0)) as given:
            async for kind, number, payload in frames_in(given.receive_some):
                if kind == READY:
                    addresses[number] = payload.decode()
                elif kind == ASK:
                    digests = [payload[at : at + 32] for at in range(0, len(payload), 32)]
                    nursery.start_soon(node.ask, number, addresses[number], digests)
        nursery.cancel_scope.cancel()


async def _write_all(out: trio.abc.SendStream, queued: "trio.MemoryReceiveChannel[bytes]") -> None:
    async for data in queued:
        await out.send_all(data)


def key_at(path: Path) -> Any:
    """The node's Ed25519 key, made at the first start; only its owner may read it."""
    if not path.is_file():
        with replacing(path) as part:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(handle, "wb") as out:
                out.write(secrets.token_bytes(32).hex().encode() + b"\n")
    return create_new_key_pair(bytes.fromhex(path.read_text(encoding="ascii").strip()))


async def serve(contents: Contents, key: Any, listen: Sequence[str], started: Callable[[list[str]], None]) -> None:
    """Until SIGINT or SIGTERM. `started` gets the addresses."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as ending:
        node = Node(new_host(key_pair=key), contents)
        async with node.running(listen):
            started(node.addresses())
            async for _ in ending:
                return


def _beside(directory: Path) -> None:
    """Beside a peer: what it says goes to ipfs.json."""
    from peers.config import load_peer_config
    from peers.directory import PeerDirectory, write_json
    from peers.offering import base_of
    from peers.supervisor import die_with_parent

    peer = PeerDirectory(directory)
    die_with_parent()
    with contextlib.suppress(OSError):
        os.nice(10)
    try:
        contents = Contents([peer.root], base_of(peer))
        listen = place_of_pair(load_peer_config(peer.config).ipfs)

        def started(addresses: list[str]) -> None:
            write_json(peer.ipfs, {"pid": os.getpid(), "addresses": addresses})

        trio.run(serve, contents, key_at(peer.ipfs_key), [listen], started)
    except (PeerError, OSError, BaseExceptionGroup) as error:
        with contextlib.suppress(OSError):
            write_json(
                peer.ipfs, {"problem": _words(error) if isinstance(error, BaseExceptionGroup) else in_one_line(error)}
            )
        sys.exit(1)


def main() -> None:
    """Entry point of the processes."""
    parser = argparse.ArgumentParser(description="Bitswap over libp2p; started by sparehive")
    parser.add_argument("--listen", default="")
    parser.add_argument("--key", type=Path)
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)  # libp2p tells of each connection that fails
    what, *directories = given.arguments
    if what == "ask":
        trio.run(ask_for_others)
    elif what == "serve":
        contents = Contents([Path(each) for each in directories])

        def started(addresses: list[str]) -> None:
            print(json.dumps({"addresses": addresses, "blocks": contents.num_blocks()}), flush=True)

        trio.run(serve, contents, key_at(given.key), [place_of_pair(given.listen)], started)
    else:
        _beside(Path(what))


if __name__ == "__main__":
    main()
