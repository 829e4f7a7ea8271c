"""The organiser's commands: run deploy, run fund, run status, settle. The earner's are in `peers.cli.earning`."""

from pathlib import Path
from typing import Any

import click

from incentives.errors import ChainError, InputError, StorageError
from incentives.keys import parse_address
from incentives.onchain import PeriodState, RunState
from peers.cli.earning import bind, claim, rewards, verify, wallet
from peers.cli.wallets import (
    PATH,
    address,
    find_place,
    invite_option,
    json_option,
    key_options,
    latest_option,
    open_key,
    read_rules,
    rpc_option,
    run_option,
    sender_of,
    settlement_option,
    show,
    tables_option,
    tokens,
)
from peers.directory import PeerDirectory

TEST_SUPPLY_AMOUNT = 10**30
DEFAULT_WINDOW_SECONDS = 24 * 3600
MAX_WINDOW_SECONDS = 365 * 24 * 3600  # the contract refuses a longer one
MAX_WAIT_SECONDS = 3600.0


@click.command("deploy")
@click.argument("run_directory", type=PATH)
@rpc_option
@key_options("the organiser (default: the run's own)", required=False)
@click.option("--token", metavar="ADDRESS", help="The ERC-20 that the run pays in.")
@click.option("--test-token", is_flag=True, help="Deploy a worthless token and pay in that.")
@click.option("--registry", metavar="ADDRESS", help="The chain's PeerRegistry (default: deploy one).")
@click.option(
    "--window",
    type=click.IntRange(1, MAX_WINDOW_SECONDS),
    default=DEFAULT_WINDOW_SECONDS,
    show_default=True,
    help="Seconds in which everybody can look at a proposal before it is final.",
)
@json_option
def run_deploy(
    run_directory: Path,
    rpc: str,
    keystore: Path | None,
    password_file: Path | None,
    token: str | None,
    test_token: bool,
    registry: str | None,
    window: int,
    as_json: bool,
) -> None:
    """Deploy the contracts of the run in RUN_DIRECTORY and write its chain.json.

    Whoever deploys is the organiser: the one who proposes periods. Deploy before the first peer joins: every record is
    signed for this settlement."""
    from incentives.chain import Chain
    from peers.runs import RunDirectory

    if (token is None) != test_token:
        raise click.UsageError("give either --token ADDRESS or --test-token")
    run = RunDirectory(run_directory)
    config = run.load()
    if run.chain.exists():
        raise StorageError(f"{run.chain} exists: this run is deployed already; move the file away first")
    key = open_key(keystore or run.organiser_key, password_file or run.organiser_password)
    chain = Chain.connect(rpc)
    paid_in = parse_address(token) if token else chain.deploy_test_token(key, TEST_SUPPLY_AMOUNT)
    known = parse_address(registry) if registry else chain.deploy_registry(key)
    deployment = chain.deploy_settlement(
        key,
        token=paid_in,
        registry=known,
        run_id=config.run_id,
        unit_price_amount=config.unit_price,
        window_seconds=window,
    )
    deployment.write(run.chain)
    result = {
        "chain_id": deployment.chain_id,
        "settlement": address(deployment.settlement),
        "registry": address(deployment.registry),
        "token": address(deployment.token),
        "run_id": "0x" + deployment.run_id.hex(),
        "unit_price_amount": str(deployment.unit_price_amount),
        "window_seconds": deployment.window_seconds,
        "from_block": deployment.from_block,
        "organiser": sender_of(key),
        "path": str(run.chain),
    }
    show(as_json, result, f"settlement {result['settlement']} on chain {chain.chain_id}; described in {run.chain}")


@click.command("fund")
@click.argument("run", type=PATH)
@rpc_option
@key_options("whoever pays")
@click.option("--amount", type=click.IntRange(1, 2**128 - 1), required=True, help="In the token's base unit.")
@json_option
def run_fund(run: Path, rpc: str, keystore: Path, password_file: Path, amount: int, as_json: bool) -> None:
    """Put tokens into the pool of RUN (its directory or chain.json). Nobody can take them out but by claims."""
    place = find_place(run)
    key = open_key(keystore, password_file)
    chain = place.connect(rpc)
    state = place.state(chain)
    sent = chain.fund(key, state.token, state.settlement, amount)
    after = place.state(chain)
    result = {
        "funded": str(after.funded_amount),
        "available": str(after.available_amount),
        "transactions": [each.hash for each in sent],
    }
    show(
        as_json,
        result,
        f"funded {tokens(after.funded_amount)} in all, {tokens(after.available_amount)} not yet released",
    )


