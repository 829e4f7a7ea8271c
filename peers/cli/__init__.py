"""The commands. Each is imported only when it is called, so that `sparehive rewards` starts without torch."""

import importlib
import sys

import click

from peers.descriptors import take_standard_descriptors
from peers.errors import in_one_line, one_line

_CHAIN, _SWARM = "peers.cli.organising", "peers.cli.training"
_COMMANDS = {
    "join": _SWARM,
    "seed": _SWARM,
    "export": _SWARM,
    "demo": _SWARM,
    "settle": _CHAIN,
    "bind": _CHAIN,
    "rewards": _CHAIN,
    "claim": _CHAIN,
    "verify": _CHAIN,
    "wallet": _CHAIN,
}
_RUN_COMMANDS = {
    "new": _SWARM,
    "check": _SWARM,
    "baseline": _SWARM,
    "replay": _SWARM,
    "deploy": _CHAIN,
    "fund": _CHAIN,
    "status": _CHAIN,
}
_SHORT = {
    "join": "Join a training run with an invite.",
    "seed": "Start a bootstrap peer (a founder) and print the invite.",
    "export": "Write the trained model as a folder for transformers.",
    "demo": "Train, settle and claim on this machine, in five minutes.",
    "settle": "Close a period: publish the tables and propose their roots.",
    "bind": "Bind a peer's hot key to your wallet.",
    "rewards": "Show what is pending, in window, claimable and claimed.",
    "claim": "Claim your rewards, or push them to others.",
    "verify": "Rebuild the published tables and compare them with the chain.",
    "wallet": "Make a wallet's key file, or show its address.",
    "run": "Define, deploy, fund and follow a run.",
    "new": "Make a run.toml from a text and a model size.",
    "baseline": "Train alone on the run's data, to compare.",
    "replay": "Redo a contribution that a peer has kept, as an auditor would.",
    "check": "Check a run.toml and print what it asks of a peer.",
    "deploy": "Deploy the run's contracts.",
    "fund": "Put tokens into the run's pool.",
    "status": "Show the run's periods and money on chain.",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and loads a command when it is asked for."""

    def __init__(self, *args: object, table: dict[str, str], attribute: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.table, self.attribute = table, attribute

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.table, *self.commands])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return super().get_command(ctx, name)
        module = importlib.import_module(self.table[name])
        return next((c for c in getattr(module, self.attribute) if c.name == name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _SHORT[name]) for name in self.list_commands(ctx)])


@click.group(
    cls=LazyGroup, table=_COMMANDS, attribute="commands", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="sparehive")
def cli() -> None:
    """Sparehive: train models together on spare computers, and get paid for it."""


@cli.group("run", cls=LazyGroup, table=_RUN_COMMANDS, attribute="run_commands")
def run_group() -> None:
    """Define, deploy, fund and follow a run."""


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


def main() -> None:
    """Entry point: user errors become one line on stderr and exit status 1 (2 for wrong usage)."""
    take_standard_descriptors()
    try:
        cli.main(prog_name="sparehive", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
    except click.UsageError as error:
        print(f"sparehive: {one_line(error.format_message())} (see --help)", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        print(f"sparehive: {one_line(error.format_message())}", file=sys.stderr)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        print("sparehive: stopped", file=sys.stderr)
        sys.exit(130)
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
        print(
            f"sparehive: this command needs {error.name}: pip install 'sparehive[peer]' (until it is on PyPI: '.[peer]' in a checkout)",
            file=sys.stderr,
        )
        sys.exit(1)
    except Exception as error:
        if isinstance(error, _known_errors()):
            print(f"sparehive: {in_one_line(error)}", file=sys.stderr)
            sys.exit(1)
        raise
    sys.exit(0)
