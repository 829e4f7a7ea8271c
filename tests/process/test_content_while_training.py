"""A stranger, and a real kubo, read a run's data, its newest anchor and what was published from a peer, while that trains."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kubo import Kubo, NoKubo, kubo, kubo_python
from peers.contents import WITHDRAWN
from peers.invite import Invite
from peers.status import PeerStatus
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import RAW, cid_text
from swarm.hashing import sha256
from swarm.transport.exchange import Exchange, Nothing
from swarm.transport.node import Node
from tests.faults.swarm import REPOSITORY, PeerProcess, Runner, Swarm, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
READING_SECONDS = 300.0
MIB = 1 << 20
PUBLISHED, REGRETTED = b"a data set", b"one that its owner withdrew"


@pytest.fixture(scope="module")
def python() -> Path:
    """In the checkout's build folder, so that it is fetched once."""
    try:
        return kubo_python(REPOSITORY / "build" / "kubo")
    except NoKubo as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of what was published, with one file in it and one that was withdrawn."""
    folder = tmp_path_factory.mktemp("shelf")
    store = BlockStore(folder / "blocks", MIB)
    (folder / WITHDRAWN).mkdir()
    store.put(PUBLISHED)
    (folder / WITHDRAWN / store.put(REGRETTED).hex()).touch()
    return folder


@pytest.fixture(scope="module")
def alice(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerProcess]:
    with Runner() as runner:
        swarm = Swarm(runner, tmp_path_factory.mktemp("kubo"), 0.05)
        swarm.seed.start()
        swarm.seed.wait_ready()
        for name in ("alice", "bob", "carol"):
            swarm.add(name, f'published = ["{shelf}"]\n' if name == "alice" else "", kind="peer")
        peer = swarm.peers["alice"]
        until(lambda: peer.certified() and PeerStatus.read(peer.directory.status).addresses, 120.0, "alice has trained")
        yield peer


@pytest.fixture(scope="module")
def node(python: Path, alice: PeerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    address = PeerStatus.read(alice.directory.status).addresses[0]
    with kubo(python, tmp_path_factory.mktemp("repository") / "repo", [address], READING_SECONDS) as made:
        yield made


def test_a_stranger_reads_what_is_content_and_what_was_published(alice: PeerProcess, tmp_path: Path) -> None:
    address = PeerStatus.read(alice.directory.status).addresses[0]
    data = bytes.fromhex(Invite.of_file(alice.directory.invite).config.task.data.root)
    parts = until(lambda: [x for x in alice.directory.contributions.iterdir() if len(x.name) == 64], 60.0, "a round")
    digests = [sha256(PUBLISHED), data, sha256(REGRETTED), *(bytes.fromhex(part.name) for part in parts)]

    async def read() -> dict[bytes, bytes]:
        async with await Node.open(tmp_path / "stranger", client_mode=True) as node:
            await node.connect([address], 20.0)
            exchange = Exchange(node, Nothing())
            await exchange.start()
            found = await exchange.get(address.rsplit("/", 1)[-1], digests, 2 * MIB, 20.0)
            await exchange.close()
            return found

    found = asyncio.run(read())
    assert found[sha256(PUBLISHED)] == PUBLISHED
    assert set(found) == set(digests[:2]), "neither what was withdrawn nor a round's bytes"


def test_kubo_reads_the_data_and_the_newest_anchor_while_the_peer_trains(
    node: Kubo, alice: PeerProcess, tmp_path: Path
) -> None:
    trained = sum(event["units"] for event in alice.certified())
    data = Invite.of_file(alice.directory.invite).config.task.data
    node.get(cid_text(bytes.fromhex(data.root)), tmp_path / "data")
    for name in data.content():
        assert (tmp_path / "data" / name).read_bytes() == (alice.directory.data / name).read_bytes()
    node.get(cid_text(sha256(PUBLISHED), RAW), tmp_path / "published")
    assert (tmp_path / "published").read_bytes() == PUBLISHED
    root = bytes.fromhex(alice.certified()[-1]["root"].removeprefix("0x"))
    node.get(cid_text(root), tmp_path / "anchor")
    assert {path.name for path in (tmp_path / "anchor").iterdir()} == {
        "manifest.json",
        "momentum.safetensors",
        "parameters.safetensors",
    }
    until(lambda: sum(e["units"] for e in alice.certified()) > trained, 60.0, "training goes on beside it")
