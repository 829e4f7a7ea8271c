"""Certificates and receipts with the signatures under them, as the ledger gives them and the checks take them; and all those of
a period as one file, which is published beside its tables."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from incentives import records
from incentives.errors import InputError, TamperedError
from incentives.jsonform import canonical, first_fault, from_hex, to_hex

FORMAT, STORAGE_FORMAT = "sparehive-evidence-1", "sparehive-storage-evidence-1"
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
class SignedStorageReceipt:
    """A StorageReceipt, as `SignedReceipt`. What it is worth follows from all of its certificate (`incentives.storage`)."""

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
    def certificate(self) -> bytes:
        return data(self.values, "certificate")

    @property
    def held(self) -> bytes:
        """Bitmap of the run's stored objects: 32 bytes."""
        return data(self.values, "held")

    @property
    def proof(self) -> bytes:
        """sha-256 of the proof block."""
        return data(self.values, "proof")

    def digest(self, domain: records.Domain) -> bytes:
        return records.digest(domain, "StorageReceipt", self.values)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is under the tables' hashes: the paid receipts in the order of the table, all for work or all for storing, with the
    signatures that count; the certificates of the period, and before them the one that the first of them follows, if there is one."""

    receipts: tuple[SignedReceipt | SignedStorageReceipt, ...]
    certificates: tuple[SignedCertificate, ...]


def evidence_chunks(evidence: Evidence) -> Iterator[bytes]:
    """Canonical JSON in pieces; records as their EIP-712 words, which hash to what is in the leaves. The names stand in their canonical
    order."""
    yield b'{"certificates":['
    yield from _joined(_certificate_json(certificate) for certificate in evidence.certificates)
    is_storage = any(isinstance(receipt, SignedStorageReceipt) for receipt in evidence.receipts)
    yield _between(STORAGE_FORMAT if is_storage else FORMAT)
    yield from _joined(_receipt_json(receipt) for receipt in evidence.receipts)
    yield b"]}"


def _between(format_: str) -> bytes:
    return b'],"format":' + canonical(format_) + b',"receipts":['


_BLOCK = 1 << 20


def _joined(items: Iterable[Any]) -> Iterator[bytes]:
    before = b""
    for item in items:
        yield before + canonical(item)
        before = b","


def _receipt_json(receipt: SignedReceipt | SignedStorageReceipt) -> list[Any]:
    kind = "StorageReceipt" if isinstance(receipt, SignedStorageReceipt) else "ContributionReceipt"
    return [to_hex(records.encode_words(kind, receipt.values)), _pairs(receipt.signatures)]


def _certificate_json(certificate: SignedCertificate) -> list[Any]:
    return [
        to_hex(records.encode_words("CertificateId", certificate.values)),
        certificate.body.decode(),
        {str(attempt): _pairs(signatures) for attempt, signatures in certificate.signatures.items()},
    ]


_WORD_BYTES, _PAIR_BYTES = (
    64,
    182,
)  # in hex; a signer and a signature, with quotes, brackets and what parts it from the next


LEAST_RECEIPT_BYTES = 6 * _WORD_BYTES + 2 * (_PAIR_BYTES - 1)  # six fields, the peer's signature and a witness's


def receipt_bytes(receipt: SignedReceipt | SignedStorageReceipt) -> int:
    """At most how many a receipt takes in the published file, with what parts it from the next."""
    return 10 + _WORD_BYTES * len(receipt.values) + _PAIR_BYTES * len(receipt.signatures)


def certificate_bytes(certificate: SignedCertificate) -> int:
    """The same of a certificate."""
    body = len(certificate.body) + certificate.body.count(b'"') + certificate.body.count(b"\\")  # as text in JSON
    signatures = sum(27 + _PAIR_BYTES * len(each) for each in certificate.signatures.values())
    return 16 + _WORD_BYTES * len(certificate.values) + body + signatures


_Hex = Annotated[str, Field(pattern="^0x([0-9a-f]{2})*$")]
_Pairs = list[tuple[_Hex, _Hex]]


_ReceiptItem = tuple[_Hex, _Pairs]
_CertificateItem = tuple[_Hex, str, dict[str, _Pairs]]


class _EvidenceModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["sparehive-evidence-1", "sparehive-storage-evidence-1"]
    receipts: list[_ReceiptItem]
    certificates: list[_CertificateItem]


_RECEIPTS: TypeAdapter[list[_ReceiptItem]] = TypeAdapter(list[_ReceiptItem], config=ConfigDict(strict=True))
_CERTIFICATES: TypeAdapter[list[_CertificateItem]] = TypeAdapter(list[_CertificateItem], config=ConfigDict(strict=True))


def parse_evidence(data: bytes) -> Evidence:
    """From the file's bytes, as `read_evidence`."""
    return read_evidence(io.BytesIO(data))


