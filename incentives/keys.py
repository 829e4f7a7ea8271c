"""Keys on disk (keyfile v3, as geth and every wallet write it) and the text form of accounts.

A key never appears in a message, a log or a repr. Password files and key files are readable by their owner alone.
"""

import contextlib
import errno
import json
import os
import secrets
import select
import stat
import sys
import time
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from pydantic_core import from_json

from incentives import keyfile, pasted
from incentives.atomic import write_new
from incentives.errors import InputError, KeyFileError, WrongPassword, disk_remedy
from incentives.hashing import keccak
from incentives.records import account_of

# The password of a hot key is 32 random bytes in a file beside it: stretching a password that cannot be guessed adds nothing
# but seconds to every start. What a person thought of needs STRONG_SCRYPT (about 1 s, 256 MB).
LIGHT_SCRYPT, STRONG_SCRYPT = 2**12, 2**18
# What opening a key may cost: eight times what STRONG_SCRYPT takes, of memory and of time. A damaged or hostile file asks for more.
MAX_SCRYPT_BYTES, MAX_PBKDF2_ROUNDS, MAX_DERIVED_BYTES = 1 << 31, 1 << 24, 64
MAX_SCRYPT_BLOCKS = 512  # r times p; each of them costs time whatever n is, and no wallet asks for more than 48
_warned: set[Path] = set()  # directories
PIPE_SECONDS = 10.0  # that whoever writes into a pipe in a file's place has


def create_key(path: Path, password: str, scrypt_n: int = LIGHT_SCRYPT) -> PrivateKey:
    """A new random key, encrypted into `path` (0600, its directory 0700). KeyFileError where `path` exists already."""
    key = PrivateKey()
    store_key(path, key, password, scrypt_n)
    return key


def store_key(path: Path, key: PrivateKey, password: str, scrypt_n: int = LIGHT_SCRYPT) -> None:
    """Encrypts `key` into the new file `path`. KeyFileError where it exists already or cannot be written."""
    value = keyfile.encrypt(key.secret, account_of(key), password, scrypt_n)
    _create(path, json.dumps(value).encode() + b"\n", "key")


def load_key(path: Path, password: str) -> PrivateKey:
    """The key in `path`. KeyFileError: missing, readable by others, malformed, or another password."""
    data = _read_private(path, "key")
    try:
        value = _key_value(data)
        if not isinstance(value, dict) or not _is_cheap(value):
            raise ValueError
        key = PrivateKey(keyfile.decrypt(value, password))
        if "address" in value and bytes.fromhex(str(value["address"]).removeprefix("0x")) != account_of(key):
            raise ValueError
    except keyfile.MacMismatch:
        raise WrongPassword(f"key file {path}: wrong password") from None
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        # Nothing of the error is shown: it could quote what it choked on.
        raise KeyFileError(f"key file {path} is malformed: restore it from a copy (keyfile version 3, JSON)") from None
    return key


def _key_value(data: bytes) -> Any:
    return from_json(pasted.braced(pasted.decoded(data)))  # bounds the depth; json.loads can overflow the stack


def _is_cheap(value: Any) -> bool:
    """Whether the work and the memory that the key file's KDF asks for are such as a wallet asks for. ValueError, TypeError or KeyError
    where it names none."""
    crypto = _lower(_lower(value)["crypto"])
    parameters = _lower(crypto["kdfparams"])
    if crypto["kdf"] == "scrypt":
        n, r, p = (_count(parameters[name]) for name in "nrp")
        costs = [(128 * n * r * p, MAX_SCRYPT_BYTES), (r * p, MAX_SCRYPT_BLOCKS)]
    else:
        costs = [(_count(parameters["c"]), MAX_PBKDF2_ROUNDS)]
    return all(cost <= most for cost, most in [*costs, (_count(parameters["dklen"]), MAX_DERIVED_BYTES)])


def _count(value: object) -> int:
    """Before anything is multiplied: a text times 10^12 is a terabyte."""
    if type(value) is not int or value < 1:
        raise ValueError("is no count")
    return value


def _lower(value: dict[str, Any]) -> dict[str, Any]:
    """Some wallets write Crypto."""
    return {str(name).lower(): item for name, item in dict(value).items()}


def key_account(path: Path) -> bytes | None:
    """The account that the key file says it holds, without its password; None where the file does not say."""
    try:
        return parse_address("0x" + str(_key_value(_read_private(path, "key"))["address"]).removeprefix("0x"))
    except (ValueError, KeyError, TypeError, InputError):
        return None


def load_password(path: Path, *, create: bool = False) -> str:
    """The first line of the file. With `create`, a missing file is made with 64 random hex digits, 0600."""
    if create and not path.exists():
        _create(path, secrets.token_hex(32).encode() + b"\n", "password")
    return _passwords(path)[0]


def unlock_key(path: Path, password_path: Path) -> PrivateKey:
    """The key in `path`, opened with what `password_path` holds. KeyFileError as `load_key` and `load_password` raise it; WrongPassword
    names both files, for either may be the one that was changed."""
    check_two_files(path, password_path)
    for password in _passwords(password_path):
        with contextlib.suppress(WrongPassword):
            return load_key(path, password)
    raise WrongPassword(
        f"key file {path} does not open with what is in {password_path} (wrong password): write the right one into its first "
        "line, or restore the one that was changed from a copy"
    )


