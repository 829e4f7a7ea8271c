"""Amounts of whatever token a run pays in: its own decimals and symbol, wherever amounts are shown and read."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_abi.abi import encode

from incentives.amounts import Unit
from incentives.chain.deployment import Deployment
from incentives.chain.token import TokenContract
from incentives.devchain import RICH_KEY, DevChain
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of
from peers.invite import Invite
from swarm.config import dump_run
from tests.chain.commands import ROOT
from tests.chain.world import World, ok, refused, sparehive

CONTRACTS = ROOT / "incentives" / "contracts"
SUPPLY = 10**30
SIX, EIGHTEEN = encode(["uint8"], [6]), encode(["uint8"], [18])
USD = encode(["string"], ["USDX"])
Make = Callable[..., str]

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="solc needs node: `make setup` brings it")


@pytest.fixture(scope="module")
def token_code() -> bytes:
    source = (Path(__file__).parent / "OddToken.sol").read_text()
    asked = {
        "language": "Solidity",
        "sources": {"OddToken.sol": {"content": source}},
        "settings": {"evmVersion": "paris", "outputSelection": {"*": {"*": ["evm.bytecode.object"]}}},
    }
    command = ["node", "solc.mjs", "--standard-json", "--include-path", "node_modules"]
    done = subprocess.run(command, cwd=CONTRACTS, input=json.dumps(asked), capture_output=True, text=True, timeout=120)
    made = json.loads(done.stdout)
    assert "contracts" in made, done.stdout[-2000:]
    return bytes.fromhex(made["contracts"]["OddToken.sol"]["OddToken"]["evm"]["bytecode"]["object"])


@pytest.fixture(scope="module")
def make_token(node: DevChain, token_code: bytes) -> Make:
    def make(owner: str, symbol: bytes = USD, decimals: bytes = SIX) -> str:
        arguments = encode(["address", "uint256", "bytes", "bytes"], [owner, SUPPLY, symbol, decimals])
        return to_checksum(node.chain().create(RICH_KEY, token_code + arguments, "OddToken"))

    return make


def lines_of(*arguments: object) -> str:
    code, out, err = sparehive(*arguments)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, node: DevChain, make_token: Make) -> World:
    return World(tmp_path_factory.mktemp("usd"), node, make_token=make_token, unit_price=2_500_000)


def test_six_decimals_are_right_everywhere(world: World) -> None:
    """7.50 of such a token was shown as 7.5e-12."""
    run, rpc = world.run.root, world.rpc
    fund = ("run", "fund", run, *rpc, *world.keys("organiser"), "--amount")
    said = lines_of(*fund, "500.25")
    assert "funded 1,000,000,000,000,500.25 USDX in all" in said
    assert "pay for 50,000,000,000,025 such epochs" in said
    assert "--amount = '0.0000001': has more digits after the point than the token's 6 decimals" in refused(
        *fund, "0.0000001"
    )
    world.work(alice=3)
    settle = lines_of("settle", *world.settle_options())
    assert ", 3 units, 7.5 USDX to 1 accounts" in settle
    world.chain.advance(world.window + 1)
    world.bind("alice")
    assert world.claim("alice", "--dry-run")["dry_run"] is True
    said = lines_of("claim", *world.claim_options("alice"))
    assert said.startswith("7.5 USDX paid to 1 accounts") and ": 7.5 USDX to 0x" in said
    world.work(bob=2, alice=1)
    units = {"token_symbol": "USDX", "token_decimals": 6}
    proposed = world.settle()
    assert proposed["amount"] == "7500000" and units.items() <= proposed.items()
    earned = ("rewards", "--run", run, "--tables", world.tables, *rpc, "--latest")
    said = lines_of(*earned)
    assert f"{world.account('bob')}: pending 0 USDX, in window 5 USDX, claimable 0 USDX, claimed 0 USDX" in said
    assert units.items() <= ok(*earned).items()
    checked = ("verify", "--run", run, "--tables", world.tables, *rpc, "--latest")
    code, out, err = sparehive(*checked)
    assert code == 1 and "period 1: 7.5 USDX: signatures not checked" in out and "15 USDX in all" in err
    status = lines_of("run", "status", run, *rpc)
    assert "released 7.5 USDX, claimed 7.5 USDX" in status
    assert units.items() <= ok("run", "status", run, *rpc).items()
    check = lines_of("run", "check", run / "run.toml", "--deposit", 500)
    assert "a unit pays 2.5 USDX, so an epoch of 8 units costs 20 USDX" in check
    assert "500 USDX pay for 25 such epochs" in check
    assert Invite.decode(world.invite).limits.unit == Unit("USDX", 6)  # type: ignore[union-attr]


def test_a_price_that_was_written_for_other_decimals_is_not_deployed(
    tmp_path: Path, node: DevChain, world: World, make_token: Make
) -> None:
    """With the price that `run new` takes, a single unit of such a run would have released a whole pool."""
    other = tmp_path / "other"
    other.mkdir()
    dump_run(world.config.model_copy(update={"unit_price_amount": str(10**15), "name": "other"}), other / "run.toml")
    token = make_token(world.wallets["organiser"])
    deploy = ("run", "deploy", other, *world.rpc, *world.keys("organiser"), "--token", token)
    line = refused(*deploy)
    assert "the token has 6 decimals" in line and "1,000,000,000 USDX for a unit" in line
    line = refused(*deploy, "--unit-price", "0.001")
    assert 'write unit_price_amount = "1000" there' in line
    text = (other / "run.toml").read_text()
    (other / "run.toml").write_text(text.replace('"1000000000000000"', '"1000"'))
    said = lines_of(*deploy, "--unit-price", "0.001", "--amount-per-day", 50)
    assert (
        "a unit pays 0.001 USDX, so an epoch of 8 units costs 0.008 USDX; no epoch can cost more than 16,776.96 USDX"
        in said
    )
    assert "a day releases at most 50 USDX" in said
    assert Deployment.read(other / "chain.json").unit == Unit("USDX", 6)
    assert Deployment.read(other / "chain.json").terms.amount_per_day == 50 * 10**6


HOSTILE = {
    "control": (encode(["string"], ["\x1b[2J\r\nok\u202eUSD\u0301 "]), SIX, Unit("[2JokUSD", 6)),
    "long": (encode(["string"], ["W" * 10_000]), EIGHTEEN, Unit("W" * 15 + "…", 18)),
    "bytes32": (b"MKR".ljust(32, b"\0"), EIGHTEEN, Unit("MKR", 18)),
    "no text": (b"\xff" * 96, encode(["uint256"], [0]), Unit("", 0)),
    "offset": (encode(["uint256", "uint256"], [2**256 - 1, 5]), encode(["uint256"], [77]), Unit("", None)),
    "length": (encode(["uint256", "uint256"], [32, 2**255]) + b"EVIL", b"\x06", Unit("EVIL", None)),
    "refuses": (b"", b"", Unit("", None)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_a_token_says_of_itself(node: DevChain, make_token: Make, kind: str) -> None:
    symbol, decimals, unit = HOSTILE[kind]
    token = make_token(to_checksum(account_of(RICH_KEY)), symbol, decimals)
    found = TokenContract(node.chain(), parse_address(token)).unit()
    assert found == unit
    assert len(found.shown(12)) < 60 and found.shown(12).isprintable()


def test_a_token_that_says_nothing_is_paid_in_base_units(tmp_path: Path, node: DevChain, make_token: Make) -> None:
    world = World(tmp_path, node, make_token=lambda owner: make_token(owner, b"", b""), unit_price=7)
    fund = ("run", "fund", world.run.root, *world.rpc, *world.keys("organiser"), "--amount")
    assert "--amount = '5': is in tokens, and this token does not say" in refused(*fund, "5")
    assert "1,000,000,000,000,000,000,005 base units in all" in lines_of(*fund, "5base")
    assert ok("run", "status", world.run.root, *world.rpc)["token_decimals"] is None


def test_another_unit_than_at_the_deployment_is_refused(tmp_path: Path, world: World) -> None:
    """A node that says 3 decimals would have made 500 tokens a thousandth of that."""
    described = tmp_path / "chain.json"
    said = json.loads(world.run.chain.read_text())
    described.write_text(json.dumps({**said, "token_decimals": 3}))
    line = refused("run", "fund", described, *world.rpc, *world.keys("organiser"), "--amount", 5)
    assert "ask another node" in line
    del said["token_decimals"], said["token_symbol"]
    described.write_text(json.dumps(said))  # as an earlier version wrote it
    assert ok("run", "status", described, *world.rpc)["token_decimals"] == 6
