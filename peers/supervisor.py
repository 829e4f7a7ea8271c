"""One peer is one supervised process tree: this process starts the peer in a session of its own, restarts it when it dies
unasked, and leaves nothing behind (the p2p daemon would outlive a killed peer)."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

EXIT_USER_ERROR = 3  # the peer said why in one line; starting it again would not help
GRACE_SECONDS = 10.0
MAX_RESTARTS = 5
STABLE_SECONDS = 300.0  # a peer that ran this long has earned its restarts back


def die_with_parent() -> None:
    """Ask the kernel (Linux) for SIGTERM when the parent dies, so that a killed supervisor leaves no orphan."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)


def kill_group(process_group: int) -> None:
    """SIGKILL to what is left of a process group; none left is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process_group, signal.SIGKILL)


def supervise(arguments: Sequence[str], on_restart: Callable[[str], None] = lambda text: None) -> int:
    """Run `python -m peers.peer ARGUMENTS` until it ends by itself; the exit status to end with.

    SIGTERM and SIGINT are passed on once as SIGTERM; after `GRACE_SECONDS` the tree is killed. Must be called from the main
    thread."""
    stopping = False
    child: subprocess.Popen[bytes] | None = None
    asked_at = 0.0

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping, asked_at
        if not stopping:
            stopping, asked_at = True, time.monotonic()
        if child is not None and child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()

    old = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    restarts = 0
    try:
        while True:
            begun = time.monotonic()
            child = subprocess.Popen([sys.executable, "-m", "peers.peer", *arguments], start_new_session=True)
            if stopping:  # asked between two starts
                child.terminate()
            while child.poll() is None:
                if stopping and time.monotonic() - asked_at > GRACE_SECONDS:
                    kill_group(child.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.25)
            kill_group(child.pid)
            code = child.returncode
            if stopping or code in (0, EXIT_USER_ERROR):
                return 0 if code in (0, -signal.SIGTERM) else 1
            if time.monotonic() - begun > STABLE_SECONDS:
                restarts = 0
            restarts += 1
            if restarts > MAX_RESTARTS:
                on_restart(f"the peer died {restarts} times (last status {code}); see peer.log in its directory")
                return 1
            on_restart(f"the peer died (status {code}); starting it again, {restarts} of {MAX_RESTARTS}")
            time.sleep(min(2.0**restarts, 30.0) / 2)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
