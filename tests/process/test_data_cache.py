"""A real swarm whose data are larger than the peers' caches: a seed that has all of it, and two peers that fetch what their units need."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from peers.invite import Invite
from peers.status import PeerStatus
from swarm.checkpoint.leaves import leaf_digests
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import cid_text
from swarm.config import TRAIN_RECORDS
from swarm.data.draw import RecordDraw
from swarm.errors import RetryError
from tests.chain.commands import ok
from tests.faults.swarm import PeerProcess, Runner, Swarm, until

pytestmark = pytest.mark.long

SECONDS = 120.0
CACHE_BYTES = 4 << 20
SETTINGS = {"task.data.units_per_draw": "2", "rounds.min_seated": "2", "inner.steps_per_unit": "2"}


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> object:
    root = tmp_path_factory.mktemp("cached")
    with open(root / "rows.jsonl", "w") as out:
        for number in range(14_000):
            out.write(json.dumps({"text": f"row {number}: " + f"the quick brown fox {number} " * 36}) + "\n")
    with Runner() as runner:
        made = Swarm(runner, root, 0.02, root / "rows.jsonl", **SETTINGS)
        with open(made.seed.directory.config, "a", encoding="utf-8") as out:
            out.write('gateway = "0"\nipfs = "0"\n')
        made.seed.start()
        made.seed.wait_ready(SECONDS)
        yield made
        for peer in made.everyone():
            if peer.alive:
                peer.kill()


def leaves_used(peer: PeerProcess, digests: list[bytes]) -> set[bytes]:
    run = Invite.of_file(peer.directory.invite).config
    data = run.task.data
    draw = RecordDraw.of(run.run_id, data, data.tables()[TRAIN_RECORDS])
    account = bytes.fromhex(peer.account[2:])
    draws = {event["unit"] // data.units_per_draw for event in peer.events("UnitDone")}
    return {digests[leaf] for number in draws for leaf in draw.leaves(account, number)}


def cached(peer: PeerProcess, digests: list[bytes]) -> int:
    """Bytes of leaves on the peer's disk."""
    sizes = []
    for digest in digests:
        path: Path = peer.directory.blocks / digest.hex()
        if path.exists():
            sizes.append(1 << 20)
    return sum(sizes)


def test_peers_train_on_more_data_than_they_keep(swarm: Swarm) -> None:
    run = Invite.of_file(swarm.seed.directory.invite).config
    store = BlockStore(swarm.seed.directory.blocks, 1 << 62, owned=False)
    table = run.task.data.tables()[TRAIN_RECORDS]
    digests = leaf_digests(
        bytes.fromhex(run.task.data.root), TRAIN_RECORDS, table, store.getter(lambda d: RetryError(d.hex()))
    )
    assert len(digests) >= 9
    peers = [swarm.add(name, f"data_cache_bytes = {CACHE_BYTES}\n") for name in ("alice", "bob")]
    for peer in peers:
        peer.wait_ready(SECONDS)
    most = [0, 0]

    def have_read_more_than_they_keep() -> bool:
        for number, peer in enumerate(peers):
            assert peer.alive, peer.log()
            most[number] = max(most[number], cached(peer, digests))
        return all(len(leaves_used(peer, digests)) > 6 and peer.epoch() >= 3 for peer in peers)

    until(have_read_more_than_they_keep, SECONDS, f"units of more leaves than fit; {peers[0].log()}")
    assert all(0 < size <= CACHE_BYTES for size in most)
    status = PeerStatus.read(peers[0].directory.status)
    assert status.data_wait_seconds is not None and status.data_wait_seconds < 30.0
    for peer in peers:
        assert peer.terminate() < 12.0
    peers[0].start()  # what is in the cache counts
    peers[0].wait_ready(SECONDS)


def _addresses(path: Path) -> list[str]:
    return list(json.loads(path.read_text()).get("addresses", [])) if path.is_file() else []


def test_what_the_run_hands_out_comes_over_http_too(swarm: Swarm, tmp_path: Path) -> None:
    run = Invite.of_file(swarm.seed.directory.invite).config
    told = until(swarm.seed.directory.gateway.is_file, 30.0, "its gateway answers") and swarm.seed.directory.gateway
    url = json.loads(told.read_text())["url"]
    assert url.startswith("http://127.0.0.1:")
    for name, root in (("data", run.task.data.root), ("state", run.initial_root)):
        made = ok("fetch", cid_text(bytes.fromhex(root)), "--from", url, "--out", tmp_path / name)
        assert made["bytes"] > 10_000
    if find_spec("libp2p") is not None:
        beside = until(lambda: _addresses(swarm.seed.directory.ipfs), 30.0, "its libp2p node answers")
        own = PeerStatus.read(swarm.seed.directory.status).addresses
        for name, addresses in (("by libp2p", beside), ("by the daemon", own)):
            made = ok(
                "fetch", cid_text(bytes.fromhex(run.initial_root)), "--from", addresses[0], "--out", tmp_path / name
            )
            assert made["from"].keys() == {addresses[0]}
    assert (tmp_path / "data" / TRAIN_RECORDS).stat().st_size > 9 << 20
    assert (tmp_path / "state" / "manifest.json").is_file()


def test_a_disk_that_cannot_hold_the_cache_is_refused_in_one_line(swarm: Swarm) -> None:
    small = swarm.add("carol", f"disk_quota_bytes = {50 << 20}\n")  # enough without the data
    assert swarm.runner.wait(small.pid, SECONDS) == 3, small.log()
    (line,) = small.log().splitlines()
    assert "this run has to keep" in line
    del swarm.peers["carol"]
