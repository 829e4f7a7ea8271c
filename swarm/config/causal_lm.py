"""Causal language modelling: its part of a run's configuration."""

from typing import Annotated, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from swarm.config.fields import Part, of_known_kind
from swarm.config.models import ModelConfig, UntrainedModel, check_vocabulary
from swarm.config.records import TokenRecords
from swarm.config.texts import TextConfig


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
        check_vocabulary(self.model, self.data.tokenizer.vocabulary)
        return self
