"""Where a run's contracts are: chain.json."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from incentives.atomic import write_new
from incentives.chain.state import RunState
from incentives.errors import InputError, StorageError, shorten
from incentives.jsonform import HexHash, first_fault, from_hex, to_hex
from incentives.keys import parse_address, to_checksum

_DESCRIPTION, _RESTORE = "chain description", "restore it from a copy"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a run's contracts are: the content of chain.json, which `sparehive run deploy` writes."""

    chain_id: int
    settlement: bytes
    registry: bytes
    token: bytes
    run_id: bytes
    unit_price_amount: int
    window_seconds: int
    from_block: int

    def json_value(self) -> dict[str, str | int]:
        """As it stands in chain.json."""
        return {
            "chain_id": self.chain_id,
            "settlement": to_checksum(self.settlement),
            "registry": to_checksum(self.registry),
            "token": to_checksum(self.token),
            "run_id": to_hex(self.run_id),
            "unit_price_amount": str(self.unit_price_amount),
            "window_seconds": self.window_seconds,
            "from_block": self.from_block,
        }

    def write(self, path: Path) -> None:
        """StorageError where the file exists (a run has one settlement) or cannot be written."""
        data = (json.dumps(self.json_value(), indent=1) + "\n").encode()
        try:
            write_new(path, data, draft=path.with_name(f".{path.name}.part"))
        except FileExistsError:
            raise StorageError(f"{path} exists: this run is deployed already; move the file away first") from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None

    @classmethod
    def read(cls, path: Path) -> "Deployment":
        """From chain.json. InputError: missing, malformed, or an unknown key."""
        try:
            model = _DeploymentModel.model_validate_json(path.read_bytes())
            settlement, registry, token = map(parse_address, (model.settlement, model.registry, model.token))
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
            raise InputError(
                _DESCRIPTION, str(path), f"{why}; `sparehive run deploy` writes it: restore it if it did"
            ) from None
        except ValidationError as error:
            raise InputError(_DESCRIPTION, str(path), f"{first_fault(error)}; {_RESTORE}") from None
        except InputError as error:
            raise InputError(_DESCRIPTION, str(path), f"{error}; {_RESTORE}") from None
        return cls(
            model.chain_id,
            settlement,
            registry,
            token,
            from_hex(model.run_id),
            int(model.unit_price_amount),
            model.window_seconds,
            model.from_block,
        )


class _DeploymentModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chain_id: Annotated[int, Field(gt=0)]
    settlement: str
    registry: str
    token: str
    run_id: HexHash
    unit_price_amount: Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,38})$")]
    window_seconds: Annotated[int, Field(gt=0, lt=1 << 32)]
    from_block: Annotated[int, Field(ge=0)]


def check_deployment(state: RunState, deployment: Deployment, path: Path) -> None:
    """InputError where the contract at that address is not what the description, read from `path`, says."""
    pairs: list[tuple[str, Any, Any]] = [
        ("registry", state.registry, deployment.registry),
        ("token", state.token, deployment.token),
        ("run_id", state.run_id, deployment.run_id),
        ("unit_price_amount", state.unit_price_amount, deployment.unit_price_amount),
        ("window_seconds", state.window_seconds, deployment.window_seconds),
    ]
    for name, found, said in pairs:
        if found != said:
            why = f"its {name} {shorten(said)} differs from the contract's, {shorten(found)}"
            raise InputError(_DESCRIPTION, str(path), f"{why}; {_RESTORE}")
