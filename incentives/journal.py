"""The signing journal: one digest per subject, on disk before the signature leaves the process (protocol §1.2).

One append-only file. After an 8-byte magic come frames: uint32 length, uint32 crc32 of those four bytes, uint32 crc32
of the payload, payload (big-endian): one entry, or, where the highest bit of the length is set, a group of them, each behind its
uint32 length. A frame is fsynced before the next one is written, so a group costs one fsync and only the last frame can be torn. What a
crash can do to the end of the file (a frame cut short, or space that was
allocated and never written: whole disk sectors of zeros) is passed over when it is opened, and taken off before the next
frame is written: such a frame was never acknowledged. Anything else that does not fit is damage to acknowledged frames, and
forgetting one of those could mean signing twice, so the journal refuses to open. The crc of the length tells the two
apart: without it a damaged length looks like a torn end. A file that ends too early, at any place, cannot be told from a
torn one by itself: whoever opens it compares it with what else shows its signatures (`peers.remembering`).

sqlite was the other choice. It survives the same crashes, but it rolls back what it cannot replay without a word, and
this file can be checked with a page of code.
"""

import errno
import fcntl
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from incentives.atomic import sync_directory
from incentives.errors import Equivocation, InputError, StorageError, disk_remedy

log = logging.getLogger(__name__)
MAGIC = b"SHJRNL2\n"
_WITHOUT_GROUPS = b"SHJRNL1\n"  # of older files: read, and made MAGIC before the first group is written
RESTORE_OR_NEW_KEY = (
    "restore it from a copy, or take a new key: sparehive join INVITE --dir ANOTHER "
    "(what this one has earned can still be bound and claimed)"
)
_SECTOR_BYTES = 512  # what a disk writes whole or not at all
_HEADER = struct.Struct(">III")
_LENGTH = struct.Struct(">I")
_GROUP = 1 << 31
_MAX_PAYLOAD = 64 * 1024 * 1024

# A POSIX lock belongs to the process and does not stop it from opening a second journal on the same file.
_open_files: set[tuple[int, int]] = set()
_open_files_lock = threading.Lock()


class Subject(NamedTuple):
    """What only one digest may ever be signed for."""

    domain: bytes  # separator, 32 bytes
    kind: str
    run_id: bytes
    epoch: int
    attempt: int
    prev_certificate: bytes
    subject: bytes = b""


class JournalEntry(NamedTuple):
    subject: Subject
    digest: bytes
    keep: bytes


