"""What every part of a run's configuration is made of: frozen, strict tables, and a refusal that names the field."""

from pydantic import BaseModel, ConfigDict, Field

MAX_COUNT = 2**53 - 1  # what canonical JSON can hold


class Refusal(ValueError):
    """A value that a rule over several fields refuses; `RunConfig.parse` makes an InputError of it."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class Part(BaseModel):
    # strict: true is no number, and "8" is no 8; every number is bounded, so that no later conversion can fail
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataFile(Part):
    size: int = Field(ge=1, le=MAX_COUNT, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
