"""Commands of an earner: wallet, bind, rewards, claim, verify. They need the base install alone, no torch."""

import json
import time
from pathlib import Path
from typing import Any

import click

from incentives.claim import Standing, final_tables, prove, standings
from incentives.claim import verify as verify_books
from incentives.errors import ChainError, InputError, StorageError, TamperedError
from incentives.keys import (
    LIGHT_SCRYPT,
    STRONG_SCRYPT,
    create_key,
    key_account,
    load_key,
    load_password,
    parse_address,
    to_checksum,
)
from incentives.onchain import RunState
from incentives.publication import co_signers, find_evidence, find_tables
from incentives.records import Domain, account_of, digest, sign
from incentives.tables import Tables
from peers.cli.wallets import (
    PATH,
    Place,
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
    settlement_option,
    show,
    tables_option,
    tokens,
    wallet_address,
)
from peers.directory import PeerDirectory
from peers.netid import net_id_of

CLAIMS_PER_TRANSACTION = 40
CONSENT_SECONDS = 7 * 24 * 3600


@click.command("wallet")
@key_options("the wallet")
@json_option
def wallet(keystore: Path, password_file: Path, as_json: bool) -> None:
    """Make a new wallet's key file, or show the address of the one that is there.

    A password file that is missing is made, with a random password. Keep copies of both files: there is no other way
    back to what the wallet holds."""
    if keystore.exists():
        account, made = account_of(load_key(keystore, load_password(password_file))), False
    else:
        chosen = password_file.exists()
        password = load_password(password_file, create=True)
        # A password that a person thought of has to be slow to try; 32 random bytes cannot be tried at all.
        account = account_of(create_key(keystore, password, STRONG_SCRYPT if chosen else LIGHT_SCRYPT))
        made = True
    result = {"address": to_checksum(account), "created": made, "keystore": str(keystore)}
    show(as_json, result, f"{result['address']} in {keystore}")


@click.command("bind")
@click.option("--dir", "directory", type=PATH, help="The peer's directory: its hot key gives its consent.")
@click.option("--consent", type=PATH, help="Instead of --dir: a consent that was made on the peer's machine.")
@click.option("--write-consent", type=PATH, help="Only write the consent to this file, for the wallet's machine.")
@click.option("--wallet", "wallet_text", metavar="ADDRESS", help="With --write-consent: the wallet that may bind.")
@run_option
@settlement_option
@rpc_option
@key_options("the wallet", required=False)
@click.option("--gas-keystore", type=PATH, help="Key file of whoever pays the gas; the wallet then only signs.")
@click.option("--gas-password-file", type=PATH, help="File with its password.")
@click.option("--pay-to", metavar="ADDRESS", help="Also send this wallet's rewards there (0x0…0: to the wallet).")
@json_option
def bind(
    directory: Path | None,
    consent: Path | None,
    write_consent: Path | None,
    wallet_text: str | None,
    run: Path | None,
    settlement: str | None,
    rpc: str,
    keystore: Path | None,
    password_file: Path | None,
    gas_keystore: Path | None,
    gas_password_file: Path | None,
    pay_to: str | None,
    as_json: bool,
) -> None:
    """Bind a peer's hot key to a wallet, once and for ever: the peer's rewards go to that wallet.

    Binding after working is as good as before: rewards wait."""
    place = find_place(run, settlement, directory)
    chain = place.connect(rpc)
    state = place.state(chain)
    key = None if write_consent else open_key(keystore, password_file)
    owner = account_of(key) if key else wallet_address(wallet_text, keystore)
    if owner is None:
        raise click.UsageError("--wallet is needed with --write-consent")
    if (directory is None) == (consent is None):
        raise click.UsageError("give either --dir or --consent")
    if directory is not None:
        given = _make_consent(PeerDirectory(directory), state, owner)
    else:
        assert consent is not None
        given = _read_consent(consent, state, owner)
    if write_consent is not None:
        _write_consent(write_consent, given)
        show(as_json, given, f"consent of {given['peer']} to {given['wallet']} in {write_consent}")
        return
    assert key is not None
    peer, net_id = parse_address(given["peer"]), bytes.fromhex(given["net_id"][2:])
    deadline, signature = int(given["deadline"]), bytes.fromhex(given["signature"][2:])
    transactions = []
    bound_to = chain.wallets_of(state.registry, [peer])[0]
    if bound_to != owner:
        if bound_to is not None:
            raise ChainError(f"{given['peer']} is bound to {to_checksum(bound_to)} already, and for ever")
        if gas_keystore is not None:
            payer = open_key(gas_keystore, gas_password_file)
            own = sign(key, _binding_digest(state, owner, peer, net_id, deadline))
            sent = chain.bind_for(payer, state.registry, owner, peer, net_id, deadline, signature, own)
        else:
            sent = chain.bind(key, state.registry, peer, net_id, deadline, signature)
        transactions.append(sent.hash)
    if pay_to is not None:
        transactions.append(chain.set_pay_to(key, state.registry, parse_address(pay_to)).hash)
    result = {
        "peer": given["peer"],
        "wallet": to_checksum(owner),
        "pays_to": address(chain.payout_address(state.registry, peer)),
        "transactions": transactions,
    }
    show(as_json, result, f"{result['peer']} is bound to {result['wallet']}; rewards go to {result['pays_to']}")


