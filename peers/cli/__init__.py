"""The commands. Each is imported only when it is called, so that `sparehive rewards` starts without torch."""

import importlib
import json
import os
import sys
from typing import NoReturn

import click

from peers.descriptors import STDOUT, take_standard_descriptors
from peers.errors import in_one_line, one_line

# Name → (its module here, what it does). In the module the command has its name, with "run_" before it in the group `run`.
_COMMANDS = {
    "join": ("training", "Join a training run with an invite."),
    "seed": ("training", "Start a bootstrap peer (a founder) and print the invite."),
    "store": ("storing", "Keep a run's content for others, and be paid for it."),
    "export": ("training", "Write the trained model as a folder for transformers."),
    "evaluate": ("using", "Measure a model: as the run began beside the newest certified."),
    "sample": ("using", "Let a model write text, or label texts and images."),
    "fetch": ("content", "Fetch a file or folder by its CID, each block checked."),
    "gateway": ("content", "Hand out blocks over HTTP to whoever asks by CID."),
    "ipfs": ("content", "Hand out blocks over libp2p, as an IPFS node."),
    "demo": ("training", "Train, settle and claim on this machine, in five minutes."),
    "settle": ("settling", "Close a period: publish the tables and propose their roots."),
    "bind": ("binding", "Bind a peer's hot key to your wallet."),
    "rewards": ("earning", "Show what is pending, in window, claimable and claimed."),
    "claim": ("claiming", "Claim your rewards, or push them to others."),
    "unstick": ("unsticking", "Show what a key has sent that is in no block; pay more, or take it back."),
    "verify": ("verifying", "Rebuild the published tables and compare them with the chain."),
    "books": ("booking", "Write a page in which anybody looks up an account."),
    "wallet": ("binding", "Make a wallet's key file, or show its address."),
    "data publish": ("datasets", "Make a data set of files; others name it by its CID."),
    "data list": ("datasets", "Show what was published from a store."),
    "data show": ("datasets", "Show a data set's licence, owners and files."),
    "data withdraw": ("datasets", "Hand a data set out no more."),
    "car export": ("content", "Write content as a CAR, the file that IPFS programs hand on."),
    "car import": ("content", "Check a CAR and put its blocks into a store."),
    "run new": ("training", "Make a run.toml from a text and a model size."),
    "run check": ("training", "Check a run.toml and print what it asks of a peer."),
    "run baseline": ("training", "Train alone on the run's data, to compare."),
    "run replay": ("training", "Redo a contribution that a peer has kept, as an auditor would."),
    "run deploy": ("organising", "Deploy the run's contracts."),
    "run fund": ("organising", "Put tokens into the run's pool."),
    "run status": ("organising", "Show the run's periods and money on chain."),
    "model publish": ("selling", "Encrypt a model and offer licences of it on chain."),
    "model offer": ("selling", "Change the price and term of a model, or close the sale."),
    "model hold": ("holding", "Hold shares of models' keys, and give them to buyers."),
    "model buy": ("buying", "Buy a licence of a model, and open it."),
    "model earnings": ("royalties", "Show and collect what models owe a wallet."),
    "model serve": ("serving", "Let a model answer whoever has a licence."),
    "model ask": ("serving", "Ask a model that is served to its licensees."),
    "model proxy": ("serving", "Let programs that know OpenAI's interface use a served model."),
    "model fetch": ("buying", "Fetch the encrypted blocks of a model."),
    "model open": ("buying", "Decrypt a model that was bought."),
    "model list": ("market", "List the models that are offered on a chain."),
    "model show": ("market", "Show a model's offer, split and key holders."),
    "model verify": ("market", "Compare a model's files and manifest with the chain."),
}


