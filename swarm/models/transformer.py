"""Causal language models of transformers, by configuration; nothing is downloaded."""

from typing import Any

import torch

from swarm.config import ModelConfig
from swarm.errors import InputError

BYTE_VOCABULARY = 256


def transformer_config(config: ModelConfig, context: int) -> Any:
    """The transformers config of the run's model. InputError for a field that the family does not have."""
    from transformers import AutoConfig

    sizes = {"n_positions": context} if config.family == "gpt2" else {"max_position_embeddings": context}
    known = AutoConfig.for_model(config.family).to_dict()
    for name, value in config.fields.items():
        if name not in known and name not in ("n_embd", "n_layer", "n_head", "hidden_size", "num_hidden_layers"):
            raise InputError(f"model.fields.{name}", value, f"transformers' {config.family} has no such field")
    fields = {"vocab_size": BYTE_VOCABULARY, "bos_token_id": None, "eos_token_id": None, **sizes, **config.fields}
    made = AutoConfig.for_model(config.family, **fields)
    for dropout in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"):
        if hasattr(made, dropout):
            setattr(made, dropout, 0.0)  # an auditor must be able to redo every step
    made.use_cache = False
    return made


def build_model(config: ModelConfig, context: int, seed: int = 0) -> torch.nn.Module:
    """A freshly initialised model in fp32. The seed only matters for whoever makes a run: all others load the anchor."""
    from transformers import AutoModelForCausalLM

    made = transformer_config(config, context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = AutoModelForCausalLM.from_config(made, dtype=torch.float32, attn_implementation="sdpa")
        except (ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
            raise InputError("model.fields", config.fields, f"transformers cannot build it: {error}") from None
    module.train()
    return module  # type: ignore[no-any-return]
