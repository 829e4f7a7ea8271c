"""Content by its CID from whoever has it: several donors at once, each block checked and written where it belongs, resumable.

Neither torch nor hivemind is needed. First come the nodes that say what there is, then the leaves, straight into the files.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.donors import Donor, IpfsProcess, open_donor
from peers.errors import ConfigError, StartError
from peers.progressbar import ProgressBar
from swarm.checkpoint.fetch import fetch_blocks
from swarm.checkpoint.landing import Landing
from swarm.checkpoint.store import Keeps
from swarm.checkpoint.trees import Plan, read_plan
from swarm.checkpoint.unixfs import DAG_PB, RAW, cid_text, parse_any_cid
from swarm.errors import PeerFault, RetryError

STALL_SECONDS = 60.0  # without a block from anybody
MAX_NODES_BYTES = 256 << 20  # of one level of a tree
SPARE_BYTES = 64 << 20  # of the disk that is left to others
_LOOK_SECONDS = 0.25
_LAST_SECONDS = 1.0  # for what is on its way when it is known that not all of it can come
_WITHOUT_END = 1e9  # seconds: what ends a fetch is that nothing comes


class _Memory:
    """Keeps nodes while they are read."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}

    def has(self, digest: bytes) -> bool:
        return digest in self.found

    def get(self, digest: bytes) -> bytes | None:
        return self.found.get(digest)

    def put_as(self, digest: bytes, data: bytes) -> None:
        self.found[digest] = data


@dataclass
class Crowd:
    """Donors as one, for `swarm.checkpoint.fetch`; what each gave, and who lied."""

    donors: Sequence[Donor]
    stall_seconds: float = STALL_SECONDS
    codecs: dict[bytes, int] = field(default_factory=dict)  # of what is not a leaf
    given: dict[str, int] = field(default_factory=dict)  # bytes by name
    liars: dict[str, str] = field(default_factory=dict)  # name → why
    last: float = field(default_factory=time.monotonic)
    nobody: bytes | None = None  # a block that nobody has

    def names(self) -> list[bytes]:
        return [str(i).encode() for i, donor in enumerate(self.donors) if donor.name not in self.liars]

    async def ask(self, name: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        donor = self.donors[int(name)]
        wanted = [(digest, self.codecs.get(digest, RAW)) for digest in digests if digest not in donor.lacks]
        if not wanted:
            self._look(digests)
            raise RetryError(f"{donor.name} has none of them")
        try:
            found = await donor.ask(wanted)
        except PeerFault as fault:
            self.liars[donor.name] = str(fault)
            self._look(digests)
            raise
        self._look([digest for digest in digests if digest not in found])
        return found

    def _took(self, name: bytes, num_bytes: int) -> None:
        """Right ones came from it."""
        donor = self.donors[int(name)].name
        self.last = time.monotonic()
        self.given[donor] = self.given.get(donor, 0) + num_bytes

    def _caught(self, wanted: Sequence[bytes], store: Keeps) -> Callable[[bytes, bytes], None]:
        def caught(name: bytes, digest: bytes) -> None:
            self.liars[self.donors[int(name)].name] = f"sent other bytes as block {digest.hex()[:12]}"
            self._look([each for each in wanted if not store.has(each)])

        return caught

    def _look(self, digests: Sequence[bytes]) -> None:
        """Whether one of them can come from nobody any more."""
        there = [donor for donor in self.donors if donor.name not in self.liars]
        self.nobody = next((d for d in digests if all(d in donor.lacks for donor in there)), self.nobody)

    async def bring(self, digests: Sequence[bytes], store: Keeps, max_bytes: int) -> None:
        """StartError in one line where nobody has one of them, or nothing comes for `stall_seconds`."""
        missing = [digest for digest in digests if not store.has(digest)]
        if not missing:
            return
        self.last, self.nobody = time.monotonic(), None
        await self._watched(
            fetch_blocks(
                missing,
                store,
                self.ask,
                self.names,
                max_bytes=max_bytes,
                seconds=_WITHOUT_END,
                on_taken=self._took,
                on_liar=self._caught(missing, store),
            )
        )

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
                if self.nobody is not None:
                    await asyncio.wait({task}, timeout=_LAST_SECONDS)
                    raise StartError(f"block {self.nobody.hex()[:12]} is nowhere: {self.words()}")
                if any(donor.is_preparing for donor in self.donors):
                    self.last = time.monotonic()  # the seconds are those of the others, not of our own work
                if time.monotonic() - self.last > self.stall_seconds:
                    raise StartError(f"nothing came for {self.stall_seconds:.0f} s: {self.words()}")
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def words(self) -> str:
        """What is known of each."""
        said = [
            f"{donor.name} {self.liars.get(donor.name) or donor.last_error or ('has not all of it' if donor.lacks else 'gave nothing')}"
            for donor in self.donors
        ]
        return "; ".join(said)


@contextlib.asynccontextmanager
async def crowd_of(sources: Sequence[str], stall_seconds: float = STALL_SECONDS) -> AsyncIterator[Crowd]:
    """Of what --from names. ConfigError where one is no donor."""
    donors: list[Donor] = []
    process = IpfsProcess()
    try:
        for source in dict.fromkeys(sources):
            donors.append(open_donor(source, process))
        yield Crowd(donors, stall_seconds)
    finally:
        for donor in donors:
            await donor.close()


async def plan_of(crowd: Crowd, root: bytes, codec: int, max_bytes: int) -> Plan:
    """What there is below `root`; `PeerFault` for trees that nobody honest makes."""
    crowd.codecs[root] = codec

    async def bring(digests: Sequence[bytes]) -> Mapping[bytes, bytes]:
        level = _Memory()
        for digest in digests:
            crowd.codecs.setdefault(digest, DAG_PB)
        await crowd.bring(digests, level, MAX_NODES_BYTES)
        return level.found

    return await read_plan(root, codec, bring, max_bytes)


def fetch(
    cid: str,
    sources: Sequence[str],
    out: Path,
    progress: ProgressBar,
    stall_seconds: float = STALL_SECONDS,
    judge: Callable[[Plan], None] = lambda plan: None,
) -> dict[str, Any]:
    """Write the file or folder that `cid` names to `out`, once it is whole; what has come of one that was broken off is kept beside it (in
    it, where it is a mount point) and counts the next time. `judge` sees what there is before it comes, and raises ConfigError where it is
    not wanted. ConfigError, StartError or DiskError in one line: no CID, nobody has it, a tree that nobody honest makes, no room."""
    try:
        root, codec = parse_any_cid(cid)
    except ValueError as error:
        raise ConfigError("CID", cid, str(error)) from None
    part = _part_of(out.absolute(), cid_text(root, codec))  # "." has no name
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and set(out.iterdir()) <= {out / part.name}):
        raise ConfigError("--out", str(out), "is there already: choose another name, or move it away")
    if not out.parent.is_dir():
        raise ConfigError("--out", str(out), f"there is no folder {out.parent}: make it, or choose another")
    if not sources:
        raise ConfigError(
            "--from", None, "nobody was named who may have it: give a gateway, a CAR file or a folder of blocks"
        )
    begun = time.monotonic()
    place = out.absolute()

    def fits(plan: Plan) -> None:
        judge(plan)
        if part.parent == place and not plan.is_folder:
            raise ConfigError("--out", str(out), "is a mount point, and CID is of one file: name a file in it")

    crowd, landing = asyncio.run(_fetch(root, codec, sources, part, progress, stall_seconds, fits))
    is_here = place.is_dir() and part.parent != place and place.samefile(os.curdir)
    landing.finish(place)
    if is_here:
        progress.note(f"{place} has been made anew: `cd {place}` leads into it, your shell is in the old one still")
    return {
        "cid": cid_text(root, codec),
        "path": str(out),
        "files": len(landing.plan.files),
        "bytes": landing.plan.total_bytes(),
        "received_bytes": sum(crowd.given.values()),
        "kept_bytes": landing.kept_bytes,
        "from": crowd.given,
        "refused": crowd.liars,
        "seconds": round(time.monotonic() - begun, 3),
    }


