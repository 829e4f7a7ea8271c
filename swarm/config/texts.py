"""What a run's configuration says of a text and of how it becomes tokens."""

from typing import Annotated, Literal, Union

from pydantic import BeforeValidator, Field

from swarm.config.fields import DataConfig, DataFile, Part, of_known_kind

TEXT_FILE, TOKENIZER_FILE = "text.txt", "tokenizer.json"


class ByteTokenizer(Part):
    """A token is a byte."""

    kind: Literal["bytes"] = "bytes"
    vocabulary: Literal[256] = 256


class BpeTokenizer(Part):
    """Byte-level BPE, trained by whoever made the run; its file lies in the data directory beside the text."""

    kind: Literal["bpe"]
    vocabulary: int = Field(ge=257, le=65536, description="number of tokens")
    file: DataFile
    tokens_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="of the whole text's tokens as little-endian uint16: all peers must cut the text alike",
    )


class PublishedTokenizer(Part):
    """A tokenizer file as it is, in the data directory: a published model's, or one that was trained for this run's records. Whoever
    made the records has cut the text with it; nobody has to do that again."""

    kind: Literal["published"]
    vocabulary: int = Field(ge=2, le=1_000_000, description="number of tokens: the largest one, and one more")
    file: DataFile


Tokenizer = Annotated[
    Union[ByteTokenizer, BpeTokenizer],
    Field(discriminator="kind"),
    BeforeValidator(of_known_kind("task.data.tokenizer", "bytes", "bpe")),
]


RecordTokenizer = Annotated[
    Union[ByteTokenizer, PublishedTokenizer],
    Field(discriminator="kind"),
    BeforeValidator(of_known_kind("task.data.tokenizer", "bytes", "published")),
]


class TextConfig(DataConfig):
    """One text, however many files it was made of: so the config, which every invite carries, stays small."""

    kind: Literal["text"]
    text: DataFile
    context: int = Field(128, ge=8, le=65536, description="tokens per sample")
    held_out_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share at the end of the text that nobody trains on"
    )
    tokenizer: Tokenizer = ByteTokenizer()

    def tokens_per_sample(self) -> int:
        return self.context

    def of_a_model(self) -> tuple[str, ...]:
        return (TOKENIZER_FILE,) if isinstance(self.tokenizer, BpeTokenizer) else ()

    def content(self) -> dict[str, DataFile]:
        """The text, and the tokenizer where it was trained."""
        files = {TEXT_FILE: self.text}
        if isinstance(self.tokenizer, BpeTokenizer):
            files[TOKENIZER_FILE] = self.tokenizer.file
        return files
