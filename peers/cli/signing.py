"""Whose key signs what a command sends, and what an earlier one has sent with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from coincurve import PrivateKey

from incentives.chain.outbox import Outbox
from incentives.errors import InputError
from incentives.keys import key_account, parse_address, to_checksum, unlock_key
from incentives.records import account_of

if TYPE_CHECKING:
    from incentives.chain.node import Chain


def open_key(keystore: Path | None, password_file: Path | None, prefix: str = "--") -> PrivateKey:
    """UsageError where one of the two is missing, KeyFileError where they do not open."""
    if keystore is None or password_file is None:
        raise click.UsageError(f"{prefix}keystore and {prefix}password-file are both needed")
    return unlock_key(keystore, password_file)


def organisers_key(run: Path | None, keystore: Path | None, password_file: Path | None) -> tuple[Path, PrivateKey]:
    """(its file, the key): the given one, or the one that `run new` made in the run's directory."""
    if keystore is None and password_file is None and run is not None and run.is_dir():
        from peers.runs import RunDirectory

        keystore, password_file = RunDirectory(run).organiser_key, RunDirectory(run).organiser_password
    key = open_key(keystore, password_file)
    assert keystore is not None
    return keystore, key


@contextmanager
def sending(chain: "Chain", key: PrivateKey, keystore: Path) -> Iterator[None]:
    """Around everything that sends with `key`: a command that was killed is finished by the next one, never doubled.

    What an earlier one sent and what counts by now is in `chain.resumed`; read the chain's state inside."""
    with Outbox(keystore) as outbox:
        chain.use_outbox(key, outbox)
        yield


def resumed_by(chain: "Chain", to: bytes, *functions: str) -> list[str]:
    """Transactions of an earlier command that was broken off: calls of one of `functions` at that contract."""
    return [sent.hash for sent in chain.resumed if sent.what in functions and sent.to.lower() in ("", "0x" + to.hex())]


def wallet_address(wallet: str | None, keystore: Path | None) -> bytes | None:
    """From --wallet, or what the key file says of itself: to look, no password is needed."""
    if wallet is not None:
        return parse_address(wallet)
    if keystore is None:
        return None
    account = key_account(keystore)
    if account is None:
        raise InputError("--keystore", str(keystore), "does not say its address; give it with --wallet")
    return account


def sender_of(key: PrivateKey) -> str:
    return to_checksum(account_of(key))
