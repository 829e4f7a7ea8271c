"""A run's directory on the organiser's machine: run.toml, data, the initial anchor's blocks, the organiser's key."""

import copy
import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incentives.keys import create_key, key_account, load_key, load_password, parse_address
from peers.errors import ConfigError
from peers.invite import Invite, RunBinding
from peers.sources import read_sources
from swarm.config import MAX_COUNT, TEXT_FILE, TOKENIZER_FILE, RunConfig, dump_run, load_run

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "model": {"family": "gpt2", "fields": {"n_embd": 96, "n_layer": 3, "n_head": 4}},
        "data": {"context": 64},
        "inner": {"lr": 4e-3, "batch_size": 8, "steps_per_unit": 5, "warmup_units": 40, "total_units": 1500},
        "outer": {"momentum_ramp_rounds": 10},
        "codec": {"contribution": "int8", "average": "int8", "part_values": 65536},
        "rounds": {
            "units_per_epoch": 9,
            "contribute_seconds": 4.0,
            "average_seconds": 4.0,
            "vote_seconds": 3.0,
            "stall_seconds": 25.0,
            "epoch_deadline_seconds": 30.0,
            "min_seated": 3,
        },
    },
    "small": {
        "model": {"family": "gpt2", "fields": {"n_embd": 256, "n_layer": 6, "n_head": 8}},
        "data": {"context": 256},
        "inner": {"lr": 2e-3, "batch_size": 8, "steps_per_unit": 5},
        "rounds": {"units_per_epoch": 8},
    },
    "base": {
        "model": {"family": "gpt2", "fields": {"n_embd": 768, "n_layer": 12, "n_head": 12}},
        "data": {"context": 512},
        "inner": {"lr": 6e-4, "batch_size": 8, "steps_per_unit": 25},
        "codec": {"contribution": "int4", "average": "int4", "part_values": 1 << 20},
        "rounds": {"units_per_epoch": 8, "contribute_seconds": 60.0, "average_seconds": 60.0, "stall_seconds": 600.0},
    },
}


@dataclass(frozen=True)
class RunDirectory:
    root: Path

    @property
    def toml(self) -> Path:
        return self.root / "run.toml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def sources(self) -> Path:
        """Which files the text was made of, as `sha256sum` writes it; for the organiser, no part of the run."""
        return self.root / "sources.sha256"

    @property
    def blocks(self) -> Path:
        return self.root / "blocks"

    @property
    def organiser_key(self) -> Path:
        return self.root / "keys" / "organiser.json"

    @property
    def organiser_password(self) -> Path:
        return self.root / "keys" / "organiser.password"

    @property
    def chain(self) -> Path:
        return self.root / "chain.json"

    def load(self) -> RunConfig:
        if not self.toml.is_file():
            raise ConfigError("RUN_DIRECTORY", str(self.root), "holds no run.toml; make one with: sparehive run new")
        return load_run(self.toml)


