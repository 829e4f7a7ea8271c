"""A peer hears and is heard wherever its sockets have to lie."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from swarm.errors import InputError
from swarm.transport.sockets import DAEMON_SOCKET, YOUNG_SECONDS, make_socket_directory, places
from tests.odd_machines import mounted, run

# Two nodes in one process; the second calls the first, which answers: the path from the daemon to the peer works too.
TALK = """
import asyncio, os, sys
from pathlib import Path
from swarm.transport.node import Node

async def main(root):
    async with await Node.open(root / "a.key") as a, await Node.open(root / "b.key") as b:
        async def echo(stream):
            await stream.send(await stream.receive(10.0), 10.0)
        await a.handle("echo", echo)
        await b.connect(a.addresses(), 10.0)
        stream = await b.stream(a.peer_id, "echo", 10.0)
        await stream.send(b"heard", 10.0)
        print((await stream.receive(10.0)).decode())
        stream.close()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("tmp", ["long TMPDIR", "no place but the peer's directory"])
def test_two_nodes_talk(tmp: str, tmp_path: Path) -> None:
    """Needs root, for mounts."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    lines = {
        "long TMPDIR": "true",
        "no place but the peer's directory": "mount -t tmpfs t /mnt\n"
        + "\n".join(f"test ! -d {d} || mount -t tmpfs -o ro t {d}" for d in ("/var/tmp", "/dev/shm", "/run"))
        + "\nmount --bind /tmp /tmp && mount -o remount,ro,bind /tmp",
    }
    root = {"long TMPDIR": str(tmp_path)}.get(tmp, "/mnt")
    environment = {"TMPDIR": str(long)} if tmp == "long TMPDIR" else {}
    done = run(mounted(lines[tmp], [sys.executable, "-c", TALK, root]), **environment)
    assert done.stdout == "heard\n", done.stderr[-2000:]


def test_a_private_directory_and_dead_ones_removed(tmp_path: Path) -> None:
    parent = Path("/tmp") / f"s{tmp_path.name[-8:]}"
    parent.mkdir()
    try:
        made = make_socket_directory([tmp_path / "missing", parent])
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        bind = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
        subprocess.run([sys.executable, "-c", bind, str(made / DAEMON_SOCKET)], check=True, timeout=30)
        young = make_socket_directory([parent])
        assert made.exists(), "its daemon may have bound its socket and listen in a moment"
        long_ago = time.time() - 2 * YOUNG_SECONDS
        os.utime(made, (long_ago, long_ago))
        os.utime(young, (long_ago, long_ago))
        assert make_socket_directory([parent]).exists()
        assert not made.exists() and list(young.iterdir()) == []
    finally:
        subprocess.run(["rm", "-rf", str(parent)], check=True, timeout=30)


def test_a_relative_tmpdir_is_taken_from_where_the_peer_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", ".")
    monkeypatch.chdir(tmp_path)
    assert all(place.is_absolute() for place in places(tmp_path))


def test_nowhere_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(InputError, match="let TMPDIR name"):
        make_socket_directory([long, tmp_path / "missing"])
    assert list(long.iterdir()) == []
