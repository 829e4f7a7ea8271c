"""Sending to a chain: what it may cost, what is noted before it leaves, and what became of it.

Errors are ChainError, one line each: too little gas, refused by the contract (Reverted), not mined in time, and those of reading. A key is
used here and nowhere kept.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from coincurve import PrivateKey
from eth_account import Account
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import TransactionNotFound, Web3Exception, Web3RPCError
from web3.types import Wei

from incentives.amounts import coins
from incentives.chain.agreement import NodesProvider
from incentives.chain.outbox import CREATE, HARMLESS, NOTHING, Outbox, SignedTransaction, call_id
from incentives.chain.reading import Reader, web3s
from incentives.chain.reverts import Reverted
from incentives.chain.stuck import MAX_RAISES, Waiting, raised, waiting_of
from incentives.chain.terms import (
    FACTORY,
    FACTORY_CODE,
    FACTORY_COST,
    FACTORY_SIGNER,
    FACTORY_TRANSACTION,
    NO_SALT,
    created_at,
)
from incentives.chain.unsigned import Call as UnsignedCall
from incentives.errors import ChainError, InputError
from incentives.hashing import keccak
from incentives.keys import to_checksum
from incentives.records import account_of

if TYPE_CHECKING:
    from eth_typing import ChecksumAddress
    from web3.types import TxParams

GAS_MARGIN = 1.15  # over the node's estimate: what others do in the same block can make a call dearer
SEND_TRIES = 4
MAX_UNDER_WAY = 16  # transactions of one account in no block yet: beyond that a node's count is not believed
DEFAULT_MAX_FEE = 5 * 10**17  # wei for a transaction, where nobody says more
FEE_BLOCKS = 20  # whose tips the default follows
USUAL_TIP = 3 * 10**9  # wei per gas, that may be given whatever others gave

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction in a block."""

    hash: str
    block: int
    gas_used: int
    what: str = ""  # the contract's function
    to: str = ""  # whom it was sent to, checksummed
    cost_amount: int = 0  # wei that it has cost


class DryRun(Exception):
    """Nothing was sent: this is what would have been first. `cost_amount`: wei, at most."""

    def __init__(self, what: str, to: str, gas: int, cost_amount: int) -> None:
        super().__init__(
            f"{what} to {to} would be sent, and cost up to {coins(cost_amount)} ({gas} gas); nothing was sent"
        )
        self.what, self.to, self.gas, self.cost_amount = what, to, gas, cost_amount


