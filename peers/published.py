"""What `run new --from` names: a published model in a folder, made into the base of a run, the same bytes whoever makes it."""

import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from peers.bases import alone, cache_root
from peers.errors import ConfigError
from peers.lineage import FILE, read_lineage
from swarm.hashing import canonical_json

if TYPE_CHECKING:
    from swarm.checkpoint.bases import BaseFolder

MAX_CONFIG_BYTES = 1 << 20
_LEFT_OUT = ("_name_or_path", "transformers_version", "_attn_implementation_autoset")  # of the writer, not of the model
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Published:
    """`base`: its folder in the cache; `vocabulary`: tokens that it has an entry for."""

    base: "BaseFolder"
    vocabulary: int

    def model(self) -> dict[str, Any]:
        """Values of `[task.model]`."""
        return {
            "kind": "pretrained",
            "root": self.base.root.hex(),
            "size": self.base.size,
            "vocabulary": self.vocabulary,
        }


def read_published(source: Path, cache: Path | None = None) -> Published:
    """ConfigError in one line where the folder holds no model that a run can start from; nothing half-made is left."""
    from swarm.checkpoint.bases import BaseFolder

    if not source.is_dir():
        raise _refused(
            source,
            "is no folder: give one that save_pretrained or sparehive export wrote, or one of a Hugging Face model",
        )
    config = _config(source)
    shards = _shards(source)
    into = cache or cache_root()
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", suffix=".part", dir=into) as made:
            part = Path(made) / "base"
            part.mkdir()
            (part / "config.json").write_bytes(config)
            lineage = read_lineage(source / FILE)  # of what an export wrote
            if lineage is not None:
                (part / FILE).write_bytes(lineage.bytes())
            _write_weights(source, shards, part / _WEIGHTS)
            vocabulary = _vocabulary(source, part)
            found = BaseFolder(part)
            folder = into / found.root.hex()
            with alone(folder):
                if not folder.exists() or BaseFolder(folder).root != found.root:
                    if folder.exists():
                        folder.rename(Path(made) / "damaged")
                    part.rename(folder)
    except OSError as error:
        raise ConfigError(
            "--from", str(source), f"cannot be read or copied to {into} ({error.strerror or error})"
        ) from None
    return Published(BaseFolder(folder), vocabulary)


def _refused(source: Path, why: str) -> ConfigError:
    return ConfigError("--from", str(source), why)


def _config(source: Path) -> bytes:
    """Canonical JSON of config.json, without what says only who wrote it."""
    path = source / "config.json"
    if not path.is_file():
        if (source / "adapter_config.json").is_file():
            raise _refused(source, "holds an adapter alone: merge it into its base first (sparehive export --merge)")
        raise _refused(source, "holds no config.json: give a folder of a Hugging Face model")
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        values = from_json(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it is no table")
        for name in _LEFT_OUT:
            values.pop(name, None)
        written = canonical_json(values)
    except (OSError, ValueError) as error:
        raise _refused(path, f"cannot be read ({error}); restore it") from None
    if "auto_map" in values:
        raise _refused(source, "needs code that came with the model, which a run never executes; give another model")
    if "quantization_config" in values:
        raise _refused(source, "is quantised already: give the original, with --lora and --base nf4 or int8")
    return written


def _shards(source: Path) -> list[Path]:
    """The files that hold the weights."""
    index = source / _INDEX
    if (source / _WEIGHTS).is_file():
        return [source / _WEIGHTS]
    if index.is_file():
        try:
            names = sorted(set(from_json(index.read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _refused(index, f"cannot be read ({error}); restore it") from None
        for name in names:
            if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith(".safetensors"):
                raise _refused(index, f"names {name!r}, which is no safetensors file beside it")
            if not (source / name).is_file():
                raise _refused(source / name, "is missing: fetch the whole model")
        return [source / name for name in names]
    pickles = sorted(path.name for pattern in _PICKLES for path in source.glob(pattern))
    if pickles:
        raise _refused(
            source,
            f"has its weights as {pickles[0]}, which can run code when it is opened: give a model that has them as safetensors",
        )
    raise _refused(source, f"holds no {_WEIGHTS}: fetch the whole model")


def _write_weights(source: Path, shards: list[Path], path: Path) -> None:
    """One file: wide numbers first, as the library writes them, then by name; so the same weights have the same bytes."""
    from safetensors import SafetensorError, safe_open

    where: dict[str, Any] = {}  # tensor → the open file that holds it, of a library without types
    try:
        for shard in shards:
            handle: Any = safe_open(shard, framework="pt")
            where |= dict.fromkeys(handle.keys(), handle)
    except (SafetensorError, OSError) as error:
        raise _refused(source, f"its weights cannot be read as safetensors: {error}") from None
    if not where:
        raise _refused(source, "its safetensors hold no weights")
    with open(path, "wb") as out:
        _write_tensors(where, out.write)


def _write_tensors(where: dict[str, Any], write: Callable[[bytes | memoryview], object]) -> None:
    from swarm.device import to_bytes

    widths: dict[str, tuple[str, list[int], int]] = {}
    for name, handle in where.items():
        part = handle.get_slice(name)
        shape, kind = part.get_shape(), part.get_dtype()
        widths[name] = (kind, shape, _bytes_of(kind, shape))
    order = sorted(where, key=lambda name: (-_width(widths[name][0]), name))
    at, entries = 0, dict[str, Any]()
    for name in order:
        kind, shape, size = widths[name]
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write(struct.pack("<Q", len(header)) + header)
    for name in order:
        write(to_bytes(where[name].get_tensor(name)))


def _width(kind: str) -> int:
    digits = "".join(c for c in kind.partition("_")[0] if c.isdigit())
    return int(digits) // 8 if digits else 1


def _bytes_of(kind: str, shape: list[int]) -> int:
    size = _width(kind)
    for length in shape:
        size *= length
    return size


def _vocabulary(source: Path, part: Path) -> int:
    """Entries of the model's embedding; 1 where it has none. ConfigError where a causal language model lacks weights: of others the
    run's task says what has to be there."""
    from swarm.errors import InputError
    from swarm.models import for_tokens
    from swarm.models.pretrained import is_whole, load_base, read_config

    try:
        config = read_config(part)
        if is_whole(config, "AutoModelForCausalLM"):
            load_base(part, "bf16", for_tokens(1))
    except InputError as error:
        raise _refused(source, f"{error.value}: {error.remedy}" if error.value != str(part) else error.remedy) from None
    return int(getattr(config.get_text_config(), "vocab_size", 1))


__all__ = ["Published", "read_published"]
