"""The organiser's commands: run deploy, run fund, run status; settle is in `peers.cli.settling`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from coincurve import PrivateKey

from incentives.amounts import Unit
from incentives.chain.deployment import Deployment
from incentives.chain.nodes import Nodes
from incentives.chain.registry import deploy_registry
from incentives.chain.settlement import SettlementContract, deploy_settlement
from incentives.chain.state import PeriodState, RunState
from incentives.chain.terms import Terms
from incentives.chain.token import TEST_TOKEN_UNIT, TokenContract, deploy_test_token
from incentives.errors import InputError, StorageError
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of
from incentives.shelf import Shelf
from peers.cli.coursing import check_course_of, course_json, course_line, read_course
from peers.cli.options import (
    AMOUNT,
    AMOUNT_OR_ZERO,
    NEEDS_RPC,
    PATH,
    Amount,
    NamedSettlement,
    address,
    at_block,
    fee_options,
    invite_option,
    json_option,
    key_options,
    latest_option,
    note,
    optional_rpc_option,
    reading,
    rpc_option,
    settlement_option,
    show,
    storage_option,
    tables_option,
)
from peers.cli.places import Place, find_place, read_rules
from peers.cli.proposals import payouts_here, proposal_json, proposal_lines, rules_json, rules_lines
from peers.cli.signing import Fees, cost_line, organisers_key, sender_of, sending
from peers.cli.unsigned import show_calls, unsigned_options
from peers.costs import Costs
from peers.payee import can_ask
from peers.storage import storage_json, storage_lasts, storage_line, storage_of, storage_terms

if TYPE_CHECKING:
    from incentives.chain.node import Chain
    from swarm.config import RunConfig

TEST_SUPPLY_AMOUNT = 10**30
DEFAULT_WINDOW_SECONDS = 24 * 3600
MIN_WINDOW_SECONDS = 3600  # the contract refuses shorter ones but on a development chain, and longer ones everywhere
MAX_WINDOW_SECONDS = 365 * 24 * 3600
DEVELOPMENT_CHAIN = 31337
DEFAULT_EPOCHS_PER_DAY = 4 * 86400
USUAL_EPOCHS_PER_DAY = 1440  # one a minute: what the default of --amount-per-day pays for twice


@click.command("deploy")
@click.argument("run_directory", type=PATH)
@rpc_option
@key_options("the organiser (default: the run's own)", required=False)
@click.option(
    "--chain-id",
    type=click.IntRange(1),
    help="The chain to deploy on (1: Ethereum). Without it the node's is asked about, but for a local one (31337).",
)
@click.option("--token", metavar="ADDRESS", help="The ERC-20 that the run pays in.")
@click.option("--test-token", is_flag=True, help="Deploy a worthless token and pay in that.")
@click.option(
    "--window",
    type=click.IntRange(1, MAX_WINDOW_SECONDS),
    default=DEFAULT_WINDOW_SECONDS,
    show_default=True,
    help="Seconds in which everybody can look at a proposal before it is final; an hour at least, but on a development chain.",
)
@click.option(
    "--epochs-per-day",
    type=click.IntRange(1, 2**64 - 1),
    default=DEFAULT_EPOCHS_PER_DAY,
    show_default=True,
    help="Epochs that the run never has more of in a day.",
)
@click.option(
    "--amount-per-day",
    type=AMOUNT,
    help="The most that a day may release, in tokens, or with the suffix `base` in base units (default: twice an epoch a minute).",
)
@click.option(
    "--unit-price",
    type=AMOUNT_OR_ZERO,
    help="What a unit pays, in tokens: run.toml must say the same. Needed where the token has other than 18 decimals.",
)
@click.option(
    "--with-factory", is_flag=True, help="Put the factory that makes contracts on the chain where it lacks one."
)
@fee_options
@json_option
def run_deploy(
    run_directory: Path,
    rpc: Nodes,
    keystore: Path | None,
    password_file: Path | None,
    chain_id: int | None,
    token: str | None,
    test_token: bool,
    window: int,
    epochs_per_day: int,
    amount_per_day: Amount | None,
    unit_price: Amount | None,
    with_factory: bool,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deploy the contracts of the run in RUN_DIRECTORY and write its chain.json.

    Whoever deploys is the organiser, the one who proposes periods, if `run new --organiser` named no other. Deploy before the first peer
    joins: every record is signed for this settlement. Its address is computed from its code and its terms, so that no node can name
    another."""
    from peers.runs import RunDirectory

    if (token is None) != test_token:
        raise click.UsageError("give either --token ADDRESS or --test-token")
    run = RunDirectory(run_directory)
    config = run.load()
    _check_not_deployed(run.chain)
    given_token = parse_address(token) if token else None
    keystore, key = organisers_key(run.root, keystore, password_file)
    chain = _agreed_chain(rpc, chain_id)
    _check_window(chain, window)
    unit = TEST_TOKEN_UNIT if given_token is None else _unit_of(chain, given_token)
    _check_price(costs := Costs.of(config), unit, unit_price, run.toml)
    daily = _daily_amount(amount_per_day, costs, unit)
    with sending(chain, key, keystore, Fees(max_fee, dry_run, as_json)):
        if with_factory:
            chain.create_factory(key)
        paid_in = given_token or deploy_test_token(chain, key, TEST_SUPPLY_AMOUNT, config.run_id)
        limits = {"epochs_per_day": epochs_per_day, "units_per_epoch": costs.most_epoch_units, "amount_per_day": daily}
        terms = Terms(paid_in, config.run_id, _organiser(config, key), config.unit_price, window, **limits)
        deploy_registry(chain, key)
        _deploy_storage(chain, key, terms, config)
        deployment = replace(deploy_settlement(chain, key, terms), unit=unit)
        deployment.write(run.chain)
    result = {**deployment.json_value(), **costs.json_value(), "path": str(run.chain), "cost": str(chain.spent_amount)}
    stored, more = _deployed_storage(terms, config, unit)
    lines = _deployed_lines(deployment, costs, unit, run.chain)
    show(as_json, {**result, "storage": stored}, *lines, *more, *cost_line(chain))