class LazyGroup(click.Group):
    """A group that knows its commands from the table, where they stand with `prefix`, and imports a command when it is asked for."""

    def __init__(self, *args: object, prefix: str = "", **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        named = (name.removeprefix(self.prefix) for name in _COMMANDS if name.startswith(self.prefix))
        return sorted([*(name for name in named if " " not in name), *self.commands])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        full = self.prefix + name
        if full not in _COMMANDS or " " in name:
            return super().get_command(ctx, name)
        module = importlib.import_module(f"peers.cli.{_COMMANDS[full][0]}")
        found = getattr(module, full.replace(" ", "_"))
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            group = self.commands.get(name)
            rows.append((name, group.short_help or "" if group else _COMMANDS[self.prefix + name][1]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sparehive")
def cli() -> None:
    """Sparehive: train models together on spare computers, and get paid for it."""


@cli.group("run", cls=LazyGroup, prefix="run ", short_help="Define, deploy, fund and follow a run.")
def run_group() -> None:
    """Define, deploy, fund and follow a run."""


@cli.group("data", cls=LazyGroup, prefix="data ", short_help="Publish and look at data sets by their CID.")
def data_group() -> None:
    """Publish and look at data sets by their CID."""


@cli.group("car", cls=LazyGroup, prefix="car ", short_help="Hand content on as one file, to any IPFS program.")
def car_group() -> None:
    """Hand content on as one file, to any IPFS program."""


@cli.group("model", cls=LazyGroup, prefix="model ", short_help="Sell, buy, hold and serve trained models.")
def model_group() -> None:
    """Sell, buy, hold and serve trained models."""


def _known_errors() -> tuple[type[Exception], ...]:
    """The error trees of whatever has been imported: the base install has no torch, so nothing is imported for this."""
    found: list[type[Exception]] = [OSError]
    for module, name in (
        ("swarm.errors", "SwarmError"),
        ("incentives.errors", "IncentivesError"),
        ("peers.errors", "PeerError"),
    ):
        if module in sys.modules and hasattr(sys.modules[module], name):
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _check_working_directory() -> None:
    """Libraries that look for their own files there would end the process with words of their own."""
    try:
        os.getcwd()
    except OSError:
        fail("the current directory no longer exists: cd into another", 1, "OSError")


def fail(text: str, status: int, kind: str) -> NoReturn:
    """One line on stderr: for people, or where the command was given --json, a JSON object. `kind`: the error's type."""
    if "--json" in sys.argv[1:]:
        print(json.dumps({"error": text, "kind": kind, "exit_status": status}), file=sys.stderr)
    else:
        print(f"sparehive: {text}", file=sys.stderr)
    sys.exit(status)


def main() -> None:
    """Entry point: user errors become one line on stderr (see `fail`) and exit status 1 (2 for wrong usage)."""
    take_standard_descriptors()
    _check_working_directory()
    try:
        try:
            cli.main(prog_name="sparehive", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:
            print(error.format_message())
        sys.stdout.flush()
    except click.UsageError as error:
        fail(f"{one_line(error.format_message())} (see --help)", 2, type(error).__name__)
    except click.ClickException as error:
        fail(one_line(error.format_message()), 1, type(error).__name__)
    except (click.Abort, KeyboardInterrupt):
        fail("stopped", 130, "Abort")
    except ModuleNotFoundError as error:
        if error.name not in (
            "torch",
            "hivemind",
            "transformers",
            "bitsandbytes",
            "safetensors",
            "matplotlib",
            "psutil",
            "numpy",
        ):
            raise
        fail(
            f"this command needs {error.name}: pip install 'sparehive[peer]' (until it is on PyPI: '.[peer]' in a checkout)",
            1,
            "ModuleNotFoundError",
        )
    except Exception as error:
        if isinstance(error, OSError) and error.filename == STDOUT:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python tries again at its end, and says so at length
            if isinstance(error, BrokenPipeError):
                sys.exit(1)  # who reads no further (`| head`) has what it wanted
        if isinstance(error, _known_errors()):
            fail(in_one_line(error), 1, type(error).__name__)
        raise
    sys.exit(0)
