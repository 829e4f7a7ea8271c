"""What the contracts say, as frozen records. No web3 here: reading them is `incentives.chain.node`'s."""

from dataclasses import dataclass
from typing import Any

from incentives.keys import parse_address, to_checksum
from incentives.tables import PayoutRow


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
class ProvenPayout:
    """A payout row with its place and proof in the newest final payout tree."""

    row: PayoutRow
    index: int
    proof: tuple[bytes, ...]

    def arguments(self) -> tuple[tuple[object, ...], int, list[bytes]]:
        row = self.row
        amounts = (row.cum_earned, row.cum_forfeited, row.cum_withheld, row.cum_claimable)
        return (to_checksum(row.account), row.cum_units, *amounts), self.index, list(self.proof)
