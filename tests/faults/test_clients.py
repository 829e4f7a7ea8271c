"""One volunteer that can be reached, and three behind routers: it averages alone, so the voters look themselves."""

from pathlib import Path

import pytest

from swarm.records.types import Average
from tests.faults.swarm import Runner, Swarm, until


@pytest.mark.long
def test_who_is_behind_a_router_looks_at_what_the_only_reducer_averages(runner: Runner, tmp_path: Path) -> None:
    swarm = Swarm(runner, tmp_path)
    swarm.seed.start()
    swarm.seed.wait_ready()
    alice = swarm.add("alice")
    clients = [swarm.add(name, "client_mode = true\n") for name in ("bob", "carol", "dave")]

    def whole_rounds() -> int:
        return sum(e["kind"] == 0 and len(e["contributors"]) == 4 for e in clients[0].certified())

    until(lambda: whole_rounds() >= 5, 120.0, f"five rounds of all four; {[p.log() for p in swarm.everyone()]}")
    until(lambda: whole_rounds() >= 15, 60.0, "rounds go on")
    certified = [e for e in clients[0].certified() if len(e["contributors"]) == 4]
    assert all(e["reducers"] == [alice.account] for e in certified)
    assert [e["attempt"] for e in certified].count(0) > len(certified) // 2
    looked = {"0x" + m.signer.hex() for m in clients[0].messages() if isinstance(m.record, Average)}
    assert looked >= {p.account for p in clients}
    assert not any(p.events("WrongAverage") for p in swarm.everyone())
    for peer in swarm.everyone():
        peer.terminate()
