"""Training on more data than a peer keeps: samples per second fetched over the transport, beside the same data all on disk, and the memory
of the data path.

    python -m benchmarks.data_path build/data-path [--gigabytes 10] [--cache-megabytes 200] [--rounds 6] [--seconds 20]

A donor, a process of its own, serves the blocks from disk over p2p daemons on loopback. Two trainers, processes too, take turns, so that
what else the machine does falls on both: one reads all from disk, one through a cache. Both take new leaves for every unit, which is as
often as a run can ask for. Memory is what a process holds (RSS, mapped files included) beyond what it held before it opened the data.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch

from benchmarks.workload import CHECKOUT
from swarm.checkpoint.cache import LeafCache
from swarm.checkpoint.leaves import store_leaves
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import BlockLink, encode_directory, file_blocks
from swarm.config import HELD_RECORDS, LEAF_BYTES, TRAIN_RECORDS, RunConfig
from swarm.data.records import OpenLeaves
from swarm.errors import RetryError
from swarm.optim.inner import InnerOptimizer
from swarm.tasks import new_model, open_task
from swarm.transport.exchange import Exchange, Nothing
from swarm.transport.node import Node

CONTEXT = 255  # a record is 256 bytes, a leaf 4,096 of them
PEER, BEACON, DONOR = b"\1" * 20, b"\2" * 32, b"\3" * 20
WAIT_SECONDS = 600.0


def write_store(folder: Path, num_leaves: int) -> str:
    """Random leaves in a store, without waiting for the disk; the root of the data directory."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, LEAF_BYTES, dtype=np.uint8)

    def leaves(count: int) -> Iterator[bytes]:
        for number in range(count):
            noise[:8] = np.frombuffer(number.to_bytes(8, "big"), dtype=np.uint8)
            yield np.roll(noise, 64 * (number % 1000) + 8).tobytes()

    entries: list[tuple[str, BlockLink]] = []
    for name, count in ((TRAIN_RECORDS, num_leaves), (HELD_RECORDS, 1)):
        making = file_blocks(leaves(count))
        while True:
            try:
                block = next(making)
            except StopIteration as end:
                entries.append((name, end.value))
                break
            (folder / block.digest.hex()).write_bytes(block.data)
    _, directory = encode_directory(entries)
    (folder / directory.digest.hex()).write_bytes(directory.data)
    return directory.digest.hex()


def config_of(root: str, num_leaves: int, width: int, layers: int) -> RunConfig:
    per_leaf = LEAF_BYTES // (CONTEXT + 1)
    data = {
        "kind": "records",
        "root": root,
        "num_train": num_leaves * per_leaf,
        "num_held": per_leaf,
        "context": CONTEXT,
    }
    fields = {"n_embd": width, "n_layer": layers, "n_head": 4}
    task = {"data": data, "model": {"kind": "untrained", "fields": fields}}
    return RunConfig.parse({"name": "data path", "initial_root": "0" * 64, "task": task})


class Trainer:
    """Inner steps of one peer, unit after unit."""

    def __init__(self, config: RunConfig) -> None:
        torch.set_num_threads(1)
        self.config, self.model = config, new_model(config)
        self.inner = InnerOptimizer(config.inner, self.model.flat, self.model.matrices)
        self.unit, self.waited = 0, 0.0
        self.model.module(
            input_ids=torch.zeros(config.inner.batch_size, CONTEXT, dtype=torch.int64)
        ).logits.sum().backward()
        self.process = psutil.Process()
        self.before = self.process.memory_info().rss
        self.most = 0
        self.is_ready: Callable[[int], bool] = lambda unit: True

    def open(self, leaves: OpenLeaves) -> None:
        self.task = open_task(self.config, Path(), leaves=leaves)

    def run(self, seconds: float) -> dict[str, float]:
        begun, waited, units = time.monotonic(), self.waited, 0
        while time.monotonic() - begun < seconds:
            since = time.monotonic()
            while not self.is_ready(self.unit):
                time.sleep(0.005)
            self.waited += time.monotonic() - since
            for step in range(self.config.inner.steps_per_unit):
                self.task.step(self.model, PEER, BEACON, self.unit, step)
                self.inner.step(self.model.grad_flat, 1e-3)
                self.most = max(self.most, self.process.memory_info().rss - self.before)
            self.unit, units = self.unit + 1, units + 1
        took = time.monotonic() - begun
        samples = units * self.config.inner.steps_per_unit * self.config.inner.batch_size
        return {"samples": samples, "seconds": took, "waited": self.waited - waited, "memory": self.most / 1e6}


