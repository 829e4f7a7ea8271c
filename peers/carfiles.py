"""`sparehive car`: content as one file that any IPFS program takes, and such a file as blocks here."""

import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from peers.contents import Contents, blocks_of
from peers.errors import ConfigError
from peers.filling import Filling, filling
from peers.progressbar import ProgressBar
from peers.sources import Sources, files_below
from swarm.checkpoint.car import CarReader, car_header, car_section, graph_blocks
from swarm.checkpoint.trees import FolderBlocks
from swarm.checkpoint.unixfs import DAG_PB, Block, cid_text, decode_node, parse_any_cid
from swarm.errors import PeerFault

Root = tuple[bytes, int]
MIN_PIECE_BYTES = 4 << 20  # holds the largest block


def own_entries(path: Path, progress: ProgressBar) -> list[tuple[Path, str]]:
    """What is taken of a file or a folder that its owner wants to hand on: regular files, none that is hidden, no link; what is left out is
    told. ConfigError where there is nothing."""
    if path.is_file():
        return [(path, "")]
    if not path.is_dir():
        raise ConfigError("SOURCE", str(path), "is neither a CID, nor a file or a folder here")
    found = Sources()
    entries = [(Path(each), name) for each, name in files_below(found, os.fspath(path), None)]
    for _, name in entries:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                "SOURCE", name, "has a name that is no UTF-8, which others cannot write: rename it"
            ) from None
    if found.skipped:
        progress.note(found.words().replace("left out of the text", "left out"))
    if not entries:
        raise ConfigError("SOURCE", str(path), "holds no files that could be handed on")
    return entries


def own_blocks(path: Path, progress: ProgressBar) -> FolderBlocks:
    """Of a file or folder here, hashed once. ConfigError and InputError as `own_entries` and `FolderBlocks`."""
    entries = own_entries(path, progress)
    whole, done = max(1, sum(each.stat().st_size for each, _ in entries)), 0
    with progress.during(f"reading {path.name}") as report:

        def count(size: int) -> None:
            nonlocal done
            done += size
            report(done / whole)

        return FolderBlocks(entries, count)


def most_bytes_of(piece_size: int) -> int:
    """Bytes of the largest file that makes a piece of Filecoin of `piece_size` bytes: two of 256 bits are padding. ConfigError where
    that is no size of a piece, or too small for a block."""
    if piece_size & (piece_size - 1) or piece_size < MIN_PIECE_BYTES:
        raise ConfigError("--piece-size", piece_size, "must be a power of two, 4MiB at least: 32GiB is usual")
    return piece_size // 128 * 127


def export_car(
    source: str, out: Path, stores: tuple[Path, ...], progress: ProgressBar, most_bytes: int | None = None
) -> dict[str, Any]:
    """Write the content of a CID that lies in `stores`, or of a file or folder, to `out`, whole or not at all; what is larger than
    `most_bytes` to several files, NAME.0.car, NAME.1.car and so on, each a CAR that names the same root and holds a part of its blocks.
    ConfigError in one line where a block is missing, or a file is there already."""
    _check_free(out)
    if not out.parent.is_dir():
        raise ConfigError("FILE", str(out), f"there is no folder {out.parent}: make it, or choose another")
    root, get = _source(source, stores, progress)
    writing = _Writing(out, root, most_bytes)
    try:
        with progress.during(f"writing {out.name}"):
            for block in graph_blocks(root, get):
                writing.add(block)
            written = writing.end()
    except BaseException as error:
        writing.give_up()
        if isinstance(error, PeerFault):
            raise ConfigError("SOURCE", source, f"is no content of ours ({error})") from None
        raise
    return {
        "cid": cid_text(*root),
        "path": written[0]["path"],
        "blocks": sum(each["blocks"] for each in written),
        "block_bytes": writing.block_bytes,
        "files": written,
    }


def _check_free(out: Path) -> None:
    if os.path.lexists(out):
        raise ConfigError("FILE", str(out), "is there already: choose another name, or move it away")


