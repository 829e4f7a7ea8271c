"""What a contract's refusal means and what to do about it: custom errors by name, in one line each."""

import datetime
from functools import cache
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from incentives.contracts import artifact
from incentives.errors import ChainError
from incentives.hashing import keccak
from incentives.keys import parse_address, to_checksum


class Reverted(ChainError):
    """The contract refused. `name` is its custom error ("" where it gave none), `arguments` by parameter name."""

    def __init__(self, message: str, name: str = "", arguments: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.name, self.arguments = name, arguments or {}


# Placeholders are the parameters of the error; addresses come in their checksummed form, times as UTC.
REMEDIES: dict[str, str] = {
    # Settlement
    "BadProof": "{account}: its leaf is not under the newest final root; get the newest tables and try again",
    "BadTree": "a tree with {count} leaves cannot have the root {root}; make the tables again",
    "DepositInDeposit": "the token calls back into the settlement; use a plain ERC-20",
    "EmptyPeriod": "epoch {toEpoch} is settled already (up to {settledEpoch}); settle when newer epochs are certified",
    "NoFinalPeriod": "no period is final yet: wait until the window of the first one is over, then finalise it",
    "NoProposal": "there is no proposal under way",
    "NoWork": "nobody's work is in the tables: settle when there is some; the next period covers these epochs too",
    "NotBound": "{account} is bound to no wallet: run `sparehive bind` with its wallet, then claim again",
    "NothingDue": "nothing is due to {account}: all that is final has been claimed",
    "NothingReceived": "no tokens arrived: give an amount above zero",
    "NotOrganiser": "{caller} is not the organiser of this run: use the organiser's keystore, or --unsigned where it is elsewhere",
    "OverReleased": "claims of {claimed} base units exceed the {released} released: the tables are wrong, run `sparehive verify`",
    "PaysItself": "{account} is to be paid to the settlement itself, which gives nothing back: `sparehive bind --pay-to` a wallet",
    "ProposalPending": "period {number} is proposed and not final: finalise, replace or cancel it first",
    "TooManyEpochs": "epoch {toEpoch} is beyond {most}, what the contract's age allows: settle up to there with --to-epoch",
    "TooManyReceipts": "{count} receipts for {units} units: make the tables again",
    "TooManyUnits": "{units} units, and the run's terms allow {most} in these epochs: make the tables again",
    "WindowOpen": "the window is open until {readyAt}: try again then",
    "WindowTooLong": "a window of {window} s is longer than a year; choose a shorter one",
    "WindowTooShort": "a window of {window} s is shorter than an hour: nobody could look; choose a longer one",
    "WrongAmount": "the tables pay {amount} base units, the pool is {pool}; make the tables again",
    "WrongBudget": "the tables count on {budget} base units, {available} are available; make the tables again",
    "WrongCertificates": "{count} certificates for {epochs} epochs: make the tables again",
    "WrongPayouts": "{count} accounts, from {least} to {most} are possible: make the tables again from those of the last period",
    "WrongStart": "the tables begin after epoch {fromEpoch}, settled is epoch {settledEpoch}; make the tables again",
    "ZeroArgument": "token and registry must be contracts; run, organiser, window and limits not zero",
    # PeerRegistry
    "AlreadyBound": "{peer} is bound to {wallet} already, and for ever",
    "BindingExpired": "the consent was valid until {deadline}: sign a new one",
    "NoPeerConsent": "{peer} has not consented to this wallet on this chain: sign the consent with the peer's own key",
    "NoWalletConsent": "{wallet} has not consented: sign with the wallet's own key",
    "ZeroWallet": "the zero address can own no peer",
    # ModelLicense
    "AlreadyDelivered": "key holder {holder} has delivered to {licensee} already",
    "AlreadyPublished": "this model is published already, as {model}",
    "BadPoint": "({x}, {y}) is no point of the curve alt_bn128 that can be a key",
    "BadScalar": "{value} is not below the order of the curve alt_bn128: seal the share again",
    "BondBelowPrice": "a price of {price} base units above the bond of {bond}: a key holder could gain by a wrong share; ask less",
    "BondHeld": "the bond answers for what was bought before, until {until}: take it then",
    "BondTooSmall": "{received} base units arrived, the bond is {bond}: give that much",
    "DeliveryOpen": "the key holders have until {deliverBy}: ask for the refund then",
    "DeliveryOver": "nothing is to be delivered to {licensee}, or to be shown wrong, now",
    "HasKey": "{licensee} has set its key, and for ever: buy for another account if the secret is lost",
    "HasLicenceForEver": "{licensee} has a licence for ever",
    "IsBonded": "key holder {holder} is bonded: retire it first to take its bond",
    "NoContributors": "the model {model} names no run: its contributors' part is its owner's",
    "NoKey": "{licensee} has set no such key: it has to set the key that shares are sealed to",
    "NoSuchEvidence": "this does not show that key holder {holder} delivered that to {licensee}",
    "NoToken": "there is no contract at {token}: check the address and the chain",
    "NotBonded": "key holder {holder} has no bond at stake: put it up first",
    "NotEnoughHolders": "{bonded} key holders are bonded, the key takes {threshold}: wait until more are",
    "NotForSale": "the model {model} is not for sale",
    "NotHolder": "{caller} is not that key holder of this model: use the account that was published",
    "NotOwner": "{caller} is not the owner of this model: use the account that published it",
    "NotTallied": "the run has {periods} final periods, the units of {counted} are added up: tally the rest, then publish again",
    "NothingOwed": "nothing is due to this account or part now",
    "NothingRefundable": "{licensee} has no purchase that waits for its delivery",
    "OtherToken": "the parent {parent} is not published, or is paid in another token: leave it out, or publish in its token",
    "OverPot": "{amount} base units are more than the {left} left for contributors: the run's tables promise more units than it settled",
    "PaysLicence": "{account} would be paid to the contract itself, which gives nothing back: choose another address",
    "PriceRaised": "the price is {price} base units now, {most} were allowed: look at the offer again",
    "PurchasePending": "a purchase for {licensee} is not decided yet: wait for its delivery, or ask for its refund",
    "Reentered": "the token calls back into the contract; use a plain ERC-20",
    "ShareIsRight": "the share of key holder {holder} is right",
    "TermChanged": "the term is {term} s now, {expected} s were expected: look at the offer again",
    "TooDeep": "the parent {parent} stands on three others already: leave it out",
    "TooMany": "{count} in a list, {most} are possible: name fewer",
    "WrongDelivery": "{threshold} of {holders} key holders in {deliverySeconds} s: some of those there are, within 30 days; or none at all",
    "WrongOffer": "a price of {price} base units for {term} s: more than nothing, for a century at most",
    "WrongSplit": "the parts sum to {sum} of 10000: make them sum to that",
    "ZeroPayee": "the zero address can be paid nothing",
    # ERC-20 (OpenZeppelin)
    "ERC20InsufficientBalance": "{sender} has {balance} base units of the token, {needed} are needed",
    "ERC20InsufficientAllowance": "the settlement may take {allowance} base units of the token, {needed} are needed",
    "SafeERC20FailedOperation": "the token {token} refused the transfer",
}
_TIMES = ("readyAt", "deadline", "deliverBy", "until")
_CONTRACTS = ("Settlement", "PeerRegistry", "ModelLicense", "TestToken")
_OPENZEPPELIN: list[dict[str, Any]] = [
    {
        "name": name,
        "inputs": [{"name": label, "type": type_} for type_, label in (pair.split() for pair in members.split(", "))],
    }
    for name, members in (
        ("ERC20InsufficientBalance", "address sender, uint256 balance, uint256 needed"),
        ("ERC20InsufficientAllowance", "address spender, uint256 allowance, uint256 needed"),
        ("SafeERC20FailedOperation", "address token"),
    )
]


def explain(data: bytes, otherwise: str = "") -> Reverted:
    """The error for a revert's data; `otherwise` is the node's own message, shown where the data says nothing."""
    entry = _errors().get(data[:4])
    try:
        if entry is not None:
            types = [item["type"] for item in entry["inputs"]]
            found = zip(entry["inputs"], decode(types, data[4:]), strict=True)
            arguments = {item["name"]: _shown(item, value) for item, value in found}
            name = str(entry["name"])
            shown = ", ".join(str(value) for value in arguments.values())
            text = REMEDIES[name].format(**arguments) if name in REMEDIES else shown
            return Reverted(f"refused by the contract ({name}): {text}", name, arguments)
        if data[:4] == keccak(b"Error(string)")[:4]:
            return Reverted(f"refused by the contract: {decode(['string'], data[4:])[0]}")
    except DecodingError:
        pass
    said = " ".join((otherwise or "0x" + data.hex()).split())
    return Reverted(
        f"refused by the contract without a known reason ({said[:160]}): is this the right address and chain?"
    )


# What nodes say, and what to do about it. The first that is found in their words counts.
_REMEDIES_OF_NODES = (
    (("header not found", "missing trie node", "pruned", "state not available", "unknown block", "block not found"),
     "it does not have that block's state (any more): try again, or use an archive node"),
    (("block range", "query returned more than", "too many results", "range is too large", "limit exceeded"),
     "it does not look at so much at once: use another node"),
    (("replacement transaction underpriced", "already known", "already imported"),
     "a transaction of this key with that number waits already: see `sparehive unstick`"),
    (("underpriced", "max fee per gas less than", "fee too low", "feecap"),
     "it offers too little for gas: try again, or raise --max-fee"),
    (("nonce too low", "nonce too high"), "another transaction of this key was faster, or one is missing: see `sparehive unstick`"),
    (("exceeds block gas limit", "gas limit"), "the chain takes no transaction of that size"),
    (("method not found", "does not exist", "not supported", "not available"), "it does not offer this: use another node"),
    (("unauthorized", "unauthorised", "api key", "project id", "forbidden"), "check your key for it"),
)  # fmt: skip


def refusal(said: str, code: object) -> str:
    """A sentence of what a node answered instead of a result: its own words, without a URL's keys, and what to do."""
    words = said.strip().rstrip(".:;, ")
    named = f" (code {code})" if isinstance(code, int) and not isinstance(code, bool) else ""
    if not words:
        return f"refused without saying why{named}: try again, or use another node"
    remedy = next(
        (then for parts, then in _REMEDIES_OF_NODES if any(part in words.lower() for part in parts)),
        "try again, or use another node",
    )
    return f"refused: {words[:200]}{named}: {remedy}"


@cache
def _errors() -> dict[bytes, dict[str, Any]]:
    entries = [e for name in _CONTRACTS for e in artifact(name).abi if e["type"] == "error"]
    by_selector = {}
    for entry in [*entries, *_OPENZEPPELIN]:
        signature = f"{entry['name']}({','.join(item['type'] for item in entry['inputs'])})"
        by_selector[bytes(keccak(signature.encode())[:4])] = entry
    return by_selector


def _shown(item: dict[str, Any], value: Any) -> str:
    if item["type"] == "address":
        return to_checksum(parse_address(value))
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if item["name"] in _TIMES and value < 1 << 34:
        return datetime.datetime.fromtimestamp(value, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return str(value)