def obey(run: Callable[[float], dict[str, float]]) -> None:
    """Seconds come in, what was done in them goes out."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(float(line))), flush=True)


def on_disk(config: RunConfig, whole: Path) -> None:
    trainer = Trainer(config)
    store = BlockStore(whole, 1 << 62, owned=False)
    trainer.open(store_leaves(bytes.fromhex(config.task.data.root), store, lambda digest: RetryError(digest.hex())))
    obey(trainer.run)


class Stored:
    """Implements `swarm.transport.exchange.Content`."""

    def __init__(self, store: BlockStore) -> None:
        self.block, self.has_block = store.get, store.has


async def serve(whole: Path, identity: Path) -> None:
    """A donor: prints where it listens, and serves until its standard input ends."""
    store = BlockStore(whole, 1 << 62, owned=False)
    async with await Node.open(identity) as node:
        exchange = Exchange(node, Stored(store))
        await exchange.start()
        print(json.dumps({"peer": node.peer_id, "addresses": list(node.addresses())}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def fetched(config: RunConfig, root: Path, donor: dict[str, Any], cache_bytes: int) -> None:
    trainer = Trainer(config)
    async with await Node.open(root / "trainer.key", client_mode=True) as node:
        exchange = Exchange(node, Nothing())
        await exchange.start()
        await node.connect(donor["addresses"], 30.0)

        async def ask(account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            return await exchange.get(donor["peer"], digests, 64 * LEAF_BYTES, 60.0)

        store = BlockStore(root / "cache", 1 << 62)
        blocks = RunBlocks(store, trainer.model.layout, ask, lambda: [DONOR], 60.0)
        await blocks.fetch_data(config.task.data, root / "data")
        cache = LeafCache(config, PEER, blocks, cache_bytes)
        trainer.open(cache.open)
        trainer.is_ready = cache.is_ready
        cache.start()
        most = 0

        def run(seconds: float) -> dict[str, float]:
            nonlocal most
            found = trainer.run(seconds)
            most = max(most, cache.size_bytes())
            return {**found, "cache": most / 1e6, "fetched": exchange.received_bytes / 1e6}

        await asyncio.to_thread(obey, run)
        await cache.close()


@contextlib.contextmanager
def part(*arguments: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A process of this module; what comes out is called with a line for it and gives its answer ("": the first)."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.data_path", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd=CHECKOUT,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(3600.0, process.kill)
        watchdog.start()

        def say(line: str) -> dict[str, Any]:
            assert process.stdin is not None and process.stdout is not None
            if line:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            found = process.stdout.readline()
            if not found:
                raise click.ClickException(f"{arguments[1]} ended; its words are above")
            value: dict[str, Any] = json.loads(found)
            return value

        try:
            yield say
        finally:
            watchdog.cancel()
            process.stdin.close()


def measure(root: Path, gigabytes: float, cache: float, rounds: int, seconds: float, size: tuple[int, int]) -> None:
    whole, num_leaves = root / "whole", int(gigabytes * 1e9 / LEAF_BYTES)
    data_root = write_store(whole, num_leaves)
    settings = json.dumps({"root": data_root, "num_leaves": num_leaves, "width": size[0], "layers": size[1]})
    sums: dict[str, dict[str, float]] = {"on disk": {}, "fetched": {}}
    with contextlib.ExitStack() as stack:
        donor = stack.enter_context(part(str(root), "--part", "donor", "--settings", settings))("")
        names = {"on disk": "disk", "fetched": "fetched"}
        more = json.dumps({**json.loads(settings), "donor": donor, "cache_bytes": int(cache * 1e6)})
        turns = {
            what: stack.enter_context(part(str(root), "--part", name, "--settings", more))
            for what, name in names.items()
        }
        for turn in turns.values():
            turn("")
        for _ in range(rounds):
            for what, turn in turns.items():
                found = turn(str(seconds))
                total = sums[what]
                for name, value in found.items():
                    adds = name in ("samples", "seconds", "waited")
                    total[name] = total.get(name, 0.0) + value if adds else value
    rates = {what: total["samples"] / total["seconds"] for what, total in sums.items()}
    click.echo(
        f"{num_leaves * LEAF_BYTES / 1e9:.1f} GB of data, a cache of {cache:.0f} MB, {rounds} turns of {seconds:.0f} s each\n"
    )
    click.echo("| data | samples/s | of on disk | waited, s | memory of the data path, MB | cache, MB | fetched, MB |")
    click.echo("|---|---|---|---|---|---|---|")
    for what, total in sums.items():
        share = rates[what] / rates["on disk"]
        last = f"{total.get('cache', 0.0):.0f} | {total.get('fetched', 0.0):,.0f}"
        click.echo(
            f"| {what} | {rates[what]:.1f} | {share:.3f} | {total['waited']:.2f} | {total['memory']:.0f} | {last} |"
        )


@click.command(context_settings={"show_default": True})
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--gigabytes", default=10.0, help="Of data.")
@click.option("--cache-megabytes", "cache", default=200.0, help="That the trainer keeps of them.")
@click.option("--rounds", default=6, help="Turns of each trainer.")
@click.option("--seconds", default=20.0, help="Of a turn.")
@click.option("--width", default=48, help="Of the model, GPT-2.")
@click.option("--layers", default=1)
@click.option("--part", "which", type=click.Choice(["donor", "disk", "fetched"]), hidden=True)
@click.option("--settings", hidden=True)
def main(
    root: Path,
    gigabytes: float,
    cache: float,
    rounds: int,
    seconds: float,
    width: int,
    layers: int,
    which: str,
    settings: str,
) -> None:
    """Samples per second from a cache beside all on disk."""
    if which is None:
        measure(root, gigabytes, cache, rounds, seconds, (width, layers))
        return
    given = json.loads(settings)
    config = config_of(given["root"], given["num_leaves"], given["width"], given["layers"])
    if which == "donor":
        asyncio.run(serve(root / "whole", root / "donor.key"))
    elif which == "disk":
        on_disk(config, root / "whole")
    else:
        asyncio.run(fetched(config, root, given["donor"], given["cache_bytes"]))


if __name__ == "__main__":
    main()
