"""Models by configuration, from what is installed; never code that came with a run."""

from pathlib import Path
from typing import Any

import torch

from swarm.config import Lora, PretrainedModel, Untrained
from swarm.errors import InputError
from swarm.models import pretrained, transformer
from swarm.models.blame import blamed
from swarm.models.flat import FlatModel, Trainable
from swarm.models.pretrained import frozen_bytes, load_adapter, read_config
from swarm.models.transformer import Purpose, for_images, for_tokens, named_line, small_build


def build_model(
    config: Untrained | PretrainedModel, purpose: Purpose, seed: int = 0, base: Path | None = None
) -> torch.nn.Module:
    """A model as the run begins with it. The seed only matters for whoever makes a run: all others load the anchor. `base`: folder of
    the published model, where it starts from one. InputError where it cannot be built, or is too large for this machine's memory."""
    if isinstance(config, PretrainedModel):
        return pretrained.build_pretrained(config, _there(config, base), purpose, seed)
    return transformer.build_model(config, purpose, seed)


def check_model(config: Untrained | PretrainedModel, purpose: Purpose, base: Path | None = None) -> int:
    """Number of the parameters that are trained, before they take any memory; errors as `build_model`."""
    if isinstance(config, PretrainedModel):
        return pretrained.check_pretrained(config, _there(config, base), purpose)
    return transformer.check_model(config, purpose)


def save_model(
    config: Untrained | PretrainedModel,
    purpose: Purpose,
    model: FlatModel,
    fields: dict[str, Any],
    out: Path,
    whole_of: Path | None = None,
) -> None:
    """What transformers opens: the whole model, with `fields` in its config; or, of a run that trains an adapter, that in peft's format.
    With its base's folder `whole_of` the base too, the adapter in its weights."""
    if isinstance(config, PretrainedModel) and isinstance(config.train, Lora):
        if whole_of is None:
            pretrained.save_adapter(config, model, out)
            return
        module: Any = pretrained.merged(config, whole_of, purpose, model)
    else:
        module = model.module
    for name, value in fields.items():
        setattr(module.config, name, value)
    module.save_pretrained(out)


def _there(config: PretrainedModel, base: Path | None) -> Path:
    if base is None:
        raise InputError(
            "task.model.root",
            config.root,
            "the model that this run starts from is not here; give the run's whole directory",
        )
    return base


__all__ = [
    "FlatModel", "Purpose", "Trainable", "blamed", "build_model", "check_model", "for_images", "for_tokens", "frozen_bytes",
    "load_adapter", "named_line", "read_config", "save_model", "small_build",
]  # fmt: skip
