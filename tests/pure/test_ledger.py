"""The ledger: append-only, idempotent, readable beside its writer, and deaf to edited rows."""

import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from incentives import records
from incentives.checks import CertificateCase, ReceiptCase, check_certificate, check_receipt
from incentives.errors import BadSignature, InputError, StorageError, TamperedError
from incentives.ledger import Ledger
from swarm.records.commitments import body_bytes
from swarm.records.types import RoundBody, RoundCertificate
from tests.pure.small_lineage import (
    DOMAIN,
    FOUNDER,
    LEAVES,
    PEERS,
    ROUND,
    ROUND_BODY,
    ROUND_RECORD,
    RUN,
    SEATING,
    SEATING_BODY,
    SEATING_RECORD,
    certificate,
    receipt,
    round_body,
    signatures,
    signed,
    storage_receipt,
    values,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite", run_id=RUN, domain=DOMAIN) as opened:
        yield opened


def _add(ledger: Ledger, record: RoundCertificate, body: RoundBody, signers: tuple[bytes, ...]) -> bytes:
    return ledger.add_certificate(values(record), body_bytes(body), signatures(record, signers))


def _add_all(ledger: Ledger) -> None:
    _add(ledger, SEATING_RECORD, SEATING_BODY, (FOUNDER,))
    _add(ledger, ROUND_RECORD, ROUND_BODY, PEERS[:4])
    for index, peer in enumerate(PEERS):
        ledger.add_receipt(values(receipt(index)), signatures(receipt(index), (peer,)))


def test_what_is_added_comes_back_and_passes_the_checks(ledger: Ledger) -> None:
    _add_all(ledger)
    assert ledger.certificate(ROUND.id) == ROUND
    seating = ledger.certificate(SEATING.id)
    assert seating is not None
    assert check_certificate(CertificateCase(ROUND, seating, DOMAIN, RUN, (FOUNDER,)))
    ledger.add_receipt(values(receipt(1)), signatures(receipt(1), (PEERS[3],)))
    by_peer = {signed.peer: signed for signed in ledger.receipts(ROUND.id)}
    assert list(by_peer) == list(PEERS)
    assert check_receipt(ReceiptCase(by_peer[PEERS[1]], ROUND, True, DOMAIN, RUN, 1))
    assert ledger.contribution(LEAVES[1].contribution) == [(ROUND.id, PEERS[1], 11, 2)]
    assert ledger.certificate(b"\1" * 32) is None
    assert ledger.receipt(b"\1" * 32) is None
    assert list(ledger.certificates()) == [SEATING, ROUND]


def test_adding_again_changes_nothing_and_adds_what_is_new(ledger: Ledger) -> None:
    _add_all(ledger)
    before = ledger.statistics()
    _add_all(ledger)
    assert ledger.statistics() == before
    assert (before.certificates, before.receipts, before.signatures) == (2, 5, 10)
    _add(ledger, ROUND_RECORD, ROUND_BODY, PEERS[4:])
    later = replace(ROUND_RECORD, attempt=2)
    assert _add(ledger, later, ROUND_BODY, PEERS[:1]) == ROUND.id
    again = ledger.certificate(ROUND.id)
    assert again is not None
    assert {attempt: [who for who, _ in pairs] for attempt, pairs in again.signatures.items()} == {
        0: list(PEERS),
        2: [PEERS[0]],
    }


def test_a_wrong_signature_or_body_or_run_is_refused_and_nothing_is_stored(ledger: Ledger) -> None:
    good = signatures(ROUND_RECORD, PEERS[:2])
    body = body_bytes(ROUND_BODY)
    with pytest.raises(BadSignature, match="not by"):
        ledger.add_certificate(values(ROUND_RECORD), body, (good[0], (PEERS[1], good[0][1])))
    with pytest.raises(BadSignature):
        ledger.add_certificate(values(replace(ROUND_RECORD, attempt=1)), body, good)
    with pytest.raises(TamperedError, match="certified hash"):
        ledger.add_certificate(values(ROUND_RECORD), body_bytes(SEATING_BODY), good)
    with pytest.raises(InputError, match="run_id"):
        ledger.add_certificate({**values(ROUND_RECORD), "run_id": bytes(32)}, body, good)
    with pytest.raises(BadSignature):
        ledger.add_receipt(values(receipt(1)), ((PEERS[2], signatures(receipt(1), (PEERS[1],))[0][1]),))
    with pytest.raises(BadSignature):
        ledger.add_receipt({**values(receipt(1)), "units": 99}, signatures(receipt(1), (PEERS[1],)))
    with pytest.raises(InputError, match="epoch"):
        ledger.add_receipt({**values(receipt(1)), "epoch": 2**63}, ())
    statistics = ledger.statistics()
    assert (statistics.certificates, statistics.receipts, statistics.signatures) == (0, 0, 0)
    ledger.add_certificate(values(ROUND_RECORD), body, good)


def test_receipts_for_storing_are_kept_beside_the_others(ledger: Ledger) -> None:
    _add_all(ledger)
    kept = storage_receipt()
    for signers in (PEERS[:1], PEERS[2:3], PEERS[:1]):
        ledger.add_storage_receipt(values(kept), signatures(kept, signers))
    (found,) = ledger.storage_receipts(ROUND.id)
    assert (found.values, found.signatures) == (values(kept), signatures(kept, (PEERS[0], PEERS[2])))
    assert (found.peer, found.epoch, found.held, found.proof) == (PEERS[0], 2, b"\0" * 31 + b"\1", b"\5" * 32)
    assert list(ledger.storage_receipts(ROUND.id, PEERS[0])) == [found]
    assert not list(ledger.storage_receipts(ROUND.id, PEERS[1])) and not list(ledger.storage_receipts(SEATING.id))
    assert (2, ROUND.id, found.hash, PEERS[2]) in set(ledger.held())
    assert ("StorageReceipt", values(kept)) in list(ledger.signed_by(PEERS[2]))
    assert (ledger.statistics().storage_receipts, ledger.statistics().receipts) == (1, 5)
    with pytest.raises(BadSignature):
        ledger.add_storage_receipt(values(kept), [(PEERS[1], signatures(kept, PEERS[:1])[0][1])])
    with pytest.raises(InputError, match="another run"):
        ledger.add_storage_receipt({**values(kept), "run_id": bytes(32)}, [])


def test_an_edited_receipt_for_storing_is_an_error(tmp_path: Path) -> None:
    path, kept = tmp_path / "ledger.sqlite", storage_receipt()
    with Ledger(path, run_id=RUN, domain=DOMAIN) as ledger:
        ledger.add_storage_receipt(values(kept), signatures(kept, PEERS[:1]))
    edited = records.encode_words("StorageReceipt", {**values(kept), "held": b"\xff" * 32})
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER storage_receipts_no_update")
        db.execute("UPDATE storage_receipts SET words = ?", (edited,))
    with Ledger.read(path) as ledger, pytest.raises(TamperedError, match="damaged, or was changed"):
        list(ledger.storage_receipts(ROUND.id))


def test_a_ledger_from_before_there_was_storage_is_read_and_goes_on(tmp_path: Path) -> None:
    path, kept = tmp_path / "ledger.sqlite", storage_receipt()
    with Ledger(path, run_id=RUN, domain=DOMAIN) as ledger:
        _add_all(ledger)
        before = ledger.statistics()
    with sqlite3.connect(path) as db:
        for table in ("storage_receipts", "storage_signatures"):
            db.execute(f"DROP TABLE {table}")
    with Ledger.read(path) as ledger:
        assert not list(ledger.storage_receipts(ROUND.id)) and ledger.statistics() == before
        assert list(ledger.held()) and not [kind for kind, _ in ledger.signed_by(PEERS[0]) if kind == "StorageReceipt"]
    with Ledger(path, run_id=RUN, domain=DOMAIN) as ledger:
        ledger.add_storage_receipt(values(kept), signatures(kept, PEERS[:1]))
        assert len(list(ledger.storage_receipts(ROUND.id))) == 1
        assert len(list(ledger.receipts(ROUND.id))) == 5


def test_no_row_can_be_changed_or_removed(ledger: Ledger) -> None:
    _add_all(ledger)
    ledger.set_tip(ROUND.id)
    ledger.add_storage_receipt(values(storage_receipt()), signatures(storage_receipt(), PEERS[:1]))
    with sqlite3.connect(ledger.path) as other:
        tables = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert len(tables) == 9
        for table in tables:
            (column, *_) = (row[1] for row in other.execute(f"PRAGMA table_info({table})"))
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    other.execute(statement)
    other.close()


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE certificates SET words = CAST(substr(words, 1, 63) || x'09' || substr(words, 65) AS BLOB)",
        "UPDATE certificates SET words = 'text'",
        "UPDATE certificates SET words = substr(words, 1, 64)",
        "UPDATE certificates SET body = replace(CAST(body AS TEXT), '11', '99')",
        "UPDATE certificates SET id = zeroblob(32) WHERE epoch = 2",
        "UPDATE receipts SET words = CAST(substr(words, 1, 127) || x'63' || substr(words, 129) AS BLOB)",
    ],
)
def test_a_row_that_was_edited_from_outside_is_an_error(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, run_id=RUN, domain=DOMAIN) as ledger:
        _add_all(ledger)
    other = sqlite3.connect(path)
    for (trigger,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        other.execute(f"DROP TRIGGER {trigger}")
    other.execute(edit)
    other.commit()
    other.close()
    with Ledger.read(path) as ledger, pytest.raises(TamperedError, match="was changed") as caught:
        _read_all(ledger)
    assert "\n" not in str(caught.value)


def _read_all(ledger: Ledger) -> None:
    for stored in ledger.certificates():
        list(ledger.receipts(stored.id))


def _chain(ledger: Ledger, length: int) -> list[bytes]:
    _add(ledger, SEATING_RECORD, SEATING_BODY, (FOUNDER,))
    ids, prev = [SEATING.id], SEATING
    for _ in range(length):
        body = round_body(LEAVES, PEERS[:1], PEERS)
        record = certificate(prev, body)
        prev = signed(record, body, ())
        ids.append(_add(ledger, record, body, ()))
    return ids


def test_the_lineage_is_walked_back_from_the_tip_oldest_first(ledger: Ledger) -> None:
    ids = _chain(ledger, 4)
    assert [c.id for c in ledger.lineage(ids[-1])] == ids
    assert [c.id for c in ledger.lineage(ids[-1], 2, 4)] == ids[2:4]
    assert [c.id for c in ledger.lineage(ids[2], 2)] == ids[2:3]


def test_a_gap_in_the_lineage_says_which_certificate_is_missing(ledger: Ledger) -> None:
    _add(ledger, ROUND_RECORD, ROUND_BODY, ())
    with pytest.raises(StorageError, match=SEATING.id.hex()):
        ledger.lineage(ROUND.id)
    assert [c.id for c in ledger.lineage(ROUND.id, from_epoch=2)] == []


def test_a_fork_is_kept_and_the_last_branch_followed_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, run_id=RUN, domain=DOMAIN) as ledger:
        _add_all(ledger)
        body = round_body(LEAVES[:2], PEERS[:1], PEERS)
        fork = _add(ledger, certificate(SEATING, body), body, ())
        assert {certificate.id for certificate in ledger.certificates(2)} == {ROUND.id, fork}
        assert ledger.tip() is None
        for tip in (ROUND.id, fork, fork, ROUND.id):
            ledger.set_tip(tip)
    with Ledger.read(path) as ledger:
        assert ledger.tip() == ROUND.id
        assert len(ledger.contribution(LEAVES[0].contribution)) == 2