def read_evidence(stream: BinaryIO) -> Evidence:
    """From the file, a block at a time. TamperedError where it is malformed; whether it is true is for `incentives.checks` to say."""
    try:
        return _read_in_blocks(stream)
    except (InputError, ValueError):
        pass  # not as `evidence_chunks` writes it: read at once, to say what is wrong
    stream.seek(0)
    try:
        model = _EvidenceModel.model_validate_json(stream.read())
        return Evidence(tuple(_receipts(model.receipts, model.format)), tuple(_certificates(model.certificates)))
    except ValidationError as error:
        raise TamperedError(f"evidence: {first_fault(error)}") from None
    except (InputError, ValueError) as error:
        raise TamperedError(f"evidence: {error}") from None


def _read_in_blocks(stream: BinaryIO) -> Evidence:
    begin = b'{"certificates":['
    if stream.read(len(begin)) != begin:
        raise ValueError
    rows = _Rows(stream)
    # Quotes inside a body are escaped, so that these marks are not in one; in a row they end it.
    certificates = tuple(
        each
        for batch in rows.up_to(map(_between, _FORMATS), b'}],["0x')
        for each in _certificates(_CERTIFICATES.validate_json(batch))
    )
    format_ = _FORMATS[rows.ended_with]
    receipts = tuple(
        each for batch in rows.up_to([b"]}"], b']],["0x') for each in _receipts(_RECEIPTS.validate_json(batch), format_)
    )
    if rows.rest() or stream.read(1):
        raise ValueError
    return Evidence(receipts, certificates)


class _Rows:
    """Arrays of rows in a stream, handed out as JSON arrays of about a block each."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._held, self.ended_with = stream, b"", 0

    def up_to(self, ends: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
        """The rows before one of `ends`, whose number is then in `ended_with`, cut where one row ends and the next begins. ValueError where
        the end never comes."""
        closing, ends = separator.index(b","), list(ends)
        while True:
            block = self._stream.read(_BLOCK)
            self._held += block
            for number_, end in enumerate(ends):
                at = self._held.find(end)
                if at >= 0:
                    yield b"[" + self._held[:at] + b"]"
                    self._held, self.ended_with = self._held[at + len(end) :], number_
                    return
            if not block:
                raise ValueError
            cut = self._held.rfind(separator)
            if cut >= 0:
                yield b"[" + self._held[: cut + closing] + b"]"
                self._held = self._held[cut + closing + 1 :]

    def rest(self) -> bytes:
        return self._held


_FORMATS = (FORMAT, STORAGE_FORMAT)
_RECEIPT_OF: dict[str, tuple[str, type[SignedReceipt | SignedStorageReceipt]]] = {
    FORMAT: ("ContributionReceipt", SignedReceipt),
    STORAGE_FORMAT: ("StorageReceipt", SignedStorageReceipt),
}


def _receipts(items: Iterable[_ReceiptItem], format_: str) -> Iterator[SignedReceipt | SignedStorageReceipt]:
    kind, receipt_type = _RECEIPT_OF[format_]
    known: dict[bytes, bytes] = {}  # accounts and hashes that come again and again are held once
    for words, pairs in items:
        values = records.decode_words(kind, from_hex(words))
        for name in ("run_id", "peer", "certificate"):
            value = data(values, name)
            values[name] = known.setdefault(value, value)
        signatures = tuple((known.setdefault(signer, signer), signature) for signer, signature in _unpairs(pairs))
        yield receipt_type(records.hash_struct(kind, values), values, signatures)


def _certificates(items: Iterable[_CertificateItem]) -> Iterator[SignedCertificate]:
    for words, body, attempts in items:
        values = records.decode_words("CertificateId", from_hex(words))
        signatures = {int(attempt): _unpairs(pairs) for attempt, pairs in attempts.items()}
        yield SignedCertificate(records.hash_struct("CertificateId", values), values, body.encode(), signatures)


def _pairs(signatures: Sequence[tuple[bytes, bytes]]) -> list[Any]:
    return [[to_hex(signer), to_hex(signature)] for signer, signature in signatures]


def _unpairs(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((from_hex(signer), from_hex(signature)) for signer, signature in pairs)


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
