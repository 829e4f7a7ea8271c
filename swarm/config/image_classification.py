"""Classification of images: its part of a run's configuration."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from swarm.config.fields import Part, Refusal, of_known_kind
from swarm.config.labels import LabelledRecords, label_field
from swarm.config.models import ImageClassifierConfig, UntrainedImageClassifier
from swarm.config.records import RecordField

Shade = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=1e-3, le=10)]


class ImageRecords(LabelledRecords):
    """A record is the pixels of a square image and a label. A model sees (value / 255 - mean) / std, channel by channel."""

    size: int = Field(32, ge=4, le=1024, description="pixels of a side; images of another size were scaled to it")
    channels: Literal[1, 3] = Field(3, description="1: shades of grey, 3: red, green and blue")
    mean: tuple[Shade, ...] = Field((0.5,), strict=False, description="of each channel, or of all")
    std: tuple[Spread, ...] = Field((0.5,), strict=False, description="of each channel, or of all")

    def record_fields(self) -> tuple[RecordField, ...]:
        return (RecordField("pixels", "uint8", (self.size, self.size, self.channels)), label_field(self.num_labels))

    @model_validator(mode="after")
    def _has_a_scale_for_each_channel(self) -> "ImageRecords":
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise Refusal(
                    f"task.data.{name}", values, f"must be one number, or {self.channels}: one for each channel"
                )
        return self


class ImageClassificationConfig(Part):
    kind: Literal["image_classification"]
    data: Annotated[ImageRecords, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.data", "records"))]
    model: ImageClassifierConfig = UntrainedImageClassifier(kind="untrained")
