"""`run.toml`: what everybody in a run agrees on."""

from swarm.config.causal_lm import CausalLMConfig
from swarm.config.fields import DataConfig, DataFile
from swarm.config.models import MAX_FIELDS_BYTES, UntrainedModel
from swarm.config.records import (
    HELD_RECORDS,
    LEAF_BYTES,
    MAX_HELD,
    MAX_LEAVES_PER_DRAW,
    TRAIN_RECORDS,
    RecordField,
    RecordsConfig,
    RecordTable,
    TokenRecords,
    token_dtype,
)
from swarm.config.run import MAX_PARTS, InnerConfig, RunConfig, dump_run, load_run
from swarm.config.texts import (
    TEXT_FILE,
    TOKENIZER_FILE,
    BpeTokenizer,
    ByteTokenizer,
    PublishedTokenizer,
    RecordTokenizer,
    TextConfig,
)

__all__ = [
    "HELD_RECORDS",
    "LEAF_BYTES",
    "MAX_FIELDS_BYTES",
    "MAX_HELD",
    "MAX_LEAVES_PER_DRAW",
    "MAX_PARTS",
    "TEXT_FILE",
    "TOKENIZER_FILE",
    "TRAIN_RECORDS",
    "BpeTokenizer",
    "ByteTokenizer",
    "CausalLMConfig",
    "DataConfig",
    "DataFile",
    "InnerConfig",
    "PublishedTokenizer",
    "RecordField",
    "RecordTable",
    "RecordTokenizer",
    "RecordsConfig",
    "RunConfig",
    "TextConfig",
    "TokenRecords",
    "UntrainedModel",
    "dump_run",
    "load_run",
    "token_dtype",
]
