"""wallet and bind: a key file of one's own, and the peer's consent to be paid to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from coincurve import PrivateKey

from incentives.chain.nodes import Nodes
from incentives.chain.registry import PeerConsent, RegistryContract
from incentives.chain.reverts import Reverted
from incentives.chain.state import RunState
from incentives.chain.unsigned import Call
from incentives.errors import ChainError, InputError
from incentives.keys import (
    LIGHT_SCRYPT,
    STRONG_SCRYPT,
    check_two_files,
    create_key,
    load_password,
    parse_address,
    to_checksum,
    unlock_key,
)
from incentives.records import account_of, sign
from peers.cli.options import (
    PATH,
    NamedSettlement,
    address,
    fee_options,
    invite_option,
    json_option,
    key_options,
    rpc_option,
    run_option,
    settlement_option,
    show,
)
from peers.cli.places import find_place
from peers.cli.signing import Fees, cost_line, open_key, resumed_by, sending, wallet_address
from peers.cli.unsigned import check_batch, show_calls, unsigned_options
from peers.consents import (
    binding_digest,
    hex_signature,
    is_by,
    make_consent,
    peer_consent,
    read_consent,
    wallet_signature_of,
    write_consent,
)
from peers.directory import PeerDirectory
from peers.payee import confirm_binding, keep_bound, read_payee

if TYPE_CHECKING:
    from incentives.chain.node import Chain


@click.command("wallet")
@key_options("the wallet")
@json_option
def wallet(keystore: Path, password_file: Path, as_json: bool) -> None:
    """Make a new wallet's key file, or show the address of the one that is there.

    A password file that is missing is made, with a random password. Keep copies of both files: there is no other way
    back to what the wallet holds."""
    if keystore.exists():
        account, made = account_of(unlock_key(keystore, password_file)), False
    else:
        check_two_files(keystore, password_file)
        chosen = password_file.exists()
        password = load_password(password_file, create=True)
        try:
            # A password that a person thought of has to be slow to try; 32 random bytes cannot be tried at all.
            account = account_of(create_key(keystore, password, STRONG_SCRYPT if chosen else LIGHT_SCRYPT))
        except BaseException:
            if not chosen:
                password_file.unlink(missing_ok=True)  # it opens nothing
            raise
        made = True
    result = {"address": to_checksum(account), "created": made, "keystore": str(keystore)}
    show(as_json, result, f"{'new wallet ' if made else ''}{result['address']} in {keystore}")


@click.command("bind")
@click.option("--dir", "directory", type=PATH, help="The peer's directory: its hot key gives its consent.")
@click.option("--consent", type=PATH, help="Instead of --dir: a consent that was made on the peer's machine.")
@click.option(
    "--write-consent",
    type=PATH,
    help="Only write the consent to this file, for the wallet's machine; with the wallet's keys here, signed by it too: then anybody "
    "may send it, and the wallet needs no coin.",
)
@click.option(
    "--wallet-signature",
    metavar="HEX",
    help="With --consent: the wallet's signature of it (see --unsigned), also of a contract that answers to ERC-1271.",
)
@click.option(
    "--wallet",
    "wallet_text",
    metavar="ADDRESS",
    help="With --write-consent or --unsigned: the wallet that may bind (default: the one that `join` named). Else: that this one is meant, "
    "not the one that was named.",
)
@run_option
@settlement_option
@invite_option
@rpc_option
@key_options("the wallet", required=False)
@click.option("--gas-keystore", type=PATH, help="Key file of whoever pays the gas; the wallet then only signs.")
@click.option("--gas-password-file", type=PATH, help="File with its password.")
@click.option("--yes", is_flag=True, help="Bind, or write the consent, without asking: for scripts.")
@click.option("--pay-to", metavar="ADDRESS", help="Also send this wallet's rewards there (0x0…0: to the wallet).")
@unsigned_options
@fee_options
@json_option
def bind(
    directory: Path | None,
    consent: Path | None,
    write_consent: Path | None,
    wallet_signature: str | None,
    wallet_text: str | None,
    run: Path | None,
    settlement: NamedSettlement | None,
    invite: str | None,
    rpc: Nodes,
    keystore: Path | None,
    password_file: Path | None,
    gas_keystore: Path | None,
    gas_password_file: Path | None,
    yes: bool,
    pay_to: str | None,
    unsigned: bool,
    safe_batch: Path | None,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bind a peer's hot key to a wallet, once and for ever: all that the peer has earned and will earn goes to that wallet, and nobody
    can change that. It asks before it sends or writes a consent; --yes says so beforehand.

    Binding after working pays the same: rewards wait. But until then whoever has the peer's key file can bind it to a wallet of theirs."""
    place = find_place(run, settlement, directory, invite)
    _check_choices(directory, consent, write_consent, pay_to)
    check_batch(unsigned, safe_batch)
    is_shown = unsigned or write_consent is not None
    may_do_without = is_shown or (consent is not None and gas_keystore is not None and pay_to is None)
    key = _wallet_key(keystore, password_file, is_shown, may_do_without)
    is_carried = consent is not None and key is None and not is_shown  # with the wallet's signature in it
    found = wallet_address(wallet_text, keystore) if key is None else account_of(key)
    owner = _owner(found, directory, consent, wallet_text)
    payer = _payer_key(gas_keystore, gas_password_file)
    paid_to = None if pay_to is None else parse_address(pay_to)
    chain = place.connect(rpc)
    state = place.state(chain)
    _check_no_contract(paid_to, state)
    given = _consent(directory, consent, state, owner, key, wallet_signature)
    owner = parse_address(given["wallet"])
    if write_consent is not None:
        confirm_binding(given["peer"], given["wallet"], yes, would_be="written")  # whoever gets the file can send it
        return _hand_over(write_consent, given, as_json)
    if unsigned:
        return _show_unsigned(chain, state, owner, given, paid_to, safe_batch, as_json)
    signers = _Signers.of(owner, key, keystore, payer, gas_keystore)
    result = _bind(chain, state, signers, given, paid_to, Fees(max_fee, dry_run, as_json), yes or is_carried)
    _tell(result, owner, directory, chain, as_json)


