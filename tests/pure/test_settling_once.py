"""A settlement parses and checks each thing once, however many receipts there are."""

from pathlib import Path

from benchmarks.settling_step import funded
from benchmarks.synthetic_books import FOUNDER, RUN_ID, Size, make
from incentives import records
from incentives.books import check_evidence
from incentives.closing import Closed, PayRules, close_period
from incentives.commitments import parse_body
from incentives.evidence import evidence_chunks, parse_evidence
from incentives.ledger import Ledger
from incentives.tables import parse_payouts, parse_tables

EPOCHS = 12  # more than the parsed bodies that are kept
RULES = PayRules(RUN_ID, 1, (records.account_of(FOUNDER),))


def closed(path: Path) -> Closed:
    if not path.exists():
        make(path, Size(5, EPOCHS))
    with Ledger.read(path) as ledger:
        return close_period(ledger, RULES, funded(ledger.domain, RUN_ID), None)


def test_a_body_is_parsed_once_by_settle_and_by_verify(tmp_path: Path) -> None:
    closed(tmp_path / "ledger.sqlite")
    parse_body.cache_clear()
    found = closed(tmp_path / "ledger.sqlite")
    assert parse_body.cache_info().misses == EPOCHS + 1
    parse_body.cache_clear()
    assert check_evidence(found.evidence, found.tables, RULES, None) == EPOCHS + 1 + 5 * EPOCHS
    assert parse_body.cache_info().misses == EPOCHS + 1


def test_what_is_published_comes_back_the_same(tmp_path: Path) -> None:
    found = closed(tmp_path / "ledger.sqlite")
    data = found.tables.to_bytes()
    assert parse_tables(data) == found.tables
    assert found.tables.hash() == found.proposal.tables_hash
    assert parse_payouts(data[: data.index(b'"receipts":[') + 12]) == found.tables.payouts
    again = parse_evidence(b"".join(evidence_chunks(found.evidence)))
    assert again == found.evidence