def _train_tokenizer(wanted: str, text: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The config's `data.tokenizer` and the bytes of its file; None for bytes."""
    from swarm.data.tokenizer import encode_text, parse_tokenizer, tokens_sha256, train_bpe

    kind, _, size = wanted.partition(":")
    if wanted == "bytes":
        return None
    if kind != "bpe" or not size.isdigit() or not 257 <= int(size) <= 65536:
        raise ConfigError("--tokenizer", wanted, "give bytes, or bpe:N with N tokens from 257 to 65536")
    data = train_bpe(text, int(size))
    tokenizer = parse_tokenizer(data)
    vocabulary = tokenizer.get_vocab_size()
    if vocabulary < 257:
        raise ConfigError("--tokenizer", wanted, "the text is too short to train one; add text or take bytes")
    agreed = {
        "kind": "bpe",
        "vocabulary": vocabulary,
        "file": _data_file(data),
        "tokens_sha256": tokens_sha256(encode_text(tokenizer, text)),
    }
    return agreed, data


def _data_file(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _apply(values: dict[str, Any], settings: Sequence[str]) -> None:
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        at = values
        *parents, last = name.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ConfigError("--set", setting, f"{parent} is not a group of settings")
        at[last] = value


def _check_parts(config: RunConfig, num_values: int) -> None:
    """At least two parts, so two reducers: nobody else would hold, and co-sign for, a lone reducer's own contribution."""
    if config.codec.part_values >= num_values:
        at_most = max(256, num_values // 2 // 256 * 256)
        raise ConfigError(
            "codec.part_values",
            str(config.codec.part_values),
            f"leaves a model of {num_values} parameters in a single part, whose reducer would go unpaid: "
            f"--set codec.part_values={at_most}",
        )


def create_run(
    root: Path,
    name: str,
    data: Path | None,
    preset: str,
    unit_price: int,
    settings: Sequence[str],
    tokenizer: str = "bytes",
) -> dict[str, Any]:
    """Make the directory; refuses one that holds a run already. `tokenizer`: "bytes", or "bpe:N" to train one of N tokens."""
    import torch

    from swarm.checkpoint.anchor import Anchor, anchor_blocks, anchor_root
    from swarm.checkpoint.content import put_data
    from swarm.checkpoint.store import BlockStore
    from swarm.models import FlatModel, build_model

    run = RunDirectory(root)
    if run.toml.exists():
        raise ConfigError("RUN_DIRECTORY", str(root), "holds a run already; choose another directory")
    sources = read_sources(data)
    text = sources.text()
    trained = _train_tokenizer(tokenizer, text)
    run.data.mkdir(parents=True, exist_ok=True)
    store = BlockStore(run.blocks, 1 << 40)
    content = {TEXT_FILE: text} if trained is None else {TEXT_FILE: text, TOKENIZER_FILE: trained[1]}
    data_root = put_data(store, list(content.items()))
    for file_name, written in content.items():
        (run.data / file_name).write_bytes(written)
    run.sources.write_text(sources.checksums(), encoding="utf-8")
    values: dict[str, Any] = copy.deepcopy(PRESETS[preset])
    values["name"], values["unit_price_amount"], values["initial_root"] = name, str(unit_price), "0" * 64
    values["data"] = {**values.get("data", {}), "root": data_root.hex(), "text": _data_file(text)}
    if trained is not None:
        values["data"]["tokenizer"] = trained[0]
        values["model"]["fields"]["vocab_size"] = trained[0]["vocabulary"]
    _apply(values, settings)
    draft = RunConfig.parse(values)
    model = FlatModel(build_model(draft.model, draft.data.context, seed=int.from_bytes(data_root[:4], "big")))
    _check_parts(draft, model.layout.num_values())
    anchor = Anchor(model.flat.clone(), torch.zeros_like(model.flat), model.layout, 0, 0)
    for block in anchor_blocks(anchor):
        store.put(block.data)
    values["initial_root"] = anchor_root(anchor).hex()
    config = RunConfig.parse(values)
    dump_run(config, run.toml)
    if not run.organiser_key.exists():
        create_key(run.organiser_key, load_password(run.organiser_password, create=True))
    organiser = key_account(run.organiser_key) or bytes(20)
    return {
        "run_id": "0x" + config.run_id.hex(),
        "parameters": model.layout.num_values(),
        "data_bytes": config.data.text.size,
        "files": len(sources.files),
        "left_out": {why: len(names) for why, names in sources.skipped.items()},
        "organiser": "0x" + organiser.hex(),
        "path": str(root),
    }


def check_run(path: Path, epoch_seconds: float = 60.0) -> dict[str, Any]:
    """What a run asks of a peer; disk for audits with epochs of `epoch_seconds`."""
    from swarm.models import FlatModel, build_model
    from swarm.optim.codec import wire_bytes

    config = load_run(path)
    values = FlatModel(build_model(config.model, config.data.context)).layout.num_values()
    sent, got = wire_bytes(values, config.codec.contribution), wire_bytes(values, config.codec.average)
    moments = {"adamw": 4 * values, "adamw8bit": 2 * values + values // 32, "sgd": 0}[config.inner.optimizer]
    anchors = 8 * values / config.audit.anchor_every_epochs
    per_epoch = int(sent + got + moments + 2 * values + anchors)
    epochs = config.audit.hold_seconds / epoch_seconds + config.audit.anchor_every_epochs
    return {
        "run_id": "0x" + config.run_id.hex(),
        "parameters": values,
        "memory_bytes_at_least": values * 4 * 12,
        "contribution_bytes": sent,
        "average_bytes": got,
        "seconds_to_send_at_20_mbit": round(sent * 8 / 20e6, 2),
        "inner_steps_per_unit": config.inner.steps_per_unit,
        "units_per_epoch": config.rounds.units_per_epoch,
        "audit_bytes_per_epoch": per_epoch,
        "audit_hold_gigabytes": round(per_epoch * epochs / 1e9, 3),
        "audit_hold_assumes_epoch_seconds": epoch_seconds,
    }


def bind_run(
    run: RunDirectory, keystore: Path, password_file: Path, founders: tuple[bytes, ...], bootstrap: tuple[str, ...]
) -> Invite:
    """The signed invite: with the chain of chain.json if the run was deployed, else without one."""
    import json

    chain_id, settlement = 0, bytes(20)
    if run.chain.is_file():
        try:
            chain = json.loads(run.chain.read_text())
            chain_id, settlement = int(chain["chain_id"]), parse_address(chain["settlement"])
            if not 0 < chain_id <= MAX_COUNT:
                raise ValueError(f"chain_id {chain_id} is not from 1 to {MAX_COUNT}")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError("chain.json", str(run.chain), f"cannot be read ({error}); deploy the run again") from None
    config = run.load()
    key = load_key(keystore, load_password(password_file))
    return Invite.short(config, RunBinding(config.run_id, chain_id, settlement, founders, bootstrap), key)


def baseline(root: Path, units: int, threads: int) -> dict[str, Any]:
    """Held-out loss of a lone peer after `units` units of the run's own inner steps, without rounds."""
    import torch

    from swarm.models import FlatModel, build_model
    from swarm.optim.inner import InnerOptimizer
    from swarm.optim.schedule import learning_rate
    from swarm.tasks import CausalLMTask

    torch.set_num_threads(threads)
    run = RunDirectory(root)
    config = run.load()
    from swarm.checkpoint.anchor import read_anchor
    from swarm.checkpoint.store import BlockStore

    model = FlatModel(build_model(config.model, config.data.context))
    store = BlockStore(run.blocks, 1 << 40)

    def get(digest: bytes) -> bytes:
        data = store.get(digest)
        if data is None:
            raise ConfigError("RUN_DIRECTORY", str(root), "the initial anchor's blocks are gone; make the run again")
        return data

    model.flat.copy_(read_anchor(bytes.fromhex(config.initial_root), get, model.layout).parameters)
    task = CausalLMTask(config, run.data)
    before = task.evaluate(model)
    inner = InnerOptimizer(config.inner, model.flat)
    for unit in range(units):
        for step in range(config.inner.steps_per_unit):
            task.step(model, bytes(20), config.run_id, unit, step)
            # alone, the clock of the schedule runs on own units
            rate = learning_rate(
                unit, config.inner.lr, config.inner.warmup_units, max(units, config.inner.warmup_units + 1)
            )
            inner.step(model.grad_flat, rate)
    return {"untrained": before, "loss": task.evaluate(model), "units": units}


__all__ = ["PRESETS", "RunDirectory", "baseline", "bind_run", "check_run", "create_run"]
