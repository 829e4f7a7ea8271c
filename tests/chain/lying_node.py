"""A node that answers one method with something else: what broken nodes, proxies and gateways send."""

import json
import threading
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
    (parameters, result). `seen`: the methods asked for, in order. A context manager."""

    def __init__(self, rpc: str) -> None:
        self.method, self.lie, self.status = "", b"", 200
        self.seen: list[str] = []
        self.changes: dict[str, Callable[[list[Any], Any], Any]] = {}
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body)
                node.seen.append(asked["method"])
                status = 200
                if asked["method"] == node.method:
                    answer, status = node.answer(asked["id"]), node.status
                else:
                    with requests.Session() as session:
                        session.trust_env = False
                        headers = {"Content-Type": "application/json"}
                        answer = session.post(rpc, data=body, headers=headers, timeout=30).content
                    change, told = node.changes.get(asked["method"]), json.loads(answer)
                    if change is not None and "result" in told:
                        told["result"] = change(asked["params"], told["result"])
                        answer = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.rpc = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

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
