"""Data sets by CID: `sparehive data`, and what `run new --data CID` takes.

A data set is a folder of somebody's files as content, with manifest.json in it: names, sizes and hashes, the licence, whose it is and which
part of a model's earnings its owners ask for. Strangers write manifests: they are read strictly, and compared with what is there.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from incentives.jsonform import first_fault
from peers.carfiles import own_entries
from peers.contents import WITHDRAWN
from peers.errors import ConfigError, StartError
from peers.fetching import STALL_SECONDS, Crowd, crowd_of, fetch, plan_of
from peers.filling import Filling, filling
from peers.progressbar import ProgressBar
from swarm.atomic import write_atomically
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import MAX_FILES, Plan, check_name, pieces_of, put_folders, put_pieces
from swarm.checkpoint.unixfs import RAW, BlockLink, cid_text, decode_node, parse_any_cid, read_file
from swarm.errors import PeerFault, printable
from swarm.hashing import canonical_json

FILE, KIND = "manifest.json", "sparehive-data"
MAX_BYTES, MAX_LICENCE, MAX_OWNERS, WHOLE_BPS = 32 << 20, 1 << 16, 64, 10_000
PUBLISHED = "published"  # folder of a store: a file for each data set that was published from here
_KEEP_BYTES = 1 << 62


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataEntry(_Part):
    """A file: bytes, sha-256."""

    name: str = Field(min_length=1, max_length=8192)
    size: int = Field(ge=0, le=1 << 50)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _is_safe(cls, name: str) -> str:
        try:
            for part in name.split("/"):
                check_name(part)
        except PeerFault as fault:
            raise ValueError(str(fault).removeprefix("tree: ")) from None
        return name


class DataOwner(_Part):
    """`share_bps`: ten-thousandths of a model's earnings that are asked for; what is paid a model's publication says."""

    account: str = Field(pattern="^0x[0-9a-f]{40}$")
    share_bps: int = Field(ge=0, le=WHOLE_BPS)


class DataManifest(_Part):
    """`licence`: its identifier or its text; `owners`: as who published says, proved by nothing."""

    kind: Literal["sparehive-data"] = "sparehive-data"
    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=100)
    description: str = Field("", max_length=4000)
    licence: str = Field(min_length=1, max_length=MAX_LICENCE)
    owners: Annotated[tuple[DataOwner, ...], Field(strict=False, max_length=MAX_OWNERS)] = ()
    files: Annotated[tuple[DataEntry, ...], Field(strict=False, min_length=1, max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if len({owner.account for owner in self.owners}) != len(self.owners):
            raise ValueError("an owner stands in it twice")
        if sum(owner.share_bps for owner in self.owners) > WHOLE_BPS:
            raise ValueError("its owners ask for more than the whole")
        names = [file.name for file in self.files]
        if len(set(names)) != len(names) or FILE in names:
            raise ValueError(f"a file stands in it twice, or is called {FILE}")
        return self

    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def content(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """`PeerFault` in one line where it is none."""
        try:
            if len(data) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            return cls.model_validate(from_json(data))
        except ValidationError as error:
            why = first_fault(error)
        except ValueError as error:
            why = str(error)
        raise PeerFault(f"data set: {FILE} cannot be used ({printable(why, 300)})")

    def check(self, files: Mapping[str, int]) -> None:
        """`PeerFault` where it names other files, or other sizes, than are there (`files`: without the manifest)."""
        said = {file.name: file.size for file in self.files}
        for name in sorted(said.keys() | files.keys()):
            if name not in files:
                raise PeerFault(f"data set: {FILE} names {printable(name, 80)!r}, which is not in it")
            if name not in said:
                raise PeerFault(f"data set: {printable(name, 80)!r} is in it, and {FILE} does not name it")
            if said[name] != files[name]:
                raise PeerFault(
                    f"data set: {printable(name, 80)!r} has {files[name]} bytes, and {FILE} says {said[name]}"
                )


# -- publishing ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class About:
    """What who publishes says of a data set."""

    name: str
    licence: str
    description: str = ""
    owners: tuple[DataOwner, ...] = ()


def publish(source: Path, directory: Path, about: About, progress: ProgressBar) -> dict[str, Any]:
    """Put a file or a folder with its manifest into the store at `directory`. ConfigError or InputError in one line, and nothing of it
    stays."""
    entries = [(path, name or path.name) for path, name in own_entries(source, progress)]
    if any(name == FILE for _, name in entries):
        raise ConfigError("SOURCE", str(source), f"holds a {FILE} of its own, where a data set has one: rename it")
    links, files, done = dict[str, BlockLink](), list[DataEntry](), 0
    whole = max(1, sum(path.stat().st_size for path, _ in entries))
    with filling(directory / "blocks", progress) as adding:
        with progress.during(f"publishing {source.name}") as report:
            for path, name in entries:
                links[name], entry = _put(path, name, adding)
                files.append(entry)
                done += entry.size
                report(done / whole)
        manifest = _manifest(about, files)
        links[FILE] = put_pieces((manifest.content(),), adding)
        cid = cid_text(put_folders(links, adding).digest)
        (directory / PUBLISHED).mkdir(exist_ok=True)
        write_atomically(directory / PUBLISHED / cid, f"{time.time():.0f}\n".encode())
        with contextlib.suppress(FileNotFoundError):
            (directory / WITHDRAWN / parse_any_cid(cid)[0].hex()).unlink()
    return {"cid": cid, "store": str(directory), "new_blocks": adding.num_written, **described(manifest)}


def _manifest(about: About, files: list[DataEntry]) -> DataManifest:
    try:
        return DataManifest(
            name=about.name,
            licence=about.licence,
            description=about.description,
            owners=about.owners,
            files=tuple(sorted(files, key=lambda file: file.name.encode())),
        )
    except ValidationError as error:
        raise ConfigError("data publish", about.name, first_fault(error)) from None


def _put(path: Path, name: str, store: Filling) -> tuple[BlockLink, DataEntry]:
    digest, size = hashlib.sha256(), 0

    def pieces() -> Iterator[bytes]:
        nonlocal size
        for piece in pieces_of(path):
            digest.update(piece)
            size += len(piece)
            yield piece

    link = put_pieces(pieces(), store)
    return link, DataEntry.model_construct(name=name, size=size, sha256=digest.hexdigest())


def described(manifest: DataManifest) -> dict[str, Any]:
    """For programs, without its list of files."""
    found = manifest.model_dump(mode="json", exclude={"files", "kind", "format"})
    return {**found, "files": len(manifest.files), "bytes": manifest.size_bytes()}


def withdraw(cid: str, directory: Path) -> None:
    """The gateway answers for it no more, and `published` forgets it; who has copies keeps them. ConfigError where it was not published."""
    found = directory / PUBLISHED / cid_text(*_root(cid))
    if not found.is_file():
        raise ConfigError("CID", cid, f"was not published from {directory}: see `sparehive data list`")
    (directory / WITHDRAWN).mkdir(exist_ok=True)
    (directory / WITHDRAWN / _root(cid)[0].hex()).touch()
    found.unlink()


def published(directory: Path) -> list[tuple[str, float, DataManifest | None]]:
    """CID, unix seconds and manifest of what was published from a store, the newest first; None: its blocks are gone or damaged.
    ConfigError where there is no store."""
    if not directory.is_dir():
        raise ConfigError("--store", str(directory), "is no store of data: `sparehive data publish` makes one")
    store = BlockStore(directory / "blocks", _KEEP_BYTES, owned=False)
    found = []
    for path in (directory / PUBLISHED).glob("b*"):
        try:
            at, manifest = float(path.read_text(encoding="utf-8")), _stored_manifest(parse_any_cid(path.name)[0], store)
        except (OSError, ValueError, PeerFault):
            at, manifest = 0.0, None
        found.append((path.name, at, manifest))
    return sorted(found, key=lambda each: -each[1])


def published_roots(directories: Sequence[Path]) -> tuple[bytes, ...]:
    """Of what was published from these stores and not withdrawn, as far as it can be read: for who is told what is handed out."""
    names = [path.name for directory in directories for path in (directory / PUBLISHED).glob("b*")]
    found = []
    for name in sorted(names):
        with contextlib.suppress(ValueError):
            found.append(parse_any_cid(name)[0])
    return tuple(found)


def _stored_manifest(root: bytes, store: BlockStore) -> DataManifest:
    def absent(digest: bytes) -> Exception:
        return PeerFault(f"block {digest.hex()[:12]} is gone")

    get = store.getter(absent)
    link = next((each for each in decode_node(get(root)).links if each.name == FILE), None)
    if link is None:
        raise PeerFault("it has no manifest")
    return DataManifest.parse(read_file(link, get, MAX_BYTES))


# -- somebody's ----------------------------------------------------------------------------------------------------------
def _root(cid: str) -> tuple[bytes, int]:
    try:
        return parse_any_cid(cid)
    except ValueError as error:
        raise ConfigError("CID", cid, str(error)) from None


def show(cid: str, sources: Sequence[str], progress: ProgressBar, stall_seconds: float = STALL_SECONDS) -> DataManifest:
    """The manifest of a data set, brought with the nodes of its tree alone and compared with them. ConfigError in one line where it is no
    data set, or its manifest is not true; StartError where nobody has it."""
    root, codec = _root(cid)
    if not sources:
        raise ConfigError("--from", None, "nobody was named who may have it: give a gateway, a CAR file or a store")

    async def bring() -> DataManifest:
        async with crowd_of(sources, stall_seconds) as crowd:
            plan = await plan_of(crowd, root, codec, _KEEP_BYTES)
            manifest = DataManifest.parse(await _read(crowd, plan))
            manifest.check({file.path: file.size for file in plan.files if file.path != FILE})
            return manifest

    try:
        with progress.during(f"looking for {cid[:12]}…"):
            return asyncio.run(bring())
    except PeerFault as fault:
        raise ConfigError("CID", cid, f"is no data set that can be used ({fault})") from None
    except StartError as error:
        raise StartError(f"{cid}: {error}") from None


class _Kept(dict[bytes, bytes]):
    def has(self, digest: bytes) -> bool:
        return digest in self

    def put_as(self, digest: bytes, data: bytes) -> None:
        self[digest] = data


async def _read(crowd: Crowd, plan: Plan) -> bytes:
    number = next((i for i, file in enumerate(plan.files) if file.path == FILE), None)
    if number is None or plan.files[number].size > MAX_BYTES:
        raise PeerFault(f"data set: it has no {FILE}: `sparehive fetch` writes it as it is")
    places = {d: [p for p in found if p[0] == number] for d, found in plan.places.items()}
    kept = _Kept()
    wanted = [digest for digest, mine in places.items() if mine]
    for digest in wanted:
        crowd.codecs[digest] = RAW
    await crowd.bring(wanted, kept, 2 * MAX_BYTES)
    made = bytearray(plan.files[number].size)
    for digest in wanted:
        for _, offset, size in places[digest]:
            if len(kept[digest]) != size:
                raise PeerFault("data set: a size in it is a lie")
            made[offset : offset + size] = kept[digest]
    return bytes(made)


@dataclass(frozen=True)
class TakenData:
    """A data set on this disk: `path`, a folder, or the file if it has one; `manifest`: None for content that has none."""

    cid: str
    path: Path
    manifest: DataManifest | None

    def content(self) -> bytes:
        """Of `dataset.json` beside a run: what the run was made of."""
        whose = None if self.manifest is None else described(self.manifest)
        return canonical_json({"cid": self.cid, "about": whose}) + b"\n"


def take(
    cid: str, sources: Sequence[str], cache: Path, progress: ProgressBar, stall_seconds: float = STALL_SECONDS
) -> TakenData:
    """The files of a data set in `cache`, fetched unless they are there, bit for bit; its manifest is compared with them. ConfigError or
    StartError in one line."""
    folder = cache / _root(cid)[0].hex()
    sums = folder.with_name(folder.name + ".sums")
    if not (sums.is_file() and os.path.lexists(folder) and sums.read_bytes() == _sums(folder, progress)):
        if os.path.lexists(folder):  # others changed it, or a kill came between it and its sums
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        cache.mkdir(parents=True, exist_ok=True)
        fetch(cid, sources, folder, progress, stall_seconds)
        write_atomically(sums, _sums(folder, progress))
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return TakenData(cid, folder, None)
    try:
        value = from_json(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict) or value.get("kind") != KIND:
        return TakenData(cid, folder, None)  # somebody else's file of that name
    try:
        manifest = DataManifest.parse(path.read_bytes())
        _check_files(manifest, folder, progress)
    except PeerFault as fault:
        raise ConfigError("--data", cid, f"is no data set that can be used ({fault})") from None
    return TakenData(cid, folder / manifest.files[0].name if len(manifest.files) == 1 else folder, manifest)


def _check_files(manifest: DataManifest, folder: Path, progress: ProgressBar) -> None:
    found = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    found.pop(FILE, None)
    manifest.check(found)
    with progress.during("checking the data"):
        for file in manifest.files:
            with open(folder / file.name, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != file.sha256:
                    raise PeerFault(f"data set: {printable(file.name, 80)!r} is not the file that {FILE} describes")


def _sums(folder: Path, progress: ProgressBar) -> bytes:
    """Names and sha-256 of all files, by which a later run sees whether they are still what was fetched."""
    found = {}
    with progress.during("checking the data"):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                with open(path, "rb") as handle:
                    found[str(path.relative_to(folder))] = hashlib.file_digest(handle, "sha256").hexdigest()
    return canonical_json(found)


__all__ = [
    "FILE", "About", "DataEntry", "DataManifest", "DataOwner", "TakenData", "described", "publish", "published", "show", "take", "withdraw",
]  # fmt: skip
