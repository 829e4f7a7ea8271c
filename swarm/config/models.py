"""What a run's configuration says of its model."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BeforeValidator, Field, field_validator, model_validator

from swarm.config.fields import MAX_COUNT, Part, Refusal, of_known_kind
from swarm.config.texts import ByteTokenizer
from swarm.hashing import canonical_json

MAX_STAGES, MAX_SIZE = 16, 65536  # of a list: sizes of a model's stages
MAX_FIELDS_BYTES = 512  # canonical JSON of task.model.fields: an invite carries it
MAX_TARGETS_LENGTH = 256  # of task.model.train.targets together, for the same reason


@dataclass(frozen=True)
class Base:
    """The published model that a run's starts from: `root`, digest of the root CID of its directory; `size`, bytes of its files."""

    root: bytes
    size: int


class ModelPart(Part):
    """What is known of the model of any task."""

    @abstractmethod
    def published(self) -> Base | None:
        """What has to be there before it can be built; None: nothing."""

    def is_adapter(self) -> bool:
        """Whether what is trained is of use only beside that."""
        return False


class Untrained(ModelPart):
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

    def published(self) -> None:
        return None


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


_FROZEN = r"^(embeddings|head|layers\.(0|[1-9][0-9]{0,3})(-(0|[1-9][0-9]{0,3}))?)$"


class AllWeights(Part):
    """Every weight of the base is trained but those of the parts that `freeze` names."""

    kind: Literal["all"] = "all"
    freeze: tuple[Annotated[str, Field(pattern=_FROZEN)], ...] = Field(
        (), strict=False, max_length=16, description='what stays as it is, as "embeddings", "head", "layers.0-5"'
    )


class Lora(Part):
    """Two small matrices beside each linear layer that `targets` names (arXiv 2106.09685, in peft's form); the base stays as it is."""

    kind: Literal["lora"]
    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(
        32.0, gt=0, le=1e6, description="the product is scaled by alpha / rank, or alpha / √rank with rslora"
    )
    targets: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,48}$")], ...] = Field(
        ("all-linear",),
        strict=False,
        min_length=1,
        max_length=12,
        description='ends of names of modules, as "q_proj"; all-linear: all but the output',
    )
    rslora: bool = Field(False, description="rank-stabilised scale (arXiv 2312.03732)")
    dora: bool = Field(False, description="a magnitude beside each direction (arXiv 2402.09353)")

    @field_validator("targets")
    @classmethod
    def _short(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if sum(map(len, targets)) > MAX_TARGETS_LENGTH:
            raise Refusal(
                "task.model.train.targets",
                list(targets),
                f"must be at most {MAX_TARGETS_LENGTH} letters: name ends of names",
            )
        return targets


class PretrainedModel(ModelPart):
    """A published model, trained on (decision 0022): a directory of config.json, model.safetensors and, where it came out of a run,
    lineage.json."""

    kind: Literal["pretrained"]
    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the root CID of the base's directory")
    size: int = Field(ge=1, le=MAX_COUNT, description="bytes of its files")
    vocabulary: int = Field(ge=1, le=1 << 24, description="tokens that it has an entry for")
    base: Literal["fp32", "bf16", "int8", "nf4"] = Field("fp32", description="how what is not trained is held")
    base_sha256: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", description="of the bits of a quantised base: all peers must hold the same"
    )
    train: Annotated[
        Union[AllWeights, Lora],
        Field(discriminator="kind"),
        BeforeValidator(of_known_kind("task.model.train", "all", "lora")),
    ] = AllWeights()

    @model_validator(mode="after")
    def _fits_together(self) -> "PretrainedModel":
        if self.base != "fp32" and self.train.kind == "all":
            raise Refusal(
                "task.model.base",
                self.base,
                'must be "fp32" where weights themselves are trained; take train.kind = "lora"',
            )
        if bool(self.base_sha256) != self.is_quantised:
            raise Refusal(
                "task.model.base_sha256",
                self.base_sha256,
                "belongs to a quantised base, and to no other: make the run with run new --from",
            )
        return self

    @property
    def is_quantised(self) -> bool:
        return self.base in ("int8", "nf4")

    def is_adapter(self) -> bool:
        return isinstance(self.train, Lora)

    def published(self) -> Base:
        return Base(bytes.fromhex(self.root), self.size)


_PUBLISHED = of_known_kind("task.model", "untrained", "pretrained")
ModelConfig = Annotated[
    Union[UntrainedModel, PretrainedModel], Field(discriminator="kind"), BeforeValidator(_PUBLISHED)
]
TextClassifierConfig = Annotated[
    Union[UntrainedTextClassifier, PretrainedModel], Field(discriminator="kind"), BeforeValidator(_PUBLISHED)
]
ImageClassifierConfig = Annotated[
    Union[UntrainedImageClassifier, PretrainedModel], Field(discriminator="kind"), BeforeValidator(_PUBLISHED)
]


def check_vocabulary(model: Untrained | PretrainedModel, least: int) -> None:
    """Refusal where the model has no entry for each of the tokenizer's `least` tokens."""
    if isinstance(model, PretrainedModel):
        if model.vocabulary < least:
            raise Refusal(
                "task.model.vocabulary",
                model.vocabulary,
                f"the base has entries for fewer tokens than the {least} of task.data.tokenizer: take a smaller tokenizer",
            )
        return
    vocabulary = model.fields.get("vocab_size", ByteTokenizer().vocabulary)
    if isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or vocabulary < least:
        raise Refusal(
            "task.model.fields.vocab_size",
            vocabulary,
            f"must be a whole number of at least {least}, as task.data.tokenizer has",
        )
