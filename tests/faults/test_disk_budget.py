"""A swarm that may write next to nothing, killed whole at one moment: what was certified is on its disks, and the run goes on from it."""

import pytest

from peers.status import PeerStatus
from tests.faults.swarm import LOCAL, PeerProcess, Runner, Swarm, until
from tests.faults.test_sigkill import check_agreement

pytestmark = pytest.mark.long

SECONDS = 90.0
POOR = f"disk_write_bytes_per_day = {2**20}\n"


def newest_root(peer: PeerProcess) -> str:
    return str(peer.certified()[-1]["root"]).removeprefix("0x")


@pytest.fixture(scope="module")
def poor(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    swarm = Swarm(
        runner, tmp_path_factory.mktemp("poor"), 0.1, **{"inner.steps_per_unit": "1", "rounds.min_seated": "2"}
    )
    swarm.seed.directory.config.write_text(LOCAL + POOR)
    swarm.seed.start()
    swarm.seed.wait_ready()
    return swarm


def test_a_quota_that_is_too_small_for_the_run_is_refused_in_one_line(poor: Swarm) -> None:
    small = poor.add("carol", f"disk_quota_bytes = {2**20}\n")
    assert poor.runner.wait(small.pid, SECONDS) == 3, small.log()
    (line,) = small.log().splitlines()
    assert line.startswith(f"sparehive: disk_quota_bytes = {2**20} in peer.toml: this run has to keep ")
    assert line.endswith("raise it, or join a smaller run")
    del poor.peers["carol"]


def test_all_are_killed_at_once_and_go_on_from_what_was_certified(poor: Swarm) -> None:
    swarm = poor
    for name in ("alice", "bob"):
        swarm.add(name, POOR)
    everyone = swarm.everyone()
    until(lambda: all(p.epoch() >= 8 for p in everyone), SECONDS, "certificates")
    for peer in everyone:
        peer.kill()
    before = max(p.epoch() for p in everyone)
    certified = {e["id"] for p in everyone for e in p.certified()}
    unwritten = [p for p in everyone if not (p.directory.blocks / newest_root(p)).exists()]
    assert unwritten, "the newest anchor was to be in memory only"
    for peer in everyone:
        peer.start()
    for peer in everyone:
        peer.wait_ready(SECONDS)
    until(lambda: all(p.epoch() >= before + 2 for p in everyone), SECONDS, f"the run goes on; {everyone[1].log()}")
    check_agreement(swarm)
    line = {e["id"] for e in everyone[0].certified()}
    assert certified - line == set()  # nobody had to begin again from an older state
    for peer in everyone:
        assert PeerStatus.read(peer.directory.status).disk_written_bytes > 0
        peer.terminate()
