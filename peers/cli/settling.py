"""settle: close a period from one peer's ledger, propose it, make it final. Given again, it does what is left to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from coincurve import PrivateKey

from incentives.errors import ChainError, IncentivesError, InputError, NothingToSettle
from incentives.ledger import Ledger
from incentives.onchain import RunState
from incentives.publication import find_tables, publish
from incentives.settlement import Closed, close_period
from peers.cli.wallets import (
    PATH,
    Place,
    address,
    find_place,
    invite_option,
    json_option,
    key_options,
    open_key,
    read_rules,
    rpc_option,
    run_option,
    sending,
    settlement_option,
    show,
    tables_option,
    tokens,
)
from peers.directory import PeerDirectory
from peers.errors import PeerError

if TYPE_CHECKING:
    from incentives.chain import Chain

MAX_WAIT_SECONDS = 3600.0


@click.command("settle")
@click.option("--dir", "directory", type=PATH, help="The peer whose ledger is settled: any one of the run.")
@run_option
@settlement_option
@rpc_option
@key_options("the organiser (to finalise alone: of anyone)")
@tables_option
@invite_option
@click.option("--uri", default="", help="Where others will find the tables; written on chain.")
@click.option("--to-epoch", type=click.IntRange(1), help="Last epoch of the period (default: the newest certified).")
@click.option("--finalise", is_flag=True, help="Wait until the window is over and make the period final.")
@click.option("--replace", is_flag=True, help="Put the new proposal in the place of the one in its window.")
@click.option("--cancel", is_flag=True, help="Take the proposal in its window back, and do nothing else.")
@json_option
def settle(
    directory: Path | None,
    run: Path | None,
    settlement: str | None,
    rpc: str,
    keystore: Path,
    password_file: Path,
    tables: Path,
    invite: str | None,
    uri: str,
    to_epoch: int | None,
    finalise: bool,
    replace: bool,
    cancel: bool,
    as_json: bool,
) -> None:
    """Close a period: check the ledger, write the tables, propose their roots.

    Without --dir it only finalises (--finalise) or cancels (--cancel) what is proposed. An epoch is settled once:
    receipts that lack a signature now are never paid, so settle when the last ones have arrived."""
    place = find_place(run, settlement, directory)
    key = open_key(keystore, password_file)
    chain = place.connect(rpc)
    with sending(chain, key, keystore):
        if cancel:
            result, lines = _cancel(chain, key, place.state(chain))
        else:
            what = _ToSettle(directory, tables, invite, uri, to_epoch, finalise, replace)
            result, lines = _settle(chain, key, place, what)
    show(as_json, result, *lines)


@dataclass(frozen=True)
class _ToSettle:
    """The choices of one `settle`, as its options give them."""

    directory: Path | None
    tables: Path
    invite: str | None
    uri: str
    to_epoch: int | None
    finalise: bool
    replace: bool


def _cancel(chain: "Chain", key: PrivateKey, state: RunState) -> tuple[dict[str, Any], list[str]]:
    earlier = [sent.hash for sent in chain.resumed if sent.what == "cancel"]
    if state.pending is not None or not earlier:
        earlier = [chain.cancel(key, state.settlement).hash]
    return {"cancelled": True, "transactions": earlier}, ["the proposal is cancelled"]


def _settle(chain: "Chain", key: PrivateKey, place: Place, what: _ToSettle) -> tuple[dict[str, Any], list[str]]:
    """Finalise what is proposed, propose what is new, as far as asked and not done before."""
    state = place.state(chain)
    transactions = [sent.hash for sent in chain.resumed if sent.what in ("propose", "replace", "finalise")]
    already = _closed_already(state, what, resumed=bool(transactions))
    if already is not None and not what.finalise and already["ready_at"] > state.block_time:
        where = f"up to epoch {already['to_epoch']} is proposed already and in its window"
        return {**already, "transactions": transactions}, [f"period {already['number']} {where}"]
    if state.pending is not None and (not what.replace or already):
        if what.directory is not None and not what.finalise and state.pending.ready_at > state.block_time:
            raise ChainError(
                f"period {state.pending.number} is in its window for another "
                f"{state.pending.ready_at - state.block_time} s: wait with --finalise, or use --replace or --cancel"
            )
        # An old proposal first: the next one builds on it.
        transactions.append(chain.finalise(key, state.settlement, wait_seconds=_patience(state, what.finalise)).hash)
        state = place.state(chain)
    elif what.directory is None and what.finalise and not transactions:
        raise ChainError("nothing is proposed: there is nothing to finalise")
    elif what.directory is None and not transactions:
        raise click.UsageError("--dir is needed to propose a period: none is under way")
    done = {"number": state.num_periods - 1, "to_epoch": state.settled_epoch, "final": True}
    result: dict[str, Any] = {**(already or {}), **done}
    lines = [f"period {state.num_periods - 1} is final: epochs up to {state.settled_epoch}"]
    if what.directory is not None:
        try:
            closed = _close(state, what.directory, what.tables, what.invite, what.to_epoch)
        except NothingToSettle:
            if not transactions:
                raise
            return {**result, "transactions": transactions}, lines  # all of it was done, some of it by an earlier try
        result, lines, sent_hash = _propose(chain, key, state, closed, what)
        transactions.append(sent_hash)
        if what.finalise:
            state = place.state(chain)
            transactions.append(chain.finalise(key, state.settlement, wait_seconds=_patience(state, True)).hash)
            result["final"] = True
            lines.append("it is final")
    return {**result, "transactions": transactions}, lines


def _closed_already(state: RunState, what: _ToSettle, *, resumed: bool) -> dict[str, Any] | None:
    """The result of this very command, where what it would propose is proposed; None where there is something to do.

    `resumed`: an earlier try has sent something, and epochs that were certified since then are not its business."""
    if what.directory is None or state.pending is None or (what.replace and not resumed):
        return None
    to_epoch = state.pending.to_epoch if resumed and what.to_epoch is None else what.to_epoch
    try:
        closed = _close(state, what.directory, what.tables, what.invite, to_epoch)
    except (IncentivesError, PeerError):
        return None  # whatever is wrong is said where it is needed
    if closed.proposal.tables_hash != state.pending.tables_hash:
        return None
    path = publish(what.tables, state.num_periods, closed.tables, closed.evidence)
    return _described(closed, path, state.pending.ready_at)


def _close(state: RunState, directory: Path, tables: Path, invite: str | None, to_epoch: int | None) -> Closed:
    rules = read_rules(invite, directory)
    if rules is None:
        raise InputError("--dir", str(directory), "holds no invite; give the run's with --invite")
    previous = find_tables(tables, state.last.tables_hash, state.last.number) if state.last else None
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        return close_period(ledger, rules, state, previous, to_epoch)


def _propose(
    chain: "Chain", key: PrivateKey, state: RunState, closed: Closed, what: _ToSettle
) -> tuple[dict[str, Any], list[str], str]:
    """Publish, then propose; (result, lines for people, transaction)."""
    path = publish(what.tables, state.num_periods, closed.tables, closed.evidence)
    swap = what.replace and state.pending is not None
    sent = chain.propose(key, state.settlement, closed.proposal, closed.tables.from_epoch, what.uri, replace=swap)
    pending = chain.run_state(state.settlement).pending
    result = _described(closed, path, pending.ready_at if pending else None)
    lines = [
        f"period {result['number']}: epochs {result['from_epoch'] + 1} to {result['to_epoch']}, {result['receipts']} "
        f"receipts, {result['units']} units, {tokens(closed.payment.paid_amount)} to {result['payouts']} accounts",
        f"tables in {path}; the window is open for {state.window_seconds} s",
    ]
    if closed.left_out:
        lines.append(f"{len(closed.left_out)} contributions are left unpaid; --json says why")
    return result, lines, sent.hash


def _described(closed: Closed, path: Path, ready_at: int | None) -> dict[str, Any]:
    return {
        "number": closed.proposal.number,
        "from_epoch": closed.tables.from_epoch,
        "to_epoch": closed.tables.to_epoch,
        "certificates": closed.proposal.certificates_count,
        "receipts": closed.proposal.receipts_count,
        "payouts": closed.proposal.payouts_count,
        "units": closed.tables.total_units,
        "amount": str(closed.payment.paid_amount),
        "tables": str(path),
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


def _patience(state: RunState, finalise: bool) -> float:
    """How long to wait for the window of the proposal: not at all unless asked."""
    if not finalise or state.pending is None:
        return 0.0
    left = state.pending.ready_at - state.block_time
    if left > MAX_WAIT_SECONDS:
        raise ChainError(f"the window is open for another {left} s: come back then with `sparehive settle --finalise`")
    return max(left, 0) + 60.0
