"""What the commands that speak to a chain share: their options, and how they print."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit, urlunsplit

import click

from incentives.amounts import MAX_DECIMALS, Unit, parse_amount, parse_coins
from incentives.chain.nodes import COMMAND_SECONDS, WAIT_SECONDS, Nodes, in_words
from incentives.chain.state import RunState
from incentives.errors import InputError
from incentives.keys import to_checksum
from incentives.shelf import Shelf, open_shelf
from peers.given import check_published, given_path, scheme_of
from swarm.errors import printable_lines

Command = TypeVar("Command", bound=Callable[..., Any])


class _GivenPath(click.Path):
    """On this machine: `~` and file:// count too."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if isinstance(value, str):
            try:
                value = given_path(value)
            except ValueError as error:
                self.fail(f"{value!r} {error}", parameter, context)
        return super().convert(value, parameter, context)


PATH = _GivenPath(path_type=Path)


def _shelf(context: click.Context, parameter: click.Parameter, value: str) -> Shelf:
    inside = STORAGE_FOLDER if kept_option(context, "of_storage") else ""
    if scheme_of(value) in ("http", "https"):
        return open_shelf(_below(value, inside) if inside else value)
    try:
        return given_path(value) / inside
    except ValueError as error:
        raise InputError("--tables", value, str(error)) from None


def _below(url: str, inside: str) -> str:
    """The URL of a folder in that of a URL; a file is named as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # what is wrong with it is said by who opens it
    if parts.path.endswith(".json"):
        return url
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{inside}/"))


def _published(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        if value:
            check_published(value)
    except ValueError as error:
        raise InputError("--uri", value, str(error)) from None
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


STORAGE_FOLDER = "storage"  # inside that of the tables: of the pool for storing
NEEDS_RPC = "--rpc URL is needed (or SPAREHIVE_RPC in the environment): a node of the run's chain"


def keep_option(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """For the option that this one belongs to, which is looked at later (see `is_eager`)."""
    context.meta[f"sparehive.{parameter.name}"] = value


def kept_option(context: click.Context, name: str, otherwise: Any = None) -> Any:
    """What `keep_option` has kept."""
    return context.meta.get(f"sparehive.{name}", otherwise)


def _nodes(context: click.Context, parameter: click.Parameter, urls: tuple[str, ...]) -> Nodes:
    found = _nodes_if_any(context, parameter, urls)
    if found is None:
        raise click.UsageError(NEEDS_RPC)
    return found


def _nodes_if_any(context: click.Context, parameter: click.Parameter, urls: tuple[str, ...]) -> Nodes | None:
    given = tuple(urls)
    if not given:
        return None
    return Nodes(
        given,
        kept_option(context, "rpc_timeout"),
        kept_option(context, "max_age"),
        kept_option(context, "wait", WAIT_SECONDS),
    )


def rpc_option(command: Command) -> Command:
    """--rpc, with what belongs to it: `Nodes`. A provider's key stands in the URL, so the environment may hold it."""
    return _with_nodes(command, _nodes)


def optional_rpc_option(command: Command) -> Command:
    """As `rpc_option`; None where there is none."""
    return _with_nodes(command, _nodes_if_any)


def _with_nodes(command: Command, callback: Callable[..., Any]) -> Command:
    own: dict[str, Any] = {"is_eager": True, "expose_value": False, "callback": keep_option, "metavar": "SECONDS"}
    command = click.option(
        "--max-age",
        type=click.FloatRange(min=1),
        help="How old the node's newest block may be (default: 3600; on development chains any age).",
        **own,
    )(command)
    command = click.option(
        "--rpc-timeout",
        type=click.FloatRange(min=1),
        default=COMMAND_SECONDS,
        show_default=True,
        help="How long to wait for answers of the node, all of them together.",
        **own,
    )(command)
    return click.option(
        "--rpc",
        multiple=True,
        metavar="URL",
        envvar="SPAREHIVE_RPC",
        callback=callback,
        help="JSON-RPC of a node of the run's chain; several have to agree. Or set SPAREHIVE_RPC: others see command lines.",
    )(command)


latest_option = click.option(
    "--latest",
    is_flag=True,
    help="Read the newest block instead of the newest final one (a reorganisation may undo it).",
)
run_option = click.option(
    "--run", "run", type=PATH, help="The run's directory, or its chain.json: where the contracts are."
)


