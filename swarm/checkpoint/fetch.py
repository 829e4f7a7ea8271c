"""Bring a whole content-addressed graph into the store, from several donors, each block checked before it touches the disk."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import DAG_PB, MAX_DEPTH, decode_node
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256

BATCH = 16
REQUEST_SECONDS = 30.0

Ask = Callable[[bytes, Sequence[bytes]], Awaitable[dict[bytes, bytes]]]


async def fetch_graph(
    root: bytes,
    store: BlockStore,
    ask: Ask,
    donors: Callable[[], Sequence[bytes]],
    *,
    max_bytes: int,
    seconds: float,
    on_progress: Callable[[int], None] = lambda received: None,
    is_obsolete: Callable[[], bool] = lambda: False,
) -> None:
    """Until every block below `root` lies in `store`.

    `is_obsolete()`: asked whenever no donor gave anything; `RetryError` if something newer will do.

    `ask(donor, digests)` gives blocks by digest, or raises; `donors()` names who may have them now. A donor that fails is
    asked last from then on, one that sends other bytes than asked for not at all. Resumable: blocks in the store are not
    asked for. `RetryError` after `seconds` or without donors, `PeerFault` where the graph is not one of ours."""
    deadline = time.monotonic() + seconds
    failures: dict[bytes, int] = {}
    liars: set[bytes] = set()
    received = 0
    level: list[tuple[bytes, int]] = [(root, DAG_PB)]
    for _ in range(MAX_DEPTH + 2):
        # read, not only looked for: a block that has rotted is brought again
        missing = [digest for digest, _ in level if await asyncio.to_thread(store.get, digest) is None]
        turn = 0
        while missing:
            if time.monotonic() > deadline:
                raise RetryError(
                    f"{len(missing)} blocks below {root.hex()[:12]} did not arrive within {seconds:.0f} s; try again later"
                )
            order = sorted((d for d in donors() if d not in liars), key=lambda d: failures.get(d, 0))
            if not order:
                _give_up_if(is_obsolete, root)
                await asyncio.sleep(0.2)
                continue
            best = [d for d in order if failures.get(d, 0) == failures.get(order[0], 0)]
            batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)][: 2 * len(best)]
            turn += 1
            chosen = [best[(i + turn) % len(best)] for i in range(len(batches))]
            results = await asyncio.gather(
                *(_in_time(ask, donor, batch) for donor, batch in zip(chosen, batches, strict=True)),
                return_exceptions=True,
            )
            got_any = False
            for donor, batch, result in zip(chosen, batches, results, strict=True):
                if isinstance(result, BaseException) or len(result) < len(batch):
                    failures[donor] = failures.get(donor, 0) + 1
                if isinstance(result, PeerFault):
                    liars.add(donor)  # the transport saw it
                if isinstance(result, BaseException):
                    continue
                for digest, data in result.items():
                    received += len(data)
                    if received > max_bytes:
                        raise PeerFault(f"content {root.hex()[:12]}: more than {max_bytes} bytes")
                    if digest not in batch or sha256(data) != digest:
                        liars.add(donor)
                        break
                    await asyncio.to_thread(store.put, data)
                    got_any = True
            on_progress(received)
            missing = [digest for digest in missing if not store.has(digest)]
            if not got_any:
                _give_up_if(is_obsolete, root)
                await asyncio.sleep(0.2)
        below: dict[bytes, int] = {}
        for digest, codec in level:
            if codec == DAG_PB:
                node = store.get(digest)
                if node is None:
                    raise RetryError(f"block {digest.hex()[:12]} rotted on disk; try again")
                below.update({link.digest: link.codec for link in decode_node(node).links})
        if not below:
            return
        level = list(below.items())
    raise PeerFault(f"content {root.hex()[:12]}: deeper than any honest one")


async def _in_time(ask: Ask, donor: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    async with asyncio.timeout(REQUEST_SECONDS):
        return await ask(donor, digests)


def _give_up_if(is_obsolete: Callable[[], bool], root: bytes) -> None:
    if is_obsolete():
        raise RetryError(f"nobody hands out {root.hex()[:12]} any more; a newer one will do")
