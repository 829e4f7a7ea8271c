"""Whose wallet a peer's pay is for: named by its owner (`payout` in peer.toml), bound on chain (`bound.json`, by the last command that
saw it there). Until it is bound, the hot key is a bearer token: whoever has its file takes all that it has earned."""

import contextlib
import os
import sys
from dataclasses import dataclass

import click
from pydantic_core import from_json

from incentives.errors import InputError
from incentives.keys import parse_address, to_checksum
from peers.config import load_peer_config
from peers.directory import PeerDirectory, write_json
from peers.errors import ConfigError, PeerError
from swarm.errors import printable_lines


@dataclass(frozen=True, slots=True)
class Payee:
    """Checksummed addresses; "": none."""

    named: str = ""
    bound: str = ""

    @property
    def state(self) -> str:
        """For programs."""
        return "bound" if self.bound else "named" if self.named else "none"

    @property
    def is_taken(self) -> bool:
        """Bound to another wallet than its owner named."""
        return bool(self.bound and self.named) and self.bound != self.named

    def line(self) -> str:
        """For people, with what is at risk."""
        if self.is_taken:
            return f"bound to wallet {self.bound}, for ever, and you named {self.named}: somebody else may have had the key file"
        if self.bound:
            return f"bound to wallet {self.bound}"
        risk = "whoever has keys/hot.json and hot.password of this peer can take all its pay"
        if self.named:
            return f"wallet {self.named} is named, but not bound: until `sparehive bind`, {risk}"
        return f"no wallet is named or bound: until `sparehive bind`, {risk}"


def read_payee(directory: PeerDirectory) -> Payee:
    """What cannot be read counts as not said. Raises nothing."""
    named = ""
    with contextlib.suppress(PeerError, OSError):
        named = load_peer_config(directory.config).payout
    return Payee(_address(named), bound_wallet(directory))


def bound_wallet(directory: PeerDirectory) -> str:
    """As it was seen on chain; "" where nobody has seen it."""
    try:
        said = from_json(directory.bound.read_bytes())  # bounds the depth; json.loads can overflow the stack
    except (OSError, ValueError):
        return ""
    return _address(said.get("wallet")) if isinstance(said, dict) else ""


def keep_bound(directory: PeerDirectory, wallet: bytes) -> None:
    """The chain says so, for ever. A directory that takes nothing is no reason to stop."""
    with contextlib.suppress(OSError):
        if bound_wallet(directory) != to_checksum(wallet):
            write_json(directory.bound, {"wallet": to_checksum(wallet)})


def check_named(given: str, directory: PeerDirectory) -> str:
    """What --wallet of `join` names, checksummed. ConfigError where the key is another wallet's for ever; InputError: no address."""
    wallet = parse_address(given)
    if not any(wallet):
        raise ConfigError("--wallet", given, "is nobody's: what is paid there is lost")
    bound = bound_wallet(directory)
    if bound not in ("", to_checksum(wallet)):
        raise ConfigError(
            "--wallet",
            to_checksum(wallet),
            f"this peer's key is bound to {bound}, for ever: leave it out, or join with another --dir",
        )
    return to_checksum(wallet)


def can_ask() -> bool:
    """Whether somebody sits before this process: in the background of a terminal, a question would stop it for good."""
    try:
        return sys.stdin.isatty() and sys.stderr.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def ask_wallet(directory: PeerDirectory) -> str | None:
    """At a terminal; None: later, by whoever sits there."""
    click.echo(
        "Which wallet is this peer's pay for? It only names it: `sparehive bind` makes it so on chain, once there is something to claim.",
        err=True,
    )
    while True:
        given = click.prompt("Wallet's address (0x…; Enter: later)", default="", show_default=False, err=True).strip()
        if not given:
            return None
        try:
            return check_named(given, directory)
        except (InputError, ConfigError) as error:
            click.echo(printable_lines(str(error)), err=True)


def confirm_binding(peer: str, wallet: str, is_confirmed: bool, *, would_be: str = "sent") -> None:
    """Before what nobody can undo, or before it is given out of hand. InputError where nobody can be asked, click.Abort where the
    answer is no."""
    if is_confirmed:
        return
    what = f"{peer} is bound to wallet {wallet} once and for ever: all that it has earned and will earn goes there"
    if not can_ask():
        raise InputError("--yes", None, f"{what}; nothing was {would_be}: give --yes, or the command at a terminal")
    click.confirm(f"{what}. Go on?", abort=True, err=True)


def _address(text: object) -> str:
    try:
        return to_checksum(parse_address(str(text)))
    except InputError:
        return ""


__all__ = [
    "Payee",
    "ask_wallet",
    "bound_wallet",
    "can_ask",
    "check_named",
    "confirm_binding",
    "keep_bound",
    "read_payee",
]
