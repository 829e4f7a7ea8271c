"""Cheap stand-ins for cryptography alone: keccak becomes sha-256, a signature a hash, EIP-712 words a pickle.

The notary and the journal file are the product's own (`peers.notary.JournalNotary`, `incentives.journal.SigningJournal`).
"""

import contextlib
import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peers.notary
import swarm.records.commitments
from incentives.journal import SigningJournal
from peers.notary import JournalNotary
from swarm.records.types import Account, Hash, Record, RoundCertificate

MEMORY = Path("/dev/shm")  # fsync costs nothing there; elsewhere the same runs, slower


def digest(*things: object) -> bytes:
    return hashlib.sha256(repr(things).encode()).digest()


def account(number: int) -> Account:
    return digest("account", number)[:20]


class _Domain:
    def separator(self) -> bytes:
        return bytes(32)


def _words(kind: str, values: dict[str, object]) -> bytes:
    return pickle.dumps((kind, tuple(values.items())))


_RECORDS = SimpleNamespace(
    account_of=lambda key: account(key),
    digest=lambda domain, kind, values: digest(kind, values),
    sign=lambda key, value: value + account(key) + bytes(13),
    encode_words=_words,
    decode_words=lambda kind, words: dict(pickle.loads(words)[1]),
)


@contextlib.contextmanager
def cheap_cryptography() -> Iterator[None]:
    """For as long as it lasts, records and commitments of this process are hashed and signed cheaply."""
    commitments: Any = swarm.records.commitments
    notary: Any = peers.notary
    before = commitments.keccak256, commitments.canonical_json, notary.records
    commitments.keccak256 = lambda data: hashlib.sha256(data).digest()
    commitments.canonical_json = lambda value: repr(value).encode()
    notary.records = _RECORDS
    try:
        yield
    finally:
        commitments.keccak256, commitments.canonical_json, notary.records = before


_hashes: dict[Record, Hash] = {}
_ids: dict[RoundCertificate, Hash] = {}


class CheapNotary(JournalNotary):
    """`step` is called before and after a signature is journaled (it may raise, as a power cut does), `note` with what was signed."""

    def __init__(self, number: int, journal: SigningJournal, step: Callable[[], None], note: Callable[[Record], None]):
        super().__init__(number, _Domain(), journal)  # type: ignore[arg-type]
        self._step, self._note = step, note

    def hash(self, record: Record) -> Hash:
        found = _hashes.get(record)
        if found is None:
            if len(_hashes) > 50_000:
                _hashes.clear()
            found = _hashes[record] = digest(record)
        return found

    def certificate_id(self, certificate: RoundCertificate) -> Hash:
        found = _ids.get(certificate)
        if found is None:
            if len(_ids) > 50_000:
                _ids.clear()
            found = _ids[certificate] = digest(certificate.without_attempt())
        return found

    def sign(self, record: Record, keep: bytes = b"") -> bytes:
        self._step()
        signature = super().sign(record, keep)
        self._note(record)
        self._step()
        return signature

    def recover(self, record: Record, signature: bytes) -> Account:
        raise AssertionError("the machine gets messages whose signatures were checked")


@contextlib.contextmanager
def journal_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as directory:
        yield Path(directory)
