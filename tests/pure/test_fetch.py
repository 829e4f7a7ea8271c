"""Bringing a graph: every block checked against the certified root, bad donors dropped, bytes and time bounded."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from swarm.checkpoint.fetch import fetch_graph
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import Block, BlockLink, encode_directory, encode_file, read_file
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from tests.pure.passing import PassingLoop

DATA = bytes(i * 7 % 251 for i in range(40_000))


def graph(data: bytes = DATA) -> tuple[bytes, BlockLink, dict[bytes, bytes]]:
    """Root digest of a directory of one file, the file's link, all blocks."""
    link, blocks = encode_file(data, 512, 8)
    _, directory = encode_directory([("file", link)])
    return directory.digest, link, {b.digest: b.data for b in [*blocks, directory]}


class Donor:
    """Answers what it has; `sent` counts bytes."""

    def __init__(self, blocks: dict[bytes, bytes]) -> None:
        self.blocks, self.asked, self.sent = blocks, 0, 0

    async def answer(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        self.asked += 1
        found = {d: self.blocks[d] for d in digests if d in self.blocks}
        self.sent += sum(len(data) for data in found.values())
        return found


class Silent(Donor):
    async def answer(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        self.asked += 1
        raise RetryError("not reachable")


class Liar(Donor):
    """Sends other bytes under the digest that was asked for."""

    async def answer(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return {d: data[:-1] + b"!" for d, data in (await super().answer(digests)).items()}


class Slow(Donor):
    """A few bytes now and then: its answer is there after minutes."""

    async def answer(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        self.asked += 1
        await asyncio.sleep(25.0)
        return {}


class Stale(Donor):
    """Has what was the newest a while ago."""

    def __init__(self, blocks: dict[bytes, bytes]) -> None:
        super().__init__(graph(DATA[::-1])[2])


async def bring(
    store: BlockStore, donors: dict[bytes, Donor], root: bytes, max_bytes: int = 1 << 20, seconds: float = 20.0
) -> None:
    async def ask(donor: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return await donors[donor].answer(digests)

    await fetch_graph(root, store, ask, lambda: list(donors), max_bytes=max_bytes, seconds=seconds)


def fetch(
    store: BlockStore, donors: dict[bytes, Donor], root: bytes, max_bytes: int = 1 << 20, seconds: float = 20.0
) -> None:
    asyncio.run(bring(store, donors, root, max_bytes, seconds))


def test_a_graph_comes_whole_and_its_bytes_are_the_file(tmp_path: Path) -> None:
    root, link, blocks = graph()
    store = BlockStore(tmp_path, 1 << 20)
    donor = Donor(blocks)
    fetch(store, {b"a": donor}, root)
    assert read_file(link, lambda d: store.get(d) or b"", len(DATA)) == DATA
    assert donor.sent == sum(len(data) for data in blocks.values())


def test_blocks_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    root, _, blocks = graph()
    store = BlockStore(tmp_path, 1 << 20)
    there = sorted(blocks)[: len(blocks) // 2]
    for digest in there:
        store.put(blocks[digest])
    donor = Donor(blocks)
    fetch(store, {b"a": donor}, root)
    assert donor.sent == sum(len(data) for digest, data in blocks.items() if digest not in there)


def test_donors_share_the_work_and_what_one_lacks_another_gives(tmp_path: Path) -> None:
    root, _, blocks = graph()
    halves = sorted(blocks)
    one, two = Donor({d: blocks[d] for d in halves[::2]}), Donor({d: blocks[d] for d in halves[1::2]})
    fetch(BlockStore(tmp_path, 1 << 20), {b"a": one, b"b": two}, root)
    assert one.sent > 0
    assert two.sent > 0


def test_a_silent_donor_is_asked_last(tmp_path: Path) -> None:
    root, _, blocks = graph()
    silent, good = Silent(blocks), Donor(blocks)
    fetch(BlockStore(tmp_path, 1 << 20), {b"a": silent, b"b": good}, root)
    assert good.sent == sum(len(data) for data in blocks.values())
    assert silent.asked <= 3


def test_a_tampered_block_is_never_stored_and_its_donor_is_dropped(tmp_path: Path) -> None:
    root, link, blocks = graph()
    store = BlockStore(tmp_path, 1 << 20)
    liar, good = Liar(blocks), Donor(blocks)
    fetch(store, {b"a": liar, b"b": good}, root)
    assert read_file(link, lambda d: store.get(d) or b"", len(DATA)) == DATA
    assert {p.name for p in tmp_path.iterdir()} == {d.hex() for d in blocks}
    assert liar.asked <= 2  # both requests may be under way when the first lie is seen


def seconds_of(work: Coroutine[Any, Any, None], monkeypatch: pytest.MonkeyPatch) -> float:
    """That it waits, by a clock that passes at once: what a busy machine takes for the rest does not count."""
    loop = PassingLoop()

    async def in_place(call: Callable[..., object], *arguments: object) -> object:
        return call(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", in_place)
    monkeypatch.setattr("swarm.checkpoint.fetch.time.monotonic", loop.time)
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
    return loop.now


@pytest.mark.parametrize("kind", [Slow, Stale, Liar, Silent])
@pytest.mark.parametrize("number", [1, 3])
def test_a_bad_donor_costs_less_than_five_seconds(
    tmp_path: Path, kind: type[Donor], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the graph's five levels it could hold up all that is below."""
    root, link, blocks = graph()
    store = BlockStore(tmp_path, 1 << 20)
    bad = {bytes([i]): kind(blocks) for i in range(number)}
    seconds = seconds_of(bring(store, {**bad, b"good": Donor(blocks)}, root), monkeypatch)
    assert read_file(link, lambda d: store.get(d) or b"", len(DATA)) == DATA
    assert seconds < 5.0
    assert sum(donor.asked for donor in bad.values()) <= 6 * number


class SlowLine:
    """A newcomer's own: all that is on its way shares it. Seconds are those of `seconds_of`."""

    TICK, BYTES_PER_SECOND, ASK_SECONDS = 0.5, 512, 25.0  # a leaf in a second

    def __init__(self, blocks: dict[bytes, bytes]) -> None:
        self.blocks, self.num_streams, self.received = blocks, 0, 0.0

    async def ask(self, donor: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """As `SwarmNetwork.ask`: what came in time."""
        found: dict[bytes, bytes] = {}
        self.num_streams += 1
        try:
            async with asyncio.timeout(self.ASK_SECONDS):
                for digest in digests:
                    left = float(len(self.blocks[digest]))
                    while left > 0:
                        await asyncio.sleep(self.TICK)
                        came = min(left, self.BYTES_PER_SECOND * self.TICK / self.num_streams)
                        left, self.received = left - came, self.received + came
                    found[digest] = self.blocks[digest]
        except TimeoutError:
            pass
        finally:
            self.num_streams -= 1
        return found


def test_many_donors_do_not_make_a_slow_line_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, blocks = graph()
    line, size = SlowLine(blocks), sum(map(len, blocks.values()))
    store, donors = BlockStore(tmp_path, 1 << 20), [bytes([i]) for i in range(8)]
    seconds = seconds_of(
        fetch_graph(root, store, line.ask, lambda: donors, max_bytes=1 << 20, seconds=1000.0), monkeypatch
    )
    assert line.received < 1.5 * size
    assert seconds < 1.5 * size / line.BYTES_PER_SECOND + 10.0


def test_what_a_slow_donor_gives_in_the_end_is_taken(tmp_path: Path) -> None:
    root, _, blocks = graph()

    class Late(Donor):
        async def answer(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            await asyncio.sleep(0.1)
            return await super().answer(digests[:8])

    late = Late(blocks)
    fetch(BlockStore(tmp_path, 1 << 20), {b"a": late}, root)
    assert late.sent == sum(len(data) for data in blocks.values())


def test_with_liars_alone_nothing_is_stored(tmp_path: Path) -> None:
    root, _, blocks = graph()
    with pytest.raises(RetryError, match="did not arrive"):
        fetch(BlockStore(tmp_path, 1 << 20), {b"a": Liar(blocks)}, root, seconds=1.0)
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_nobody_asked_for_are_not_stored(tmp_path: Path) -> None:
    root, _, blocks = graph()

    class Pusher(Donor):
        async def answer(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            extra = b"unasked" * 100
            return {**await super().answer(digests), sha256(extra): extra}

    fetch(BlockStore(tmp_path, 1 << 20), {b"a": Pusher(blocks), b"b": Donor(blocks)}, root)
    assert {p.name for p in tmp_path.iterdir()} == {d.hex() for d in blocks}


def test_more_bytes_than_agreed_are_not_taken(tmp_path: Path) -> None:
    root, _, blocks = graph()
    with pytest.raises(PeerFault, match="more than 10000 bytes"):
        fetch(BlockStore(tmp_path, 1 << 20), {b"a": Donor(blocks)}, root, max_bytes=10_000)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 10_000


def test_a_root_that_is_no_node_and_one_that_is_too_deep_are_refused(tmp_path: Path) -> None:
    junk = b"\xff" * 40
    with pytest.raises(PeerFault, match="block"):
        fetch(BlockStore(tmp_path / "a", 1 << 20), {b"a": Donor({sha256(junk): junk})}, sha256(junk))
    blocks: dict[bytes, bytes] = {}
    link = BlockLink("", sha256(b"leaf"), 0x55, 4)
    blocks[link.digest] = b"leaf"
    block: Block | None = None
    for _ in range(12):
        link, block = encode_directory([("down", link)])
        blocks[block.digest] = block.data
    assert block is not None
    with pytest.raises(PeerFault, match="deeper"):
        fetch(BlockStore(tmp_path / "b", 1 << 20), {b"a": Donor(blocks)}, block.digest)


def test_without_donors_it_ends_in_time(tmp_path: Path) -> None:
    with pytest.raises(RetryError, match="did not arrive within 1 s"):
        fetch(BlockStore(tmp_path, 1 << 20), {}, sha256(b"x"), seconds=1.0)


def test_of_a_directory_only_the_named_entries_are_brought(tmp_path: Path) -> None:
    (wanted, made), (other, others) = encode_file(DATA, 512, 8), encode_file(bytes(range(256)) * 100, 512, 8)
    wanted_blocks, other_blocks = list(made), list(others)
    _, directory = encode_directory([("text.txt", other), ("tokenizer.json", wanted)])
    donor = Donor({b.digest: b.data for b in [*wanted_blocks, *other_blocks, directory]})
    store = BlockStore(tmp_path, 1 << 20)

    async def ask(_: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return await donor.answer(digests)

    bring = fetch_graph(
        directory.digest, store, ask, lambda: [b"a"], max_bytes=1 << 20, seconds=20.0, only=("tokenizer.json",)
    )
    asyncio.run(bring)
    assert read_file(wanted, lambda d: store.get(d) or b"", len(DATA)) == DATA
    assert donor.sent == sum(len(block.data) for block in [*wanted_blocks, directory])
