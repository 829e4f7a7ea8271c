"""The proxy of a licensee as a process: who listens for others is told what that means; Ctrl-C ends it in seconds, whatever is open; a
second one at once."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from tests.chain.commands import ok, own_process_started

MODEL = "31337:0x" + "11" * 32
SECONDS = 15.0  # of the machine's too, which may be busy; without a bound it was a minute and more
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def with_an_open_stream(root: Path) -> Iterator[Popen[str]]:
    """`model proxy` in the middle of an answer that does not end."""
    keys = ("--keystore", root / "key.json", "--password-file", root / "key.password")
    ok("wallet", *keys)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        url = f"http://127.0.0.1:{upstream.getsockname()[1]}"
        command = ("model", "proxy", MODEL, "--url", url, "--listen", "127.0.0.1:0", "--json", *keys)
        process = own_process_started(*command, cwd=root)
        try:
            assert process.stdout is not None
            port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=30) as program:
                program.sendall(POST + b"Content-Length: 2\r\n\r\n{}")
                upstream.settimeout(30)
                theirs, _ = upstream.accept()
                with theirs:
                    theirs.recv(1 << 16)
                    theirs.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    )
                    theirs.sendall(b"9\r\ndata: 1\n\n\r\n")
                    assert b"200" in program.recv(1 << 16)
                    yield process
        finally:
            process.kill()
            process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_open_stream_does_not_hold_it(tmp_path: Path, number: signal.Signals) -> None:
    with with_an_open_stream(tmp_path) as process:
        begun = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=150)
        assert (process.returncode, "Traceback" in err) == (0, False), err
        assert time.monotonic() - begun < SECONDS


def test_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    with with_an_open_stream(tmp_path) as process:
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(("host", "is_for_others"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_who_listens_for_others_is_told_so(tmp_path: Path, host: str, is_for_others: bool) -> None:
    keys = ("--keystore", tmp_path / "key.json", "--password-file", tmp_path / "key.password")
    ok("wallet", *keys)
    command = ("model", "proxy", MODEL, "--url", "http://127.0.0.1:9", "--listen", f"{host}:0", *keys)
    process = own_process_started(*command, cwd=tmp_path)
    try:
        assert process.stdout is not None and "passes on" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert ("whoever can connect there asks in the licensee's name" in err) == is_for_others
    assert process.returncode == 0 and err.count("\n") == is_for_others
