"""What an earner does with published tables: find the own leaves, see what is due and prove it.

Pure: tables and the chain's state come in; `incentives.chain` reads and sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from incentives.chain.state import ProvenPayout, RunState
from incentives.errors import ChainError, InputError
from incentives.publication import find_tables
from incentives.shelf import Shelf
from incentives.tables import PayoutRow, Tables


@dataclass(frozen=True, slots=True)
class Standing:
    """An account's money, in the token's base unit. `in_window`: what the proposal under way would add."""

    account: bytes
    wallet: bytes | None
    units: int
    earned_amount: int
    in_window_amount: int
    claimable_amount: int
    claimed_amount: int


def standings(
    state: RunState,
    final: Tables | None,
    proposed: Tables | None,
    accounts: Sequence[bytes],
    wallets: Sequence[bytes | None],
    claimed: Sequence[int],
) -> list[Standing]:
    """One per account, in their order; `wallets` and `claimed` are what the chain says of them."""
    last = _rows(final)
    next_ = _rows(proposed)
    found = []
    for account, wallet, paid in zip(accounts, wallets, claimed, strict=True):
        row = last.get(account, PayoutRow(account, 0, 0, 0, 0, 0))
        in_window = next_[account].cum_claimable - row.cum_claimable if account in next_ else 0
        due = max(0, row.cum_claimable - paid)
        found.append(Standing(account, wallet, row.cum_units, row.cum_earned, in_window, due, paid))
    return found


def final_tables(state: RunState, shelf: Shelf) -> Tables:
    """The tables of the newest final period. ChainError where there is none yet, with when there may be."""
    if state.last is None:
        if state.pending is None:
            raise ChainError("no period is final yet and none is proposed: the organiser has to settle first")
        left = state.pending.ready_at - state.block_time
        when = f"in {left} s" if left > 0 else "now: `sparehive settle --finalise` does it"
        raise ChainError(f"no period is final yet: the first one is in its window and may be finalised {when}")
    return find_tables(shelf, state.last.tables_hash, state.last.number)


def prove(tables: Tables, accounts: Sequence[bytes]) -> list[ProvenPayout]:
    """Leaf, place and proof of each account in the payout tree. InputError for one that has never earned."""
    tree = tables.payout_tree()
    indices = {row.account: index for index, row in enumerate(tables.payouts)}
    proven = []
    for account in accounts:
        if account not in indices:
            raise InputError("account", account, "has earned nothing up to the newest final period")
        index = indices[account]
        proven.append(ProvenPayout(tables.payouts[index], index, tree.proof(index)))
    return proven


def _rows(tables: Tables | None) -> dict[bytes, PayoutRow]:
    return {row.account: row for row in tables.payouts} if tables else {}


__all__ = ["Standing", "final_tables", "prove", "standings"]