def check_two_files(path: Path, password_path: Path) -> None:
    """KeyFileError where one file is named for both, by whatever names."""
    is_one = path.absolute() == password_path.absolute()
    with contextlib.suppress(OSError):
        is_one = is_one or os.path.samefile(path, password_path)
    if is_one:
        raise KeyFileError(f"{password_path} is named as the key file and as its password file: name two files")


def _passwords(path: Path) -> list[str]:
    try:
        found = pasted.passwords(_read_private(path, "password"))
    except UnicodeDecodeError:
        raise KeyFileError(f"password file {path} is not text: write the password into its first line") from None
    if not found:
        raise KeyFileError(f"password file {path} is empty: write the password into its first line")
    return found


def load_or_create_key(path: Path, password_path: Path) -> PrivateKey:
    """A peer's hot key: made at the first start, with its random password, and loaded at every later one."""
    if path.exists():
        return unlock_key(path, password_path)
    check_two_files(path, password_path)
    return create_key(path, load_password(password_path, create=True))


def to_checksum(account: bytes) -> str:
    """The account as people and other tools write it (EIP-55)."""
    if len(account) != 20:
        raise InputError("account", account, "must be 20 bytes")
    text = account.hex()
    marks = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(text, marks, strict=False))


def parse_address(text: str) -> bytes:
    """20 bytes from 0x and 40 hex digits. Mixed case must have the right checksum, which catches typing errors."""
    digits = text.removeprefix("0x")
    try:
        account = bytes.fromhex(digits)
    except ValueError:
        account = b""
    if not text.startswith("0x") or len(digits) != 40 or len(account) != 20:
        raise InputError("address", text, "must be 0x and 40 hexadecimal digits")
    if digits not in (digits.lower(), digits.upper()) and to_checksum(account) != text:
        raise InputError("address", text, "has a wrong checksum (capital letters): copy it again")
    return account


def _create(path: Path, data: bytes, what: str) -> None:
    """Written beside and linked into place: a crash leaves no half file, and an existing one is never replaced."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"{what} file {path} cannot be written: {path.parent}: {error.strerror}") from None
    try:
        write_new(path, data, draft=draft, mode=0o600)
    except FileExistsError:
        raise KeyFileError(f"{what} file {path} exists already: it is not replaced; choose another name") from None
    except OSError as error:
        raise KeyFileError(f"{what} file {path} cannot be written: {error.strerror}: {disk_remedy(error)}") from None


def _can_be_closed(path: Path, mode: int) -> bool:
    """False where the file system gives every file one mode (exFAT, SMB, WSL), whatever chmod says: then a warning is all.

    Tried on a file beside it: whoever left the key open is to know of it, not to have it closed in silence."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
    except OSError:  # a folder that nothing can be written to: nothing is known
        return True
    try:
        os.chmod(probe, 0o600)
        closable = not os.stat(probe).st_mode & 0o077
    except OSError as error:
        closable = error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
    finally:
        probe.unlink(missing_ok=True)
    if not closable and path.parent not in _warned:
        _warned.add(path.parent)
        print(
            f"sparehive: {path.parent}: its file system has no file modes, so that other users here may read your keys",
            file=sys.stderr,
        )
    return closable


def _read_pipe(descriptor: int, path: Path, what: str) -> bytes:
    """What another program writes into it (`<(pass show wallet)`). KeyFileError where that does not end in time."""
    data, until = b"", time.monotonic() + PIPE_SECONDS
    while len(data) < 1 << 20:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        piece = os.read(descriptor, 1 << 16) if ready else b""
        if not ready or (not piece and not data):
            raise KeyFileError(
                f"{what} file {path} is a pipe into which nobody has written all within {PIPE_SECONDS:g} s: name a file"
            )
        if not piece:
            break
        data += piece
    return data


def _read_private(path: Path, what: str) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            found = os.fstat(stream.fileno()).st_mode
            mode = stat.S_IMODE(found)
            if stat.S_ISFIFO(found):
                return _read_pipe(stream.fileno(), path, what)
            if mode & 0o077 and _can_be_closed(path, mode):
                raise KeyFileError(f"{what} file {path} can be read by others (mode {mode:04o}): chmod 600 it")
            return stream.read(1 << 20)
    except FileNotFoundError:
        raise KeyFileError(f"{what} file {path} does not exist: check the path, or restore it from a copy") from None
    except OSError as error:
        raise KeyFileError(f"{what} file {path} cannot be read: {error.strerror}: restore it from a copy") from None


__all__ = [
    "LIGHT_SCRYPT",
    "STRONG_SCRYPT",
    "account_of",
    "check_two_files",
    "create_key",
    "key_account",
    "load_key",
    "load_or_create_key",
    "load_password",
    "parse_address",
    "store_key",
    "to_checksum",
    "unlock_key",
]
