"""A peer's cache of leaves: what its units need is fetched ahead, it never grows beyond its bound, nothing in use goes."""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peers.config import PeerConfig
from peers.errors import StartError
from peers.keeping import open_cache
from swarm.checkpoint.cache import LeafCache, least_cache_bytes
from swarm.checkpoint.runblocks import RunBlocks, put_data, put_file
from swarm.checkpoint.store import BlockStore
from swarm.config import HELD_RECORDS, LEAF_BYTES, TRAIN_RECORDS, RunConfig
from swarm.data.draw import RecordDraw
from swarm.data.records import Leaves, RecordLayout, Records, RecordWriter
from swarm.errors import PeerFault, RetryError
from swarm.models.layout import Layout

PEER = b"\3" * 20
CONTEXT = 65_535  # sixteen records in a leaf
NUM_TRAIN = 16 * 12
CACHE_LEAVES = 5


def make(path: Path, **data: Any) -> tuple[RunConfig, BlockStore]:
    """A run on twelve leaves, whose first byte is their number, and a store with all of it."""
    values = {
        "name": "r", "initial_root": "0" * 64,
        "task": {"data": {"kind": "records", "root": "0" * 64, "num_train": NUM_TRAIN, "num_held": 3, "context": CONTEXT, **data}},
    }  # fmt: skip
    config = RunConfig.parse(values)
    layout = RecordLayout(config.task.data.record_fields())
    store, entries = BlockStore(path, 1 << 40), []
    for name, count in ((TRAIN_RECORDS, NUM_TRAIN), (HELD_RECORDS, 3)):
        leaves: list[bytes] = []
        writer = RecordWriter(layout, leaves.append)
        records = layout.empty(count)
        records["tokens"][:, 0] = np.arange(count) // 16
        records["tokens"][:, 1] = 200 if name == HELD_RECORDS else np.arange(count) % 16
        writer.append(records)
        writer.close()
        entries.append((name, put_file(store, leaves)))
    values["task"]["data"]["root"] = put_data(store, [], entries).hex()
    return RunConfig.parse(values), store


