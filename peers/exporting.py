"""`sparehive export`: the newest certified model as a folder that transformers opens."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json
from safetensors import SafetensorError

from incentives.ledger import Ledger
from peers.bases import folder_of, kept_base
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from peers.invite import Invite
from peers.lineage import FILE, lineage_of, model_card
from peers.replaying import KeptRun
from peers.runs import RunDirectory
from swarm.checkpoint.anchor import read_anchor
from swarm.checkpoint.leaves import leaf_digests, store_leaves
from swarm.checkpoint.runblocks import read_data_file
from swarm.checkpoint.store import BlockStore
from swarm.config import HELD_RECORDS, DataConfig, RunConfig
from swarm.errors import PeerFault, SwarmError, disk_remedy
from swarm.hashing import sha256
from swarm.models import FlatModel
from swarm.models.layout import Layout
from swarm.tasks import new_model, open_task, save_model

MOST_BACK = 16  # certificates whose state is looked for, from the newest on


def reader(data: DataConfig, directory: PeerDirectory, get: Callable[[bytes], bytes]) -> Callable[[str], bytes]:
    """Gives a file of the run's data by its name: from the peer's copy where that is whole, else from blocks."""

    def read(name: str) -> bytes:
        path = data_of(directory) / name
        content = path.read_bytes() if path.is_file() else b""
        if sha256(content).hex() == data.content()[name].sha256:
            return content
        try:
            return read_data_file(data, name, get)
        except PeerFault as error:
            raise StartError(f"{error}; ask the organiser for a new run") from None

    return read


def data_of(directory: PeerDirectory) -> Path:
    """Where a peer's files of the run's data lie: a seed has the organiser's."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return RunDirectory(Path(str(from_json(directory.seed_link.read_bytes())["run"]))).data
    return directory.data


def _part_name(name: str) -> str:
    """A name that nobody has: it is removed on errors."""
    return f".{name}.{secrets.token_hex(4)}.part"


def export_peer(directory: PeerDirectory, out: Path, merge: bool = False) -> dict[str, Any]:
    """Checks every block of the anchor against the certified root, then writes config and weights, what they came out of, and a card.
    `merge`: an adapter is written into its base's weights. ConfigError where the directory is no peer's, `out` is not empty or there is
    nothing to merge; nothing half-written is left."""
    if not os.path.lexists(directory.invite):
        raise ConfigError("--dir", str(directory.root), "is no peer's directory; give the one of `sparehive join`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", str(out), "exists and is not empty; choose another folder")
    run = Invite.of_file(directory.invite).config
    if merge and not run.task.model.is_adapter():
        raise ConfigError(
            "--merge", True, "this run trains the weights themselves, so the whole model comes out anyway: leave it out"
        )
    missing = missing_block(directory)
    store = BlockStore(directory.blocks, 1 << 62, owned=False)
    get = store.getter(missing)
    base = folder_of(kept_base(directory, run))
    model = new_model(run, base=base)
    newest = _newest(directory, run, get, model.layout)
    result: dict[str, Any] = {
        "epoch": newest.epoch,
        "known_epoch": newest.known_epoch,
        "root": "0x" + newest.root.hex(),
    }
    result |= {"path": str(out), **_measured(directory, run, model, newest.parameters, store, missing)}
    with Ledger.read(directory.ledger) as ledger:
        lineage = lineage_of(run, ledger, newest.tip, newest.epoch, newest.root, base)
    is_adapter = run.task.model.is_adapter() and not merge

    def write(part: Path) -> None:
        save_model(run, model, reader(run.task.data, directory, get), part, base if merge else None)
        (part / FILE).write_bytes(lineage.bytes())
        card = model_card(lineage, is_adapter, result["loss_before"], result["loss"])
        (part / "README.md").write_text(card, encoding="utf-8")
        for path in part.glob("*.safetensors"):  # it makes these for its owner alone
            path.chmod((part / FILE).stat().st_mode)

    _fill(out, write)
    return result


def _measured(
    directory: PeerDirectory,
    run: RunConfig,
    model: FlatModel,
    parameters: torch.Tensor,
    store: BlockStore,
    missing: Callable[[bytes], Exception],
) -> dict[str, Any]:
    """Held-out losses and a sample, where the run's data is here; `model` has `parameters` afterwards."""
    found: dict[str, Any] = {"loss_before": None, "loss": None, "sample": ""}
    get = store.getter(missing)
    if _has_data(run.task.data, directory, get):
        task = open_task(
            run, data_of(directory), leaves=store_leaves(bytes.fromhex(run.task.data.root), store, missing)
        )
        with contextlib.suppress(StartError):  # a peer that came late may not have the run's first state
            model.flat.copy_(read_anchor(bytes.fromhex(run.initial_root), get, model.layout).parameters)
            found["loss_before"] = task.evaluate(model)
        model.flat.copy_(parameters)
        found |= {"loss": task.evaluate(model), "sample": task.sample(model)}
    model.flat.copy_(parameters)
    return found


