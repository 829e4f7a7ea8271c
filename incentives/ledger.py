"""The append-only store of certificates and receipts (sqlite), from which any one peer can settle alone.

Nothing is ever changed or removed: triggers refuse it, and every row is checked against its own hash when it is read,
so what was edited from outside is an error and not a payment. Signatures are verified before they are stored. One
process writes; others may read at the same time (write-ahead log), as `settle` and `rewards` do beside a running peer.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

from incentives import records
from incentives.commitments import body_hash, parse_body
from incentives.errors import BadSignature, InputError, StorageError, TamperedError
from incentives.evidence import Signatures, SignedCertificate, SignedReceipt, SignedStorageReceipt, data, number

VERSION = 1
_AGAIN = "move it and its -wal and -shm away; the peer gets it again from the others"

# words = EIP-712's encodeData: every field, 32 bytes each. The other columns repeat parts of it, to be found by.
_SCHEMA = """
CREATE TABLE meta (version INTEGER NOT NULL, run_id BLOB NOT NULL, chain_id TEXT NOT NULL, settlement BLOB NOT NULL);
CREATE TABLE certificates (id BLOB PRIMARY KEY, prev BLOB NOT NULL, epoch INTEGER NOT NULL, words BLOB NOT NULL,
    body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE certificate_signatures (id BLOB NOT NULL, attempt INTEGER NOT NULL, signer BLOB NOT NULL,
    signature BLOB NOT NULL, PRIMARY KEY (id, attempt, signer)) WITHOUT ROWID;
CREATE TABLE contributors (certificate BLOB NOT NULL, peer BLOB NOT NULL, contribution BLOB NOT NULL,
    units INTEGER NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY (certificate, peer)) WITHOUT ROWID;
CREATE TABLE receipts (hash BLOB PRIMARY KEY, certificate BLOB NOT NULL, epoch INTEGER NOT NULL, peer BLOB NOT NULL,
    words BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE receipt_signatures (hash BLOB NOT NULL, signer BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (hash, signer)) WITHOUT ROWID;
CREATE TABLE tips (sequence INTEGER PRIMARY KEY, id BLOB NOT NULL);
CREATE INDEX certificates_by_prev ON certificates (prev);
CREATE INDEX contributors_by_contribution ON contributors (contribution);
CREATE INDEX receipts_by_certificate ON receipts (certificate);
"""
# Came later: a ledger of before gets them when it is opened for writing, and has no such receipts until then.
_STORAGE_SCHEMA = """
CREATE TABLE storage_receipts (hash BLOB PRIMARY KEY, certificate BLOB NOT NULL, epoch INTEGER NOT NULL,
    peer BLOB NOT NULL, words BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE storage_signatures (hash BLOB NOT NULL, signer BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (hash, signer)) WITHOUT ROWID;
CREATE INDEX storage_by_certificate ON storage_receipts (certificate);
"""
_HELD_STORAGE = (
    " UNION ALL SELECT c.epoch, c.id, r.hash, s.signer FROM certificates c JOIN storage_receipts r ON r.certificate = c.id "
    "JOIN storage_signatures s ON s.hash = r.hash WHERE c.epoch >= ?1"
)
_STORAGE_TABLES = ("storage_receipts", "storage_signatures")
_TABLES = (
    "meta",
    "certificates",
    "certificate_signatures",
    "contributors",
    "receipts",
    "receipt_signatures",
    "tips",
)


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    certificates: int
    receipts: int
    signatures: int
    storage_receipts: int = 0


class Ledger:
    """The ledger of one run in one domain; a context manager, used from any thread of its process.

    `Ledger(path, run_id=…, domain=…)` opens it for writing and makes it where it is missing; `Ledger.read(path)` opens
    what is there read-only. StorageError: in use by another writer for too long, full, or no ledger."""

    def __init__(self, path: Path, *, run_id: bytes, domain: records.Domain) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"ledger {path}: {error.strerror}") from error
        with self._storage():
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            with self._storage():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._create(run_id, domain)
                found = self._db.execute("PRAGMA quick_check(1)").fetchone()[
                    0
                ]  # or it would end the peer at some later row
                if found != "ok":
                    raise sqlite3.DatabaseError(str(found).replace("\n", " "))
            self._read_meta()
            if (self.run_id, self.domain) != (run_id, domain):
                raise InputError("ledger", str(path), "belongs to another run or chain; choose another directory")
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """Read-only, beside the process that writes. InputError where there is no ledger."""
        if not path.is_file():
            raise InputError(
                "ledger",
                str(path),
                "does not exist; has this peer run? Choose its own --dir; once it runs it gets it from the others",
            )
        ledger = cls.__new__(cls)
        ledger.path, ledger._lock = path, threading.RLock()
        with ledger._storage():
            uri = f"{path.absolute().as_uri()}?mode=ro"
            ledger._db = sqlite3.connect(uri, uri=True, timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            ledger._read_meta()
        except BaseException:
            ledger._db.close()
            raise
        return ledger

    def seconds_since_written(self) -> float:
        """By the machine's clock, of the files on disk; StorageError where they cannot be looked at."""
        try:
            log = self.path.with_name(self.path.name + "-wal")
            newest = max(path.stat().st_mtime for path in (self.path, log) if path.exists())
        except (OSError, ValueError) as error:
            raise StorageError(f"ledger {self.path}: {error}") from None
        return max(0.0, time.time() - newest)

    # -- writing ------------------------------------------------------------------------------------------------------
    @contextmanager
    def together(self) -> Iterator[None]:
        """What is added inside is on disk when this ends, with one commit; or nothing of it, after an error."""
        with self._transaction():
            yield

    def add_certificate(
        self, certificate: records.Values, body: bytes, signatures: Iterable[tuple[bytes, bytes]]
    ) -> bytes:
        """Stores a RoundCertificate (all fields, with the attempt), its body's canonical JSON and (account, signature)s
        of that attempt. Adding it again adds what is new. Returns its id.

        BadSignature or TamperedError where one of them does not fit; then nothing is stored."""
        self._check_run(certificate)
        values = {name: value for name, value in certificate.items() if name != "attempt"}
        identity = records.hash_struct("CertificateId", values)
        if body_hash(body) != certificate["body"]:
            raise TamperedError(f"certificate 0x{identity.hex()}: the body does not have the certified hash")
        digest = records.digest(self.domain, "RoundCertificate", certificate)
        attempt = number(certificate, "attempt")
        rows = [(identity, attempt, *pair) for pair in self._verified(signatures, digest)]
        leaves = [
            (identity, leaf.peer, leaf.contribution, leaf.units, leaf.flags) for leaf in parse_body(body).contributors
        ]
        words = records.encode_words("CertificateId", values)
        prev, epoch = data(values, "prev_certificate"), number(values, "epoch")
        with self._transaction():
            self._insert("certificates", (identity, prev, epoch, words, body))
            for leaf in leaves:
                self._insert("contributors", leaf)
            for row in rows:
                self._insert("certificate_signatures", row)
        return identity

    def add_receipt(self, receipt: records.Values, signatures: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Stores a ContributionReceipt with (account, signature)s; again: adds what is new. Returns its hash."""
        self._check_run(receipt)
        hash_ = records.hash_struct("ContributionReceipt", receipt)
        rows = [(hash_, *pair) for pair in self._verified(signatures, records.signing_digest(self.domain, hash_))]
        words = records.encode_words("ContributionReceipt", receipt)
        certificate, epoch, peer = data(receipt, "certificate"), number(receipt, "epoch"), data(receipt, "peer")
        with self._transaction():
            self._insert("receipts", (hash_, certificate, epoch, peer, words))
            for row in rows:
                self._insert("receipt_signatures", row)
        return hash_

    def add_storage_receipt(self, receipt: records.Values, signatures: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Stores a StorageReceipt with (account, signature)s; again: adds what is new. Returns its hash."""
        self._check_run(receipt)
        hash_ = records.hash_struct("StorageReceipt", receipt)
        rows = [(hash_, *pair) for pair in self._verified(signatures, records.signing_digest(self.domain, hash_))]
        words = records.encode_words("StorageReceipt", receipt)
        certificate, epoch, peer = data(receipt, "certificate"), number(receipt, "epoch"), data(receipt, "peer")
        with self._transaction():
            self._insert("storage_receipts", (hash_, certificate, epoch, peer, words))
            for row in rows:
                self._insert("storage_signatures", row)
        return hash_

    def set_tip(self, certificate_id: bytes) -> None:
        """Notes which certificate the peer follows now; the last one noted counts, the others stay on record."""
        with self._transaction():
            if self.tip() != certificate_id:
                self._db.execute("INSERT INTO tips (id) VALUES (?)", (certificate_id,))

    # -- reading ------------------------------------------------------------------------------------------------------
    def tip(self) -> bytes | None:
        """The certificate that the peer followed last; None before the first."""
        rows = self._query("SELECT id FROM tips ORDER BY sequence DESC LIMIT 1")
        return bytes(rows[0][0]) if rows else None

    def certificate(self, certificate_id: bytes) -> SignedCertificate | None:
        """With its signatures by attempt. TamperedError where a row does not have its own hash."""
        # Cast: bytes() of a number that somebody put there would be as many zeros.
        rows = self._query(
            "SELECT CAST(words AS BLOB), CAST(body AS BLOB) FROM certificates WHERE id = ?", certificate_id
        )
        if not rows:
            return None
        words, body = bytes(rows[0][0]), bytes(rows[0][1])
        values = self._decode("CertificateId", words, certificate_id)
        if body_hash(body) != values["body"]:
            raise self._tampered(certificate_id)
        signatures: dict[int, list[tuple[bytes, bytes]]] = {}
        for attempt, signer, signature in self._query(
            "SELECT attempt, signer, signature FROM certificate_signatures WHERE id = ? ORDER BY attempt, signer",
            certificate_id,
        ):
            signatures.setdefault(attempt, []).append((bytes(signer), bytes(signature)))
        return SignedCertificate(certificate_id, values, body, {a: tuple(s) for a, s in signatures.items()})

    def receipt(self, receipt_hash: bytes) -> SignedReceipt | None:
        """With its signatures. TamperedError where the row does not have its own hash."""
        rows = self._query("SELECT CAST(words AS BLOB) FROM receipts WHERE hash = ?", receipt_hash)
        if not rows:
            return None
        values = self._decode("ContributionReceipt", bytes(rows[0][0]), receipt_hash)
        signed: Signatures = tuple(
            (bytes(signer), bytes(signature))
            for signer, signature in self._query(
                "SELECT signer, signature FROM receipt_signatures WHERE hash = ? ORDER BY signer", receipt_hash
            )
        )
        return SignedReceipt(receipt_hash, values, signed)

    def receipts(self, certificate_id: bytes, peer: bytes | None = None) -> Iterator[SignedReceipt]:
        """Every receipt that names the certificate (of one `peer`, or of all), with its signatures, ascending by peer."""
        rows = self._query(
            "SELECT r.hash, CAST(r.words AS BLOB), s.signer, s.signature FROM receipts r "
            "LEFT JOIN receipt_signatures s ON s.hash = r.hash WHERE r.certificate = ?1 AND (?2 IS NULL OR r.peer = ?2) "
            "ORDER BY r.peer, r.hash, s.signer",
            certificate_id,
            peer,
        )
        for hash_, of_one in groupby(rows, key=itemgetter(0)):
            signed = list(of_one)
            values = self._decode("ContributionReceipt", bytes(signed[0][1]), bytes(hash_))
            values["run_id"] = self.run_id  # held once, whatever number of receipts is kept
            pairs = tuple((bytes(signer), bytes(signature)) for _, _, signer, signature in signed if signer is not None)
            yield SignedReceipt(bytes(hash_), values, pairs)

    def storage_receipts(self, certificate_id: bytes, peer: bytes | None = None) -> Iterator[SignedStorageReceipt]:
        """Every StorageReceipt that names the certificate, as `receipts`."""
        rows = self._query(
            "SELECT r.hash, CAST(r.words AS BLOB), s.signer, s.signature FROM storage_receipts r "
            "LEFT JOIN storage_signatures s ON s.hash = r.hash WHERE r.certificate = ?1 AND (?2 IS NULL OR r.peer = ?2) "
            "ORDER BY r.peer, r.hash, s.signer",
            certificate_id,
            peer,
        ) if self._stores else []  # fmt: skip
        for hash_, of_one in groupby(rows, key=itemgetter(0)):
            signed = list(of_one)
            values = self._decode("StorageReceipt", bytes(signed[0][1]), bytes(hash_))
            values["run_id"] = self.run_id
            pairs = tuple((bytes(signer), bytes(signature)) for _, _, signer, signature in signed if signer is not None)
            yield SignedStorageReceipt(bytes(hash_), values, pairs)

    def lineage(self, tip: bytes, from_epoch: int = -1, to_epoch: int | None = None) -> list[SignedCertificate]:
        """The certificates with from_epoch < epoch ≤ to_epoch on the way back from `tip`, oldest first.

        StorageError names a certificate on the way that is not here yet."""
        path: list[SignedCertificate] = []
        for certificate in self.back_from(tip):
            if certificate.epoch <= from_epoch:
                break
            if to_epoch is None or certificate.epoch <= to_epoch:
                path.append(certificate)
        return path[::-1]

    def back_from(self, tip: bytes) -> Iterator[SignedCertificate]:
        """`tip` and what it stands on, the newest first, one at a time; StorageError as `lineage`."""
        at, last = tip, None
        while at != records.ZERO_HASH:
            certificate = self.certificate(at)
            if certificate is None:
                raise StorageError(
                    f"ledger {self.path}: certificate 0x{at.hex()} is missing: let the peer catch up first"
                )
            if last is not None and certificate.epoch >= last:
                raise self._tampered(at)
            last = certificate.epoch
            yield certificate
            at = certificate.prev

    def contribution(self, contribution: bytes) -> list[tuple[bytes, bytes, int, int]]:
        """(certificate id, peer, units, flags) of every leaf with that contribution: more than one after a fork."""
        rows = self._query(
            "SELECT certificate, peer, units, flags FROM contributors WHERE contribution = ? ORDER BY certificate",
            contribution,
        )
        return [(bytes(certificate), bytes(peer), units, flags) for certificate, peer, units, flags in rows]

    def held(self, from_epoch: int = 0) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        """What two ledgers compare: (epoch, id, id, nothing) of every certificate that somebody signed, however many did and who was
        heard first, and (epoch, id, hash, signer) of every signature under a receipt, of either kind, whose certificate `id` is here."""
        for epoch, identity, hash_, signer in self._query(
            "SELECT c.epoch, c.id, c.id, x'' FROM certificates c "
            "WHERE c.epoch >= ?1 AND EXISTS (SELECT 1 FROM certificate_signatures s WHERE s.id = c.id) "
            "UNION ALL SELECT c.epoch, c.id, r.hash, s.signer FROM certificates c "
            "JOIN receipts r ON r.certificate = c.id JOIN receipt_signatures s ON s.hash = r.hash WHERE c.epoch >= ?1"
            + (_HELD_STORAGE if self._stores else ""),
            from_epoch,
        ):
            yield epoch, bytes(identity), bytes(hash_), bytes(signer)

    def way_back(self, tip: bytes) -> Iterator[tuple[int, bytes]]:
        """(epoch, id) of the certificates from `tip` to the run's first, or to where one is missing; read as far as they are taken."""
        at, last = tip, 2**63 - 1
        while rows := self._query(
            "WITH RECURSIVE back(id, prev, epoch) AS (SELECT id, prev, epoch FROM certificates WHERE id = ?1 UNION ALL "
            "SELECT c.id, c.prev, c.epoch FROM certificates c JOIN back ON c.id = back.prev AND c.epoch < back.epoch "
            "LIMIT 256) SELECT epoch, id, prev FROM back",
            at,
        ):
            for epoch, identity, prev in rows:
                if epoch >= last:
                    raise self._tampered(bytes(identity))
                at, last = bytes(prev), epoch
                yield epoch, bytes(identity)

    def signed_by(self, signer: bytes) -> Iterator[tuple[str, records.Values]]:
        """(type, all fields) of every record here that `signer` has signed: certificates, with the attempt, and receipts."""
        for identity, attempt in self._query(
            "SELECT id, attempt FROM certificate_signatures WHERE signer = ? ORDER BY id, attempt", signer
        ):
            certificate = self.certificate(bytes(identity))
            if certificate is not None:
                yield "RoundCertificate", {**certificate.values, "attempt": attempt}
        for (hash_,) in self._query("SELECT hash FROM receipt_signatures WHERE signer = ? ORDER BY hash", signer):
            receipt = self.receipt(bytes(hash_))
            if receipt is not None:
                yield "ContributionReceipt", receipt.values
        if not self._stores:
            return
        for hash_, words in self._query(
            "SELECT r.hash, CAST(r.words AS BLOB) FROM storage_receipts r JOIN storage_signatures s ON s.hash = r.hash "
            "WHERE s.signer = ? ORDER BY r.hash",
            signer,
        ):
            yield "StorageReceipt", self._decode("StorageReceipt", bytes(words), bytes(hash_))

    def certificates(self, from_epoch: int = 0, before_epoch: int = 2**63 - 1) -> Iterator[SignedCertificate]:
        """All of them, on every branch, oldest epoch first: what is handed to a peer that catches up."""
        for (identity,) in self._query(
            "SELECT id FROM certificates WHERE epoch >= ? AND epoch < ? ORDER BY epoch, id", from_epoch, before_epoch
        ):
            certificate = self.certificate(bytes(identity))
            assert certificate is not None
            yield certificate

    def statistics(self) -> LedgerStatistics:
        tables = (*_TABLES, *(_STORAGE_TABLES if self._stores else ()))
        count = {table: self._query(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
        signatures = sum(number for table, number in count.items() if table.endswith("_signatures"))
        return LedgerStatistics(count["certificates"], count["receipts"], signatures, count.get("storage_receipts", 0))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------------
    def _create(self, run_id: bytes, domain: records.Domain) -> None:
        with self._transaction():
            if self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                if not self._has_storage():
                    self._make(_STORAGE_SCHEMA, _STORAGE_TABLES)
                return
            self._make(_SCHEMA, _TABLES)
            self._make(_STORAGE_SCHEMA, _STORAGE_TABLES)
            self._db.execute(
                "INSERT INTO meta VALUES (?, ?, ?, ?)",
                (VERSION, run_id, str(domain.chain_id), domain.verifying_contract),
            )

    def _make(self, schema: str, tables: tuple[str, ...]) -> None:
        for statement in schema.strip().split(";\n"):
            self._db.execute(statement)
        for table in tables:
            for verb in ("UPDATE", "DELETE"):
                self._db.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
                )

    def _has_storage(self) -> bool:
        with self._lock, self._storage():
            found = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", _STORAGE_TABLES[:1]).fetchone()
        return found is not None

    def _read_meta(self) -> None:
        rows = self._query("SELECT version, run_id, chain_id, settlement FROM meta")
        if len(rows) != 1 or rows[0][0] != VERSION:
            raise StorageError(f"ledger {self.path} has another format: take the version that made it, or {_AGAIN}")
        self._stores = self._has_storage()
        _, run_id, chain_id, settlement = rows[0]
        try:
            self.run_id, self.domain = bytes(run_id), records.Domain(int(chain_id), bytes(settlement))
        except (ValueError, TypeError):
            raise TamperedError(f"ledger {self.path} is damaged, or was changed: {_AGAIN}") from None

    def _check_run(self, values: records.Values) -> None:
        if values.get("run_id") != self.run_id:
            raise InputError(
                "run_id", values.get("run_id"), f"is another run than this ledger's, 0x{self.run_id.hex()}"
            )

    def _verified(self, signatures: Iterable[tuple[bytes, bytes]], digest: bytes) -> list[tuple[bytes, bytes]]:
        pairs = list(signatures)
        for signer, signature in pairs:
            if records.recover(digest, signature) != signer:
                raise BadSignature(f"the signature is not by 0x{signer.hex()}, for whom it was given")
        return pairs

    def _insert(self, table: str, row: tuple[object, ...]) -> None:
        # The primary key is a hash, or a hash and a verified signer: what is there already says the same.
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING", row)

    def _decode(self, kind: str, words: bytes, hash_: bytes) -> dict[str, object]:
        try:
            values = records.decode_words(kind, words)
        except InputError:
            raise self._tampered(hash_) from None
        if records.hash_struct(kind, values) != hash_ or values["run_id"] != self.run_id:
            raise self._tampered(hash_)
        return values

    def _tampered(self, hash_: bytes) -> TamperedError:
        return TamperedError(f"ledger {self.path}: row 0x{hash_.hex()} is damaged, or was changed: {_AGAIN}")

    def _query(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self._lock, self._storage():
            self._db.text_factory = bytes  # what was edited into text must reach the hash checks too
            return self._db.execute(query, arguments).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, one at a time; inside another one a part of it."""
        with self._lock, self._storage():
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """Errors of sqlite as one line of ours."""
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                remedy = "free some space" if "full" in str(error) else "check the file and who else uses it"
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                    remedy = "check the disk, and the limit on file sizes (ulimit -f)"
                raise StorageError(f"ledger {self.path}: {error}: {remedy}") from error
            raise StorageError(f"ledger {self.path} is damaged ({error}): {_AGAIN}") from error
        except OverflowError:
            raise InputError("epoch", "2**63 or more", "is no epoch; drop the record") from None
