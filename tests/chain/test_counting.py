"""What a volunteer has earned so far, counted on while a run grows: the same as counted anew, without reading all of it again."""

from pathlib import Path

import pytest
from coincurve import PrivateKey

import incentives.closing
from incentives import records
from incentives.closing import PayRules
from peers.directory import PeerDirectory
from peers.watching import RECOUNTED_EPOCHS, ReceiptCount, Terms
from tests.chain.world import Lineage

RUN, DOMAIN = b"\x07" * 32, records.Domain(31337, b"\x02" * 20)
KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]
FOUNDER = PrivateKey(b"\x09" * 32)


def lineage(rounds: int, units: int, unwitnessed: tuple[int, ...] = ()) -> Lineage:
    made = Lineage(RUN, DOMAIN, KEYS, FOUNDER)
    for number in range(rounds):
        made.round(
            dict.fromkeys(made.accounts, units + number % 3),
            unsigned=tuple(made.accounts) if number in unwitnessed else (),
        )
    return made


def test_it_is_counted_on_and_anew_on_another_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = PeerDirectory(tmp_path)
    first = lineage(RECOUNTED_EPOCHS + 10, 2, unwitnessed=(1, 70))
    account = "0x" + first.accounts[0].hex()
    terms = Terms("run", 1, True, PayRules(RUN, 1, (records.account_of(FOUNDER),)))
    running = ReceiptCount(directory, terms, account)

    def anew() -> tuple[int, int, int] | None:
        return ReceiptCount(directory, terms, account).read()

    first.write(directory.ledger)
    found = running.read()
    assert found == anew() and found is not None and found[0] == RECOUNTED_EPOCHS + 8 and found[2] > 0
    for _ in range(5):
        first.round(dict.fromkeys(first.accounts, 1))
    first.write(directory.ledger)
    checked: list[object] = []
    check = incentives.closing.check_receipt
    monkeypatch.setattr(incentives.closing, "check_receipt", lambda case: checked.append(case) or check(case))
    found = running.read()
    assert 0 < len(checked) <= RECOUNTED_EPOCHS + 15
    assert found == anew() and found is not None and found[0] == RECOUNTED_EPOCHS + 13

    other = lineage(RECOUNTED_EPOCHS + 20, 5, unwitnessed=tuple(range(40)))
    other.write(directory.ledger)  # from its first round on another one, and followed now
    found = running.read()
    assert found == anew() and found is not None and found[0] == RECOUNTED_EPOCHS - 20
