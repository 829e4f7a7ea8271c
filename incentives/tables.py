"""The three tables of a period, their leaves, and the one file that publishes them (protocol §8.3, docs/decisions/0002).

The file is canonical JSON; its keccak-256 is on chain. Numbers wider than 32 bits are decimal strings in it, bytes are
lower-case hex with 0x. Whoever has the file rebuilds the trees, every proof and every sum with no other source.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from typing import Annotated, Any, ClassVar, TypeVar

import rfc8785
from eth_hash.auto import keccak
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from incentives import merkle
from incentives.commitments import is_ascending
from incentives.errors import TamperedError
from incentives.jsonform import HexAddress, HexHash, Uint32, first_fault, to_hex

FORMAT = "sparehive-tables-1"


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One certificate of the period, in the order of the lineage. `signatures`: see `signatures_hash`."""

    epoch: int
    certificate: bytes
    signatures: bytes

    TYPES: ClassVar[tuple[str, ...]] = ("uint64", "bytes32", "bytes32")
    KIND: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """One paid receipt, ascending by (account, epoch). Both running sums are within the period and include this row."""

    account: bytes
    epoch: int
    units: int
    account_units: int
    total_units: int
    receipt: bytes
    signatures: bytes

    TYPES: ClassVar[tuple[str, ...]] = ("address", "uint64", "uint32", "uint64", "uint64", "bytes32", "bytes32")
    KIND: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class PayoutRow:
    """What an account has been given since the run began, ascending by account. Amounts in the token's base unit."""

    account: bytes
    cum_units: int
    cum_earned: int
    cum_forfeited: int
    cum_withheld: int
    cum_claimable: int

    TYPES: ClassVar[tuple[str, ...]] = ("address", "uint64", "uint128", "uint128", "uint128", "uint128")
    KIND: ClassVar[int] = 3


Row = CertificateRow | ReceiptRow | PayoutRow
AnyRow = TypeVar("AnyRow", CertificateRow, ReceiptRow, PayoutRow)


@dataclass(frozen=True, slots=True)
class Tables:
    """One period (from_epoch, to_epoch] of one run. `budget_amount` is what the contract allowed for it."""

    run_id: bytes
    chain_id: int
    settlement: bytes
    from_epoch: int
    to_epoch: int
    budget_amount: int
    unit_price_amount: int
    certificates: tuple[CertificateRow, ...]
    receipts: tuple[ReceiptRow, ...]
    payouts: tuple[PayoutRow, ...]

    @property
    def total_units(self) -> int:
        """Units paid in this period."""
        return self.receipts[-1].total_units if self.receipts else 0

    @property
    def cum_claimable(self) -> int:
        """What all accounts together may have claimed once this period is final."""
        return sum(row.cum_claimable for row in self.payouts)

    def certificate_tree(self) -> merkle.Tree:
        return tree_of(self.certificates)

    def receipt_tree(self) -> merkle.Tree:
        return tree_of(self.receipts)

    def payout_tree(self) -> merkle.Tree:
        return tree_of(self.payouts)

    def to_bytes(self) -> bytes:
        """The published file. TamperedError where the rows break a rule of `check`."""
        check(self)
        return bytes(
            rfc8785.dumps(
                {
                    "format": FORMAT,
                    "run_id": to_hex(self.run_id),
                    "chain_id": str(self.chain_id),
                    "settlement": to_hex(self.settlement),
                    "from_epoch": str(self.from_epoch),
                    "to_epoch": str(self.to_epoch),
                    "budget_amount": str(self.budget_amount),
                    "unit_price_amount": str(self.unit_price_amount),
                    "certificates": [_json_row(row) for row in self.certificates],
                    "receipts": [_json_row(row) for row in self.receipts],
                    "payouts": [_json_row(row) for row in self.payouts],
                }
            )
        )

    def hash(self) -> bytes:
        return tables_hash(self.to_bytes())


def tables_hash(data: bytes) -> bytes:
    """What the chain holds of a published file: keccak-256 of its bytes."""
    return bytes(keccak(data))


def leaf_of(row: Row) -> bytes:
    """keccak(keccak(abi.encode(uint8 kind, the row's fields)))."""
    names = ("kind", *(field.name for field in fields(row)))
    return merkle.hash_leaf(("uint8", *row.TYPES), names, (row.KIND, *astuple(row)))


def tree_of(rows: Sequence[Row]) -> merkle.Tree:
    return merkle.build([leaf_of(row) for row in rows])


