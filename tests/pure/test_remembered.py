"""Signatures that are not checked twice, and that a swapped file makes nobody believe."""

from pathlib import Path

import pytest

from incentives import remembered
from incentives.checks import Judge, ReceiptCase, check_receipt, judge_signature
from incentives.evidence import SignedReceipt
from incentives.remembered import RememberedSignatures
from tests.pure.small_lineage import DOMAIN, PEERS, ROUND, RUN, receipt, signed_receipt

GOOD = signed_receipt(receipt(1), (PEERS[1], PEERS[3]))


def judged(path: Path, secret: bytes, monkeypatch: pytest.MonkeyPatch, given: SignedReceipt = GOOD) -> tuple[bool, int]:
    """(payable, how many signatures were looked at)."""
    asked: list[bytes] = []

    def counting(digest: bytes, signer: bytes, signature: bytes) -> str | None:
        asked.append(signature)
        return judge_signature(digest, signer, signature)

    monkeypatch.setattr(remembered, "judge_signature", counting)
    with RememberedSignatures(path, secret) as memory:
        judge: Judge = memory.judge
        outcome = check_receipt(ReceiptCase(given, ROUND, True, DOMAIN, RUN, 1, judge))
    return bool(outcome), len(asked)


def test_a_signature_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checked.bin"
    assert judged(path, b"mine", monkeypatch) == (True, 2)
    assert judged(path, b"mine", monkeypatch) == (True, 0)


def test_a_false_signature_is_never_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checked.bin"
    witness = GOOD.signatures[1] if GOOD.signatures[1][0] == PEERS[3] else GOOD.signatures[0]
    own = next(pair for pair in GOOD.signatures if pair != witness)
    forged = SignedReceipt(GOOD.hash, GOOD.values, (own, (witness[0], own[1])))
    assert judged(path, b"mine", monkeypatch) == (True, 2)
    assert judged(path, b"mine", monkeypatch, forged) == (False, 1)
    assert judged(path, b"mine", monkeypatch, forged) == (False, 1)


def test_a_file_of_somebody_else_or_a_torn_one_is_worth_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checked.bin"
    judged(path, b"theirs", monkeypatch)
    assert judged(path, b"mine", monkeypatch) == (True, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert judged(path, b"mine", monkeypatch) == (True, 1)
    path.unlink()
    path.mkdir()
    assert judged(path, b"mine", monkeypatch) == (True, 2)
