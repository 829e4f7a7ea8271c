"""`run.toml`: what everybody in a run agrees on."""

from swarm.config.fields import DataFile
from swarm.config.models import MAX_FIELDS_BYTES, ModelConfig
from swarm.config.run import MAX_PARTS, InnerConfig, RunConfig, dump_run, load_run
from swarm.config.texts import TEXT_FILE, TOKENIZER_FILE, BpeTokenizer, ByteTokenizer, DataConfig

__all__ = [
    "MAX_FIELDS_BYTES",
    "MAX_PARTS",
    "TEXT_FILE",
    "TOKENIZER_FILE",
    "BpeTokenizer",
    "ByteTokenizer",
    "DataConfig",
    "DataFile",
    "InnerConfig",
    "ModelConfig",
    "RunConfig",
    "dump_run",
    "load_run",
]
