"""The seed dies and comes back, on another port, while its run goes on."""

import time
from collections.abc import Iterator

import pytest

from incentives.ledger import Ledger
from tests.faults.swarm import PeerProcess, Swarm, until
from tests.faults.test_sigkill import SECONDS, check_agreement, is_in_a_new_certificate, newest_epoch


@pytest.fixture
def newcomer(swarm: Swarm) -> Iterator[PeerProcess]:
    """Not started yet."""
    peer = swarm.add("newt")
    peer.kill()
    yield peer
    if peer.alive:
        peer.terminate()


def test_the_run_outlives_its_seed_and_the_seed_catches_up(swarm: Swarm, newcomer: PeerProcess) -> None:
    seed = swarm.seed
    old_invite = seed.directory.invite.read_text()
    seed.kill()
    before = newest_epoch(swarm)
    until(lambda: newest_epoch(swarm) >= before + 3, SECONDS, "certificates without the seed")
    seed.directory.port.unlink()  # else it would come back where it was
    seed.start()
    seed.wait_ready()
    assert seed.directory.invite.read_text() != old_invite
    missed = newest_epoch(swarm)
    until(lambda: seed.epoch() >= missed, SECONDS, f"the seed has caught up; {seed.log()}")
    newcomer.directory.invite.write_text(seed.directory.invite.read_text())
    newcomer.start()
    is_in_a_new_certificate(newcomer, newest_epoch(swarm))
    check_agreement(swarm)
    with Ledger.read(seed.directory.ledger) as ledger:
        assert {c.epoch for c in ledger.certificates()} >= set(range(1, missed + 1))


@pytest.mark.long
def test_a_seed_leaves_in_the_middle_of_an_evaluation(swarm: Swarm) -> None:
    seed = swarm.seed
    assert seed.terminate() < 10.0
    seed.kind = "thinking"
    try:
        seed.start()
        seed.wait_ready()
        time.sleep(1.0)  # it looks for something to evaluate twice a second
        assert seed.terminate() < 10.0
    finally:
        seed.kind = "faulty"
        if not seed.alive:
            seed.start()
    seed.wait_ready()
    epoch = newest_epoch(swarm)
    until(lambda: seed.epoch() > epoch, SECONDS, "the seed follows again")
