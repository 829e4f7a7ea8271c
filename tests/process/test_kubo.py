"""A real kubo reads a run's data and its newest anchor from a peer, while that trains."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kubo import Kubo, NoKubo, kubo, kubo_python
from peers.invite import Invite
from peers.status import PeerStatus
from swarm.checkpoint.unixfs import cid_text
from tests.faults.swarm import REPOSITORY, PeerProcess, Runner, Swarm, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
READING_SECONDS = 300.0


@pytest.fixture(scope="module")
def python() -> Path:
    """In the checkout's build folder, so that it is fetched once."""
    try:
        return kubo_python(REPOSITORY / "build" / "kubo")
    except NoKubo as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def alice(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerProcess]:
    with Runner() as runner:
        swarm = Swarm(runner, tmp_path_factory.mktemp("kubo"), 0.05)
        swarm.seed.start()
        swarm.seed.wait_ready()
        for name in ("alice", "bob", "carol"):
            swarm.add(name, kind="peer")
        peer = swarm.peers["alice"]
        until(lambda: peer.certified() and PeerStatus.read(peer.directory.status).addresses, 120.0, "alice has trained")
        yield peer


@pytest.fixture(scope="module")
def node(python: Path, alice: PeerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    address = PeerStatus.read(alice.directory.status).addresses[0]
    with kubo(python, tmp_path_factory.mktemp("repository") / "repo", [address], READING_SECONDS) as made:
        yield made


def test_it_reads_the_data_and_the_newest_anchor_while_the_peer_trains(
    node: Kubo, alice: PeerProcess, tmp_path: Path
) -> None:
    trained = sum(event["units"] for event in alice.certified())
    data = Invite.of_file(alice.directory.invite).config.task.data
    node.get(cid_text(bytes.fromhex(data.root)), tmp_path / "data")
    for name in data.content():
        assert (tmp_path / "data" / name).read_bytes() == (alice.directory.data / name).read_bytes()
    root = bytes.fromhex(alice.certified()[-1]["root"].removeprefix("0x"))
    node.get(cid_text(root), tmp_path / "anchor")
    assert {path.name for path in (tmp_path / "anchor").iterdir()} == {
        "manifest.json",
        "momentum.safetensors",
        "parameters.safetensors",
    }
    until(lambda: sum(e["units"] for e in alice.certified()) > trained, 60.0, "training goes on beside it")
