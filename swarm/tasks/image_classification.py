"""Classification of images: which of the run's labels an image has."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swarm.config import ImageClassificationConfig, ImageRecords, RunConfig
from swarm.data.images import square_pixels
from swarm.data.records import OpenLeaves, RecordLayout
from swarm.device import to_device
from swarm.errors import InputError
from swarm.models import FlatModel, Purpose, Trainable, for_images
from swarm.tasks.labelling import Labeller, label_fields, read_labels
from swarm.tasks.recorded import RecordedTask
from swarm.tasks.uses import Use


def _task(config: RunConfig) -> ImageClassificationConfig:
    assert isinstance(config.task, ImageClassificationConfig)
    return config.task


class ImageLabeller(Labeller):
    """Implements `swarm.tasks.uses.Use`; of a row it takes `image` (of Pillow) and `label`."""

    columns: tuple[str, ...] = ("image", "label")

    def __init__(self, data: ImageRecords, read: Callable[[str], bytes]) -> None:
        super().__init__(data, read)
        self._data, self._layout = data, RecordLayout(data.record_fields())

    def encode_unlabelled(self, row: Mapping[str, Any]) -> np.ndarray:
        image = row.get("image")
        if image is None:
            raise InputError("image", None, "is missing; give an image")
        record = self._layout.empty(1)
        record["pixels"] = square_pixels(image, self._data.size, self._data.channels)
        return record

    def logits(self, model: Trainable, records: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(records["pixels"].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self._data.mean, self._data.std))
        logits = model.module(pixel_values=to_device((pixels - mean) / std, model.device)).logits
        return logits.float()  # type: ignore[no-any-return]


def open_task(
    config: RunConfig,
    directory: Path,
    read: Callable[[str], bytes],
    report: Callable[[float], None],
    leaves: OpenLeaves,
) -> RecordedTask:
    data = _task(config).data
    return RecordedTask(config, data, ImageLabeller(data, read), leaves)


def open_use(config: RunConfig, read: Callable[[str], bytes]) -> Use:
    return ImageLabeller(_task(config).data, read)


def purpose(config: RunConfig) -> Purpose:
    data = _task(config).data
    return for_images(data.size, data.channels, data.num_labels)


def example_loss(config: RunConfig, model: FlatModel) -> torch.Tensor:
    data = _task(config).data
    pixels = to_device(torch.zeros(1, data.channels, data.size, data.size), model.device)
    logits = model.module(pixel_values=pixels).logits.float()
    return torch.nn.functional.cross_entropy(logits, torch.zeros(1, dtype=torch.int64, device=model.device))


def save_inputs(config: RunConfig, model: FlatModel, read: Callable[[str], bytes], out: Path) -> None:
    """preprocessor_config.json, as transformers' processors of images read it: the same scaling as the run's."""
    data = _task(config).data
    name = {"vit": "ViTImageProcessor", "convnext": "ConvNextImageProcessor"}
    side = {"height": data.size, "width": data.size}
    values = {
        "image_processor_type": name.get(getattr(model.module.config, "model_type", ""), "ViTImageProcessor"),
        "do_resize": True,
        "size": side,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [float(value) for value in np.broadcast_to(data.mean, data.channels)],
        "image_std": [float(value) for value in np.broadcast_to(data.std, data.channels)],
        "do_convert_rgb": data.channels == 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def config_fields(config: RunConfig, read: Callable[[str], bytes]) -> dict[str, Any]:
    return label_fields(read_labels(_task(config).data, read))
