"""RunConfig (`run.toml`): what everybody in a run agrees on. Its hash is the run's id; no addresses, no hosts.

Changing any value makes another run. Canonical JSON (RFC 8785) of all fields → keccak-256 = `run_id` (protocol §2.6).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from swarm.config.causal_lm import CausalLMConfig
from swarm.config.chat import ChatConfig
from swarm.config.fields import MAX_COUNT, Part, Refusal, of_known_kind
from swarm.config.image_classification import ImageClassificationConfig
from swarm.config.storage import StorageConfig
from swarm.config.text_classification import TextClassificationConfig
from swarm.errors import InputError
from swarm.hashing import canonical_json, keccak256
from swarm.toml import parse_toml
from swarm.wanted import wanted

MAX_SECONDS = 30 * 24 * 3600.0
MAX_UNIT_SAMPLES = 1 << 20
MAX_PARTS = 65_536  # of a model
BF16_TOLERANCE = 6.0  # measured: decision 0020


Beta = Annotated[float, Field(ge=0, lt=1)]
Seconds = Annotated[float, Field(ge=0.01, le=MAX_SECONDS)]


class InnerConfig(Part):
    optimizer: Literal["adamw", "adamw8bit", "muon", "sgd"] = "adamw"
    lr: float = Field(3e-3, gt=0, le=100)
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), strict=False)  # TOML and JSON have lists
    weight_decay: float = Field(0.1, ge=0, le=10)
    clip_norm: float = Field(1.0, gt=0, le=1e12)
    batch_size: int = Field(8, ge=1, le=65536, description="samples per inner step")
    steps_per_unit: int = Field(5, ge=1, le=65536, description="inner steps of one unit")
    warmup_units: int = Field(20, ge=0, le=MAX_COUNT, description="of the whole swarm")
    total_units: int = Field(
        100_000, ge=1, le=MAX_COUNT, description="units of the whole swarm at which the learning rate reaches zero"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="of the products in a task's loss and gradient; weights, gradients, moments and averages are fp32",
    )

    @model_serializer(mode="wrap")
    def _as_before_precision(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What stands for what there was before the field is not written: runs from before keep their ids (decision 0020)."""
        values: dict[str, Any] = written(self)
        if self.precision == "fp32":
            del values["precision"]
        return values


class OuterConfig(Part):
    lr: float = Field(0.7, gt=0, le=100)
    momentum: float = Field(0.7, ge=0, lt=1)
    momentum_ramp_rounds: int = Field(20, ge=0, le=MAX_COUNT)


class CodecConfig(Part):
    contribution: Literal["int8", "int4", "int2", "float32"] = "int4"
    average: Literal["int8", "int4", "float32"] = "int8"
    part_values: int = Field(262_144, ge=256, le=1 << 20, multiple_of=256, description="parameters per part")

    @model_validator(mode="after")
    def _fits_a_frame(self) -> "CodecConfig":
        if "float32" in (self.contribution, self.average) and self.part_values > 1 << 19:
            which = "contribution" if self.contribution == "float32" else "average"
            raise Refusal(
                f"codec.{which}",
                "float32",
                f"a part travels in one frame: codec.part_values = {self.part_values} must be at most 524288 with it",
            )
        return self


class RoundsConfig(Part):
    units_per_epoch: int = Field(8, ge=1, le=1_000_000, description="units of the whole swarm after which it averages")
    max_units_per_contribution: int = Field(64, ge=1, le=65535)
    epoch_deadline_seconds: Seconds = 300.0
    contribute_seconds: Seconds = Field(10.0, description="from the call to the last part")
    average_seconds: Seconds = 10.0
    vote_seconds: Seconds = 5.0
    stall_seconds: Seconds = Field(60.0, description="without a certificate: ready peers seat themselves anew")
    max_attempts: int = Field(4, ge=2, le=64, description="then the epoch is void")
    max_reducers: int = Field(16, ge=2, le=64, description="a lone reducer's own contribution would have no witness")
    min_seated: int = Field(2, ge=1, le=64, description="ready peers that the founders wait for")
    recheck_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="of the parts, averaged by a second reducer as well, from 4 contributors on; 0: none",
    )


class AuditConfig(Part):
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
        le=int(MAX_SECONDS),
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


class AdmissionConfig(Part):
    """What a stranger shows before it is heard beyond its hello."""

    stamp_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="work of one core for a stamp of a newcomer's, good for a day; 0: none is asked for",
    )


# Each kind of task owns its part, a union by `kind` itself where there is a choice: a new kind or variant leaves the bytes of all others.
TaskConfig = Annotated[
    Union[CausalLMConfig, ChatConfig, TextClassificationConfig, ImageClassificationConfig],
    Field(discriminator="kind"),
    BeforeValidator(of_known_kind("task", "causal_lm", "chat", "text_classification", "image_classification")),
]
_MOVED = ("data", "model")  # tables of version 2 that belong into task


class Organiser(Part):
    """Who proposes what is paid, where that is not the key that signs invites: a contract wallet cannot sign what peers check with no
    node at hand (decision 0030)."""

    wallet: str = Field(pattern=r"^[0-9a-f]{40}$", description="organiser of the settlement: a Safe, say")
    invites: str = Field(pattern=r"^[0-9a-f]{40}$", description="account of the key that signs invites")


