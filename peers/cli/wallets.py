"""What the commands that speak to a chain share: options, where the contracts are, whose key signs, printing."""

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from coincurve import PrivateKey

from incentives.chain.deployment import Deployment, check_deployment
from incentives.chain.outbox import Outbox
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.errors import InputError
from incentives.keys import key_account, parse_address, to_checksum, unlock_key
from incentives.records import account_of
from incentives.shelf import open_shelf
from peers.directory import PeerDirectory
from peers.errors import ConfigError
from swarm.errors import SwarmError, printable_lines

if TYPE_CHECKING:
    from incentives.chain.node import Chain
    from incentives.closing import PayRules

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
    "--invite", metavar="TEXT|FILE", help="The run's invite: who may sign, so that signatures are verified too."
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


@dataclass(frozen=True)
class Place:
    """Where a run's money is. `deployment`, read from `path`, is None where only an address (or an invite) was given."""

    settlement: bytes
    chain_id: int | None
    deployment: Deployment | None = None
    path: Path = Path()

    def connect(self, rpc: str) -> "Chain":
        from incentives.chain.node import Chain  # web3 takes half a second: only who talks to a node pays it

        return Chain.connect(rpc, self.chain_id, source=str(self.path) if self.deployment else "")

    def state(self, chain: "Chain", *, finalised: bool = False) -> RunState:
        """The settlement, found to be the one described."""
        state = SettlementContract(chain, self.settlement).state(finalised=finalised)
        if self.deployment is not None:
            check_deployment(state, self.deployment, self.path)
        return state


def find_place(run: Path | None, settlement: str | None = None, directory: Path | None = None) -> Place:
    """From --run, else --settlement, else the peer in --dir: its invite, or the ledger that it has signed for."""
    if run is not None:
        path = run / "chain.json" if run.is_dir() else run
        deployment = Deployment.read(path)
        if run.is_dir():
            _check_same_run(run, deployment)
        return Place(deployment.settlement, deployment.chain_id, deployment, path)
    if settlement is not None:
        return Place(parse_address(settlement), None)
    if directory is not None and PeerDirectory(directory).invite.is_file():
        from peers.invite import Invite

        domain = Invite.of_file(PeerDirectory(directory).invite).binding.domain()
    elif directory is not None and PeerDirectory(directory).ledger.is_file():
        from incentives.ledger import Ledger

        with Ledger.read(PeerDirectory(directory).ledger) as ledger:
            domain = ledger.domain
    elif directory is not None:
        raise InputError("--dir", str(directory), "is no peer's directory: it holds neither an invite nor a ledger")
    else:
        raise click.UsageError("--run, --settlement or --dir is needed, to know where the contracts are")
    if domain.chain_id == 0:
        raise InputError("--dir", str(directory), "its run has no chain: nothing is paid in it")
    return Place(domain.verifying_contract, domain.chain_id)


def _check_same_run(run: Path, deployment: Deployment) -> None:
    """ConfigError where chain.json is of another run than the run.toml beside it: money would go to that one. A run.toml that is not
    there or cannot be read says nothing here."""
    from peers.runs import RunDirectory

    try:
        config = RunDirectory(run).load()
    except (SwarmError, ConfigError):
        return
    RunDirectory(run).check_deployed(config, deployment)


def read_rules(invite: str | None, directory: Path | None) -> "PayRules | None":
    """Who may sign, from --invite or the invite of the peer in --dir; None where neither is there."""
    from incentives.closing import PayRules
    from peers.invite import Invite

    if invite is not None:
        found = Invite.decode(invite)
    elif directory is not None and PeerDirectory(directory).invite.is_file():
        found = Invite.of_file(PeerDirectory(directory).invite)
    else:
        return None
    return PayRules(found.config.run_id, found.config.witnesses, found.binding.founders)


def show(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """The result for programs, or lines for people."""
    click.echo(json.dumps(result) if as_json else printable_lines("\n".join(lines)))


def address(account: bytes | None) -> str | None:
    return to_checksum(account) if account is not None else None


def sender_of(key: PrivateKey) -> str:
    return to_checksum(account_of(key))


def until(seconds: int) -> str:
    """A moment of the chain's clock, for people."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def tokens(amount: int) -> str:
    """For people, for a token with 18 decimals, which nearly all have; JSON has the base units."""
    return f"{amount / 10**18:,.6g} tokens"
