"""`sparehive export`: the newest certified model as a folder that transformers opens."""

import shutil
from pathlib import Path
from typing import Any

from incentives.ledger import Ledger
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from peers.invite import Invite
from swarm.checkpoint.anchor import read_anchor
from swarm.checkpoint.store import BlockStore
from swarm.models import FlatModel, build_model
from swarm.tasks import CausalLMTask


def export_peer(directory: PeerDirectory, out: Path) -> dict[str, Any]:
    """Checks every block of the anchor against the certified root, then writes config and weights. ConfigError where the
    directory is no peer's or `out` is not empty; nothing half-written is left."""
    if not directory.invite.is_file():
        raise ConfigError("--dir", str(directory.root), "is no peer's directory; give the one of `sparehive join`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", str(out), "exists and is not empty; choose another folder")
    run = Invite.decode(directory.invite.read_text()).config
    with Ledger.read(directory.ledger) as ledger:
        tip = ledger.tip()
        certificate = None if tip is None else ledger.certificate(tip)
    epoch = 0 if certificate is None else certificate.epoch
    root = bytes.fromhex(run.initial_root) if certificate is None else certificate.values["next_root"]
    assert isinstance(root, bytes)
    store = BlockStore(directory.blocks, 1 << 62, owned=False)

    def get(digest: bytes) -> bytes:
        data = store.get(digest)
        if data is None:
            raise StartError(
                f"{directory.blocks}: block {digest.hex()[:12]} of epoch {epoch} is missing or damaged; join again"
            )
        return data

    model = FlatModel(build_model(run.model, run.data.context))
    model.flat.copy_(read_anchor(root, get, model.layout).parameters)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        model.module.save_pretrained(part)  # type: ignore[operator]
        if out.exists():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StartError(
            f"--out {out}: cannot be written ({error.strerror}); free some disk or choose another folder"
        ) from None
    result: dict[str, Any] = {"epoch": epoch, "root": "0x" + root.hex(), "path": str(out), "loss": None, "sample": ""}
    if all((directory.data / file.name).is_file() for file in run.data.files):
        task = CausalLMTask(run, directory.data)
        result["loss"] = task.evaluate(model)
        result["sample"] = task.generate(model, "def ", 120)
    return result
