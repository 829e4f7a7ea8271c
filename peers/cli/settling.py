"""settle: close a period from one peer's ledger, propose it, make it final. Given again, it does what is left to do."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from coincurve import PrivateKey

from incentives.chain.nodes import Nodes
from incentives.chain.reverts import Reverted
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import PeriodState, RunState
from incentives.chain.unsigned import Call
from incentives.closing import Closed
from incentives.errors import ChainError, IncentivesError, InFlight, InputError, NothingToSettle, NoWork
from incentives.publication import publish
from incentives.remembered import NAME, RememberedSignatures
from incentives.shelf import Shelf
from peers.cli.options import (
    PATH,
    NamedSettlement,
    fee_options,
    invite_option,
    json_option,
    key_options,
    rpc_option,
    run_option,
    settlement_option,
    show,
    storage_option,
    tables_option,
    uri_option,
)
from peers.cli.period import Extent, Next, ToSettle, close_next, close_proposed, described, extent_options
from peers.cli.places import Place, find_place
from peers.cli.signing import Fees, cost_line, organisers_key, resumed_by, sending
from peers.cli.unsigned import check_batch, show_calls, unsigned_options
from peers.errors import PeerError
from peers.moments import until

if TYPE_CHECKING:
    from incentives.chain.node import Chain

MAX_WAIT_SECONDS = 3600.0
# What was read is not so any more: another settler was faster, or somebody has funded a pool that is too short.
_OVERTAKEN = ("ProposalPending", "NoProposal", "EmptyPeriod", "WrongStart", "WrongBudget")


@click.command("settle")
@click.option("--dir", "directory", type=PATH, help="The peer whose ledger is settled: any one of the run.")
@run_option
@settlement_option
@rpc_option
@key_options(
    "the organiser (to finalise alone: of anyone; default with --run DIRECTORY: the run's own)", required=False
)
@tables_option
@storage_option
@invite_option
@uri_option
@extent_options
@click.option("--finalise", is_flag=True, help="Wait until the window is over and make the period final.")
@click.option("--replace", is_flag=True, help="Put the new proposal in the place of the one in its window.")
@click.option("--cancel", is_flag=True, help="Take the proposal in its window back, and do nothing else.")
@unsigned_options
@fee_options
@json_option
def settle(
    directory: Path | None,
    run: Path | None,
    settlement: NamedSettlement | None,
    rpc: Nodes,
    keystore: Path | None,
    password_file: Path | None,
    tables: Shelf,
    of_storage: bool,
    invite: str | None,
    uri: str,
    extent: Extent,
    finalise: bool,
    replace: bool,
    cancel: bool,
    unsigned: bool,
    safe_batch: Path | None,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Close a period: check the ledger, write the tables, propose their roots.

    Without --dir it only finalises (--finalise) or cancels (--cancel) what is proposed. An epoch is settled once:
    receipts that lack a signature now are never paid, so settle when the last ones have arrived.

    With --storage it settles what is paid for storing, from the same ledger: a pool, periods and tables of its own. Its receipts may come
    for three epochs, so those of the three newest are left for the next period.

    Fit for a timer: exit status 0 also where all is settled, or proposed as this ledger has it and in its window."""
    place = find_place(run, settlement, directory, invite, of_storage)
    _check_choices(directory, finalise, replace, cancel)
    if not isinstance(tables, Path):
        raise InputError("--tables", str(tables), "is a URL: the tables are written here first, give a folder")
    check_batch(unsigned, safe_batch)
    if unsigned:
        what = ToSettle(directory, tables, invite, uri, extent, finalise, replace, of_storage=of_storage)
        result, calls, lines = _unsigned(chain := place.connect(rpc), place, what, cancel)
        show_calls(chain.chain_id, calls, "Sparehive: settle", safe_batch, as_json, result, lines)
        return
    keystore, key = organisers_key(run, keystore, password_file)
    chain = place.connect(rpc)
    with sending(chain, key, keystore, Fees(max_fee, dry_run, as_json)):
        if cancel:
            result, lines = _cancel(chain, key, place.state(chain))
        else:
            with RememberedSignatures(tables / NAME, key.secret) as remembered:
                what = ToSettle(directory, tables, invite, uri, extent, finalise, replace, remembered.judge, of_storage)
                result, lines = _settle(chain, key, place, what)
    show(as_json, {**result, "cost": str(chain.spent_amount)}, *lines, *cost_line(chain))


def _check_choices(directory: Path | None, finalise: bool, replace: bool, cancel: bool) -> None:
    if cancel and (finalise or replace):
        raise click.UsageError("--cancel does nothing else: leave --finalise and --replace out")
    if replace and directory is None:
        raise click.UsageError("--replace needs --dir, the peer whose ledger is settled")


