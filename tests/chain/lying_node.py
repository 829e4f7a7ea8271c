"""A node that answers one method with something else: what broken nodes, proxies and gateways send."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import requests

# Bodies; what begins with "=" is put into a well-formed answer, as its result or its error.
BODIES = (b"", b"[]", b"null", b"\xff", b"<html>busy</html>", b'{"jsonrpc":"2.0","id":1}')
RESULTS = ("null", "5", '"x"', "[]", "{}", "true", '"0x' + "ff" * 33 + '"')
ERRORS = ("null", "{}", '{"code":"x","message":5}', '{"code":3,"message":"execution reverted","data":{"a":1}}')
LIES: tuple[bytes | str, ...] = (*BODIES, *(f"result={r}" for r in RESULTS), *(f"error={e}" for e in ERRORS))


class LyingNode:
    """Passes JSON-RPC on to `rpc` but for `method`, which gets `lie`. `changes`: what makes other answers of true ones, by method, from
    (parameters, result). `seen`: the methods asked for, in order. `messages`: how many came. A context manager.

    `most_calls`: in any second, each one of a batch counted; beyond it answers 429 and Retry-After. `drips`: sends its answers a byte
    a second. `takes_batches`: or not."""

    def __init__(self, rpc: str, *, most_calls: int | None = None, takes_batches: bool = True) -> None:
        self.method, self.lie, self.status, self.headers = "", b"", 200, dict[str, str]()
        self.seen: list[str] = []
        self.messages, self.refused, self.drips = 0, 0, False
        self.changes: dict[str, Callable[[list[Any], Any], Any]] = {}
        self._calls: deque[float] = deque()
        self._lock = threading.Lock()
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body)
                items = asked if isinstance(asked, list) else [asked]
                node.messages += 1
                if most_calls is not None and not node._may(len(items), most_calls):
                    self.reply(
                        b'{"jsonrpc":"2.0","error":{"code":429,"message":"slow down"}}', 429, {"Retry-After": "1"}
                    )
                    return
                node.seen += [each["method"] for each in items]
                lied = [each for each in items if each["method"] == node.method]
                if lied:
                    self.reply(node.answer(lied[0]["id"]), node.status, node.headers)
                elif isinstance(asked, list) and not takes_batches:
                    self.reply(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}}', 400)
                else:
                    told = [node.pass_on(each) for each in items]
                    self.reply(json.dumps(told if isinstance(asked, list) else told[0]).encode(), 200)

            def reply(self, answer: bytes, status: int, more: dict[str, str] | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                for name, value in (more or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                for byte in answer if node.drips else ():
                    self.wfile.write(bytes([byte]))
                    time.sleep(1)
                self.wfile.write(b"" if node.drips else answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        def pass_on(call: dict[str, Any]) -> dict[str, Any]:
            with requests.Session() as session:
                session.trust_env = False
                told = dict(session.post(rpc, json=call, timeout=30).json())
            change = node.changes.get(call["method"])
            if change is not None and "result" in told:
                told["result"] = change(call["params"], told["result"])
            return told

        self.pass_on = pass_on
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.rpc = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _may(self, calls: int, most: int) -> bool:
        with self._lock:
            now = time.monotonic()
            while self._calls and self._calls[0] < now - 1:
                self._calls.popleft()
            if len(self._calls) + calls > most:
                self.refused += 1
                return False
            self._calls.extend([now] * calls)
            return True

    def answer(self, id_: object) -> bytes:
        if isinstance(self.lie, bytes):
            return self.lie
        name, _, value = self.lie.partition("=")
        return f'{{"jsonrpc":"2.0","id":{json.dumps(id_)},"{name}":{value}}}'.encode()

    def __enter__(self) -> "LyingNode":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
