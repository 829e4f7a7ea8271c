"""Storers: who is drawn, what belongs to what is kept, what rots, when a copy may go."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from peers.datasets import DataEntry, DataManifest, DataOwner
from peers.storing.collecting import Collector
from peers.storing.drawing import StoredObject, before, by_rank, is_wanted
from peers.storing.holdings import Holdings
from peers.storing.keeper import GONE_SECONDS, Keeper, Seen
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import put_folders, put_pieces
from swarm.checkpoint.unixfs import DAG_PB
from swarm.dht.presence import Presence
from swarm.errors import PeerFault, RetryError
from swarm.hashing import sha256
from swarm.records.types import FLAG_STORES, ZERO_HASH
from swarm.transport.catalogue import MAX_ROOTS, Listing

STORERS = [bytes([n]) * 20 for n in range(1, 9)]


def _object(key: bytes = b"k" * 32, **fields: object) -> StoredObject:
    return StoredObject(**{"root": key, "codec": DAG_PB, "num_bytes": 1000, "key": key, "name": "it"} | fields)  # type: ignore[arg-type]


# -- who is drawn --------------------------------------------------------------------------------------------------------
def test_the_first_by_rank_keep_it_and_who_leaves_moves_one_copy_alone() -> None:
    item = _object()
    order = by_rank(item.key, STORERS)

    def keepers(there: Sequence[bytes]) -> set[bytes]:
        return {me for me in there if is_wanted(item, me, [a for a in there if a != me], 3, there, ())}

    assert keepers(STORERS) == set(order[:3])
    left = [a for a in STORERS if a != order[1]]
    assert keepers(left) == {order[0], order[2], order[3]}
    assert keepers(order[:2]) == set(order[:2]), "fewer than are asked for: all"


def test_the_next_stands_in_for_who_is_drawn_and_does_not_have_it() -> None:
    item = _object()
    order = by_rank(item.key, STORERS)
    others = [a for a in STORERS if a != order[3]]
    assert not is_wanted(item, order[3], others, 3, order[:2], [order[2]]), "it may still be on its way"
    assert is_wanted(item, order[3], others, 3, order[:2], [])
    assert not is_wanted(item, order[4], [a for a in STORERS if a != order[4]], 3, [*order[:2], order[3]], [])
    assert before(item, order[3], others) == order[:3]


def test_what_the_owner_names_is_kept_whoever_else_does() -> None:
    item = _object(is_pinned=True)
    me = by_rank(item.key, STORERS)[-1]
    assert is_wanted(item, me, [a for a in STORERS if a != me], 1, STORERS, ())


def test_a_storer_without_its_link_is_gone_though_its_presence_holds() -> None:
    seen, (me, lost, far, trainer) = Seen(), STORERS[:4]

    def present(account: bytes, flags: int = FLAG_STORES) -> Presence:
        return Presence(ZERO_HASH, account, "Qm", (), flags, 0, ZERO_HASH, 1 << 40)

    there = [present(lost), present(far), present(trainer, 3)]
    assert seen.others(me, {lost: FLAG_STORES, trainer: 3}, there, 0.0) == {lost, far}
    assert seen.others(me, {}, there, GONE_SECONDS) == {lost, far}, "a link may come back"
    assert seen.others(me, {}, there, GONE_SECONDS + 1) == {far}
    assert seen.others(me, {lost: FLAG_STORES}, there, GONE_SECONDS + 2) == {lost, far}


# -- what is here --------------------------------------------------------------------------------------------------------
def _content(store: BlockStore, *files: bytes) -> StoredObject:
    links = {f"{n}.bin": put_pieces((data,), store) for n, data in enumerate(files)}
    root = put_folders(links, store).digest
    return _object(root, num_bytes=sum(map(len, files)))


@pytest.fixture
def holdings(tmp_path: Path) -> Holdings:
    return Holdings(BlockStore(tmp_path / "blocks", 1 << 30), 10.0, tmp_path / "scrub.json")


def test_what_belongs_to_nothing_that_is_kept_goes_and_shared_blocks_stay(holdings: Holdings) -> None:
    store = holdings.store
    kept, dropped = _content(store, b"a" * 100, b"shared" * 9), _content(store, b"b" * 100, b"shared" * 9)
    lone = store.put(b"the manifest of something")
    assert holdings.look(kept)
    assert holdings.look(dropped)
    assert holdings.sweep([kept], [lone]) > 100
    assert holdings.look(kept)
    assert not holdings.look(dropped)
    assert store.has(lone)
    assert set(holdings.whole_roots()) == {kept.root}


def test_what_is_no_block_is_not_swept(holdings: Holdings) -> None:
    others = {"x" * 64, "A" * 64, " ".join("ab" for _ in range(21)) + "  ", "notes"}
    for name in others:
        (holdings.store.directory / name).touch()
    gone = _content(holdings.store, b"a" * 100)
    assert holdings.sweep([]) > 0 and not holdings.store.has(gone.root)
    assert {path.name for path in holdings.store.directory.iterdir()} == others


def test_a_graph_that_is_on_its_way_is_not_swept(holdings: Holdings) -> None:
    item = _content(holdings.store, b"a" * 100, b"b" * 100)
    leaf = holdings.leaves(item)[0]
    holdings.store.delete(leaf)
    holdings.sweep([item])
    assert not holdings.look(item)
    assert holdings.store.has(item.root), "what has come stays until the rest does"


def test_a_rotten_block_is_found_within_the_time_and_what_it_belonged_to_is_no_longer_whole(holdings: Holdings) -> None:
    item = _content(holdings.store, *(bytes([n]) * 3000 for n in range(12)))
    assert holdings.look(item)
    leaf = holdings.leaves(item)[5]
    path = holdings.store.directory / leaf.hex()
    path.write_bytes(os.urandom(3000))
    lost = [root for _ in range(10) for root in holdings.scrub(1.0)]  # ten seconds in all
    assert lost == [item.root]
    assert not holdings.is_whole(item)
    assert not path.exists(), "nobody is given it"
    assert holdings.num_rotten == 1


def test_reading_goes_on_where_it_was_after_a_start(holdings: Holdings, tmp_path: Path) -> None:
    item = _content(holdings.store, *(bytes([n]) * 300 for n in range(12)))
    holdings.look(item)
    holdings.scrub(5.0)
    holdings.keep()
    again = Holdings(holdings.store, 10.0, tmp_path / "scrub.json")
    again.look(item)
    for digest in sorted([item.root, *again.leaves(item)])[:6]:  # read before the start
        (holdings.store.directory / digest.hex()).write_bytes(b"rotten")
    assert again.scrub(4.0) == [], "these are not due again yet"
    assert again.scrub(6.0) == [item.root]


# -- what is said of it --------------------------------------------------------------------------------------------------
def test_a_listing_comes_back_and_another_text_is_refused() -> None:
    told = Listing((b"a" * 32,), (b"b" * 32, b"c" * 32))
    assert Listing.decode(told.encode()) == told
    assert len(Listing(tuple(bytes([n % 256, n // 256]) * 16 for n in range(999)), ()).encode()) < 64 << 10
    for bad in (
        b"",
        b"[]",
        b'{"held":[]}',
        b'{"held":["zz"],"published":[]}',
        b'{"held":["00"],"published":[]}',
        b"[" * 10**5,
    ):
        with pytest.raises(PeerFault):
            Listing.decode(bad)
    too_many = ",".join(['"' + "00" * 32 + '"'] * (MAX_ROOTS + 1))
    with pytest.raises(PeerFault, match="too many"):
        Listing.decode(f'{{"held":[{too_many}],"published":[]}}'.encode())


# -- whose data sets it collects -----------------------------------------------------------------------------------------
def _data_set(store: BlockStore, owner: str, text: bytes) -> StoredObject:
    entry = DataEntry(name="a.txt", size=len(text), sha256=sha256(text).hex())
    owners = (DataOwner(account=owner, share_bps=100),)
    manifest = DataManifest(name="a set", licence="CC0-1.0", owners=owners, files=(entry,))
    links = {"a.txt": put_pieces((text,), store), "manifest.json": put_pieces((manifest.content(),), store)}
    return _object(put_folders(links, store).digest)


def test_data_sets_of_an_owner_are_kept_as_they_are_heard_of_and_others_are_not(
    tmp_path: Path, holdings: Holdings
) -> None:
    giver = Holdings(BlockStore(tmp_path / "giver", 1 << 30), 1e6, tmp_path / "giver.json")
    mine, foreign = "0x" + "ab" * 20, "0x" + "cd" * 20
    wanted, other = _data_set(giver.store, mine, b"wanted"), _data_set(giver.store, foreign, b"other")
    none = _content(giver.store, b"no data set")
    told = Listing((), (other.root, wanted.root, none.root))

    def collector() -> Collector:
        swarm = _Swarm({STORERS[1]: giver})
        return Collector([mine], swarm, holdings.store, lambda: {STORERS[1]: told}, tmp_path / "collected.json")

    async def work() -> list[StoredObject]:
        made = collector()
        running = asyncio.create_task(made.run())
        await _until(lambda: made.pins(), "it is found")
        running.cancel()
        return list(made.pins())

    (found,) = asyncio.run(work())
    assert (found.root, found.is_pinned, found.name) == (wanted.root, True, "a set")
    assert [item.root for item in collector().pins()] == [wanted.root], "also after a start, whoever hands it out"


# -- one that keeps ------------------------------------------------------------------------------------------------------
class _Swarm:
    """Implements `Links` of one storer among others, whose stores are at hand."""

    def __init__(self, others: dict[bytes, Holdings], liars: Sequence[bytes] = ()) -> None:
        self.others, self.liars = others, liars
        self.claims: dict[bytes, Listing] = {}

    def linked(self) -> dict[bytes, int]:
        return dict.fromkeys(self.others, FLAG_STORES)

    def present(self) -> list[Presence]:
        return []

    def donors(self) -> list[bytes]:
        return list(self.others)

    async def ask(self, account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        if account not in self.others:
            raise RetryError("no link")
        found = {digest: self.others[account].store.get(digest) for digest in digests}
        return {digest: data for digest, data in found.items() if data is not None and account not in self.liars}

    async def listing(self, account: bytes) -> Listing:
        return (
            Listing(tuple(self.others[account].whole_roots())) if account not in self.claims else self.claims[account]
        )


async def _until(condition: object, what: str) -> None:
    for _ in range(400):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within 20 s: {what}")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"TICK": 0.02, "SETTLE": 0.1, "LISTING": 0.05, "REST": 0.1, "GONE": 0.3}.items():
        monkeypatch.setattr(f"peers.storing.keeper.{name}_SECONDS", seconds)


def _others(tmp_path: Path, files: Sequence[bytes]) -> tuple[StoredObject, dict[bytes, Holdings]]:
    found = {}
    for account in STORERS[1:4]:
        found[account] = Holdings(
            BlockStore(tmp_path / account.hex(), 1 << 30), 1e6, tmp_path / f"{account.hex()}.json"
        )
        item = _content(found[account].store, *files)
        found[account].look(item)
    return item, found


@pytest.mark.usefixtures("quick")
def test_who_is_drawn_fetches_and_mends_what_rots(tmp_path: Path, holdings: Holdings) -> None:
    item, others = _others(tmp_path, [os.urandom(5000), os.urandom(5000)])
    holdings = Holdings(holdings.store, 1.0, tmp_path / "own.json")

    async def work() -> None:
        keeper = Keeper(STORERS[0], _Swarm(others), holdings, 1 << 30, [item], 8)
        keeper.start()
        try:
            await _until(lambda: holdings.is_whole(item), "it is fetched")
            (holdings.store.directory / holdings.leaves(item)[0].hex()).write_bytes(b"rotten")
            await _until(lambda: holdings.num_rotten == 1 and holdings.is_whole(item), "it is found and mended")
            assert holdings.look(item)
            assert keeper.statistics().objects == 1
            assert keeper.failure is None
        finally:
            await keeper.close()

    asyncio.run(work())


def _ranked_behind(item: StoredObject) -> bytes:
    """An account that comes after the three others."""
    accounts = (bytes([9, n]) * 10 for n in range(256))
    return next(a for a in accounts if len(before(item, a, STORERS[1:4])) == 3)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("case", ["honest", "liar"])
def test_who_is_drawn_no_longer_lets_go_only_of_what_enough_others_show(
    tmp_path: Path, holdings: Holdings, case: str
) -> None:
    item, others = _others(tmp_path, [os.urandom(500)])
    _content(holdings.store, b"another")
    for digest in [item.root, *others[STORERS[1]].leaves(item)]:
        data = others[STORERS[1]].store.get(digest)
        assert data is not None
        holdings.store.put(data)
    swarm = _Swarm(others, liars=[STORERS[2]] if case == "liar" else [])

    async def work() -> None:
        keeper = Keeper(_ranked_behind(item), swarm, holdings, 1 << 30, [item], 3)
        keeper.start()
        try:
            if case == "honest":
                await _until(lambda: not holdings.store.has(item.root), "it is let go")
                assert holdings.store.size_bytes() == 0, "and what belonged to nothing with it"
            else:
                await _until(lambda: len(keeper.holders(item.root)) == 3, "all say that they have it")
                await asyncio.sleep(0.5)
                assert holdings.look(item), "one of them gives nothing of it: it stays"
                swarm.liars = []
                await _until(lambda: not holdings.store.has(item.root), "it is let go once they show it")
        finally:
            await keeper.close()

    asyncio.run(work())


@pytest.mark.usefixtures("quick")
def test_when_a_storer_leaves_the_next_fetches_its_copy(tmp_path: Path, holdings: Holdings) -> None:
    item, others = _others(tmp_path, [os.urandom(500)])

    async def work() -> None:
        swarm = _Swarm(others)
        keeper = Keeper(_ranked_behind(item), swarm, holdings, 1 << 30, [item], 3)
        keeper.start()
        try:
            await _until(lambda: len(keeper.holders(item.root)) == 3, "it knows the others")
            await asyncio.sleep(0.3)
            assert not holdings.store.has(item.root), "three have it"
            del others[STORERS[2]]
            await _until(lambda: holdings.is_whole(item), "it is repaired")
        finally:
            await keeper.close()

    asyncio.run(work())


@pytest.mark.usefixtures("quick")
def test_what_does_not_fit_is_left_to_others_and_said(tmp_path: Path, holdings: Holdings) -> None:
    item, others = _others(tmp_path, [os.urandom(5000)])

    async def work() -> None:
        keeper = Keeper(STORERS[0], _Swarm(others), holdings, 2000, [item], 8)
        keeper.start()
        try:
            await _until(lambda: keeper.statistics().is_full, "it is said")
            assert "quota" in keeper.statistics().problem
            assert holdings.store.size_bytes() == 0
        finally:
            await keeper.close()

    asyncio.run(work())
