"""The page of the books: one file that fetches nothing, in which an account finds its periods, its proof and its wallet."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from incentives.amounts import Unit
from incentives.devchain import DevChain
from incentives.keys import to_checksum
from incentives.merkle import hash_words
from incentives.records import packer
from incentives.tables import PayoutRow
from peers.bookpage import page
from tests.chain.commands import ok, refused
from tests.chain.test_books import state_of
from tests.chain.world import UNIT_PRICE, World


@pytest.fixture(scope="module")
def world(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two final periods and a proposal; alice is bound and has claimed the first."""
    world = World(tmp_path_factory.mktemp("books"), node)
    world.work(alice=2, bob=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    world.claim("alice")
    world.work(alice=3, bob=2, carol=4)
    world.settle()
    world.finalise()
    world.work(bob=5)
    world.settle()
    ok("books", "--run", world.run.root, "--tables", world.tables, *world.rpc, "--out", world.root / "books.html")
    return world


def data(world: World) -> dict[str, object]:
    text = (world.root / "books.html").read_text(encoding="utf-8")
    return dict(json.loads(text.split('id="data">')[1].split("</script>")[0]))


def test_it_fetches_nothing(world: World) -> None:
    text = (world.root / "books.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|\bsrc=|@import|url\(|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text


def test_what_an_account_has_earned_stands_there_with_a_proof_that_leads_to_the_root(world: World) -> None:
    found = data(world)
    wallet, claimed, index, leaf, proof = found["accounts"][world.account("alice")]  # type: ignore[index]
    assert (wallet, claimed) == (world.wallets["alice"], str(2 * UNIT_PRICE))
    assert leaf == ["5", str(5 * UNIT_PRICE), "0", "0", str(5 * UNIT_PRICE)]
    assert found["work"][world.account("bob")] == [  # type: ignore[index]
        [0, True, 1, str(UNIT_PRICE)], [1, True, 2, str(2 * UNIT_PRICE)], [2, False, 5, str(5 * UNIT_PRICE)]
    ]  # fmt: skip
    names = ("kind", "account", "a", "b", "c", "d", "e")
    pack = packer(("uint8", *PayoutRow.TYPES), names)
    at = hash_words(pack((PayoutRow.KIND, world.accounts["alice"], *map(int, leaf))))
    nodes = bytes.fromhex(str(found["nodes"]))
    from eth_hash.auto import keccak

    for sibling in (nodes[32 * n : 32 * n + 32] for n in proof):
        at = keccak(sibling + at if index & 1 else at + sibling)
        index >>= 1
    last = state_of(world).last
    assert last is not None and "0x" + at.hex() == found["root"] == "0x" + last.payouts_root.hex()


def test_a_browser_without_a_network_finds_an_account_and_a_wallet(world: World) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no browser here")
    for asked, there in (
        (world.account("bob")[:12], "0.003 SPARE-TEST"),
        (world.wallets["alice"], world.account("alice")),
    ):
        address = (world.root / "books.html").as_uri() + "#" + asked
        options = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=2000",
        )
        command = [browser, *options, f"--user-data-dir={world.root / 'browser'}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert f"<dd>{there}" in done.stdout or f"<h3>{there}</h3>" in done.stdout


def test_a_tokens_words_are_no_markup(world: World) -> None:
    text = page(state_of(world), [], {}, Unit("</script><b>", 6), "<i>me</i>")
    assert "<b>" not in text and "<i>" not in text and "\\u003cb>" in text
    assert text.count("</script>") == 2


def test_tables_that_were_changed_make_no_page(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.tables, tmp_path / "tables")
    path = tmp_path / "tables" / "period-1.json"
    path.write_bytes(path.read_bytes().replace(b'"3"', b'"9"'))
    out = tmp_path / "books.html"
    line = refused("books", "--run", world.run.root, "--tables", tmp_path / "tables", *world.rpc, "--out", out)
    assert "does not have the hash that is on chain" in line and not out.exists()
    assert to_checksum(world.accounts["alice"]) in (world.root / "books.html").read_text()
