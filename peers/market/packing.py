"""A folder made into blocks of encrypted files beside their manifest, and those blocks made into the folder again (protocol §8.10).

The root is a UnixFS directory: manifest.json, and the encrypted files under their numbers in it, 0, 1, …
"""

import hashlib
import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from incentives.errors import TamperedError
from peers.errors import ConfigError, StartError
from peers.lineage import FILE as LINEAGE
from peers.lineage import read_lineage
from peers.market.encrypting import PREFIX_BYTES, Position, decrypted_pieces, encrypted_pieces
from peers.market.manifest import FILE, MAX_BYTES, MAX_FILES, File, Losses, Manifest, name_fault
from peers.progressbar import ProgressBar
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import Block, BlockLink, decode_node, encode_directory, file_blocks, file_pieces
from swarm.errors import PeerFault, disk_remedy

_READ_BYTES = 4 << 20
Get = Callable[[bytes], bytes]  # a block by its digest, checked


@dataclass(frozen=True)
class Packed:
    """`root`: digest of the root block. `encrypted_bytes`: of all blocks."""

    root: bytes
    manifest: Manifest
    encrypted_bytes: int


def plain_files(folder: Path) -> list[str]:
    """Names of what is published of `folder`, sorted. ConfigError where it has none, or one that cannot be published."""
    if not folder.is_dir():
        raise ConfigError("DIR", str(folder), "is no folder: give one of `sparehive export`")
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ConfigError("DIR", str(folder), f"{name} is a link or no file: copy its content into its place")
        if path.is_file() and name != FILE:
            fault = name_fault(name)
            if fault is not None:
                raise ConfigError("DIR", str(folder), f"{name} {fault}: rename it")
            found.append(name)
    if not 0 < len(found) <= MAX_FILES:
        raise ConfigError("DIR", str(folder), f"has {len(found)} files: one to {MAX_FILES} can be published")
    return found


