"""Certificates and receipts with the signatures under them, as the ledger gives them and the checks take them; and all those of
a period as one file, which is published beside its tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from incentives import records
from incentives.errors import InputError, TamperedError
from incentives.jsonform import first_fault, from_hex, to_hex
from incentives.keys import to_checksum

FORMAT = "sparehive-evidence-1"
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is under the tables' hashes: the paid receipts in the order of the table, with the signatures that count;
    the certificates of the period, and before them the one that the first of them follows, if there is one."""

    receipts: tuple[SignedReceipt, ...]
    certificates: tuple[SignedCertificate, ...]


def evidence_bytes(evidence: Evidence) -> bytes:
    """Canonical JSON; records as their EIP-712 words, which hash to what is in the leaves."""
    receipts = [
        [to_hex(records.encode_words("ContributionReceipt", r.values)), _pairs(r.signatures)] for r in evidence.receipts
    ]
    certificates: list[Any] = [
        [
            to_hex(records.encode_words("CertificateId", c.values)),
            c.body.decode(),
            {str(attempt): _pairs(signatures) for attempt, signatures in c.signatures.items()},
        ]
        for c in evidence.certificates
    ]
    content: Any = {"format": FORMAT, "receipts": receipts, "certificates": certificates}
    return bytes(rfc8785.dumps(content))


_Hex = Annotated[str, Field(pattern="^0x([0-9a-f]{2})*$")]
_Pairs = list[tuple[_Hex, _Hex]]


class _EvidenceModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")]
    receipts: list[tuple[_Hex, _Pairs]]
    certificates: list[tuple[_Hex, str, dict[str, _Pairs]]]


def parse_evidence(data: bytes) -> Evidence:
    """From the file. TamperedError where it is malformed; whether it is true is for `incentives.checks` to say."""
    try:
        model = _EvidenceModel.model_validate_json(data)
        return Evidence(tuple(_receipts(model)), tuple(_certificates(model)))
    except ValidationError as error:
        raise TamperedError(f"evidence: {first_fault(error)}") from None
    except (InputError, ValueError) as error:
        raise TamperedError(f"evidence: {error}") from None


def _receipts(model: _EvidenceModel) -> Iterator[SignedReceipt]:
    for words, pairs in model.receipts:
        values = records.decode_words("ContributionReceipt", from_hex(words))
        yield SignedReceipt(records.hash_struct("ContributionReceipt", values), values, _unpairs(pairs))


def _certificates(model: _EvidenceModel) -> Iterator[SignedCertificate]:
    for words, body, attempts in model.certificates:
        values = records.decode_words("CertificateId", from_hex(words))
        signatures = {int(attempt): _unpairs(pairs) for attempt, pairs in attempts.items()}
        yield SignedCertificate(records.hash_struct("CertificateId", values), values, body.encode(), signatures)


def _pairs(signatures: Sequence[tuple[bytes, bytes]]) -> list[Any]:
    return [[to_hex(signer), to_hex(signature)] for signer, signature in signatures]


def _unpairs(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((from_hex(signer), from_hex(signature)) for signer, signature in pairs)


def co_signers(evidence: Evidence | None, account: bytes) -> list[str]:
    """Who witnessed the account's paid receipts."""
    found = {
        signer
        for receipt in (evidence.receipts if evidence else ())
        if receipt.peer == account
        for signer, _ in receipt.signatures
        if signer != account
    }
    return [to_checksum(signer) for signer in sorted(found)]


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
