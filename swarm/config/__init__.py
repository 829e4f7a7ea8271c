"""`run.toml`: what everybody in a run agrees on."""

from swarm.config.causal_lm import CausalLMConfig
from swarm.config.chat import TEMPLATE_FILE, ChatConfig, ChatRecords
from swarm.config.fields import LEAF_BYTES, DataConfig, DataFile, RecordTable
from swarm.config.image_classification import ImageClassificationConfig, ImageRecords
from swarm.config.labels import LABELS_FILE, LabelledRecords
from swarm.config.models import MAX_FIELDS_BYTES, Base, Lora, PretrainedModel, Untrained, UntrainedModel
from swarm.config.records import (
    HELD_RECORDS,
    MAX_HELD,
    MAX_LEAVES_PER_DRAW,
    TRAIN_RECORDS,
    RecordField,
    RecordsConfig,
    TokenRecords,
    token_dtype,
)
from swarm.config.run import MAX_PARTS, InnerConfig, RunConfig, dump_run, load_run
from swarm.config.storage import StorageConfig, StoredObject
from swarm.config.text_classification import LabelledTexts, TextClassificationConfig
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
    "LABELS_FILE",
    "LEAF_BYTES",
    "MAX_FIELDS_BYTES",
    "MAX_HELD",
    "MAX_LEAVES_PER_DRAW",
    "MAX_PARTS",
    "TEMPLATE_FILE",
    "TEXT_FILE",
    "TOKENIZER_FILE",
    "TRAIN_RECORDS",
    "Base",
    "BpeTokenizer",
    "ByteTokenizer",
    "CausalLMConfig",
    "ChatConfig",
    "ChatRecords",
    "DataConfig",
    "DataFile",
    "ImageClassificationConfig",
    "ImageRecords",
    "InnerConfig",
    "LabelledRecords",
    "LabelledTexts",
    "Lora",
    "PretrainedModel",
    "PublishedTokenizer",
    "RecordField",
    "RecordTable",
    "RecordTokenizer",
    "RecordsConfig",
    "RunConfig",
    "StorageConfig",
    "StoredObject",
    "TextClassificationConfig",
    "TextConfig",
    "TokenRecords",
    "Untrained",
    "UntrainedModel",
    "dump_run",
    "load_run",
    "token_dtype",
]
