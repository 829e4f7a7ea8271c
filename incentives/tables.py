"""The three tables of a period, their leaves, and the one file that publishes them (protocol §8.3, docs/decisions/0002).

The file is canonical JSON; its keccak-256 is on chain. Numbers wider than 32 bits are decimal strings in it, bytes are
lower-case hex with 0x. Whoever has the file rebuilds the trees, every proof and every sum with no other source.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from incentives import merkle
from incentives.commitments import is_ascending
from incentives.errors import TamperedError
from incentives.hashing import keccak
from incentives.jsonform import HexAddress, HexHash, Uint32, canonical, first_fault, to_hex
from incentives.records import packer

LEAST_RECEIPT_ROW_BYTES = 2 + 44 + 2 * 68 + 3 * 3 + 1 + 6  # brackets, hex, numbers of a digit, commas
FORMAT = "sparehive-tables-1"
RECEIPTS_BEGIN = b'],"receipts":['  # after the payouts
_BATCH = (
    4096  # rows that are turned into JSON, or back, at once: a period of any size takes little memory beside its rows
)
_BATCH_BYTES = 1 << 20


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
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The published file in pieces of at most some megabytes; the names stand in their canonical order. TamperedError as
        `to_bytes`, before the first piece."""
        check(self)
        values: dict[str, Any] = {
            "budget_amount": str(self.budget_amount),
            "certificates": self.certificates,
            "chain_id": str(self.chain_id),
            "format": FORMAT,
            "from_epoch": str(self.from_epoch),
            "payouts": self.payouts,
            "receipts": self.receipts,
            "run_id": to_hex(self.run_id),
            "settlement": to_hex(self.settlement),
            "to_epoch": str(self.to_epoch),
            "unit_price_amount": str(self.unit_price_amount),
        }
        before = b"{"
        for name, value in values.items():
            yield before + canonical(name) + b":"
            before = b","
            if isinstance(value, tuple):
                yield from _json_rows(value)
            else:
                yield canonical(value)
        yield b"}"

    def hash(self) -> bytes:
        """What the chain holds: `tables_hash` of the published file."""
        state = keccak.new(b"")
        for chunk in self.chunks():
            state.update(chunk)
        return bytes(state.digest())


def tables_hash(data: bytes) -> bytes:
    """What the chain holds of a published file: keccak-256 of its bytes."""
    return bytes(keccak(data))


def leaf_of(row: Row) -> bytes:
    """keccak(keccak(abi.encode(uint8 kind, the row's fields)))."""
    shape = _SHAPES[type(row)]
    return merkle.hash_words(shape.pack((row.KIND, *shape.values(row))))


def row_bytes(row: Row) -> int:
    """How many a row takes in the published file, with what parts it from the next."""
    shape = _SHAPES[type(row)]
    digits = sum(len(str(value)) for value, fixed in zip(shape.values(row), shape.fixed, strict=True) if not fixed)
    return shape.frame_bytes + digits


def tree_of(rows: Sequence[Row]) -> merkle.Tree:
    return merkle.build([leaf_of(row) for row in rows])


def signatures_hash(signatures: Iterable[bytes]) -> bytes:
    """keccak of the packed 65-byte signatures. Of a certificate: ascending by signer. Of a receipt: the peer's own,
    then those of its drawn witnesses ascending by witness, so that a contract can tell them apart by order alone."""
    return bytes(keccak(b"".join(signatures)))


_Decimal = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,77})$")]


_CertificateItem = tuple[_Decimal, HexHash, HexHash]
_ReceiptItem = tuple[HexAddress, _Decimal, Uint32, _Decimal, _Decimal, HexHash, HexHash]
_PayoutItem = tuple[HexAddress, _Decimal, _Decimal, _Decimal, _Decimal, _Decimal]


class _Shape:
    """How the rows of one table are read, packed and written."""

    def __init__(self, row_type: Any, item: Any) -> None:
        names = [field.name for field in fields(row_type)]
        self.make: Callable[..., Any] = row_type
        self.names, self.types = names, row_type.TYPES
        self.values: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
        self.pack = packer(("uint8", *row_type.TYPES), ("kind", *names))
        self.to_json = [_TO_JSON.get(type_, str) for type_ in row_type.TYPES]
        self.of_json = [_OF_JSON.get(type_, int) for type_ in row_type.TYPES]
        self.fixed = [type_ in _TEXT_BYTES for type_ in row_type.TYPES]
        quotes = sum(2 for type_ in row_type.TYPES if type_ not in _TEXT_BYTES and type_ not in _TO_JSON)
        # brackets, what parts the values, and the row from the next; then the values that are equally long in all rows
        self.frame_bytes = 2 + len(names) + quotes + sum(_TEXT_BYTES.get(type_, 0) for type_ in row_type.TYPES)
        self.items: TypeAdapter[list[Any]] = TypeAdapter(list[item], config=ConfigDict(strict=True))

    def parse(self, items: Iterable[Sequence[str | int]]) -> Iterator[Any]:
        for item in items:
            yield self.make(*[convert(value) for convert, value in zip(self.of_json, item, strict=True)])


_TEXT_BYTES = {"address": 44, "bytes32": 68}  # hex, 0x and quotes
_TO_JSON: dict[str, Callable[[Any], Any]] = {"address": to_hex, "bytes32": to_hex, "uint32": int}
_OF_JSON: dict[str, Callable[[Any], Any]] = {
    "address": lambda text: bytes.fromhex(text[2:]),
    "bytes32": lambda text: bytes.fromhex(text[2:]),
}
_SHAPES: dict[type, _Shape] = {
    CertificateRow: _Shape(CertificateRow, _CertificateItem),
    ReceiptRow: _Shape(ReceiptRow, _ReceiptItem),
    PayoutRow: _Shape(PayoutRow, _PayoutItem),
}


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
    certificates: list[_CertificateItem]
    receipts: list[_ReceiptItem]
    payouts: list[_PayoutItem]


