"""Models of transformers, by configuration and by what a task asks of them; nothing is downloaded."""

import importlib
import os
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any, get_args

import torch

from swarm.config import Untrained
from swarm.errors import InputError
from swarm.models.blame import blamed

BYTE_VOCABULARY = 256
MAX_LAYERS = 512
SMALL_VALUES = 10_000_000  # of a model that may be built to find the field to blame, however small the run's is
_ACTIVATIONS = ("activation_function", "hidden_act", "activation")
_WITHOUT_ATTENTION = ("convnext",)
BYTES_PER_VALUE = 12  # of memory while a model is built: its parameters, the flat copy, gradients; fp32
# Fields that are not the organiser's to set, and why.
_FROM_CONTEXT = "follows from task.data.context; set that"
NO_CHANCE = "is always 0: an auditor must be able to redo every step"
_FIXED: dict[str, str] = {
    "n_positions": _FROM_CONTEXT,
    "max_position_embeddings": _FROM_CONTEXT,
    "image_size": "follows from task.data.size; set that",
    "num_channels": "follows from task.data.channels; set that",
    "use_cache": "is always off in training",
}
for _name in ("bos_token_id", "eos_token_id", "pad_token_id"):
    _FIXED[_name] = "means nothing to a run: it follows from the data"
for _name in (
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "hidden_dropout", "classifier_dropout",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "seq_classif_dropout", "qa_dropout", "summary_first_dropout",
    "drop_path_rate",
):  # fmt: skip
    _FIXED[_name] = NO_CHANCE


@dataclass(frozen=True)
class Purpose:
    """What a task asks of its model. `auto_class`: of transformers, by name; `fields`: of its config, where the family has them, which
    nobody else can set; `defaults`: where the run sets none; `num_labels`: of a head
    that tells them apart; 0: none."""

    auto_class: str
    fields: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    num_labels: int = 0


def for_tokens(
    context: int, auto_class: str = "AutoModelForCausalLM", padding: int | None = None, num_labels: int = 0
) -> Purpose:
    """Of a model that takes up to `context` tokens. `padding`: the token behind shorter samples, None where there are none."""
    sizes = {"n_positions": context, "max_position_embeddings": context}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": padding}
    return Purpose(auto_class, {**sizes, **ids}, {"vocab_size": BYTE_VOCABULARY}, num_labels)


def for_images(size: int, channels: int, num_labels: int) -> Purpose:
    """Of a model that takes square images of `size` pixels a side and gives logits of labels."""
    fields = {"image_size": size, "num_channels": channels}
    return Purpose("AutoModelForImageClassification", fields, {}, num_labels)


def transformer_config(config: Untrained, purpose: Purpose) -> Any:
    """The transformers config of the run's model. InputError for a field that the family does not have, or of another type than
    the family's own value."""
    from transformers import AutoConfig, PretrainedConfig

    default = AutoConfig.for_model(config.family)
    general = PretrainedConfig().to_dict()  # names of labels and the like: no part of a model's shape
    known = {name: value for name, value in default.to_dict().items() if name not in general}
    own = {name: _taken(config.family, name, value, known, default) for name, value in config.fields.items()}
    ours = {name: value for name, value in purpose.fields.items() if name in known or name.endswith("_token_id")}
    fields: dict[str, Any] = {**purpose.defaults, **ours, **own}
    if purpose.num_labels:
        fields["num_labels"] = purpose.num_labels
    made = AutoConfig.for_model(config.family, **fields)
    for name, why in _FIXED.items():
        if why == NO_CHANCE and hasattr(made, name):
            setattr(made, name, 0.0)
    made.use_cache = False
    return made


def _taken(family: str, name: str, value: Any, known: dict[str, Any], default: Any) -> Any:
    """The value as transformers' config takes it: where that has a fraction a whole number becomes one."""
    _check_field(family, name, value, known, default)
    return float(value) if isinstance(known[name], float) else value


def _check_field(family: str, name: str, value: Any, known: dict[str, Any], default: Any) -> None:
    field = f"task.model.fields.{name}"
    if name in _FIXED:
        raise InputError(field, value, _FIXED[name])
    if name not in known:
        aliases = getattr(default, "attribute_map", {})
        other = f": it calls that {aliases[name]}" if name in aliases else ""
        raise InputError(field, value, f"transformers' {family} has no such field{other}")
    own = known[name]
    if isinstance(own, dict) or (isinstance(own, list) and not isinstance(value, list)):
        raise InputError(field, value, "is a table or a list in transformers, which this run cannot set so")
    fits, wanted = _fits(own, value, default, name)
    if not fits:
        raise InputError(field, value, f"must be {wanted}")
    if isinstance(value, int) and not isinstance(value, bool) and not isinstance(own, float):
        most = MAX_LAYERS if name in ("n_layer", "n_layers", "num_hidden_layers") else 1 << 31
        if not 1 <= value <= most:
            raise InputError(field, value, f"must be from 1 to {most}")


