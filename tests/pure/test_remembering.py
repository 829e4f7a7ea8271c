"""A journal that does not hold what its key has signed stops the peer: whoever forgets its word can give a second one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.errors import StartError
from peers.notary import JournalNotary
from peers.remembering import check_journal
from swarm.errors import ForgottenSignature
from swarm.records.commitments import body_bytes
from swarm.records.types import ZERO_HASH, Contribution, Record, RoundVote, Signed
from swarm.records.wire import pack
from tests.pure.small_lineage import (
    BY_ACCOUNT,
    DOMAIN,
    PEERS,
    ROUND_BODY,
    ROUND_RECORD,
    RUN,
    receipt,
    signatures,
    values,
)

ME = PEERS[0]
CERTIFICATES = [replace(ROUND_RECORD, epoch=epoch, attempt=epoch % 2) for epoch in (2, 3, 4)]
RECEIPT = receipt(0)
VOTE = RoundVote(RUN, 5, 0, b"\x03" * 32, b"\x04" * 32)
CONTRIBUTION = Contribution(
    RUN, 6, ME, b"\x03" * 32, ZERO_HASH, 0, 1, 0, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH, b"\x05" * 32, 3
)


def sign(path: Path, *kept: Record) -> list[Signed]:
    with SigningJournal(path) as journal:
        notary = JournalNotary(BY_ACCOUNT[ME], DOMAIN, journal)
        return [Signed(record, ME, notary.sign(record)) for record in kept]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A peer that has signed three certificates, a receipt and a contribution; its ledger holds those of others too."""
    with Ledger(tmp_path / "ledger.sqlite", run_id=RUN, domain=DOMAIN) as ledger:
        for signed in sign(tmp_path / "journal", *CERTIFICATES):
            certificate, body = values(signed.record), body_bytes(ROUND_BODY)
            ledger.add_certificate(certificate, body, [(ME, signed.signature)])
            ledger.add_certificate(certificate, body, signatures(signed.record, PEERS[1:3]))
        ledger.add_receipt(values(receipt(1)), signatures(receipt(1), PEERS[1:3]))
        ledger.add_receipt(values(RECEIPT), [(ME, sign(tmp_path / "journal", RECEIPT)[0].signature)])
    return tmp_path


def check(directory: Path, *contributions: Signed) -> None:
    with (
        SigningJournal(directory / "journal") as journal,
        Ledger(directory / "ledger.sqlite", run_id=RUN, domain=DOMAIN) as ledger,
    ):
        check_journal(journal.path, JournalNotary(BY_ACCOUNT[ME], DOMAIN, journal), ledger, contributions)


def refused(directory: Path, *contributions: Signed) -> str:
    with pytest.raises(StartError) as caught:
        check(directory, *contributions)
    line = str(caught.value)
    assert "\n" not in line
    assert str(directory / "journal") in line and "new key" in line and "--dir" in line
    return line


def test_a_whole_journal_is_well_and_may_hold_more_than_anything_shows(directory: Path) -> None:
    sign(directory / "journal", VOTE)
    check(directory, *sign(directory / "journal", CONTRIBUTION))


def test_a_lost_journal_beside_the_ledger_stops_the_peer(directory: Path) -> None:
    (directory / "journal").unlink()
    assert "4 of them" in refused(directory)


def test_wherever_the_journal_was_cut_the_peer_stops(directory: Path) -> None:
    """At the border of a record, too, where the file by itself looks whole."""
    whole = (directory / "journal").read_bytes()
    borders = [8]
    while borders[-1] < len(whole):
        borders.append(borders[-1] + 12 + int.from_bytes(whole[borders[-1] : borders[-1] + 4], "big"))
    assert len(borders) == 5
    for cut in (*borders[:-1], *(border - 5 for border in borders[1:])):
        (directory / "journal").write_bytes(whole[:cut])
        refused(directory)
        if cut > 8:
            assert (directory / "journal").read_bytes() == whole[:cut], (
                "nothing is taken off before it is known to be torn"
            )
    (directory / "journal").write_bytes(whole)
    check(directory)