@click.command("rewards")
@run_option
@settlement_option
@rpc_option
@tables_option
@click.option("--dir", "directory", type=PATH, help="A peer's directory: its account, and what its ledger has pending.")
@click.option("--account", "accounts", multiple=True, metavar="ADDRESS", help="A hot account to show; may be repeated.")
@click.option("--wallet", "wallet_text", metavar="ADDRESS", help="Show all accounts bound to this wallet.")
@click.option("--keystore", type=PATH, help="The wallet's key file, to read its address; no password is asked.")
@latest_option
@json_option
def rewards(
    run: Path | None,
    settlement: str | None,
    rpc: str,
    tables: Path,
    directory: Path | None,
    accounts: tuple[str, ...],
    wallet_text: str | None,
    keystore: Path | None,
    latest: bool,
    as_json: bool,
) -> None:
    """Show what is pending, in its window, claimable and claimed. Without a choice of accounts: everybody's."""
    place = find_place(run, settlement, directory)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    final = find_tables(tables, state.last.tables_hash, state.last.number) if state.last else None
    proposed = _proposed(state, tables)
    pending = _pending_units(directory, state)
    chosen = [parse_address(text) for text in accounts]
    hot = (
        key_account(PeerDirectory(directory).hot_key)
        if directory and PeerDirectory(directory).hot_key.exists()
        else None
    )
    if hot is not None and hot not in chosen:
        chosen.append(hot)
    everybody = sorted(
        {row.account for t in (final, proposed) if t for row in t.payouts} | pending.keys() | set(chosen)
    )
    owner = wallet_address(wallet_text, keystore)
    wallets = chain.wallets_of(state.registry, everybody, block=state.block)
    claimed = chain.claimed_of(state.settlement, everybody, block=state.block)
    found = standings(state, final, proposed, everybody, wallets, claimed)
    if chosen or owner is not None:
        found = [s for s in found if s.account in chosen or (owner is not None and s.wallet == owner)]
    rows = [_standing_json(s, pending.get(s.account, 0), state) for s in found]
    lines = [
        f"{row['account']}: pending {tokens(int(row['pending']))}, in window {tokens(int(row['in_window']))}, "
        f"claimable {tokens(int(row['claimable']))}, claimed {tokens(int(row['claimed']))}"
        + ("" if row["wallet"] else "  (bound to no wallet yet: `sparehive bind`)")
        for row in rows
    ]
    ready = state.pending.ready_at if state.pending else None
    result = {"block": state.block, "settled_epoch": state.settled_epoch, "in_window_until": ready, "accounts": rows}
    show(as_json, result, *(lines or ["nothing earned yet"]))


