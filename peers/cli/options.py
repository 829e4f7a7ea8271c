"""What the commands that speak to a chain share: their options, and how they print."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from incentives.amounts import parse_amount
from incentives.keys import to_checksum
from incentives.shelf import open_shelf
from swarm.errors import printable_lines

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
rpc_option = click.option(
    "--rpc", required=True, metavar="URL", envvar=None, help="JSON-RPC of a node of the run's chain."
)
latest_option = click.option(
    "--latest",
    is_flag=True,
    help="Read the newest block instead of the newest final one (a reorganisation may undo it).",
)
run_option = click.option(
    "--run", "run", type=PATH, help="The run's directory, or its chain.json: where the contracts are."
)
settlement_option = click.option(
    "--settlement", metavar="ADDRESS", help="The settlement's address, where there is no chain.json."
)
tables_option = click.option(
    "--tables",
    default="tables",
    show_default=True,
    metavar="FOLDER|URL",
    help="Where the published tables are.",
    callback=lambda context, parameter, value: open_shelf(value),
)
invite_option = click.option(
    "--invite", metavar="TEXT|FILE", help="The run's invite: where its contracts are, and who may sign."
)


def key_options(whose: str, *, required: bool = True) -> Callable[[Command], Command]:
    """--keystore and --password-file. A key or a password never stands in a command line."""

    def add(command: Command) -> Command:
        command = click.option(
            "--password-file", type=PATH, required=required, help="File whose first line is its password."
        )(command)
        return click.option("--keystore", type=PATH, required=required, help=f"Key file (version 3) of {whose}.")(
            command
        )

    return add


def fee_options(command: Command) -> Command:
    """--max-fee and --dry-run, of what sends."""
    command = click.option(
        "--dry-run", is_flag=True, help="Say what would be sent first and what it may cost, and stop."
    )(command)
    return click.option(
        "--max-fee",
        type=COINS,
        metavar="COINS",
        help="The most that one transaction may cost, in the chain's coin (default: 0.5).",
    )(command)


class _Coins(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """An amount of the chain's coin, as wei."""

    name = "coins"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_amount(str(value), 18)
        except ValueError as error:
            self.fail(f"{value!r} {error}", parameter, context)


COINS = _Coins()


def show(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """The result for programs, or lines for people."""
    click.echo(json.dumps(result) if as_json else printable_lines("\n".join(lines)))


def address(account: bytes | None) -> str | None:
    return to_checksum(account) if account is not None else None


def until(seconds: int) -> str:
    """A moment of the chain's clock, for people."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
