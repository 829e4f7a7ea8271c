"""Classification of texts: its part of a run's configuration."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from swarm.config.fields import DataFile, Part, Refusal, of_known_kind
from swarm.config.labels import LabelledRecords, label_field
from swarm.config.models import TextClassifierConfig, UntrainedTextClassifier, check_vocabulary
from swarm.config.records import RecordField, token_field
from swarm.config.texts import TOKENIZER_FILE, ByteTokenizer, PublishedTokenizer, RecordTokenizer


class LabelledTexts(LabelledRecords):
    """A record is `length` tokens, the token `padding` up to `context`, and a label."""

    context: int = Field(128, ge=8, le=65536, description="most tokens of a sample; longer texts were cut")
    padding: int = Field(0, ge=0, le=1_000_000, description="token behind a text that is shorter")
    tokenizer: RecordTokenizer = ByteTokenizer()

    def record_fields(self) -> tuple[RecordField, ...]:
        tokens = token_field(self.tokenizer.vocabulary, self.context)
        return (tokens, RecordField("length", "uint32", least=1, most=self.context), label_field(self.num_labels))

    def content(self) -> dict[str, DataFile]:
        tokenizer = self.tokenizer
        own = {TOKENIZER_FILE: tokenizer.file} if isinstance(tokenizer, PublishedTokenizer) else {}
        return {**super().content(), **own}

    @model_validator(mode="after")
    def _pads_with_a_token(self) -> "LabelledTexts":
        if self.padding >= self.tokenizer.vocabulary:
            raise Refusal(
                "task.data.padding", self.padding, f"must be one of the tokenizer's {self.tokenizer.vocabulary} tokens"
            )
        return self


class TextClassificationConfig(Part):
    kind: Literal["text_classification"]
    data: Annotated[LabelledTexts, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.data", "records"))]
    model: TextClassifierConfig = UntrainedTextClassifier(kind="untrained")

    @model_validator(mode="after")
    def _has_an_entry_for_every_token(self) -> "TextClassificationConfig":
        check_vocabulary(self.model, self.data.tokenizer.vocabulary)
        return self
