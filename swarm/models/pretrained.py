"""Models that start from a published one: built of its folder, with what is trained of it told apart from what stays (decision 0022).

The folder holds `config.json` and `model.safetensors`, which transformers reads; no code that came with a model is ever run.
"""

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json

from swarm.config import Lora, PretrainedModel
from swarm.device import to_bytes, to_host
from swarm.errors import InputError
from swarm.models.flat import FlatModel
from swarm.models.transformer import (
    BYTES_PER_VALUE,
    MAX_LAYERS,
    Purpose,
    check_redoable,
    import_dynamo,
    line_of,
    memory_bytes,
)

CONFIG_FILE, WEIGHTS_FILE, LINEAGE_FILE = "config.json", "model.safetensors", "lineage.json"
ADAPTER_FILE = "adapter_model.safetensors"  # peft's name for it
_HEADS = ("score", "classifier", "pre_classifier")  # what families call the parts that give logits of labels
FROZEN_BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 1.0,
    "nf4": 0.57,
}  # of memory for a value of the base; nf4 with its scales
_IMPLEMENTATION = "_implementation"  # ends of names of settings that choose kernels
MAX_CONFIG_BYTES = 1 << 20
_CHANCE = ("drop", "jitter")  # parts of the names of settings that draw at random in training


def base_config(folder: Path, purpose: Purpose) -> Any:
    """The base's transformers config, with nothing of chance in it. InputError where the installed transformers cannot build it without
    code that comes with the model, or not for what the run asks of it."""
    config = read_config(folder, **_of_head(purpose))
    if not has_class(config, purpose.auto_class):
        raise InputError(
            "base",
            config.model_type,
            f"the installed transformers has no {purpose.auto_class} of it; take another model",
        )
    for part in _parts_of(config):
        for name, value in vars(part).items():
            if any(word in name for word in _CHANCE) and isinstance(value, int | float) and not isinstance(value, bool):
                setattr(part, name, 0.0)
        layers = getattr(part, "num_hidden_layers", 0)
        if isinstance(layers, int) and layers > MAX_LAYERS:
            raise InputError("base", layers, f"has more layers than the {MAX_LAYERS} that a run's model may have")
    config.use_cache = False
    return config


def _parts_of(config: Any) -> list[Any]:
    """A config and those inside it: of the text's part of a model of several, and the like."""
    from transformers import PretrainedConfig

    found, todo = [], [config]
    while todo:
        found.append(todo.pop())
        todo += [value for value in vars(found[-1]).values() if isinstance(value, PretrainedConfig)]
    return found


def has_class(config: Any, auto_class: str) -> bool:
    import transformers

    return type(config) in getattr(transformers, auto_class)._model_mapping


def is_whole(config: Any, auto_class: str) -> bool:
    """Whether the config says that its weights are of such a model, head included; also where it says nothing of its class."""
    import transformers

    if not has_class(config, auto_class):
        return False
    found = getattr(transformers, auto_class)._model_mapping[type(config)]
    classes = found if isinstance(found, tuple) else (found,)
    names = config.architectures or ()
    return not names or any(each.__name__ in names for each in classes)


def read_config(folder: Path, **values: Any) -> Any:
    """As it is, with `values` over it. InputError where it is none that the installed transformers knows."""
    from transformers import AutoConfig

    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        found = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError("base", str(folder), f"its config.json cannot be read ({line_of(error)})") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise InputError(
            "base", str(folder), "its config.json names no model_type: take a folder of a Hugging Face model"
        )
    if "auto_map" in found:
        raise InputError(
            "base", str(folder), "needs code that came with the model, which a run never executes; take another"
        )
    named = sorted(name for name in found if name.endswith(_IMPLEMENTATION))
    if named:  # transformers would fetch such a one from a hub
        raise InputError(
            "base", str(folder), f"its config.json names code to compute with ({named[0]}); take that line out"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **values)
    except Exception as error:  # transformers raises whatever it meets
        raise InputError(
            "base", found["model_type"], f"transformers cannot read its config: {line_of(error)}"
        ) from None


