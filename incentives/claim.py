"""What an earner does with published tables: find the own leaves, see what is due and prove it.

Pure: tables and the chain's state come in; `incentives.chain` reads and sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from incentives.chain.state import PeriodState, ProvenPayout, RunState
from incentives.copies import Copies
from incentives.errors import ChainError, InputError
from incentives.merkle import Tree
from incentives.publication import find_payouts
from incentives.shelf import Shelf
from incentives.tables import PayoutRow


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


@dataclass(frozen=True)
class Payouts:
    """The payout rows of a period, and their tree, built once for however many proofs."""

    rows: tuple[PayoutRow, ...]
    tree: Tree

    @cached_property
    def index_of(self) -> dict[bytes, int]:
        return {row.account: index for index, row in enumerate(self.rows)}

    def of(self, account: bytes) -> PayoutRow | None:
        """What the account was given; None: it never earned."""
        index = self.index_of.get(account)
        return None if index is None else self.rows[index]

    def prove(self, accounts: Sequence[bytes]) -> list[ProvenPayout]:
        """Leaf, place and proof of each account. InputError for one that has never earned."""
        proven = []
        for account in accounts:
            index = self.index_of.get(account)
            if index is None:
                raise InputError("account", account, "has earned nothing up to the newest final period")
            proven.append(ProvenPayout(self.rows[index], index, self.tree.proof(index)))
        return proven


def standings(
    final: Payouts | None,
    proposed: Payouts | None,
    accounts: Sequence[bytes],
    wallets: Sequence[bytes | None],
    claimed: Sequence[int],
) -> list[Standing]:
    """One per account, in their order; `wallets` and `claimed` are what the chain says of them."""
    found = []
    for account, wallet, paid in zip(accounts, wallets, claimed, strict=True):
        row = (final.of(account) if final else None) or PayoutRow(account, 0, 0, 0, 0, 0)
        offered = proposed.of(account) if proposed else None
        in_window = offered.cum_claimable - row.cum_claimable if offered else 0
        due = max(0, row.cum_claimable - paid)
        found.append(Standing(account, wallet, row.cum_units, row.cum_earned, in_window, due, paid))
    return found


def final_payouts(state: RunState, copies: Copies) -> Payouts:
    """Those of the newest final period. ChainError where there is none yet, with when there may be."""
    if state.last is None:
        if state.pending is None:
            raise ChainError("no period is final yet and none is proposed: the organiser has to settle first")
        left = state.pending.ready_at - state.block_time
        when = f"in {left} s" if left > 0 else "now: `sparehive settle --finalise` does it"
        raise ChainError(f"no period is final yet: the first one is in its window and may be finalised {when}")
    return payouts_of(state, state.last, copies)


def payouts_of(state: RunState, period: PeriodState, copies: Copies) -> Payouts:
    """As the chain has them, of a period that is final or proposed. InputError, TamperedError or StorageError where there is no copy."""
    rows, tree = copies.payouts(state, period)
    return Payouts(rows, tree)


def payouts_on(shelf: Shelf, period: PeriodState) -> Payouts:
    """The same, looked for nowhere else."""
    rows, tree = find_payouts(shelf, period.number, period.payouts_root, period.tables_hash)
    return Payouts(rows, tree)


__all__ = ["Payouts", "Standing", "final_payouts", "payouts_of", "payouts_on", "standings"]
