"""Whose key signs what a command sends, and what an earlier one has sent with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from coincurve import PrivateKey

from incentives.amounts import coins
from incentives.chain.outbox import Outbox
from incentives.errors import InputError
from incentives.keys import key_account, parse_address, to_checksum, unlock_key
from incentives.records import account_of
from peers.cli.options import show

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


@dataclass(frozen=True)
class Fees:
    """What a command may pay for a transaction (`max_fee_amount`: wei; None: the usual bound), and whether it sends at all."""

    max_fee_amount: int | None
    is_dry: bool
    as_json: bool

    def apply_to(self, chain: "Chain") -> None:
        if self.max_fee_amount is not None:
            chain.max_fee_amount = self.max_fee_amount
        chain.is_dry = self.is_dry
        if sys.stderr.isatty():  # who sits there can stop it; programs are told at the end
            chain.tell_cost = partial(click.echo, err=True)


@contextmanager
def showing_dry_run(fees: Fees) -> Iterator[None]:
    """A dry run ends the command here, with what would have been sent."""
    from incentives.chain.node import DryRun

    try:
        yield
    except DryRun as stopped:
        result = {"dry_run": True, "what": stopped.what, "to": stopped.to, "gas": stopped.gas}
        show(fees.as_json, result | {"cost_at_most": str(stopped.cost_amount)}, str(stopped))
        raise click.exceptions.Exit(0) from None


@contextmanager
def sending(chain: "Chain", key: PrivateKey, keystore: Path, fees: Fees) -> Iterator[None]:
    """Around everything that sends with `key`: a command that was killed is finished by the next one, never doubled. A dry run ends here.

    What an earlier one sent and what counts by now is in `chain.resumed`; read the chain's state inside."""
    fees.apply_to(chain)
    with showing_dry_run(fees), Outbox(keystore) as outbox:
        chain.use_outbox(key, outbox)
        yield


def cost_line(chain: "Chain") -> list[str]:
    """What the command has paid for its transactions, for people; nothing where it sent none."""
    return [f"cost {coins(chain.spent_amount)} of chain {chain.chain_id}'s coin"] if chain.spent_amount else []


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