def _fits(own: Any, value: Any, default: Any, name: str) -> tuple[bool, str]:
    """Whether the value is of the kind of the family's own, and what that is."""
    if name in _ACTIVATIONS:
        from transformers.activations import ACT2FN

        is_one = isinstance(value, str) and value in ACT2FN
        return is_one, "an activation that transformers has: gelu, relu, silu, tanh …"
    if isinstance(own, list):
        whole = bool(own) and isinstance(own[0], int)
        return whole, "left out: it is no list of whole numbers in transformers"
    kinds = _kinds(own, default, name)
    if kinds is None:
        return not isinstance(value, list), "no list"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    wanted = " or ".join(words[kind] for kind in words if kind in kinds)
    is_one = type(value) in kinds or (float in kinds and type(value) is int)
    return is_one, f"{wanted} such as {own!r}" if isinstance(own, str) else wanted


def _kinds(own: Any, default: Any, name: str) -> set[type] | None:
    """Types of a field's values: that of the family's own value, or where that is none, what transformers says; None: nothing."""
    plain: set[type] = {bool, int, float, str}
    if own is not None:
        return {type(own)} & plain or None
    declared = next((each.type for each in fields_of(default) if each.name == name), None)
    return {kind for kind in (declared, *get_args(declared)) if isinstance(kind, type)} & plain or None


def build_model(config: Untrained, purpose: Purpose, seed: int = 0) -> torch.nn.Module:
    """A freshly initialised model in fp32. The seed only matters for whoever makes a run: all others load the anchor.

    InputError where it cannot be built from these fields, or is too large for this machine's memory."""
    check_model(config, purpose)
    try:
        return _drawn(config, purpose, seed)
    except Exception as error:  # as below: what only shows with real numbers
        raise blamed(config.fields, lambda other: small_build(config, other, purpose), _cannot(error)) from None


def _drawn(config: Untrained, purpose: Purpose, seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _built(config, purpose).train()


def check_model(config: Untrained, purpose: Purpose) -> int:
    """Number of the model's parameters, before it takes any memory; errors as `build_model`."""
    try:
        values = count_values(config, purpose)
    except InputError:
        raise
    except Exception as error:  # transformers and torch raise whatever they meet; only what they build here is tried
        raise blamed(
            config.fields, lambda other: count_values(with_fields(config, other), purpose), _cannot(error)
        ) from None
    needed, there = values * BYTES_PER_VALUE, memory_bytes()
    if there is not None and needed > there:
        raise InputError(
            "task.model.fields",
            config.fields,
            f"{values:,} parameters take {needed / 1e9:.0f} GB at least, and this machine has {there / 1e9:.0f} GB",
        )
    return values


def count_values(config: Untrained, purpose: Purpose) -> int:
    """Number of the model's parameters, tied ones once, without the memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _built(config, purpose).parameters())


def _built(config: Untrained, purpose: Purpose) -> torch.nn.Module:
    import transformers

    import_dynamo()
    made = transformer_config(config, purpose)
    attention = {} if config.family in _WITHOUT_ATTENTION else {"attn_implementation": "sdpa"}
    module: torch.nn.Module = getattr(transformers, purpose.auto_class).from_config(
        made, dtype=torch.float32, **attention
    )
    check_redoable(module)
    return module


def check_redoable(module: torch.nn.Module) -> None:
    """InputError where a step would draw at random, or would change more than the parameters: neither can be redone or averaged."""
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            raise InputError(
                "task.model", f"{name}: {type(part).__name__}", "keeps averages of what it sees, which no peer shares; take a "
                "family with layer norms",
            )  # fmt: skip
        if isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0:
            raise InputError("task.model", f"{name}: dropout {part.p}", NO_CHANCE)


def import_dynamo() -> None:
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


def with_fields(config: Untrained, fields: dict[str, Any]) -> Untrained:
    return config.model_copy(update={"fields": fields})


def small_build(config: Untrained, fields: dict[str, Any], purpose: Purpose) -> torch.nn.Module:
    """With other fields, to see whether these mend it; ValueError where that would be larger than the run's model and `SMALL_VALUES`."""
    other = with_fields(config, fields)
    if count_values(other, purpose) > max(SMALL_VALUES, count_values(config, purpose)):
        raise ValueError("too large to be tried")
    return _drawn(other, purpose, 0)


def _cannot(error: Exception) -> str:
    return f"transformers cannot build the model with it: {named_line(error)}"


def named_line(error: Exception) -> str:
    """What a library said, as one line, after what kind of error that is: a KeyError's text is the key alone. Of one that another was
    wrapped into, that other."""
    inner = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return f"{type(inner).__name__}: {line_of(inner).rstrip('.')}"


def line_of(error: Exception, most: int = 200) -> str:
    """What a library said, as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
