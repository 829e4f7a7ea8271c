"""Signatures that were found right before, so that a settlement by timer checks only those that are new.

What is kept is the bare fact that a signature is its signer's, never that a receipt is to be paid: every rule of
`incentives.checks` is applied anew each time. A fact is 16 bytes, keyed with a secret of its maker: who swaps the file, or adds
to it, makes signatures be checked again and no others be believed."""

import contextlib
import hashlib
from pathlib import Path
from types import TracebackType

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
        self._before = {data[at : at + _TAG] for at in range(0, len(data) - _TAG + 1, _TAG)}
        self._now: set[bytes] = set()
        self._is_new = False

    def judge(self, digest: bytes, signer: bytes, signature: bytes) -> str | None:
        tag = hashlib.blake2b(digest + signer + signature, digest_size=_TAG, key=self._key).digest()
        if tag in self._now:
            return None
        if tag in self._before:
            self._before.discard(tag)  # held once
        elif wrong := judge_signature(digest, signer, signature):
            return wrong
        else:
            self._is_new = True
        self._now.add(tag)
        return None

    def __enter__(self) -> "RememberedSignatures":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_new and self._path.parent.is_dir():
            with contextlib.suppress(OSError):
                write_atomically(self._path, b"".join(sorted(self._now)))


__all__ = ["NAME", "RememberedSignatures"]