class Donor:
    """Answers from a store; `closed` holds answers back."""

    def __init__(self, store: BlockStore) -> None:
        self.store, self.asked, self.open = store, list[bytes](), asyncio.Event()
        self.open.set()

    async def __call__(self, account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        await self.open.wait()
        self.asked += digests
        found = {digest: self.store.get(digest) for digest in digests}
        return {digest: data for digest, data in found.items() if data is not None}


class Peer:
    """Its store, its cache, and the training file opened through it."""

    def __init__(self, config: RunConfig, path: Path, donor: Any, leaves: int = CACHE_LEAVES) -> None:
        self.config, self.store = config, BlockStore(path, 1 << 40)
        self.content = RunBlocks(self.store, Layout(("w",), ((1,),)), donor, lambda: [b"d" * 20], 20.0)
        self.cache = LeafCache(config, PEER, self.content, leaves * LEAF_BYTES)
        self.records: Records
        self.leaves: Leaves

    async def open(self) -> "Peer":
        data = self.config.task.data
        await self.content.fetch_data(data, self.store.directory.with_name("data"))
        table = data.tables()[TRAIN_RECORDS]
        self.leaves = self.cache.open(TRAIN_RECORDS, table)
        self.records = Records(RecordLayout(data.record_fields()), table.num_records, self.leaves)
        self.cache.start()
        return self

    def leaf_bytes(self) -> int:
        return LEAF_BYTES * sum(self.store.has(self.cache.digest(TRAIN_RECORDS, leaf)) for leaf in range(12))

    async def ready(self, unit: int) -> None:
        async with asyncio.timeout(20.0):
            while not self.cache.is_ready(unit):
                await asyncio.sleep(0.005)


def draw_of(config: RunConfig) -> RecordDraw:
    data = config.task.data
    return RecordDraw.of(config.run_id, data, data.tables()[TRAIN_RECORDS])


async def read_through(tmp_path: Path) -> None:
    config, whole = make(tmp_path / "whole", leaves_per_draw=2)
    donor = Donor(whole)
    peer = await Peer(config, tmp_path / "peer" / "blocks", donor).open()
    assert peer.leaf_bytes() == 0  # the inner nodes alone are here
    draw, seen = draw_of(config), set[int]()
    for unit in range(25):
        await peer.ready(unit)
        samples = draw.samples(PEER, b"\1" * 32, unit, 40)
        found = (await asyncio.to_thread(peer.records.read, samples))["tokens"]
        assert found[:, 0].tolist() == (samples // 16).tolist() and found[:, 1].tolist() == (samples % 16).tolist()
        assert peer.leaf_bytes() <= CACHE_LEAVES * LEAF_BYTES and peer.cache.size_bytes() <= CACHE_LEAVES * LEAF_BYTES
        seen |= set((samples // 16).tolist())
    assert len(seen) > CACHE_LEAVES  # so leaves went, and others came
    await peer.cache.close()
    await peer.cache.close()


def test_data_larger_than_the_cache_is_read_through_it(tmp_path: Path) -> None:
    asyncio.run(read_through(tmp_path))


def test_the_next_draw_is_fetched_before_it_is_needed(tmp_path: Path) -> None:
    async def body() -> None:
        config, whole = make(tmp_path / "whole", units_per_draw=2)
        donor = Donor(whole)
        peer = await Peer(config, tmp_path / "peer" / "blocks", donor).open()
        await peer.ready(0)
        async with asyncio.timeout(20.0):
            while (
                peer.cache.size_bytes()
                < len({leaf for n in range(5) for leaf in draw_of(config).leaves(PEER, n)}) * LEAF_BYTES
            ):
                await asyncio.sleep(0.005)
        donor.open.clear()  # the line is cut: what comes next is here all the same
        assert all(peer.cache.is_ready(unit) for unit in range(2 * 5))
        await peer.cache.close()

    asyncio.run(body())


def test_who_waits_goes_on_when_the_line_is_back_and_is_let_go_at_the_end(tmp_path: Path) -> None:
    async def body() -> None:
        config, whole = make(tmp_path / "whole")
        donor = Donor(whole)
        peer = await Peer(config, tmp_path / "peer" / "blocks", donor).open()
        donor.open.clear()
        assert not peer.cache.is_ready(0)
        reading = asyncio.create_task(asyncio.to_thread(peer.records.read, [100]))
        await asyncio.sleep(0.3)
        assert not reading.done()
        donor.open.set()
        assert (await asyncio.wait_for(reading, 20.0))["tokens"][0, 0] == 100 // 16
        donor.open.clear()
        lost = next(leaf for leaf in range(12) if not peer.store.has(peer.cache.digest(TRAIN_RECORDS, leaf)))
        waiting = asyncio.create_task(asyncio.to_thread(peer.leaves.leaf, lost))
        await asyncio.sleep(0.3)
        await peer.cache.close()
        with pytest.raises(RetryError, match="the peer stops"):
            await asyncio.wait_for(waiting, 5.0)

    asyncio.run(body())


def test_what_an_earlier_process_fetched_counts_and_a_rotten_leaf_is_fetched_again(tmp_path: Path) -> None:
    async def body() -> None:
        config, whole = make(tmp_path / "whole")
        donor = Donor(whole)
        first = await Peer(config, tmp_path / "peer" / "blocks", donor).open()
        await first.ready(0)
        await first.cache.close()
        (leaf,) = draw_of(config).leaves(PEER, 0)
        path = first.store.directory / first.cache.digest(TRAIN_RECORDS, leaf).hex()
        path.write_bytes(b"rotten" + path.read_bytes()[6:])
        second = await Peer(config, tmp_path / "peer" / "blocks", donor).open()
        assert second.cache.size_bytes() >= LEAF_BYTES
        found = await asyncio.wait_for(asyncio.to_thread(second.records.read, [leaf * 16 + 3]), 20.0)
        assert found["tokens"][0, :2].tolist() == [leaf, 3]
        await second.cache.close()

    asyncio.run(body())


def test_a_full_directory_takes_all_but_what_is_needed_next(tmp_path: Path) -> None:
    async def body() -> None:
        config, whole = make(tmp_path / "whole")
        peer = await Peer(config, tmp_path / "peer" / "blocks", Donor(whole), leaves=12).open()
        for unit in range(12):
            await peer.ready(unit)
        async with asyncio.timeout(20.0):  # nothing is on its way any more
            while not all(peer.cache.is_ready(unit) for unit in range(11, 16)):
                await asyncio.sleep(0.005)
        before = peer.cache.size_bytes()
        peer.cache.shrink()
        assert least_cache_bytes(1) <= peer.cache.size_bytes() < before
        assert peer.cache.is_ready(15) and peer.leaf_bytes() == peer.cache.size_bytes()
        await peer.cache.close()

    asyncio.run(body())


def test_a_cache_that_cannot_hold_what_a_unit_takes_is_refused_in_one_line(tmp_path: Path) -> None:
    async def body() -> None:
        config, whole = make(tmp_path / "whole", leaves_per_draw=2)
        content = RunBlocks(whole, Layout(("w",), ((1,),)), Donor(whole), list, 20.0)
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises(StartError, match=f"--data-cache {4 * LEAF_BYTES}$"):
                open_cache(config, PEER, content, PeerConfig(data_cache_bytes=4 * LEAF_BYTES - 1), stack)
            assert open_cache(config, PEER, content, PeerConfig(data_cache_bytes=4 * LEAF_BYTES), stack) is not None

    asyncio.run(body())


def test_a_donor_that_lies_or_fails_costs_time_and_no_more(tmp_path: Path) -> None:
    async def body() -> None:
        config, whole = make(tmp_path / "whole")
        honest, turns = Donor(whole), iter(range(1000))

        async def fickle(account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            if account == b"l" * 20:
                raise PeerFault("sends what nobody asked for")
            if next(turns) % 3 == 1:
                raise RetryError("not now")
            return await honest(account, digests)

        peer = Peer(config, tmp_path / "peer" / "blocks", fickle)
        peer.content = RunBlocks(peer.store, Layout(("w",), ((1,),)), fickle, lambda: [b"l" * 20, b"d" * 20], 20.0)
        peer.cache = LeafCache(config, PEER, peer.content, CACHE_LEAVES * LEAF_BYTES)
        await peer.open()
        for unit in range(4):
            await peer.ready(unit)
        await peer.cache.close()
        assert threading.active_count() < 50

    asyncio.run(body())
