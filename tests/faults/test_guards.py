"""A peer that speaks the whole protocol and breaks one rule: it costs the others nothing but its own contribution.

mallory is a real process with the product's own driver over the product's own transport; only what it commits to or sends
is changed (tests/faults/runner.py).
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peers.invite import Invite
from peers.status import PeerStatus
from swarm.errors import RetryError
from swarm.transport.bulk import Bulk
from swarm.transport.node import Node
from tests.faults.swarm import TINY, PeerProcess, Swarm, until

SECONDS = 90.0
RULES = {
    "hash": "hash differs from the committed one",
    "length": "length",
    "parts": "of another model",
    "shape": "shape:",
    "dtype": "dtype:",
    "finite": "finite:",
    "norm": "norm²",
    "deadline": "",  # nothing is wrong with what comes too late
}


@pytest.fixture(scope="module")
def mallory(swarm: Swarm) -> Iterator[PeerProcess]:
    mallory = swarm.add("mallory", kind="hostile")
    until(lambda: any(e["own"] for e in mallory.certified()), SECONDS, f"mallory is one of them; {mallory.log()}")
    yield mallory
    mallory.terminate()


@pytest.mark.parametrize("rule", RULES)
def test_who_breaks_a_rule_costs_the_others_nothing(swarm: Swarm, mallory: PeerProcess, rule: str) -> None:
    honest = [swarm.peers[name] for name in ("alice", "bob", "carol")]
    faults = sum(len(p.events("Fault")) for p in honest)
    (mallory.directory.root / "attack").write_text(rule)
    made = len(mallory.events("Contributed"))
    until(lambda: len(mallory.events("Contributed")) > made, SECONDS, "mallory contributes")
    first = mallory.events("Contributed")[made]["epoch"] + 1  # the one under way may have been begun honestly
    until(lambda: all(p.epoch() >= first + 2 for p in honest), SECONDS, f"rounds without mallory, who breaks {rule}")
    tried = {e["epoch"] for e in mallory.events("Contributed")} & {first, first + 1, first + 2}
    (mallory.directory.root / "attack").write_text("")
    assert tried
    accounts = {p.account for p in honest}
    previous = 0.0
    for event in honest[0].certified():
        if event["epoch"] in tried:
            assert set(event["contributors"]) == accounts
            assert event["kind"] == 0  # certified in the round, not seated anew after a stall
            assert event["time"] - previous < 30.0  # generous: the machine may be busy; deadlines are 1.2 s
        previous = event["time"]
    reasons = [e["reason"] for p in honest for e in p.events("Fault") if e["account"] == mallory.account]
    assert any(RULES[rule] in reason for reason in reasons) or rule == "deadline"
    assert sum(len(p.events("Fault")) for p in honest) > faults or rule == "deadline"
    made = sum(e["own"] for e in mallory.certified())
    until(lambda: sum(e["own"] for e in mallory.certified()) > made, SECONDS, "mallory, honest again, is one of them")


@pytest.mark.long
def test_whose_work_always_comes_too_late_is_told(swarm: Swarm, mallory: PeerProcess) -> None:
    def told() -> set[str]:
        return {advice.code for advice in PeerStatus.read(mallory.directory.status).advice}

    (mallory.directory.root / "attack").write_text("deadline")
    until(lambda: "too-late" in told(), SECONDS, "mallory is told")
    (mallory.directory.root / "attack").write_text("")
    until(lambda: "too-late" not in told(), SECONDS, "it is in time again")


def test_a_reducer_that_hands_out_no_averages_costs_attempts_and_not_the_run(
    swarm: Swarm, mallory: PeerProcess
) -> None:
    """It says that it has averaged, so that nobody counts it as silent. In the next attempt it has other parts, whose averages
    are the same bytes as before, and the others have those."""
    honest = [swarm.peers[name] for name in ("alice", "bob", "carol")]
    epoch = max(p.epoch() for p in honest) + 1
    (mallory.directory.root / "attack").write_text("withhold")

    def under_attack() -> list[dict[str, Any]]:
        return [e for e in honest[0].certified() if e["epoch"] > epoch and e["kind"] == 0]

    until(lambda: sum(e["attempt"] > 0 for e in under_attack()) >= 1, SECONDS, "mallory is drawn")
    drawn = next(e["epoch"] for e in under_attack() if e["attempt"] > 0)
    until(lambda: under_attack()[-1]["epoch"] >= drawn + 2, SECONDS, "rounds after it")
    (mallory.directory.root / "attack").write_text("")
    costly = next(e for e in under_attack() if e["epoch"] == drawn)
    assert {p.account for p in honest} <= set(costly["contributors"])  # nobody's work is lost


def test_parts_of_a_stranger_are_refused(swarm: Swarm, tmp_path: Path) -> None:
    address = Invite.decode(swarm.seed.directory.invite.read_text()).binding.bootstrap[0]

    async def push() -> None:
        async with await Node.open(tmp_path / "stranger") as node:
            await node.connect([address], 20.0)
            bulk = Bulk(node, lambda digest: None, lambda peer_id, header, payload: "")
            await bulk.push(address.rsplit("/", 1)[-1], [(bytes(36), b"part")], 20.0)

    # Closed before a word of it is read: the stranger meets that while it writes, or when it waits for an answer.
    with pytest.raises(RetryError, match=r"silent or gone|does not take data"):
        asyncio.run(push())


def test_the_rules_above_leave_time_for_a_late_part() -> None:
    from tests.faults.runner import LATE_SECONDS

    assert float(TINY["rounds.contribute_seconds"]) + float(TINY["rounds.average_seconds"]) < LATE_SECONDS