def losses_of(folder: Path) -> Losses:
    """Of the card that `export` writes; none where there is no card, or it does not say."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace")[:MAX_BYTES] if path.is_file() else ""
    found = dict(re.findall(r"^\| Held-out loss (before|after) \| ([0-9]+\.[0-9]+) \|$", text, re.MULTILINE))
    return Losses(**{when: float(value) for when, value in found.items()})


def pack(folder: Path, store: BlockStore, key: bytes | None, name: str, licence: str, progress: ProgressBar) -> Packed:
    """Encrypts all files of `folder` with `key`, which must be new, into blocks in `store`; None: the manifest alone is published, of a
    model that is served. ConfigError: it has none that can be published; TamperedError: a file changes meanwhile."""
    files: list[File] = []
    entries: list[tuple[str, BlockLink]] = []
    names = plain_files(folder)
    whole, done, written = sum((folder / each).stat().st_size for each in names) or 1, 0, 0
    with progress.during("encrypting" if key else "hashing") as report:
        for index, each in enumerate(names):
            position = Position(index, each, (folder / each).stat().st_size, secrets.token_bytes(PREFIX_BYTES))
            digest = hashlib.sha256()
            plain = _reported(_hashed(folder / each, digest), report, done, whole)
            if key is None:
                deque(plain, maxlen=0)
            else:
                link, size = _kept(file_blocks(encrypted_pieces(key, position, plain)), store)
                entries.append((str(index), link))
                written += size
            done += position.size
            files.append(File(name=each, size=position.size, sha256=digest.hexdigest(), nonce=position.prefix.hex()))
    lineage = read_lineage(folder / LINEAGE)
    manifest = Manifest(name=name, licence=licence, files=tuple(files), lineage=lineage, losses=losses_of(folder))
    link, size = _kept(file_blocks((manifest.content(),)), store)
    root, block = encode_directory([*entries, (FILE, link)])
    store.put_as(block.digest, block.data)
    return Packed(root.digest, manifest, written + size + len(block.data))


def _kept(making: Generator[Block, None, BlockLink], store: BlockStore) -> tuple[BlockLink, int]:
    """(the file's root link, bytes of its blocks), all of them put into `store`."""
    size = 0
    while True:
        try:
            block = next(making)
        except StopIteration as end:
            return end.value, size
        store.put_as(block.digest, block.data)
        size += len(block.data)


def _reported(pieces: Iterator[bytes], report: Callable[[float], None], done: int, whole: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        done += len(piece)
        report(min(1.0, done / whole))


def _hashed(path: Path, digest: "hashlib._Hash") -> Iterator[bytes]:
    with open(path, "rb") as handle:
        while piece := handle.read(_READ_BYTES):
            digest.update(piece)
            yield piece


@dataclass(frozen=True)
class Shelf:
    """A published model by its root, as `get` gives its blocks. What it raises for one that it does not have passes through."""

    root: bytes
    manifest: Manifest
    links: tuple[BlockLink, ...]  # of the encrypted files, as the manifest has them; none of a model that is served

    def encrypted_bytes(self) -> int:
        return sum(self.manifest.position(index).encrypted_size for index in range(len(self.links)))


def open_shelf(root: bytes, manifest_hash: bytes | None, get: Get) -> Shelf:
    """The root block and the manifest of a model. TamperedError where they are not of a published model, or another's manifest."""
    try:
        node = decode_node(get(root))
        by_name = {link.name: link for link in node.links}
        if not node.is_directory or FILE not in by_name:
            raise PeerFault(f"its root is no folder with {FILE}")
        manifest = Manifest.parse(b"".join(file_pieces(by_name[FILE], get, MAX_BYTES)), manifest_hash)
        count = len(manifest.files) if len(node.links) > 1 else 0
        links = [by_name.get(str(index)) for index in range(count)]
        if len(node.links) != len(links) + 1 or None in links:
            raise PeerFault(f"its root has other files than its {FILE}")
    except PeerFault as error:
        raise TamperedError(f"the model was published wrongly: {error}") from None
    return Shelf(root, manifest, tuple(link for link in links if link is not None))


def unpack(shelf: Shelf, get: Get, key: bytes, out: Path, progress: ProgressBar) -> list[str]:
    """Decrypts into the folder `out`, checks each file against the manifest, and puts the manifest beside them; names that were written.
    What is there already and right stays. TamperedError: a file does not open or is not the one that was published; StartError: the disk,
    or another file in the way."""
    written, done, whole = [], 0, shelf.manifest.size_bytes() or 1
    if not shelf.links:
        raise TamperedError("the model is served, not delivered: its weights were not published")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with progress.during("decrypting") as report:
            for index, file in enumerate(shelf.manifest.files):
                path = out / file.name
                if not is_whole(path, file):
                    _check_free(path, out)
                    position = shelf.manifest.position(index)
                    encrypted = file_pieces(shelf.links[index], get, position.encrypted_size)
                    for size in _decrypt(decrypted_pieces(key, position, encrypted), path, file):
                        report((done + size) / whole)
                    written.append(file.name)
                done += file.size
                report(done / whole)
        (out / FILE).write_bytes(shelf.manifest.content())
    except PeerFault as error:
        raise TamperedError(f"the model was published wrongly: {error}") from None
    except OSError as error:
        raise StartError(
            f"--out {out}: cannot be written ({error.strerror}); {disk_remedy(error)}, or choose another folder"
        ) from None
    return written


def _check_free(path: Path, out: Path) -> None:
    if path.exists() or path.is_symlink():
        raise StartError(f"{path} is another file than the model's: move it away, or choose another folder with --out")
    for above in path.relative_to(out).parents:
        if (out / above).is_symlink():
            raise StartError(
                f"{out / above} is a link: nothing is written through it; choose another folder with --out"
            )
    path.parent.mkdir(parents=True, exist_ok=True)


def _decrypt(pieces: Iterator[bytes], path: Path, file: File) -> Iterator[int]:
    """Bytes written so far; the file is in its place at the end. TamperedError: it is another one than the manifest says."""
    part, digest, size = path.with_name(path.name + ".part"), hashlib.sha256(), 0
    try:
        with open(part, "wb") as handle:
            for piece in pieces:
                handle.write(piece)
                digest.update(piece)
                size += len(piece)
                yield size
            handle.flush()
            os.fsync(handle.fileno())
        if digest.hexdigest() != file.sha256:
            raise TamperedError(f"{file.name} opens, and is not the file of the manifest: its owner published another")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def is_whole(path: Path, file: File) -> bool:
    """Whether the file of the manifest lies there."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = hashlib.sha256()
    for _ in _hashed(path, digest):
        pass
    return digest.hexdigest() == file.sha256


__all__ = ["Get", "Packed", "Shelf", "is_whole", "losses_of", "open_shelf", "pack", "plain_files", "unpack"]
