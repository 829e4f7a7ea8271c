"""One contributor or reducer of four bends the model by its share at most, and who averages wrongly is shown."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from swarm.records.types import CallContent, RoundCall
from tests.faults.swarm import PeerProcess, Swarm, until
from tests.hostile.pace import honest_peers, losses

SECONDS = 90.0
LITTLE = 0.1  # nats per byte, of 5.5 by chance: a swarm that has learnt its text goes up and down by hundredths


def set_attack(mallory: PeerProcess, rule: str) -> int:
    """From now on; the first epoch that is under it as a whole."""
    (mallory.directory.root / "attack").write_text(rule)
    return mallory.epoch() + 2


def certified_from(swarm: Swarm, epoch: int) -> list[dict[str, Any]]:
    return [e for e in honest_peers(swarm)[0].certified() if e["epoch"] >= epoch]


@pytest.fixture(scope="module")
def mallory(swarm: Swarm) -> Iterator[PeerProcess]:
    mallory = swarm.add("mallory", kind="tests.hostile.bending:BendingPeer")
    until(lambda: any(e["own"] for e in mallory.certified()), SECONDS, f"mallory is one of them; {mallory.log()}")
    yield mallory
    mallory.terminate()


def rounds_under(swarm: Swarm, mallory: PeerProcess, attack: str, count: int) -> list[dict[str, Any]]:
    """Certificates of so many epochs in which mallory was one of the contributors."""
    first = set_attack(mallory, attack)

    def hit() -> list[dict[str, Any]]:
        return [e for e in certified_from(swarm, first) if mallory.account in e["contributors"]]

    until(lambda: len(hit()) >= count, SECONDS, f"{count} rounds with mallory ({attack})")
    return hit()


def calls_since(swarm: Swarm, epoch: int) -> list[tuple[str, list[str]]]:
    """Who called, and whom as reducers, as an honest peer heard it."""
    return [
        ("0x" + signed.signer.hex(), ["0x" + a.hex() for a in signed.content.reducers])
        for signed in honest_peers(swarm)[0].messages()
        if isinstance(signed.record, RoundCall)
        and isinstance(signed.content, CallContent)
        and signed.record.epoch >= epoch
    ]


@pytest.mark.parametrize("attack", ["minus twenty", "everywhere"])
def test_a_contributor_that_claims_64_units_moves_the_model_by_its_share(
    swarm: Swarm, mallory: PeerProcess, attack: str
) -> None:
    before = min(losses(swarm)[-3:])
    rounds_under(swarm, mallory, attack, 10)
    set_attack(mallory, "")
    latest = losses(swarm)[-1]
    assert math.isfinite(latest)
    assert latest < before + LITTLE  # it was thousands after as many rounds


@pytest.mark.parametrize("attack", ["draws itself", "a million", "turned average"])
def test_who_averages_wrongly_is_shown_and_reduces_no_more(swarm: Swarm, mallory: PeerProcess, attack: str) -> None:
    honest = honest_peers(swarm)
    shown = [len(p.events("WrongAverage")) for p in honest]
    before, first = min(losses(swarm)[-3:]), set_attack(mallory, attack)

    def is_shown() -> bool:
        return all(len(p.events("WrongAverage")) > n for p, n in zip(honest, shown, strict=True))

    until(is_shown, SECONDS, f"everybody sees that mallory averages wrongly ({attack})")
    for peer in honest:
        assert {e["account"] for e in peer.events("WrongAverage")} == {mallory.account}
    since = max(p.epoch() for p in honest)
    until(lambda: all(p.epoch() >= since + 10 for p in honest), SECONDS, "rounds go on")
    set_attack(mallory, "")
    assert all(e["kind"] == 0 for e in certified_from(swarm, first))
    assert losses(swarm)[-1] < before + LITTLE
    # where it leads it draws itself; an honest initiator takes it only where nobody else is ready
    by_others = [reducers for account, reducers in calls_since(swarm, since + 1) if account != mallory.account]
    assert sum(mallory.account in reducers for reducers in by_others) <= len(by_others) // 3
