"""The secret that shares are sealed to: a key file beside the wallet's, under the same password. It never leaves this machine."""

import re
from pathlib import Path

from coincurve import PrivateKey

from incentives import sealing
from incentives.errors import KeyFileError
from incentives.keys import LIGHT_SCRYPT, STRONG_SCRYPT, load_password, store_key, unlock_key


def delivery_file(keystore: Path) -> Path:
    """Of a wallet's key file: wallet.json has wallet.delivery.json beside it."""
    return keystore.with_name(f"{keystore.stem}.delivery.json")


def open_secret(path: Path, password_file: Path) -> int:
    """KeyFileError: it is not there, does not open, or holds no scalar of the curve."""
    if not path.exists():
        raise KeyFileError(
            f"key file {path} does not exist: it was made where the key that shares are sealed to was set; restore it from a copy"
        )
    secret = int.from_bytes(unlock_key(path, password_file).secret)
    if not 0 < secret < sealing.ORDER:
        raise KeyFileError(f"key file {path} holds no key that shares are sealed to: restore it from a copy")
    return secret


def open_or_make_secret(path: Path, password_file: Path) -> int:
    """As `open_secret`; a file that is missing is made."""
    if not path.exists():
        password = load_password(password_file)
        secret = sealing.new_scalar()
        # What a person thought of has to be slow to try; 32 random bytes cannot be tried at all (as `wallet` has it).
        is_random = re.fullmatch("[0-9a-f]{64}", password) is not None
        store_key(path, PrivateKey(secret.to_bytes(32)), password, LIGHT_SCRYPT if is_random else STRONG_SCRYPT)
    return open_secret(path, password_file)


__all__ = ["delivery_file", "open_or_make_secret", "open_secret"]
