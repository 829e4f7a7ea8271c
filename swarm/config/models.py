"""What a run's configuration says of its model."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from swarm.config.fields import MAX_COUNT, Part, Refusal, of_known_kind
from swarm.hashing import canonical_json

MAX_FIELDS_BYTES = 512  # canonical JSON of task.model.fields: an invite carries it


class UntrainedModel(Part):
    """One of transformers' architectures, from noise."""

    kind: Literal["untrained"]
    family: Literal["gpt2", "llama", "gpt_neox", "mistral", "qwen2"] = Field(
        "gpt2", description="model type of transformers"
    )
    fields: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description="fields of its transformers config"
    )

    @field_validator("fields", mode="before")
    @classmethod
    def _small_and_plain(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            raise Refusal("task.model.fields", fields, "must be a table such as {n_embd=96, n_layer=3, n_head=4}")
        for name, value in fields.items():
            where = f"task.model.fields.{name}"
            if not isinstance(value, int | float | str):
                raise Refusal(where, value, "must be a number, true, false or a word")
            if isinstance(value, str) and not value.isprintable():
                raise Refusal(where, value, "must be printable")
            if not isinstance(value, str) and not -MAX_COUNT <= value <= MAX_COUNT:  # not a number compares false too
                raise Refusal(where, value, f"must be finite and at most {MAX_COUNT}")
        try:
            size = len(canonical_json(fields))
        except ValueError as error:  # half a character
            raise Refusal("task.model.fields", fields, f"cannot be written as JSON: {error}") from None
        if size > MAX_FIELDS_BYTES:
            raise Refusal("task.model.fields", fields, f"is {size} bytes as JSON, at most {MAX_FIELDS_BYTES}")
        return fields


ModelConfig = Annotated[
    UntrainedModel, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.model", "untrained"))
]