def test_a_second_process_reads_while_the_first_writes_and_cannot_write(ledger: Ledger) -> None:
    _add_all(ledger)
    code = textwrap.dedent(
        """
        import sqlite3, sys
        from pathlib import Path
        from incentives.errors import StorageError
        from incentives.ledger import Ledger
        with Ledger.read(Path(sys.argv[1])) as ledger:
            print(ledger.statistics().receipts, ledger.domain.chain_id)
            try:
                ledger.set_tip(bytes(32))
            except StorageError as error:
                print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code, str(ledger.path)], capture_output=True, text=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first == f"5 {DOMAIN.chain_id}", done.stderr
    assert "readonly" in second
    ledger.set_tip(ROUND.id)


def test_what_was_added_before_a_sigkill_is_there_afterwards(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.pure.small_lineage import DOMAIN, PEERS, RUN, receipt, signatures, values
        from incentives.ledger import Ledger
        ledger = Ledger(Path(sys.argv[1]), run_id=RUN, domain=DOMAIN)
        epoch = 0
        while True:
            record = receipt(1, epoch=epoch)
            print(ledger.add_receipt(values(record), signatures(record, PEERS[1:2])).hex(), flush=True)
            epoch += 1
        """
    )
    path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", code, str(path)]
    environment = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().splitlines(keepends=True)
    with Ledger(path, run_id=RUN, domain=DOMAIN) as ledger:
        for line in acknowledged:
            if line.endswith(b"\n"):
                stored = ledger.receipt(bytes.fromhex(line.decode()))
                assert stored is not None
                assert len(stored.signatures) == 1


