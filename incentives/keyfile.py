"""The keyfile of Ethereum's wallets, version 3 (Web3 Secret Storage), as geth writes it: framing around hashlib's and pycryptodome's
primitives.

eth-account opens the same files. It takes a second of processor time to import, half of it for pairings of a curve that no such file uses,
and every peer and most commands open a key before they do anything else; who sends a transaction imports it. Both are held against each
other in `tests/reference/test_keyfile.py`.
"""

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from incentives.hashing import keccak

SCRYPT_R, SCRYPT_P, KEY_BYTES = 8, 1, 32


def encrypt(secret: bytes, account: bytes, password: str, scrypt_n: int) -> dict[str, Any]:
    """The file's JSON for a private key of 32 bytes whose account (20 bytes) it names; `scrypt_n`: rounds, a power of two."""
    salt, iv = secrets.token_bytes(16), secrets.token_bytes(16)
    parameters = {"dklen": KEY_BYTES, "n": scrypt_n, "r": SCRYPT_R, "p": SCRYPT_P, "salt": salt.hex()}
    derived = _derived("scrypt", parameters, password)
    ciphertext = _aes_ctr(derived[:16], iv, secret)
    return {
        "address": account.hex(),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": parameters,
            "mac": keccak(derived[16:32] + ciphertext).hex(),
        },
        "id": str(uuid.uuid4()),
        "version": 3,
    }


class MacMismatch(ValueError):
    """Another password, or a changed file: they cannot be told apart."""


def decrypt(value: Mapping[str, Any], password: str) -> bytes:
    """The private key. MacMismatch; ValueError, TypeError, KeyError where it is no such file. What its derivation may cost is the caller's
    to bound."""
    keyfile = _lower(value)
    if keyfile["version"] != 3:
        raise ValueError("not of version 3")
    crypto = keyfile["crypto"]
    if crypto["cipher"] != "aes-128-ctr":
        raise ValueError("another cipher")
    derived, ciphertext = _derived(crypto["kdf"], crypto["kdfparams"], password), _unhex(crypto["ciphertext"])
    if len(derived) < KEY_BYTES:
        raise ValueError("a derived key that is too short")
    if not hmac.compare_digest(keccak(derived[16:32] + ciphertext), _unhex(crypto["mac"])):
        raise MacMismatch("another password")
    return _aes_ctr(derived[:16], _unhex(crypto["cipherparams"]["iv"]), ciphertext)


def _derived(kdf: str, parameters: Mapping[str, Any], password: str) -> bytes:
    salt, size = _unhex(parameters["salt"]), parameters["dklen"]
    if kdf == "scrypt":
        from Crypto.Protocol.KDF import scrypt  # hashlib's refuses what takes two gigabytes

        # It takes text, which it encodes as Latin-1.
        secret = password.encode().decode("latin-1")
        n, r, p = parameters["n"], parameters["r"], parameters["p"]
        made = scrypt(secret, salt.decode("latin-1"), size, N=n, r=r, p=p)
        assert isinstance(made, bytes)  # of one key
        return made
    if kdf == "pbkdf2" and parameters["prf"] == "hmac-sha256":
        return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, parameters["c"], size)
    raise ValueError("another way to derive the key")


def _aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    from Crypto.Cipher import AES

    if len(iv) > 16:
        raise ValueError("an initial value that is too long")
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=int.from_bytes(iv, "big")).encrypt(data)


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _lower(value: Mapping[str, Any]) -> dict[str, Any]:
    """Some wallets write Crypto."""
    return {
        str(name).lower(): _lower(item) if isinstance(item, Mapping) else item for name, item in dict(value).items()
    }


__all__ = ["MacMismatch", "decrypt", "encrypt"]
