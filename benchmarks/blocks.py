"""How fast content moves: plain HTTP, Bitswap from one donor and from three, beside one that lies and one that is killed, and kubo.

    python -m benchmarks.blocks build/blocks [--repeats 5] [--megabytes 64] [--json FILE] [--no-kubo]

Every donor, the server and who fetches are processes of their own on loopback. Each repeat has every row once, one after the other, so that
what else the machine does falls on all. A fetch ends when every block is verified and on disk; of plain HTTP when the body is in a file,
of kubo when the file is written. The file is random bytes; the median of the ratios within a repeat is what a row is compared by.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import click
import psutil
from aiohttp import web

from benchmarks.kubo import NoKubo, kubo, kubo_python
from benchmarks.workload import CHECKOUT
from swarm.checkpoint.fetch import fetch_graph
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import BlockLink, cid_text, file_blocks, file_pieces
from swarm.errors import PeerFault
from swarm.hashing import sha256
from swarm.transport.exchange import Exchange, Nothing
from swarm.transport.node import Node

ASK_BYTES, ASK_SECONDS, WAIT_SECONDS = 64 << 20, 25.0, 120.0
LIES_EACH = 20  # one block of so many is wrong
ROWS = (
    "plain HTTP",
    "one donor",
    "three donors",
    "a liar and one donor",
    "two donors, one killed",
    "kubo from one donor",
)


class Stored:
    """Implements `swarm.transport.exchange.Content`; `lies` makes each twentieth block another one."""

    def __init__(self, store: BlockStore, lies: bool = False) -> None:
        self.store, self.lies, self.number = store, lies, 0

    def block(self, digest: bytes) -> bytes | None:
        data = self.store.get(digest)
        self.number += 1
        if data and self.lies and self.number % LIES_EACH == 0:
            return data[:-1] + bytes((data[-1] ^ 1,))
        return data

    def has_block(self, digest: bytes) -> bool:
        return self.store.has(digest)


# -- the processes ------------------------------------------------------------------------------------------------------
async def serve(blocks: Path, identity: Path, lies: bool, strangers_bytes: int) -> None:
    """A donor, to whom all are strangers: prints where it listens, and serves until its standard input ends."""
    async with await Node.open(identity) as node:
        content = Stored(BlockStore(blocks, 1 << 62, owned=False), lies)
        exchange = Exchange(node, content, lambda peer_id: not strangers_bytes, strangers_bytes)
        await exchange.start()
        say({"peer": node.peer_id, "addresses": list(node.addresses()), "daemon": node.daemon.pid})
        await asyncio.to_thread(sys.stdin.read)
        await exchange.close()


async def serve_http(file: Path) -> None:
    async def body(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(file)

    app = web.Application()
    app.router.add_get("/file", body)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say({"url": f"http://127.0.0.1:{runner.addresses[0][1]}/file"})
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def fetcher(root: Path) -> None:
    """Reads a job a line, {donors, root, codec, bytes} or {url}; says {"quarter"} on the way and what came of it."""
    loop = asyncio.get_running_loop()
    async with await Node.open(root / "fetcher.key", client_mode=True) as node:
        exchange = Exchange(node, Nothing())
        await exchange.start()
        say({"ready": True})
        for number in range(1 << 30):
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                break
            job, folder = json.loads(line), root / f"fetched{number}"
            found = await (http(job["url"], root / "body") if "url" in job else fetch(node, exchange, job, folder))
            shutil.rmtree(folder, ignore_errors=True)
            say(found)
        await exchange.close()


async def http(url: str, out: Path) -> dict[str, Any]:
    begun = time.monotonic()
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        with out.open("wb") as handle:
            async for piece in answer.content.iter_chunked(1 << 18):
                handle.write(piece)
    seconds = time.monotonic() - begun
    size = out.stat().st_size
    return {"seconds": seconds, "received": size, "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}


async def fetch(node: Node, exchange: Exchange, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    for donor in job["donors"]:
        await node.connect(donor["addresses"], 30.0)
    store, root, faults = BlockStore(folder, 1 << 62), bytes.fromhex(job["root"]), 0
    before, own, is_told = exchange.received_bytes, psutil.Process(), False

    async def ask(donor: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        nonlocal faults
        try:
            return await exchange.get(donor.decode(), digests, ASK_BYTES, ASK_SECONDS)
        except PeerFault:
            faults += 1
            raise

    def on_progress(received: int) -> None:
        nonlocal is_told
        if received > job["bytes"] / 4 and not is_told:
            is_told = True
            say({"quarter": True})

    names = [donor["peer"].encode() for donor in job["donors"]]
    held, begun = own.memory_info().rss, time.monotonic()
    most = 2 * job["bytes"] + (1 << 20)
    await fetch_graph(root, store, ask, lambda: names, max_bytes=most, seconds=WAIT_SECONDS, on_progress=on_progress)
    seconds = time.monotonic() - begun
    bad = sum(sha256(path.read_bytes()).hex() != path.name for path in folder.iterdir())
    whole = hashlib.sha256()
    for piece in file_pieces(job_link(job), lambda digest: store.get(digest) or b"", most):
        whole.update(piece)
    return {
        "seconds": seconds,
        "received": exchange.received_bytes - before,
        "sha256": whole.hexdigest(),
        "bad_on_disk": bad,
        "requests_failed_by_lies": faults,
        "memory": own.memory_info().rss - held,
    }


def job_link(job: dict[str, Any]) -> BlockLink:
    return BlockLink("", bytes.fromhex(job["root"]), job["codec"], job["bytes"])


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


class Part:
    """A process of this module."""

    def __init__(self, *arguments: str) -> None:
        self.name = " ".join(arguments)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.blocks", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd=CHECKOUT,
        )  # fmt: skip
        self._watchdog = threading.Timer(3600.0, self.process.kill)
        self._watchdog.start()
        self.first = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self.name} ended; its words are above")
        value: dict[str, Any] = json.loads(line)
        return value

    def do(self, job: dict[str, Any], at_quarter: Callable[[], None] = lambda: None) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        while "quarter" in (found := self.read()):
            at_quarter()
        return found

    def close(self) -> None:
        self._watchdog.cancel()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def part(*arguments: str) -> Iterator[Part]:
    made = Part(*arguments)
    try:
        yield made
    finally:
        made.close()


# -- measuring ----------------------------------------------------------------------------------------------------------
def write_file(root: Path, num_bytes: int) -> dict[str, Any]:
    """A file of random bytes and its blocks: the job that fetches it."""
    store, file = BlockStore(root / "blocks", 1 << 62), root / "file"
    whole = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        with file.open("wb") as handle:
            for at in range(0, num_bytes, 1 << 20):
                piece = os.urandom(min(1 << 20, num_bytes - at))
                whole.update(piece)
                handle.write(piece)
                yield piece

    making = file_blocks(pieces())
    while True:
        try:
            block = next(making)
        except StopIteration as end:
            link = end.value
            return {"root": link.digest.hex(), "codec": link.codec, "bytes": num_bytes, "sha256": whole.hexdigest()}
        store.put_as(block.digest, block.data)


class Bench:
    """The processes of all repeats."""

    def __init__(self, root: Path, job: dict[str, Any], stack: contextlib.ExitStack, kubo_at: Path | None) -> None:
        self.root, self.job, self.kubo_at = root, job, kubo_at
        self.blocks = str(root / "blocks")
        self.donors = [stack.enter_context(self.donor(f"donor{number}")) for number in range(3)]
        self.liar = stack.enter_context(self.donor("liar", "--lies"))
        self.server = stack.enter_context(part(str(root), "--part", "http"))
        self.fetcher = stack.enter_context(part(str(root), "--part", "fetcher"))

    def donor(self, name: str, *more: str) -> contextlib.AbstractContextManager[Part]:
        return part(str(self.root), "--part", "donor", "--name", name, *more)

    def run(self, row: str, repeat: int) -> dict[str, Any]:
        first = self.donors[0].first
        if row == "plain HTTP":
            return self.fetcher.do({"url": self.server.first["url"]})
        if row == "one donor":
            return self.fetcher.do({**self.job, "donors": [first]})
        if row == "three donors":
            return self.fetcher.do({**self.job, "donors": [donor.first for donor in self.donors]})
        if row == "a liar and one donor":
            return self.fetcher.do({**self.job, "donors": [self.liar.first, first]})
        if row == "two donors, one killed":
            with self.donor(f"victim{repeat}") as victim:
                killing = {**self.job, "donors": [victim.first, first]}
                return self.fetcher.do(killing, lambda: victim.process.send_signal(signal.SIGKILL))
        return self.kubo(first["addresses"][0], repeat)

    def kubo(self, address: str, repeat: int) -> dict[str, Any]:
        assert self.kubo_at is not None
        out, repository = self.root / f"kubo{repeat}.out", self.root / f"kubo{repeat}"
        with kubo(kubo_python(self.kubo_at), repository, [address], WAIT_SECONDS) as node:
            seconds = node.get(cid_text(bytes.fromhex(self.job["root"]), self.job["codec"]), out)
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        shutil.rmtree(repository, ignore_errors=True)
        out.unlink()
        return {"seconds": seconds, "received": self.job["bytes"], "sha256": digest}


def measure(root: Path, megabytes: int, repeats: int, kubo_at: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Row → what was found in each repeat. ClickException where a file came out wrong."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    job = write_file(root, megabytes << 20)
    found: dict[str, list[dict[str, Any]]] = {row: [] for row in ROWS}
    if kubo_at is None:
        del found["kubo from one donor"]
    with contextlib.ExitStack() as stack:
        bench = Bench(root, job, stack, kubo_at)
        for repeat in range(repeats):
            for row, results in found.items():
                result = bench.run(row, repeat)
                if result["sha256"] != job["sha256"] or result.get("bad_on_disk"):
                    raise click.ClickException(f"{row}: what came is not the file")
                results.append(result)
    shutil.rmtree(root, ignore_errors=True)
    return found


def table(found: dict[str, list[dict[str, Any]]], num_bytes: int) -> str:
    lines = [
        "| path | MB/s, median (least, greatest) | of plain HTTP, median | received, of the file | seconds, greatest | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    plain = [result["seconds"] for result in found["plain HTTP"]]
    for row, results in found.items():
        speeds = sorted(num_bytes / result["seconds"] / 1e6 for result in results)
        share = statistics.median(p / result["seconds"] for p, result in zip(plain, results, strict=True))
        received = max(result["received"] for result in results) / num_bytes
        memory = max(result.get("memory", 0) for result in results) / 1e6
        lines.append(
            f"| {row} | {statistics.median(speeds):.1f} ({speeds[0]:.1f}, {speeds[-1]:.1f}) | {share:.2f} | {received:.3f} "
            f"| {max(result['seconds'] for result in results):.2f} | {f'{memory:.0f}' if memory else '–'} |"
        )
    return "\n".join(lines)


def beside_one_donor(found: dict[str, list[dict[str, Any]]]) -> float:
    """Median over the repeats of the speed of three donors over that of one."""
    pairs = zip(found["one donor"], found["three donors"], strict=True)
    return statistics.median(float(one["seconds"]) / float(three["seconds"]) for one, three in pairs)


@click.command(context_settings={"show_default": True})
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--megabytes", default=64, help="Of the file, in MiB.")
@click.option("--repeats", default=5)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Where each single result goes.")
@click.option("--kubo", "kubo_at", type=click.Path(path_type=Path), default=Path("build/kubo"), help="Its environment.")
@click.option("--no-kubo", is_flag=True)
@click.option("--part", "which", type=click.Choice(["donor", "http", "fetcher"]), hidden=True)
@click.option("--name", default="donor", hidden=True)
@click.option("--lies", is_flag=True, hidden=True)
@click.option("--strangers-bytes", default=0, hidden=True)
def main(
    root: Path, megabytes: int, repeats: int, out: Path | None, kubo_at: Path, no_kubo: bool, which: str | None, name: str,
    lies: bool, strangers_bytes: int,
) -> None:  # fmt: skip
    """Blocks on the move, beside plain HTTP."""
    if which == "donor":
        return asyncio.run(serve(root / "blocks", root / f"{name}.key", lies, strangers_bytes))
    if which == "http":
        return asyncio.run(serve_http(root / "file"))
    if which == "fetcher":
        return asyncio.run(fetcher(root))
    place: Path | None = None if no_kubo else kubo_at.resolve()
    if place is not None:
        try:
            kubo_python(place)
        except NoKubo as error:
            click.echo(f"without kubo: {error}", err=True)
            place = None
    found = measure(root.resolve(), megabytes, repeats, place)
    click.echo(table(found, megabytes << 20))
    click.echo(f"\nthree donors beside one, median: {beside_one_donor(found):.2f}")
    if out is not None:
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "bytes": megabytes << 20,
        }
        out.write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
