"""`sparehive export`: the newest certified model as a folder that transformers opens."""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from incentives.ledger import Ledger
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from peers.invite import Invite
from swarm.checkpoint.anchor import read_anchor
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import decode_node, read_file
from swarm.config import TOKENIZER_FILE, BpeTokenizer, RunConfig
from swarm.data.tokenizer import open_tokenizer, parse_tokenizer
from swarm.tasks import new_model, open_task


def _save_tokenizer(run: RunConfig, directory: PeerDirectory, get: Callable[[bytes], bytes], out: Path) -> None:
    """What AutoTokenizer opens: of a run on bytes too (token n is byte n)."""
    from transformers import PreTrainedTokenizerFast

    agreed = run.data.tokenizer
    if isinstance(agreed, BpeTokenizer) and not (directory.data / TOKENIZER_FILE).is_file():
        links = {link.name: link for link in decode_node(get(bytes.fromhex(run.data.root))).links}
        if TOKENIZER_FILE not in links:
            raise StartError(f"{TOKENIZER_FILE} is not in the run's data; ask the organiser for a new run")
        tokenizer = parse_tokenizer(read_file(links[TOKENIZER_FILE], get, agreed.file.size))
    else:
        tokenizer = open_tokenizer(run.data, directory.data)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=run.data.context, clean_up_tokenization_spaces=False
    ).save_pretrained(out)


def _part_name(name: str) -> str:
    """A name that nobody has: it is removed on errors."""
    return f".{name}.{secrets.token_hex(4)}.part"


def export_peer(directory: PeerDirectory, out: Path) -> dict[str, Any]:
    """Checks every block of the anchor against the certified root, then writes config and weights. ConfigError where the
    directory is no peer's or `out` is not empty; nothing half-written is left."""
    if not os.path.lexists(directory.invite):
        raise ConfigError("--dir", str(directory.root), "is no peer's directory; give the one of `sparehive join`")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", str(out), "exists and is not empty; choose another folder")
    run = Invite.of_file(directory.invite).config
    epoch, root = _newest_anchor(directory, run)
    get = BlockStore(directory.blocks, 1 << 62, owned=False).getter(
        lambda digest: StartError(
            f"{directory.blocks}: block {digest.hex()[:12]} of epoch {epoch} is missing or damaged; join again"
        )
    )
    model = new_model(run)
    model.flat.copy_(read_anchor(root, get, model.layout).parameters)

    def write(part: Path) -> None:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        model.module.save_pretrained(part)  # type: ignore[operator]
        for path in part.glob("*.safetensors"):  # it makes these for its owner alone
            path.chmod((part / "config.json").stat().st_mode)
        _save_tokenizer(run, directory, get, part)

    _fill(out, write)
    result: dict[str, Any] = {"epoch": epoch, "root": "0x" + root.hex(), "path": str(out), "loss": None, "sample": ""}
    if all((directory.data / file).is_file() for file in run.data.content()):
        task = open_task(run, directory.data)
        result["loss"] = task.evaluate(model)
        result["sample"] = task.sample(model)
    return result


def _newest_anchor(directory: PeerDirectory, run: RunConfig) -> tuple[int, bytes]:
    """(epoch, root) by the peer's own ledger."""
    with Ledger.read(directory.ledger) as ledger:
        tip = ledger.tip()
        certificate = None if tip is None else ledger.certificate(tip)
    if certificate is None:
        return 0, bytes.fromhex(run.initial_root)
    root = certificate.values["next_root"]
    assert isinstance(root, bytes)
    return certificate.epoch, root


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
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        for path in moved:
            path.unlink(missing_ok=True)
        raise StartError(
            f"--out {out}: cannot be written ({error.strerror}); free some disk or choose another folder"
        ) from None