def test_half_a_record_that_nobody_saw_heals(directory: Path) -> None:
    whole = (directory / "journal").read_bytes()
    sign(directory / "journal", VOTE)
    longer = (directory / "journal").read_bytes()
    for cut in range(len(whole), len(longer)):
        (directory / "journal").write_bytes(longer[:cut])
        check(directory)
    sign(directory / "journal", VOTE)
    assert (directory / "journal").read_bytes() == longer


def test_an_old_copy_that_went_on_otherwise_stops_the_peer(directory: Path) -> None:
    (directory / "journal").unlink()
    sign(directory / "journal", RECEIPT, *(replace(c, next_root=b"\x09" * 32) for c in CERTIFICATES))
    assert "3 of them, a RoundCertificate of epoch 4 say" in refused(directory)


def test_a_contribution_kept_for_audits_shows_it_as_well(directory: Path) -> None:
    kept = sign(directory / "elsewhere", CONTRIBUTION)
    assert "Contribution of epoch 6" in refused(directory, *kept)
    check(directory, replace(kept[0], signature=bytes(65)))  # nobody's signature shows nothing


def test_another_key_in_the_directory_is_not_meant(directory: Path) -> None:
    with (
        SigningJournal(directory / "new") as journal,
        Ledger(directory / "ledger.sqlite", run_id=RUN, domain=DOMAIN) as ledger,
    ):
        check_journal(journal.path, JournalNotary(BY_ACCOUNT[PEERS[4]], DOMAIN, journal), ledger, ())


@pytest.mark.parametrize("record", [VOTE, *CERTIFICATES[:1]], ids=lambda r: type(r).__name__)
def test_a_message_that_shows_a_forgotten_signature_ends_the_peer(tmp_path: Path, record: Record) -> None:
    """Whatever was lost here, ledger included: those who heard it hand it back."""
    from swarm.averaging.driver import Driver
    from swarm.averaging.parts import PartStore
    from swarm.averaging.reception import Reception
    from swarm.config import RunConfig
    from swarm.consensus.machine import RoundMachine
    from tests.machine.world import rules
    from tests.pure.test_asking import Silent
    from tests.pure.test_averages_fetched_once import NoAnchors

    config = RunConfig.parse(
        {
            "name": "forgetful",
            "initial_root": "0" * 64,
            "task": {"kind": "causal_lm", "data": {"root": "0" * 64, "text": {"size": 1, "sha256": "0" * 64}}},
        }
    )
    content = ROUND_BODY if record is not VOTE else None
    (signed,) = sign(tmp_path / "lost", record)
    (other,) = (Signed(record, PEERS[1], signatures(record, PEERS[1:2])[0][1]),)
    messages = [pack(replace(each, content=content)) for each in (other, signed)]

    async def hear(path: Path) -> list[BaseException | None]:
        found: list[BaseException | None] = []
        with SigningJournal(path) as journal:
            notary = JournalNotary(BY_ACCOUNT[ME], DOMAIN, journal)
            machine = RoundMachine(notary, rules((ME,), 3), reduces=False, votes=False)
            reception = Reception(config, 700, PartStore(tmp_path / "parts"), notary.hash)
            driver = Driver(
                config, notary, machine, Silent(), NoAnchors(), reception, None, lambda _: None, lambda _: True, 3
            )
            driver.inbox.run_id = RUN
            for message in messages:
                await driver.on_message(PEERS[1], message)
                found.append(driver.failure)
            await driver.close()
        return found

    of_others, own = asyncio.run(hear(tmp_path / "journal"))
    assert of_others is None
    assert isinstance(own, ForgottenSignature) and type(record).__name__ in str(own)
    assert asyncio.run(hear(tmp_path / "lost")) == [None, None]
