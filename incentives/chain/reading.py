"""Reading a chain, and every way in which a node says no.

Errors are ChainError, one line each: unreachable, another chain, behind, refused by the contract (Reverted), no usable answer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import BlockNotFound, ContractLogicError, Web3Exception, Web3RPCError
from web3.logs import DISCARD
from web3.middleware import ExtraDataToPOAMiddleware

from incentives.chain.agreement import NodesProvider
from incentives.chain.nodes import Nodes, in_words
from incentives.chain.reverts import explain, refusal
from incentives.contracts import artifact
from incentives.errors import ChainError
from incentives.keys import to_checksum

if TYPE_CHECKING:
    from eth_typing import ChecksumAddress
    from web3.types import BlockIdentifier, TxParams

MAX_BATCH = 500  # accounts per view call
MAX_AGE_SECONDS = 3600.0  # of the newest block: a node that is behind shows what is long over
MIN_RANGE = 16  # blocks: who refuses to look for events in so few does not look at all
DEVELOPMENT_CHAIN = 31337  # its blocks come on demand, and its time is set: it is as old as it is


class Reader:
    """One node, or several that agree, read. `connect` checks that they answer, are on the right chain and not behind."""

    def __init__(self, web3: Web3, provider: NodesProvider, wait_seconds: float) -> None:
        self._web3, self._provider, self.wait_seconds = web3, provider, wait_seconds
        self.chain_id, self.url = 0, provider.shown
        self.max_age_seconds: float | None = None
        self._most_range = 1 << 62  # blocks at once that the node looks through for events, as far as is known
        self._first_blocks: dict[bytes, int] = {}
        self._contracts: dict[tuple[str, bytes], Contract] = {}  # web3 takes 20 ms to make one of an ABI

    @classmethod
    def connect(
        cls,
        nodes: Nodes | str,
        chain_id: int | None = None,
        *,
        source: str = "",
        tell: Callable[[str], None] = lambda line: None,
    ) -> Self:
        """`source`: who says that it is `chain_id`; `tell`: what to do with a line about a node that does not answer.
        ChainError: unreachable, another chain, too far behind."""
        asked = Nodes((nodes,)) if isinstance(nodes, str) else nodes
        provider = NodesProvider(asked.urls, asked.timeout_seconds, tell)
        web3 = Web3(provider)
        # It asks for the chain's id before each call. `connect` asks once, and what is signed names its chain.
        web3.middleware_onion.remove("validation")
        web3.middleware_onion.inject(
            ExtraDataToPOAMiddleware, layer=0
        )  # Polygon, BNB and others have longer extra data
        chain = cls(web3, provider, asked.wait_seconds)
        with chain._errors():
            chain.chain_id = web3.eth.chain_id
        if chain_id is not None and chain.chain_id != chain_id:
            raise ChainError(
                f"--rpc {chain.url} is on chain {chain.chain_id}, the run on chain {chain_id}{f' ({source})' if source else ''}: use a "
                "node of that"
            )
        chain.max_age_seconds = asked.max_age_seconds
        chain.check_age()
        return chain

    def check_age(self) -> None:
        """ChainError where the newest block is older than `max_age_seconds`: the node has stopped following its chain."""
        max_age_seconds = self.max_age_seconds
        if max_age_seconds is None:
            if self.chain_id == DEVELOPMENT_CHAIN:
                return
            max_age_seconds = MAX_AGE_SECONDS
        number, block_time = self.block(finalised=False)
        age = time.time() - block_time
        if age > max_age_seconds:
            raise ChainError(
                f"--rpc {self.url} is behind: its newest block {number} is {in_words(age)} old: use a node that keeps up, set this "
                "machine's clock right, or allow it with --max-age"
            )

    def renew(self) -> None:
        """Who waits for a block, with a deadline of its own, does not use up what a command may wait for answers."""
        self._provider.renew()

    def block(self, *, finalised: bool) -> tuple[int, int]:
        """(number, unix time) of the newest block, or of the newest that no reorganisation can undo.

        Nodes that know no finality answer with the newest for both."""
        with self._errors():
            try:
                found = self._web3.eth.get_block("finalized" if finalised else "latest")
            except (BlockNotFound, Web3RPCError):
                found = self._web3.eth.get_block("latest")
            return int(found["number"]), int(found["timestamp"])

    def call(self, name: str, address: bytes, function: str, *arguments: object, block: int | None = None) -> Any:
        """What a view function of the contract `name` at that address answers; a struct as a dict by field name."""
        with self._errors():
            bound = getattr(self._contract(name, address).functions, function)(*arguments)
            return _named(bound.call(block_identifier="latest" if block is None else block), bound.abi["outputs"])

    def answer(self, address: bytes, data: bytes, *, block: int | None = None) -> bytes:
        """The bytes that a contract of unknown kind answers to this call; nothing where it refuses it, or there is none."""
        call = cast("TxParams", {"to": web3s(address), "data": "0x" + data.hex()})
        with self._errors():
            try:
                return bytes(self._web3.eth.call(call, "latest" if block is None else block))
            except ContractLogicError:
                return b""
            except Web3RPCError as error:  # what old compilers made of a refusal, and what never ends
                if any(
                    word in str(error).lower()
                    for word in ("revert", "opcode", "out of gas", "outofgas", "invalid jump")
                ):
                    return b""
                raise

    def call_many(
        self, name: str, address: bytes, function: str, accounts: Sequence[bytes], block: int | None
    ) -> list[Any]:
        """As `call`, of a function that takes accounts and answers one value each."""
        shown = [to_checksum(account) for account in accounts]
        chunks = [(shown[start : start + MAX_BATCH],) for start in range(0, len(shown), MAX_BATCH)]
        return [each for found in self.call_each(name, address, function, chunks, block=block) for each in found]

    def call_each(
        self, name: str, address: bytes, function: str, calls: Sequence[Sequence[object]], *, block: int | None
    ) -> list[Any]:
        """As `call`, once for each of `calls` (the arguments), in few messages."""
        if len(calls) < 2:
            return [self.call(name, address, function, *arguments, block=block) for arguments in calls]
        functions = self._contract(name, address).functions
        with self._errors(), self._web3.batch_requests() as batch:
            bound = [getattr(functions, function)(*arguments) for arguments in calls]
            for each in bound:
                batch.add(each.call(block_identifier="latest" if block is None else block))
            found = batch.execute()
            return [_named(value, each.abi["outputs"]) for value, each in zip(found, bound, strict=True)]

    def events(
        self, name: str, address: bytes, event: str, filters: dict[str, object], *, from_block: int = 0
    ) -> list[tuple[int, dict[str, Any]]]:
        """(block, arguments) of every such event of the contract since that block. ChainError too where the node does not look that far
        back."""
        with self._errors():
            kind = getattr(self._contract(name, address).events, event)
            logs = kind.get_logs(from_block=from_block, argument_filters=filters)
            return [(int(log["blockNumber"]), dict(log["args"])) for log in logs]

    def events_by_ranges(
        self,
        name: str,
        address: bytes,
        event: str,
        filters: dict[str, object],
        *,
        from_block: int = 0,
        to_block: int | None = None,
        tell: Callable[[float], None] = lambda share: None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """As `events`, up to `to_block` (the newest, where none is given), asked for in as few ranges of blocks as the node answers:
        all at once, and in smaller ones where it refuses that. Each has the time of a whole command; `tell` is given the share that is
        done. ChainError where it refuses the smallest, too."""
        kind = getattr(self._contract(name, address).events, event)
        last = self.block(finalised=False)[0] if to_block is None else to_block
        at, refused_span = from_block, 0
        span = min(max(1, last - from_block + 1), self._most_range)
        while at <= last:
            self.renew()
            end = min(last, at + span - 1)
            with self._errors():
                try:
                    logs = kind.get_logs(from_block=at, to_block=end, argument_filters=filters)
                except Web3RPCError:
                    refused_span = span
                    if span <= MIN_RANGE:
                        raise
                    self._most_range = span = max(MIN_RANGE, span // 4)
                    logs = None
            if logs is None:  # there are no events before there was a contract
                at = max(at, self.first_block(address)) if at == 0 else at
                continue
            yield from [(int(log["blockNumber"]), dict(log["args"])) for log in logs]
            at = end + 1
            tell((at - from_block) / max(1, last - from_block + 1))
            if 2 * span < refused_span:
                self._most_range = span = 2 * span

    def first_block(self, address: bytes) -> int:
        """Of those that have a contract at `address`, by halving; 0 where the node does not tell what was long ago."""
        if address not in self._first_blocks:
            self._first_blocks[address] = self._first_block(address)
        return self._first_blocks[address]

    def _first_block(self, address: bytes) -> int:
        low, high = 0, self.block(finalised=False)[0]
        try:
            while low < high:
                self.renew()
                middle = (low + high) // 2
                low, high = (low, middle) if self.has_code(address, middle) else (middle + 1, high)
        except ChainError:
            return 0
        return low

    def events_in(self, hash_: str, name: str, address: bytes, event: str) -> list[dict[str, Any]]:
        """As `events`, of a transaction that is in a block."""
        with self._errors():
            kind = getattr(self._contract(name, address).events, event)()
            found = kind.process_receipt(self._web3.eth.get_transaction_receipt(HexBytes(hash_)), errors=DISCARD)
            return [dict(log["args"]) for log in found if log["address"] == to_checksum(address)]

    def has_code(self, address: bytes, block: int | None) -> bool:
        """Whether there is a contract at `address`; at the newest block where none is given."""
        with self._errors():
            at: BlockIdentifier = "latest" if block is None else block
            return bool(self._web3.eth.get_code(web3s(address), at))

    def is_code(self, name: str, address: bytes, block: int | None = None) -> bool:
        """Whether the contract at `address` is `name` of this version."""
        with self._errors():
            at: BlockIdentifier = "latest" if block is None else block
            return artifact(name).is_code(bytes(self._web3.eth.get_code(web3s(address), at)))

    # -- inside -------------------------------------------------------------------------------------------------------
    def _contract(self, name: str, address: bytes) -> Contract:
        if (known := self._contracts.get((name, address))) is not None:
            return known
        made = self._web3.eth.contract(address=web3s(address), abi=artifact(name).abi)
        return self._contracts.setdefault((name, address), made)

    def _too_little_gas(self, sender: str, what: str) -> ChainError:
        return ChainError(
            f"too little gas: {sender} {what} of chain {self.chain_id}'s coin: send it some and try again"
        )

    @contextmanager
    def _errors(self, sender: str = "") -> Iterator[None]:
        try:
            yield
        except ContractLogicError as error:
            data = error.data if isinstance(error.data, str) else ""
            raise explain(_hex(data), self._provider.hide(str(error.message or error))) from None
        except Web3RPCError as error:
            said, code = _said_by(error)
            if "insufficient funds" in said.lower() and sender:
                raise self._too_little_gas(sender, "has not enough") from None
            raise ChainError(f"--rpc {self.url} {refusal(self._provider.hide(said), code)}") from None
        # What web3 makes of an answer that is no answer: it looks for fields in whatever came.
        except (Web3Exception, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            said = self._provider.hide(str(error))
            raise ChainError(
                f"--rpc {self.url} gave no usable answer ({said[:160]}): is it a node, and the address right?"
            ) from None


def _said_by(error: Web3RPCError) -> tuple[str, object]:
    """(the node's words, its code), whatever it has put into them."""
    told: Any = (error.rpc_response or {}).get("error")
    if not isinstance(told, dict):
        return str(error.message or ""), None
    said = told.get("message")
    return said if isinstance(said, str) else "", told.get("code")


def web3s(account: bytes) -> "ChecksumAddress":
    """An address in the type that web3 asks for."""
    return cast("ChecksumAddress", to_checksum(account))


def _named(value: Any, outputs: Sequence[Any]) -> Any:
    """A struct as a dict by field name, whatever shape web3 gives it; other values as they are."""
    if len(outputs) != 1 or outputs[0]["type"] != "tuple":
        return value
    return _struct(value, outputs[0]["components"])


def _struct(value: Any, components: Sequence[Any]) -> dict[str, Any]:
    found = {}
    for component, item in zip(components, value, strict=True):
        found[component["name"]] = _struct(item, component["components"]) if component["type"] == "tuple" else item
    return found


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        return b""


__all__ = ["DEVELOPMENT_CHAIN", "Reader", "web3s"]