def _unsigned(
    chain: "Chain", place: Place, what: ToSettle, is_cancel: bool
) -> tuple[dict[str, Any], list[Call], list[str]]:
    """What is to be sent now, from the organiser's address or, to finalise, from any; tables are written."""
    state = place.state(chain)
    contract, pending = SettlementContract(chain, state.settlement), state.pending
    if is_cancel:
        return {}, [contract.unsigned_cancel(state.organiser)] if pending else [], []
    if pending is not None and not what.replace:
        where = f"period {pending.number} up to epoch {pending.to_epoch} is proposed"
        if pending.ready_at > state.block_time:
            return {}, [], [f"{where} and in its window until {until(pending.ready_at)}"]
        return {}, [contract.unsigned_finalise()], [f"{where} and its window is over; ask again when it is final"]
    if what.directory is None:
        raise click.UsageError("--dir is needed to propose a period: none is under way")
    try:
        found = close_next(chain, state, what)
    except NothingToSettle as error:
        return {}, [], [_nothing(state, error)]
    closed = found.closed
    path = publish(what.tables, state.num_periods, closed.tables, closed.evidence)
    from_epoch, swap = closed.tables.from_epoch, what.replace and pending is not None
    call = contract.unsigned_propose(state.organiser, closed.proposal, from_epoch, what.uri, replace=swap)
    lines = [
        f"tables of period {state.num_periods} in {path}; what is sent later than a deposit or another period may be refused",
        *found.lines(),
    ]
    return described(closed, path, None), [call], lines


def _nothing(state: RunState, error: NothingToSettle) -> str:
    said = f"nothing to do yet: epochs up to {state.settled_epoch} are settled"
    if isinstance(error, NoWork):
        said += f"; of those up to {error.value} {error.remedy}"
    return f"{said}; epoch {error.value} {error.remedy}" if isinstance(error, InFlight) else said


def _cancel(chain: "Chain", key: PrivateKey, state: RunState) -> tuple[dict[str, Any], list[str]]:
    earlier = resumed_by(chain, state.settlement, "cancel")
    if state.pending is not None or not earlier:
        earlier = [SettlementContract(chain, state.settlement).cancel(key).hash]
    return {"cancelled": True, "transactions": earlier}, ["the proposal is cancelled"]


def _settle(chain: "Chain", key: PrivateKey, place: Place, what: ToSettle) -> tuple[dict[str, Any], list[str]]:
    """Finalise what is proposed, propose what is new, as far as asked and not done before."""
    transactions = resumed_by(chain, place.settlement, "propose", "replace", "finalise")
    try:
        return _settle_once(chain, key, place, what, transactions)
    except Reverted as error:
        if error.name not in _OVERTAKEN:
            raise
        _seen(chain, place, partial(_is_as_refused, error))
    return _settle_once(chain, key, place, what, transactions)


