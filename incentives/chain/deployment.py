"""Where a run's contracts are, and on what terms: chain.json. It proves itself: the address is the hash of the terms."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from incentives.amounts import MAX_DECIMALS, Unit
from incentives.atomic import write_new
from incentives.chain.terms import Terms, registry_address
from incentives.errors import InputError, StorageError, disk_remedy
from incentives.jsonform import HexHash, first_fault, from_hex, to_hex
from incentives.keys import parse_address, to_checksum

_DESCRIPTION, _RESTORE = "chain description", "restore it from a copy"


@dataclass(frozen=True, slots=True)
class Deployment:
    """On which chain a run is paid, and on what terms: the content of chain.json, which `sparehive run deploy` writes. `unit`: what the
    token said of itself then, for who shows amounts and asks no node; None in files that do not have it."""

    chain_id: int
    terms: Terms
    unit: Unit | None = None

    @property
    def settlement(self) -> bytes:
        return self.terms.settlement

    @property
    def run_id(self) -> bytes:
        return self.terms.run_id

    def json_value(self) -> dict[str, str | int | None]:
        """As it stands in chain.json."""
        terms = self.terms
        unit = {} if self.unit is None else self.unit.json_value()
        return {
            "chain_id": self.chain_id,
            "settlement": to_checksum(self.settlement),
            "registry": to_checksum(registry_address()),
            "token": to_checksum(terms.token),
            "run_id": to_hex(terms.run_id),
            "organiser": to_checksum(terms.organiser),
            "unit_price_amount": str(terms.unit_price_amount),
            "window_seconds": terms.window_seconds,
            "epochs_per_day": str(terms.epochs_per_day),
            "units_per_epoch": str(terms.units_per_epoch),
            "amount_per_day": str(terms.amount_per_day),
            **unit,
        }

    def write(self, path: Path) -> None:
        """StorageError where the file exists (a run has one settlement) or cannot be written."""
        data = (json.dumps(self.json_value(), indent=1) + "\n").encode()
        try:
            write_new(path, data, draft=path.with_name(f".{path.name}.part"))
        except FileExistsError:
            raise StorageError(f"{path} exists: this run is deployed already; move the file away first") from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}: {disk_remedy(error)}") from None

    @classmethod
    def read(cls, path: Path) -> "Deployment":
        """From chain.json. InputError: missing, malformed, an unknown key, or an address that is not that of its terms."""
        try:
            model = _DeploymentModel.model_validate_json(path.read_bytes())
            found = cls(model.chain_id, model.terms(), model.unit())
            named = tuple(map(parse_address, (model.settlement, model.registry)))
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
            raise InputError(
                _DESCRIPTION, str(path), f"{why}; `sparehive run deploy` writes it: restore it if it did"
            ) from None
        except ValidationError as error:
            raise InputError(_DESCRIPTION, str(path), f"{first_fault(error)}; {_RESTORE}") from None
        except InputError as error:
            raise InputError(_DESCRIPTION, str(path), f"{error}; {_RESTORE}") from None
        if named != (found.settlement, registry_address()):
            made = f"a Settlement of this version with its terms stands at {to_checksum(found.settlement)}"
            why = f"{made}, and it names {model.settlement}: it was changed, or is of another version"
            raise InputError(_DESCRIPTION, str(path), f"{why}; {_RESTORE}")
        return found


_Amount = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,38})$")]


class _DeploymentModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chain_id: Annotated[int, Field(gt=0)]
    settlement: str
    registry: str
    token: str
    run_id: HexHash
    organiser: str
    unit_price_amount: _Amount
    window_seconds: Annotated[int, Field(gt=0, lt=1 << 32)]
    epochs_per_day: _Amount
    units_per_epoch: _Amount
    amount_per_day: _Amount
    token_symbol: str | None = None
    token_decimals: Annotated[int, Field(ge=0, le=MAX_DECIMALS)] | None = None

    def unit(self) -> Unit | None:
        return None if self.token_symbol is None else Unit.of(self.token_symbol, self.token_decimals)

    def terms(self) -> Terms:
        amounts = map(int, (self.epochs_per_day, self.units_per_epoch, self.amount_per_day))
        return Terms(
            parse_address(self.token),
            from_hex(self.run_id),
            parse_address(self.organiser),
            int(self.unit_price_amount),
            self.window_seconds,
            *amounts,
        )


__all__ = ["Deployment"]
