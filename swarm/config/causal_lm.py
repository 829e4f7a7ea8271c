"""Causal language modelling: its part of a run's configuration."""

from typing import Annotated, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from swarm.config.fields import Part, Refusal, of_known_kind
from swarm.config.models import ModelConfig, UntrainedModel
from swarm.config.records import TokenRecords
from swarm.config.texts import ByteTokenizer, TextConfig


class CausalLMConfig(Part):
    kind: Literal["causal_lm"]
    data: Annotated[
        Union[TextConfig, TokenRecords],
        Field(discriminator="kind"),
        BeforeValidator(of_known_kind("task.data", "text", "records")),
    ]
    model: ModelConfig = UntrainedModel(kind="untrained")

    @model_validator(mode="after")
    def _has_an_entry_for_every_token(self) -> "CausalLMConfig":
        least = self.data.tokenizer.vocabulary
        vocabulary = self.model.fields.get("vocab_size", ByteTokenizer().vocabulary)
        if isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or vocabulary < least:
            raise Refusal(
                "task.model.fields.vocab_size",
                vocabulary,
                f"must be a whole number of at least {least}, as task.data.tokenizer has",
            )
        return self