def test_a_full_disk_is_one_line_and_nothing_of_the_transaction_stays(ledger: Ledger) -> None:
    """A limit on the size of files is what a full disk looks like to a process that may not mount one."""
    _add(ledger, SEATING_RECORD, SEATING_BODY, (FOUNDER,))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in ledger.path.parent.iterdir() if not file.name.endswith("-shm"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(StorageError) as caught:
            _add(ledger, ROUND_RECORD, ROUND_BODY, PEERS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert ledger.statistics().certificates == 1
    _add(ledger, ROUND_RECORD, ROUND_BODY, PEERS)
    assert ledger.statistics().certificates == 2


def test_another_run_domain_or_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path, run_id=RUN, domain=DOMAIN).close()
    for run_id, domain in ((bytes(32), DOMAIN), (RUN, records.Domain(1, DOMAIN.verifying_contract))):
        with pytest.raises(InputError, match="another run or chain"):
            Ledger(path, run_id=run_id, domain=domain)
    with pytest.raises(InputError, match="does not exist"):
        Ledger.read(tmp_path / "none")
    (tmp_path / "text").write_text("no database, but long enough to be looked at " * 30)
    for opener in (Ledger.read, lambda p: Ledger(p, run_id=RUN, domain=DOMAIN)):
        with pytest.raises(StorageError, match="not a database"):
            opener(tmp_path / "text")
    with Ledger.read(path) as ledger:
        assert (ledger.run_id, ledger.domain) == (RUN, DOMAIN)
