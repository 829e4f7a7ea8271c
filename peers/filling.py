"""A store of data while blocks come into it: one process at a time, and what is new is taken back after an error."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from peers.errors import ConfigError
from peers.progressbar import ProgressBar
from swarm.checkpoint.store import BlockStore

LOOK_SECONDS = 0.2  # between two looks at a store that another process is filling
_KEEP_BYTES = 1 << 62


class Filling:
    """A store that is held. `added`: digests that were not there before; `num_written`: these, and those that had rotted."""

    def __init__(self, store: BlockStore) -> None:
        self.store, self.added, self.num_written = store, list[bytes](), 0
        self.has, self.get = store.has, store.get
        self._right = set[bytes]()

    def put_as(self, digest: bytes, data: bytes) -> None:
        """Store what has this digest, in the place of one that has rotted, too. Errors as `BlockStore.put_as`."""
        if digest in self._right:
            return
        was_there = self.store.has(digest)
        if self.store.get(digest) is None:  # which removes one that has rotted
            if not was_there:
                self.added.append(digest)
            self.store.put_as(digest, data)
            self.num_written += 1
        self._right.add(digest)

    def is_right(self, digest: bytes) -> bool:
        """Whether it is there, read and hashed unless that was done."""
        return digest in self._right or self.store.get(digest) is not None


@contextlib.contextmanager
def filling(folder: Path, progress: ProgressBar) -> Iterator[Filling]:
    """The blocks of `folder`, made if need be, while no other process fills it: it is waited for. After an error nothing new stays.
    ConfigError where a peer or storer runs in it, whose blocks are its own."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_alone(folder, progress))
            held.enter_context(_without_peer(folder))
            into = Filling(BlockStore(folder, _KEEP_BYTES))
            try:
                yield into
            except BaseException:
                for digest in into.added:
                    into.store.delete(digest)
                raise
        except BaseException:
            with contextlib.suppress(OSError):  # of another one that waits here, or is done
                for path in made:
                    path.rmdir()
            raise


@contextlib.contextmanager
def _alone(folder: Path, progress: ProgressBar) -> Iterator[None]:
    """Holds it against others that fill it; where nothing can be locked nobody is held off."""
    handle = _opened_alone(folder)
    if handle is None:
        with progress.during(f"waiting for another import into {folder.parent}"):
            while (handle := _opened_alone(folder)) is None:
                time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        os.close(handle)


def _opened_alone(folder: Path) -> int | None:
    """None: another one has it, or has just removed it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        return handle
    if os.path.isdir(folder) and os.path.samestat(os.fstat(handle), os.stat(folder)):
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def _without_peer(folder: Path) -> Iterator[None]:
    """Holds the directory of a peer or storer whose blocks these are, so that none runs or starts in it meanwhile."""
    lock = folder.parent / "lock"
    if not lock.is_file():
        yield
        return
    with open(lock, "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "--store", str(folder.parent), "a peer or storer is running in it: stop it, or choose another store"
            ) from None
        except OSError:
            pass
        yield


__all__ = ["Filling", "filling"]
