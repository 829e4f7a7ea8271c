"""What a settlement takes: seconds on one core and peak memory, by number of receipts, the earlier way beside it.

    python -m benchmarks.settling                                  # 1000x10 and 200x500, a minute
    python -m benchmarks.settling --sizes 200x500 1000x250         # peers x epochs
    python -m benchmarks.settling --against FOLDER --old 1000x2    # an earlier checkout in the same run

Each step runs in a process of its own (`benchmarks.settling_step`), so that peak memory is its own; web3 is imported in it, as in
the commands. Seconds are of the processor: they do not count what else the machine does, but rise where two threads share a core."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.synthetic_books import Size, make

ROOT = Path(__file__).parents[1]
STEPS = ("settle", "again", "verify", "rewards", "claim")


def measure(step: str, size: Size, folder: Path, root: Path = ROOT) -> dict[str, float]:
    """One step in a process of its own, by the code in `root`."""
    command = [
        sys.executable,
        ROOT / "benchmarks" / "settling_step.py",
        step,
        folder / f"{size}.sqlite",
        folder / f"{size}-{root.name}",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=Size.of, default=[Size(1000, 10), Size(200, 500)])
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS)
    parser.add_argument("--against", type=Path, help="an earlier checkout")
    parser.add_argument(
        "--old", nargs="*", type=Size.of, default=[Size(1000, 2)], help="sizes for the earlier checkout"
    )
    parser.add_argument("--books", type=Path, help="where the books are kept for another time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.books or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(
            "| code | peers x epochs | receipts | step | seconds | µs per receipt | peak MB |\n|---|---|---|---|---|---|---|"
        )
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
