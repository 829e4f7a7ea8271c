"""Up to which epoch a period goes: receipts of the newest epochs may still be on their way, the run's terms bound what a day releases,
and files that readers refuse to read must not be proposed. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from incentives.chain.state import RunState
from incentives.closing import Closed
from incentives.errors import StorageError
from incentives.evidence import LEAST_RECEIPT_BYTES, SignedCertificate, certificate_bytes, number, receipt_bytes
from incentives.shelf import MAX_EVIDENCE_BYTES, MAX_TABLES_BYTES
from incentives.storage import GRACE_EPOCHS
from incentives.tables import LEAST_RECEIPT_ROW_BYTES, row_bytes

# A receipt is said when its certificate has joined the lineage, and co-signed by whoever has got it; both come before the votes for the
# next certificate on the same links (protocol §6). So with one more epoch certified, what can be paid is here.
EPOCHS_ON_THEIR_WAY = 1
STORAGE_EPOCHS_ON_THEIR_WAY = GRACE_EPOCHS + 1  # a StorageReceipt's witnesses sign for so long
_TABLES_FRAME_BYTES, _EVIDENCE_FRAME_BYTES = 1024, 128  # what stands around the rows, at most


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The largest files that may be published, in bytes; by default what every reader takes (`incentives.shelf`)."""

    tables_bytes: int = MAX_TABLES_BYTES
    evidence_bytes: int = MAX_EVIDENCE_BYTES

    @classmethod
    def of(cls, max_bytes: int | None) -> "FileLimits":
        """At most that for either file, and what readers take in any case."""
        limits = cls()
        return (
            limits
            if max_bytes is None
            else cls(*(min(max_bytes, each) for each in (limits.tables_bytes, limits.evidence_bytes)))
        )


def last_epoch_allowed(closed: Closed, state: RunState) -> int:
    """Up to where the run's terms let a period go now: by the contract's age, and so that a day's amount pays for all of it. The first
    epoch that somebody has worked for is in it in any case, and shares what a day may release."""
    units: dict[int, int] = {}
    for row in closed.tables.receipts:
        units[row.epoch] = units.get(row.epoch, 0) + row.units
    last, total = closed.tables.to_epoch, 0
    for before, epoch in pairwise(sorted(units)):
        total += units[before]
        if (total + units[epoch]) * state.unit_price_amount > state.amount_per_day:
            last = epoch - 1
            break
    return min(last, state.newest_epoch_allowed)


def likely_end(certificates: Iterable[SignedCertificate], limits: FileLimits) -> int | None:
    """The first epoch with which the files are too large if all contributors are paid: there is hardly a need to look beyond it, and what
    is not looked at takes no time and no memory. None: no such epoch."""
    receipts, evidence = 0, _EVIDENCE_FRAME_BYTES
    for certificate in certificates:
        count = number(certificate.values, "num_contributors")
        receipts, evidence = receipts + count, evidence + certificate_bytes(certificate) + count * LEAST_RECEIPT_BYTES
        if receipts * LEAST_RECEIPT_ROW_BYTES > limits.tables_bytes or evidence > limits.evidence_bytes:
            return certificate.epoch
    return None


def last_epoch_readable(closed: Closed, limits: FileLimits) -> int:
    """Up to where a period that begins like `closed` can go so that neither of its files is larger than its limit; never too far, for
    sums are counted as long as they are at the end. StorageError where the first epoch that somebody is paid for is too much."""
    tables_bytes, evidence_bytes = _bytes_by_epoch(closed)
    first = min((row.epoch for row in closed.tables.receipts), default=closed.tables.to_epoch)
    tables, evidence = _TABLES_FRAME_BYTES, _EVIDENCE_FRAME_BYTES
    for epoch in range(closed.tables.from_epoch, closed.tables.to_epoch + 1):
        tables, evidence = tables + tables_bytes.get(epoch, 0), evidence + evidence_bytes.get(epoch, 0)
        if tables <= limits.tables_bytes and evidence <= limits.evidence_bytes:
            continue
        if epoch <= first:
            raise StorageError(
                f"the files of a period that ends with epoch {epoch}, the first that somebody is paid for, have up to {tables} bytes "
                "(tables) "
                f"and {evidence} bytes (evidence), more than the {limits.tables_bytes} and {limits.evidence_bytes} that may be published: "
                "nobody could read them; nothing was proposed"
            )
        return epoch - 1
    return closed.tables.to_epoch


def _bytes_by_epoch(closed: Closed) -> tuple[dict[int, int], dict[int, int]]:
    """What each epoch adds to the tables and to the evidence; the period's first key is the epoch before it, for what is in them in any
    case: accounts of earlier periods, the certificate that the first one follows."""
    tables, evidence = closed.tables, closed.evidence
    begins: dict[bytes, int] = {}  # an account that is new stands in the tables from its first receipt on
    units: dict[bytes, int] = {}
    in_tables: dict[int, int] = {}
    in_evidence: dict[int, int] = {}
    for row in tables.receipts:
        begins.setdefault(row.account, row.epoch)
        units[row.account] = row.account_units
        in_tables[row.epoch] = in_tables.get(row.epoch, 0) + row_bytes(row)
    for payout in tables.payouts:
        is_new = payout.cum_units == units.get(payout.account)
        epoch = begins[payout.account] if is_new else tables.from_epoch
        in_tables[epoch] = in_tables.get(epoch, 0) + row_bytes(payout)
    for certified in tables.certificates:
        in_tables[certified.epoch] = in_tables.get(certified.epoch, 0) + row_bytes(certified)
    for receipt in evidence.receipts:
        in_evidence[receipt.epoch] = in_evidence.get(receipt.epoch, 0) + receipt_bytes(receipt)
    for certificate in evidence.certificates:
        epoch = max(certificate.epoch, tables.from_epoch)
        in_evidence[epoch] = in_evidence.get(epoch, 0) + certificate_bytes(certificate)
    return in_tables, in_evidence


__all__ = [
    "EPOCHS_ON_THEIR_WAY",
    "STORAGE_EPOCHS_ON_THEIR_WAY",
    "FileLimits",
    "last_epoch_allowed",
    "last_epoch_readable",
    "likely_end",
]