@click.command("status")
@click.argument("run", type=PATH, required=False)
@settlement_option
@rpc_option
@latest_option
@json_option
def run_status(run: Path | None, settlement: str | None, rpc: str, latest: bool, as_json: bool) -> None:
    """Show the periods and the money of RUN (its directory or chain.json)."""
    place = find_place(run, settlement)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    result = {
        "chain_id": state.chain_id,
        "block": state.block,
        "settlement": address(state.settlement),
        "token": address(state.token),
        "registry": address(state.registry),
        "organiser": address(state.organiser),
        "run_id": "0x" + state.run_id.hex(),
        "unit_price_amount": str(state.unit_price_amount),
        "window_seconds": state.window_seconds,
        "funded": str(state.funded_amount),
        "released": str(state.released_amount),
        "claimed": str(state.claimed_amount),
        "settled_epoch": state.settled_epoch,
        "periods": state.num_periods,
        "last": _period_json(state.last),
        "pending": _period_json(state.pending),
    }
    lines = [
        f"run 0x{state.run_id.hex()} at block {state.block} of chain {state.chain_id}",
        f"money: funded {tokens(state.funded_amount)}, released {tokens(state.released_amount)}, "
        f"claimed {tokens(state.claimed_amount)}",
        f"periods: {state.num_periods} final, up to epoch {state.settled_epoch}; {_pending_text(state)}",
    ]
    show(as_json, result, *lines)


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
    state = place.state(chain)
    if cancel:
        sent = chain.cancel(key, state.settlement)
        show(as_json, {"cancelled": True, "transactions": [sent.hash]}, "the proposal is cancelled")
        return
    transactions: list[str] = []
    if state.pending is not None and not replace:
        if directory is not None and not finalise and state.pending.ready_at > state.block_time:
            raise ChainError(
                f"period {state.pending.number} is in its window for another "
                f"{state.pending.ready_at - state.block_time} s: wait with --finalise, or use --replace or --cancel"
            )
        # An old proposal first: the next one builds on it.
        transactions.append(chain.finalise(key, state.settlement, wait_seconds=_patience(state, finalise)).hash)
        state = place.state(chain)
    elif directory is None and finalise:
        raise ChainError("nothing is proposed: there is nothing to finalise")
    elif directory is None:
        raise click.UsageError("--dir is needed to propose a period: none is under way")
    result: dict[str, Any] = {"number": state.num_periods - 1, "to_epoch": state.settled_epoch, "final": True}
    lines = [f"period {state.num_periods - 1} is final: epochs up to {state.settled_epoch}"]
    if directory is not None:
        result, lines, sent_hashes = _close(chain, key, state, directory, tables, invite, uri, to_epoch, replace)
        transactions += sent_hashes
        if finalise:
            state = place.state(chain)
            transactions.append(chain.finalise(key, state.settlement, wait_seconds=_patience(state, True)).hash)
            result["final"] = True
            lines.append("it is final")
    show(as_json, {**result, "transactions": transactions}, *lines)


def _close(
    chain: Any,
    key: Any,
    state: RunState,
    directory: Path,
    tables: Path,
    invite: str | None,
    uri: str,
    to_epoch: int | None,
    replace: bool,
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Publish and propose; (result, lines for people, transactions)."""
    from incentives.ledger import Ledger
    from incentives.publication import find_tables, publish
    from incentives.settlement import close_period

    rules = read_rules(invite, directory)
    if rules is None:
        raise InputError("--dir", str(directory), "holds no invite; give the run's with --invite")
    previous = find_tables(tables, state.last.tables_hash, state.last.number) if state.last else None
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        closed = close_period(ledger, rules, state, previous, to_epoch)
    path = publish(tables, state.num_periods, closed.tables, closed.evidence)
    swap = replace and state.pending is not None
    sent = chain.propose(key, state.settlement, closed.proposal, closed.tables.from_epoch, uri, replace=swap)
    pending = chain.run_state(state.settlement).pending
    result: dict[str, Any] = {
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
        "ready_at": pending.ready_at if pending else None,
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
    lines = [
        f"period {result['number']}: epochs {result['from_epoch'] + 1} to {result['to_epoch']}, {result['receipts']} "
        f"receipts, {result['units']} units, {tokens(closed.payment.paid_amount)} to {result['payouts']} accounts",
        f"tables in {path}; the window is open for {state.window_seconds} s",
    ]
    if closed.left_out:
        lines.append(f"{len(closed.left_out)} contributions are left unpaid; --json says why")
    return result, lines, [sent.hash]


def _patience(state: RunState, finalise: bool) -> float:
    """How long to wait for the window of the proposal: not at all unless asked."""
    if not finalise or state.pending is None:
        return 0.0
    left = state.pending.ready_at - state.block_time
    if left > MAX_WAIT_SECONDS:
        raise ChainError(f"the window is open for another {left} s: come back then with `sparehive settle --finalise`")
    return max(left, 0) + 60.0


def _period_json(period: PeriodState | None) -> dict[str, Any] | None:
    if period is None:
        return None
    return {
        "number": period.number,
        "to_epoch": period.to_epoch,
        "units": period.total_units,
        "amount": str(period.amount),
        "budget": str(period.budget_amount),
        "ready_at": period.ready_at,
        "certificates": period.certificates_count,
        "receipts": period.receipts_count,
        "payouts": period.payouts_count,
        "certificates_root": "0x" + period.certificates_root.hex(),
        "receipts_root": "0x" + period.receipts_root.hex(),
        "payouts_root": "0x" + period.payouts_root.hex(),
        "tables_hash": "0x" + period.tables_hash.hex(),
    }


def _pending_text(state: RunState) -> str:
    if state.pending is None:
        return "none in its window"
    left = max(0, state.pending.ready_at - state.block_time)
    return f"one up to epoch {state.pending.to_epoch} in its window for {left} s"


commands: list[click.Command] = [settle, bind, rewards, claim, verify, wallet]
run_commands: list[click.Command] = [run_deploy, run_fund, run_status]
