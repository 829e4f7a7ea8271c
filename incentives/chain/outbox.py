"""Transactions that were signed and perhaps sent, on disk before they leave, until their command has done all it had to.

A process that is killed between sending a transaction and reading its receipt cannot know whether it counts. What it
had signed stands in a file beside the key file (KEYFILE.sending): the next command of the same key first finds out
what became of it, and a deployment or a payment that is asked for again is that transaction, not a second one. The file
holds signed transactions and no secret; it is gone when a command ends well, but for payments of earlier commands that no
command has told of, and for what commands have told of deposits: a deposit that the contract counts and that stands nowhere
here (the file was lost, or emptied) is one that nobody has told of. Its lock keeps two commands with one key
apart, and is free again when its holder dies.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import rlp
from pydantic_core import from_json
from rlp.exceptions import RLPException

from incentives.errors import StorageError, disk_remedy
from incentives.hashing import keccak

LOCK_SECONDS = 60.0
CREATE = "create"  # by the factory: a second time it fails
NOTHING = "nothing"  # takes the number of another one
HARMLESS = (
    *("approve", "propose", "replace", "cancel", "finalise", "claim", "claimMany", "bind", "bindFor", "setPayTo"),
    *(
        "publish",
        "tally",
        "setOffer",
        "setKey",
        "bond",
        "retire",
        "takeBond",
        "deliver",
        "dispute",
        "refund",
        "confirm",
        "collect",
    ),
    *("payContributor", "withdraw"),
    CREATE,
    NOTHING,
)


@dataclass(frozen=True, slots=True)
class SignedTransaction:
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


def _line(signed: SignedTransaction) -> bytes:
    return (json.dumps({name: getattr(signed, name) for name in SignedTransaction.__slots__}) + "\n").encode()


def _told_line(chain_id: int, settlement: str, amount: int) -> bytes:
    return (json.dumps({"chain_id": chain_id, "settlement": settlement, "told": str(amount)}) + "\n").encode()


class Outbox:
    """A context manager: holds the file of one key. Leave it without an error and the file is emptied.

    StorageError: another command holds it for longer than `lock_seconds`, or it cannot be written."""

    def __init__(self, keystore: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.path = keystore.with_name(keystore.name + ".sending")
        self._file = self._lock(lock_seconds)
        self._added: list[SignedTransaction] = []
        self._told: dict[tuple[int, str], int] = {}
        self._whole = 0  # bytes of the file, without a last line that is cut off
        self.torn = b""  # that line
        self._earlier = self._read()

    def earlier(self, chain_id: int) -> Sequence[SignedTransaction]:
        """What commands before this one left, on that chain, oldest first."""
        return tuple(signed for signed in self._earlier if signed.chain_id == chain_id)

    def noted(self, chain_id: int) -> list[tuple[int, str]]:
        """(number, hash) of all on that chain, those of this command among them."""
        return [(each.nonce, each.hash) for each in (*self._earlier, *self._added) if each.chain_id == chain_id]

    def add(self, signed: SignedTransaction) -> None:
        """On disk when this returns: only then may the transaction leave. A line that was cut off goes: see `torn`."""
        self._file.seek(self._whole)
        self._file.truncate()
        self.torn, start = b"", self._whole
        try:
            data = _line(signed)
            while data:  # a disk that fills up takes a part first, and refuses the rest
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
            self._whole = self._file.tell()
            self._added.append(signed)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(start)
            raise StorageError(f"{self.path}: {error.strerror}: nothing was sent; {disk_remedy(error)}") from None

    def told(self, chain_id: int, settlement: str) -> int:
        """How much of what the settlement counts from this key commands have told of (base units)."""
        return self._told.get((chain_id, settlement.lower()), 0)

    def tell(self, chain_id: int, settlement: str, amount: int) -> None:
        """From the end of this command on: `amount` in all."""
        self._told[chain_id, settlement.lower()] = amount

    def forget(self, signed: SignedTransaction) -> None:
        """It can never count: it need not be looked for any more."""
        self._earlier = [kept for kept in self._earlier if kept != signed]

    def close(self, *, done: bool) -> None:
        """`done`: the command has done all it had to, so nothing of its own is needed again."""
        if self._file.closed:
            return
        untold = [signed for signed in self._earlier if signed.what not in HARMLESS]
        told = [_told_line(*place, amount) for place, amount in self._told.items()]
        if (done and not untold and not told) or not os.fstat(self._file.fileno()).st_size:
            self.path.unlink(missing_ok=True)
        elif done:
            data = b"".join([*told, *map(_line, untold)])  # no longer than what it takes the place of: needs no space
            self._file.seek(0)
            self._file.write(data)
            self._file.truncate()
            os.fsync(self._file.fileno())
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
                if os.path.lexists(self.path) and not self.path.is_file():
                    raise StorageError(f"{self.path} is no file: what is sent is noted there; move it away") from None
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

    def may_have_left(self, chain_id: int, count: int) -> bool:
        """Whether the transaction of a line that is cut off may have been sent; `count`: how many the node of that chain
        knows of this key. Where the line was cut while it was written it was not, and its number is still free."""
        if not self.torn:
            return False
        noted = re.match(rb'\{"chain_id": ([0-9]{1,20}), .*"nonce": ([0-9]{1,20}),', self.torn)
        return noted is None or (int(noted[1]), int(noted[2]) >= count) != (chain_id, True)

    def damaged(self, line: int | None = None) -> StorageError:
        """In that line, or in its last one."""
        where = "its last line" if line is None else f"line {line}"
        return StorageError(
            f"{self.path} is damaged in {where}: it notes a transaction that was perhaps sent. See on the chain what this key has "
            "sent last (`sparehive run status`), then move the file away"
        )

    def _read(self) -> list[SignedTransaction]:
        """StorageError where a line is damaged: what it noted may have been sent. A last line that is cut off is left to `torn`."""
        self._file.seek(0)
        data = self._file.read()
        *lines, torn = data.split(b"\n")
        found = [self._parsed(number, line) for number, line in enumerate(lines, 1) if not self._is_told(line)]
        if b"}" in torn:  # whole, but for what ends a line: perhaps sent
            found.append(self._parsed(len(lines) + 1, torn))
            self._file.write(b"\n")
            torn = b""
        self.torn = torn
        self._whole = self._file.tell() - len(torn)
        return found

    def _is_told(self, line: bytes) -> bool:
        """Whether it says what was told, and then it is kept. Any other line has to be a transaction."""
        noted = re.fullmatch(
            rb'\{"chain_id": ([0-9]{1,20}), "settlement": "(0x[0-9a-f]{40})", "told": "([0-9]{1,40})"\}', line
        )
        if noted is not None:
            self._told[int(noted[1]), noted[2].decode()] = int(noted[3])
        return noted is not None

    def _parsed(self, number: int, line: bytes) -> SignedTransaction:
        try:
            signed = SignedTransaction(**from_json(line))
            raw = bytes.fromhex(signed.raw.removeprefix("0x"))
            noted = (signed.chain_id, signed.nonce, signed.to.lower(), signed.call)
            if "0x" + bytes(keccak(raw)).hex() == signed.hash and noted == _said_by(raw):
                return signed
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RLPException):
            pass
        raise self.damaged(number)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a signed transaction does, and what it offers for gas (wei)."""

    to: str
    value: int
    data: str
    gas: int
    max_fee: int
    tip: int


