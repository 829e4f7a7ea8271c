"""Network namespaces for a swarm: one per peer on an emulated home line, or one with a loopback of its own (`wan.c`)."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("wan.c")
START_SECONDS = 20.0
MAX_PLACES = 16  # MAX_PEERS of wan.c


class WanUnavailable(Exception):
    """This machine does not allow what the emulation needs; the text says what."""


@dataclass(frozen=True)
class LineRate:
    """A home line as its provider sells it."""

    up_bits: float = 20e6
    down_bits: float = 100e6
    round_trip_seconds: float = 0.050
    queue_bytes: int = 256 * 1024

    def __str__(self) -> str:
        return f"{self.up_bits / 1e6:g}/{self.down_bits / 1e6:g} Mbit/s, {self.round_trip_seconds * 1e3:g} ms"


@dataclass(frozen=True)
class Place:
    """Where one peer runs: its address, and what to put before its command."""

    address: str
    prefix: tuple[str, ...] = ()
    device: str = "lo"

    def command(self, *arguments: str) -> list[str]:
        return [*self.prefix, *arguments]

    def sent_bytes(self) -> int:
        """Bytes that the interface has sent so far, IP headers included."""
        done = subprocess.run(
            self.command("cat", "/proc/self/net/dev"),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            encoding="utf-8",
        )
        return parse_sent_bytes(done.stdout, self.device)


def parse_sent_bytes(text: str, device: str) -> int:
    """The transmit counter of `device` in the text of /proc/net/dev."""
    for row in text.splitlines():
        name, colon, numbers = row.partition(":")
        if colon and name.strip() == device:
            return int(numbers.split()[8])
    raise WanUnavailable(f"{device} is not in /proc/net/dev")


def build(directory: Path) -> Path:
    """Compile the emulator; `WanUnavailable` where there is no C compiler or it fails."""
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        raise WanUnavailable("no C compiler (cc, gcc or clang)")
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "wan"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)],
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        if done.returncode:
            raise WanUnavailable(f"{compiler} failed: {done.stderr.strip().splitlines()[-1]}")
    return program


@contextlib.contextmanager
def _serving(program: Path, *arguments: str) -> Iterator[tuple[int, list[int]]]:
    process = subprocess.Popen(
        [str(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        said = process.stdout.readline()
        if not said:
            process.wait(START_SECONDS)
            raise WanUnavailable(" ".join(process.stderr.read().split()) or "the emulator ended")
        started = json.loads(said)
        yield int(started["pid"]), [int(fd) for fd in started["namespaces"]]
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def line(program: Path, peers: int, rate: LineRate, *, ip_version: int = 4) -> Iterator[list[Place]]:
    """One place per peer behind a home line each. They are gone on leaving, as is everything that still runs in them and
    whose sockets need them. `ip_version` 6: they have no IPv4 address but their own loopback's."""
    delay_ms = rate.round_trip_seconds * 1e3 / 2
    arguments = (f"{rate.up_bits:.0f}", f"{rate.down_bits:.0f}", f"{delay_ms:g}", str(rate.queue_bytes), str(peers))
    prefix = "fd77::" if ip_version == 6 else "10.77.0."
    with _serving(program, "line", *arguments, str(ip_version)) as (pid, descriptors):
        yield [
            Place(
                f"{prefix}{number + 1:{'x' if ip_version == 6 else 'd'}}",
                (str(program), "enter", str(pid), str(fd)),
                "wan0",
            )
            for number, fd in enumerate(descriptors)
        ]


@contextlib.contextmanager
def loopback(program: Path | None, peers: int) -> Iterator[list[Place]]:
    """Places that share one loopback: of a namespace of their own, or, without `program`, the machine's."""
    if program is None:
        yield [Place("127.0.0.1")] * peers
        return
    with _serving(program, "plain") as (pid, descriptors):
        yield [Place("127.0.0.1", (str(program), "enter", str(pid), str(descriptors[0])))] * peers


def refused() -> str:
    """Why this machine cannot emulate a line; empty where it can. It tries: asking for permissions proves little."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            program = build(Path(directory))
            with line(program, 2, LineRate()) as places:
                places[0].sent_bytes()
    except (WanUnavailable, OSError, subprocess.SubprocessError) as error:
        return f"{error}"
    return ""


__all__ = ["LineRate", "Place", "WanUnavailable", "build", "line", "loopback", "parse_sent_bytes", "refused"]
