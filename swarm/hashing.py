"""Hashes and the canonical form of everything hashed that is not EIP-712 (protocol §2.1)."""

import hashlib
from typing import Any

import rfc8785
from eth_hash.backends import pysha3
from eth_hash.main import Keccak256

_keccak = Keccak256(pysha3.backend)  # six times as fast for what is short as the one that eth_hash.auto would take


def keccak256(data: bytes) -> bytes:
    """keccak-256 as Ethereum has it; 32 bytes."""
    return bytes(_keccak(data))


def sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value; integers beyond 2**53 must be given as strings."""
    return bytes(rfc8785.dumps(value))