class SigningJournal:
    """Opened by one process at a time, used from any of its threads; a context manager. `record` returns when the digest is on disk;
    `append` returns at once, and its caller shows no signature before `flushed` says so.

    StorageError on opening: in use, unreadable or damaged; nothing of what is there is changed before the next frame is
    written. A POSIX lock is taken rather than flock because children
    made by fork (hivemind makes some) would inherit flock and hold it beyond the death of the peer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._disk = threading.Lock()  # held while the file is written; taken before the other one
        self._lock = threading.Lock()  # of what is in memory: nobody who appends waits for the disk
        self._index: dict[bytes, bytes] = {}
        self._waiting: list[bytes] = []  # appended, not yet written
        self.appended = self.flushed = 0  # how many entries of this process are signed for, and are on disk
        self._pid = os.getpid()
        self._failed = self._torn = self._is_old = self._has_promised = False
        self._file = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            self._end = self._replay()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                own = error.errno in (errno.EACCES, errno.EPERM)
                remedy = "make it yours, and writable: chown, chmod u+rw, chattr -a -i" if own else "check the disk"
                raise StorageError(f"journal {path}: {error.strerror or error}; {remedy}") from error
            raise

    def record(self, subject: Subject, digest: bytes, keep: bytes = b"") -> None:
        """Returns when `digest` is the digest for `subject` and is on disk. `keep` is stored the first time only.

        Equivocation where another digest is there; StorageError where the disk refuses (nothing may be signed then)."""
        packed, payload = _checked(subject, digest, keep)
        with self._disk:
            with self._lock:
                is_new = self._take(packed, subject, digest)
                waiting, self._waiting = self._waiting, []
                number = self.appended
            try:
                self._append([*waiting, payload] if is_new else waiting)
            except StorageError:
                with self._lock:
                    if is_new:
                        del self._index[packed]
                    self._failed |= self._has_promised
                raise
            self.flushed = number

    def append(self, subject: Subject, digest: bytes, keep: bytes = b"") -> int:
        """As `record`, but the entry waits in memory for `flush`. Returns what `flushed` has to reach before anybody may be shown the
        signature."""
        packed, payload = _checked(subject, digest, keep)
        with self._lock:
            self._has_promised = True
            if self._take(packed, subject, digest):
                self._waiting.append(payload)
            return self.appended

    def flush(self) -> None:
        """Returns when all that was appended before is on disk, with one fsync. StorageError where the disk refuses: what was appended
        may not be shown to anybody, and nothing is signed any more."""
        with self._disk:
            with self._lock:
                self._check_usable()
                waiting, self._waiting = self._waiting, []
                number = self.appended
            try:
                self._append(waiting)
            except StorageError:
                self._failed = True
                raise
            self.flushed = number

    def _take(self, packed: bytes, subject: Subject, digest: bytes) -> bool:
        """Whether the digest is new for the subject, and from now on the one. Under the lock."""
        self._check_usable()
        known = self._index.get(packed)
        if known is not None and known != digest:
            raise Equivocation(
                f"{subject.kind} of epoch {subject.epoch}, attempt {subject.attempt}: "
                f"already signed 0x{known.hex()}, will not sign 0x{digest.hex()}"
            )
        self._index[packed] = digest
        self.appended += known is None
        return known is None

    def digest_of(self, subject: Subject) -> bytes | None:
        """The digest recorded for `subject`, if any."""
        with self._lock:
            return self._index.get(_pack(subject))

    def entries(self, kind: str | None = None) -> Iterator[JournalEntry]:
        """What is recorded, oldest first; read from the file as it was when the iteration began."""
        with self._lock:
            self._check_usable()
            end = self._end
        position = len(MAGIC)
        while position < end:
            length, _, _ = _HEADER.unpack(os.pread(self._file, _HEADER.size, position))
            payload = os.pread(self._file, length & ~_GROUP, position + _HEADER.size)
            for entry in _entries(payload, bool(length & _GROUP)):
                if kind is None or entry.subject.kind == kind:
                    yield entry
            position += _HEADER.size + len(payload)

    def __len__(self) -> int:
        return len(self._index)

    def __enter__(self) -> "SigningJournal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What was appended and not flushed is forgotten: nobody was shown it."""
        with self._disk, self._lock:
            if self._file < 0:
                return
            with _open_files_lock:
                _open_files.discard(_identity(os.fstat(self._file)))
                os.close(self._file)
            self._file = -1

    def _check_usable(self) -> None:
        if self._file < 0:
            raise StorageError(f"journal {self.path} is closed")
        if os.getpid() != self._pid:
            raise StorageError(f"journal {self.path} belongs to process {self._pid}, not to its child")
        if self._failed:
            raise StorageError(f"journal {self.path} failed to reach the disk earlier: restart to read what is there")

    def _open(self) -> None:
        in_use = f"journal {self.path} is in use by another peer: stop it, or choose another directory"
        with _open_files_lock:
            # Looked up by path first: opening and closing the file here would release the lock that is held on it.
            if self.path.exists() and _identity(os.stat(self.path)) in _open_files:
                raise StorageError(in_use)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise StorageError(in_use) from None
                raise StorageError(
                    f"journal {self.path}: cannot be locked there ({error.strerror}): choose a directory on a disk of this machine"
                ) from None
            _open_files.add(_identity(os.fstat(self._file)))

    def _replay(self) -> int:
        """Fills the index; returns where the next frame goes."""
        size = os.fstat(self._file).st_size
        start = os.pread(self._file, len(MAGIC), 0)
        self._is_old = start == _WITHOUT_GROUPS
        if start != MAGIC and not self._is_old:
            # Only a file whose creation was cut short may be begun anew.
            is_cut = size < len(MAGIC) and any(magic.startswith(start) for magic in (MAGIC, _WITHOUT_GROUPS))
            if not (self._is_zero(0, size) or is_cut):
                raise StorageError(f"journal {self.path} is no signing journal: {RESTORE_OR_NEW_KEY}")
            os.ftruncate(self._file, 0)
            _write(self._file, MAGIC, 0)
            os.fsync(self._file)
            sync_directory(self.path.parent)
            return len(MAGIC)
        position = len(MAGIC)
        while position < size:
            found = self._frame(position, size)
            if found is None:
                log.warning(
                    "journal %s: half a record at its end, which was never acknowledged, is left out", self.path
                )
                self._torn = True
                break
            payload, is_group = found
            for entry in _entries(payload, is_group):
                packed = _pack(entry.subject)
                if self._index.setdefault(packed, entry.digest) != entry.digest:
                    raise self._damaged(position)
            position += _HEADER.size + len(payload)
        return position

    def _frame(self, position: int, size: int) -> tuple[bytes, bool] | None:
        """The payload at `position` and whether it is a group, or None for a torn end. StorageError for damage before the end."""
        header = os.pread(self._file, _HEADER.size, position)
        if len(header) < _HEADER.size:
            return None
        length, length_crc, payload_crc = _HEADER.unpack(header)
        if zlib.crc32(header[:4]) != length_crc:
            if self._is_zero(position + _HEADER.size, size):
                return None
            raise self._damaged(position)
        is_group, length = bool(length & _GROUP), length & ~_GROUP
        end = position + _HEADER.size + length
        if end > size:
            return None
        payload = os.pread(self._file, length, position + _HEADER.size)
        if zlib.crc32(payload) != payload_crc:
            if (end == size and self._was_half_written(position, end)) or (end < size and self._is_zero(end, size)):
                return None
            raise self._damaged(position)
        return payload, is_group

    def _was_half_written(self, start: int, end: int) -> bool:
        """Whether one of the sectors that the frame lies in was never written."""
        first = start // _SECTOR_BYTES * _SECTOR_BYTES
        borders = [start, *range(first + _SECTOR_BYTES, end, _SECTOR_BYTES), end]
        return any(self._is_zero(*piece) for piece in pairwise(borders))

    def _is_zero(self, start: int, end: int) -> bool:
        step = 1 << 20
        return not any(os.pread(self._file, min(step, end - at), at).strip(b"\0") for at in range(start, end, step))

    def _damaged(self, position: int) -> StorageError:
        return StorageError(f"journal {self.path} is damaged at byte {position}: {RESTORE_OR_NEW_KEY}")

    def _append(self, payloads: Sequence[bytes]) -> None:
        """One frame and one fsync for each 64 MiB: two frames that were not acknowledged could not be told from damage."""
        while payloads:
            size, count = 0, 0
            while count < len(payloads) and (not count or size + len(payloads[count]) + _LENGTH.size <= _MAX_PAYLOAD):
                size, count = size + len(payloads[count]) + _LENGTH.size, count + 1
            self._write_frame(payloads[:count])
            payloads = payloads[count:]

    def _write_frame(self, payloads: Sequence[bytes]) -> None:
        is_group = len(payloads) > 1
        payload = b"".join(_LENGTH.pack(len(p)) + p for p in payloads) if is_group else payloads[0]
        length = _LENGTH.pack(len(payload) | (_GROUP if is_group else 0))
        frame = length + struct.pack(">II", zlib.crc32(length), zlib.crc32(payload)) + payload
        try:
            if self._torn:
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)  # or the torn end might stand behind the new frame
                self._torn = False
            if self._is_old and is_group:
                _write(self._file, MAGIC, 0)
                os.fsync(self._file)  # or who knows no groups might take this one for a torn end
                self._is_old = False
            _write(self._file, frame, self._end)
        except OSError as error:
            # Nothing was acknowledged: take the half frame off, so that the next one does not follow it.
            try:
                os.ftruncate(self._file, self._end)
            except OSError:
                self._failed = True
            raise StorageError(self._refused(error)) from error
        try:
            os.fsync(self._file)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: only reading it again says what is on disk.
            self._failed = True
            raise StorageError(self._refused(error)) from error
        self._end += len(frame)

    def _refused(self, error: OSError) -> str:
        return f"journal {self.path}: {error.strerror or error}; nothing was signed: {disk_remedy(error)}"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _checked(subject: Subject, digest: bytes, keep: bytes) -> tuple[bytes, bytes]:
    """The subject's bytes and the entry's."""
    if len(digest) != 32:
        raise InputError("digest", digest, "must be 32 bytes")
    packed = _pack(subject)
    payload = packed + digest + keep
    if len(payload) > _MAX_PAYLOAD:
        raise InputError("keep", len(keep), f"must be less than {_MAX_PAYLOAD} bytes")
    return packed, payload


