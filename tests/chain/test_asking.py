"""How nodes are asked: a few at a time, with patience where they ask for it, and several that have to agree. Whatever stands in the way
says what it is, and no key of a URL is seen."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from incentives.chain.asking import Endpoint, shown_url
from incentives.devchain import DevChain
from incentives.errors import ChainError, InputError
from tests.chain.commands import ok, refused, sparehive
from tests.chain.lying_node import LyingNode
from tests.chain.world import World

KEY = "8a1b2c3d4e5f60718293a4b5c6d7e8f9"


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Twelve final periods, and one that is proposed; alice is bound."""
    world = World(tmp_path_factory.mktemp("world"), node)
    world.bind("alice")
    for _ in range(12):
        world.work(alice=1, bob=1)
        world.settle()
        world.chain.advance(world.window + 1)
    return world


def where(world: World, *rpcs: str) -> tuple[object, ...]:
    given = [option for rpc in rpcs for option in ("--rpc", rpc)]
    return ("--run", world.run.root, "--tables", world.tables, *given)


def status(world: World, *rpcs: str) -> tuple[object, ...]:
    return ("run", "status", world.run.root, *(option for rpc in rpcs for option in ("--rpc", rpc)))


@pytest.mark.long
def test_ten_calls_a_second_are_enough(world: World) -> None:
    with LyingNode(world.chain.rpc, most_calls=10) as slow:
        verified = ok("verify", *where(world, slow.rpc), "--dir", world.peer("alice").root)
        assert len(verified["periods"]) == 12
        world.work(alice=1)
        options = ("--dir", world.peer("alice").root, *world.keys("organiser"), "--to-newest")
        settled = ok("settle", *where(world, slow.rpc), *options)  # makes the twelfth final and proposes the next
        assert settled["number"] == 12
        assert ok("rewards", *where(world, slow.rpc), "--dir", world.peer("alice").root)["settled_epoch"] == 13
        assert int(ok("claim", *where(world, slow.rpc), *world.keys("alice"))["paid"]) > 0
        assert slow.refused > 0, "it was never asked too much: this has tried nothing"


@pytest.mark.parametrize("takes_batches", [True, False])
def test_many_reads_are_few_messages(world: World, takes_batches: bool) -> None:
    with LyingNode(world.chain.rpc, takes_batches=takes_batches) as counting:
        ok("verify", *where(world, counting.rpc), "--dir", world.peer("alice").root)
        assert counting.seen.count("eth_call") > 12
        assert (counting.messages <= 20) == takes_batches


def test_patience_has_an_end(world: World) -> None:
    with LyingNode(world.chain.rpc) as busy:
        busy.method, busy.lie, busy.status = "eth_chainId", b"no", 429
        begun = time.monotonic()
        line = refused(*status(world, f"{busy.rpc}/v3/{KEY}"), "--rpc-timeout", 3)
        assert time.monotonic() - begun < 10 and busy.messages > 1
        assert f"--rpc {busy.rpc} asks to wait" in line and "HTTP status 429" in line and KEY not in line
        busy.headers = {"Retry-After": "3600"}
        begun = time.monotonic()
        assert "asks to wait 3600 s" in refused(*status(world, busy.rpc))
        assert time.monotonic() - begun < 10


def test_a_node_that_sends_a_byte_now_and_then_holds_nobody(world: World) -> None:
    with LyingNode(world.chain.rpc) as dripping:
        dripping.drips = True
        begun = time.monotonic()
        assert "did not answer in time" in refused(*status(world, dripping.rpc), "--rpc-timeout", 3)
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("status_", "headers", "body", "words"),
    [
        (401, {}, b'{"error":"invalid project id KEY"}', "HTTP status 401 (invalid project id …): the key for it is missing"),
        (403, {}, b"no", "HTTP status 403: the key for it is missing, wrong"),
        (407, {}, b"", "the proxy wants a password"),
        (302, {"Location": "https://login.example/KEY"}, b"", "sends on to login.example (HTTP status 302)"),
        (404, {}, b"not here", "there is no node at that path"),
        (502, {}, b"bad gateway", "refused with HTTP status 502: try later, or use another node"),
        (200, {}, b"<html>Welcome KEY</html>", "answered with a web page (HTTP status 200)"),
        (200, {}, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"header not found at KEY\\n"}}',
         "refused: header not found at … (code -32000): it does not have that block's state"),
        (200, {}, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":""}}', "refused without saying why (code -32601)"),
    ],
)  # fmt: skip
def test_each_answer_says_what_it_is(
    world: World, status_: int, headers: dict[str, str], body: bytes, words: str
) -> None:
    with LyingNode(world.chain.rpc) as lying:
        lying.method, lying.status, lying.headers = "eth_chainId", status_, headers
        lying.lie = body.replace(b"KEY", KEY.encode())
        line = refused(*status(world, f"http://user:{KEY}x@{lying.rpc[7:]}/v3/{KEY}?apikey={KEY}"))
    assert f"--rpc {lying.rpc}" in line and words in line and KEY[:8] not in line


