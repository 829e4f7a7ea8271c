"""`run.toml`: what everybody in a run agrees on."""

from swarm.config.causal_lm import CausalLMConfig
from swarm.config.fields import DataConfig, DataFile
from swarm.config.models import MAX_FIELDS_BYTES, UntrainedModel
from swarm.config.run import MAX_PARTS, InnerConfig, RunConfig, dump_run, load_run
from swarm.config.texts import TEXT_FILE, TOKENIZER_FILE, BpeTokenizer, ByteTokenizer, TextConfig

__all__ = [
    "MAX_FIELDS_BYTES",
    "MAX_PARTS",
    "TEXT_FILE",
    "TOKENIZER_FILE",
    "BpeTokenizer",
    "ByteTokenizer",
    "CausalLMConfig",
    "DataConfig",
    "DataFile",
    "InnerConfig",
    "RunConfig",
    "TextConfig",
    "UntrainedModel",
    "dump_run",
    "load_run",
]
