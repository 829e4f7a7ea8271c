"""A full disk: the peer ends with one line, nothing that it acknowledged is lost, and it goes on once there is space."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.swarm import PeerProcess, Swarm, until
from tests.faults.test_sigkill import is_in_a_new_certificate, newest_epoch

SECONDS = 90.0


@contextlib.contextmanager
def small_filesystem(path: Path) -> Iterator[None]:
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small filesystem needs root; the case with a limit on file sizes is in make test-long")
    try:
        yield
    finally:
        kept = path.with_name("kept")
        shutil.copytree(path, kept)
        subprocess.run(["umount", "-l", path], check=True)
        shutil.copytree(kept, path, dirs_exist_ok=True)  # the last test of the directory reads the journals


def fill(peer: PeerProcess) -> Callable[[], None]:
    """Take all space of its filesystem; how to give it back."""
    filler = peer.directory.root / "filler"
    with open(filler, "wb") as handle, contextlib.suppress(OSError):
        while True:
            os.write(handle.fileno(), bytes(4096))
    with open(filler, "ab") as handle, contextlib.suppress(OSError):
        while True:
            os.write(handle.fileno(), bytes(1))
    return filler.unlink


def limit_files(peer: PeerProcess) -> Callable[[], None]:
    """No file of the process may grow any more. The limit ends with it."""
    size = peer.directory.journal.stat().st_size
    resource.prlimit(peer.pid, resource.RLIMIT_FSIZE, (size, size))
    return lambda: None


def check(swarm: Swarm, erin: PeerProcess, fill_up: Callable[[PeerProcess], Callable[[], None]]) -> None:
    def own() -> set[str]:
        return {e["id"] for e in erin.certified() if e["own"]}

    until(lambda: len(own()) >= 2, SECONDS, f"erin is in two certificates; {erin.log()}")
    before, said = own(), len(erin.log())
    free = fill_up(erin)
    status = erin.runner.wait(erin.pid, SECONDS)
    assert status == 3, erin.log()  # the supervisor does not try again: it would not help
    (line,) = erin.log()[said:].splitlines()
    assert line.startswith("sparehive: ")
    assert str(erin.directory.root) in line
    epoch = swarm.seed.epoch()
    until(lambda: swarm.seed.epoch() >= epoch + 2, SECONDS, "the others go on")
    free()
    erin.start()
    is_in_a_new_certificate(erin, newest_epoch(swarm))
    assert before <= own()
    erin.terminate()


@pytest.mark.long
def test_a_peer_whose_files_cannot_grow(swarm: Swarm) -> None:
    check(swarm, swarm.add("ella"), limit_files)


def test_a_peer_whose_disk_is_full(swarm: Swarm) -> None:
    with small_filesystem(swarm.root / "erin"):
        check(swarm, swarm.add("erin"), fill)