@pytest.mark.parametrize(
    "url", [f"http://host/{KEY}\nx", f"http://host/\r{KEY}", f"http://ho st/{KEY}", f" http://host/{KEY}"]
)
def test_a_url_that_was_broken_in_copying(world: World, url: str) -> None:
    line = refused(*status(world, url))
    assert "--rpc" in line and ("holds a line break" in line or "holds a blank" in line) and KEY not in line


def test_no_key_of_a_url_is_shown() -> None:
    assert shown_url(f"https://me:{KEY}@rpc.example:8545/v3/{KEY}?k={KEY}") == "https://rpc.example:8545"
    assert shown_url(f"https://{KEY}.eth.rpc.example/") == "https://8a….eth.rpc.example"
    assert shown_url("http://[::1]:8545/x") == "http://[::1]:8545"
    hidden = Endpoint(f"https://me:{KEY}@rpc.example/v3/{KEY}/a%2Fb-secret?k=0{KEY}").hide(
        f"see\nhttps://me:{KEY}@rpc.example/v3/{KEY}/a%2Fb-secret?k=0{KEY} or a/b-secret"
    )
    assert KEY not in hidden and "secret" not in hidden and "\n" not in hidden
    for each in ("ftp://host/KEY", "http://", "KEY"):
        with pytest.raises(InputError, match="must begin with http"):
            shown_url(each)


def _asked(url: str) -> str:
    with pytest.raises(ChainError) as error:
        Endpoint(url).ask([("eth_chainId", [])], time.monotonic() + 5)
    return str(error.value)


def test_proxies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{KEY}@127.0.0.1:{dead}")
    said = _asked(f"http://node.example/{KEY}")
    assert (
        "--rpc http://node.example cannot be reached through the proxy that HTTP_PROXY names" in said
        and KEY not in said
    )
    monkeypatch.setenv("HTTP_PROXY", f"socks5://127.0.0.1:{dead}")
    said = _asked(f"http://node.example/{KEY}")
    assert "HTTP_PROXY names a SOCKS proxy, for which a package is missing: pip install pysocks" in said


