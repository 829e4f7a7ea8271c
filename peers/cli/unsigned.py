"""--unsigned: what a command would send, for somebody else to sign and send. Nothing is sent, and no key is opened."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from incentives.chain.unsigned import Call, safe_batch
from incentives.errors import StorageError, disk_remedy
from peers.cli.options import PATH, show
from swarm.atomic import write_atomically

Command = TypeVar("Command", bound=Callable[..., Any])


def unsigned_options(command: Command) -> Command:
    """--unsigned and --safe-batch, of what sends."""
    command = click.option(
        "--safe-batch", type=PATH, help="With --unsigned: also write the file that a Safe's Transaction Builder takes."
    )(command)
    return click.option(
        "--unsigned", is_flag=True, help="Send nothing and open no key: print what another wallet has to send."
    )(command)


def check_options(
    unsigned: bool, safe_batch_file: Path | None, keystore: Path | None, password_file: Path | None
) -> None:
    """UsageError where they do not go together, or a key is missing."""
    check_batch(unsigned, safe_batch_file)
    if not unsigned and (keystore is None or password_file is None):
        raise click.UsageError("--keystore and --password-file are both needed, or --unsigned")


def check_batch(unsigned: bool, safe_batch_file: Path | None) -> None:
    """UsageError where they do not go together."""
    if safe_batch_file is not None and not unsigned:
        raise click.UsageError("--safe-batch goes with --unsigned")


def show_calls(
    chain_id: int,
    calls: Sequence[Call],
    name: str,
    safe_batch_file: Path | None,
    as_json: bool,
    result: dict[str, Any] | None = None,
    lines: Sequence[str] = (),
) -> None:
    """The calls in the order in which they have to be sent, after `lines`; in JSON beside `result`."""
    senders = {call.sender for call in calls if call.sender is not None}
    if safe_batch_file is not None and calls:
        batch = safe_batch(chain_id, calls, name, next(iter(senders)) if len(senders) == 1 else None)
        try:
            write_atomically(safe_batch_file, (json.dumps(batch, indent=1) + "\n").encode())
        except OSError as error:
            raise StorageError(f"{safe_batch_file}: {error.strerror}: {disk_remedy(error)}") from None
        lines = [*lines, f"for a Safe's Transaction Builder: {safe_batch_file}"]
    said = [f"{index}. {call.line()}" for index, call in enumerate(calls, 1)]
    given = {**(result or {}), "unsigned": True, "chain_id": chain_id, "calls": [call.json_value() for call in calls]}
    head = f"to be sent on chain {chain_id}, in this order:" if calls else "nothing is to be sent"
    show(as_json, given, *lines, head, *said)


__all__ = ["check_batch", "check_options", "show_calls", "unsigned_options"]
