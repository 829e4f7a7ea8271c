"""Content as it comes: each block written at once to where it belongs in the files, so that nothing is on disk twice.

What is there from an earlier attempt is looked through block by block and counts where it is right; so a fetch that was broken off goes
on, whatever was left half-written.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from swarm.checkpoint.trees import Plan
from swarm.errors import DiskError, PeerFault, disk_remedy
from swarm.hashing import sha256


class Landing:
    """Takes the place of a store while leaves are fetched: `has`, `get`, `put_as`. `folder`: of this content alone, made if need be;
    `finish` gives what becomes the user's. DiskError names what the disk refuses."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.content = folder / "content"
        self._done: set[bytes] = set()
        self.kept_bytes = self.written_bytes = 0

    def path(self, file: int) -> Path:
        inside = self.plan.files[file].path
        return self.content / inside if inside else self.content

    def begin(self, report: Callable[[float], None] = lambda share: None) -> None:
        """Make folders and files of their sizes, and look through what is there."""
        with self._disk():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            if self.plan.is_folder:
                self.content.mkdir(exist_ok=True)
            for name in self.plan.folders:
                (self.content / name).mkdir(exist_ok=True)
            old = {i for i in range(len(self.plan.files)) if self.path(i).is_file() and not self.path(i).is_symlink()}
            for i, file in enumerate(self.plan.files):
                with self._opened(i, os.O_CREAT) as handle:
                    os.truncate(handle, file.size)
            self._look_through(old, report)

    def _clear(self) -> None:
        """What is none of this content's goes: of an older attempt at something else, or put there by others."""
        if self.content.is_symlink() or (self.content.exists() and self.content.is_dir() != self.plan.is_folder):
            shutil.rmtree(
                self.content
            ) if self.content.is_dir() and not self.content.is_symlink() else self.content.unlink()
        ours = {file.path for file in self.plan.files}
        folders = {*self.plan.folders, ""}
        for at, names, files in os.walk(self.content):
            inside = os.path.relpath(at, self.content)
            prefix = "" if inside == "." else f"{inside}/"
            for name in [n for n in names if prefix + n not in folders or os.path.islink(os.path.join(at, n))]:
                path = Path(at, name)
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
                names.remove(name)
            for name in [n for n in files if prefix + n not in ours or os.path.islink(os.path.join(at, n))]:
                os.unlink(os.path.join(at, name))

    def _look_through(self, old: set[int], report: Callable[[float], None]) -> None:
        looked, whole = 0, max(1, sum(self.plan.files[i].size for i in old))
        for digest, places in self.plan.places.items():
            size = places[0][2]
            if all(place[0] in old for place in places):
                looked += size
                report(looked / whole)
                if all(sha256(self._read(*place)) == digest for place in places):
                    self._done.add(digest)
                    self.kept_bytes += size * len(places)

    def _read(self, file: int, offset: int, size: int) -> bytes:
        with self._opened(file) as handle:
            return os.pread(handle, size, offset)

    # -- as a store --------------------------------------------------------------------------------------------------------
    def has(self, digest: bytes) -> bool:
        return digest in self._done

    def get(self, digest: bytes) -> bytes | None:
        if digest not in self._done:
            return None
        with self._disk():
            return self._read(*self.plan.places[digest][0])

    def put_as(self, digest: bytes, data: bytes) -> None:
        """A block whose digest was checked. `PeerFault` where its size is not what the tree says."""
        places = self.plan.places[digest]
        if any(len(data) != size for _, _, size in places):
            raise PeerFault("tree: a size in it is a lie")
        with self._disk():
            for file, offset, _ in places:
                with self._opened(file) as handle:
                    _write_at(handle, data, offset)
        self._done.add(digest)
        self.written_bytes += len(data) * len(places)

    def missing(self) -> list[bytes]:
        """Digests in the order of the files."""
        return [digest for digest in self.plan.places if digest not in self._done]

    def finish(self, out: Path) -> None:
        """All is there: on disk, then at `out`, and the folder goes. Where the folder lies in `out`, that is filled from within."""
        with self._disk():
            for i in range(len(self.plan.files)):
                with self._opened(i) as handle:
                    os.fsync(handle)
            if self.folder.parent == out:
                for path in sorted(self.content.iterdir()):
                    os.rename(path, out / path.name)
            else:
                if out.is_dir():
                    out.rmdir()  # empty, or it was refused
                os.rename(self.content, out)
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _opened(self, file: int, flags: int = 0) -> Iterator[int]:
        handle = os.open(self.path(file), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o666)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self.folder
            raise DiskError(f"{where}: cannot be written ({error.strerror}); {disk_remedy(error)}") from None


def _write_at(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


__all__ = ["Landing"]