def test_tls_is_told_from_plain_words(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "9",
    ]
    made += ["-subj", "/CN=127.0.0.1", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    plain, secure = (f"https://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        assert f"--rpc {plain} speaks no TLS: begin the URL with http://" in _asked(plain)
        assert f"--rpc {secure} cannot be trusted: its TLS certificate is signed by nobody that" in _asked(secure)
        assert "cannot be reached: nobody knows that host" in _asked("http://nobody.invalid")
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def two(world: World) -> Iterator[tuple[LyingNode, LyingNode]]:
    with LyingNode(world.chain.rpc) as first, LyingNode(world.chain.rpc) as second:
        yield first, second


def test_nodes_that_agree_are_read_as_one(world: World, two: tuple[LyingNode, LyingNode]) -> None:
    rpcs = [each.rpc for each in two]
    found = ok(*status(world, *rpcs))
    assert found["funded"] == ok(*status(world, world.chain.rpc))["funded"]
    assert "verified" if ok("verify", *where(world, *rpcs), "--dir", world.peer("alice").root)["ok"] else ""
    fund = ("run", "fund", world.run.root, *world.keys("organiser"), "--amount", "5base")
    for each in two:
        each.seen.clear()
    paid = ok(*fund, "--rpc", rpcs[0], "--rpc", rpcs[1])
    assert int(paid["funded"]) == int(found["funded"]) + 5
    assert all(each.seen.count("eth_sendRawTransaction") == 2 for each in two), "what is sent goes to all"
    assert "is there twice" in refused(*status(world, rpcs[0], rpcs[0]))


def _more_funded(parameters: list[Any], answer: str) -> str:
    """Of `overview`: some word of it that is not as it was. Of others: nothing."""
    return answer[:-1] + ("1" if answer[-1] == "0" else "0") if len(answer) > 1000 else answer


def test_nodes_that_disagree_are_named(world: World, two: tuple[LyingNode, LyingNode]) -> None:
    first, second = two
    second.changes["eth_call"] = _more_funded
    line = refused(*status(world, first.rpc, second.rpc))
    assert first.rpc in line and second.rpc in line and "says otherwise than" in line and "(eth_call at block " in line
    line = refused(*status(world, first.rpc, second.rpc, world.chain.rpc))
    assert f"--rpc {second.rpc} says otherwise than {first.rpc} and {world.chain.rpc}" in line
    second.changes = {"eth_getBlockByNumber": lambda _, block: {**block, "hash": "0x" + "11" * 32}}
    assert "(eth_getBlockByNumber at block " in refused(*status(world, first.rpc, second.rpc))
    second.changes = {"eth_chainId": lambda _, __: "0x1"}
    assert "says otherwise than" in refused(*status(world, first.rpc, second.rpc))


def test_one_that_lags_or_is_silent_stops_nobody(world: World, two: tuple[LyingNode, LyingNode]) -> None:
    first, second = two
    behind = int(world.chain.request("eth_blockNumber"), 16) - 1

    def older(parameters: list[Any], block: Any) -> Any:
        return second.pass_on({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": [hex(behind), False]})[
            "result"
        ] if parameters[0] in ("latest", "finalized") else block  # fmt: skip

    # pass_on itself is changed by it: its own answers name a number and stay
    second.changes["eth_getBlockByNumber"] = older
    assert ok(*status(world, first.rpc, second.rpc))["block"] == behind
    second.changes.clear()
    second.method, second.status, second.lie = "eth_call", 500, b"no"
    code, out, err = sparehive(*status(world, first.rpc, second.rpc), "--json")
    assert code == 0 and json.loads(out)["settled_epoch"]
    assert (
        err.startswith("note: ") and err.count("\n") == 1 and f"--rpc {second.rpc} refused with HTTP status 500" in err
    )


def test_the_environment_may_name_the_nodes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's key would stand in the list of processes else."""
    monkeypatch.delenv("SPAREHIVE_RPC", raising=False)
    assert "--rpc URL is needed (or SPAREHIVE_RPC in the environment)" in refused(
        "run", "status", world.run.root, code=2
    )
    monkeypatch.setenv("SPAREHIVE_RPC", world.chain.rpc)
    assert ok("run", "status", world.run.root)["chain_id"] == 31337
    monkeypatch.setenv("SPAREHIVE_RPC", "http://127.0.0.1:9")
    assert ok(*status(world, world.chain.rpc))["chain_id"] == 31337, "--rpc goes first"


def test_the_chain_is_asked_of_the_user_and_not_of_the_node(world: World) -> None:
    named = ("run", "status", "--settlement", world.deployed["settlement"], *world.rpc)
    assert "--settlement needs --chain-id, or the run's --invite" in refused(*named, code=2)
    assert ok(*named, "--chain-id", 31337)["chain_id"] == 31337
    assert ok(*named, "--invite", world.invite)["chain_id"] == 31337
    assert "is on chain 31337, the run on chain 1" in refused(*named, "--chain-id", 1)
    line = refused("run", "status", world.run.root, *world.rpc, "--chain-id", 31337, code=2)
    assert "--chain-id goes with --settlement" in line
    own = ("rewards", "--settlement", world.deployed["settlement"], *world.rpc, "--dir", world.peer("alice").root)
    assert ok(*own, "--tables", world.tables)["accounts"], "the peer's invite says it"