def _daily_amount(given: Amount | None, costs: Costs, unit: Unit) -> int:
    """What a day may release: twice what as many epochs as usual cost, where nobody said."""
    if given is not None:
        return given.base_units(unit, "--amount-per-day")
    return 2 * USUAL_EPOCHS_PER_DAY * costs.epoch_amount


def _deploy_storage(chain: "Chain", key: PrivateKey, terms: Terms, config: "RunConfig") -> None:
    """The pool for storing, where the run has one."""
    if config.storage is not None:
        deploy_settlement(chain, key, storage_terms(terms, config))


def _deployed_storage(terms: Terms, config: "RunConfig", unit: Unit) -> tuple[dict[str, Any] | None, list[str]]:
    """Of the pool for storing, where the run has one."""
    if config.storage is None:
        return None, []
    other = storage_terms(terms, config)
    place = address(other.settlement)
    found = {"settlement": place, "run_id": "0x" + other.run_id.hex(), "amount_per_day": str(other.amount_per_day)}
    lines = [
        storage_line(config.storage, unit),
        f"its pool is apart: settlement {place} releases at most {unit.shown(other.amount_per_day)} a day; "
        "`sparehive run fund --storage` fills it",
    ]
    return {**(storage_json(config) or {}), **found}, lines


def _organiser(config: "RunConfig", key: PrivateKey) -> bytes:
    """Whoever deploys, if the run names nobody else."""
    return account_of(key) if config.organiser is None else bytes.fromhex(config.organiser.wallet)


