"""Whether a peer's journal holds all that its key has signed, as far as anything else shows it.

A journal that was lost, shortened or taken from an old copy opens like a new one. A key that goes on with it signs a second word on
what it has spoken on before. So at the start it is compared with the ledger and the contributions that are kept for audits, and
later with every message that carries the peer's own signature (`swarm.averaging.driver`): others may show what was lost here."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from incentives.journal import RESTORE_OR_NEW_KEY
from incentives.ledger import Ledger
from peers.errors import StartError
from peers.notary import JournalNotary
from swarm.errors import PeerFault
from swarm.records.types import ContributionReceipt, Record, RoundCertificate, Signed, StorageReceipt

_TYPES: dict[str, type[Record]] = {
    kind.__name__: kind for kind in (RoundCertificate, ContributionReceipt, StorageReceipt)
}


def check_journal(journal: Path, notary: JournalNotary, ledger: Ledger, contributions: Iterable[Signed]) -> None:
    """StartError where `ledger` or `contributions` show a signature of the notary's account that its journal does not hold."""
    shown = [*_in_ledger(ledger, notary.account), *_own(contributions, notary)]
    forgotten = [record for record in shown if not notary.remembers(record)]
    if forgotten:
        newest = max(forgotten, key=lambda record: record.epoch)
        raise StartError(
            forgot(
                journal,
                notary.account,
                f"{len(forgotten)} of them, a {type(newest).__name__} of epoch {newest.epoch} say",
            )
        )


def forgot(journal: Path, account: bytes, which: str) -> str:
    """What the owner of a peer with such a journal is told."""
    return (
        f"journal {journal} was lost, shortened or is an old copy: there are signatures of 0x{account.hex()} that it does not hold "
        f"({which}), and signing on could mean signing twice: {RESTORE_OR_NEW_KEY}"
    )


def _in_ledger(ledger: Ledger, account: bytes) -> Iterator[Record]:
    for kind, values in ledger.signed_by(account):
        yield _TYPES[kind](**values)  # type: ignore[arg-type]


def _own(contributions: Iterable[Signed], notary: JournalNotary) -> Iterator[Record]:
    for signed in contributions:
        try:
            if signed.signer == notary.account == notary.recover(signed.record, signed.signature):
                yield signed.record
        except PeerFault:
            continue


__all__ = ["check_journal", "forgot"]