class RunConfig(Part):
    """One training effort."""

    version: Literal[3] = 3
    name: str = Field(min_length=1, max_length=64)
    task: TaskConfig
    initial_root: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the root CID of the initial anchor")
    inner: InnerConfig = InnerConfig()
    outer: OuterConfig = OuterConfig()
    codec: CodecConfig = CodecConfig()
    rounds: RoundsConfig = RoundsConfig()
    audit: AuditConfig = AuditConfig()
    admission: AdmissionConfig = AdmissionConfig()
    witnesses: int = Field(1, ge=1, le=16, description="k: co-signers of a receipt")
    unit_price_amount: str = Field(
        "0", pattern=r"^[0-9]{1,38}$", description="reward of a unit in the token's base unit"
    )
    organiser: Organiser | None = Field(
        None, description="who signs invites and who proposes periods, where these are two"
    )
    storage: StorageConfig | None = Field(None, description="what the run pays people to store")

    @model_serializer(mode="wrap")
    def _as_before_these_tables(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Not written where one key signs and proposes, or nobody is paid for storing: such runs keep the ids that they had before there
        were these tables."""
        values: dict[str, Any] = written(self)
        for table in ("organiser", "storage"):
            if values[table] is None:
                del values[table]
        return values

    @field_validator("name")
    @classmethod
    def _fit_for_every_terminal(cls, name: str) -> str:
        if not name.isprintable():
            raise Refusal("name", name, "must be printable: no line ends, no control characters")
        return name

    @field_validator("version", mode="before")
    @classmethod
    def _readable(cls, version: Any) -> Any:
        if version != 3 or isinstance(version, bool):
            raise Refusal(
                "version", version, "this Sparehive reads version 3: make the run again, or ask for a new invite"
            )
        return version

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        inner = self.inner
        # bf16 moments with a boundary after every few steps would never decay (protocol §4.3)
        if inner.optimizer in ("adamw", "muon") and inner.steps_per_unit * (1 - inner.betas[1]) < 0.005:
            raise Refusal(
                "inner.betas",
                inner.betas,
                f"inner.steps_per_unit × (1 − inner.betas[1]) must be at least 0.005 with inner.optimizer = {inner.optimizer!r}; "
                f"take more steps than {inner.steps_per_unit}, or a smaller second beta",
            )
        if inner.warmup_units >= inner.total_units:
            raise Refusal(
                "inner.warmup_units", inner.warmup_units, f"must be below inner.total_units = {inner.total_units}"
            )
        if inner.precision == "bf16" and self.audit.tolerance < BF16_TOLERANCE:
            raise Refusal(
                "audit.tolerance",
                self.audit.tolerance,
                f'must be at least {BF16_TOLERANCE:.0f} with inner.precision = "bf16": on another machine honest work comes out up to '
                f"that far apart; --set audit.tolerance={BF16_TOLERANCE:.0f}",
            )
        if inner.batch_size * inner.steps_per_unit > MAX_UNIT_SAMPLES:
            raise Refusal(
                "inner.batch_size",
                inner.batch_size,
                f"a unit has inner.batch_size × inner.steps_per_unit samples, at most {MAX_UNIT_SAMPLES}",
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
            found = error.errors()
            first = min(found, key=lambda each: each["type"] == "missing")  # what is wrong before what is missing
            refusal = first.get("ctx", {}).get("error")
            if isinstance(refusal, Refusal):
                raise InputError(f"{source}: {refusal.field}", refusal.value, refusal.remedy) from None
            where = ".".join(_without_kinds(first["loc"]))
            if first["type"] == "missing":
                raise InputError(
                    f"{source}: {where}", None, "is missing: write it, or restore the file from a copy"
                ) from None
            if where in _MOVED:
                raise InputError(
                    f"{source}: {where}", first.get("input"), f"belongs into the task: write task.{where}"
                ) from None
            if first["type"] == "extra_forbidden":
                raise InputError(
                    f"{source}: {where}", first.get("input"), "unknown key; remove it or check its spelling"
                ) from None
            remedy = f"{wanted(first)}; write another value"
            raise InputError(f"{source}: {where or 'run'}", first.get("input"), remedy) from None


def _without_kinds(location: tuple[int | str, ...]) -> list[str]:
    """The path of a value in run.toml: pydantic puts a union's kind behind the name of its field."""
    path: list[str] = []
    table: type[BaseModel] | None = RunConfig
    names = iter([str(part) for part in location])
    for name in names:
        path.append(name)
        field = None if table is None else table.model_fields.get(name)
        tables = [] if field is None else [t for t in get_args(field.annotation) or (field.annotation,) if _is_table(t)]
        if field is not None and field.discriminator:
            kind = next(names, None)
            tables = [t for t in tables if kind in get_args(t.model_fields["kind"].annotation)]
        table = tables[0] if tables else None
    return path


def _is_table(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


_RESTORE = "restore it from a copy, for with other values it is another run"


def load_run(path: Path) -> RunConfig:
    """Read `run.toml`. InputError in one line: missing, not TOML, unknown key, value out of range."""
    try:
        values = parse_toml(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            "run config",
            str(path),
            f"is not there: give the directory that `sparehive run new` made; if it is lost {_RESTORE}",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "run config", str(path), f"cannot be read ({getattr(error, 'strerror', None) or error}); {_RESTORE}"
        ) from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and what is nested too deep
        raise InputError("run config", str(path), f"is not TOML: {error}; {_RESTORE}") from None
    return RunConfig.parse(values, path.name)


def dump_run(config: RunConfig, path: Path) -> None:
    """Write `run.toml`; `load_run` gives an equal config with the same run id."""
    path.write_text(tomli_w.dumps(config.model_dump(mode="json")), encoding="utf-8")
