"""Certificates and receipts with the signatures under them, as the ledger gives them and the checks take them."""

from dataclasses import dataclass

from incentives import records
from incentives.errors import TamperedError

Signatures = tuple[tuple[bytes, bytes], ...]  # (signer, 65 bytes), ascending by signer


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """`values`: the fields of RoundCertificate without `attempt`; `signatures` by attempt, which is what they sign."""

    id: bytes
    values: records.Values
    body: bytes  # canonical JSON
    signatures: dict[int, Signatures]

    @property
    def epoch(self) -> int:
        return number(self.values, "epoch")

    @property
    def prev(self) -> bytes:
        return data(self.values, "prev_certificate")

    def digest(self, domain: records.Domain, attempt: int) -> bytes:
        """What is signed in that attempt."""
        return records.digest(domain, "RoundCertificate", {**self.values, "attempt": attempt})


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    hash: bytes
    values: records.Values
    signatures: Signatures

    @property
    def peer(self) -> bytes:
        return data(self.values, "peer")

    @property
    def epoch(self) -> int:
        return number(self.values, "epoch")

    @property
    def units(self) -> int:
        return number(self.values, "units")

    @property
    def certificate(self) -> bytes:
        return data(self.values, "certificate")

    def digest(self, domain: records.Domain) -> bytes:
        return records.digest(domain, "ContributionReceipt", self.values)


def number(values: records.Values, name: str) -> int:
    """An integer field of a record; TamperedError where it is none."""
    value = values[name]
    if not isinstance(value, int):
        raise TamperedError(f"{name} = {value!r} is no number")
    return value


def data(values: records.Values, name: str) -> bytes:
    """A hash or address of a record; TamperedError where it is none."""
    value = values[name]
    if not isinstance(value, bytes):
        raise TamperedError(f"{name} = {value!r} is no hash or address")
    return value
