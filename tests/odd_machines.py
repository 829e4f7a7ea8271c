"""Machines that lack what most have, made for one command: mounts in a namespace of its own, system calls that are refused."""

import ctypes
import errno
import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

# System calls by name: their numbers, and what a file system without the thing answers. 0: it says yes and does nothing.
_NUMBERS = {
    "x86_64": {
        "link": 86, "linkat": 265, "flock": 73, "fcntl_lock": 72,
        "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452,
    },
    "aarch64": {"linkat": 37, "flock": 32, "fcntl_lock": 25, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452},
}  # fmt: skip
HARD_LINKS, MODES, LOCKS = ("link", "linkat"), ("chmod", "fchmod", "fchmodat", "fchmodat2"), ("flock", "fcntl_lock")
_ANSWERS = {"link": errno.EPERM, "linkat": errno.EPERM, "flock": errno.ENOSYS, "fcntl_lock": errno.ENOLCK}
_F_SETLK = 6


def refuse(calls: Sequence[str]) -> None:
    """From now on `calls` fail in this process and its children as they do on a file system without them (Linux seccomp)."""
    numbers, program = _NUMBERS[platform.machine()], []
    program.append((0x20, 0, 0, 0))  # load the number of the call
    for name in calls:
        if name not in numbers:
            continue
        answer = (0x06, 0, 0, 0x00050000 | _ANSWERS.get(name, 0))
        if name == "fcntl_lock":  # only where its second argument asks for a lock
            program += [(0x15, 0, 4, numbers[name]), (0x20, 0, 0, 24), (0x15, 0, 1, _F_SETLK), answer, (0x20, 0, 0, 0)]
        else:
            program += [(0x15, 0, 1, numbers[name]), answer]
    program.append((0x06, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filters, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp is not to be had")


def without(calls: Sequence[str], command: Sequence[str]) -> list[str]:
    """`command`, run where `calls` are refused. Skips the test where nothing can refuse them."""
    if sys.platform != "linux" or platform.machine() not in _NUMBERS:
        pytest.skip(f"refuses system calls through Linux's seccomp, not on {sys.platform} {platform.machine()}")
    return [sys.executable, __file__, ",".join(calls), *command]


def mounted(setup: str, command: Sequence[str]) -> list[str]:
    """`command`, run after the shell lines of `setup` in a mount namespace of its own. Skips the test where that needs rights
    which this user does not have."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip(f"mounts in a namespace of Linux, not on {sys.platform}")
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, timeout=30)
    if probe.returncode:
        pytest.skip("mount namespaces need root: " + probe.stderr.decode().strip())
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{setup}\nexec "$@"', "sh", *command]


def shown_to_others(*paths: Path) -> str:
    """Shell lines for `mounted`: `paths` can be read by other users, also below a folder like /root that lets nobody in. The
    rest of that folder is gone then."""
    hidden = {
        path: folder
        for path in paths
        if (folder := next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)) is not None
    }
    kept = [(f"/run/kept-{number}", path) for number, path in enumerate(hidden)]
    lines = ["mount -t tmpfs t /run"]
    lines += [f"mkdir {kept_at} && mount --bind {shlex.quote(str(path))} {kept_at}" for kept_at, path in kept]
    lines += [f"mount -t tmpfs -o mode=755 t {shlex.quote(str(folder))}" for folder in dict.fromkeys(hidden.values())]
    lines += [
        f"mkdir -p {shlex.quote(str(path))} && mount --bind {kept_at} {shlex.quote(str(path))}"
        for kept_at, path in kept
    ]
    return "\n".join(lines)


def sparehive(*arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).with_name("sparehive")), *map(str, arguments)]


def run(command: Sequence[str], timeout: float = 60.0, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        env={**os.environ, **environment},
    )


if __name__ == "__main__":
    refuse(sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])
