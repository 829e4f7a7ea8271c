"""Transactions that were signed and perhaps sent, on disk before they leave, until their command has done all it had to.

A process that is killed between sending a transaction and reading its receipt cannot know whether it counts. What it
had signed stands in a file beside the key file (KEYFILE.sending): the next command of the same key first finds out
what became of it, and a deployment or a payment that is asked for again is that transaction, not a second one. The file
holds signed transactions and no secret; it is gone when a command ends well, but for deployments and payments of earlier
commands that no command has told of. Its lock keeps two commands with one key
apart, and is free again when its holder dies.
"""

import fcntl
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from eth_hash.auto import keccak
from pydantic_core import from_json

from incentives.errors import StorageError

LOCK_SECONDS = 60.0
HARMLESS = ("approve", "propose", "replace", "cancel", "finalise", "claim", "claimMany", "bind", "bindFor", "setPayTo")


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed transaction. `call` says what it does, whatever its number and price are (see `call_id`)."""

    chain_id: int
    call: str
    what: str
    nonce: int
    hash: str
    raw: str
    to: str = ""


def call_id(to: str, data: str, value: int) -> str:
    """The same for two transactions that do the same."""
    return "0x" + bytes(keccak(f"{to.lower()} {data.lower()} {value}".encode())).hex()


def _line(signed: Signed) -> bytes:
    return (json.dumps({name: getattr(signed, name) for name in Signed.__slots__}) + "\n").encode()


class Outbox:
    """A context manager: holds the file of one key. Leave it without an error and the file is emptied.

    StorageError: another command holds it for longer than `lock_seconds`, or it cannot be written."""

    def __init__(self, keystore: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = keystore.with_name(keystore.name + ".sending")
        self._file = self._lock(lock_seconds)
        self._earlier = self._read()

    def earlier(self, chain_id: int) -> Sequence[Signed]:
        """What commands before this one left, on that chain, oldest first."""
        return tuple(signed for signed in self._earlier if signed.chain_id == chain_id)

    def add(self, signed: Signed) -> None:
        """On disk when this returns: only then may the transaction leave."""
        start = self._file.seek(0, os.SEEK_END)
        try:
            data = _line(signed)
            while data:  # a disk that fills up takes a part first, and refuses the rest
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(start)
            raise StorageError(f"{self.path}: {error.strerror}: nothing was sent; free some space") from None

    def forget(self, signed: Signed) -> None:
        """It can never count: it need not be looked for any more."""
        self._earlier = [kept for kept in self._earlier if kept != signed]

    def close(self, *, done: bool) -> None:
        """`done`: the command has done all it had to, so nothing of its own is needed again."""
        if self._file.closed:
            return
        untold = [signed for signed in self._earlier if signed.what not in HARMLESS]
        if done and not untold:
            self.path.unlink(missing_ok=True)
        elif done:
            data = b"".join(map(_line, untold))  # no longer than what it takes the place of: needs no space
            self._file.seek(0)
            self._file.write(data)
            self._file.truncate()
        self._file.close()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(done=kind is None)

    def _lock(self, lock_seconds: float) -> Any:
        deadline = time.monotonic() + lock_seconds
        while True:
            try:
                file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
            except OSError as error:
                raise StorageError(
                    f"{self.path}: {error.strerror}: what is sent is noted beside the key file; put that into a "
                    "directory that you may write to"
                ) from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have ended well meanwhile and have removed the file that was opened here.
                if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    return file
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.close()
                    raise StorageError(
                        f"{self.path}: another command is sending with this key: try again when it has ended"
                    ) from None
                time.sleep(0.1)
            except FileNotFoundError:
                pass
            except OSError as error:
                file.close()
                raise StorageError(
                    f"{self.path}: cannot be locked there ({error.strerror}): put the key file on a disk of this machine"
                ) from None
            file.close()

    def _read(self) -> list[Signed]:
        """A last line that is cut off was never sent: `add` had not returned. StorageError where another one is damaged: what it
        noted may have been sent."""
        self._file.seek(0)
        *lines, torn = self._file.read().split(b"\n")
        found = [self._parsed(number, line) for number, line in enumerate(lines, 1)]
        if b"}" in torn:  # whole, but for what ends a line: perhaps sent
            found.append(self._parsed(len(lines) + 1, torn))
        if torn:  # the next line must not be written onto its end
            data = b"".join(map(_line, found))
            self._file.seek(0)
            self._file.write(data)
            self._file.truncate(len(data))
        return found

    def _parsed(self, number: int, line: bytes) -> Signed:
        try:
            signed = Signed(**from_json(line))
            if "0x" + bytes(keccak(bytes.fromhex(signed.raw.removeprefix("0x")))).hex() == signed.hash:
                return signed
        except (ValueError, TypeError, AttributeError):
            pass
        raise StorageError(
            f"{self.path} is damaged in line {number}: it notes a transaction that was perhaps sent. See on the chain what this key has "
            "sent last (`sparehive run status`), then move the file away"
        )
