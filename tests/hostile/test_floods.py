"""One peer with an invite and free keys says what costs others most; they go on, within bounds. In small: what is counted exactly is in
tests/machine/test_floods.py."""

import json
from collections.abc import Iterator

import psutil
import pytest

from swarm.records.types import RoundCertificate
from tests.faults.swarm import PeerProcess, Swarm, until
from tests.hostile.pace import honest_peers

SECONDS = 60.0
MAX_GROWN_BYTES = 48 << 20  # of a peer, by one flood


@pytest.fixture(scope="module")
def _left_behind(swarm: Swarm) -> Iterator[None]:
    yield
    if swarm.peers["flooder"].alive:
        swarm.peers["flooder"].kill()


@pytest.fixture
def flooder(swarm: Swarm, _left_behind: None) -> PeerProcess:
    """Alive and one of them, whatever came before it."""
    peer = swarm.peers.get("flooder")
    if peer is None:
        peer = swarm.add("flooder", kind="tests.hostile.flooding:Flooder")
    elif not peer.alive:
        peer.start()
    peer.wait_ready(SECONDS)
    until(lambda: peer.epoch() >= 3, SECONDS, "the flooder takes part")
    return peer


def memory(peer: PeerProcess) -> int:
    return int(psutil.Process(peer.pid).memory_info().rss)


def seen(peer: PeerProcess) -> bytes:
    """All that it has heard, in hexadecimal; also what cannot be read."""
    return (peer.directory.root / "seen.txt").read_bytes()


@pytest.mark.parametrize(
    ("what", "count"),
    [("old", 400), ("nothing", 1500), ("large", 60), ("sets", 60), ("merges", 60), ("chain", 1500)],
)
def test_a_flood_costs_the_others_little_and_the_run_goes_on(
    swarm: Swarm, flooder: PeerProcess, what: str, count: int
) -> None:
    honest = [swarm.seed, *honest_peers(swarm)]
    before = {p.name: memory(p) for p in honest}
    epochs = {p.name: p.epoch() for p in honest}
    part = flooder.directory.root / "attack.part"
    part.write_text(json.dumps({"what": what, "count": count}))
    part.replace(flooder.directory.root / "attack")
    done = flooder.directory.root / f"done-{what}"
    until(done.exists, SECONDS, f"{what}: all of it was said; {flooder.log()[-2000:]}")
    until(lambda: all(p.epoch() >= epochs[p.name] + 3 for p in honest), SECONDS, f"{what}: the run goes on")
    assert all(p.alive for p in honest)
    made = [account.encode() for account in json.loads(done.read_text())]
    heard = {p.name for p in honest if any(account in seen(p) for account in made)}
    assert len(heard) == 1, "it went from one peer to the next"
    grown = {p.name: (memory(p) - before[p.name]) >> 20 for p in honest}
    assert max(grown.values()) <= MAX_GROWN_BYTES >> 20, grown


def test_a_newcomer_is_told_nothing_of_it(swarm: Swarm, flooder: PeerProcess) -> None:
    """After floods, and with the flooder gone: what it said is not what the others tell."""
    flooder.kill()
    newt = swarm.add("newt")
    newt.wait_ready(SECONDS)
    seen = [s for s in newt.messages() if isinstance(s.record, RoundCertificate)]
    people = {p.account for p in swarm.everyone()}
    strangers = {s.signer.hex() for s in seen if "0x" + s.signer.hex() not in people}
    assert seen and not strangers