class Chain(Reader):
    """A `Reader` that sends, too."""

    def __init__(self, web3: Web3, provider: NodesProvider, wait_seconds: float) -> None:
        super().__init__(web3, provider, wait_seconds)
        self._outboxes: dict[bytes, Outbox] = {}
        self.resumed: list[Sent] = []
        self.max_fee_amount = DEFAULT_MAX_FEE
        self.is_dry = False
        self.spent_amount = 0
        self.tell_cost: Callable[[str], None] = lambda line: None

    def use_outbox(self, key: PrivateKey, outbox: Outbox) -> None:
        """From now on what `key` sends is noted there first. Before that, what earlier commands left there is looked
        up, and waited for where it is under way; what counts by now is in `resumed`, and what never can (another one has its number) is
        forgotten. StorageError where that cannot be known."""
        self._check_torn(key, outbox)
        for signed in outbox.earlier(self.chain_id):
            with self._errors():
                sent = self._find(signed)
                if sent is None and not self._is_free(signed):
                    outbox.forget(signed)
            if sent is not None:
                self.resumed.append(sent)
        self._outboxes[account_of(key)] = outbox

    def _check_torn(self, key: PrivateKey, outbox: Outbox) -> None:
        if not outbox.torn:
            return
        with self._errors():
            # the pending block: what was sent and is in no block yet has its number, too
            count = self._web3.eth.get_transaction_count(web3s(account_of(key)), "pending")
        if outbox.may_have_left(self.chain_id, count):
            raise outbox.damaged()

    def waiting(self, key: PrivateKey, outbox: Outbox) -> list[Waiting]:
        """What of a key is in no block, by number. ChainError where the node counts more than can be."""
        self._check_torn(key, outbox)
        sender, noted = web3s(account_of(key)), outbox.earlier(self.chain_id)
        with self._errors():
            following = self._next_nonce(sender)
            count = int(self._web3.eth.get_transaction_count(sender, "latest"))
            unused = [each for each in noted if each.nonce >= count]
            known = frozenset(each.hash for each in unused if self._knows(each.hash))
        if any(each.nonce >= count + MAX_UNDER_WAY for each in unused):
            raise ChainError(
                f"{outbox.path} notes transactions far beyond the {count} of {sender} that are in blocks: use another node"
            )
        return waiting_of(count, following, noted, known)

    def replace(self, key: PrivateKey, outbox: Outbox, waiting: Waiting, *, is_cancelled: bool) -> None:
        """Sends another transaction with that number, which pays more: the same, or one that does nothing. InputError: dearer than
        `max_fee_amount`."""
        sender, offer, fees_raised = web3s(account_of(key)), waiting.offer, 0
        signed = None if is_cancelled else waiting.signed
        with self._errors(sender):
            fees = raised(self._fees(), offer)
            while True:
                call: dict[str, Any] = {"to": sender, "data": "0x", "value": 0}
                if signed is not None and offer is not None:
                    to = to_checksum(bytes.fromhex(offer.to[2:]))
                    call, gas = {"to": to, "data": offer.data, "value": offer.value}, offer.gas
                else:
                    gas = int(self._web3.eth.estimate_gas(cast("TxParams", {"from": sender, **call})) * GAS_MARGIN)
                what = NOTHING if signed is None else signed.what
                self._check_cost(sender, what, gas, fees, int(call["value"]))
                if self.is_dry:
                    raise DryRun(what, str(call["to"]), gas, gas * _price(fees))
                try:
                    self._sign_and_send(key, outbox, call, what, waiting.nonce, gas, fees)
                    return
                except Web3RPCError as error:
                    said = str(error).lower()
                    if "nonce too low" in said:
                        return  # what was missing before it was filled, and it is in a block by now
                    # sent by another program, whose offer is not known: a little more each time
                    if "underpriced" not in said or waiting.signed is not None or fees_raised == MAX_RAISES:
                        raise
                    fees_raised += 1
                    fees = {name: 2 * fee for name, fee in fees.items()}

    def wait_for(self, key: PrivateKey, nonce: int) -> None:
        """Until that number is used up, whatever used it. ChainError: not in time."""
        sender, deadline, pause = web3s(account_of(key)), time.monotonic() + self.wait_seconds, 0.05
        while True:
            self.renew()
            with self._errors():
                if int(self._web3.eth.get_transaction_count(sender, "latest")) > nonce:
                    return
            if time.monotonic() > deadline:
                raise ChainError(
                    f"number {nonce} of {sender} is in no block after {self.wait_seconds:.0f} s: wait, or give the same command again to "
                    "pay more"
                )
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def cost_of(self, hash_: str) -> int | None:
        """Wei that a transaction has cost; None where it is in no block."""
        with self._errors():
            try:
                receipt = self._web3.eth.get_transaction_receipt(HexBytes(hash_))
            except TransactionNotFound:
                return None
            return int(receipt["gasUsed"]) * int(receipt.get("effectiveGasPrice") or 0)

    def _knows(self, hash_: str) -> bool:
        try:
            self._web3.eth.get_transaction(HexBytes(hash_))
        except TransactionNotFound:
            return False
        return True

    def create(self, key: PrivateKey, init_code: bytes, what: str, salt: bytes = NO_SALT) -> bytes:
        """Address of the contract that `init_code` makes, made now where nothing stands there: the address is computed, not told.

        ChainError where the chain has no factory (see `create_factory`)."""
        made = created_at(init_code, salt)
        if self.has_code(made, None):
            return made
        if not self.has_factory():
            raise ChainError(
                f"chain {self.chain_id} has no deterministic deployment proxy at {to_checksum(FACTORY)}: --with-factory puts it there, "
                f"for {coins(FACTORY_COST)} of its coin"
            )
        self.send(key, {"to": to_checksum(FACTORY), "data": "0x" + (salt + init_code).hex()}, CREATE)
        if not self.has_code(made, None):
            raise ChainError(
                f"{what} should stand at {to_checksum(made)} now, and the node shows nothing there: use another node"
            )
        return made

    def has_factory(self) -> bool:
        with self._errors():
            return bytes(self._web3.eth.get_code(web3s(FACTORY))) == FACTORY_CODE

    def create_factory(self, key: PrivateKey) -> None:
        """Puts the factory where it stands on other chains, by the transaction that everybody sends; `key` pays for it."""
        signer = web3s(FACTORY_SIGNER)
        if self.has_factory():
            return
        with self._errors(to_checksum(account_of(key))):
            missing = FACTORY_COST - int(self._web3.eth.get_balance(signer))
            if missing > 0:
                self.send(key, {"to": signer, "value": missing}, CREATE)
            self._web3.eth.send_raw_transaction(HexBytes(FACTORY_TRANSACTION))
            self._wait("0x" + bytes(keccak(FACTORY_TRANSACTION)).hex(), CREATE, None)
        if not self.has_factory():
            raise ChainError(f"the node shows no factory at {to_checksum(FACTORY)} after it was sent: use another node")

    def transact(self, key: PrivateKey, name: str, address: bytes, function: str, *arguments: object) -> Sent:
        """Has `key` call a function of the contract `name` at that address, and waits for its block."""
        return self.send(key, self._call_data(name, address, function, *arguments), function)

    def unsigned(
        self, name: str, address: bytes, function: str, *arguments: object, sender: bytes | None = None
    ) -> UnsignedCall:
        """What `transact` would send, for somebody else to send; `sender`: who has to, None: anybody."""
        with self._errors():
            call = self._call_data(name, address, function, *arguments)
        return UnsignedCall(function, address, bytes.fromhex(str(call["data"])[2:]), sender)

    def earlier(self, key: PrivateKey, name: str, address: bytes, function: str, *arguments: object) -> Sent | None:
        """The transaction of a command that was broken off which does the same as this one would: see `use_outbox`."""
        with self._errors(to_checksum(account_of(key))):
            return self._resume(key, self._call_data(name, address, function, *arguments))

    def send(self, key: PrivateKey, call: dict[str, Any], what: str) -> Sent:
        """Estimates, checks that the account can pay for it, signs, notes, sends and waits. `call`: to, data, value; `what`: its name
        in the outbox."""
        sender = web3s(account_of(key))
        outbox = self._outboxes.get(account_of(key))
        with self._errors(sender):
            eth = self._web3.eth
            # Against the pending block: the newest one can be older than a window that has ended since.
            estimate = eth.estimate_gas(cast("TxParams", {"from": sender, **call}), "pending")
            fees = self._fees()
            gas = int(estimate * GAS_MARGIN)
            cost = self._check_cost(sender, what, gas, fees, int(call.get("value", 0)))
            self._next_nonce(sender)
            self.tell_cost(f"{what}: may cost up to {coins(cost)} of chain {self.chain_id}'s coin ({gas} gas)")
            if self.is_dry:
                raise DryRun(what, to_checksum(bytes.fromhex(str(call["to"])[2:])), gas, cost)
            for attempt in range(SEND_TRIES):
                nonce = self._next_nonce(sender)
                try:
                    hash_ = self._sign_and_send(key, outbox, call, what, nonce, gas, fees)
                    break
                except Web3RPCError as error:
                    # Another transaction of the same account came in between: only the number has to change.
                    if "nonce" not in str(error).lower() or attempt == SEND_TRIES - 1:
                        raise
            sent = replace(self._wait(hash_, what, {"from": sender, **call}), to=str(call.get("to", "")))
            self.spent_amount += sent.cost_amount
            self.tell_cost(f"{what}: cost {coins(sent.cost_amount)}, transaction {sent.hash}")
            return sent
        raise AssertionError("not reached")

    def _check_cost(self, sender: "ChecksumAddress", what: str, gas: int, fees: dict[str, int], value: int) -> int:
        """Wei that it may cost. InputError: dearer than may be; ChainError: the account has not that much."""
        cost = gas * _price(fees)
        needed, has = cost + value, int(self._web3.eth.get_balance(sender))
        if cost > self.max_fee_amount:
            raise InputError(
                "--max-fee",
                coins(self.max_fee_amount),
                f"{what} may cost up to {coins(cost)} of chain {self.chain_id}'s coin ({gas} gas), by what --rpc says: wait for a "
                "cheaper hour, ask another node, or allow more",
            )
        if has < needed:
            raise self._too_little_gas(sender, f"has {coins(has)}, this needs up to {coins(needed)}")
        return cost

    def _sign_and_send(
        self,
        key: PrivateKey,
        outbox: Outbox | None,
        call: dict[str, Any],
        what: str,
        nonce: int,
        gas: int,
        fees: dict[str, int],
    ) -> str:
        """Its hash. Noted before it leaves, where something is kept of what `key` sends."""
        values = {"chainId": self.chain_id, "nonce": nonce, "gas": gas, "value": 0, **fees, **call}
        signed = Account.sign_transaction(values, key.secret)
        raw, hash_ = "0x" + signed.raw_transaction.hex(), f"0x{signed.hash.hex()}"
        if outbox is not None:
            to = str(call.get("to", ""))
            outbox.add(SignedTransaction(self.chain_id, _call_id(call), what, nonce, hash_, raw, to))
        self._web3.eth.send_raw_transaction(signed.raw_transaction)
        return hash_

    def has_untold(self, key: PrivateKey, address: bytes) -> bool:
        """Whether an earlier command has noted a payment to that contract that none has told of."""
        outbox = self._outboxes.get(account_of(key))
        noted = outbox.earlier(self.chain_id) if outbox is not None else ()
        return any(each.to.lower() == "0x" + address.hex() and each.what not in HARMLESS for each in noted)

    def told(self, key: PrivateKey, settlement: bytes) -> int | None:
        """How much commands have told of; None where no file is kept of what `key` sends."""
        outbox = self._outboxes.get(account_of(key))
        return outbox.told(self.chain_id, "0x" + settlement.hex()) if outbox is not None else None

    def tell(self, key: PrivateKey, settlement: bytes, amount: int) -> None:
        """What the contract counts from this key is known to who gave the command, once that ends well."""
        outbox = self._outboxes.get(account_of(key))
        if outbox is not None:
            outbox.tell(self.chain_id, "0x" + settlement.hex(), amount)

    # -- inside -------------------------------------------------------------------------------------------------------
    def _call_data(self, name: str, address: bytes, function: str, *arguments: object) -> dict[str, Any]:
        data = self._contract(name, address).encode_abi(function, args=list(arguments))
        return {"to": to_checksum(address), "data": data}

    def _resume(self, key: PrivateKey, call: dict[str, Any]) -> Sent | None:
        """The transaction of an earlier command that does the same, sent again where the node lost it; None where
        there is none, or none that can count any more. For what the contract would do twice: deploy and fund."""
        outbox = self._outboxes.get(account_of(key))
        for signed in outbox.earlier(self.chain_id) if outbox is not None else ():
            if signed.call != _call_id(call):
                continue
            assert outbox is not None
            outbox.forget(signed)  # one earlier transaction is one payment: a second one asked for now is a second one
            found = self._find(signed)
            if found is None and self._is_free(signed):
                self._web3.eth.send_raw_transaction(HexBytes(signed.raw))
                found = replace(self._wait(signed.hash, signed.what, None), to=signed.to)
                self.resumed.append(found)
            if found is not None:
                return found
        return None

    def _find(self, signed: SignedTransaction) -> Sent | None:
        """What became of it, waiting while it is under way; None: the node does not know it, or it failed."""
        try:
            self._web3.eth.get_transaction(HexBytes(signed.hash))
        except TransactionNotFound:
            return None
        try:
            return replace(self._wait(signed.hash, signed.what, None), to=signed.to)
        except Reverted:
            return None

    def _is_free(self, signed: SignedTransaction) -> bool:
        """Whether its number is still to be used. If not, another transaction took it, and it can never count."""
        sender = Account.recover_transaction(signed.raw)
        return self._web3.eth.get_transaction_count(sender, "latest") <= signed.nonce

    def _wait(self, shown: str, what: str, call: dict[str, Any] | None) -> Sent:
        deadline, pause = time.monotonic() + self.wait_seconds, 0.02
        while True:
            self.renew()
            try:
                receipt = self._web3.eth.get_transaction_receipt(HexBytes(shown))
                break
            except TransactionNotFound:
                if time.monotonic() > deadline:
                    raise ChainError(
                        f"transaction {shown} was sent but is in no block after {self.wait_seconds:.0f} s: "
                        "give the same command again later to wait for it; `sparehive unstick` shows what it waits for, pays more "
                        "(--bump) or takes it back (--cancel)"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        if receipt["status"] != 1:
            if call is not None:
                self._web3.eth.call(cast("TxParams", call), receipt["blockNumber"])  # says why, as an error
            raise Reverted(f"transaction {shown} failed in block {receipt['blockNumber']}: try again")
        cost = receipt["gasUsed"] * int(receipt.get("effectiveGasPrice") or 0)
        return Sent(shown, receipt["blockNumber"], receipt["gasUsed"], what, cost_amount=cost)

    def _next_nonce(self, sender: "ChecksumAddress") -> int:
        """The number of the account's next transaction. ChainError where the node names one far beyond what the chain has: that would wait
        for ever for those before it, and could count when nobody expects it."""
        final = int(self._web3.eth.get_transaction_count(sender, "latest"))
        following = int(self._web3.eth.get_transaction_count(sender, "pending"))
        if not final <= following <= final + MAX_UNDER_WAY:
            raise ChainError(
                f"--rpc {self.url} says that the next transaction of {sender} is number {following}, and {final} are in blocks: nothing "
                "was sent; wait until those under way are in blocks, or use another node"
            )
        return following

    def _usual_tip(self) -> int:
        """The most that is tipped: twice the median of recent blocks, and `USUAL_TIP` in any case."""
        try:
            history = self._web3.eth.fee_history(FEE_BLOCKS, "latest", [50])
            tips = sorted(int(reward[0]) for reward in history.get("reward", ()) if reward)
        except (Web3RPCError, Web3Exception, IndexError, TypeError, ValueError):
            tips = []
        return max(2 * tips[len(tips) // 2] if tips else 0, USUAL_TIP)

    def _fees(self) -> dict[str, int]:
        """Twice the base fee outlasts six full blocks in a row; chains without one take the node's price. A tip is paid whatever it is, so
        the node's is not believed beyond what recent blocks' senders gave."""
        base = self._web3.eth.get_block("latest").get("baseFeePerGas")
        if base is None:
            return {"gasPrice": int(self._web3.eth.gas_price)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the node has no such method is no news for the user
            tip = int(_or(lambda: self._web3.eth.max_priority_fee, Wei(10**9)))
        tip = min(tip, self._usual_tip())
        return {"maxFeePerGas": 2 * int(base) + tip, "maxPriorityFeePerGas": tip}


def _price(fees: dict[str, int]) -> int:
    return fees.get("maxFeePerGas") or fees["gasPrice"]


def _call_id(call: dict[str, Any]) -> str:
    return call_id(str(call.get("to", "")), str(call.get("data", "")), int(call.get("value", 0)))


def _or(get: Callable[[], Found], otherwise: Found) -> Found:
    try:
        return get()
    except Web3RPCError:
        return otherwise