def build_pretrained(model: PretrainedModel, folder: Path, purpose: Purpose, seed: int = 0) -> torch.nn.Module:
    """The base of `folder` with what is trained of it requiring gradients, on the host: fp32 what is trained, as `model.base` says the
    rest. `seed` draws what the base does not have (LoRA's first matrices, a new head). `InputError` names what cannot be built, or a
    quantised base whose bits are not those of the run."""
    check_pretrained(model, folder, purpose)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = load_base(folder, model.base, purpose)
        if model.is_quantised:
            _check_bits(model, module)
        module.requires_grad_(isinstance(model.train, Lora) is False)
        if isinstance(model.train, Lora):
            module = with_lora(module, model.train)
        else:
            freeze(module, model.train.freeze)
    return module.train()


def load_base(folder: Path, base: str, purpose: Purpose) -> torch.nn.Module:
    """Weights as the base has them, in the numbers that `base` says. InputError where they do not fit its config."""
    import transformers

    import_dynamo()
    config = base_config(folder, purpose)
    _check_sizes(config, purpose)
    if purpose.num_labels and base != "fp32":
        raise InputError(
            "task.model.base", base, 'must be "fp32" for a model with a head for labels, which is trained in fp32'
        )
    with _quiet():
        try:
            module, found = getattr(transformers, purpose.auto_class).from_pretrained(
                folder,
                config=config,
                dtype=torch.bfloat16 if base == "bf16" else torch.float32,
                attn_implementation="sdpa" if _has_sdpa(config, purpose) else "eager",
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **_quantisation(base),
            )
        except Exception as error:  # transformers and safetensors raise whatever they meet
            raise InputError("base", str(folder), f"its weights cannot be loaded: {line_of(error)}") from None
    lacking = sorted({*found["missing_keys"], *found["mismatched_keys"]}, key=str)
    if purpose.num_labels:
        lacking = [name for name in lacking if not _is_of_head(str(name))]  # a new one is drawn
    if lacking:
        raise InputError(
            "base", str(folder), f"has no weights for {len(lacking)} parts of it, as {lacking[0]}; take a whole model"
        )
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # some families name theirs otherwise
    check_redoable(module)
    return module  # type: ignore[no-any-return]


def _of_head(purpose: Purpose) -> dict[str, Any]:
    if not purpose.num_labels:
        return {}
    padding = purpose.fields.get("pad_token_id")
    return {"num_labels": purpose.num_labels, **({} if padding is None else {"pad_token_id": padding})}


def _is_of_head(name: str) -> bool:
    return name.partition(".")[0] in _HEADS


def _has_sdpa(config: Any, purpose: Purpose) -> bool:
    import transformers

    found = getattr(transformers, purpose.auto_class)._model_mapping[type(config)]
    made = found[0] if isinstance(found, tuple) else found
    return bool(getattr(made, "_supports_sdpa", False))


def _quantisation(base: str) -> dict[str, Any]:
    """On the host, whatever the device: so the bits are the same everywhere. InputError where bitsandbytes is not installed."""
    if base not in ("int8", "nf4"):
        return {}
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # it loads a library of its own, which may not be there for this machine
        raise InputError(
            "task.model.base",
            base,
            f'bitsandbytes does not work on this machine ({line_of(error)}); take base = "bf16"',
        ) from None
    wanted = (
        BitsAndBytesConfig(load_in_8bit=True)
        if base == "int8"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    )
    return {"quantization_config": wanted, "device_map": {"": "cpu"}}


