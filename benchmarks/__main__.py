"""`python -m benchmarks` (`make bench`): hivemind.Optimizer as shipped beside Sparehive, at the same time, in pairs.

Both systems of a pair train the same model on the same text for the same number of samples, each on lines of its own, so
that both meet the same machine. docs/benchmarks.md says how to read the table.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks import wan
from benchmarks.swarms import Counters, SparehiveSwarm, Swarm, SwarmFailed, hivemind_variant, run_alone
from benchmarks.table import Measured, build_table, markdown, not_measured, rows, write_results
from benchmarks.trees import Sampler
from benchmarks.workload import CHECKOUT, Workload

SYSTEMS: dict[str, Callable[..., Swarm]] = {
    "sparehive": SparehiveSwarm,
    "hivemind default": hivemind_variant("default"),
    "hivemind delayed": hivemind_variant("delayed"),
    "hivemind local": hivemind_variant("local"),
}
LOOPBACK = "loopback"
LOSS_SECONDS = 20.0
STOP_SECONDS = 12.0  # of a wave's time, to end everything
REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Wave:
    """What runs at the same time."""

    peers: int
    line: str
    systems: tuple[str, ...]


@dataclass
class Bench:
    console: Console
    root: Path
    program: Path | None  # the emulator; None: not allowed here
    rate: wan.LineRate
    work: dict[int, Workload]
    alone: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """Make the runs and take the pace of a lone trainer, while nothing else runs."""
        for n, work in self.work.items():
            work.make_run(self.root / f"run{n}")
        n, work = next(iter(self.work.items()))
        self.alone = run_alone(self.root, self.root / f"run{n}", work)
        self.console.print(
            f"alone: {self.alone_steps_per_second:.2f} steps/s, of each step "
            f"{self.alone['inner_seconds'] / self.alone['inner_steps'] * 1e3:.0f} ms computing; "
            f"loss {self.alone['loss']:.3f} after {self.alone['steps']} steps"
        )

    @property
    def alone_steps_per_second(self) -> float:
        return float(self.alone["inner_steps"] / self.alone["training_seconds"])

    def run(self, arguments: argparse.Namespace, why_not: str, begun: float, ends_at: float) -> list[Measured]:
        """All waves; each may use its share of the time that is left."""
        waves = plan("" if why_not else str(self.rate), arguments.peers, arguments.quick)
        if arguments.systems:
            chosen = [Wave(w.peers, w.line, tuple(s for s in w.systems if s in arguments.systems)) for w in waves]
            waves = [wave for wave in chosen if wave.systems]
        todo = [(repeat, wave) for repeat in range(arguments.repeats) for wave in waves]
        results: list[Measured] = []
        for at, (repeat, wave) in enumerate(todo):
            now = time.monotonic()
            share = (ends_at - now) / (len(todo) - at)
            self.console.print(
                f"[dim]{now - begun:4.0f} s[/]  {wave.peers} peers, {wave.line}: {', '.join(wave.systems)}"
            )
            results += self.run_wave(wave, repeat, now + share)
        return results

    @contextlib.contextmanager
    def places(self, wave: Wave) -> Iterator[list[wan.Place]]:
        if wave.line == LOOPBACK or self.program is None:
            with wan.loopback(self.program, wave.peers + 1) as places:
                yield places
        else:
            with wan.line(self.program, wave.peers + 1, self.rate) as places:
                yield places

    def run_wave(self, wave: Wave, repeat: int, ends_at: float) -> list[Measured]:
        """All systems of the wave at once, until the monotonic time `ends_at`; those that fail are told and left out."""
        found: dict[str, Measured] = {}
        failures: dict[str, str] = {}

        def one(system: str) -> None:
            try:
                found[system] = self.measure(wave, system, repeat, ends_at - STOP_SECONDS)
            except (SwarmFailed, wan.WanUnavailable, OSError, subprocess.SubprocessError) as error:
                failures[system] = f"{error}"

        threads = [threading.Thread(target=one, args=(system,), name=system) for system in wave.systems]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self.cancelled.set()
            for thread in threads:
                thread.join()
            raise
        for system, why in failures.items():
            self.failures.append(f"{system}, {wave.peers} peers, {wave.line}: {why}")
            self.console.print(f"[red]{self.failures[-1]}[/]")
        return [found[system] for system in wave.systems if system in found]

    def measure(self, wave: Wave, system: str, repeat: int, ends_at: float) -> Measured:
        work = self.work[wave.peers]
        name = f"{wave.peers}-{wave.line.split()[0].replace('/', '-')}-{system.replace(' ', '-')}-{repeat}"
        with self.places(wave) as places, Sampler() as sampler:
            swarm = SYSTEMS[system](
                self.root / name, self.root / f"run{wave.peers}", work, places, cancelled=self.cancelled
            )
            swarm.root.mkdir(parents=True)
            with swarm.running():
                trees = [sampler.watch(pid) for pid in swarm.pids()]
                time.sleep(1.0)  # both counters below have been sampled once
                cpu = [tree.cpu_seconds for tree in trees]
                sent = self._sent(places)
                counters = swarm.counters()
                psutil.cpu_percent()
                begun = time.monotonic()
                swarm.go()
                while not swarm.finished() and time.monotonic() < ends_at:
                    swarm.check()
                    time.sleep(0.2)
                seconds = time.monotonic() - begun
                busy = psutil.cpu_percent() / 100
                used = [tree.cpu_seconds - before for tree, before in zip(trees, cpu, strict=True)]
                sent = [after - before for after, before in zip(self._sent(places), sent, strict=True)]
                trained = [after.since(before) for after, before in zip(swarm.counters(), counters, strict=True)]
                is_finished = swarm.finished()
                waited = time.monotonic() + (LOSS_SECONDS if is_finished else 0.0)
                while (loss := swarm.loss()) is None and time.monotonic() < waited:
                    time.sleep(0.2)
                epochs, samples = swarm.epochs(), swarm.samples()
        return Measured(
            system=system,
            peers=wave.peers,
            line=wave.line,
            repeat=repeat,
            is_finished=is_finished,
            seconds=seconds,
            epochs=epochs,
            samples=samples,
            utilisation=_mean([c.utilisation for c in trained]),
            utilisation_least=min(c.utilisation for c in trained),
            speed=self._speed(trained),
            sent_bytes_per_peer=sum(sent[1:] if len(sent) > 1 else sent) / wave.peers,
            sent_bytes_base=sent[0] if len(sent) > 1 else None,
            loss=loss,
            cpu_seconds_per_peer=_mean(used),
            cpu_share=busy,
            peak_rss_bytes_per_peer=_mean([tree.peak_rss_bytes for tree in trees]),
            peak_pss_bytes_per_peer=_mean([tree.peak_pss_bytes for tree in trees]),
        )

    def _sent(self, places: list[wan.Place]) -> list[float]:
        """One number per place; one in all where they share an interface."""
        own = [places[0]] if places[0].device == "lo" else places
        return [float(place.sent_bytes()) for place in own]

    def _speed(self, trained: list[Counters]) -> float:
        return _mean([c.steps_per_second for c in trained]) / self.alone_steps_per_second


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def plan(line: str, peers: list[int], is_quick: bool) -> list[Wave]:
    """Pairs everywhere; where the swarms are smallest, on the line, hivemind tuned as well."""
    pair = ("sparehive", "hivemind default")
    lines = [LOOPBACK, line] if line else [LOOPBACK]
    full = (min(peers), lines[-1])
    return [
        Wave(n, where, tuple(SYSTEMS) if (n, where) == full and not is_quick else pair)
        for n in peers
        for where in lines
    ]


def about(arguments: argparse.Namespace, bench: Bench, why_not: str, seconds: float) -> dict[str, Any]:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    cpu = next((r.split(":")[1].strip() for r in _cpuinfo() if r.startswith("model name")), platform.processor())
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "commit": git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else ""),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("hivemind", "torch", "transformers", "numpy")},
        },
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}"},
        "load_before": arguments.load_before,
        "line": asdict(bench.rate),
        "line_refused": why_not,
        "workload": {str(n): asdict(w) for n, w in bench.work.items()},
        "alone": bench.alone,
        "failures": bench.failures,
        "seconds": round(seconds, 1),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--epochs", type=int, default=Workload.epochs, help="averagings per swarm (default %(default)s)"
    )
    parser.add_argument("--peers", type=int, nargs="+", default=[2, 4], help="sizes of the swarms (default 2 4)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="for everything; who is late is stopped (default: 10 per repeat)")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), help="only these")
    parser.add_argument("--quick", action="store_true", help="leave out the tuned rows of hivemind")
    parser.add_argument("--no-line", action="store_true", help="loopback only")
    parser.add_argument("--out", type=Path, help="JSON file (default: benchmarks/results/DATE.json)")
    parser.add_argument("--keep", type=Path, help="keep the swarms' directories here (must not exist)")
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.repeats, *arguments.peers) < 1:
        parser.error("--epochs, --peers and --repeats must be at least 1")
    if max(arguments.peers) >= wan.MAX_PLACES:
        parser.error(f"--peers must be below {wan.MAX_PLACES}: one more place is the seed's")
    if arguments.keep and arguments.keep.exists():
        parser.error(f"--keep {arguments.keep}: exists already")
    arguments.minutes = arguments.minutes or 10.0 * arguments.repeats
    arguments.load_before = round(os.getloadavg()[0], 2)
    return arguments


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=None if sys.stdout.isatty() else 120)
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        if arguments.keep:
            root = arguments.keep.resolve()
            root.mkdir(parents=True)
        else:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparehive-bench-")))
        why_not = "asked not to" if arguments.no_line else wan.refused()
        program = None if why_not else wan.build(root / "wan")
        work = {n: Workload(n, epochs=arguments.epochs) for n in arguments.peers}
        bench = Bench(console, root, program, wan.LineRate(), work)
        if why_not:
            console.print(f"[yellow]no emulated line: {why_not}; loopback only[/]")
        bench.prepare()
        results = bench.run(arguments, why_not, begun, begun + 60 * arguments.minutes - REPORT_SECONDS)
        found = rows(results)
        if why_not:
            found += [not_measured(n, str(bench.rate), why_not) for n in arguments.peers]
        seconds = time.monotonic() - begun
        described = about(arguments, bench, why_not, seconds)
        out = arguments.out or Path(__file__).parent / "results" / f"{described['date'][:19].replace(':', '')}.json"
        write_results(out, described, results)
        out.with_suffix(".md").write_text(markdown(found) + "\n", encoding="utf-8")
        console.print(build_table(found, f"hivemind.Optimizer beside Sparehive ({seconds:.0f} s)"))
        console.print(f"[dim]what it means: docs/benchmarks.md; all numbers: {out}[/]")
    if bench.failures:
        sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("benchmarks: stopped")
    except SwarmFailed as error:
        sys.exit(f"benchmarks: {error}")
