"""What a settlement takes: seconds on one core and peak memory, by number of receipts, the earlier way beside it.

    python -m benchmarks.settling                                  # 1000x10 and 200x500, a minute
    python -m benchmarks.settling --sizes 200x500 1000x250         # peers x epochs
    python -m benchmarks.settling --curve                          # to 1,000,000 receipts, in as many periods as files need: hours
    python -m benchmarks.settling --curve 10000                    # to that many
    python -m benchmarks.settling --against FOLDER --old 1000x2    # an earlier checkout in the same run

Each step runs in a process of its own (`benchmarks.settling_step`), so that peak memory is its own; web3 is imported in it, as in
the commands. Seconds are of the processor: they do not count what else the machine does, but rise where two threads share a core."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.synthetic_books import Size, make

ROOT = Path(__file__).parents[1]
STEPS = ("settle", "again", "verify", "rewards", "claim")


CURVE_PEERS, CURVE_EPOCHS = 1000, (1, 3, 10, 30, 100, 300, 1000)


def measure(step: str, size: Size, folder: Path, root: Path = ROOT, more: Sequence[str] = ()) -> dict[str, float]:
    """One step in a process of its own, by the code in `root`."""
    command = [
        sys.executable,
        ROOT / "benchmarks" / "settling_step.py",
        step,
        folder / f"{size}.sqlite",
        folder / f"{size}-{root.name}",
        *more,
    ]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=3600,
        encoding="utf-8",
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def row(name: str, size: Size, step: str, found: dict[str, float], nothing: dict[str, float]) -> str:
    each = (found["cpu"] - nothing["cpu"]) / size.receipts * 1e6
    return (
        f"| {name} | {size} | {size.receipts:,} | {step} | {found['cpu']:.1f} | {each:,.0f} | {found['peak_mb']:.0f} |"
    )


def growth(points: Sequence[tuple[int, float]]) -> list[str]:
    """The power of the number of receipts by which seconds grow, from each size to the next: 1 is in proportion."""
    return [
        f"{smaller[0]:,} to {larger[0]:,}: {math.log(larger[1] / smaller[1]) / math.log(larger[0] / smaller[0]):.2f}"
        for smaller, larger in pairwise(points)
        if min(smaller[1], larger[1]) > 0
    ]


def curve(most: int, folder: Path, steps: Sequence[str], more: Sequence[str]) -> None:
    """Sizes up to `most` receipts, one after the other, and how each step grows."""
    points: dict[str, list[tuple[int, float]]] = {step: [] for step in steps}
    for size in [Size(CURVE_PEERS, epochs) for epochs in CURVE_EPOCHS if CURVE_PEERS * epochs <= most]:
        if not (folder / f"{size}.sqlite").exists():
            make(folder / f"{size}.sqlite", size)
        nothing = measure("nothing", size, folder)
        for step in steps:
            found = measure(step, size, folder, more=more)
            print(row(f"{found['periods']} periods", size, step, found, nothing), flush=True)
            points[step].append((size.receipts, found["cpu"] - nothing["cpu"]))
    for step, each in points.items():
        print(f"\n{step} grows with the receipts to the power of: " + "; ".join(growth(each)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=Size.of, default=[Size(1000, 10), Size(200, 500)])
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS)
    parser.add_argument("--against", type=Path, help="an earlier checkout")
    parser.add_argument(
        "--old", nargs="*", type=Size.of, default=[Size(1000, 2)], help="sizes for the earlier checkout"
    )
    parser.add_argument("--books", type=Path, help="where the books are kept for another time")
    parser.add_argument("--curve", nargs="?", type=int, const=1_000_000, help="sizes up to so many receipts")
    parser.add_argument("--max-file-bytes", type=int, help="with --curve: as of `sparehive settle`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.books or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(
            "| code | peers x epochs | receipts | step | seconds | µs per receipt | peak MB |\n|---|---|---|---|---|---|---|"
        )
        if options.curve:
            steps = [step for step in options.steps if step != "again"]  # of one period alone
            limit = [] if options.max_file_bytes is None else [str(options.max_file_bytes)]
            curve(options.curve, folder, steps, limit)
            return
        ways = [("now", ROOT, options.sizes + (options.old if options.against else []), options.steps)]
        if options.against:
            ways.insert(0, ("before", options.against.resolve(), options.old, ("settle", "verify", "rewards")))
        for name, root, sizes, steps in ways:
            for size in sizes:
                if not (folder / f"{size}.sqlite").exists():
                    make(folder / f"{size}.sqlite", size)
                nothing = measure("nothing", size, folder, root)
                print(row(name, size, "imports alone", nothing, nothing), flush=True)
                for step in steps:
                    print(row(name, size, step, measure(step, size, folder, root), nothing), flush=True)


if __name__ == "__main__":
    main()
