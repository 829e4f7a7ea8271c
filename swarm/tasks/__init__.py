"""What is trained: one file for each kind of task, and one door to all of them, for whoever trains, evaluates, redoes or exports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from swarm import models
from swarm.config import RunConfig, Untrained, dump_run
from swarm.data.records import FileLeaves, OpenLeaves
from swarm.data.tokenizer import read_agreed
from swarm.device import HOST
from swarm.errors import InputError
from swarm.models import FlatModel, Purpose, Trainable, build_model
from swarm.records.types import Account, Hash
from swarm.tasks import causal_lm, chat, image_classification, text_classification
from swarm.tasks.kept import kept_bytes as kept_by
from swarm.tasks.pieces import InPieces, Subject
from swarm.tasks.uses import Manner, Measures, Use


class Task(Protocol):
    """What is trained on, whatever its kind. Deterministic given its arguments, but for the rounding of pieces. Losses are scalars, in
    nats per token where there are tokens."""

    def step(self, model: Trainable, peer: Account, beacon: Hash, unit: int, step: int) -> torch.Tensor:
        """Loss of inner step `step` of a unit; its gradient lies in the parameters' (`FlatModel.grad_flat`) afterwards."""

    def step_on(self, model: Trainable, samples: Sequence[int] | np.ndarray) -> torch.Tensor:
        """The same for the samples of these numbers."""

    def num_samples(self) -> int: ...

    def evaluate(self, model: Trainable, num_samples: int = 64) -> float:
        """Mean loss of held-out samples."""

    def held_out(self, num_samples: int) -> np.ndarray:
        """The same evenly spaced held-out samples for everybody, as `Use.measure` takes them."""

    def sample(self, model: Trainable) -> str:
        """What the model makes, for people; "" where there is nothing to be read."""


RUN_FOLDER = "sparehive"  # in a saved model's: run.toml and the small files of its data, as the run agreed on them
Read = Callable[[str], bytes]  # a small file of the run's data by its name, as the run agreed on it


class Kind(Protocol):
    """What a file of this package has."""

    def open_task(
        self, config: RunConfig, directory: Path, read: Read, report: Callable[[float], None], leaves: OpenLeaves
    ) -> Subject: ...

    def open_use(self, config: RunConfig, read: Read) -> Use: ...

    def purpose(self, config: RunConfig) -> Purpose:
        """What is asked of the model."""

    def example_loss(self, config: RunConfig, model: FlatModel) -> torch.Tensor:
        """Of one sample of the largest size, whatever it is."""

    def config_fields(self, config: RunConfig, read: Read) -> dict[str, Any]:
        """For the config of a model that is saved: names of labels and the like."""

    def save_inputs(self, config: RunConfig, model: FlatModel, read: Read, out: Path) -> None:
        """What turns data into the model's inputs, as transformers opens it."""


KINDS: dict[str, Kind] = {
    "causal_lm": causal_lm,
    "chat": chat,
    "text_classification": text_classification,
    "image_classification": image_classification,
}


def open_task(
    config: RunConfig,
    directory: Path,
    report: Callable[[float], None] = lambda share: None,
    micro_batch: int = 0,
    leaves: OpenLeaves | None = None,
) -> InPieces:
    """Of the run, on the data in `directory`; `report` hears how much of the preparation is done. `micro_batch`: how many samples this
    machine takes at once; 0: what fits. `leaves`: where files of records come from; None: they lie in `directory`, whole. `InputError`
    where the data is not what the run's configuration says."""
    content = config.task.data.content()

    def read(name: str) -> bytes:
        return read_agreed(directory / name, content[name].sha256)

    source = leaves or (lambda name, table: FileLeaves(directory / name, table))
    return InPieces(config, KINDS[config.task.kind].open_task(config, directory, read, report, source), micro_batch)


def open_use(config: RunConfig, read: Read) -> Use:
    """A model of the run in use, without the run's data. `InputError` where one of its small files is not what it should be."""
    return KINDS[config.task.kind].open_use(config, read)


def new_model(config: RunConfig, seed: int = 0, device: torch.device = HOST, base: Path | None = None) -> FlatModel:
    """The run's model as it begins: `seed` draws what is new in it (on every device alike); the rest is in `base`, the folder of what
    `task.model.published()` names (None where it names none). `InputError` where it cannot be built."""
    return FlatModel(build_model(config.task.model, purpose_of(config), seed, base), device)


def blamed(config: RunConfig, fault: InputError, find: Callable[[FlatModel], InputError | None]) -> InputError:
    """`fault`, which `find` found in the run's model, of those fields of the model without which it finds none: models from noise, as
    the run's would be, are built with others. As it is where there are no such fields, or they are not found in seconds."""
    untrained = config.task.model
    if not isinstance(untrained, Untrained):
        return fault

    def attempt(fields: dict[str, Any]) -> None:
        other = find(FlatModel(models.small_build(untrained, fields, purpose_of(config))))
        if other is not None:
            raise other

    found = models.blamed(untrained.fields, attempt, fault.remedy)
    return fault if found.field == models.blame.TABLE else found


def check_model(config: RunConfig, base: Path | None = None) -> int:
    """Number of the model's parameters that are trained, before it takes any memory; errors as `new_model`."""
    return models.check_model(config.task.model, purpose_of(config), base)


def purpose_of(config: RunConfig) -> Purpose:
    """What the run's task asks of its model."""
    return KINDS[config.task.kind].purpose(config)


def kept_bytes(config: RunConfig, model: FlatModel) -> int:
    """Memory that the forward pass of a step keeps for the backward pass, for each sample: one is passed forward to see."""
    return kept_by(model, lambda: KINDS[config.task.kind].example_loss(config, model))


def save_model(config: RunConfig, model: FlatModel, read: Read, out: Path, whole_of: Path | None = None) -> None:
    """A folder that transformers opens: config, weights, and what turns data into the model's inputs. Of a run that trains an adapter
    it is that alone, for peft, or with its base's folder `whole_of` the whole model."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    kind = KINDS[config.task.kind]
    models.save_model(config.task.model, kind.purpose(config), model, kind.config_fields(config, read), out, whole_of)
    kind.save_inputs(config, model, read, out)
    (out / RUN_FOLDER).mkdir()
    dump_run(config, out / RUN_FOLDER / "run.toml")
    for name in config.task.data.of_a_model():
        (out / RUN_FOLDER / name).write_bytes(read(name))


@dataclass
class Opened:
    """Implements `Trainable` for a model that is only used."""

    module: torch.nn.Module
    device: torch.device = HOST

    def zero_grad(self) -> None:
        self.module.zero_grad()


def open_saved(config: RunConfig, folder: Path) -> Opened:
    """The model of `save_model`. InputError where the folder holds none that transformers can open."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    auto = getattr(transformers, KINDS[config.task.kind].purpose(config).auto_class)
    made = models.read_config(folder)
    try:
        module, found = auto.from_pretrained(
            folder,
            config=made,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # transformers raises whatever it meets
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError("model", str(folder), f"cannot be opened ({said}); export it again") from None
    lacking = sorted({*found["missing_keys"], *found["mismatched_keys"]}, key=str)
    if lacking:
        raise InputError("model", str(folder), f"lacks weights, as {lacking[0]}; export it again")
    return Opened(module.eval())


__all__ = [
    "RUN_FOLDER", "InPieces", "Manner", "Measures", "Opened", "Subject", "Task", "Use", "blamed", "check_model", "kept_bytes",
    "new_model", "open_saved", "open_task", "open_use", "purpose_of", "save_model",
]  # fmt: skip