def _part_of(place: Path, cid: str) -> Path:
    """Where what comes is kept until it is whole. A mount point can neither be replaced nor be reached by renaming what lies beside it, and
    it is the disk that the user has chosen: so in there."""
    name = f"{place.name}.{cid[-8:]}.part"
    return place / f".{name}" if place.is_mount() else place.with_name(name)


async def _fetch(
    root: bytes,
    codec: int,
    sources: Sequence[str],
    part: Path,
    progress: ProgressBar,
    stall_seconds: float,
    judge: Callable[[Plan], None],
) -> tuple[Crowd, Landing]:
    name = cid_text(root, codec)
    async with crowd_of(sources, stall_seconds) as crowd:
        with progress.during(f"looking for {name[:12]}…"):
            plan = await _judged(name, plan_of(crowd, root, codec, _room(part)))
        judge(plan)
        with _alone(part):
            landing = Landing(plan, part)
            total = max(1, plan.total_bytes())
            with progress.during(f"looking through {part.name}") as report:
                await asyncio.to_thread(landing.begin, report)
            crowd.codecs.clear()
            watching = _Reported(landing, total, progress, name)
            try:
                with watching.during():
                    await _judged(name, crowd.bring(landing.missing(), watching, total + (1 << 20)))
            except ConfigError:  # what it is will never be right
                shutil.rmtree(part, ignore_errors=True)
                raise
            except StartError as error:
                raise StartError(
                    f"{error}; what has come is kept in {part}, and the same command goes on from there"
                ) from None
    for liar, why in crowd.liars.items():
        progress.note(f"{liar} {why}; what it sent is not used")
    return crowd, landing


async def _judged(cid: str, work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except PeerFault as fault:
        raise ConfigError("CID", cid, f"is nothing that is written here ({fault})") from None
    except StartError as error:
        raise StartError(f"{cid}: {error}") from None


class _Reported:
    """A landing that shows how far it is."""

    def __init__(self, landing: Landing, total: int, progress: ProgressBar, cid: str) -> None:
        self.has, self.get, self._landing, self._total = landing.has, landing.get, landing, total
        self._progress, self._what = progress, f"fetching {cid[:12]}… ({total:,} bytes)"
        self._report: Any = None

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        with self._progress.during(self._what) as self._report:
            yield

    def put_as(self, digest: bytes, data: bytes) -> None:
        self._landing.put_as(digest, data)
        self._report(min(1.0, (self._landing.kept_bytes + self._landing.written_bytes) / self._total))


def _room(part: Path) -> int:
    """Bytes that may be written, with those of an earlier attempt."""
    free = shutil.disk_usage(part.parent).free - SPARE_BYTES
    return max(0, free) + sum(each.lstat().st_blocks * 512 for each in part.rglob("*"))


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """ConfigError where another process is fetching the same to the same place."""
    part.mkdir(exist_ok=True)
    handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("--out", str(part), "another fetch is at work on it: wait for it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


__all__ = ["STALL_SECONDS", "Crowd", "crowd_of", "fetch", "plan_of"]