def _tell(result: dict[str, Any], owner: bytes, directory: Path | None, chain: "Chain", as_json: bool) -> None:
    """The owner, and the peer in --dir."""
    if directory is not None:
        keep_bound(PeerDirectory(directory), owner)
    line = f"{result['peer']} is bound to {result['wallet']}; rewards go to {result['pays_to']}"
    show(as_json, result, line, *cost_line(chain))


def _check_choices(
    directory: Path | None, consent: Path | None, write_consent: Path | None, pay_to: str | None
) -> None:
    if (directory is None) == (consent is None):
        raise click.UsageError("give either --dir or --consent")
    if write_consent is not None and (pay_to is not None or consent is not None):
        raise click.UsageError("--write-consent needs --dir, and only writes: give --pay-to where the wallet is")


def _wallet_key(
    keystore: Path | None, password_file: Path | None, is_shown: bool, may_do_without: bool
) -> PrivateKey | None:
    """None where the wallet's address is enough (`is_shown`), or it has signed the consent."""
    if password_file is not None or not (is_shown or keystore is None):
        return open_key(keystore, password_file)
    if not may_do_without:
        raise click.UsageError(
            "--keystore and --password-file of the wallet are both needed, or for a --consent that it has signed those of --gas-… alone, "
            "without --pay-to"
        )
    return None


def _payer_key(keystore: Path | None, password_file: Path | None) -> PrivateKey | None:
    """Of whoever pays the gas; None: the wallet does."""
    has_payer = keystore is not None or password_file is not None
    return open_key(keystore, password_file, "--gas-") if has_payer else None


def _hand_over(path: Path, given: dict[str, Any], as_json: bool) -> None:
    """The consent, for whoever sends it."""
    write_consent(path, given)
    signed = ", signed by both: anybody may send it" if "wallet_signature" in given else ""
    show(as_json, given, f"consent of {given['peer']} to {given['wallet']} in {path}{signed}")


def _show_unsigned(
    chain: "Chain",
    state: RunState,
    owner: bytes,
    given: dict[str, Any],
    paid_to: bytes | None,
    safe_batch: Path | None,
    as_json: bool,
) -> None:
    calls, lines = _unsigned(chain, state, owner, given, paid_to)
    to_sign = {"consent": given, "digest": "0x" + binding_digest(given, state).hex()}
    show_calls(chain.chain_id, calls, "Sparehive: bind", safe_batch, as_json, to_sign, lines)


def _check_no_contract(paid_to: bytes | None, state: RunState) -> None:
    if paid_to is not None and paid_to in (state.settlement, state.token, state.registry):
        raise InputError(
            "--pay-to", to_checksum(paid_to), "is a contract of this run, which gives nothing back: give a wallet"
        )


def _owner(found: bytes | None, directory: Path | None, consent: Path | None, wallet_text: str | None) -> bytes | None:
    """The wallet that binds: `found` by its key or address, else the one that `join` named; None: the one in the consent."""
    named = read_payee(PeerDirectory(directory)).named if directory is not None else ""
    owner = parse_address(named) if found is None and named else found
    if owner is not None:
        _check_meant(owner, wallet_text, named)
    if owner is None and consent is None:
        raise click.UsageError("--wallet is needed with --write-consent and --unsigned")
    return owner


def _consent(
    directory: Path | None,
    consent: Path | None,
    state: RunState,
    owner: bytes | None,
    key: PrivateKey | None,
    wallet_signature: str | None,
) -> dict[str, Any]:
    """Of the peer in `directory`, or out of the file, with the wallet's signature as far as that can be had."""
    if directory is not None:
        assert owner is not None
        given = make_consent(PeerDirectory(directory), state, owner)
    else:
        assert consent is not None
        given = read_consent(consent, state, owner)
    if wallet_signature is not None:
        given["wallet_signature"] = hex_signature(wallet_signature)
    if key is not None:
        wallet = parse_address(given["wallet"])
        if "wallet_signature" in given and not is_by(wallet, binding_digest(given, state), wallet_signature_of(given)):
            raise InputError("--consent", str(consent), "was changed: the wallet has not signed it so; copy it again")
        given["wallet_signature"] = "0x" + sign(key, binding_digest(given, state)).hex()
    return given