def with_lora(module: torch.nn.Module, lora: Lora) -> torch.nn.Module:
    """`module` inside a PeftModel with an adapter, its values as torch's generator draws them; fp32 whatever the base is.
    InputError where no module of it has such a name."""
    with _quiet():
        from peft import LoraConfig, get_peft_model

    targets: str | list[str] = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes any number
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM" if hasattr(module, "prepare_inputs_for_generation") else None,
        modules_to_save=[name for name, _ in module.named_children() if name in _HEADS] or None,  # trained, and whole
    )
    with _quiet():
        try:
            made = get_peft_model(module, settings)
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            names = sorted({name.rpartition(".")[2] for name, part in module.named_modules() if _is_linear(part)})
            raise InputError(
                "task.model.train.targets",
                list(lora.targets),
                f"peft cannot adapt it ({line_of(error, 120)}); its linear layers are {', '.join(names)}",
            ) from None
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return made


def _is_linear(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.Linear) or type(part).__name__ == "Conv1D"


def merged(model: PretrainedModel, folder: Path, purpose: Purpose, trained: FlatModel) -> torch.nn.Module:
    """The whole model, fp32: the base as peers hold it, with the adapter `trained` in its weights."""
    assert isinstance(model.train, Lora)
    module: Any = load_base(folder, model.base, purpose)
    if model.is_quantised:
        module = module.dequantize()
        for name in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(module.config, name):
                delattr(module.config, name)
    whole: Any = with_lora(module.float(), model.train)
    values = trained.layout.views(to_host(trained.flat))
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(values[name])
    return whole.merge_and_unload()  # type: ignore[no-any-return]


def save_adapter(model: PretrainedModel, trained: FlatModel, out: Path) -> None:
    """In peft's own format."""
    module: Any = trained.module
    for settings in module.peft_config.values():
        settings.base_model_name_or_path = f"sparehive base {model.root}"  # nobody's folder, and no hub is asked
    with _quiet():
        module.save_pretrained(out, save_embedding_layers=False)


def load_adapter(trained: FlatModel, folder: Path) -> None:
    """Values of `save_adapter` into a model of the same run. InputError where the folder holds others."""
    with _quiet():
        from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / ADAPTER_FILE
    wanted = set(trained.layout.names)
    try:
        told: Any = set_peft_model_state_dict(trained.module, load_file(path))
    except Exception as error:  # safetensors and torch raise whatever they meet in a file
        raise InputError("adapter", str(path), f"cannot be read ({line_of(error)}); export it again") from None
    lacking = wanted & set(told.missing_keys)
    if lacking or told.unexpected_keys:
        name = min(lacking or told.unexpected_keys)
        raise InputError("adapter", str(path), f"is of another model than its run.toml says: {name}; export it again")


def freeze(module: torch.nn.Module, parts: tuple[str, ...]) -> None:
    """No gradient for the parameters of these parts. InputError where it has no such part, or nothing is left to train."""
    for part in parts:
        for frozen in _parts(module, part):
            frozen.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise InputError("task.model.train.freeze", list(parts), "leaves nothing to train: name fewer parts")


def _parts(module: torch.nn.Module, part: str) -> list[torch.nn.Module]:
    if part == "embeddings":
        return [each for each in module.modules() if isinstance(each, torch.nn.Embedding)]
    if part == "head":
        output = getattr(module, "get_output_embeddings", lambda: None)()
        if output is None:
            raise InputError("task.model.train.freeze", part, "this model has none")
        return [output]
    first, _, last = part.removeprefix("layers.").partition("-")
    begin, end = int(first), int(last or first)
    layers = max(
        (each for each in module.modules() if isinstance(each, torch.nn.ModuleList)),
        key=len,
        default=torch.nn.ModuleList(),
    )
    if not begin <= end < len(layers):
        raise InputError("task.model.train.freeze", part, f"the model has layers 0 to {len(layers) - 1}")
    return list(layers[begin : end + 1])


