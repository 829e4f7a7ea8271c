"""What a run's configuration says of its model."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from swarm.config.fields import MAX_COUNT, Part, Refusal, of_known_kind
from swarm.config.texts import ByteTokenizer
from swarm.hashing import canonical_json

MAX_STAGES, MAX_SIZE = 16, 65536  # of a list: sizes of a model's stages
MAX_FIELDS_BYTES = 512  # canonical JSON of task.model.fields: an invite carries it


class Untrained(Part):
    """One of transformers' architectures, from noise. A subclass says which of them its tasks can take."""

    may_list: ClassVar[bool] = False  # sizes of stages, where families have them

    kind: Literal["untrained"]
    family: str
    fields: dict[str, Any] = Field(default_factory=dict, description="fields of its transformers config")

    @field_validator("fields", mode="before")
    @classmethod
    def _small_and_plain(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            raise Refusal("task.model.fields", fields, "must be a table such as {n_embd=96, n_layer=3, n_head=4}")
        for name, value in fields.items():
            where = f"task.model.fields.{name}"
            if cls.may_list and isinstance(value, list):
                if not 1 <= len(value) <= MAX_STAGES or not all(
                    type(each) is int and 1 <= each <= MAX_SIZE for each in value
                ):
                    raise Refusal(
                        where, value, f"a list must be of 1 to {MAX_STAGES} whole numbers, each from 1 to {MAX_SIZE}"
                    )
                continue
            if not isinstance(name, str) or not isinstance(value, int | float | str):
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


class UntrainedModel(Untrained):
    """A causal language model."""

    family: Literal["gpt2", "llama", "gpt_neox", "mistral", "qwen2"] = Field(
        "gpt2", description="model type of transformers"
    )
    fields: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description="fields of its transformers config"
    )


class UntrainedTextClassifier(Untrained):
    """A model of texts with a head for labels."""

    family: Literal["gpt2", "llama", "qwen2", "distilbert", "bert"] = Field(
        "distilbert", description="model type of transformers"
    )
    fields: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description="fields of its transformers config"
    )


class UntrainedImageClassifier(Untrained):
    """A model of images with a head for labels."""

    may_list: ClassVar[bool] = True

    family: Literal["vit", "convnext"] = Field("vit", description="model type of transformers")
    fields: dict[str, int | float | str | bool | list[int]] = Field(
        default_factory=dict, description="fields of its transformers config"
    )


ModelConfig = Annotated[
    UntrainedModel, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.model", "untrained"))
]
TextClassifierConfig = Annotated[
    UntrainedTextClassifier, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.model", "untrained"))
]
ImageClassifierConfig = Annotated[
    UntrainedImageClassifier, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.model", "untrained"))
]


def check_vocabulary(model: Untrained, least: int) -> None:
    """Refusal where the model has no entry for each of the tokenizer's `least` tokens."""
    vocabulary = model.fields.get("vocab_size", ByteTokenizer().vocabulary)
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or vocabulary < least:
        raise Refusal(
            "task.model.fields.vocab_size",
            vocabulary,
            f"must be a whole number of at least {least}, as task.data.tokenizer has",
        )