def _settle_once(
    chain: "Chain", key: PrivateKey, place: Place, what: ToSettle, transactions: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """`transactions` of this command and earlier tries of it; further ones are added."""
    state = place.state(chain)
    pending, mine = state.pending, None
    if what.directory is not None and pending is not None and (transactions or not what.replace):
        mine = _as_proposed(chain, state, what, pending)
    is_same = isinstance(mine, Closed) and pending is not None and mine.proposal.tables_hash == pending.tables_hash
    result: dict[str, Any] = {}
    if pending is not None and (is_same or not what.replace):
        if what.directory is not None and not what.finalise and pending.ready_at > state.block_time:
            result, line = _waiting(state, what, pending, mine)
            return {**result, "transactions": transactions}, [line]
        if isinstance(mine, Closed) and is_same:
            path = publish(what.tables, pending.number, mine.tables, mine.evidence)
            result = described(mine, path, pending.ready_at)
        # An old proposal first: the next one builds on it.
        state = _finalise(chain, key, place, state, _patience(state, what.finalise), transactions)
    elif what.directory is None and what.finalise and not transactions:
        raise ChainError("nothing is proposed: there is nothing to finalise")
    elif what.directory is None and not transactions:
        raise click.UsageError("--dir is needed to propose a period: none is under way")
    result |= {"number": state.num_periods - 1, "to_epoch": state.settled_epoch, "final": True}
    lines = [f"period {state.num_periods - 1} is final: epochs up to {state.settled_epoch}"]
    if what.directory is not None:
        try:
            found = close_next(chain, state, what)
        except NothingToSettle as error:  # all of it was done, here or by an earlier try; or nobody has worked
            lines = lines if transactions else [_nothing(state, error)]
            return {**result, "transactions": transactions}, lines
        result, lines = _propose(chain, key, place, state, found, what, transactions)
        if what.finalise:
            state = place.state(chain)
            _finalise(chain, key, place, state, _patience(state, True), transactions)
            result["final"] = True
            lines.append("it is final")
    return {**result, "transactions": transactions}, lines


def _as_proposed(chain: "Chain", state: RunState, what: ToSettle, pending: PeriodState) -> Closed | str:
    """What this ledger gives for the epochs of the proposal under way; text: why it gives nothing."""
    assert what.directory is not None
    try:
        return close_proposed(chain, state, what, pending.to_epoch)
    except (IncentivesError, PeerError) as error:
        return str(error)


def _waiting(
    state: RunState, what: ToSettle, pending: PeriodState, mine: Closed | str | None
) -> tuple[dict[str, Any], str]:
    """Of a proposal in its window: nothing to do before it is over. ChainError where this is not what was asked for:
    it ends too early, or this ledger would pay otherwise, or cannot tell."""
    where = f"period {pending.number} up to epoch {pending.to_epoch} is proposed and in its window until "
    where += until(pending.ready_at)
    to_epoch = what.extent.to_epoch
    if to_epoch is not None and to_epoch > pending.to_epoch:
        raise ChainError(f"{where}: settle up to epoch {to_epoch} then, or now with --replace")
    if not isinstance(mine, Closed):
        raise ChainError(f"{where}; this ledger cannot say whether it is right: {mine}")
    if mine.proposal.payouts_root != pending.payouts_root:
        raise ChainError(
            f"{where}, and pays otherwise than this ledger would: `sparehive verify` it, then wait, --replace or --cancel"
        )
    if mine.proposal.tables_hash == pending.tables_hash:
        path: Path | None = publish(what.tables, pending.number, mine.tables, mine.evidence)
    else:
        path = None  # the same payouts under other signatures of the same voters: its tables are with who proposed it
    result = {**described(mine, path, pending.ready_at), "tables_hash": "0x" + pending.tables_hash.hex()}
    return result, f"{where}: nothing to do before"


def _finalise(
    chain: "Chain", key: PrivateKey, place: Place, state: RunState, wait_seconds: float, transactions: list[str]
) -> RunState:
    """The state afterwards. That somebody else has finalised it meanwhile is as good."""
    try:
        transactions.append(SettlementContract(chain, state.settlement).finalise(key, wait_seconds=wait_seconds).hash)
    except Reverted as error:
        if error.name != "NoProposal":
            raise
        after = _seen(chain, place, lambda seen: seen.pending is None)
        if after.num_periods <= state.num_periods:
            raise
    return place.state(chain)


def _is_as_refused(error: Reverted, state: RunState) -> bool:
    if error.name == "ProposalPending":
        return state.pending is not None
    if error.name == "WrongBudget":
        return bool(error.arguments["available"] == str(state.available_amount))
    return error.name != "NoProposal" or state.pending is None


def _seen(chain: "Chain", place: Place, is_there: Callable[[RunState], bool]) -> RunState:
    """The state once it is so: what refused ours may stand in a block that is yet to come."""
    deadline = time.monotonic() + chain.wait_seconds
    while True:
        state = place.state(chain)
        if is_there(state) or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


def _propose(
    chain: "Chain",
    key: PrivateKey,
    place: Place,
    state: RunState,
    found: Next,
    what: ToSettle,
    transactions: list[str],
) -> tuple[dict[str, Any], list[str]]:
    """Publish, then propose; (result, lines for people)."""
    closed = found.closed
    path = publish(what.tables, state.num_periods, closed.tables, closed.evidence)
    swap = what.replace and state.pending is not None
    contract = SettlementContract(chain, state.settlement)
    sent = contract.propose(key, closed.proposal, closed.tables.from_epoch, what.uri, replace=swap)
    transactions.append(sent.hash)
    pending = contract.state().pending
    unit = place.unit(chain, state)
    result = described(closed, path, pending.ready_at if pending else None) | unit.json_value()
    lines = [
        f"period {result['number']}: epochs {result['from_epoch'] + 1} to {result['to_epoch']}, {result['receipts']} "
        f"receipts, {result['units']} units, {unit.shown(closed.payment.paid_amount)} to {result['payouts']} accounts",
        f"tables in {path}; the window is open for {state.window_seconds} s",
    ]
    if closed.left_out:
        lines.append(f"{len(closed.left_out)} contributions are left unpaid; --json says why")
    return result | {"epochs_left": found.left}, lines + found.lines()


def _patience(state: RunState, finalise: bool) -> float:
    """How long to wait for the window of the proposal: not at all unless asked."""
    if not finalise or state.pending is None:
        return 0.0
    left = state.pending.ready_at - state.block_time
    if left > MAX_WAIT_SECONDS:
        raise ChainError(
            f"the window is open until {until(state.pending.ready_at)}: come back then with `sparehive settle --finalise`"
        )
    return max(left, 0) + 60.0
