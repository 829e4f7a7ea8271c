"""Files that readers refuse are never published: what a period's files take is known before they are written, and where to end it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.settling_step import funded
from benchmarks.synthetic_books import RUN_ID, Size, make
from incentives.chain.state import RunState
from incentives.closing import Closed, close_period
from incentives.errors import StorageError
from incentives.evidence import evidence_chunks
from incentives.extent import FileLimits, last_epoch_readable, likely_end
from incentives.ledger import Ledger
from incentives.shelf import MAX_EVIDENCE_BYTES, MAX_TABLES_BYTES
from incentives.tables import Tables
from tests.pure.test_settling_once import RULES

EPOCHS = 6


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "ledger.sqlite"
    make(path, Size(5, EPOCHS))
    return path


def close(path: Path, to_epoch: int | None = None, before: Tables | None = None) -> Closed:
    with Ledger.read(path) as ledger:
        state: RunState = funded(ledger.domain, RUN_ID)
        if before is not None:
            last = close(path, before.to_epoch).proposal
            state = replace(state, num_periods=1, last=last, settled_epoch=before.to_epoch)
        return close_period(ledger, RULES, state, before, to_epoch)


def sizes(closed: Closed) -> tuple[int, int]:
    return len(closed.tables.to_bytes()), sum(map(len, evidence_chunks(closed.evidence)))


def test_a_period_ends_where_its_files_are_as_large_as_may_be(books: Path) -> None:
    """For every limit: what is cut off so is within it, and not by much too short."""
    whole, parts = close(books), {epoch: close(books, epoch) for epoch in range(2, EPOCHS + 2)}
    for epoch, part in parts.items():
        tables_bytes, evidence_bytes = sizes(part)
        for limits in (FileLimits(tables_bytes + 1100, 1 << 30), FileLimits(1 << 30, evidence_bytes + 600)):
            assert last_epoch_readable(whole, limits) == epoch
        for limits in (FileLimits(tables_bytes - 1, 1 << 30), FileLimits(1 << 30, evidence_bytes - 1)):
            if epoch > 2:
                assert last_epoch_readable(whole, limits) < epoch
    with pytest.raises(StorageError, match="a period that ends with epoch 2, the first that somebody is paid for"):
        last_epoch_readable(whole, FileLimits(sizes(parts[2])[0] - 1, 1 << 30))


def test_what_earlier_periods_have_left_counts(books: Path) -> None:
    """Payouts of earlier periods are carried on, and the evidence begins with the last certificate of the one before."""
    first = close(books, 3).tables
    second, all_of_it = close(books, 5, first), close(books, None, first)
    tables_bytes, evidence_bytes = sizes(second)
    assert last_epoch_readable(all_of_it, FileLimits(tables_bytes + 1100, 1 << 30)) == 5
    assert last_epoch_readable(all_of_it, FileLimits(tables_bytes - 1, 1 << 30)) == 4
    assert last_epoch_readable(all_of_it, FileLimits(1 << 30, evidence_bytes - 1)) == 4


def test_what_is_surely_too_much_is_not_even_looked_at(books: Path) -> None:
    """Where all are paid it ends with the first epoch that is too much, or soon after it."""
    certificates = close(books).evidence.certificates
    for epoch in range(2, EPOCHS + 2):
        tables_bytes, evidence_bytes = sizes(close(books, epoch))
        for limits in (FileLimits(1 << 30, evidence_bytes - 1), FileLimits(tables_bytes - 1, 1 << 30)):
            found = likely_end(certificates, limits)
            assert found is None or found >= epoch
            assert (found or EPOCHS + 1) - epoch <= (1 if limits.tables_bytes == 1 << 30 else EPOCHS)
    assert likely_end(certificates, FileLimits()) is None


def test_nobody_can_allow_more_than_readers_take() -> None:
    assert FileLimits.of(None) == FileLimits.of(1 << 40) == FileLimits(MAX_TABLES_BYTES, MAX_EVIDENCE_BYTES)
    assert FileLimits.of(1000) == FileLimits(1000, 1000)
