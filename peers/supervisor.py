"""One peer is one supervised process tree: this process starts the peer in a session of its own, restarts it when it dies
unasked, and leaves nothing behind (the p2p daemon would outlive a killed peer)."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Protocol

from peers.leaving import EXIT_FINISHED, EXIT_LEFT, EXIT_USER_ERROR

# A leaver ends itself in 9 s (`peers.leaving`), from when its loop hears of it: on a busy machine seconds later. To be killed while it
# does would be told as a failure.
GRACE_SECONDS = 15.0
MAX_RESTARTS = 5
STABLE_SECONDS = 300.0  # a peer that ran this long has earned its restarts back


class Watcher(Protocol):
    """Who looks on while a peer runs. All calls come from the supervisor's loop and must return soon."""

    @property
    def takes_words(self) -> bool:
        """Whether `said` gets what the peer writes to stderr, so that both are said in their order."""

    def tick(self, pid: int) -> None:
        """A few times a second; `pid` is the peer's process."""

    def leaving(self, by: int) -> None:
        """Once, when the owner asked to stop, with signal `by`."""

    def said(self, text: str) -> None: ...

    def restarting(self, text: str) -> None:
        """The peer died; what happens now, in one line."""


class Nobody:
    """Looks at nothing and says only what has to be said."""

    takes_words = False

    def tick(self, pid: int) -> None: ...

    def leaving(self, by: int) -> None: ...

    def said(self, text: str) -> None: ...

    def restarting(self, text: str) -> None:
        print(f"sparehive: {text}", file=sys.stderr, flush=True)


def die_with_parent() -> None:
    """Ask the kernel (Linux) for SIGTERM when the parent dies, so that a killed supervisor leaves no orphan."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)


def kill_group(process_group: int) -> None:
    """SIGKILL to what is left of a process group; none left is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process_group, signal.SIGKILL)


def supervise(arguments: Sequence[str], watcher: Watcher | None = None, module: str = "peers.peer") -> int:
    """Run `python -m MODULE ARGUMENTS` until it ends by itself; the exit status to end with.

    SIGTERM and SIGINT are passed on once as SIGTERM; after `GRACE_SECONDS` the tree is killed. Must be called from the main
    thread."""
    return _Supervision(module, arguments, watcher or Nobody()).run()


class _Supervision:
    """Of one peer, from its first start to its last end."""

    def __init__(self, module: str, arguments: Sequence[str], watcher: Watcher) -> None:
        self._module, self._arguments, self._watcher = module, arguments, watcher
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._asked_at: float | None = None  # to stop
        self._asked_by = 0
        self._is_told = False

    def run(self) -> int:
        old = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            while True:
                begun = time.monotonic()
                code = self._run_once()
                if code == EXIT_FINISHED:
                    return code
                if self._asked_at is not None or code in (EXIT_LEFT, EXIT_USER_ERROR):
                    return 0 if code in (EXIT_LEFT, -signal.SIGTERM) else 1
                if time.monotonic() - begun > STABLE_SECONDS:
                    self._restarts = 0
                if not self._wait_for_restart(code):
                    return 1
                if self._asked_at is not None:
                    self._watcher.leaving(self._asked_by)
                    return 0
        finally:
            self._end_child()
            for number, handler in old.items():
                signal.signal(number, handler)

    def _ask_to_stop(self, signum: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at, self._asked_by = time.monotonic(), signum
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()

    def _run_once(self) -> int:
        """One life of the peer; its exit status, or the negative signal."""
        watcher = self._watcher
        child = self._child = subprocess.Popen(
            [sys.executable, "-m", self._module, *self._arguments],
            start_new_session=True,
            stderr=subprocess.PIPE if watcher.takes_words else None,
        )
        if child.stderr is not None:
            os.set_blocking(child.stderr.fileno(), False)
        if self._asked_at is not None:  # asked between two starts
            child.terminate()
        while child.poll() is None:
            if self._asked_at is not None:
                if time.monotonic() - self._asked_at > GRACE_SECONDS:
                    kill_group(child.pid)
                if not self._is_told:
                    self._is_told = True
                    watcher.leaving(self._asked_by)
            watcher.tick(child.pid)  # before its words: the last of those may be why it ends
            _pass_on(child, watcher)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.25)
        kill_group(child.pid)
        if self._asked_at is not None or child.returncode in (EXIT_LEFT, EXIT_FINISHED):
            watcher.tick(child.pid)
        _pass_on(child, watcher)
        if child.stderr is not None:
            child.stderr.close()
        return child.returncode

    def _wait_for_restart(self, code: int) -> bool:
        """Longer each time; False: it has died too often."""
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            self._watcher.restarting(
                f"the peer died {self._restarts} times (last status {code}); see peer.log in its directory"
            )
            return False
        self._watcher.restarting(
            f"the peer died (status {code}); starting it again, {self._restarts} of {MAX_RESTARTS}"
        )
        until = time.monotonic() + min(2.0**self._restarts, 30.0) / 2
        while time.monotonic() < until and self._asked_at is None:  # a signal does not end a sleep
            time.sleep(0.1)
        return True

    def _end_child(self) -> None:
        """Where the watcher failed: stdout is gone, say."""
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_SECONDS)
            kill_group(child.pid)
            child.wait()


def _pass_on(child: "subprocess.Popen[bytes]", watcher: Watcher) -> None:
    if child.stderr is not None:
        text = child.stderr.read()  # does not block: None where there is nothing
        if text:
            watcher.said(text.decode(errors="replace"))
