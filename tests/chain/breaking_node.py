"""A node that stops answering at a chosen moment: what lies between a command and its receipt."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import requests


class BreakingNode:
    """Passes JSON-RPC on to `rpc`, up to the `nth` transaction: that one is swallowed (`forward` False), or passed on
    (True); either way the answer never comes. `broke` is set then. A context manager."""

    def __init__(self, rpc: str, *, nth: int, forward: bool) -> None:
        self.broke, self._ended = threading.Event(), threading.Event()
        node, self._left, lock = self, nth, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                last = False
                asked = json.loads(body)
                if isinstance(asked, dict) and asked["method"] == "eth_sendRawTransaction":
                    with lock:
                        node._left -= 1
                        last = node._left == 0
                if last and not forward:
                    node.broke.set()
                    node._ended.wait(60)
                    return
                with requests.Session() as session:
                    session.trust_env = False
                    answer = session.post(rpc, data=body, headers={"Content-Type": "application/json"}, timeout=30)
                if last:
                    node.broke.set()
                    node._ended.wait(60)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.rpc = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "BreakingNode":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
