"""Processes that a peer has beside it and that hand its blocks on: each is started again where it ends, and dies with the peer."""

import contextlib
import logging
import subprocess
import sys
import time
from pathlib import Path

from pydantic_core import from_json

from peers.directory import PeerDirectory

log = logging.getLogger(__name__)
MAX_RESTART_SECONDS = 600.0
SETTLED_SECONDS = 60.0  # after which a start counts as one that went well


class Beside:
    """`module`: what is run as `python -m module DIRECTORY`; `told`: the file in which it says where it answers ("url"), or why it does not
    ("problem")."""

    def __init__(self, module: str, directory: PeerDirectory, told: Path, *, is_wanted: bool) -> None:
        self._module, self._directory, self._told, self._is_wanted = module, directory, told, is_wanted
        self._process: subprocess.Popen[bytes] | None = None
        self._starts, self._start_at, self._started = 0, 0.0, 0.0

    def look(self) -> None:
        """Start it, again where it has ended; then longer after each time."""
        now = time.monotonic()
        if not self._is_wanted:
            return
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self._starts = 0 if now - self._started > SETTLED_SECONDS else self._starts
            self._start_at = now + min(2.0**self._starts, MAX_RESTART_SECONDS)
            log.warning("%s has ended (%s); it is started again", self._module, self._problem())
        if self._process is None and now >= self._start_at:
            self._starts, self._started = self._starts + 1, now
            command = [sys.executable, "-m", self._module, "--", str(self._directory.root)]
            nothing = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # no process is to be had: tried again
                self._told.unlink(missing_ok=True)
                self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)

    def _problem(self) -> str:
        try:
            found = from_json(self._told.read_bytes())
            return str(found.get("problem", "")) or "killed"
        except (OSError, ValueError, AttributeError):
            return "it has said nothing"

    def close(self) -> None:
        process, self._process, self._is_wanted = self._process, None, False
        if process is not None:
            process.kill()  # it holds nothing
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        with contextlib.suppress(OSError):
            self._told.unlink(missing_ok=True)


__all__ = ["Beside"]