def signatures_hash(signatures: Iterable[bytes]) -> bytes:
    """keccak of the packed 65-byte signatures. Of a certificate: ascending by signer. Of a receipt: the peer's own,
    then those of its drawn witnesses ascending by witness, so that a contract can tell them apart by order alone."""
    return bytes(keccak(b"".join(signatures)))


_Decimal = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,77})$")]


class _TablesModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")]
    run_id: HexHash
    chain_id: _Decimal
    settlement: HexAddress
    from_epoch: _Decimal
    to_epoch: _Decimal
    budget_amount: _Decimal
    unit_price_amount: _Decimal
    certificates: list[tuple[_Decimal, HexHash, HexHash]]
    receipts: list[tuple[HexAddress, _Decimal, Uint32, _Decimal, _Decimal, HexHash, HexHash]]
    payouts: list[tuple[HexAddress, _Decimal, _Decimal, _Decimal, _Decimal, _Decimal]]


def parse_tables(data: bytes) -> Tables:
    """The tables in a published file. TamperedError for unknown keys, another spelling, order, duplicates or sums."""
    try:
        model = _TablesModel.model_validate_json(data)
    except ValidationError as error:
        raise TamperedError(f"tables: {first_fault(error)}") from None
    tables = Tables(
        _value(model.run_id, "bytes32"),
        int(model.chain_id),
        _value(model.settlement, "address"),
        int(model.from_epoch),
        int(model.to_epoch),
        int(model.budget_amount),
        int(model.unit_price_amount),
        _rows(CertificateRow, model.certificates),
        _rows(ReceiptRow, model.receipts),
        _rows(PayoutRow, model.payouts),
    )
    if tables.to_bytes() != data:
        raise TamperedError("tables: not canonical JSON (RFC 8785); fetch the file again")
    return tables


def check(tables: Tables) -> None:
    """TamperedError where ranges, order, epochs or running sums are wrong. What is owed: `rewards.check_payouts`."""
    if tables.from_epoch >= tables.to_epoch:
        raise TamperedError(f"tables: period ({tables.from_epoch}, {tables.to_epoch}] has no epoch")
    every: list[Row] = [*tables.certificates, *tables.receipts, *tables.payouts]
    for each in every:
        for type_, field, value in zip(each.TYPES, fields(each), astuple(each), strict=True):
            if isinstance(value, int) and not 0 <= value < 1 << int(type_.removeprefix("uint")):
                raise TamperedError(f"tables: {field.name} = {value} is no {type_}")
    epochs = [row.epoch for row in tables.certificates]
    if any(left >= right for left, right in pairwise(epochs)):
        raise TamperedError("tables: certificates are not strictly ascending by epoch")
    for epoch in (*epochs, *(row.epoch for row in tables.receipts)):
        if not tables.from_epoch < epoch <= tables.to_epoch:
            raise TamperedError(f"tables: epoch {epoch} is outside ({tables.from_epoch}, {tables.to_epoch}]")
    keys = [row.account + row.epoch.to_bytes(8, "big") for row in tables.receipts]
    if not is_ascending(keys):
        raise TamperedError("tables: receipts are not strictly ascending by (account, epoch)")
    account, account_units, total_units = b"", 0, 0
    for row in tables.receipts:
        account_units = row.units + (account_units if row.account == account else 0)
        account, total_units = row.account, total_units + row.units
        if row.units == 0 or (row.account_units, row.total_units) != (account_units, total_units):
            raise TamperedError(f"tables: running sums are wrong at 0x{account.hex()}, epoch {row.epoch}")
    if not is_ascending([row.account for row in tables.payouts]):
        raise TamperedError("tables: payouts are not strictly ascending by account")
    for payout in tables.payouts:
        if payout.cum_claimable + payout.cum_withheld + payout.cum_forfeited > payout.cum_earned:
            raise TamperedError(f"tables: 0x{payout.account.hex()} is given more than it earned")


def _json_row(row: Row) -> list[str | int]:
    out: list[str | int] = []
    for type_, value in zip(row.TYPES, astuple(row), strict=True):
        if isinstance(value, bytes):
            out.append(to_hex(value))
        else:
            out.append(value if type_ == "uint32" else str(value))
    return out


def _rows(row_type: type[AnyRow], rows: Sequence[tuple[str | int, ...]]) -> tuple[AnyRow, ...]:
    return tuple(row_type(*(_value(v, t) for v, t in zip(row, row_type.TYPES, strict=True))) for row in rows)


def _value(value: str | int, type_: str) -> Any:
    if type_ in ("address", "bytes32"):
        return bytes.fromhex(str(value)[2:])
    return int(value)