def _unsigned(
    chain: "Chain", state: RunState, owner: bytes, given: dict[str, Any], paid_to: bytes | None
) -> tuple[list[Call], list[str]]:
    """What the wallet has to send; and words for people."""
    registry, consent = RegistryContract(chain, state.registry), peer_consent(given)
    bound_to = registry.wallets_of([consent.peer])[0]
    if bound_to not in (None, owner):
        assert bound_to is not None
        raise ChainError(f"{given['peer']} is bound to {to_checksum(bound_to)} already, and for ever")
    calls = [registry.unsigned_bind(owner, consent)] if bound_to is None else []
    calls += [registry.unsigned_pay_to(owner, paid_to)] if paid_to is not None else []
    lines = [
        f"binds {given['peer']} to {given['wallet']}, for ever",
        f"or sign the digest 0x{binding_digest(given, state).hex()} with the wallet (a contract: as ERC-1271), and give it to whoever "
        "pays: --consent FILE --wallet-signature HEX --gas-keystore …",
    ]
    return calls, lines if bound_to is None else []


@dataclass(frozen=True)
class _Signers:
    """The wallet, and its key (None: it has signed the consent); and whose pays the gas, with its file."""

    owner: bytes
    wallet: PrivateKey | None
    payer: PrivateKey
    payers_keystore: Path

    @classmethod
    def of(
        cls,
        owner: bytes,
        key: PrivateKey | None,
        keystore: Path | None,
        payer: PrivateKey | None,
        payers_keystore: Path | None,
    ) -> "_Signers":
        """The wallet itself pays where nobody else does."""
        if payer is not None and payers_keystore is not None:
            return cls(owner, key, payer, payers_keystore)
        assert key is not None and keystore is not None
        return cls(owner, key, key, keystore)


def _check_meant(owner: bytes, given: str | None, named: str) -> None:
    """InputError where the key that binds is not that of the wallet that was named: nobody could mend it."""
    meant = to_checksum(parse_address(given)) if given else named
    if meant not in ("", to_checksum(owner)):
        whose = "--wallet says" if given else "this peer was told with `join --wallet`"
        raise InputError(
            "--keystore",
            to_checksum(owner),
            f"{whose} {meant}: take that wallet's key file, or give --wallet {to_checksum(owner)} if this one is meant",
        )


def _bind(
    chain: "Chain",
    state: RunState,
    signers: _Signers,
    given: dict[str, Any],
    paid_to: bytes | None,
    fees: Fees,
    is_confirmed: bool,
) -> dict[str, Any]:
    """Sends what is not done yet: the binding, and where the wallet's rewards go."""
    owner, consent = signers.owner, peer_consent(given)
    registry = RegistryContract(chain, state.registry)
    with sending(chain, signers.payer, signers.payers_keystore, fees):
        transactions = resumed_by(chain, state.registry, "bind", "bindFor")
        bound_to = registry.wallets_of([consent.peer])[0]
        if bound_to is None:
            _check_wallet_signature(chain, state, owner, given)
            confirm_binding(given["peer"], to_checksum(owner), is_confirmed or fees.is_dry)
            transactions += _send_binding(registry, signers, consent, given)
        elif bound_to != owner:
            raise ChainError(f"{given['peer']} is bound to {to_checksum(bound_to)} already, and for ever")
        if paid_to is not None:
            assert signers.wallet is not None
            transactions.append(registry.set_pay_to(signers.wallet, paid_to).hash)
    return {
        "peer": given["peer"],
        "wallet": to_checksum(owner),
        "pays_to": address(registry.payout_address(consent.peer) or owner),
        "transactions": transactions,
        "cost": str(chain.spent_amount),
    }


def _check_wallet_signature(chain: "Chain", state: RunState, owner: bytes, given: dict[str, Any]) -> None:
    """InputError where a key's signature is missing or not its own. What a contract says is the chain's to ask."""
    signature = wallet_signature_of(given)
    if not signature:
        raise InputError(
            "--consent", given["wallet"], "the wallet has not signed it: give its keys, or --wallet-signature"
        )
    if not is_by(owner, binding_digest(given, state), signature) and not chain.has_code(owner, None):
        raise InputError(
            "--wallet-signature", "0x" + signature.hex(), f"{given['wallet']} has not signed this consent with it"
        )


def _send_binding(
    registry: RegistryContract, signers: _Signers, consent: PeerConsent, given: dict[str, Any]
) -> tuple[str, ...]:
    """The transaction; none where somebody has sent the same consent meanwhile, which is as good."""
    owner = signers.owner
    try:
        if signers.payer is signers.wallet:
            return (registry.bind(signers.wallet, consent).hash,)
        return (registry.bind_for(signers.payer, owner, consent, wallet_signature_of(given)).hash,)
    except Reverted as error:
        if error.name != "AlreadyBound" or error.arguments["wallet"] != to_checksum(owner):
            raise
        return ()


__all__ = ["bind", "wallet"]