def _pack(subject: Subject) -> bytes:
    kind = subject.kind.encode()
    for name, value in (
        ("domain", subject.domain),
        ("run_id", subject.run_id),
        ("prev_certificate", subject.prev_certificate),
    ):
        if len(value) != 32:
            raise InputError(name, value, "must be 32 bytes")
    return b"".join(
        (
            subject.domain,
            struct.pack(">B", len(kind)),
            kind,
            subject.run_id,
            struct.pack(">QI", subject.epoch, subject.attempt),
            subject.prev_certificate,
            struct.pack(">H", len(subject.subject)),
            subject.subject,
        )
    )


def _unpack(payload: bytes) -> JournalEntry:
    kind_end = 33 + payload[32]
    kind = payload[33:kind_end].decode()
    epoch, attempt = struct.unpack_from(">QI", payload, kind_end + 32)
    subject_start = kind_end + 32 + 12 + 32 + 2
    (subject_length,) = struct.unpack_from(">H", payload, subject_start - 2)
    digest_start = subject_start + subject_length
    subject = Subject(
        payload[:32],
        kind,
        payload[kind_end : kind_end + 32],
        epoch,
        attempt,
        payload[subject_start - 34 : subject_start - 2],
        payload[subject_start:digest_start],
    )
    return JournalEntry(subject, payload[digest_start : digest_start + 32], payload[digest_start + 32 :])


def _entries(payload: bytes, is_group: bool) -> Iterator[JournalEntry]:
    """Of one frame."""
    if not is_group:
        yield _unpack(payload)
        return
    position = 0
    while position < len(payload):
        (length,) = _LENGTH.unpack_from(payload, position)
        position += _LENGTH.size + length
        yield _unpack(payload[position - length : position])


def _write(file: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, position)
        view, position = view[written:], position + written
