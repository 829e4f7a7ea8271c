"""Where the models lie that runs start from: one folder for each, shared by all runs of this user, by the root of its CID."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from peers.config import load_peer_config
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from swarm.checkpoint.bases import BaseFolder, found_base, is_base, size_of, write_base
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import Plan
from swarm.checkpoint.unixfs import cid_text, parse_cid
from swarm.config import Base, RunConfig
from swarm.errors import PeerFault
from swarm.records.types import Hash

LOCK_SECONDS = 0.2  # between two looks at a folder that another process is filling


def cache_root(given: str = "") -> Path:
    """`base_cache` of peer.toml; where that is empty, in the user's cache directory."""
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "sparehive" / "models"


def place_of(base: Base, cache: Path) -> Path:
    return cache / base.root.hex()


@contextlib.contextmanager
def trying_alone(folder: Path) -> Iterator[bool]:
    """Whether no other process is filling `folder` now; it is held off then. Where nothing can be locked nobody is."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.with_name(folder.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"{folder.parent}: cannot be written ({error.strerror}); name another place for models as base_cache in peer.toml"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The same, waiting until the other one is done."""
    while True:
        with trying_alone(folder) as is_alone:
            if is_alone:
                yield
                return
        time.sleep(LOCK_SECONDS)


def open_base(config: RunConfig, get: Callable[[Hash], bytes], cache: Path | None = None) -> BaseFolder | None:
    """The folder of what the run starts from, checked byte by byte; written from the blocks that `get` gives where it is not there, or
    damaged. None where the run starts from nothing. StartError where those blocks are no such model; what `get` raises."""
    base = config.task.model.published()
    if base is None:
        return None
    folder = place_of(base, cache or cache_root())
    found = found_base(folder, base)
    if found is None:
        with alone(folder):
            found = found_base(folder, base)
            try:
                found = found or write_base(base, get, folder)
            except PeerFault as error:
                raise StartError(f"{error}; ask the organiser for a new run") from None
    return found


def cid_of(text: str) -> Hash | None:
    """The root that a CID names; None: it is none."""
    try:
        return parse_cid(text)
    except ValueError:
        return None


def folder_of_cid(cid: str, root: Hash, sources: Sequence[str]) -> Path:
    """The base of this root: out of the cache, of the blocks in directories of runs, peers, or of blocks alone, or fetched from whoever
    else `sources` name (gateways, libp2p nodes, CAR files). ConfigError or StartError where it is nowhere."""
    folder = cache_root() / root.hex()
    found = _same(folder, root)
    if found is not None:
        return found
    directories = [path for path in map(Path, sources) if path.is_dir()]
    if len(directories) < len(sources):
        return _fetched(cid, root, sources, folder)
    stores = [
        BlockStore(each / "blocks" if (each / "blocks").is_dir() else each, 1 << 62, owned=False)
        for each in directories
    ]

    def get(digest: Hash) -> bytes:
        data = next((data for store in stores if (data := store.get(digest)) is not None), None)
        if data is None:
            raise ConfigError(
                "--from",
                cid,
                f"block {digest.hex()[:12]} of it is in no directory that --blocks names, nor is it in {folder.parent}: name "
                "the run's with --blocks DIR, or who hands it out with --blocks ADDR",
            )
        return data

    try:
        base = Base(root, size_of(root, get))
        with alone(folder):
            return _same(folder, root) or write_base(base, get, folder).folder
    except PeerFault as error:
        raise ConfigError("--from", cid, f"is of no model that a run starts from ({error})") from None


def _fetched(cid: str, root: Hash, sources: Sequence[str], folder: Path) -> Path:
    from peers.donors import IpfsProcess, open_donor
    from peers.fetching import fetch
    from peers.progressbar import ProgressBar

    for source in sources:
        try:
            asyncio.run(open_donor(source, IpfsProcess()).close())
        except ConfigError as error:
            raise ConfigError("--blocks", source, error.remedy) from None
    draft = folder.with_name(f"{folder.name}.fetched")
    with alone(folder):
        if _same(folder, root) is not None:
            return folder
        shutil.rmtree(draft, ignore_errors=True)

        def judge(plan: Plan) -> None:
            if not is_base(plan.is_folder, {file.path for file in plan.files}) or plan.folders:
                raise ConfigError("--from", cid, "is of no model that a run starts from")

        try:
            fetch(cid_text(root), sources, draft, ProgressBar(), judge=judge)
        except ConfigError as error:
            if error.field != "CID":  # as `fetch` calls what is --from here
                raise
            raise ConfigError("--from", cid, error.remedy) from None
        try:
            if _same(draft, root) is None:
                raise ConfigError("--from", cid, "is of no model that a run starts from")
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            os.rename(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _same(folder: Path, root: Hash) -> Path | None:
    return folder if found_base(folder, Base(root, 0)) is not None else None


def cached_base(config: RunConfig) -> Path | None:
    """The folder of what the run starts from, if that is in the user's cache."""
    base = config.task.model.published()
    return None if base is None else folder_of(found_base(place_of(base, cache_root()), base))


def kept_base(directory: PeerDirectory, run: RunConfig) -> BaseFolder | None:
    """That a peer's run starts from, for who reads beside it. StartError where it is not there any more."""
    cache = cache_root(load_peer_config(directory.config).base_cache)
    base = run.task.model.published()
    found = None if base is None else found_base(place_of(base, cache), base)
    if base is not None and found is None:
        raise StartError(
            f"{cache}: the model that the run starts from is missing or damaged; join again, it is fetched anew"
        )
    return found


def folder_of(found: BaseFolder | None) -> Path | None:
    return None if found is None else found.folder


__all__ = [
    "alone", "cache_root", "cached_base", "cid_of", "folder_of", "folder_of_cid", "kept_base", "open_base", "place_of", "trying_alone",
]  # fmt: skip
