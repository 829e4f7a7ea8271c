"""The swarm's notary, made of the EIP-712 records and the signing journal of incentives."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import get_args

from coincurve import PrivateKey

import incentives.errors
import swarm.errors
from incentives import records
from incentives.journal import SigningJournal, Subject
from peers.gate import Gate
from swarm.records.types import (
    KIND_ROUND,
    ZERO_HASH,
    Account,
    Average,
    Contribution,
    ContributionReceipt,
    Hash,
    Progress,
    Record,
    RoundCertificate,
    RoundVoid,
    Signed,
    StorageReceipt,
)

_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in get_args(Record)}


class JournalNotary:
    """Implements `swarm.records.notary.Notary` for one hot key in one domain. Raises errors of `swarm.errors` only.

    `journal` stays open for as long as the notary is used; its owner closes it. Threads may share a notary. With a gate signing
    waits for no disk, and nothing signed may be shown to others but through the gate."""

    def __init__(
        self, key: PrivateKey, domain: records.Domain, journal: SigningJournal, gate: Gate | None = None
    ) -> None:
        self._key, self._domain, self.journal, self._gate = key, domain, journal, gate
        self._held: dict[bytes, int] = {}  # signature → how much of the journal has to be on disk before it is shown
        self._separator = domain.separator()
        self._account = records.account_of(key)

    def __repr__(self) -> str:
        return f"JournalNotary(0x{self._account.hex()})"

    @property
    def account(self) -> Account:
        return self._account

    def hash(self, record: Record) -> Hash:
        with _translated():
            return records.hash_struct(type(record).__name__, values_of(record))

    def certificate_id(self, certificate: RoundCertificate) -> Hash:
        with _translated():
            return records.certificate_id(values_of(certificate))

    def sign(self, record: Record, keep: bytes = b"") -> bytes:
        with _translated():
            digest = records.digest(self._domain, type(record).__name__, values_of(record))
            subject, number = self.subject(record), 0
            if subject is not None and self._gate is None:
                self.journal.record(subject, digest, _pack_kept(record, keep))
            elif subject is not None:
                number = self.journal.append(subject, digest, _pack_kept(record, keep))
            signature = records.sign(self._key, digest)
            if number > self.journal.flushed:
                self._held[signature] = number
                self._let_go()
            return signature

    async def written(self) -> None:
        if self._gate is not None:
            await self._gate.written()

    def may_show(self, signed: Signed) -> bool:
        """Whether the journal holds it on disk, if it is this account's. Others, who are to be shown it, get it from the gate."""
        self._let_go()
        return signed.signature not in self._held

    def _let_go(self) -> None:
        for signature, number in list(self._held.items()):
            if number > self.journal.flushed:
                break  # the newest are last
            self._held.pop(signature, None)

    def remembers(self, record: Record) -> bool:
        with _translated():
            subject = self.subject(record)
            if subject is None:
                return True
            digest = records.digest(self._domain, type(record).__name__, values_of(record))
            return self.journal.digest_of(subject) == digest

    def recover(self, record: Record, signature: bytes) -> Account:
        with _translated():
            return records.recover(records.digest(self._domain, type(record).__name__, values_of(record)), signature)

    def replay_records(self) -> Iterator[tuple[Record, bytes, bytes]]:
        """(record, digest, keep) of everything signed in this domain, oldest first: what a restart has to respect. Signing a record again
        gives the same signature."""
        with _translated():
            for entry in self.journal.entries():
                if entry.subject.domain == self._separator:
                    record, keep = _unpack_kept(entry.keep)
                    yield record, entry.digest, keep

    def subject(self, record: Record) -> Subject | None:
        """What only one digest may be signed for; None for what decides nothing."""
        kind, epoch, attempt, prev, rest = type(record).__name__, record.epoch, 0, ZERO_HASH, b""
        if isinstance(record, Progress):
            return None
        if isinstance(record, ContributionReceipt):
            rest = record.contribution + record.peer
        elif isinstance(record, StorageReceipt):
            rest = record.certificate + record.peer
        else:
            prev = record.prev_certificate
            if not isinstance(record, Contribution):
                attempt = record.attempt
        if isinstance(record, Average):
            rest = struct.pack(">I", record.part)
        elif isinstance(record, RoundVoid) or (isinstance(record, RoundCertificate) and record.kind == KIND_ROUND):
            # One subject for both, so that the journal itself lets through the certificate or the void, never both.
            kind = "RoundDecision"
        elif isinstance(record, RoundCertificate):
            kind = "Seating"
        return Subject(self._separator, kind, record.run_id, epoch, attempt, prev, rest)


def values_of(record: object) -> dict[str, object]:
    """A record's fields by name, as `incentives.records` and `incentives.ledger` take them."""
    return {field.name: getattr(record, field.name) for field in fields(record)}  # type: ignore[arg-type]


def _pack_kept(record: Record, keep: bytes) -> bytes:
    kind = type(record).__name__.encode()
    words = records.encode_words(kind.decode(), values_of(record))
    return struct.pack(">BH", len(kind), len(words)) + kind + words + keep


def _unpack_kept(kept: bytes) -> tuple[Record, bytes]:
    kind_length, words_length = struct.unpack_from(">BH", kept)
    words_start = 3 + kind_length
    kind = kept[3:words_start].decode()
    values = records.decode_words(kind, kept[words_start : words_start + words_length])
    return _KINDS[kind](**values), kept[words_start + words_length :]  # type: ignore[arg-type]


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of incentives as those that swarm knows; the message stays."""
    try:
        yield
    except incentives.errors.Equivocation as error:
        raise swarm.errors.Equivocation(str(error)) from error
    except incentives.errors.BadSignature as error:
        raise swarm.errors.BadSignature(str(error)) from error
    except incentives.errors.InputError as error:
        raise swarm.errors.PeerFault(str(error)) from error
    except incentives.errors.StorageError as error:
        raise swarm.errors.DiskError(str(error)) from error