@click.command("claim")
@run_option
@settlement_option
@rpc_option
@tables_option
@key_options("the wallet (with --push: of whoever pays the gas)")
@click.option("--push", is_flag=True, help="Claim for everybody who is bound; money goes to their own wallets.")
@click.option("--account", "accounts", multiple=True, metavar="ADDRESS", help="Only these hot accounts.")
@json_option
def claim(
    run: Path | None,
    settlement: str | None,
    rpc: str,
    tables: Path,
    keystore: Path,
    password_file: Path,
    push: bool,
    accounts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Claim your rewards (all accounts bound to your wallet), or push them to others."""
    place = find_place(run, settlement)
    key = open_key(keystore, password_file)
    chain = place.connect(rpc)
    state = place.state(chain)
    published = final_tables(state, tables)
    assert state.last is not None
    if published.payout_tree().root != state.last.payouts_root:
        raise TamperedError("the published tables do not have the root that is on chain: do not trust this period")
    chosen = {parse_address(text) for text in accounts}
    everybody = [row.account for row in published.payouts if not chosen or row.account in chosen]
    if not everybody:
        raise InputError("--account", ", ".join(accounts) or None, "has earned nothing up to the newest final period")
    wallets = chain.wallets_of(state.registry, everybody)
    mine = [a for a, w in zip(everybody, wallets, strict=True) if w == account_of(key)]
    bound = [a for a, w in zip(everybody, wallets, strict=True) if w is not None]
    targets = bound if push else mine
    if not targets and not push:
        raise ChainError(
            f"no account in the tables is bound to wallet {to_checksum(account_of(key))}: run `sparehive bind` first"
        )
    before = dict(zip(targets, chain.claimed_of(state.settlement, targets), strict=True))
    earned = {row.account: row for row in published.payouts}
    due = [account for account in targets if earned[account].cum_claimable > before[account]]
    if not due and not push:
        raise ChainError(f"nothing is due to wallet {to_checksum(account_of(key))}: all that is final has been claimed")
    transactions = []
    for start in range(0, len(due), CLAIMS_PER_TRANSACTION):
        batch = prove(published, due[start : start + CLAIMS_PER_TRANSACTION])
        transactions.append(chain.claim(key, state.settlement, batch).hash)
    after = dict(zip(targets, chain.claimed_of(state.settlement, targets), strict=True))
    history = _history(chain, state, tables)
    rows = [
        {
            "account": to_checksum(account),
            "wallet": address(wallets[everybody.index(account)]),
            "units": earned[account].cum_units,
            "receipts": sum(row.account == account for t, _ in history for row in t.receipts),
            "co_signers": sorted({signer for _, e in history for signer in co_signers(e, account)}),
            "earned": str(earned[account].cum_earned),
            "claimed": str(after[account]),
            "paid": str(after[account] - before[account]),
        }
        for account in targets
    ]
    paid = sum(after.values()) - sum(before.values())
    result = {
        "paid": str(paid),
        "accounts": rows,
        "unbound": [to_checksum(a) for a, w in zip(everybody, wallets, strict=True) if w is None] if push else [],
        "transactions": transactions,
    }
    show(as_json, result, f"{tokens(paid)} paid to {len(due)} accounts in {len(transactions)} transactions")


@click.command("verify")
@run_option
@settlement_option
@rpc_option
@tables_option
@click.option("--dir", "directory", type=PATH, help="A peer of the run, to know from its invite who may sign.")
@invite_option
@latest_option
@json_option
def verify(
    run: Path | None,
    settlement: str | None,
    rpc: str,
    tables: Path,
    directory: Path | None,
    invite: str | None,
    latest: bool,
    as_json: bool,
) -> None:
    """Rebuild the trees from the published tables, settle again, compare with the chain. Fails at the first difference.

    With --invite (or --dir) every signature in the evidence is verified too."""
    place = find_place(run, settlement, directory)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    checked = verify_books(chain, state, tables, read_rules(invite, directory))
    if not checked:
        raise ChainError("nothing to verify yet: no period is proposed or final")
    periods = [
        {
            "number": each.period.number,
            "final": each.is_final,
            "from_epoch": each.tables.from_epoch,
            "to_epoch": each.tables.to_epoch,
            "certificates": each.period.certificates_count,
            "receipts": each.period.receipts_count,
            "payouts": each.period.payouts_count,
            "units": each.period.total_units,
            "amount": str(each.period.amount),
            "payouts_checked": each.payouts_checked,
            "signatures_checked": each.signatures_checked,
        }
        for each in checked
    ]
    result = {
        "ok": True,
        "block": state.block,
        "funded": str(state.funded_amount),
        "released": str(state.released_amount),
        "claimed": str(state.claimed_amount),
        "periods": periods,
    }
    records = sum(each.signatures_checked for each in checked)
    lines = [
        f"{len(checked)} periods up to epoch {checked[-1].tables.to_epoch}: roots, counts and sums are those on chain",
        f"signatures of {records} certificates and receipts are valid" if records else "signatures: not checked",
    ]
    show(as_json, result, *lines)


# -- helpers ----------------------------------------------------------------------------------------------------------
def _proposed(state: RunState, tables: Path) -> Tables | None:
    """The tables of the proposal under way, if they are here."""
    if state.pending is None:
        return None
    try:
        return find_tables(tables, state.pending.tables_hash, state.pending.number)
    except InputError:
        return None


def _pending_units(directory: Path | None, state: RunState) -> dict[bytes, int]:
    """Units that the peer's ledger has paid receipts for and that no period covers yet, by account."""
    if directory is None or not PeerDirectory(directory).ledger.exists():
        return {}
    rules = read_rules(None, directory)
    if rules is None:
        return {}
    from incentives.ledger import Ledger
    from incentives.settlement import receipts_after

    covered = state.pending.to_epoch if state.pending else state.settled_epoch
    units: dict[bytes, int] = {}
    with Ledger.read(PeerDirectory(directory).ledger) as ledger:
        for account, own in receipts_after(ledger, rules, covered):
            units[account] = units.get(account, 0) + own
    return units


def _standing_json(standing: Standing, pending_units: int, state: RunState) -> dict[str, Any]:
    return {
        "account": to_checksum(standing.account),
        "wallet": address(standing.wallet),
        "units": standing.units,
        "earned": str(standing.earned_amount),
        # What it will be if the pool suffices: the price is certain, the budget is not.
        "pending": str(pending_units * state.unit_price_amount),
        "pending_units": pending_units,
        "in_window": str(standing.in_window_amount),
        "claimable": str(standing.claimable_amount),
        "claimed": str(standing.claimed_amount),
    }


def _history(chain: Any, state: RunState, directory: Path) -> list[tuple[Tables, Any]]:
    """(tables, evidence) of the final periods whose files are here."""
    found = []
    for number in range(state.num_periods):
        period = chain.period(state.settlement, number, block=state.block)
        try:
            tables = find_tables(directory, period.tables_hash, number)
            found.append((tables, find_evidence(directory, number, tables)))
        except (InputError, TamperedError):
            continue
    return found


def _binding_digest(state: RunState, wallet_: bytes, peer: bytes, net_id: bytes, deadline: int) -> bytes:
    values = {"wallet": wallet_, "peer": peer, "net_id": net_id, "deadline": deadline}
    return digest(Domain(state.chain_id, state.registry), "PeerBinding", values)


def _make_consent(directory: PeerDirectory, state: RunState, owner: bytes) -> dict[str, Any]:
    """Signed by the peer's hot key; counts for a week after the newest block."""
    if not directory.hot_key.exists():
        raise InputError("--dir", str(directory.root), "holds no peer: it has no keys/hot.json")
    key = load_key(directory.hot_key, load_password(directory.hot_password))
    net_id = net_id_of(directory.identity)
    deadline = max(int(time.time()), state.block_time) + CONSENT_SECONDS
    signature = sign(key, _binding_digest(state, owner, account_of(key), net_id, deadline))
    return {
        "chain_id": state.chain_id,
        "registry": to_checksum(state.registry),
        "wallet": to_checksum(owner),
        "peer": to_checksum(account_of(key)),
        "net_id": "0x" + net_id.hex(),
        "deadline": deadline,
        "signature": "0x" + signature.hex(),
    }


def _read_consent(path: Path, state: RunState, owner: bytes) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text())
        parse_address(given["peer"])
        fields = (given["chain_id"], given["registry"], given["wallet"])
        bytes.fromhex(given["net_id"][2:] + given["signature"][2:])
        int(given["deadline"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            "--consent", str(path), "is no consent; make one with `sparehive bind --write-consent`"
        ) from None
    if fields != (state.chain_id, to_checksum(state.registry), to_checksum(owner)):
        raise InputError("--consent", str(path), f"is for chain {fields[0]}, registry {fields[1]}, wallet {fields[2]}")
    return dict(given)


def _write_consent(path: Path, given: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(given, indent=1) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None


__all__ = ["Place", "bind", "claim", "rewards", "verify", "wallet"]
