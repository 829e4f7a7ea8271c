"""The period that `settle` proposes next, from one peer's ledger: where it ends and why, and how it is shown."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from incentives.chain.state import RunState
from incentives.checks import Judge, judge_signature
from incentives.closing import Closed, PayRules, close_period, has_ended
from incentives.errors import InFlight, InputError, NoWork
from incentives.extent import (
    EPOCHS_ON_THEIR_WAY,
    STORAGE_EPOCHS_ON_THEIR_WAY,
    FileLimits,
    last_epoch_allowed,
    last_epoch_readable,
    likely_end,
)
from incentives.judging import newest_epoch
from incentives.ledger import Ledger
from incentives.publication import publish
from peers.cli.options import address, keep_option, kept_option
from peers.cli.places import copies_of, read_rules
from peers.directory import PeerDirectory

if TYPE_CHECKING:
    from incentives.chain.node import Chain

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Extent:
    """--to-epoch, --to-newest and --max-file-bytes. `to_epoch`: None where nobody says it; else it alone counts."""

    to_epoch: int | None = None
    to_newest: bool = False
    limits: FileLimits = field(default_factory=FileLimits)


def _extent(context: click.Context, parameter: click.Parameter, to_epoch: int | None) -> Extent:
    return Extent(
        to_epoch, bool(kept_option(context, "to_newest")), FileLimits.of(kept_option(context, "max_file_bytes"))
    )


def extent_options(command: Command) -> Command:
    """--to-epoch, with what belongs to it: `Extent`."""
    own: dict[str, Any] = {"is_eager": True, "expose_value": False, "callback": keep_option}
    command = click.option(
        "--max-file-bytes",
        type=click.IntRange(1),
        help="End the period where one of its files would be larger (default: what readers take, 64 MiB of tables, 256 of evidence).",
        **own,
    )(command)
    command = click.option(
        "--to-newest",
        is_flag=True,
        help="Take the newest epoch too, whose receipts may still be on their way: at the end of a run.",
        **own,
    )(command)
    return click.option(
        "--to-epoch",
        "extent",
        type=click.IntRange(1),
        callback=_extent,
        help="Last epoch of the period (default: the last but one that is certified; the last when the run has ended).",
    )(command)


@dataclass(frozen=True)
class ToSettle:
    """The choices of one `settle`, as its options give them."""

    directory: Path | None
    tables: Path
    invite: str | None
    uri: str
    extent: Extent
    finalise: bool
    replace: bool
    judge: Judge = judge_signature
    of_storage: bool = False


@dataclass(frozen=True)
class Next:
    """A period as the ledger gives it. `left`: certified epochs after it; `why`: what ends it before them."""

    closed: Closed
    left: int
    why: str

    def lines(self) -> list[str]:
        """For people."""
        return [f"{self.left} epochs are left for the next period: {self.why}"] if self.left > 0 and self.why else []


_Close: TypeAlias = Callable[[Ledger, int | None], Closed]
_TOO_LARGE = "with them a file would be larger than readers take, or --max-file-bytes"
AFTER_THE_END_SECONDS = 180.0  # peers wait a minute for each other's signatures, then they leave
_STORAGE_ON_THEIR_WAY = "receipts of the three newest epochs may still be on their way (--to-newest takes them)"
_ON_THEIR_WAY = "receipts of the newest epoch may still be on their way (--to-newest takes it)"


def close_next(chain: "Chain", state: RunState, what: ToSettle) -> Next:
    """As far as was asked, and as terms and limits allow. InFlight where that is nothing yet; InputError where --to-epoch names too much;
    else as `close_period`."""
    extent, rules = what.extent, _rules(what)
    close = _closing(chain, state, what)
    with _ledger(what) as ledger:
        newest, end, why = newest_epoch(ledger), extent.to_epoch, ""
        if end is None and not extent.to_newest and newest and not _is_complete(ledger, rules):
            on_their_way = EPOCHS_ON_THEIR_WAY if rules.storage is None else STORAGE_EPOCHS_ON_THEIR_WAY
            end, why = newest - on_their_way, _ON_THEIR_WAY if rules.storage is None else _STORAGE_ON_THEIR_WAY
            if end <= state.settled_epoch < newest:
                raise InFlight("--to-epoch", newest, f"is the newest: {why}")
        try:
            closed, why = _first_try(ledger, state, extent, end, why, close)
        except NoWork as error:
            raise NoWork(error.field, error.value, "; ".join(filter(None, (error.remedy, why)))) from None
        readable, allowed = last_epoch_readable(closed, extent.limits), last_epoch_allowed(closed, state)
        if extent.to_epoch is not None:
            if readable < closed.tables.to_epoch:
                raise InputError(
                    "--to-epoch", extent.to_epoch, f"{_TOO_LARGE}: give {readable} at most, or leave it out"
                )
        elif min(readable, allowed) < closed.tables.to_epoch:
            why = "the run's terms allow no more now" if allowed <= readable else _TOO_LARGE
            closed = close(ledger, min(readable, allowed))
    return Next(closed, newest - closed.tables.to_epoch, why)


def _is_complete(ledger: Ledger, rules: PayRules) -> bool:
    """Whether nothing more can come: the run has ended, and who was in it has left."""
    return ledger.seconds_since_written() >= AFTER_THE_END_SECONDS and has_ended(ledger, rules)


def _first_try(
    ledger: Ledger, state: RunState, extent: Extent, end: int | None, why: str, close: _Close
) -> tuple[Closed, str]:
    """Up to `end`, or where that is surely too much for a file up to some epoch before it; and why there."""
    tip, likely = ledger.tip(), None
    if tip is not None and extent.to_epoch is None:
        likely = likely_end(ledger.lineage(tip, state.settled_epoch, end), extent.limits)
    if likely is not None:
        try:
            return close(ledger, likely), _TOO_LARGE
        except NoWork:  # those who contribute there are not paid: who comes after them may be
            pass
    return close(ledger, end), why


def close_proposed(chain: "Chain", state: RunState, what: ToSettle, to_epoch: int) -> Closed:
    """What the ledger gives for the epochs of a proposal that is under way."""
    with _ledger(what) as ledger:
        return _closing(chain, state, what)(ledger, to_epoch)


def _ledger(what: ToSettle) -> Ledger:
    assert what.directory is not None
    return Ledger.read(PeerDirectory(what.directory).ledger)


def _rules(what: ToSettle) -> PayRules:
    rules = read_rules(what.invite, what.directory, what.of_storage)
    if rules is None:
        raise InputError("--dir", str(what.directory), "holds no invite; give the run's with --invite")
    return rules


def _closing(chain: "Chain", state: RunState, what: ToSettle) -> _Close:
    """Closes up to an epoch. Tables of the period before that are lost are found again, and put back."""
    rules = _rules(what)
    copies = copies_of(chain, state.settlement, what.tables, what.directory, what.invite, what.of_storage)
    copies.keep = partial(publish, what.tables)
    previous = copies.of(state, state.last).tables if state.last else None
    return lambda ledger, to_epoch: close_period(ledger, rules, state, previous, to_epoch, judge=what.judge)


def described(closed: Closed, path: Path | None, ready_at: int | None) -> dict[str, Any]:
    """For programs. `path`: of the tables; `ready_at`: unix seconds; None: not known."""
    return {
        "number": closed.proposal.number,
        "from_epoch": closed.tables.from_epoch,
        "to_epoch": closed.tables.to_epoch,
        "certificates": closed.proposal.certificates_count,
        "receipts": closed.proposal.receipts_count,
        "payouts": closed.proposal.payouts_count,
        "units": closed.tables.total_units,
        "amount": str(closed.payment.paid_amount),
        "tables": None if path is None else str(path),
        "tables_hash": "0x" + closed.proposal.tables_hash.hex(),
        "ready_at": ready_at,
        "final": False,
        "left_out": [
            {
                "account": address(each.account),
                "epoch": each.epoch,
                "units": each.units,
                "reason": each.reason,
                "may_still_come": each.may_still_come,
            }
            for each in closed.left_out
        ],
    }


__all__ = ["Extent", "Next", "ToSettle", "close_next", "close_proposed", "described", "extent_options"]
