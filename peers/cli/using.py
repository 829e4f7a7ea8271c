"""Commands that use a model: evaluate, sample."""

import json
from pathlib import Path
from typing import Any

import click

from peers.cli.options import PATH


@click.command("evaluate")
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--data", type=PATH, help="Your own samples, as `run new` takes data (default: what the run holds out).")
@click.option("--text-column", metavar="NAME", help='Which column of --data holds the text (default "text").')
@click.option("--label-column", metavar="NAME", help='Which column of --data holds the label (default "label").')
@click.option(
    "--samples", type=click.IntRange(1, 8192), default=512, show_default=True, help="At most so many are measured."
)
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    directory: Path,
    data: Path | None,
    text_column: str | None,
    label_column: str | None,
    samples: int,
    threads: int,
    as_json: bool,
) -> None:
    """Measure the model in DIR (a folder of `export`, a peer's directory or a run's): as the run began beside the newest certified."""
    named = {column: name for column, name in (("text", text_column), ("label", label_column)) if name is not None}
    if named and data is None:
        raise click.UsageError("--text-column and --label-column are of --data: give that, or leave them out")
    import torch

    from peers.progressbar import ProgressBar
    from peers.using import evaluate as measure

    torch.set_num_threads(threads)
    result = measure(directory, data, samples, ProgressBar(), named)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _show_table(result)


_ROWS = {"loss": "loss", "perplexity": "perplexity", "accuracy": "accuracy", "macro_f1": "macro F1"}


def _show_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = [name for name in ("base", "tuned") if name in result]
    click.echo(f"{result['task']}, {result['num_samples']} samples ({result['samples']})")
    table = Table()
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for key, shown in _ROWS.items():
        if any(key in result[column] for column in columns):
            table.add_row(shown, *(_shown(key, result[column].get(key)) for column in columns))
    Console().print(table)


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if key == "accuracy" else f"{value:.4g}"


@click.command("sample")
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--prompt", help="Text to go on with, to answer, or to label.")
@click.option(
    "--file", type=PATH, help="The same from a file; an image, or a table whose rows are labelled one by one."
)
@click.option(
    "--tokens", type=click.IntRange(1, 65536), default=120, show_default=True, help="At most so many are written."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    default=0.8,
    show_default=True,
    help="0: always the likeliest token.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Another one is another text."
)
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sample(
    directory: Path,
    prompt: str | None,
    file: Path | None,
    tokens: int,
    temperature: float,
    seed: int,
    threads: int,
    as_json: bool,
) -> None:
    """Ask the model in DIR (a folder of `export`, a peer's directory or a run's): it writes text, or gives the label of a text or an image
    with its probability."""
    if (prompt is None) == (file is None):
        raise click.UsageError("give either --prompt TEXT or --file PATH")
    import torch

    from peers.progressbar import ProgressBar
    from peers.using import sample as ask
    from swarm.tasks import Manner

    torch.set_num_threads(threads)
    answers = ask(directory, prompt, file, Manner(tokens, temperature, seed), ProgressBar())
    if as_json:
        click.echo(json.dumps(answers))
        return
    for answer in answers:
        if "label" in answer:
            click.echo(f"{answer['given']}: {answer['label']} ({answer['probability']:.1%})")
        else:
            click.echo(answer["text"])
