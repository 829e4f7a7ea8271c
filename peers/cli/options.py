"""What the commands that speak to a chain share: their options, and how they print."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from incentives.amounts import MAX_DECIMALS, Unit, parse_amount, parse_coins
from incentives.errors import InputError
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


def token_decimals_option(default: int | None) -> Callable[[Command], Command]:
    """Where no chain is asked yet."""
    return click.option(
        "--token-decimals",
        type=click.IntRange(0, MAX_DECIMALS),
        default=default,
        show_default=True,
        help="Of the token that the run will pay in: how many digits an amount may have after the point.",
    )


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
            return parse_coins(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", parameter, context)


COINS = _Coins()


class Amount:
    """Of the run's token, as given: in tokens, or with the suffix "base" in its base unit."""

    def __init__(self, text: str) -> None:
        self.text = text

    def base_units(self, unit: Unit, field: str) -> int:
        """InputError where a token of this kind has no such amount."""
        try:
            amount = unit.parse(self.text)
        except ValueError as error:
            raise InputError(field, self.text, str(error)) from None
        if amount >= 1 << 128:
            raise InputError(field, self.text, "is more than a contract can count: give less")
        return amount

    def __str__(self) -> str:
        return self.text


class _AmountType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "amount"

    def __init__(self, *, may_be_zero: bool = False) -> None:
        self.may_be_zero = may_be_zero

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Amount:
        if isinstance(value, Amount):
            return value
        try:
            # As if the token had as many decimals as can be written: which it has is not known yet.
            if parse_amount(str(value), 50) == 0 and not self.may_be_zero:
                self.fail(f"{value!r} must be more than zero", parameter, context)
        except ValueError as error:
            self.fail(f"{value!r} {error}", parameter, context)
        return Amount(str(value))


AMOUNT, AMOUNT_OR_ZERO = _AmountType(), _AmountType(may_be_zero=True)


def show(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """The result for programs, or lines for people."""
    click.echo(json.dumps(result) if as_json else printable_lines("\n".join(lines)))


def address(account: bytes | None) -> str | None:
    return to_checksum(account) if account is not None else None
