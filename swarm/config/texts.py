"""What a run's configuration says of a text and of how it becomes tokens."""

from typing import Annotated, Any, Literal, Union

from pydantic import Field, field_validator

from swarm.config.fields import DataFile, Part, Refusal

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


class DataConfig(Part):
    """One text, however many files it was made of: so the config, which every invite carries, stays small."""

    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the root CID of the data directory")
    text: DataFile
    context: int = Field(128, ge=8, le=65536, description="tokens per sample")
    held_out_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share at the end of the text that nobody trains on"
    )
    tokenizer: Annotated[Union[ByteTokenizer, BpeTokenizer], Field(discriminator="kind")] = ByteTokenizer()

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _of_a_known_kind(cls, tokenizer: Any) -> Any:
        if isinstance(tokenizer, dict) and tokenizer.get("kind", "bytes") not in ("bytes", "bpe"):
            raise Refusal("data.tokenizer.kind", tokenizer["kind"], "must be bytes or bpe")
        return tokenizer

    def content(self) -> dict[str, DataFile]:
        """All files of the data directory by name: the text, and the tokenizer where it was trained."""
        files = {TEXT_FILE: self.text}
        if isinstance(self.tokenizer, BpeTokenizer):
            files[TOKENIZER_FILE] = self.tokenizer.file
        return files

    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size for file in self.content().values())
