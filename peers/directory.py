"""Where a peer keeps what it has, and the lock that keeps a second process out."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.errors import StartError
from swarm.atomic import write_atomically


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
    def watch(self) -> Path:
        """What was found when the organiser's proposals were last looked at."""
        return self.root / "watch.json"

    @property
    def gateway(self) -> Path:
        """Where the gateway beside this peer answers, or why it does not."""
        return self.root / "gateway.json"

    @property
    def ipfs(self) -> Path:
        """Addresses of the libp2p node beside this peer, or why there is none."""
        return self.root / "ipfs.json"

    @property
    def ipfs_key(self) -> Path:
        return self.root / "ipfs.key"

    @property
    def written(self) -> Path:
        """How much was written to disk in the last day."""
        return self.root / "written.json"

    @property
    def scrubbed(self) -> Path:
        """Of a storer: how far its blocks were read again."""
        return self.root / "scrub.json"

    @property
    def collected(self) -> Path:
        """Of a storer: data sets of the owners that it collects."""
        return self.root / "collected.json"

    @property
    def trees(self) -> Path:
        """Of a storer: what paths of proofs are made of, a file for each object."""
        return self.root / "trees"

    @property
    def known(self) -> Path:
        """Addresses of peers that were linked, so that a restart finds the swarm when the seed peer is gone."""
        return self.root / "known.json"

    @property
    def stamp(self) -> Path:
        """Work that was done to be heard by a run that asks newcomers for it."""
        return self.root / "stamp.json"

    @property
    def port(self) -> Path:
        """The TCP port of the last start: addresses that others have, and forwarded ports, stay good."""
        return self.root / "port"

    @property
    def invite(self) -> Path:
        return self.root / "invite.txt"

    @property
    def bound(self) -> Path:
        """The wallet that the hot key is bound to, once a command has seen it on chain."""
        return self.root / "bound.json"

    @property
    def seed_link(self) -> Path:
        """Of a seed: where its run and the organiser's key are. Written anew at every start."""
        return self.root / "seed.json"

    def check(self) -> None:
        """StartError names what lies in the way of a start: a folder in a file's place, or the reverse, or what may not be read.

        Each of these would be found later, too, but by the one part that needs it, perhaps after hours."""
        folders = [self.root, self.hot_key.parent, self.blocks, self.data, self.contributions, self.archive, self.trees]
        folders += [self.archive / name for name in ("states", "contributions", "averages", "anchors", "draws")]
        for path in folders:
            if os.path.lexists(path):
                if not path.is_dir():
                    raise StartError(f"{path} is no folder, where a peer keeps one: move it away")
                if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                    raise StartError(f"{path} may not be read and written by this user: chown it, or chmod u+rwx")
        for path in self.files():
            if os.path.lexists(path):
                if not path.is_file():
                    raise StartError(f"{path} is no file, where a peer keeps one: move it away")
                if not os.access(path, os.R_OK | os.W_OK):
                    raise StartError(f"{path} may not be read and written by this user: chown it, or chmod u+rw")

    def files(self) -> list[Path]:
        ledger = [self.ledger.with_name(self.ledger.name + end) for end in ("", "-wal", "-shm")]
        logs = [self.root / name for name in ("peer.log", "peer.log.1", "lock", "anchors.json")]
        keys = [self.hot_key, self.hot_password, self.identity, self.journal]
        other = [
            self.port,
            self.config,
            self.invite,
            self.seed_link,
            self.snapshot,
            self.known,
            self.bound,
            self.stamp,
            self.status,
            self.watch,
            self.gateway,
            self.ipfs,
            self.ipfs_key,
            self.written,
            self.scrubbed,
            self.collected,
            self.ready,
        ]
        return [*keys, *ledger, *other, self.events, old_events(self.events), *logs]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; StartError if another process has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise StartError(
                        f"--dir {self.root}: files cannot be locked there ({error.strerror}), so that two peers could sign "
                        "with one key: choose a directory on a disk of this machine"
                    ) from None
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
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), sync=False)
