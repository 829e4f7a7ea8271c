"""Files that are there whole or not at all, whatever happens meanwhile. What is written here a chain or a signature refers to, so
the rule is stricter than `swarm.atomic`'s: its bytes and its name are on disk when the call returns."""

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.EXDEV}
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES, errno.EPERM}


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """`path` holds `data` (bytes, or pieces of them), which takes the place of what was there. Two writers of one path have to keep
    each other out: both write `path`.part. OSError, or what the pieces raise: nothing half-written is left."""
    part = path.with_name(path.name + ".part")
    try:
        _write(part, data, 0o666)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_name(path)


def write_new(path: Path, data: bytes, *, draft: Path, mode: int = 0o666) -> None:
    """As `write_atomically`, and never replaces another file: FileExistsError. `draft`: a name beside it that nobody else writes."""
    try:
        _write(draft, data, mode)
        _place(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_name(path)


def _sync_name(path: Path) -> None:
    """Some file systems (SMB, cloud drives) keep their names in their own time: that is no reason to have no key and no tables."""
    try:
        sync_directory(path.parent)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_directory(path: Path) -> None:
    """The names in it are on disk when this returns."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(path: Path, data: bytes | Iterable[bytes], mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as stream:
        for piece in [data] if isinstance(data, bytes) else data:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())


def _place(draft: Path, path: Path) -> None:
    """Where the file system has no hard links (exFAT, SMB, cloud drives) the name is taken by an empty file first: a crash in
    between leaves that."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.replace(draft, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


__all__ = ["sync_directory", "write_atomically", "write_new"]
