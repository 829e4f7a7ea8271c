"""Where a peer keeps what it has, and the lock that keeps a second process out."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.errors import StartError


@dataclass(frozen=True)
class PeerDirectory:
    """The tree of one peer. Nothing of a peer lies outside of it."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "peer.toml"

    @property
    def identity(self) -> Path:
        return self.root / "identity.key"

    @property
    def hot_key(self) -> Path:
        return self.root / "keys" / "hot.json"

    @property
    def hot_password(self) -> Path:
        return self.root / "keys" / "hot.password"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def blocks(self) -> Path:
        return self.root / "blocks"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def snapshot(self) -> Path:
        return self.root / "state.snapshot"

    @property
    def contributions(self) -> Path:
        """Wire bytes of own contributions, by digest."""
        return self.root / "contributions"

    @property
    def archive(self) -> Path:
        """What is kept so that own contributions can be redone."""
        return self.root / "audit"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def ready(self) -> Path:
        """Renamed into place when the peer holds the anchor and trains or serves: readiness is a file, not a log line."""
        return self.root / "ready.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def known(self) -> Path:
        """Addresses of peers that were linked, so that a restart finds the swarm when the seed peer is gone."""
        return self.root / "known.json"

    @property
    def port(self) -> Path:
        """The TCP port of the last start: addresses that others have, and forwarded ports, stay good."""
        return self.root / "port"

    @property
    def invite(self) -> Path:
        return self.root / "invite.txt"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; StartError if another process has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StartError(
                    f"--dir {self.root}: another peer is running in it; stop it or choose another directory"
                ) from None
            yield


def old_events(path: Path) -> Path:
    """Where the events before those in `path` (`PeerDirectory.events`) lie, if there were more than one file takes."""
    return path.with_name("events.old.jsonl")


def last_port(directory: PeerDirectory) -> int:
    """TCP port of the last start if it is free again; 0: any."""
    try:
        port = int(directory.port.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def keep_port(directory: PeerDirectory, port: int) -> None:
    """A disk that takes nothing is no reason to stop."""
    with contextlib.suppress(OSError):
        directory.port.write_text(f"{port}\n", encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Atomically: a reader sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)
