"""Where a copy of a period's tables is found: the folder or URL that was named; where they are lost there, the own ledger, which gives
what it gave when the period was settled; then the URL that stands on chain with the proposal.

Nothing is believed. A file counts by the hash on chain. What a ledger gives counts by the payouts' root on chain, which says what each
account may claim: votes for a certificate that came later change the file's hash, and nobody's money."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from incentives.chain.settlement import SettlementContract
from incentives.chain.state import PeriodState, RunState
from incentives.closing import Closed, PayRules, close_period, was_judged
from incentives.errors import ChainError, IncentivesError, InputError, StorageError, TamperedError, shorten
from incentives.evidence import Evidence
from incentives.ledger import Ledger
from incentives.merkle import Tree
from incentives.publication import find_evidence, find_payouts, find_tables, tables_path
from incentives.shelf import Shelf, Site
from incentives.tables import PayoutRow, Tables

URL_SECONDS = 300.0  # for a file from a server that the organiser has chosen
MAX_URLS = 3  # that proposals with the same tables have named, the newest first


@dataclass(frozen=True, slots=True)
class Copy:
    """A period's tables. `shelf`: where they lie; None: the own ledger gave them, with its `evidence`. `is_identical`: their file has the
    hash that is on chain; else only their payouts' root was compared."""

    tables: Tables
    shelf: Shelf | None = None
    evidence: Evidence | None = None
    is_identical: bool = True


