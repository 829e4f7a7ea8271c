"""Where the bytes are: memory and seconds of a peer by parts of a round, in multiples of the model's fp32 weights.

    python -m benchmarks.memory                                # one process that does a whole round itself, 7 M parameters
    python -m benchmarks.memory --plain 16                     # the same without a transformer: gradients of chance, 16.8 M parameters
    python -m benchmarks.memory --layers 12                    # 85 M
    python -m benchmarks.memory --layers 12 --swarm build/mem  # a seed and two real peers on loopback: one peer's process tree

Resident memory is what the kernel counts for the process (VmRSS, and VmHWM between two steps): pages of mapped files are in it. In a
swarm it is the proportional set size of the whole tree. Steps are of one thread. Linux only.
"""

import argparse
import hashlib
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.swarms import SparehiveSwarm
from benchmarks.trees import Sampler
from benchmarks.wan import loopback
from benchmarks.workload import Workload
from swarm.audit.archive import Archive
from swarm.averaging.contribution import check_part
from swarm.averaging.merge import MadeContribution, MemberState
from swarm.averaging.parts import PartStore
from swarm.averaging.states import States, longest_averages, pulls, reduce_part
from swarm.checkpoint.anchor import Anchor
from swarm.checkpoint.held import HeldAnchor
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.models import FlatModel
from swarm.optim.codec import part_slices
from swarm.optim.inner import InnerOptimizer
from swarm.records.types import ContributionContent, ContributorLeaf
from swarm.tasks import new_model, open_task
from swarm.train import inner_step

WIDTH, HEADS, CONTEXT, QUICK_LAYERS = 768, 12, 64, 1
PART_VALUES = 1 << 20  # as preset base
TEXT = b"".join(b"def f%d(x): return x * %d + %d\n" % (i, i * 7 % 13, i) for i in range(20_000))
PEER, OTHER = b"\1" * 20, b"\2" * 20


