"""A model in use, without a peer: `sparehive evaluate` and `sparehive sample` on an exported folder, a peer's or a run's directory."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from peers.bases import cached_base, folder_of, kept_base, open_base
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from peers.exporting import missing_block, newest_model, reader
from peers.invite import Invite
from peers.making.rows import label_of
from peers.opening import missing_here
from peers.progressbar import ProgressBar
from peers.reading import Rows, open_image, open_rows
from peers.reading.images import ImageForm
from peers.runs import RunDirectory
from swarm.checkpoint.anchor import Anchor, anchor_root, read_anchor
from swarm.checkpoint.leaves import store_leaves
from swarm.checkpoint.runblocks import read_data_file
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig, load_run
from swarm.device import copy_to_host
from swarm.errors import InputError, SwarmError
from swarm.models import Trainable, load_adapter
from swarm.tasks import RUN_FOLDER, Manner, Use, new_model, open_saved, open_task, open_use

if TYPE_CHECKING:
    from swarm.data.records import OpenLeaves

MOST_SAMPLES = 8192
CHARACTERS_AT_ONCE = 1 << 20
_REMEDY = "give a folder of `sparehive export`, a peer's directory, or a run's"


@dataclass(frozen=True)
class InUse:
    """What a directory has. `tuned`: newest certified, None in a run's directory; `base`: as the run began, None where that is neither
    kept nor can be drawn again; `held_out`: gives samples that nobody trained on, None where they are not there."""

    config: RunConfig
    use: Use
    tuned: Trainable | None
    base: Trainable | None
    held_out: Callable[[int], np.ndarray] | None

    def newest(self) -> Trainable:
        found = self.tuned or self.base
        assert found is not None, "a run's directory has its first model"
        return found


def open_directory(root: Path) -> InUse:
    """ConfigError where it is none of the three; what is missing in it is said as `export` and `run check` do."""
    if (root / RUN_FOLDER / "run.toml").is_file():
        return _exported(root)
    if os.path.lexists(root / "invite.txt"):
        return _of_peer(PeerDirectory(root))
    if (root / "run.toml").is_file():
        return _of_run(RunDirectory(root))
    said = "has no invite.txt, no run.toml and no exported model" if root.is_dir() else "is no directory"
    raise ConfigError("DIR", str(root), f"{said}; {_REMEDY}")


def _exported(root: Path) -> InUse:
    folder = root / RUN_FOLDER
    config = load_run(folder / "run.toml")

    def read(name: str) -> bytes:
        from swarm.data.tokenizer import read_agreed

        return read_agreed(folder / name, config.task.data.content()[name].sha256)

    if (root / "adapter_config.json").is_file():
        found = cached_base(config)
        if found is None:
            raise ConfigError(
                "DIR",
                str(root),
                "holds an adapter, and its base is not in this user's cache: `sparehive export --merge` writes both as one model",
            )
        tuned = new_model(config, base=found)
        load_adapter(tuned, root)
        return InUse(config, open_use(config, read), tuned, _drawn(config, found), None)
    base = None if config.task.model.published() is not None else _drawn(config, None)
    return InUse(config, open_use(config, read), open_saved(config, root), base, None)


def _of_peer(directory: PeerDirectory) -> InUse:
    config = Invite.of_file(directory.invite).config
    store = BlockStore(directory.blocks, 1 << 62, owned=False)
    _, _, tuned = newest_model(directory, config)
    base = _first(config, folder_of(kept_base(directory, config)), store, missing_block(directory))
    leaves = _leaves(config, store, missing_block(directory))
    read = reader(config.task.data, directory, store.getter(missing_block(directory)))
    return InUse(config, open_use(config, read), tuned, base, _held_out(config, read, leaves))


def _of_run(run: RunDirectory) -> InUse:
    config, missing = run.load(), missing_here(run.blocks)
    store = BlockStore(run.blocks, 1 << 62, owned=False)
    get = store.getter(missing)
    base = _first(config, folder_of(open_base(config, get)), store, missing)

    def read(name: str) -> bytes:
        return read_data_file(config.task.data, name, get)

    return InUse(config, open_use(config, read), None, base, _held_out(config, read, _leaves(config, store, missing)))


def _leaves(config: RunConfig, store: BlockStore, missing: Callable[[bytes], Exception]) -> "OpenLeaves":
    return store_leaves(bytes.fromhex(config.task.data.root), store, missing)


def _held_out(config: RunConfig, read: Callable[[str], bytes], leaves: "OpenLeaves") -> Callable[[int], np.ndarray]:
    """Small files are read wherever they are: a seed has none in its own directory, only their blocks."""

    def samples(num_samples: int) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            for name in config.task.data.content():
                (Path(folder) / name).write_bytes(read(name))
            return open_task(config, Path(folder), leaves=leaves).held_out(num_samples)

    return samples


def _first(
    config: RunConfig, base: Path | None, store: BlockStore, missing: Callable[[bytes], Exception]
) -> Trainable | None:
    """The run's first model: drawn again, else from its blocks; None where they are no longer there."""
    return _drawn(config, base) or _from_blocks(config, base, store, missing)