@dataclass
class Copies:
    """`own`: ledger and rules of the peer that was named, None where none was; asked only where something is lost. `tell`: hears, once
    for each period, what was found elsewhere than on the shelf. `keep`: given each lost file that was found whole, to be put back."""

    shelf: Shelf
    contract: SettlementContract
    own: Callable[[], tuple[Path, PayRules] | None] = lambda: None
    tell: Callable[[str], None] = lambda line: None
    keep: Callable[[int, Tables, Evidence], object] | None = None
    _found: dict[bytes, Copy] = field(default_factory=dict)

    def of(self, state: RunState, period: PeriodState, *, even_damaged: bool = True) -> Copy:
        """`even_damaged`: look elsewhere, too, for what lies there and is not what the chain holds. InputError, TamperedError or
        StorageError where there is no copy."""
        try:
            return Copy(find_tables(self.shelf, period.tables_hash, period.number), self.shelf)
        except InputError as error:
            return self._elsewhere(state, period, error)
        except (TamperedError, StorageError) as error:
            if not even_damaged:
                raise
            return self._elsewhere(state, period, error)

    def payouts(self, state: RunState, period: PeriodState) -> tuple[tuple[PayoutRow, ...], Tree]:
        """What each account may have claimed once the period is final, and the tree of it: all that a claim takes. Errors as `of`."""
        try:
            return find_payouts(self.shelf, period.number, period.payouts_root, period.tables_hash)
        except (InputError, TamperedError, StorageError) as error:
            tables = self._elsewhere(state, period, error).tables
            return tables.payouts, tables.payout_tree()

    def evidence(self, copy: Copy, number: int) -> Evidence | None:
        """Of the period, from where its tables are; None where it is not there."""
        if copy.shelf is None or copy.evidence is not None:
            return copy.evidence
        return find_evidence(copy.shelf, number, copy.tables)

    def _elsewhere(self, state: RunState, period: PeriodState, why: IncentivesError) -> Copy:
        if period.tables_hash not in self._found:
            self._found[period.tables_hash] = self._look_elsewhere(state, period, why)
        return self._found[period.tables_hash]

    def _look_elsewhere(self, state: RunState, period: PeriodState, why: IncentivesError) -> Copy:
        name, given, reasons = tables_path(Path(), period.number).name, None, []
        lost = f"{name} is not {'in' if isinstance(why, InputError) else 'as it is on chain in'} {self.shelf}"
        own = self.own()
        if own is not None:
            try:
                given = self._of_ledger(*own, state, period)
            except IncentivesError as error:
                reasons.append(f"the ledger {own[0]} does not give them ({error})")
            if given is not None and given.is_identical:
                self.tell(f"{lost}: the ledger {own[0]} gives the same file")
                return given
        fetched = self._fetched(period, reasons)
        if fetched is not None:
            self.tell(f"{lost}: taken from {fetched.shelf}, the URL on chain")
            return fetched
        if given is not None and own is not None:
            self.tell(
                f"{lost}: the ledger {own[0]} gives the payouts whose root is on chain, under signatures that came "
                "later; so the file's hash is another, and every amount is the same"
            )
            return given
        if isinstance(why, InputError):
            remedy = "or give --dir of a peer that was there: its ledger gives them" if own is None else ""
            said = "; ".join([why.remedy, *reasons, remedy] if remedy else [why.remedy, *reasons])
            raise InputError(why.field, why.value, said)
        raise why if not reasons else type(why)(f"{why}; {'; '.join(reasons)}")

    def _of_ledger(self, path: Path, rules: PayRules, state: RunState, period: PeriodState) -> Copy:
        """Settled again, after the period before where that is here, else from the first on."""
        before = self._before(state, period)
        first = period.number if before is not None else 0
        periods = [*self.contract.periods(range(first, period.number), block=state.block), period]
        with Ledger.read(path) as ledger:
            for each, closed in zip(periods, rebuilt(ledger, rules, state, periods, before), strict=True):
                copy = Copy(closed.tables, None, closed.evidence, closed.proposal.tables_hash == each.tables_hash)
                if copy.is_identical and self.keep is not None:
                    self.keep(each.number, closed.tables, closed.evidence)
        return copy

    def _before(self, state: RunState, period: PeriodState) -> tuple[PeriodState, Tables] | None:
        if period.number == 0:
            return None
        before = self.contract.period(period.number - 1, block=state.block)
        try:
            return before, find_tables(self.shelf, before.tables_hash, before.number)
        except (InputError, TamperedError, StorageError):
            return None

    def _fetched(self, period: PeriodState, reasons: list[str]) -> Copy | None:
        """By a URL that a proposal of these tables has named on chain. What stood in the way is added to `reasons`."""
        try:
            urls = self.contract.urls_of(period.tables_hash)[:MAX_URLS]
        except ChainError as error:
            reasons.append(f"which URL was published with them, the node does not say ({error})")
            return None
        for url in urls:
            if not url.lower().startswith(("http://", "https://")):
                reasons.append(
                    f"the URL on chain, {shorten(url)}, is not asked from here: give a gateway's to it with --tables"
                )
                continue
            try:
                copy = Copy(
                    find_tables(site := Site(url, total_seconds=URL_SECONDS), period.tables_hash, period.number), site
                )
                evidence = find_evidence(site, period.number, copy.tables) if self.keep is not None else None
            except IncentivesError as error:
                reasons.append(f"the URL on chain: {error}")
                continue
            if evidence is not None and self.keep is not None:
                self.keep(period.number, copy.tables, evidence)
            return replace(copy, evidence=evidence)
        return None


def rebuilt(
    ledger: Ledger,
    rules: PayRules,
    state: RunState,
    periods: list[PeriodState],
    before: tuple[PeriodState, Tables] | None,
) -> Iterator[Closed]:
    """Each of `periods`, one after the other, as the ledger settles it now; `before`: the period before the first of them, None where
    that is the run's first. TamperedError at one whose payouts are not those of the chain; else what `close_period` raises."""
    last, previous = before if before is not None else (None, None)
    for period in periods:
        settled = last.to_epoch if last is not None else 0
        then = replace(state, num_periods=period.number, last=last, settled_epoch=settled, pending=None)
        closed = close_period(
            ledger, rules, then, previous, period.to_epoch, judge=was_judged, budget_amount=period.budget_amount
        )
        if (closed.proposal.to_epoch, closed.proposal.payouts_root) != (period.to_epoch, period.payouts_root):
            raise TamperedError(
                f"for period {period.number} it gives {closed.tables.total_units} units in {len(closed.tables.receipts)} receipts up to "
                f"epoch {closed.tables.to_epoch}, the chain holds {period.total_units} in {period.receipts_count} up to {period.to_epoch}"
            )
        yield closed
        last, previous = period, closed.tables


__all__ = ["Copies", "Copy", "rebuilt"]