def _deployed_lines(deployment: Deployment, costs: Costs, unit: Unit, path: Path) -> list[str]:
    terms = deployment.terms
    return [
        f"settlement {address(deployment.settlement)} on chain {deployment.chain_id}; described in {path}",
        f"organiser {address(terms.organiser)}, who alone can propose what is paid",
        costs.line(unit),
        f"a day releases at most {unit.shown(terms.amount_per_day)}; a proposal is final {terms.window_seconds} s after it at the earliest",
    ]


def _agreed_chain(rpc: Nodes, chain_id: int | None) -> "Chain":
    """On the chain that the organiser means: a node could name another, where the same key has money. What is sent on a development
    chain counts on no other. InputError where nobody says it, click.Abort where the answer is no."""
    from incentives.chain.node import Chain

    chain = Chain.connect(rpc, chain_id, source="--chain-id", tell=note)
    if chain_id is None and chain.chain_id != DEVELOPMENT_CHAIN:
        said = f"--rpc {chain.url} says that it is on chain {chain.chain_id}, and nobody else has said so"
        if not can_ask():
            raise InputError(
                "--chain-id", None, f"{said}; nothing was sent: give it (1 is Ethereum), or the command at a terminal"
            )
        click.confirm(f"{said}. Deploy on chain {chain.chain_id}, for ever?", abort=True, err=True)
    return chain


def _check_window(chain: "Chain", seconds: int) -> None:
    if seconds < MIN_WINDOW_SECONDS and chain.chain_id != DEVELOPMENT_CHAIN:
        raise InputError(
            "--window",
            seconds,
            f"must be {MIN_WINDOW_SECONDS} at least: people and their programs have to look at proposals",
        )


def _unit_of(chain: "Chain", token: bytes) -> Unit:
    """InputError where no contract is there."""
    if not chain.has_code(token, None):
        raise InputError(
            "--token",
            to_checksum(token),
            f"is no contract on chain {chain.chain_id}: give the address of an ERC-20 there",
        )
    return TokenContract(chain, token).unit()


def _check_price(costs: Costs, unit: Unit, given: Amount | None, toml: Path) -> None:
    """InputError where run.toml, which counts in base units, may mean another price with this token: it was written before the token
    was known, and nothing can change it afterwards."""
    said = f"{toml} says unit_price_amount = {costs.unit_amount}, with this token {unit.shown(costs.unit_amount)} for a unit"
    price = None if given is None else given.base_units(unit, "--unit-price")
    if price is not None and price != costs.unit_amount:
        raise InputError(
            "--unit-price",
            str(given),
            f'{said}: write unit_price_amount = "{price}" there, before anybody joins, or give '
            f"--unit-price {unit.written(costs.unit_amount)}",
        )
    if price is None and costs.unit_amount and unit.decimals != TEST_TOKEN_UNIT.decimals:
        has = "does not say its decimals" if unit.decimals is None else f"has {unit.decimals} decimals"
        raise InputError(
            "--unit-price",
            None,
            f"the token {has}, and {said}: if that is meant give --unit-price {unit.written(costs.unit_amount)}, else write another "
            "unit_price_amount there, before anybody joins",
        )


def _check_not_deployed(description: Path) -> None:
    """StorageError where chain.json is there: who deploys anew pays nothing of what was signed for the first one."""
    if not os.path.lexists(description):
        return
    try:
        Deployment.read(description)
    except InputError as error:
        raise StorageError(
            f"{error}; only if no deploy ever ended well, move it away and give the command again"
        ) from None
    raise StorageError(f"{description} exists: this run is deployed already; move the file away first")


