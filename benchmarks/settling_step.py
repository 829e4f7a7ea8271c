"""One step of a settlement in a process of its own, for `benchmarks.settling`: prints its seconds and its peak memory.

Plain functions of the package alone, so that the same file also runs against an earlier checkout (PYTHONPATH)."""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from coincurve import PrivateKey

import incentives.chain.node
from incentives import records
from incentives.chain.state import RunState
from incentives.closing import Closed, PayRules, close_period, proposal_of, unpaid_after
from incentives.ledger import Ledger
from incentives.publication import find_evidence, find_tables, publish
from incentives.rewards import check_payouts
from incentives.tables import tables_hash

assert incentives.chain.node  # web3 is in every command that speaks to a chain: in the memory, too


max_file_bytes: int | None = None


def main(step: str, books: Path, shelf: Path) -> None:
    begun = time.monotonic()
    with Ledger.read(books) as ledger:
        domain, run_id = ledger.domain, ledger.run_id
    founder = records.account_of(PrivateKey(b"\xf0" * 32))
    rules = PayRules(run_id, 1, (founder,))
    state = funded(domain, run_id)
    globals()[f"step_{step}"](books, shelf, rules, state)
    found = {
        "cpu": time.process_time(),
        "wall": time.monotonic() - begun,
        "periods": len(list(shelf.glob("payouts-root-*"))),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024),
    }
    print(json.dumps(found))


def funded(domain: records.Domain, run_id: bytes) -> RunState:
    """A settlement with more than enough in it and no period yet; by names, for earlier checkouts know fewer."""
    known: dict[str, Any] = {
        "chain_id": domain.chain_id,
        "settlement": domain.verifying_contract,
        "run_id": run_id,
        "unit_price_amount": 10**15,
        "amount_per_day": 10**30,
        "epochs_per_day": 10**6,
        "units_per_epoch": 10**6,
        "funded_amount": 10**30,
        "last": None,
        "pending": None,
    }
    return RunState(**{field.name: known.get(field.name, 0) for field in fields(RunState)})


def step_nothing(books: Path, shelf: Path, rules: PayRules, state: RunState) -> None:
    """What Python and the imports take."""


def step_settle(books: Path, shelf: Path, rules: PayRules, state: RunState) -> None:
    with Ledger.read(books) as ledger:
        for closed in in_periods(ledger, rules, state):
            number = closed.proposal.number
            publish(shelf, number, closed.tables, closed.evidence)
            (shelf / f"payouts-root-{number}").write_text(closed.proposal.payouts_root.hex(), encoding="utf-8")


def in_periods(ledger: Ledger, rules: PayRules, state: RunState) -> Iterator[Closed]:
    """All of the ledger, as many periods as its files need, as the command makes them; an earlier checkout knows one alone. What is closed
    once more, to a smaller end, has its signatures checked by then."""
    try:
        from incentives.extent import FileLimits, last_epoch_readable, likely_end
        from incentives.remembered import RememberedSignatures
    except ImportError:
        yield close_period(ledger, rules, state, None)
        return
    limits, previous, tip = FileLimits.of(max_file_bytes), None, ledger.tip()
    assert tip is not None
    newest = ledger.lineage(tip)[-1].epoch
    judge = RememberedSignatures(Path("nowhere"), b"secret").judge
    while state.settled_epoch < newest:
        likely = likely_end(ledger.lineage(tip, state.settled_epoch), limits)
        closed = close_period(ledger, rules, state, previous, likely, judge=judge)
        last = last_epoch_readable(closed, limits)
        if last < closed.tables.to_epoch:
            closed = close_period(ledger, rules, state, previous, last, judge=judge)
        yield closed
        previous = closed.tables
        state = replace(state, num_periods=state.num_periods + 1, settled_epoch=previous.to_epoch, last=closed.proposal)


def step_again(books: Path, shelf: Path, rules: PayRules, state: RunState) -> None:
    """As a timer does while the proposal is in its window: what was checked is remembered. (The first turn is the parent's.)"""
    from incentives.remembered import NAME, RememberedSignatures

    def turn() -> None:
        with RememberedSignatures(shelf / NAME, b"secret") as remembered, Ledger.read(books) as ledger:
            closed = close_period(ledger, rules, state, None, judge=remembered.judge)
            publish(shelf, 0, closed.tables, closed.evidence)

    if not (shelf / NAME).exists():
        child = os.fork()
        if child == 0:
            turn()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    turn()


def step_verify(books: Path, shelf: Path, rules: PayRules, state: RunState) -> None:
    from incentives.books import check_evidence

    before = None
    for number in range(len(list(shelf.glob("payouts-root-*"))) or 1):
        hash_ = tables_hash((shelf / f"period-{number}.json").read_bytes())
        tables = find_tables(shelf, hash_, number)
        evidence = find_evidence(shelf, number, tables)
        assert evidence is not None
        check_payouts(before.payouts if before else (), tables)
        proposal_of(tables, 1, number)
        check_evidence(evidence, tables, rules, before)
        before = tables


def step_rewards(books: Path, shelf: Path, rules: PayRules, state: RunState) -> None:
    """What a peer's ledger has pending, of everybody."""
    with Ledger.read(books) as ledger:
        unpaid_after(ledger, rules, 0)


def step_claim(books: Path, shelf: Path, rules: PayRules, state: RunState) -> None:
    """The proof of one account, as `claim` gets it from the published files."""
    from incentives.claim import Payouts
    from incentives.publication import find_payouts

    number = len(list(shelf.glob("payouts-root-*"))) - 1
    root = bytes.fromhex((shelf / f"payouts-root-{number}").read_text(encoding="utf-8"))
    payouts = Payouts(*find_payouts(shelf, number, root, bytes(32)))
    payouts.prove([payouts.rows[len(payouts.rows) // 2].account])


__all__ = ["main"]

if __name__ == "__main__":
    max_file_bytes = int(sys.argv[4]) if sys.argv[4:] else None
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
