"""What a published model is worth to somebody's little text: adapters, all weights and noise, each by a swarm of three real peers.

    python -m benchmarks.transfer build/transfer

One table; losses are held-out, in nats per token, bytes what three peers sent in all and what a contribution has.
"""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from peers.demo import Demo, everything_ends
from peers.demo_transfer import (
    ADAPTER,
    PRETRAINING_UNITS,
    TUNING_LR,
    TUNING_UNITS,
    Trained,
    TransferDemo,
    write_language_reference,
)

FULL_LR = 2e-3  # for whole weights that are trained already


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--pretraining", default=PRETRAINING_UNITS, show_default=True, help="Units of the first run.")
@click.option("--units", default=TUNING_UNITS, show_default=True, help="Units of each of the others.")
@click.option("--text", type=click.Path(path_type=Path), help="The little text (default: of the language reference).")
def main(root: Path, pretraining: int, units: int, text: Path | None) -> None:
    root.mkdir(parents=True)
    console = Console(file=sys.stderr)
    demo = Demo(root.resolve(), console, cache=root.resolve() / "cache")
    with everything_ends(demo):
        swarms = TransferDemo(demo, text or write_language_reference(root / "language-reference.txt"))
        base = swarms.pretrain(pretraining)
        found = {
            "adapters": swarms.tune("adapters", units, base, TUNING_LR, *ADAPTER),
            "all weights": swarms.tune("all", units, base, FULL_LR),
            "from noise": swarms.from_noise("noise", units, base),
        }
    console.print(_table(found))
    click.echo(json.dumps({name: trained.json_value() for name, trained in found.items()}))


def _table(found: dict[str, Trained]) -> Table:
    whole = found["all weights"]
    table = Table(title="The same little text, by three peers")
    for heading in (
        "trained",
        "before",
        "after",
        "of all weights",
        "units",
        "a contribution",
        "of all",
        "sent in all",
        "of all",
    ):
        table.add_column(heading, justify="left" if heading == "trained" else "right")
    for name, run in found.items():
        loss, reference = run.losses[-1][2], whole.losses[-1][2]
        table.add_row(
            name,
            f"{run.losses[0][2]:.3f}",
            f"{loss:.3f}",
            f"{loss / reference - 1:+.1%}",
            str(run.units),
            f"{run.contribution_bytes:,}",
            f"{run.contribution_bytes / whole.contribution_bytes:.1%}",
            f"{run.sent_bytes:,}",
            f"{run.sent_bytes / whole.sent_bytes:.1%}",
        )
    return table


if __name__ == "__main__":
    main()