@click.command("fund")
@click.argument("run", type=PATH)
@storage_option
@rpc_option
@key_options("whoever pays (default with the run's directory: its organiser)", required=False)
@click.option("--amount", type=AMOUNT, required=True, help="In tokens (500), or with the suffix `base` in base units.")
@click.option(
    "--again", is_flag=True, help="Another deposit is meant, though the contract counts some that are told of nowhere."
)
@click.option("--from", "sender_text", metavar="ADDRESS", help="With --unsigned: who pays (default: the organiser).")
@unsigned_options
@fee_options
@json_option
def run_fund(
    run: Path,
    of_storage: bool,
    rpc: Nodes,
    keystore: Path | None,
    password_file: Path | None,
    amount: Amount,
    again: bool,
    sender_text: str | None,
    unsigned: bool,
    safe_batch: Path | None,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put tokens into the pool of RUN (its directory or chain.json). Nobody can take them out but by claims."""
    place = find_place(run, of_storage=of_storage)
    if unsigned:
        _show_fund(place, rpc, amount, sender_text, safe_batch, as_json)
        return
    if safe_batch is not None or sender_text is not None:
        raise click.UsageError("--safe-batch and --from go with --unsigned")
    is_organisers = keystore is None
    keystore, key = organisers_key(run, keystore, password_file)
    if is_organisers:
        _check_organiser(run, place, key)
    chain = place.connect(rpc)
    with sending(chain, key, keystore, Fees(max_fee, dry_run, as_json)):
        state = place.state(chain)
        unit = place.unit(chain, state)
        contract = SettlementContract(chain, state.settlement)
        sent = contract.fund(key, TokenContract(chain, state.token), amount.base_units(unit, "--amount"), again=again)
    after = place.state(chain)
    resumed = [each.hash for each in chain.resumed if each in sent]
    result = {
        **unit.json_value(),
        "funded": str(after.funded_amount),
        "available": str(after.available_amount),
        "transactions": [each.hash for each in sent],
        "resumed": resumed,
        "cost": str(chain.spent_amount),
    }
    show(
        as_json,
        result,
        f"funded {unit.shown(after.funded_amount)} in all, {unit.shown(after.available_amount)} not yet released",
        *_lasts(run, of_storage, after, unit),
        *(f"transaction {hash_} of a command that was broken off counts for this one" for hash_ in resumed),
        *cost_line(chain),
    )


def _show_fund(
    place: Place, rpc: Nodes, amount: Amount, sender_text: str | None, safe_batch: Path | None, as_json: bool
) -> None:
    """What a wallet elsewhere has to send."""
    chain = place.connect(rpc)
    state = place.state(chain)
    sender = state.organiser if sender_text is None else parse_address(sender_text)
    unit, token = place.unit(chain, state), TokenContract(chain, state.token)
    base_units = amount.base_units(unit, "--amount")
    calls = SettlementContract(chain, state.settlement).unsigned_fund(sender, token, base_units)
    lines = [f"{unit.shown(base_units)} from {to_checksum(sender)}, which has {unit.shown(token.balance_of(sender))}"]
    show_calls(chain.chain_id, calls, "Sparehive: fund", safe_batch, as_json, unit.json_value(), lines)


def _check_organiser(run: Path, place: Place, key: PrivateKey) -> None:
    """InputError where the run's own key is not the one that its chain.json names, though nobody else was to be the organiser."""
    from peers.runs import RunDirectory

    directory = RunDirectory(run)
    if directory.toml.is_file() and directory.load().organiser is not None:
        return
    if place.deployment is not None and place.deployment.terms.organiser != account_of(key):
        organiser = to_checksum(place.deployment.terms.organiser)
        raise InputError(
            "RUN",
            str(run),
            f"its chain.json is of organiser {organiser}, and its key is {sender_of(key)}: restore chain.json",
        )


def _lasts(run: Path, of_storage: bool, state: RunState, unit: Unit) -> list[str]:
    """What is in the pool as epochs, where run.toml says how many units one has."""
    from peers.runs import RunDirectory

    if not RunDirectory(run).toml.is_file():
        return []
    if of_storage:
        return storage_lasts(storage_of(RunDirectory(run).load()), state.available_amount, unit)
    return Costs.of(RunDirectory(run).load()).lasts(state.available_amount, unit, 60.0)


@click.command("status")
@click.argument("run", type=PATH, required=False)
@settlement_option
@invite_option
@click.option(
    "--dir", "directory", type=PATH, help="A peer's or the seed's directory: how far the run is, and when it ends."
)
@optional_rpc_option
@tables_option
@storage_option
@latest_option
@json_option
def run_status(
    run: Path | None,
    settlement: NamedSettlement | None,
    invite: str | None,
    directory: Path | None,
    rpc: Nodes | None,
    tables: Shelf,
    of_storage: bool,
    latest: bool,
    as_json: bool,
) -> None:
    """Show the periods and the money of RUN (its directory or chain.json), and what a proposal releases, to whom most and when: the
    accounts where its tables are here. With --dir also how much is left of the run; with that alone nothing else, and no node is asked."""
    course = None if directory is None else read_course(directory)
    if rpc is None and course is not None and (run, settlement, invite) == (None, None, None):
        show(as_json, course_json(course), course_line(course))
        return
    if rpc is None:
        raise click.UsageError(NEEDS_RPC)
    place = find_place(run, settlement, directory, invite, of_storage)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    if directory is not None:
        check_course_of(directory, state.run_id, of_storage)
    result, lines = _status_of(place, chain, state, invite, tables)
    if course is not None:
        result, lines = {**result, **course_json(course)}, [lines[0], course_line(course), *lines[1:]]
    show(as_json, result, *lines)


def _status_of(
    place: Place, chain: "Chain", state: RunState, invite: str | None, tables: Shelf
) -> tuple[dict[str, Any], list[str]]:
    unit = place.unit(chain, state)
    # What was sent to the address itself, not by `fund`: the contract does not count it, and nothing takes it out.
    balance = TokenContract(chain, state.token).balance_of(state.settlement, block=state.block)
    uncounted = balance - (state.funded_amount - state.claimed_amount)
    final, proposed = (payouts_here(period, tables) for period in (state.last, state.pending))
    rules = read_rules(invite, None)
    result = {
        **_state_json(state, unit, uncounted),
        "proposal": proposal_json(state, final, proposed),
        **rules_json(rules),
    }
    lines = [
        f"run 0x{state.run_id.hex()} on chain {state.chain_id}, {at_block(state)}",
        f"money: funded {unit.shown(state.funded_amount)}, released {unit.shown(state.released_amount)}, "
        f"claimed {unit.shown(state.claimed_amount)}; in token {address(state.token)}",
        *rules_lines(rules),
        f"periods: {state.num_periods} final, up to epoch {state.settled_epoch}; {_pending_text(state)}",
        *proposal_lines(state, final, proposed, unit),
    ]
    if uncounted > 0:
        lines.append(
            f"{unit.shown(uncounted)} were sent to it without `run fund`: they count for nothing and stay there"
        )
    if uncounted < 0:
        lines.append(f"{unit.shown(-uncounted)} are missing: the token has taken them, and the last claims will fail")
    return result, lines


def _state_json(state: RunState, unit: Unit, uncounted_amount: int) -> dict[str, Any]:
    return {
        "chain_id": state.chain_id,
        **reading(state),
        "settlement": address(state.settlement),
        "token": address(state.token),
        **unit.json_value(),
        "registry": address(state.registry),
        "organiser": address(state.organiser),
        "run_id": "0x" + state.run_id.hex(),
        "unit_price_amount": str(state.unit_price_amount),
        "window_seconds": state.window_seconds,
        "epochs_per_day": state.epochs_per_day,
        "units_per_epoch": state.units_per_epoch,
        "amount_per_day": str(state.amount_per_day),
        "funded": str(state.funded_amount),
        "released": str(state.released_amount),
        "claimed": str(state.claimed_amount),
        "uncounted": str(uncounted_amount),
        "settled_epoch": state.settled_epoch,
        "periods": state.num_periods,
        "last": _period_json(state.last),
        "pending": _period_json(state.pending),
    }


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


__all__ = ["run_deploy", "run_fund", "run_status"]
