"""Published tables behind a URL: believed no more than a folder's, and never read without a limit."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from incentives import shelf
from incentives.devchain import DevChain
from incentives.errors import StorageError
from tests.chain.commands import ok, refused
from tests.chain.world import UNIT_PRICE, World


class Server:
    """Serves a folder below /tables; `status` or `endless` for what servers do wrong."""

    def __init__(self, folder: Path) -> None:
        self.status, self.endless, self.asked = 200, False, list[str]()
        self.dribbles = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                path = folder / self.path.partition("?")[0].removeprefix("/tables/")
                status = server.status if path.is_file() else 404
                self.send_response(status)
                self.end_headers()
                if status != 200:
                    return
                if not server.endless and not server.dribbles:
                    self.wfile.write(path.read_bytes())
                    return
                try:
                    while True:
                        self.wfile.write(bytes(1 if server.dribbles else 1 << 20))
                        time.sleep(0.2 * server.dribbles)
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.host = f"127.0.0.1:{self.http.server_address[1]}"
        self.url = f"http://{self.host}/tables/"


@pytest.fixture
def world(node: DevChain, tmp_path: Path) -> World:
    world = World(tmp_path, node)
    world.work(alice=2, bob=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    return world


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    made = Server(world.tables)
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join(10)


def where(world: World, url: str) -> tuple[object, ...]:
    return ("--run", world.run.root, "--tables", url, *world.rpc)


def test_an_earner_needs_a_url_alone(world: World, server: Server) -> None:
    options = where(world, server.url)
    assert ok("rewards", *options, "--account", world.account("alice"))["accounts"][0]["claimable"] == str(
        2 * UNIT_PRICE
    )
    checked = ok("verify", *options, "--invite", world.invite)
    assert checked["periods"][0]["signatures_checked"] == 4
    server.asked.clear()
    claimed = ok("claim", *options, *world.keys("alice"))
    assert claimed["paid"] == str(2 * UNIT_PRICE)
    assert server.asked == ["/tables/period-0.json"]  # once; a claim needs no evidence


def test_what_a_server_gives_must_have_the_hash_on_chain(world: World, server: Server) -> None:
    path = world.tables / "period-0.json"
    honest = path.read_bytes()
    path.write_bytes(honest.replace(str(2 * UNIT_PRICE).encode(), str(9 * UNIT_PRICE).encode()))
    for command, keys in (("rewards", ()), ("verify", ()), ("claim", world.keys("alice"))):
        assert "does not have the hash that is on chain" in refused(command, *where(world, server.url), *keys)
    path.unlink()
    assert "holds no tables of period 0" in refused("claim", *where(world, server.url), *world.keys("alice"))
    assert world.balance("alice") == 0


def test_a_server_that_fails_is_one_line(world: World, server: Server) -> None:
    server.status = 503
    secret = server.url.replace("http://", "http://user:SECRET@") + "?key=SECRET"
    line = refused("rewards", *where(world, secret))
    assert f"--tables {server.url}: period-0.json: the server answers 503: check the URL, or try later" in line
    assert "SECRET" not in line
    assert "cannot be fetched" in refused("rewards", *where(world, "http://127.0.0.1:9/tables"))
    for wrong in ("http://", "https:///folder", "http://[::1/x", "http://127.0.0.1:99999/x"):
        assert "is no URL: give http(s)://HOST/FOLDER, or a folder" in refused("rewards", *where(world, wrong))
    server.status = 200
    assert ok("rewards", *where(world, secret))["accounts"]
    assert server.asked[-1] == "/tables/period-0.json?key=SECRET"


def test_a_file_without_end_is_not_read_to_its_end(world: World, server: Server) -> None:
    server.endless = True
    site = shelf.Site(server.url)
    with pytest.raises(StorageError, match=f"period-0.json is larger than {1 << 20} bytes"):
        site.open("period-0.json", 1 << 20)


def test_a_server_that_dribbles_keeps_nobody_waiting(server: Server) -> None:
    server.dribbles = True
    site = shelf.Site(server.url, total_seconds=1.0)
    with pytest.raises(StorageError, match=f"{server.url}: period-0.json did not come within 1 s: try later"):
        site.open("period-0.json", 1 << 20)


def test_a_huge_file_in_a_folder_is_not_read(world: World) -> None:
    path = world.tables / "period-0.json"
    with open(path, "r+b") as stream:
        stream.truncate(shelf.MAX_TABLES_BYTES + 1)  # sparse: takes no space
    assert f"is larger than {shelf.MAX_TABLES_BYTES} bytes" in refused("rewards", *where(world, str(world.tables)))