def _drawn(config: RunConfig, base: Path | None) -> Trainable | None:
    """As whoever made the run drew it; None where another one comes out."""
    model = new_model(config, int.from_bytes(bytes.fromhex(config.task.data.root)[:4], "big"), base=base)
    parameters = copy_to_host(model.flat)
    anchor = Anchor(parameters, torch.zeros_like(parameters), model.layout, 0, 0)
    return model if anchor_root(anchor).hex() == config.initial_root else None


def _from_blocks(
    config: RunConfig, base: Path | None, store: BlockStore, missing: Callable[[bytes], Exception]
) -> Trainable | None:
    model = new_model(config, base=base)
    try:
        anchor = read_anchor(bytes.fromhex(config.initial_root), store.getter(missing), model.layout)
    except (SwarmError, ConfigError, StartError):
        return None
    model.flat.copy_(anchor.parameters)
    return model


# -- evaluate -------------------------------------------------------------------------------------------------------------
def evaluate(
    root: Path,
    data: Path | None,
    num_samples: int,
    progress: ProgressBar,
    named: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measures of base and tuned on the same samples: of `data`, else of what the run holds out. `named`: what a column is called
    there, where it is not by its own name ("text", "label")."""
    with progress.during("opening the model"):
        found = open_directory(root)
    if data is not None:
        _check_names(named, found)
        samples = _samples_of(data, found.use, num_samples, progress, named)
    else:
        samples = _own(found, root, num_samples, progress)
    measured = {}
    for name, model in (("base", found.base), ("tuned", found.tuned)):
        if model is not None:
            with progress.during(f"measuring {name}") as report:
                measured[name] = found.use.measure(_ready(model), samples, report)
    return {
        "task": found.config.task.kind,
        "run_id": "0x" + found.config.run_id.hex(),
        "num_samples": len(samples),
        "samples": "held out" if data is None else str(data),
        **{name: values.json_value() for name, values in measured.items()},
    }


def _own(found: InUse, root: Path, num_samples: int, progress: ProgressBar) -> np.ndarray:
    """What the run holds out; ConfigError where the directory has not all of it."""
    wanted = ConfigError("--data", None, f"{root} holds no samples that nobody trained on: give some with --data FILE")
    if found.held_out is None:
        raise wanted
    try:
        with progress.during("reading held-out samples"):
            return found.held_out(min(num_samples, _num_held(found.config) or num_samples))
    except StartError:  # a peer need not have those blocks
        raise wanted from None


def _ready(model: Trainable) -> Trainable:
    model.module.eval()
    return model


def _num_held(config: RunConfig) -> int | None:
    """None where the run has a text: any number of windows can be taken of its end."""
    tables = config.task.data.tables()
    return tables["held.records"].num_records if tables else None


def _check_names(named: Mapping[str, str], found: InUse) -> None:
    for column in named:
        if column not in found.use.columns:
            raise ConfigError(
                f"--{column}-column", named[column], f"{found.config.task.kind} reads no {column}: leave it out"
            )


def _samples_of(data: Path, use: Use, num_samples: int, progress: ProgressBar, named: Mapping[str, str]) -> np.ndarray:
    """The first `num_samples` of somebody's files; ConfigError names the row that is broken."""
    found, count = list[np.ndarray](), 0
    with progress.during(f"reading {data}") as report:
        for where, row in _rows(data, use.columns, report, named):
            try:
                found.append(use.encode(row))
            except InputError as error:
                raise ConfigError("--data", where, f"{error.field} {error.remedy}") from None
            count += len(found[-1])
            if count >= num_samples:
                break
    if count == 0:
        raise ConfigError("--data", str(data), "holds no whole sample; give more")
    samples: np.ndarray = np.concatenate(found)
    return samples[:num_samples]


def _rows(
    data: Path, columns: tuple[str, ...], report: Callable[[float], None], named: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is in files of data, as `Use.encode` takes it. A text is taken as one, however many rows it has."""
    rows, called = open_rows(data), [named.get(column, column) for column in columns]
    if columns != ("text",):
        for row in rows.read(called, report):
            own = {column: row.values[name] for column, name in zip(columns, called, strict=True) if name in row.values}
            yield row.where, prepared(own, row.where)
        return
    texts, size, where = list[str](), 0, str(data)
    for row in rows.read(called, report):
        texts.append(row.text(*called))
        size += len(texts[-1])
        if size >= CHARACTERS_AT_ONCE:
            yield where, {"text": "\n".join(texts)}
            texts, size, where = [], 0, row.where
    if texts:
        yield where, {"text": "\n".join(texts)}


def prepared(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row as tasks take it: images opened, labels as words."""
    made = dict(values)
    if "image" in made:
        made["image"] = open_image(made["image"], where)
    if "label" in made:
        made["label"] = label_of(made["label"], where)
    return made


# -- sample ---------------------------------------------------------------------------------------------------------------
def sample(
    root: Path, prompt: str | None, file: Path | None, manner: Manner, progress: ProgressBar
) -> list[dict[str, Any]]:
    """What the newest model makes of the prompt, or of each thing in `file`: {"given", "text"} or {"given", "label", "probability",
    "labels"}."""
    with progress.during("opening the model"):
        found = open_directory(root)
    model, answers = _ready(found.newest()), []
    wants_image = "image" in found.use.columns
    if prompt is not None and wants_image:
        raise ConfigError("--prompt", prompt, "this model looks at images: give one with --file")
    given = [("prompt", {"text": prompt})] if prompt is not None else _given(file, wants_image)
    with progress.during("asking the model") as report:
        for name, row in given:
            try:
                answers.append({"given": name, **found.use.respond(model, row, manner, report)})
            except InputError as error:
                raise ConfigError(
                    "--prompt" if file is None else "--file", name, f"{error.field} {error.remedy}"
                ) from None
    return answers


def _given(file: Path | None, wants_image: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """One text or image, or each row of a table of them."""
    if file is None:
        raise ConfigError("--prompt", None, "give --prompt TEXT or --file PATH")
    suffixes = ImageForm().suffixes
    if wants_image and file.suffix.lower() in suffixes:
        yield file.name, prepared({"image": _bytes(file)}, str(file))
    elif wants_image and file.is_dir() and any(path.suffix.lower() in suffixes for path in file.iterdir()):
        for path in sorted(path for path in file.iterdir() if path.suffix.lower() in suffixes):
            yield path.name, prepared({"image": _bytes(path)}, str(path))
    elif wants_image:
        yield from ((row.where, prepared(row.values, row.where)) for row in open_rows(file).read(["image"]))
    elif file.suffix.lower() in (".jsonl", ".csv", ".tsv", ".parquet") or file.is_dir():
        rows: Rows = open_rows(file)
        yield from ((row.where, {"text": row.text("text")}) for row in islice(rows.read(["text"]), MOST_SAMPLES))
    else:
        try:
            yield file.name, {"text": _bytes(file).decode()}
        except UnicodeDecodeError as error:
            raise ConfigError("--file", str(file), f"is not UTF-8 at byte {error.start}; convert it") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("--file", str(path), f"cannot be read ({error.strerror}); give another") from None


__all__ = ["MOST_SAMPLES", "InUse", "evaluate", "open_directory", "prepared", "sample"]
