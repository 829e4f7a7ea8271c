"""What a run takes from a volunteer's machine: a seed and peers on emulated home lines, the last peer watched from outside.

    python -m benchmarks.footprint build/small --preset small
    python -m benchmarks.footprint build/base --preset base --peers 1 --epochs 2 --set inner.steps_per_unit=1

Peers are started as volunteers start them, with no option. A setting changes what is measured: fewer steps in an epoch leave
memory as it is, and mean more traffic in the same time. Prints one JSON object; megabytes are 10**6 bytes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks import wan
from benchmarks.swarms import read_json
from benchmarks.trees import Sampler
from benchmarks.workload import CHECKOUT

END_SECONDS = 20.0


@contextlib.contextmanager
def command(place: wan.Place, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`sparehive ARGUMENTS` in its place; ended on leaving, with everything below it."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            place.command(sys.executable, "-m", "peers", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=CHECKOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(what: str, path: Path, process: subprocess.Popen[bytes], ends_at: float, epoch: int = 0) -> None:
    """Until the JSON in `path` is there and says that epoch."""
    while int(read_json(path).get("epoch", 0 if path.exists() else -1)) < epoch:
        if process.poll() is not None or time.monotonic() > ends_at:
            raise click.ClickException(f"{what}: not there in time; see the logs beside {path.parent}")
        time.sleep(0.2)


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def measure(
    root: Path, preset: str, peers: int, epochs: int, seconds: float, settings: tuple[str, ...]
) -> dict[str, Any]:
    """Memory from the watched peer's start on; traffic and processor from its second certified epoch on."""
    root.mkdir(parents=True)
    run, ends_at = root / "run", time.monotonic() + seconds
    options = [part for setting in (f"rounds.min_seated={peers}", *settings) for part in ("--set", setting)]
    new = [sys.executable, "-m", "peers", "run", "new", str(run), "--preset", preset, *options]
    subprocess.run(new, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL, timeout=seconds)
    with contextlib.ExitStack() as stack:
        places = stack.enter_context(wan.line(wan.build(root / "wan"), peers + 1, wan.LineRate()))
        sampler = stack.enter_context(Sampler())
        seed = root / "seed"
        served = stack.enter_context(
            command(places[0], root / "seed.log", "seed", str(run), "--dir", str(seed), "--quiet")
        )
        wait_for("the seed", seed / "ready.json", served, ends_at)
        for number in range(1, peers + 1):
            peer = root / f"peer{number}"
            arguments = ("join", str(seed / "invite.txt"), "--dir", str(peer), "--quiet")
            process = stack.enter_context(command(places[number], root / f"peer{number}.log", *arguments))
        tree, place, status = sampler.watch(process.pid), places[peers], peer / "status.json"
        wait_for("the first averaging", status, process, ends_at, 2)
        first, begun = int(read_json(status)["epoch"]), time.monotonic()
        sent, cpu = place.sent_bytes(), tree.cpu_seconds
        wait_for("the last averaging", status, process, ends_at, first + epochs)
        took, last = time.monotonic() - begun, int(read_json(status)["epoch"])
        return {
            "preset": preset,
            "settings": settings,
            "peers": peers,
            "epochs": last - first,
            "seconds_per_epoch": round(took / (last - first), 1),
            "peak_pss_megabytes": round(tree.peak_pss_bytes / 1e6),
            "peak_rss_megabytes": round(tree.peak_rss_bytes / 1e6),
            "sent_megabytes_per_epoch": round((place.sent_bytes() - sent) / 1e6 / (last - first), 2),
            "cores": round((tree.cpu_seconds - cpu) / took, 2),
            "disk_megabytes": round(disk_bytes(peer) / 1e6, 1),
        }


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=False))
@click.option("--preset", default="demo", show_default=True)
@click.option("--peers", type=click.IntRange(1, wan.MAX_PLACES - 1), default=2, show_default=True, help="That train.")
@click.option("--epochs", type=click.IntRange(1), default=6, show_default=True)
@click.option("--seconds", type=click.FloatRange(1.0), default=900.0, show_default=True, help="At most.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As for `run new`.")
def main(directory: Path, preset: str, peers: int, epochs: int, seconds: float, settings: tuple[str, ...]) -> None:
    if directory.exists():
        raise click.UsageError(f"{directory} exists; choose a new directory")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    try:
        print(json.dumps(measure(directory.resolve(), preset, peers, epochs, seconds, settings)))
    except wan.WanUnavailable as error:
        raise click.ClickException(f"no network namespaces here: {error}") from None


if __name__ == "__main__":
    main()
