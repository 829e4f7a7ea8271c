"""`make test-slow`: every attack many times, in drawn order and at drawn moments; the table says how often each was held.

    python -m tests.hostile.repeat [--times 20] [--first-seed 0]

The table goes to tests/hostile/repeated.md after each run; what failed, with its output, beside it into build/hostile/.
"""

import argparse
import datetime
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.progress import track

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
TABLE = HERE / "repeated.md"
OUTPUT = REPOSITORY / "build" / "hostile"
WHOLE_RUN = "(the run came to its end)"


def run_once(seed: int) -> dict[str, tuple[bool, float]]:
    """Test → whether it passed, and its seconds. What was skipped or not reached is in no row; a run that ends before its end has a
    row of its own."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = OUTPUT / f"{seed}.xml"
    report.unlink(missing_ok=True)  # of an earlier time: it would be taken for this one's
    command = [sys.executable, "-m", "pytest", "tests/hostile", f"--moments={seed}", f"--junitxml={report}"]
    with open(OUTPUT / f"{seed}.txt", "w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, check=False)
    found = {WHOLE_RUN: (done.returncode in (0, 1), 0.0)}  # 1: some failed, all were run
    if report.exists():
        found |= results_of(report)
    return found


def results_of(report: Path) -> dict[str, tuple[bool, float]]:
    """Of JUnit XML. A test that passed and whose end failed is there twice."""
    found: dict[str, tuple[bool, float]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"
        passed, seconds = found.get(name, (True, 0.0))
        passed = passed and case.find("failure") is None and case.find("error") is None
        found[name] = (passed, seconds + float(case.get("time", "0")))
    return found


def table(results: dict[str, list[tuple[bool, float]]], seeds: list[int], load: float) -> str:
    """As Markdown."""
    day = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"# Attacks, repeated: {day}, seeds {seeds[0]} to {seeds[-1]}, mean load {load:.1f} on {os.cpu_count()} cores",
        "",
        "| attack | held | seconds (median, most) |",
        "|---|---|---|",
    ]
    for name, found in sorted(results.items()):
        seconds = [each for _, each in found]
        held = sum(passed for passed, _ in found)
        lines.append(f"| `{name}` | {held} of {len(found)} | {statistics.median(seconds):.0f}, {max(seconds):.0f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    results: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    seeds, loads = list(range(arguments.first_seed, arguments.first_seed + arguments.times)), []
    console = Console(stderr=True)
    for number, seed in enumerate(track(seeds, "attacks", console=console), 1):
        for name, found in run_once(seed).items():
            results[name].append(found)
        loads.append(os.getloadavg()[1])
        TABLE.write_text(table(results, seeds[:number], statistics.mean(loads)), encoding="utf-8")
    failed = {name: found for name, found in results.items() if not all(passed for passed, _ in found)}
    for name in failed:
        console.print(f"failed: {name}", markup=False)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
