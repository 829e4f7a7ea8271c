"""Several nodes asked as one: what they say of the chain's state has to be the same, at the same block, or nothing is believed.

A node that gives no answer is passed over and named once; one that answers otherwise than the rest stops the command. What is
sent goes to all of them. As web3's provider, below everything that reads or sends.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from incentives.chain.asking import READ_SECONDS, Endpoint
from incentives.errors import ChainError, InputError

HEAD_SECONDS = 2.0  # so long what was the newest block that all have counts as that
_TAGS = ("latest", "finalized", "safe", "pending")
_BLOCK_AT = {"eth_call": 1, "eth_getCode": 1, "eth_getBalance": 1, "eth_getTransactionCount": 1}  # in their parameters
_ANY = ("eth_gasPrice", "eth_maxPriorityFeePerGas", "eth_feeHistory", "eth_estimateGas", "eth_getTransactionByHash")
_BLOCK_SAYS = ("hash", "number", "timestamp", "baseFeePerGas")
_RECEIPT_SAYS = ("transactionHash", "blockHash", "blockNumber", "status", "gasUsed", "effectiveGasPrice")
_LOG_SAYS = ("address", "topics", "data", "blockNumber", "transactionHash", "logIndex")

Call = tuple[str, Any]


class NodesProvider(JSONBaseProvider):  # type: ignore[misc,unused-ignore]
    """`tell`: what is said of nodes that did not answer, a line each. InputError: a URL that is none, or one that stands twice."""

    def __init__(self, urls: Sequence[str], timeout_seconds: float, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._endpoints = [Endpoint(url) for url in urls]
        if len(set(urls)) < len(urls):
            twice = next(each.shown for at, each in enumerate(self._endpoints) if urls[at] in urls[:at])
            raise InputError("--rpc", twice, "is there twice: it would agree with itself; leave one out")
        self.shown = " and ".join(each.shown for each in self._endpoints)
        self._left_seconds, self._timeout_seconds, self._tell = timeout_seconds, timeout_seconds, tell
        self._silent: set[Endpoint] = set()
        self._head: tuple[str, float] | None = None

    def hide(self, text: str) -> str:
        """`text` in one line, without what of a URL may be a key."""
        for each in self._endpoints:
            text = each.hide(text)
        return text

    def renew(self) -> None:
        """Waiting for a block has a deadline of its own: what was asked meanwhile does not count."""
        self._left_seconds = self._timeout_seconds

    # -- as web3 asks -------------------------------------------------------------------------------------------------
    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        return cast(RPCResponse, self._timed([self._plain(method, params)])[0])

    def make_batch_request(self, requests: list[tuple[RPCEndpoint, Any]]) -> list[RPCResponse] | RPCResponse:
        return cast(list[RPCResponse], self._timed([self._plain(method, params) for method, params in requests]))

    # -- inside -------------------------------------------------------------------------------------------------------
    def _plain(self, method: RPCEndpoint, params: Any) -> Call:
        """As JSON has it: no bytes, no types of web3."""
        return method, json.loads(self.encode_rpc_request(method, params))["params"]

    def _timed(self, calls: list[Call]) -> list[dict[str, Any]]:
        if self._left_seconds <= 0:
            raise ChainError(
                f"--rpc {self.shown} took more than {self._timeout_seconds:.0f} s to answer what this command asked: try later, allow "
                "more (--rpc-timeout), or use a faster node"
            )
        begun = time.monotonic()
        try:
            answers = self._decided(calls, begun + self._left_seconds)
        finally:
            self._left_seconds -= time.monotonic() - begun
        # web3 looks at these
        return [{"jsonrpc": "2.0", "id": number, **answer} for number, answer in enumerate(answers)]

    def _decided(self, calls: list[Call], deadline: float) -> list[dict[str, Any]]:
        if len(self._endpoints) == 1:
            return self._endpoints[0].ask(calls, deadline)
        if calls[0][0] == "eth_sendRawTransaction":
            return [self._sent(calls[0], deadline)]
        if calls[0][0] == "eth_getBlockByNumber" and calls[0][1][0] in _TAGS:
            return [self._common_block(calls[0], deadline)]
        pinned = [self._pinned(call, deadline) for call in calls]
        told = self._ask_all(pinned, deadline)
        return [self._agreed(call, [(node, answers[at]) for node, answers in told]) for at, call in enumerate(pinned)]

    def _ask_all(
        self, calls: list[Call], deadline: float, everybody: bool = False
    ) -> list[tuple[Endpoint, list[dict[str, Any]]]]:
        """By node, of those that answer; ChainError where none does."""
        asked = [each for each in self._endpoints if everybody or each not in self._silent]
        found: queue.SimpleQueue[tuple[Endpoint, list[dict[str, Any]] | Exception]] = queue.SimpleQueue()

        def ask(node: Endpoint) -> None:
            try:
                found.put((node, node.ask(calls, deadline)))
            except Exception as error:  # handed to who waits for it
                found.put((node, error))

        for node in asked:
            threading.Thread(target=ask, args=(node,), daemon=True).start()
        answers: dict[Endpoint, list[dict[str, Any]]] = {}
        faults: dict[Endpoint, Exception] = {}
        for _ in asked:
            node, answer = found.get(timeout=max(0.0, deadline - time.monotonic()) + READ_SECONDS)
            if isinstance(answer, Exception):
                faults[node] = answer
            else:
                answers[node] = answer
        if not answers:
            raise next(faults[node] for node in asked if node in faults)
        for node, fault in faults.items():
            if not isinstance(fault, ChainError):
                raise fault
            if node not in self._silent:
                self._silent.add(node)
                self._tell(f"{fault}; read from the others alone")
        return [(node, answers[node]) for node in asked if node in answers]

    def _sent(self, call: Call, deadline: float) -> dict[str, Any]:
        """To all, those that were silent too; one that takes it is enough."""
        answers = [answers[0] for _, answers in self._ask_all([call], deadline, everybody=True)]
        self._head = None
        return next((each for each in answers if "error" not in each), answers[0])

    def _common_block(self, call: Call, deadline: float) -> dict[str, Any]:
        """The newest that all of them have, of that kind."""
        told = [(node, answers[0]) for node, answers in self._ask_all([call], deadline)]
        numbers = [int(str(a["result"]["number"]), 16) for _, a in told if isinstance(a.get("result"), dict)]
        if not numbers:
            return told[0][1]
        number = hex(min(numbers))
        again: Call = (call[0], [number, *call[1][1:]])
        found = self._agreed(again, [(node, answers[0]) for node, answers in self._ask_all([again], deadline)])
        if call[1][0] == "latest":
            self._head = number, time.monotonic()
        return found

    def _pinned(self, call: Call, deadline: float) -> Call:
        """Of the newest block: of the newest one that all have."""
        method, parameters = call
        if method == "eth_getLogs" and parameters[0].get("toBlock", "latest") == "latest":
            return method, [{**parameters[0], "toBlock": self._newest(deadline)}]
        at = _BLOCK_AT.get(method)
        if at is None or len(parameters) <= at or parameters[at] != "latest":
            return call
        return method, [*parameters[:at], self._newest(deadline), *parameters[at + 1 :]]

    def _newest(self, deadline: float) -> str:
        if self._head is None or time.monotonic() - self._head[1] > HEAD_SECONDS:
            self._common_block(("eth_getBlockByNumber", ["latest", False]), deadline)
        return self._head[0] if self._head is not None else "latest"

    def _agreed(self, call: Call, told: list[tuple[Endpoint, dict[str, Any]]]) -> dict[str, Any]:
        """What all say that say anything. ChainError names who says otherwise."""
        method = call[0]
        saying = [(node, answer) for node, answer in told if "error" not in answer or _is_revert(answer["error"])]
        if not saying:
            return told[0][1]
        if method in _ANY:
            return next((answer for _, answer in saying if answer.get("result") is not None), saying[0][1])
        if method == "eth_getTransactionCount" and "pending" in call[1]:  # one may not have heard of the last ones yet
            return max((answer for _, answer in saying), key=lambda answer: int(str(answer.get("result", "0x0")), 16))
        if method == "eth_getTransactionReceipt":
            if any(answer.get("result") is None for _, answer in saying):
                return {"result": None}  # in a block of all, or it is waited for
            self._head = None
        by_meaning: dict[str, list[Endpoint]] = {}
        for node, answer in saying:
            by_meaning.setdefault(_meaning(method, answer), []).append(node)
        if len(by_meaning) > 1:
            few = min(by_meaning.values(), key=len)
            rest = [node for nodes in by_meaning.values() for node in nodes if node not in few]
            raise ChainError(
                f"--rpc {_named(few)} says otherwise than {_named(rest)} ({method}{_block_of(call)}): one of them lies, or is on another "
                "fork; nothing of it is believed: try again, or leave out which you do not trust"
            )
        return saying[0][1]


def _named(nodes: Sequence[Endpoint]) -> str:
    return " and ".join(each.shown for each in nodes)


def _block_of(call: Call) -> str:
    at = 0 if call[0] == "eth_getBlockByNumber" else _BLOCK_AT.get(call[0])
    try:
        return f" at block {int(call[1][at], 16)}" if at is not None else ""
    except (ValueError, TypeError, IndexError):
        return ""


def _is_revert(error: Any) -> bool:
    """That the contract refuses is an answer; that the node has lost the state, or looks not that far back, is none."""
    return isinstance(error, dict) and (error.get("code") == 3 or "revert" in str(error.get("message", "")).lower())


def _meaning(method: str, answer: dict[str, Any]) -> str:
    """The same for two answers that say the same, whatever else nodes of another make add."""
    if "error" in answer:
        return f"reverted {answer['error'].get('data')}"
    result = answer["result"]
    says = {"eth_getBlockByNumber": _BLOCK_SAYS, "eth_getTransactionReceipt": _RECEIPT_SAYS}.get(method)
    if says is not None and isinstance(result, dict):
        result = [result.get(name) for name in says]
    if method == "eth_getLogs" and isinstance(result, list):
        result = [[each.get(name) for name in _LOG_SAYS] if isinstance(each, dict) else each for each in result]
    return json.dumps(result, sort_keys=True).lower()


__all__ = ["NodesProvider"]
