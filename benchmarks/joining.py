"""How long a newcomer takes: from `sparehive join` to its first unit and to its first certificate, on loopback.

    python -m benchmarks.joining build/joining [--set KEY=VALUE …] [--bad slow --bad stale --bad lying]

A seed and two peers train a model of about 10 million parameters; `--bad` adds one of `benchmarks.donors` each. Then a newcomer joins.
Prints one JSON object; seconds are of the wall clock, from the command on.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.donors import KINDS
from benchmarks.footprint import END_SECONDS
from benchmarks.swarms import read_json
from benchmarks.workload import CHECKOUT
from peers.directory import PeerDirectory
from peers.watching import read_events

SETTINGS = {
    "task.model.fields.n_embd": 320,
    "task.model.fields.n_layer": 8,
    "task.data.context": 64,
    "inner.batch_size": 1,
    "inner.steps_per_unit": 2,
    "inner.total_units": 100_000,
    "rounds.units_per_epoch": 8,
    "rounds.min_seated": 2,
}
LOCAL = 'host = "127.0.0.1"\n'


@contextlib.contextmanager
def process(log: Path, *arguments: str) -> Any:
    with open(log, "wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=CHECKOUT,
        )  # fmt: skip
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def until(what: str, ends_at: float, process: Any, holds: Any) -> float:
    """The moment at which `holds()`; ClickException where that takes too long."""
    while not holds():
        if time.monotonic() > ends_at or process.poll() is not None:
            raise click.ClickException(f"{what}: not in time")
        time.sleep(0.05)
    return time.time()


def event_time(directory: PeerDirectory, name: str, own: bool = False) -> float | None:
    """Of the first such event; `own`: that names this peer's contribution."""
    for event in read_events(directory):
        if event["event"] == name and (not own or event["own"]):
            return float(event["time"])
    return None


def measure(
    root: Path, settings: tuple[str, ...], bad: tuple[str, ...], seconds: float, has_text: bool
) -> dict[str, Any]:
    root.mkdir(parents=True)
    run, text, ends_at = root / "run", root / "text.txt", time.monotonic() + seconds
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20_000, encoding="utf-8")
    chosen = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    chosen += [part for setting in settings for part in ("--set", setting)]
    new = [sys.executable, "-m", "peers", "run", "new", str(run), "--preset", "demo", "--data", str(text), *chosen]
    subprocess.run(new, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL, timeout=seconds)
    found: dict[str, Any] = {"bad donors": list(bad), "had the text": has_text}
    with contextlib.ExitStack() as stack:
        seed = PeerDirectory(root / "seed")
        served = stack.enter_context(
            process(
                root / "seed.log", "peers", "seed", str(run), "--dir", str(seed.root), "--host", "127.0.0.1", "--quiet"
            )
        )
        until("seed", ends_at, served, seed.ready.exists)
        for number, kind in enumerate(("", "", *bad)):
            directory = prepared(root / f"peer-{number}", seed, "step_pause_seconds = 1.5\n")
            module = ("benchmarks.donors", kind) if kind else ("peers.peer",)
            stack.enter_context(process(root / f"peer-{number}.log", *module, "join", str(directory.root), "--quiet"))
            until(f"peer {number}", ends_at, served, directory.ready.exists)
        until("epochs", ends_at, served, lambda: int(read_json(seed.status).get("epoch", 0)) >= 3)
        late = prepared(root / "late", seed, "")
        if has_text:
            shutil.copytree(root / "peer-0" / "data", late.data)
        begun = time.time()
        with process(root / "late.log", "peers", "join", "--dir", str(late.root), "--quiet") as joined:
            until("first certificate", ends_at, joined, lambda: event_time(late, "Certified", own=True))
        times = {
            "state is here": event_time(late, "Ready"),
            "first unit": event_time(late, "UnitDone"),
            "first certificate with its work": event_time(late, "Certified", own=True),
        }
        found |= {what: round(at - begun, 1) for what, at in times.items() if at is not None}
    return found


def prepared(root: Path, seed: PeerDirectory, config: str) -> PeerDirectory:
    directory = PeerDirectory(root)
    root.mkdir()
    directory.config.write_text(LOCAL + config, encoding="utf-8")
    directory.invite.write_text(seed.invite.read_text(encoding="utf-8"), encoding="utf-8")
    return directory


@click.command(context_settings={"show_default": True})
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Of the run.")
@click.option("--bad", multiple=True, type=click.Choice(list(KINDS)), help="Donors that hand out badly.")
@click.option("--text/--no-text", "has_text", default=True, help="Whether the newcomer has the run's text already.")
@click.option("--seconds", default=600.0, help="For all of it.")
def main(root: Path, settings: tuple[str, ...], bad: tuple[str, ...], has_text: bool, seconds: float) -> None:
    """How long a newcomer takes."""
    click.echo(json.dumps(measure(root, settings, bad, seconds, has_text), indent=1))


if __name__ == "__main__":
    main()
