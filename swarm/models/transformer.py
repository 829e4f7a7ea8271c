"""Causal language models of transformers, by configuration; nothing is downloaded."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch

from swarm.config import UntrainedModel
from swarm.errors import InputError

BYTE_VOCABULARY = 256
MAX_LAYERS = 512
BYTES_PER_VALUE = 12  # of memory while a model is built: its parameters, the flat copy, gradients; fp32
# Fields that are not the organiser's to set, and why.
_FROM_CONTEXT = "follows from task.data.context; set that"
NO_CHANCE = "is always 0: an auditor must be able to redo every step"
_FIXED: dict[str, str] = {
    "n_positions": _FROM_CONTEXT,
    "max_position_embeddings": _FROM_CONTEXT,
    "use_cache": "is always off in training",
}
for _name in ("bos_token_id", "eos_token_id", "pad_token_id"):
    _FIXED[_name] = "means nothing to a run: its text is one without an end"
for _name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "classifier_dropout"):
    _FIXED[_name] = NO_CHANCE


def transformer_config(config: UntrainedModel, context: int) -> Any:
    """The transformers config of the run's model. InputError for a field that the family does not have, or of another type than
    the family's own value."""
    from transformers import AutoConfig, PretrainedConfig

    default = AutoConfig.for_model(config.family)
    general = PretrainedConfig().to_dict()  # names of labels and the like: no part of a model's shape
    known = {name: value for name, value in default.to_dict().items() if name not in general}
    for name, value in config.fields.items():
        _check_field(config.family, name, value, known, getattr(default, "attribute_map", {}))
    sizes: dict[str, Any] = {name: context for name in ("n_positions", "max_position_embeddings") if name in known}
    ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    fields: dict[str, Any] = {"vocab_size": BYTE_VOCABULARY, **ids, **sizes, **config.fields}
    made = AutoConfig.for_model(config.family, **fields)
    for name, why in _FIXED.items():
        if why == NO_CHANCE and hasattr(made, name):
            setattr(made, name, 0.0)
    made.use_cache = False
    return made


def _check_field(family: str, name: str, value: Any, known: dict[str, Any], aliases: dict[str, str]) -> None:
    field = f"task.model.fields.{name}"
    if name in _FIXED:
        raise InputError(field, value, _FIXED[name])
    if name not in known:
        other = f": it calls that {aliases[name]}" if name in aliases else ""
        raise InputError(field, value, f"transformers' {family} has no such field{other}")
    own = known[name]
    if isinstance(own, dict | list):
        raise InputError(field, value, "is a table or a list in transformers, which a run cannot set")
    if isinstance(own, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(own, int):
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(own, float):
        fits, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    elif isinstance(own, str):
        fits, wanted = isinstance(value, str), f"a word such as {own!r}"
    else:
        fits, wanted = True, ""
    if not fits:
        raise InputError(field, value, f"must be {wanted}")
    if isinstance(value, int) and not isinstance(value, bool) and not isinstance(own, float):
        most = MAX_LAYERS if name in ("n_layer", "num_hidden_layers") else 1 << 31
        if not 1 <= value <= most:
            raise InputError(field, value, f"must be from 1 to {most}")


def build_model(config: UntrainedModel, context: int, seed: int = 0) -> torch.nn.Module:
    """A freshly initialised model in fp32. The seed only matters for whoever makes a run: all others load the anchor.

    InputError where it cannot be built from these fields, or is too large for this machine's memory."""
    check_model(config, context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = _built(config, context)
        except Exception as error:  # as above: what only shows with real numbers, so no field that decides on a size
            names = [name for name, value in config.fields.items() if not isinstance(value, int)]
            raise _blamed(config, names, lambda rest: _built(rest, context), error) from None
    module.train()
    return module


def check_model(config: UntrainedModel, context: int) -> int:
    """Number of the model's parameters, before it takes any memory; errors as `build_model`."""
    try:
        values = count_values(config, context)
    except InputError:
        raise
    except Exception as error:  # transformers and torch raise whatever they meet; only what they build here is tried
        raise _blamed(config, list(config.fields), lambda rest: count_values(rest, context), error) from None
    needed, there = values * BYTES_PER_VALUE, _memory_bytes()
    if there is not None and needed > there:
        raise InputError(
            "task.model.fields",
            config.fields,
            f"{values:,} parameters take {needed / 1e9:.0f} GB at least, and this machine has {there / 1e9:.0f} GB",
        )
    return values


def count_values(config: UntrainedModel, context: int) -> int:
    """Number of the model's parameters, tied ones once, without the memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _built(config, context).parameters())


def _built(config: UntrainedModel, context: int) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    _import_dynamo()
    made = transformer_config(config, context)
    return AutoModelForCausalLM.from_config(  # type: ignore[no-any-return]
        made, dtype=torch.float32, attn_implementation="sdpa"
    )


def _import_dynamo() -> None:
    """Models of transformers import it, and it makes a directory for compiled code at once: at a fixed name in TMPDIR, in the
    working directory, or where a parent process had one. A run compiles nothing, and that place may not be this user's to
    write to (torch 2.13.0, `torch._dynamo.package`); one that is there needs no making."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    told = os.environ.get(name)
    os.environ[name] = os.sep
    try:
        importlib.import_module("torch._dynamo")
    finally:
        if told is None:
            del os.environ[name]
        else:
            os.environ[name] = told


def _blamed(
    config: UntrainedModel, names: list[str], attempt: Callable[[UntrainedModel], object], error: Exception
) -> InputError:
    """It names the field of `names` without which `attempt` ends well, if there is one."""
    said = f"transformers cannot build the model: {_line(error)}"
    for name in names:
        others = {other: value for other, value in config.fields.items() if other != name}
        try:
            attempt(config.model_copy(update={"fields": others}))
        except Exception:  # as in build_model: then it is not this field, or not this one alone
            continue
        return InputError(f"task.model.fields.{name}", config.fields[name], said)
    return InputError("task.model.fields", config.fields, said)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
