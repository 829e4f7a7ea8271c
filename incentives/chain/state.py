"""What the contracts say, as frozen records, and where they are. No web3 here: reading them is `incentives.chain.node`'s."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from incentives.errors import InputError, StorageError, shorten
from incentives.keys import parse_address, to_checksum
from incentives.newfile import place_new
from incentives.tables import PayoutRow

_DESCRIPTION, _RESTORE = "chain description", "restore it from a copy"


@dataclass(frozen=True, slots=True)
class PeriodState:
    """A period as the Settlement holds it: final or proposed. `ready_at`: unix seconds; amounts in base units."""

    number: int
    to_epoch: int
    total_units: int
    ready_at: int
    certificates_root: bytes
    certificates_count: int
    receipts_root: bytes
    receipts_count: int
    payouts_root: bytes
    payouts_count: int
    amount: int
    budget_amount: int
    tables_hash: bytes

    @classmethod
    def of(cls, number: int, values: dict[str, Any]) -> "PeriodState":
        """From the contract's struct, by field name."""
        return cls(
            number,
            values["toEpoch"],
            values["totalUnits"],
            values["readyAt"],
            bytes(values["certificatesRoot"]),
            values["certificatesCount"],
            bytes(values["receiptsRoot"]),
            values["receiptsCount"],
            bytes(values["payoutsRoot"]),
            values["payoutsCount"],
            values["amount"],
            values["budget"],
            bytes(values["tablesHash"]),
        )


@dataclass(frozen=True, slots=True)
class RunState:
    """A Settlement at one block. `last`: newest final period; `pending`: the proposal under way."""

    chain_id: int
    settlement: bytes
    block: int
    block_time: int
    token: bytes
    registry: bytes
    run_id: bytes
    organiser: bytes
    unit_price_amount: int
    window_seconds: int
    funded_amount: int
    released_amount: int
    claimed_amount: int
    settled_epoch: int
    num_periods: int
    last: PeriodState | None
    pending: PeriodState | None

    @classmethod
    def of(cls, chain_id: int, settlement: bytes, block: int, block_time: int, values: dict[str, Any]) -> "RunState":
        """From the contract's `overview` at that block."""
        periods = int(values["numPeriods"])
        return cls(
            chain_id,
            settlement,
            block,
            block_time,
            parse_address(values["token"]),
            parse_address(values["registry"]),
            bytes(values["runId"]),
            parse_address(values["organiser"]),
            values["unitPrice"],
            values["window"],
            values["funded"],
            values["released"],
            values["claimed"],
            values["settledEpoch"],
            periods,
            PeriodState.of(periods - 1, values["last"]) if periods else None,
            PeriodState.of(periods, values["pending"]) if values["pending"]["readyAt"] else None,
        )

    @property
    def available_amount(self) -> int:
        """What later periods can still release: the budget of the next one."""
        return self.funded_amount - self.released_amount


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

    def write(self, path: Path) -> None:
        """StorageError where the file exists (a run has one settlement) or cannot be written."""
        value = {
            "chain_id": self.chain_id,
            "settlement": to_checksum(self.settlement),
            "registry": to_checksum(self.registry),
            "token": to_checksum(self.token),
            "run_id": "0x" + self.run_id.hex(),
            "unit_price_amount": str(self.unit_price_amount),
            "window_seconds": self.window_seconds,
            "from_block": self.from_block,
        }
        draft = path.with_name(f".{path.name}.part")  # a full disk must not leave half a description
        try:
            try:
                with open(draft, "w", encoding="utf-8") as stream:
                    stream.write(json.dumps(value, indent=1) + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                place_new(draft, path)
            finally:
                draft.unlink(missing_ok=True)
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
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "JSON"
            raise InputError(_DESCRIPTION, str(path), f"{where}: {first['msg']}; {_RESTORE}") from None
        except InputError as error:
            raise InputError(_DESCRIPTION, str(path), f"{error}; {_RESTORE}") from None
        return cls(
            model.chain_id,
            settlement,
            registry,
            token,
            bytes.fromhex(model.run_id[2:]),
            int(model.unit_price_amount),
            model.window_seconds,
            model.from_block,
        )


@dataclass(frozen=True, slots=True)
class ProvenPayout:
    """A payout row with its place and proof in the newest final payout tree."""

    row: PayoutRow
    index: int
    proof: tuple[bytes, ...]

    def arguments(self) -> tuple[tuple[object, ...], int, list[bytes]]:
        row = self.row
        amounts = (row.cum_earned, row.cum_forfeited, row.cum_withheld, row.cum_claimable)
        return (to_checksum(row.account), row.cum_units, *amounts), self.index, list(self.proof)


class _DeploymentModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chain_id: Annotated[int, Field(gt=0)]
    settlement: str
    registry: str
    token: str
    run_id: Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
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