# -- one process ------------------------------------------------------------------------------------------------------
class Steps:
    """Runs steps and keeps what each took: seconds, those of the processor (in user space, and in the kernel), the peak while it ran and
    what is resident after it, in bytes."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def run(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        found = work(*arguments)
        seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
        self.rows.append(
            {
                "step": name,
                "seconds": seconds,
                "user_seconds": after.ru_utime - before.ru_utime,
                "system_seconds": after.ru_stime - before.ru_stime,
                "peak_bytes": _status("VmHWM"),
                "after_bytes": _status("VmRSS"),
            }
        )
        return found


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def make_config(folder: Path, layers: int, batch: int, context: int, optimizer: str) -> RunConfig:
    (folder / "text.txt").write_bytes(TEXT)
    file = {"size": len(TEXT), "sha256": hashlib.sha256(TEXT).hexdigest()}
    fields = {"n_embd": WIDTH, "n_layer": layers, "n_head": HEADS}
    return RunConfig.parse(
        {
            "name": "memory",
            "task": {
                "kind": "causal_lm",
                "model": {"family": "gpt2", "fields": fields},
                "data": {"root": "11" * 32, "text": file, "context": context},
            },
            "inner": {"lr": 6e-4, "batch_size": batch, "steps_per_unit": 1, "optimizer": optimizer},
            "codec": {"contribution": "int4", "average": "int4", "part_values": PART_VALUES},
            "initial_root": "0" * 64,
        }
    )


def plain_model(mebivalues: int) -> FlatModel:
    return FlatModel(torch.nn.Linear(1 << 10, mebivalues << 10, bias=False))


class Chance:
    """Gradients of chance: a step that costs nothing. As `swarm.tasks.Task`, as far as a trainer needs it."""

    def step(self, model: FlatModel, *_: object) -> torch.Tensor:
        model.grad_flat.normal_()
        return model.grad_flat[0]


async def _nobody(*_: object) -> dict[bytes, bytes]:
    return {}


class OneRound:
    """All that a peer does for a round of two contributors: the other's contribution is the own one under another name."""

    def __init__(self, folder: Path, config: RunConfig, steps: Steps, plain: int) -> None:
        self.folder, self.config, self.steps = folder, config, steps
        self.model: FlatModel = steps.run("the model", lambda: plain_model(plain) if plain else new_model(config))
        self.task: Any = Chance() if plain else open_task(config, folder)
        self.inner: InnerOptimizer = steps.run(
            "the optimiser", lambda: InnerOptimizer(config.inner, self.model.flat, self.model.matrices)
        )
        zeros = torch.zeros_like(self.model.flat)
        self.anchor = Anchor(self.model.flat.clone(), zeros, self.model.layout, 0, 0)
        self.parts = PartStore(folder / "parts")
        self.archive = Archive(folder / "archive", config, self.parts, lambda record: bytes(32))
        self.states = States(config)
        self.states.follow(bytes(32), self.anchor)
        store = BlockStore(folder / "blocks", 1 << 40)
        self.blocks = RunBlocks(store, self.model.layout, _nobody, list, 1.0)
        self.member: MemberState = steps.run(
            "the member",
            lambda: MemberState.fresh(bytes(32), 0, self.anchor.parameters, 0, self.inner),
        )
        self.number = 0

    def once(self) -> None:
        run, codec = self.steps.run, self.config.codec
        run("an inner step", self._step)
        run("a second one", self._step)
        self.number += 1
        key = self.number.to_bytes(32, "big")
        made: MadeContribution = run(
            "boundary",
            lambda: self.member.boundary(self.model.flat, self.inner, codec.contribution, codec.part_values),
        )
        run("state for audits, written", self.archive.keep_state, made.state)
        units, wires, leaves = made.units, made.encoded.parts, made.encoded.leaves
        del made
        run("own parts, kept", self.parts.keep_all, wires)
        self.member.signed(key)
        run("the other's parts, checked", self._check, wires, leaves)
        contents = [ContributionContent(leaves, ())] * 2
        contributors = [ContributorLeaf(PEER, key, units, 3), ContributorLeaf(OTHER, bytes(32), units, 3)]
        averages = run("half of the averages", self._averages, contributors, contents, wires)
        del wires
        new = run("the next state and its root", self._next, contributors, contents, averages)
        self.states.prepare(key, (self.number - 1).to_bytes(32, "big"), new)
        run("an inner step, meanwhile", self._step)
        self.states.follow(key, new)
        self.anchor = new
        del new
        run("merge", self._merge, key)
        run("the anchor, kept for joiners", lambda: self.blocks.keep(HeldAnchor(self.anchor)))
        run("snapshot", self._snapshot)

    def _step(self) -> None:
        inner_step(self.config, self.task, self.model, self.inner, self.member, PEER)

    def _check(self, wires: Any, leaves: Any) -> None:
        for leaf, wire, where in zip(leaves, wires, self._slices(), strict=True):
            check_part(leaf, wire, where.stop - where.start, self.config.codec.contribution)

    def _slices(self) -> tuple[slice, ...]:
        return part_slices(self.model.flat.numel(), self.config.codec.part_values)

    def _pull(self, contributors: Any, contents: Any) -> Any:
        return pulls(self.config, contributors, contents, 0.0, 0, self.model.flat.numel())

    def _averages(self, contributors: Any, contents: Any, wires: Any) -> list[bytes]:
        """Every second one is the own share; the others stand for what the other reducer made."""
        pull, slices, found = self._pull(contributors, contents), self._slices(), []
        for index in range(0, len(slices), 2):
            where = slices[index]
            made = reduce_part(self.config, index, where.stop - where.start, contents, [wires[index]] * 2, pull)
            found += [made] if index + 1 == len(slices) else [made, wires[index + 1]]
            for wire in found[index:]:
                self.parts.put(wire)
        return found

    def _next(self, contributors: Any, contents: Any, averages: list[bytes]) -> Anchor:
        pull = self._pull(contributors, contents)
        longest = longest_averages(self.config, contents, pull, [s.stop - s.start for s in self._slices()])
        return self.states.next_state(self.anchor, averages, contributors, [2 * each for each in longest])[0]

    def _merge(self, key: bytes) -> None:
        new, own = self.anchor, frozenset([key])
        self.member.certificate(key, self.number, new.parameters, new.counted_units, own, self.model.flat)

    def _snapshot(self) -> None:
        self.member.save(self.folder / "snapshot", self.model.flat, self.inner)


def one_process(layers: int, batch: int, context: int, optimizer: str, rounds: int, plain: int = 0) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        steps = Steps()
        steps.run("Python and its imports", lambda: None)
        one = OneRound(Path(name), make_config(Path(name), layers, batch, context, optimizer), steps, plain)
        first = len(steps.rows)
        for _ in range(rounds):
            begun = len(steps.rows)
            one.once()
        one.archive.close()
        return {"parameters": one.model.flat.numel(), "rows": steps.rows[:first] + steps.rows[begun:]}


def show(console: Console, found: dict[str, Any]) -> None:
    weights = 4 * found["parameters"]
    title = f"{found['parameters']:,} parameters, fp32 weights of {weights / 1e6:.0f} MB = 1"
    table = Table("step", "seconds", "user", "system", "peak", "after", title=title)
    for row in found["rows"]:
        seconds = [f"{row[name]:.2f}" for name in ("seconds", "user_seconds", "system_seconds")]
        table.add_row(
            row["step"], *seconds, f"{row['peak_bytes'] / weights:.2f}", f"{row['after_bytes'] / weights:.2f}"
        )
    console.print(table)