def offer_of(signed: SignedTransaction) -> Offer:
    """Of one that was read from the outbox, or signed here."""
    kind, first, fields = _fields(bytes.fromhex(signed.raw.removeprefix("0x")))
    to, value, data = _call(kind, first, fields)
    tip, max_fee = _number(fields[first + 1]), _number(fields[first + (2 if kind == 2 else 1)])
    return Offer(to, value, data, _number(fields[first + (3 if kind == 2 else 2)]), max_fee, tip)


def _said_by(raw: bytes) -> tuple[int, int, str, str]:
    """(chain, number, to, call) of a signed transaction: of what a line says beside it nothing is believed, for a transaction that is not
    recognised is sent again, as a second one."""
    kind, first, fields = _fields(raw)
    chain_id = _number(fields[0]) if kind else (_number(fields[6]) - 35) // 2  # EIP-155
    to, value, data = _call(kind, first, fields)
    return chain_id, _number(fields[first]), to, call_id(to, data, value)


def _fields(raw: bytes) -> tuple[int, int, Any]:
    """(its type, where its number stands, its fields)."""
    kind, body = (raw[0], raw[1:]) if raw[0] < 0x80 else (0, raw)  # EIP-2718: a type, or none
    return kind, {0: 0, 1: 1, 2: 1}[kind], rlp.decode(body)  # EIP-2930 and EIP-1559 begin with the chain


def _call(kind: int, first: int, fields: Any) -> tuple[str, int, str]:
    to, value, data = fields[first + (4 if kind == 2 else 3) :][:3]  # EIP-1559 has two prices of gas
    return "0x" + to.hex() if to else "", _number(value), "0x" + data.hex()


def _number(field: bytes) -> int:
    return int.from_bytes(field, "big")
