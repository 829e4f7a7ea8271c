"""Chat: its part of a run's configuration."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from swarm.config.fields import DataFile, Part, of_known_kind
from swarm.config.models import ModelConfig, UntrainedModel, check_vocabulary
from swarm.config.records import RecordField, RecordsConfig, token_field
from swarm.config.texts import TOKENIZER_FILE, ByteTokenizer, PublishedTokenizer, RecordTokenizer

TEMPLATE_FILE = "chat_template.jinja"


class ChatRecords(RecordsConfig):
    """A record is `context` + 1 tokens of a conversation, and for each whether the assistant said it: only that is learnt. Behind the
    end of a shorter conversation nothing is."""

    context: int = Field(256, ge=8, le=65536, description="tokens per sample; longer conversations were cut")
    tokenizer: RecordTokenizer = ByteTokenizer()
    template: DataFile = Field(
        description="chat_template.jinja of the data directory: how messages were written as text; for who uses the model"
    )

    def record_fields(self) -> tuple[RecordField, ...]:
        shape = (self.context + 1,)
        return (
            token_field(self.tokenizer.vocabulary, *shape),
            RecordField("learnt", "uint8", shape, most=1),
        )

    def tokens_per_sample(self) -> int:
        return self.context

    def content(self) -> dict[str, DataFile]:
        tokenizer = self.tokenizer
        own = {TOKENIZER_FILE: tokenizer.file} if isinstance(tokenizer, PublishedTokenizer) else {}
        return {TEMPLATE_FILE: self.template, **own}

    def of_a_model(self) -> tuple[str, ...]:
        return tuple(self.content())


class ChatConfig(Part):
    kind: Literal["chat"]
    data: Annotated[ChatRecords, Field(discriminator="kind"), BeforeValidator(of_known_kind("task.data", "records"))]
    model: ModelConfig = UntrainedModel(kind="untrained")

    @model_validator(mode="after")
    def _has_an_entry_for_every_token(self) -> "ChatConfig":
        check_vocabulary(self.model, self.data.tokenizer.vocabulary)
        return self