def missing_block(directory: PeerDirectory) -> Callable[[bytes], Exception]:
    """What is said of a block of a peer's that is not there."""
    return lambda digest: StartError(f"{directory.blocks}: block {digest.hex()[:12]} is missing or damaged; join again")


def newest_model(directory: PeerDirectory, run: RunConfig) -> tuple[int, bytes, FlatModel]:
    """(epoch, root, model): the newest certified that is here, every block checked against the root. StartError where one is missing."""
    get = BlockStore(directory.blocks, 1 << 62, owned=False).getter(missing_block(directory))
    model = new_model(run, base=folder_of(kept_base(directory, run)))
    newest = _newest(directory, run, get, model.layout)
    model.flat.copy_(newest.parameters)
    return newest.epoch, newest.root, model


def _has_data(data: DataConfig, directory: PeerDirectory, get: Callable[[bytes], bytes]) -> bool:
    """Whether the peer has what a held-out loss takes; of records it may hold few."""
    if not all((data_of(directory) / file).is_file() for file in data.content()):
        return False
    try:
        held = data.tables().get(HELD_RECORDS)
        for digest in () if held is None else leaf_digests(bytes.fromhex(data.root), HELD_RECORDS, held, get):
            get(digest)
    except (StartError, PeerFault):
        return False
    return True


@dataclass(frozen=True)
class Newest:
    """The newest certified state that is here. `tip`: its certificate, None: the run's first state; `known_epoch`: the newest that is
    known of, which is later where a peer was stopped before it had that state."""

    epoch: int
    root: bytes
    tip: bytes | None
    parameters: torch.Tensor
    known_epoch: int


def _newest(directory: PeerDirectory, run: RunConfig, get: Callable[[bytes], bytes], layout: Layout) -> Newest:
    """By the peer's own ledger: from its blocks, else from an older one and the averages since. What `get` raises where a block of a
    state that it has is missing or damaged, or where it has none."""
    with Ledger.read(directory.ledger) as ledger:
        certified = list(islice(_certified(ledger), MOST_BACK))
        known = certified[0][0] if certified else 0
        for epoch, root, tip in certified:
            if (directory.blocks / root.hex()).is_file():
                return Newest(epoch, root, tip, read_anchor(root, get, layout).parameters, known)
            with contextlib.suppress(SwarmError):
                return Newest(epoch, root, tip, KeptRun(directory, ledger).certified(tip).anchor.parameters, known)
    root = certified[0][1] if certified else bytes.fromhex(run.initial_root)
    return Newest(known, root, None, read_anchor(root, get, layout).parameters, known)


def _certified(ledger: Ledger) -> Iterator[tuple[int, bytes, bytes]]:
    """(epoch, root of the state after it, its id) of the lineage's certificates, the newest first."""
    tip = ledger.tip()
    while tip is not None and (certificate := ledger.certificate(tip)) is not None:
        root, before = certificate.values["next_root"], certificate.values["prev_certificate"]
        assert isinstance(root, bytes) and isinstance(before, bytes)
        yield certificate.epoch, root, tip
        tip = before


def _fill(out: Path, write: Callable[[Path], None]) -> None:
    """All that `write` makes, or nothing. A mount point or the working directory cannot be replaced: it is filled from within."""
    exists = out.exists()
    part = out / _part_name("new") if exists else out.with_name(_part_name(out.name))
    moved: list[Path] = []
    try:
        write(part)
        if exists:
            for path in sorted(part.iterdir()):
                moved.append(path.rename(out / path.name))
            part.rmdir()
        else:
            part.rename(out)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        for path in moved:
            path.unlink(missing_ok=True)
        if isinstance(error, SafetensorError):  # it has no errno
            raise StartError(f"--out {out}: cannot be written ({error}); make room, or choose another folder") from None
        if not isinstance(error, OSError):
            raise
        raise StartError(
            f"--out {out}: cannot be written ({error.strerror}); {disk_remedy(error)}, or choose another folder"
        ) from None