def parse_tables(data: bytes) -> Tables:
    """The tables in a published file. TamperedError for unknown keys, another spelling, order, duplicates or sums."""
    try:
        model, certificates, payouts, receipts = _parse_in_batches(data)
    except ValueError:  # not as `chunks` writes it: read at once, to say what is wrong
        try:
            model = _TablesModel.model_validate_json(data)
        except ValidationError as error:
            raise TamperedError(f"tables: {first_fault(error)}") from None
        certificates = _rows_of(CertificateRow, [model.certificates])
        payouts, receipts = _rows_of(PayoutRow, [model.payouts]), _rows_of(ReceiptRow, [model.receipts])
    tables = Tables(
        bytes.fromhex(model.run_id[2:]),
        int(model.chain_id),
        bytes.fromhex(model.settlement[2:]),
        int(model.from_epoch),
        int(model.to_epoch),
        int(model.budget_amount),
        int(model.unit_price_amount),
        certificates,
        receipts,
        payouts,
    )
    at = 0
    for chunk in tables.chunks():
        if data[at : at + len(chunk)] != chunk:
            break
        at += len(chunk)
    if at != len(data):
        raise TamperedError("tables: not canonical JSON (RFC 8785); fetch the file again")
    return tables


def parse_payouts(data: bytes) -> tuple[PayoutRow, ...]:
    """The payout rows alone, of a file that may be cut off after them: what a claim needs, whose root on chain says whether they
    are true. TamperedError where they are not there."""
    try:
        start, end = _section(data, b'"payouts":[', RECEIPTS_BEGIN)
        rows = _rows_of(PayoutRow, _items(PayoutRow, data, start, end))
    except ValueError:
        raise TamperedError("tables: not canonical JSON (RFC 8785); fetch the file again") from None
    if not is_ascending([row.account for row in rows]):
        raise TamperedError("tables: payouts are not strictly ascending by account")
    return rows


def _parse_in_batches(
    data: bytes,
) -> tuple[_TablesModel, tuple[CertificateRow, ...], tuple[PayoutRow, ...], tuple[ReceiptRow, ...]]:
    """All but the rows, and the three tables. ValueError where it is not spelled as `Tables.chunks` spells it."""
    certificates = _section(data, b'"certificates":[', b'],"chain_id":')
    payouts = _section(data, b'"payouts":[', RECEIPTS_BEGIN, certificates[1])
    receipts = _section(data, b'"receipts":[', b'],"run_id":', payouts[1])
    rest = (
        data[: certificates[0]]
        + data[certificates[1] : payouts[0]]
        + data[payouts[1] : receipts[0]]
        + data[receipts[1] :]
    )
    return (
        _TablesModel.model_validate_json(rest),
        _rows_of(CertificateRow, _items(CertificateRow, data, *certificates)),
        _rows_of(PayoutRow, _items(PayoutRow, data, *payouts)),
        _rows_of(ReceiptRow, _items(ReceiptRow, data, *receipts)),
    )


def _section(data: bytes, begin: bytes, end: bytes, at: int = 0) -> tuple[int, int]:
    """Between the two marks. ValueError where they are not there."""
    start = data.index(begin, at) + len(begin)
    return start, data.index(end, start - 1) if data[start : start + 1] != b"]" else start


def _items(row_type: type, data: bytes, start: int, end: int) -> Iterator[list[Any]]:
    while start < end:
        cut = data.find(b"],[", start + _BATCH_BYTES, end)
        stop = end if cut < 0 else cut + 1
        yield _SHAPES[row_type].items.validate_json(b"[" + data[start:stop] + b"]")
        start = stop + 1


def _rows_of(row_type: type[AnyRow], batches: Iterable[Iterable[Any]]) -> tuple[AnyRow, ...]:
    return tuple(row for batch in batches for row in _SHAPES[row_type].parse(batch))


def check(tables: Tables) -> None:
    """TamperedError where ranges, order, epochs or running sums are wrong. What is owed: `rewards.check_payouts`."""
    if tables.from_epoch >= tables.to_epoch:
        raise TamperedError(f"tables: period ({tables.from_epoch}, {tables.to_epoch}] has no epoch")
    for rows in (tables.certificates, tables.receipts, tables.payouts):
        _check_ranges(rows)
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


def _check_ranges(rows: Sequence[Row]) -> None:
    if not rows:
        return
    shape = _SHAPES[type(rows[0])]
    for name, type_ in zip(shape.names, shape.types, strict=True):
        if type_.startswith("uint"):
            column, bound = attrgetter(name), 1 << int(type_.removeprefix("uint"))
            wrong = next((value for value in map(column, rows) if not 0 <= value < bound), None)
            if wrong is not None:
                raise TamperedError(f"tables: {name} = {wrong} is no {type_}")


def _json_rows(rows: Sequence[Row]) -> Iterator[bytes]:
    before = b"["
    for start in range(0, len(rows), _BATCH):
        shape = _SHAPES[type(rows[0])]
        batch = [
            [convert(value) for convert, value in zip(shape.to_json, shape.values(row), strict=True)]
            for row in rows[start : start + _BATCH]
        ]
        yield before + canonical(batch)[1:-1]
        before = b","
    yield b"]" if rows else b"[]"