def check_pretrained(model: PretrainedModel, folder: Path, purpose: Purpose) -> int:
    """Number of values that are trained, before they take any memory; errors as `build_pretrained`."""
    import transformers

    import_dynamo()
    config = base_config(folder, purpose)
    _check_sizes(config, purpose)
    with torch.device("meta"), _quiet():
        try:
            attention = "sdpa" if _has_sdpa(config, purpose) else "eager"
            module = getattr(transformers, purpose.auto_class).from_config(config, attn_implementation=attention)
        except Exception as error:  # transformers raises whatever it meets
            raise InputError("base", config.model_type, f"transformers cannot build it: {line_of(error)}") from None
        _check_entries(module, model)
        module.requires_grad_(not isinstance(model.train, Lora))
        if isinstance(model.train, Lora):
            module = with_lora(module, model.train)
        else:
            freeze(module, model.train.freeze)
    trained = sum(int(p.numel()) for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    needed, there = trained * BYTES_PER_VALUE + int(frozen * FROZEN_BYTES[model.base]), memory_bytes()
    if there is not None and needed > there:
        raise InputError(
            "task.model.base",
            model.base,
            f"the model takes {needed / 1e9:.0f} GB of memory at least, and this machine has {there / 1e9:.0f} GB",
        )
    return trained


def _check_entries(module: Any, model: PretrainedModel) -> None:
    try:
        entries = module.get_input_embeddings()
    except NotImplementedError:  # of images: there are none
        return
    if getattr(entries, "num_embeddings", model.vocabulary) < model.vocabulary:
        raise InputError(
            "task.model.vocabulary", model.vocabulary, f"the base has {entries.num_embeddings}: make the run again"
        )


def _check_sizes(config: Any, purpose: Purpose) -> None:
    """InputError where the run's samples do not fit the base."""
    most, context = (
        getattr(config.get_text_config(), "max_position_embeddings", None),
        purpose.fields.get("n_positions"),
    )
    if isinstance(most, int) and isinstance(context, int) and context > most:
        raise InputError(
            "task.data.context", context, f"the base has positions for {most} tokens: take a context of at most so many"
        )
    for field, name in (("task.data.size", "image_size"), ("task.data.channels", "num_channels")):
        own, wanted = getattr(config, name, None), purpose.fields.get(name)
        if wanted is not None and isinstance(own, int) and own != wanted:
            raise InputError(field, wanted, f"the base takes {own}: give that")


def bits_of(module: torch.nn.Module) -> str:
    """sha-256 of a quantised base as it lies in memory: names and bytes of its tensors, sorted by name. Before it has done anything:
    a first pass may lay it out anew."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            found.update(to_bytes(to_host(value.detach()).contiguous().flatten()))
    return found.hexdigest()


def _check_bits(model: PretrainedModel, module: torch.nn.Module) -> None:
    found = bits_of(module)
    if found != model.base_sha256:
        raise InputError(
            "task.model.base",
            model.base,
            f"this machine quantises the base to other bits ({found[:12]}) than the run agreed on ({model.base_sha256[:12]}): install the "
            "bitsandbytes of the others, or join another run",
        )


def frozen_bytes(module: torch.nn.Module) -> int:
    """Memory of what a model holds and does not train."""
    held = {id(p): p for p in (*module.parameters(), *module.buffers()) if not p.requires_grad}
    return sum(p.numel() * p.element_size() for p in held.values())


class _quiet:
    """Without the progress bars and remarks of the libraries: what people are to read is printed once."""

    def __enter__(self) -> None:
        from transformers.utils import logging as transformers_logging

        self._transformers, self._root = transformers_logging, logging.getLogger("transformers")
        self._level, self._other = self._root.level, logging.getLogger("bitsandbytes")
        self._others = self._other.level
        self._root.setLevel(logging.ERROR)
        self._other.setLevel(logging.ERROR)  # it tells at import what it looked for and does without
        transformers_logging.disable_progress_bar()
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        self._warnings.__exit__(None, None, None)
        self._root.setLevel(self._level)
        self._other.setLevel(self._others)
