"""A seed and a volunteer come up and train on machines that lack what most have: started as no program expects it."""

import contextlib
import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.odd_machines import mounted, run, shown_to_others
from tests.terminal import ROOT, until

SMALL = (
    "--set task.model.fields.n_embd=32 --set task.model.fields.n_layer=1 --set task.model.fields.n_head=2 --set codec.part_values=4096 "
    "--set task.data.context=32 --set inner.total_units=1000000"
)
NOBODY = 65534
PROGRAM = f"{shlex.quote(sys.executable)} -m peers"
pytestmark = pytest.mark.timeout(180)


class Started:
    """A command on a terminal of its own, or with no descriptor at all."""

    def __init__(self, command: list[str], home: Path, columns: int, **environment: str) -> None:
        self.shown = bytearray()
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=home,
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"},
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1",
                "TERM": "xterm",
                **environment,
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self.reader.start()

    def _read(self, master: int) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while data := os.read(master, 65536):
                self.shown += data
        os.close(master)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # its supervisor ends the peer and the daemon
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Swarm:
    """A seed and a volunteer in a home of their own, each started by `argv` of its arguments."""

    def __init__(self, home: Path, columns: int, argv: Callable[[str], list[str]], **environment: str) -> None:
        self.home, self.columns, self.argv, self.environment = home, columns, argv, environment
        self.jobs: dict[str, Started] = {}

    def start(self, name: str, arguments: str) -> None:
        self.jobs[name] = Started(self.argv(arguments), self.home, self.columns, **self.environment)

    def status(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.home / name / "status.json").read_text(encoding="utf-8"))
            assert isinstance(found, dict)
            return found
        return {}

    def wait(self, name: str, units: int) -> None:
        def holds() -> bool:
            if units:
                return bool(self.status(name).get("units", 0) >= units)
            return (self.home / name / "ready.json").exists()

        def what_it_said() -> str:
            return f"{name}: {job.process.returncode} {job.shown[-1000:]!r} {log.read_text(encoding='utf-8') if log.exists() else ''}"

        job, log = self.jobs[name], self.home / name / "peer.log"
        until(lambda: holds() or job.process.poll() is not None, 60.0, what_it_said)
        assert holds(), what_it_said()

    def join(self) -> None:
        """The volunteer, once the seed is ready."""
        self.wait("seed", 0)
        self.start("alice", "join seed/invite.txt --dir alice --host 127.0.0.1")

    def leave(self) -> None:
        for job in self.jobs.values():
            job.process.send_signal(signal.SIGINT)
        assert [job.process.wait(30) for job in self.jobs.values()] == [0, 0], [
            j.shown[-1000:] for j in self.jobs.values()
        ]

    def end(self) -> None:
        for job in self.jobs.values():
            job.end()


def of_nobody(home: Path) -> Swarm | str:
    """On a root that is read-only, without /dev/shm, with nothing to write to but the home directory and with all descriptors
    closed. Why not, where that cannot be had here."""
    setup = (
        f"mount --bind {shlex.quote(str(home))} /mnt\ncd /mnt\n{shown_to_others(Path(sys.base_prefix), ROOT)}\n"
        "while umount /dev/shm 2>/dev/null; do :; done\n"
        "for d in /tmp /var/tmp /run; do test ! -d $d || mount -t tmpfs -o ro t $d; done\n"
        "mount -o remount,ro,bind /"
    )
    if sys.platform != "linux" or shutil.which("setpriv") is None:
        return "needs Linux with setpriv, to mount and to become another user"
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    probe = f"{PROGRAM} --version >&2 && ! mkdir /run/x /tmp/x /dev/shm/x 2>/dev/null && touch probe && rm probe && id --user"
    try:
        command = mounted(setup, [*user, "sh", "-c", probe])
    except pytest.skip.Exception as reason:
        return str(reason)
    found = run(command, PYTHONPATH=str(ROOT))
    if found.stdout != f"{NOBODY}\n":
        return f"nobody may not run this checkout here: {found.stderr[-300:]}"
    return Swarm(
        home,
        80,
        lambda arguments: mounted(setup, [*user, "bash", "-c", f"exec {PROGRAM} {arguments} <&- >&- 2>&-"]),
        HOME="/nonexistent",
        TORCHINDUCTOR_CACHE_DIR="/tmp/torchinductor_root",  # as a process has it whose parent has imported torch._dynamo
    )


@pytest.fixture
def home(tmp_path: Path) -> Callable[[int], Path]:
    """With a run in it that is the given user's."""
    subprocess.run(
        f"{PROGRAM} run new run --preset demo {SMALL}",
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )

    def owned(owner: int) -> Path:
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, owner, -1)
        return tmp_path

    return owned


@contextlib.contextmanager
def trained(swarm: Swarm) -> Iterator[None]:
    """The volunteer has finished two units, and both have left."""
    try:
        swarm.start("seed", "seed run --dir seed --host 127.0.0.1")
        swarm.join()
        swarm.wait("alice", 2)
        swarm.leave()
        yield
    finally:
        swarm.end()


def test_nobody_on_a_root_that_is_read_only_with_all_descriptors_closed(home: Callable[[int], Path]) -> None:
    """Needs root, for mounts and to become nobody."""
    swarm = of_nobody(home(NOBODY if os.getuid() == 0 else os.getuid()))
    if isinstance(swarm, str):
        pytest.skip(swarm)
    with trained(swarm):
        assert (swarm.home / "alice" / "peer.log").stat().st_uid == NOBODY
        assert not any(job.shown for job in swarm.jobs.values())


@pytest.mark.long
def test_a_terminal_of_ten_columns_without_utf8(home: Callable[[int], Path]) -> None:
    narrow = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    swarm = Swarm(home(os.getuid()), 10, lambda arguments: ["bash", "-c", f"exec {PROGRAM} {arguments}"], **narrow)
    with trained(swarm):
        for job in swarm.jobs.values():
            job.reader.join(5)
            assert b"Traceback" not in job.shown
            assert b"epoch" in job.shown and not any(byte > 127 for byte in job.shown)
