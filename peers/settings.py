"""What a new run is made of beside its text: a preset's values, with the organiser's `--set` over them."""

import copy
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from peers.errors import ConfigError

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "task": {
            "kind": "causal_lm",
            "model": {"kind": "untrained", "family": "gpt2", "fields": {"n_embd": 96, "n_layer": 3, "n_head": 4}},
            "data": {"kind": "text", "context": 64},
        },
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
        "task": {
            "kind": "causal_lm",
            "model": {"kind": "untrained", "family": "gpt2", "fields": {"n_embd": 256, "n_layer": 6, "n_head": 8}},
            "data": {"kind": "text", "context": 256},
        },
        "inner": {"lr": 2e-3, "batch_size": 8, "steps_per_unit": 5},
        "rounds": {"units_per_epoch": 8},
    },
    "base": {
        "task": {
            "kind": "causal_lm",
            "model": {"kind": "untrained", "family": "gpt2", "fields": {"n_embd": 768, "n_layer": 12, "n_head": 12}},
            "data": {"kind": "text", "context": 512},
        },
        "inner": {"lr": 6e-4, "batch_size": 8, "steps_per_unit": 25},
        "codec": {"contribution": "int4", "average": "int4", "part_values": 1 << 20},
        "rounds": {"units_per_epoch": 8, "contribute_seconds": 60.0, "average_seconds": 60.0, "stall_seconds": 600.0},
    },
}
# Sizes for other kinds of task: width, layers, heads of a model, and what else its preset says.
_OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "chat": {
        "demo": {"family": "gpt2", "sizes": (96, 3, 4), "data": {"context": 128}},
        "small": {"family": "gpt2", "sizes": (256, 6, 8), "data": {"context": 256}},
        "base": {"family": "gpt2", "sizes": (768, 12, 12), "data": {"context": 1024}},
    },
    "text_classification": {
        "demo": {"family": "distilbert", "sizes": (96, 2, 4), "data": {"context": 64}},
        "small": {"family": "distilbert", "sizes": (256, 4, 8), "data": {"context": 128}},
        "base": {"family": "distilbert", "sizes": (768, 6, 12), "data": {"context": 512}},
    },
    "image_classification": {
        "demo": {"family": "vit", "sizes": (64, 3, 4), "data": {"size": 32}, "fields": {"patch_size": 4}},
        "small": {"family": "vit", "sizes": (192, 6, 6), "data": {"size": 64}, "fields": {"patch_size": 8}},
        "base": {"family": "vit", "sizes": (768, 12, 12), "data": {"size": 224}, "fields": {"patch_size": 16}},
    },
}
# What follows from the text, the tokenizer and the model; the option that decides on it.
_DERIVED = {
    "version": "is that of this program",
    "initial_root": "follows from the model",
    "task.model.root": "follows from the model to start from; give --from",
    "task.model.size": "follows from the model to start from; give --from",
    "task.model.vocabulary": "follows from the model to start from; give --from",
    "task.model.base_sha256": "follows from the model to start from; give --from",
    "task.data.root": "follows from the text; give --data",
    "storage.objects": "follows from data and base",
    "storage.price_amount": "is that of --store-price",
    "storage.replicas": "is that of --store-replicas",
    "task.data.num_train": "follows from the data; give --data",
    "task.data.num_held": "follows from the data; give --data",
    "task.data.labels": "follows from the data; give --data",
    "task.data.num_labels": "follows from the data; give --data",
    "task.data.padding": "follows from the tokenizer; give --tokenizer",
    "task.data.template": "follows from the tokenizer; give --tokenizer",
    "task.kind": "follows from --task; give that",
    "task.data.text": "follows from the text; give --data",
    "task.data.tokenizer": "follows from the text; give --tokenizer",
}
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,8}")


def with_settings(preset: str, given: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The preset's values, `given` over them, and KEY=VALUE over both: a table is merged into the one that is there, so that what it
    does not name stays. ConfigError for what is no setting, or not the organiser's to set."""
    changes: dict[str, Any] = {}
    for setting in settings:
        _merge(changes, _parse(setting))
    if "storage" in changes and "storage" not in given:
        *_, name = _leaves({"storage": changes["storage"]})
        raise ConfigError("--set", name, "is about people who are paid to store: give --store-price, too")
    values = copy.deepcopy(PRESETS[preset])
    family = _at(changes, "task", "model", "family")
    kind = given.get("task", {}).get("kind", "causal_lm")
    if kind in _OTHERS:
        values["task"] = _task_of(kind, _OTHERS[kind][preset], family)
    elif family is not None:
        fields = values["task"]["model"]["fields"]
        values["task"]["model"]["fields"] = _sizes_of(family, fields["n_embd"], fields["n_layer"], fields["n_head"])
    if _at(given, "task", "model", "kind") == "pretrained":  # its sizes are what they are
        values["task"]["model"] = {}
    for layer in (given, changes):
        _merge(values, copy.deepcopy(layer))
    return values


def _task_of(kind: str, preset: dict[str, Any], family: Any) -> dict[str, Any]:
    """Its tables; `family`: another one than the preset's."""
    family = family or preset["family"]
    fields = {**_sizes_of(family, *preset["sizes"]), **preset.get("fields", {})}
    model = {"kind": "untrained", "family": family, "fields": fields}
    return {"kind": kind, "model": model, "data": {"kind": "records", **preset["data"]}}


def _sizes_of(family: Any, width: int, layers: int, heads: int) -> dict[str, Any]:
    """A preset's sizes under the names of a family."""
    if family == "gpt2":
        return {"n_embd": width, "n_layer": layers, "n_head": heads}
    if family == "distilbert":
        return {"dim": width, "hidden_dim": 4 * width, "n_layers": layers, "n_heads": heads}
    if family == "convnext":
        return {"hidden_sizes": [width, 2 * width], "depths": [layers, layers], "num_stages": 2}
    found = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return found if family in ("gpt_neox", "bert", "vit") else {**found, "num_key_value_heads": heads}


def _parse(setting: str) -> dict[str, Any]:
    """Nested tables from `a.b=VALUE`; a VALUE that is not TOML is a word."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError("--set", setting, "give KEY=VALUE with a field of run.toml, e.g. inner.lr=0.003")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML; a number of thousands of digits; nested too deep
        parsed = {"value": text}
    if set(parsed) != {"value"}:
        raise ConfigError(f"--set {key}", text, "must be one TOML value; give one --set for each field")
    value: Any = parsed["value"]
    for name in reversed(key.split(".")):
        value = {name: value}
    for leaf in _leaves(value):
        for derived, why in _DERIVED.items():
            if leaf == derived or leaf.startswith(derived + "."):
                raise ConfigError(f"--set {key}", text, f"{derived} cannot be set: it {why}")
    return value  # type: ignore[no-any-return]


def _leaves(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in value.items():
        yield prefix + name
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{prefix}{name}.")


def _merge(into: dict[str, Any], changes: dict[str, Any], prefix: str = "") -> None:
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value, f"{prefix}{name}.")
        elif isinstance(value, dict) and name in into:
            raise ConfigError("--set", f"{prefix}{name}.{next(iter(value), '')}", f"{name} is not a group of settings")
        else:
            into[name] = value


def _at(values: Any, *path: str) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


__all__ = ["PRESETS", "with_settings"]
