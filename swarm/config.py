"""RunConfig (`run.toml`): what everybody in a run agrees on. Its hash is the run's id; no addresses, no hosts.

Changing any value makes another run. Canonical JSON (RFC 8785) of all fields → keccak-256 = `run_id` (PROTOCOL §2).
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from swarm.errors import InputError
from swarm.hashing import canonical_json, keccak256


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Part):
    family: Literal["gpt2", "llama", "gpt_neox", "mistral", "qwen2"] = Field(
        "gpt2", description="model type of transformers"
    )
    fields: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description="fields of its transformers config"
    )


class DataFile(_Part):
    name: str = Field(
        description="path inside the data directory, with forward slashes",
        pattern=r"^[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*$",
    )
    size: int = Field(ge=1, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        if any(set(piece) == {"."} for piece in name.split("/")):
            raise ValueError("a file's name must not lead out of the data directory")
        return name


class ByteTokenizer(_Part):
    """A token is a byte."""

    kind: Literal["bytes"] = "bytes"
    vocabulary: Literal[256] = 256


class BpeTokenizer(_Part):
    """Byte-level BPE, trained by whoever made the run; its file lies in the data directory beside the text."""

    kind: Literal["bpe"]
    vocabulary: int = Field(ge=257, le=65536, description="number of tokens")
    file: DataFile
    tokens_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="of the whole text's tokens as little-endian uint16: all peers must cut the text alike",
    )


class DataConfig(_Part):
    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the root CID of the data directory")
    files: tuple[DataFile, ...] = Field(
        min_length=1, max_length=4096, description="in the order in which they are joined"
    )
    context: int = Field(128, ge=8, le=65536, description="tokens per sample")
    held_out_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share at the end of the text that nobody trains on"
    )
    tokenizer: Annotated[Union[ByteTokenizer, BpeTokenizer], Field(discriminator="kind")] = ByteTokenizer()

    def content(self) -> tuple[DataFile, ...]:
        """All files of the data directory: the text, and the tokenizer where it was trained."""
        return (*self.files, self.tokenizer.file) if isinstance(self.tokenizer, BpeTokenizer) else self.files

    @model_validator(mode="after")
    def _named_once(self) -> "DataConfig":
        names = [file.name for file in self.content()]
        if len(set(names)) != len(names):
            raise ValueError("a file's name appears twice")
        return self


class InnerConfig(_Part):
    optimizer: Literal["adamw", "adamw8bit", "sgd"] = "adamw"
    lr: float = Field(3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.1, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    batch_size: int = Field(8, ge=1, description="samples per inner step")
    steps_per_unit: int = Field(5, ge=1, description="inner steps of one unit")
    warmup_units: int = Field(20, ge=0, description="of the whole swarm")
    total_units: int = Field(
        100_000, ge=1, description="units of the whole swarm at which the learning rate reaches zero"
    )


class OuterConfig(_Part):
    lr: float = Field(0.7, gt=0)
    momentum: float = Field(0.7, ge=0, lt=1)
    momentum_ramp_rounds: int = Field(20, ge=0)


class CodecConfig(_Part):
    contribution: Literal["int8", "int4", "int2", "float32"] = "int4"
    average: Literal["int8", "int4", "float32"] = "int8"
    part_values: int = Field(262_144, ge=256, le=1 << 20, multiple_of=256, description="parameters per part")

    @model_validator(mode="after")
    def _fits_a_frame(self) -> "CodecConfig":
        if "float32" in (self.contribution, self.average) and self.part_values > 1 << 19:
            raise ValueError("codec.part_values must be at most 524288 with float32: a part travels in one frame")
        return self


class RoundsConfig(_Part):
    units_per_epoch: int = Field(8, ge=1, description="units of the whole swarm after which it averages")
    max_units_per_contribution: int = Field(64, ge=1, le=65535)
    epoch_deadline_seconds: float = Field(300.0, gt=0)
    contribute_seconds: float = Field(10.0, gt=0, description="from the call to the last part")
    average_seconds: float = Field(10.0, gt=0)
    vote_seconds: float = Field(5.0, gt=0)
    stall_seconds: float = Field(60.0, gt=0, description="without a certificate: ready peers seat themselves anew")
    max_attempts: int = Field(4, ge=2, le=64, description="then the epoch is void")
    max_reducers: int = Field(16, ge=2, le=64, description="a lone reducer's own contribution would have no witness")
    min_seated: int = Field(2, ge=1, le=64, description="ready peers that the founders wait for")
    recheck_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="of the parts, redone by a second drawn reducer; reserved: takes effect when rechecks come",
    )


class AuditConfig(_Part):
    """A contribution can be redone (`sparehive run replay`); who is drawn to do so comes later."""

    rate: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of contributions drawn to be redone; reserved: takes effect when audits come",
    )
    hold_seconds: int = Field(
        3600,
        ge=600,
        description="how long a peer keeps what an auditor needs: own wire bytes, moments and residuals, averages, anchors",
    )
    anchor_every_epochs: int = Field(
        8, ge=1, le=1024, description="every so many epochs an anchor is kept, so that those between can be rebuilt"
    )
    tolerance: float = Field(
        0.2,
        gt=0,
        le=10,
        description="largest distance of an honest contribution when it is redone, times its inner steps",
    )


class RunConfig(_Part):
    """One training effort."""

    version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=64)
    task: Literal["causal_lm"] = "causal_lm"
    model: ModelConfig = ModelConfig()
    data: DataConfig
    initial_root: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the root CID of the initial anchor")
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    codec: CodecConfig = CodecConfig()
    rounds: RoundsConfig = RoundsConfig()
    audit: AuditConfig = AuditConfig()
    witnesses: int = Field(1, ge=1, le=16, description="k: co-signers of a receipt")
    unit_price_amount: str = Field(
        "0", pattern=r"^[0-9]{1,38}$", description="reward of a unit in the token's base unit"
    )

    @model_validator(mode="after")
    def _moments_decay(self) -> "RunConfig":
        # bf16 moments with a boundary after every few steps would never decay (PROTOCOL §4)
        if self.inner.optimizer == "adamw" and self.inner.steps_per_unit * (1 - self.inner.betas[1]) < 0.005:
            raise ValueError(
                "inner.steps_per_unit × (1 − inner.betas[1]) must be at least 0.005; take more steps or a smaller beta"
            )
        if self.inner.warmup_units >= self.inner.total_units:
            raise ValueError("inner.warmup_units must be below inner.total_units")
        vocabulary = self.model.fields.get("vocab_size", ByteTokenizer().vocabulary)
        if not isinstance(vocabulary, int) or vocabulary < self.data.tokenizer.vocabulary:
            raise ValueError(
                f"model.fields.vocab_size must be a whole number of at least {self.data.tokenizer.vocabulary}, "
                "the size of data.tokenizer"
            )
        return self

    @property
    def run_id(self) -> bytes:
        """keccak-256 of the canonical JSON; 32 bytes."""
        return keccak256(canonical_json(self.model_dump(mode="json")))

    @property
    def unit_price(self) -> int:
        return int(self.unit_price_amount)

    @classmethod
    def parse(cls, values: dict[str, Any], source: str = "run config") -> "RunConfig":
        """From plain values; InputError names the field, the value and what it must be."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise InputError(
                    f"{source}: {where}", first.get("input"), "unknown key; remove it or check its spelling"
                ) from None
            shown = first.get("input") if where else "…"
            raise InputError(f"{source}: {where or 'run'}", shown, first["msg"]) from None


def load_run(path: Path) -> RunConfig:
    """Read `run.toml`. InputError in one line: missing, not TOML, unknown key, value out of range."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "run config", str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError("run config", str(path), f"is not TOML: {error}") from None
    return RunConfig.parse(values, path.name)


def dump_run(config: RunConfig, path: Path) -> None:
    """Write `run.toml`; `load_run` gives an equal config with the same run id."""
    path.write_text(tomli_w.dumps(config.model_dump(mode="json")))