@dataclass(frozen=True)
class NamedSettlement:
    """--settlement, and the chain that it is on, where somebody says it: never a node."""

    text: str
    chain_id: int | None


def _named_settlement(context: click.Context, parameter: click.Parameter, text: str | None) -> NamedSettlement | None:
    chain_id = kept_option(context, "chain_id")
    if text is None and chain_id is not None:
        raise click.UsageError("--chain-id goes with --settlement; --run, --invite and --dir say it themselves")
    return None if text is None else NamedSettlement(text, chain_id)


def settlement_option(command: Command) -> Command:
    """--settlement and --chain-id: `NamedSettlement`."""
    command = click.option(
        "--chain-id",
        type=click.IntRange(1),
        is_eager=True,
        expose_value=False,
        callback=keep_option,
        help="With --settlement: the chain that it is on (1: Ethereum; 31337: a local one), unless --invite says it.",
    )(command)
    return click.option(
        "--settlement",
        metavar="ADDRESS",
        callback=_named_settlement,
        help="The settlement's address, where there is no chain.json.",
    )(command)


def _keep_and_take(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    keep_option(context, parameter, value)
    return value


storage_option = click.option(
    "--storage",
    "of_storage",
    is_flag=True,
    is_eager=True,
    callback=_keep_and_take,
    help="The run's pool for storing, which is apart from that for work (its tables: in `storage` inside --tables).",
)
tables_option = click.option(
    "--tables",
    default="tables",
    show_default=True,
    metavar="FOLDER|URL",
    help="Where the published tables are.",
    callback=_shelf,
)
uri_option = click.option(
    "--uri", default="", callback=_published, help="The URL at which others will find the tables; written on chain."
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
    """--max-fee, --dry-run and --wait, of what sends."""
    command = click.option(
        "--wait",
        type=click.FloatRange(min=1),
        default=WAIT_SECONDS,
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=keep_option,
        metavar="SECONDS",
        help="How long a transaction may take into a block.",
    )(command)
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


@dataclass(frozen=True)
class Count:
    """As given, as 1.5M, and what that is."""

    text: str
    number: int


class _CountType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "count"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Count:
        from peers.planning import parse_count

        if isinstance(value, Count):
            return value
        try:
            return Count(str(value), parse_count(str(value)))
        except ValueError as error:
            self.fail(f"{value!r} {error}", parameter, context)


class _BytesType(_CountType):
    """Bytes as disks and lines are sold: 50GB, 1.5TB; 512MiB for powers of two; a bare number, or as counts are given."""

    name = "bytes"
    _UNITS: ClassVar = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    _BINARY: ClassVar = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Count:
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:([kMGT]?)B|([KMGT])iB)", str(value))
        if isinstance(value, Count) or found is None:
            return super().convert(value, parameter, context)
        factor = self._BINARY[found[3]] if found[3] else self._UNITS[found[2]]
        number = Decimal(found[1]) * factor
        if number < 1 or number >= 2**53 or number != number.to_integral_value():
            self.fail(f"{value!r} is no number of bytes: give e.g. 50GB, 1.5TB or 512MiB", parameter, context)
        return Count(str(value), int(number))


COUNT, BYTES = _CountType(), _BytesType()
AMOUNT, AMOUNT_OR_ZERO = _AmountType(), _AmountType(may_be_zero=True)


def show(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """The result for programs, or lines for people."""
    click.echo(json.dumps(result) if as_json else printable_lines("\n".join(lines)))


def note(line: str) -> None:
    """A word beside the result, for who sits there."""
    click.echo(printable_lines(f"note: {line}"), err=True)


def address(account: bytes | None) -> str | None:
    return to_checksum(account) if account is not None else None


def reading(state: RunState) -> dict[str, Any]:
    """Which block all of a result was read at, and how old that is, for programs."""
    return {"block": state.block, "block_time": state.block_time, "block_age_seconds": _age(state)}


def at_block(state: RunState) -> str:
    """The same for people."""
    return f"at block {state.block}, {in_words(_age(state))} old"


def _age(state: RunState) -> int:
    """By this machine's clock; a block ahead of it is new."""
    return max(0, int(time.time()) - state.block_time)