# -- real peers -------------------------------------------------------------------------------------------------------
class MemoryWork(Workload):
    """Preset base with few layers, or all, and inner steps that cost little."""

    layers_given, batch, optimizer = QUICK_LAYERS, 1, "adamw"

    def command(self, directory: Path) -> list[str]:
        values = {
            "task.model.fields.n_layer": self.layers_given,
            "task.data.context": self.context,
            "inner.batch_size": self.batch,
            "inner.steps_per_unit": 1,
            "inner.total_units": 10_000,
            "inner.optimizer": f'"{self.optimizer}"',
            "rounds.units_per_epoch": 2 * self.peers,
            "rounds.min_seated": self.peers,
        }
        options = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "peers", "run", "new", str(directory), "--preset", "base", *options]


def real_peers(root: Path, work: MemoryWork, epochs: int, seconds: float) -> dict[str, Any]:
    """Of the last peer: peaks, and by epoch the seconds from its contribution to the certificate."""
    root.mkdir(parents=True)
    run = root / "run"
    work.make_run(run)
    said = subprocess.run(
        [sys.executable, "-m", "peers", "run", "check", str(run), "--json"],
        check=True,
        capture_output=True,
        timeout=300,
    )
    with loopback(None, work.peers + 1) as places, Sampler() as sampler:
        swarm = SparehiveSwarm(root / "swarm", run, work, places)
        with swarm.running():
            tree, ends_at = sampler.watch(swarm.pids()[-1]), time.monotonic() + seconds
            trained, cpu = swarm.counters()[-1], tree.cpu_seconds
            while swarm.epochs() < epochs and time.monotonic() < ends_at:
                swarm.check()
                time.sleep(0.5)
            rounds = _rounds(root / "swarm" / f"peer{work.peers}" / "events.jsonl")
            since, used = swarm.counters()[-1].since(trained), tree.cpu_seconds - cpu
    return {
        "check": json.loads(said.stdout),
        "peak_pss_bytes": tree.peak_pss_bytes,
        "peak_rss_bytes": tree.peak_rss_bytes,
        "rounds": rounds,
        "inner_steps": since.inner_steps,
        "inner_seconds": since.inner_seconds,
        "cpu_seconds": used,
    }


def _rounds(events: Path) -> list[dict[str, float]]:
    """Seconds to the certificate from the own contribution, and from the last part that this peer received as reducer."""
    found, contributed, received = [], 0.0, 0.0
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "Contributed":
            contributed = received = event["time"]
        elif event["event"] == "PartsReceived":
            received = event["time"]
        elif event["event"] == "Certified" and event["kind"] == 0 and contributed:
            found.append({"contribution": event["time"] - contributed, "last_part": event["time"] - received})
    return found


def show_swarm(console: Console, found: dict[str, Any]) -> None:
    weights = 4 * found["check"]["parameters"]
    table = Table(
        "what", "", title=f"{found['check']['parameters']:,} parameters, fp32 weights of {weights / 1e6:.0f} MB"
    )
    for name, value in (
        ("peak, proportional", found["peak_pss_bytes"]),
        ("peak, resident", found["peak_rss_bytes"]),
        ("`run check` says", found["check"]["memory_bytes"]),
    ):
        table.add_row(name, f"{value / 1e6:,.0f} MB, {value / weights:.1f} ×")
    for name, what in (("contribution", "contribution to certificate"), ("last_part", "last part to certificate")):
        each = " ".join(f"{row[name]:.1f}" for row in found["rounds"])
        table.add_row(f"{what}, s", each or "–")
    table.add_row("inner steps", f"{found['inner_steps']} in {found['inner_seconds']:.1f} s")
    table.add_row("processor, whole tree", f"{found['cpu_seconds']:.1f} s in {len(found['rounds'])} rounds")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=QUICK_LAYERS, help=f"of width {WIDTH}; 12 are preset base's")
    parser.add_argument("--plain", type=int, default=0, metavar="N", help="no transformer: N × 1,048,576 parameters")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--context", type=int, default=CONTEXT)
    parser.add_argument("--optimizer", choices=("adamw", "adamw8bit", "muon", "sgd"), default="adamw")
    parser.add_argument("--rounds", type=int, default=2, help="the last one is shown")
    parser.add_argument("--swarm", type=Path, metavar="DIRECTORY", help="real peers, in a new directory")
    parser.add_argument("--seconds", type=float, default=150.0, help="with --swarm: at most, after the start")
    parser.add_argument("--out", type=Path, help="JSON")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    console = Console(width=None if sys.stdout.isatty() else 100)
    if chosen.swarm is None:
        found = one_process(chosen.layers, chosen.batch, chosen.context, chosen.optimizer, chosen.rounds, chosen.plain)
        show(console, found)
    else:
        work = MemoryWork(peers=2, context=chosen.context)
        for name, value in (("layers_given", chosen.layers), ("batch", chosen.batch), ("optimizer", chosen.optimizer)):
            object.__setattr__(work, name, value)
        found = real_peers(chosen.swarm.resolve(), work, chosen.rounds, chosen.seconds)
        show_swarm(console, found)
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
