"""What the peer in --dir says of a proposal: the warning that rewards, claim and run status share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from incentives.chain.settlement import SettlementContract
from incentives.chain.state import PeriodState, RunState
from incentives.checks import OK, Answer, Outcome, try_later
from incentives.claim import payouts_on
from incentives.errors import InputError, StorageError, TamperedError
from incentives.judging import OwnBooks
from incentives.ledger import Ledger
from incentives.shelf import Shelf
from incentives.tables import PayoutRow
from peers.cli.places import read_rules
from peers.directory import PeerDirectory
from peers.lookout import warning_text

if TYPE_CHECKING:
    from incentives.chain.node import Chain


def judge_proposal(
    chain: "Chain", state: RunState, directory: Path | None, tables: Shelf, of_storage: bool = False
) -> Outcome:
    """Whether the ledger in `directory` would make the proposal under way. OK too where there is none, or no ledger to ask."""
    rules = None if directory is None else read_rules(None, directory, of_storage)
    if directory is None or rules is None or state.pending is None or not PeerDirectory(directory).ledger.exists():
        return OK

    def rows_of(period: PeriodState) -> Sequence[PayoutRow] | None:
        try:
            return payouts_on(tables, period).rows
        except (InputError, TamperedError, StorageError):
            return None

    contract = SettlementContract(chain, state.settlement)
    try:
        with Ledger.read(PeerDirectory(directory).ledger) as ledger:
            return OwnBooks(rules, rows_of).judge(
                ledger, state, lambda number: contract.period(number, block=state.block)
            )
    except StorageError as error:
        return try_later(str(error))


def warning_of(outcome: Outcome, state: RunState, of_storage: bool = False) -> str | None:
    """Of a proposal that the own ledger would not make: why, and what its owner can do."""
    if outcome.answer is not Answer.FAILED or state.pending is None:
        return None
    is_over = state.pending.ready_at <= state.block_time
    return warning_text(state.pending, outcome.reason, is_over=is_over, of_storage=of_storage)


def note_of(outcome: Outcome) -> list[str]:
    """Where the own ledger cannot tell."""
    return (
        [f"note: not known whether the proposal is right: {outcome.reason}"]
        if outcome.answer is Answer.TRY_LATER
        else []
    )


__all__ = ["judge_proposal", "note_of", "warning_of"]
