"""What the contracts say, as frozen records. No web3 here: reading them is `incentives.chain.node`'s."""

from dataclasses import dataclass
from typing import Any

from incentives.chain.terms import Terms, registry_address
from incentives.errors import TamperedError
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
    epochs_per_day: int
    units_per_epoch: int
    amount_per_day: int
    started_at: int
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
            values["epochsPerDay"],
            values["unitsPerEpoch"],
            values["amountPerDay"],
            values["startedAt"],
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
        """What later periods can still release."""
        return self.funded_amount - self.released_amount

    @property
    def budget_amount(self) -> int:
        """What the next period may release: of what is available no more than a day's amount."""
        return min(self.available_amount, self.amount_per_day)

    @property
    def newest_epoch_allowed(self) -> int:
        """The last epoch that a period may end with now, by the contract's age."""
        return self.epochs_per_day * (self.block_time - self.started_at + 86400) // 86400

    @property
    def terms(self) -> Terms:
        """What the contract says that it was made with."""
        return Terms(
            self.token,
            self.run_id,
            self.organiser,
            self.unit_price_amount,
            self.window_seconds,
            self.epochs_per_day,
            self.units_per_epoch,
            self.amount_per_day,
        )

    def check(self) -> None:
        """TamperedError where this is no Settlement of this version, or its terms or its registry are not those that it says: its
        address is the hash of its code and its terms, so whoever lies about them (the contract, or the node) is found out."""
        if self.registry != registry_address() or self.terms.settlement != self.settlement:
            raise TamperedError(
                f"what the node shows at {to_checksum(self.settlement)} is no Settlement of this version, or its terms are others than "
                "shown: its address would be another one; send nothing there. Ask another node, and the organiser which version made it"
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
