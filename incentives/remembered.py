"""Signatures that were found right before, so that a settlement by timer checks only those that are new.

What is kept is the bare fact that a signature is its signer's, never that a receipt is to be paid: every rule of
`incentives.checks` is applied anew each time. A fact is 16 bytes, keyed with a secret of its maker: who swaps the file, or adds
to it, makes signatures be checked again and no others be believed."""

import contextlib
import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import overload

from incentives.atomic import write_atomically
from incentives.checks import judge_signature

_TAG = 16  # bytes
NAME = "checked.bin"


class RememberedSignatures:
    """A context manager over the file at `path`; `judge` answers as `checks.judge_signature`. At the end the file holds what was
    asked this time: it grows with a period and not with the run. A file that cannot be read or written costs time alone."""

    def __init__(self, path: Path, secret: bytes) -> None:
        self._path = path
        self._key = hashlib.sha256(b"sparehive: signatures that were checked" + secret).digest()
        data = b""
        with contextlib.suppress(OSError):
            data = path.read_bytes()
        self._before = _Tags(data)
        self._asked = bytearray(len(self._before))  # which of them, a byte each
        self._new: set[bytes] = set()

    def judge(self, digest: bytes, signer: bytes, signature: bytes) -> str | None:
        tag = hashlib.blake2b(digest + signer + signature, digest_size=_TAG, key=self._key).digest()
        at = bisect_left(self._before, tag)
        if at < len(self._before) and self._before[at] == tag:
            self._asked[at] = 1
        elif tag not in self._new:
            if wrong := judge_signature(digest, signer, signature):
                return wrong
            self._new.add(tag)
        return None

    def __enter__(self) -> "RememberedSignatures":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._new and self._path.parent.is_dir():
            kept = (tag for tag, asked in zip(self._before, self._asked, strict=True) if asked)
            with contextlib.suppress(OSError):
                write_atomically(self._path, b"".join(sorted((*kept, *self._new))))


class _Tags(Sequence[bytes]):
    """Those of a file, in its order, which is ascending; in one that somebody has changed some are not found, and so checked again."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data) // _TAG

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._data[index * _TAG : (index + 1) * _TAG]


__all__ = ["NAME", "RememberedSignatures"]