class _Writing:
    """One file after the other, hidden until all of them are whole."""

    def __init__(self, out: Path, root: Root, most_bytes: int | None) -> None:
        self._out, self._header, self._most = out, car_header([root]), most_bytes
        self._drafts: list[tuple[Path, int, int]] = []  # file, bytes, blocks
        self._handle: BinaryIO | None = None
        self._placed: list[Path] = []
        self.block_bytes = 0

    def add(self, block: Block) -> None:
        section = car_section(block)
        _, size, blocks = self._drafts[-1] if self._drafts else (None, 0, 0)
        if self._handle is None or (self._most is not None and size + len(section) > self._most):
            self._begin()
            _, size, blocks = self._drafts[-1]
        assert self._handle is not None
        self._handle.write(section)
        self._drafts[-1] = (self._drafts[-1][0], size + len(section), blocks + 1)
        self.block_bytes += len(block.data)

    def _begin(self) -> None:
        self._close()
        number = len(self._drafts)
        for each in {0, number} if number else set[int]():
            _check_free(self._name(each))
        draft = self._out.with_name(f"{self._out.name}.{number}.{secrets.token_hex(4)}.part")
        self._handle = open(draft, "xb")  # noqa: SIM115  closed by `_close`
        self._drafts.append((draft, len(self._header), 0))
        self._handle.write(self._header)

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()
            self._handle = None

    def _name(self, number: int) -> Path:
        """Of one of several: data.car is data.0.car, data.1.car and so on."""
        ending = self._out.suffix
        return self._out.with_name(f"{self._out.name.removesuffix(ending)}.{number}{ending}")

    def end(self) -> list[dict[str, Any]]:
        """Path, bytes and blocks of each file, which are there now."""
        self._close()
        names = [self._out] if len(self._drafts) == 1 else [self._name(number) for number in range(len(self._drafts))]
        for name, (draft, _, _) in zip(names, self._drafts, strict=True):
            _place(draft, name)
            self._placed.append(name)
        found = [
            {"path": str(name), "bytes": size, "blocks": blocks}
            for name, (_, size, blocks) in zip(names, self._drafts, strict=True)
        ]
        self._drafts = []
        return found

    def give_up(self) -> None:
        """Remove what it has made. Nothing is raised: what led here is what its user is told."""
        if self._handle is not None:
            with contextlib.suppress(OSError):  # a full disk refuses again what is still to be written
                self._handle.close()
        for made in (*(draft for draft, _, _ in self._drafts), *self._placed):
            with contextlib.suppress(OSError):
                made.unlink(missing_ok=True)


def _place(draft: Path, name: Path) -> None:
    """Give it its name, which nobody else's file loses by it."""
    try:
        os.link(draft, name)
    except FileExistsError:
        _check_free(name)
        raise
    except OSError:  # a disk without links
        _check_free(name)
        os.rename(draft, name)
    else:
        draft.unlink()


def _source(source: str, stores: tuple[Path, ...], progress: ProgressBar) -> tuple[Root, Callable[[bytes], bytes]]:
    path = Path(source)
    if os.path.lexists(path):
        found = own_blocks(path, progress)
        where, getter, root = f"{path} has changed meanwhile", found.get, (found.root.digest, found.root.codec)
    else:
        try:
            root = parse_any_cid(source)
        except ValueError as error:
            raise ConfigError("SOURCE", source, f"is no file or folder here, and {error}") from None
        getter = Contents([store for store in stores if store.is_dir()]).get
        where = f"a block of it is in none of {', '.join(map(str, stores))}: name the folder with --store"

    def get(digest: bytes) -> bytes:
        data = getter(digest)
        if data is None:
            raise ConfigError("SOURCE", source, f"{where} (block {digest.hex()[:12]})")
        return data

    return root, get


def import_car(files: Sequence[Path], store_directory: Path, progress: ProgressBar) -> dict[str, Any]:
    """Put what CARs hold among the blocks of `store_directory`; several may be parts of the same content. ConfigError in one line where one
    is none, is cut off, has a wrong block, or all of them lack content of a root; then nothing of them stays."""
    for file in files:
        if file.is_dir():
            raise ConfigError(
                "FILE", str(file), "is a folder, and no CAR: give files, as `sparehive car export` writes them"
            )
    roots: dict[Root, Path] = {}
    blocks = taken = 0
    try:
        with filling(_blocks_to_write(store_directory), progress) as into:
            for file in files:
                read = 0
                with open(file, "rb") as handle, progress.during(f"reading {file.name}") as report:
                    size = max(1, file.stat().st_size)
                    reader = CarReader(handle)
                    roots.update(dict.fromkeys(reader.roots, file))
                    for block in reader:
                        into.put_as(block.digest, block.data)
                        blocks, read = blocks + 1, read + len(block.data)
                        report(read / size)
                taken += read
            for root, named in roots.items():
                file = named
                _check_whole(root, into)
    except PeerFault as error:
        raise ConfigError("FILE", str(file), str(error)) from None
    return {"roots": [cid_text(*root) for root in roots], "blocks": blocks, "new_blocks": into.num_written,
            "block_bytes": taken, "store": str(store_directory)}  # fmt: skip


def _blocks_to_write(directory: Path) -> Path:
    """A folder of blocks is taken as it is; else they go into one inside of it."""
    if directory.is_dir() and any(len(name) == 64 for name in os.listdir(directory)):
        return blocks_of(directory)
    return directory / "blocks"


def _check_whole(root: Root, store: Filling) -> None:
    waiting, seen = [root], set[bytes]()
    while waiting:
        digest, codec = waiting.pop()
        if digest in seen:
            continue
        seen.add(digest)
        data = store.get(digest) if codec == DAG_PB else None
        if data is None and not store.is_right(digest):
            raise PeerFault(
                f"car: it lacks block {digest.hex()[:12]} of its root {cid_text(*root)}; where that was written in several "
                "files, give all of them at once"
            )
        if data is not None:
            waiting += [(link.digest, link.codec) for link in decode_node(data).links]


__all__ = ["export_car", "import_car", "most_bytes_of", "own_blocks", "own_entries"]
