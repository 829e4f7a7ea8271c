"""model publish, list, show, verify, offer: as users call them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from incentives import sealing
from incentives.devchain import DevChain
from peers.market.shares import Card, ShareFile
from tests.chain.commands import ok, refused, sparehive
from tests.chain.market_world import TOKENS, MarketWorld


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> MarketWorld:
    return MarketWorld(tmp_path_factory.mktemp("market"), node)


def test_a_model_is_published_listed_shown_and_verified(world: MarketWorld) -> None:
    secrets = {name: sealing.new_scalar() for name in ("h1", "h2", "h3")}
    cards = [option for name, secret in secrets.items() for option in ("--holder", Card.make(world.key(name), secret))]
    data = world.account("data")
    made = world.publish("pub", "--price", "5", *cards, "--data-owner", f"{data}:12.5", "--term-days", 30)
    model = made["model"]
    assert str(model).startswith("31337:0x")
    for index, (name, path) in enumerate(zip(secrets, dict(made["shares"]).values(), strict=True)):  # type: ignore[call-overload]
        share = ShareFile.read(Path(path))
        assert (share.holder, share.account) == (index, world.account(name).lower())
        _, publication = world.contract.publication(share.model_id)
        assert sealing.point_of(share.open(secrets[name])) == publication.holders[index][1]
    (listed,) = ok("model", "list", "--chain-id", 31337, *world.rpc)["models"]
    assert (listed["model"], listed["price"], listed["threshold"]) == (model, str(5 * TOKENS), 2)
    assert listed["split_bps"] == {"contributors": 0, "parents": {}, "data_owners": [[data, 1250]], "owner": 8750}
    shown = ok("model", "show", model, *world.rpc, "--from", world.root / "pub")
    assert [file["name"] for file in shown["manifest"]["files"]] == ["config.json", "model.safetensors"]
    assert [each["bonded"] for each in shown["holders"]] == ["0", "0", "0"]
    code, out, _ = sparehive("model", "show", model, *world.rpc)
    assert code == 0 and f"12.5 % to data owner {data}" in out and "for 30 days" in out
    checked = ok("model", "verify", model, *world.rpc, "--from", world.root / "pub" / "blocks")
    assert len(checked["checked"]) == 3
    world.folder().joinpath("manifest.json").write_bytes((world.root / "pub" / "manifest.json").read_bytes())
    ok("model", "verify", model, *world.rpc, "--dir", world.folder())
    block = max((world.root / "pub" / "blocks").iterdir(), key=lambda path: path.stat().st_size)
    block.write_bytes(b"rotten")
    assert "is nowhere" in refused("model", "verify", model, *world.rpc, "--from", world.root / "pub")
    weights = world.folder() / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"\0")
    assert "is not the file of the manifest" in refused("model", "verify", model, *world.rpc, "--dir", world.folder())
    weights.write_bytes(kept)
    (world.folder() / "manifest.json").unlink()


def test_price_and_sale_are_changed_by_the_owner_alone(world: MarketWorld) -> None:
    model = world.publish("served", "--price", "2")["model"]
    assert ok("model", "offer", model, *world.rpc, *world.keys("owner"), "--price", "3")["price"] == str(3 * TOKENS)
    assert "is not the owner of this model" in refused(
        "model", "offer", model, *world.rpc, *world.keys("h1"), "--price", "1"
    )
    (call,) = ok("model", "offer", model, *world.rpc, "--closed", "--unsigned")["calls"]
    assert (call["what"], call["from"]) == ("setOffer", world.account("owner"))
    ok("model", "offer", model, *world.rpc, *world.keys("owner"), "--closed")
    listed = [each["model"] for each in ok("model", "list", "--chain-id", 31337, *world.rpc)["models"]]
    assert model not in listed
    shown = {each["model"]: each for each in ok("model", "list", "--all", "--chain-id", 31337, *world.rpc)["models"]}
    assert shown[model]["is_served"] and not shown[model]["is_open"] and shown[model]["price"] == str(3 * TOKENS)


def test_a_dry_run_leaves_nothing_and_a_broken_off_one_is_resumed(world: MarketWorld) -> None:
    options = ("--price", "1", "--name", "resumed")
    before = ok("model", "list", "--chain-id", 31337, *world.rpc)["models"]
    assert world.publish("dry", *options, "--dry-run")["dry_run"]
    assert not (world.root / "dry").exists()
    named = ("--token", "0x" + world.token.address.hex(), "--chain-id", 31337)
    unsigned = ok("model", "publish", world.folder(), "--out", world.root / "later", *named, *world.rpc, *options,
                  "--unsigned", "--wallet", world.account("owner"))  # fmt: skip
    assert [call["what"] for call in unsigned["calls"]] == ["publish"]
    assert ok("model", "list", "--chain-id", 31337, *world.rpc)["models"] == before
    again = ("model", "publish", world.folder(), "--out", world.root / "later", *named, *world.rpc)
    assert "holds a publication already" in refused(*again, *world.keys("owner"), *options)
    assert "use that key and that chain" in refused(*again, *world.keys("h1"), "--resume")
    assert ok(*again, *world.keys("owner"), "--resume")["model"] == unsigned["model"]
    assert ok(*again, *world.keys("owner"), "--resume")["cost"] == "0"
    assert unsigned["model"] in [
        each["model"] for each in ok("model", "list", "--chain-id", 31337, *world.rpc)["models"]
    ]


def test_what_is_given_wrongly_is_one_line_and_leaves_nothing(world: MarketWorld) -> None:
    token = ("--token", "0x" + world.token.address.hex())
    where = ("--out", world.root / "no", *world.rpc, *world.keys("owner"), "--chain-id", 31337)
    publish = ("model", "publish", world.folder(), *where)
    assert "--token is needed" in refused(*publish, "--price", "1", code=2)
    assert "--price is needed" in refused(*publish, *token, code=2)
    assert "there is no contract at it" in refused(*publish, "--price", "1", "--token", world.account("h1"))
    assert "needs --run" in refused(*publish, *token, "--price", "1", "--contributors", "5")
    card = Card.make(world.key("h1"), 5)
    twice = ("--holder", card, "--holder", card)
    assert "is named twice" in refused(*publish, *token, "--price", "1", *twice)
    assert "must be from 1 to the number of holders (1)" in refused(
        *publish, *token, "--price", "1", "--holder", card, "--threshold", 2
    )
    assert "is less than the price" in refused(*publish, *token, "--price", "2", "--holder", card, "--bond", "1")
    assert "has set no key on this chain" in refused(*publish, *token, "--price", "1", "--holder", world.account("h1"))
    assert "is neither an account nor a card" in refused(*publish, *token, "--price", "1", "--holder", "holder:x")
    much = ("--data-owner", f"{world.account('h1')}:60", "--data-owner", f"{world.account('h2')}:60")
    assert "is more than the whole" in refused(*publish, *token, "--price", "1", *much)
    assert "is no part" in refused(
        *publish, *token, "--price", "1", "--data-owner", f"{world.account('h1')}:1.234", code=2
    )
    assert not (world.root / "no").exists()
    assert "a node could name any chain" in refused("model", "list", *world.rpc, code=2)
    assert "is no model" in refused("model", "show", "0x12", *world.rpc, code=2)
    unknown = "31337:0x" + "00" * 32
    assert "no publication is found" in refused("model", "show", unknown, *world.rpc)


# -- a node that looks at few blocks at once --------------------------------------------------------------------------
MOST_BLOCKS = 20


@pytest.fixture
def limited(world: MarketWorld) -> Iterator[tuple[str, list[int]]]:
    """(its URL, how many blocks each question was about that it has answered)"""
    asked: list[int] = []

    class Limited(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            call = json.loads(body)
            if isinstance(call, dict) and call["method"] == "eth_getLogs":
                first, last = (int(call["params"][0][name], 16) for name in ("fromBlock", "toBlock"))
                if last - first + 1 > MOST_BLOCKS:
                    said = {"code": -32005, "message": f"query exceeds max block range {MOST_BLOCKS}"}
                    return self._answer(json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": said}).encode())
                asked.append(last - first + 1)
            request = Request(world.node.rpc, body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=20) as answer:
                self._answer(answer.read())

        def _answer(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Limited)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_node_that_looks_at_few_blocks_at_once_lists_all(world: MarketWorld, limited: tuple[str, list[int]]) -> None:
    url, asked = limited
    world.node.request("anvil_mine", "0x96")
    every = ok("model", "list", "--all", "--chain-id", 31337, *world.rpc)["models"]
    assert every
    assert ok("model", "list", "--all", "--chain-id", 31337, "--rpc", url)["models"] == every
    assert len(asked) > 150 // MOST_BLOCKS and max(asked) > MOST_BLOCKS // 2
    assert ok("model", "show", every[0]["model"], "--rpc", url)["price"] == every[0]["price"]
    late = max(each["block"] for each in every)
    only = ok("model", "list", "--all", "--since", late, "--chain-id", 31337, "--rpc", url)["models"]
    assert [each["block"] for each in only] == [late]
