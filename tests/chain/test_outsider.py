"""docs/verify-by-hand.md: the books checked, and a claim made, by ethers and merkletreejs alone."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from incentives.devchain import RICH_KEY, DevChain
from tests.chain.commands import ROOT
from tests.chain.world import UNIT_PRICE, World

MODULES = ROOT / "incentives" / "contracts" / "node_modules"
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "ethers").exists() or not (MODULES / "merkletreejs").exists(),
    reason="node, ethers or merkletreejs is not here: `make setup` with npm brings them",
)


@pytest.fixture
def world(node: DevChain, tmp_path: Path) -> World:
    """Two final periods, the first of them claimed by alice."""
    world = World(tmp_path, node)
    world.work(alice=2, bob=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    world.claim("alice")
    world.work(alice=3, carol=1)
    world.settle()
    world.finalise()
    return world


def outsider(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", "tests/chain/outsider.mjs", world.chain.rpc, world.deployed["settlement"], str(world.tables)]
    environment = {**os.environ, "NODE_PATH": str(MODULES)}
    return subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_an_outsider_agrees_and_claims(world: World) -> None:
    done = outsider(world, world.account("alice"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "period 0: epochs 0 to 2, 2 receipts: hash, roots, counts, payouts agree, 4 signatures" in done.stdout
    assert "3 payout leaves are proved" in done.stdout
    calldata = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("calldata "))
    world.chain.chain().send(RICH_KEY, {"to": world.deployed["settlement"], "data": calldata}, "claim")
    assert world.balance("alice") == 5 * UNIT_PRICE


def test_an_outsider_finds_what_was_changed(world: World) -> None:
    path = world.tables / "evidence-1.json"
    honest = path.read_text()
    evidence = json.loads(honest)
    pair = evidence["receipts"][0][1][0]
    pair[0] = "0x" + "11" * 20
    path.write_text(json.dumps(evidence))
    assert "signer: the tables say 0x1111" in outsider(world).stderr
    path.write_text(honest)
    tables = world.tables / "period-0.json"
    tables.write_text(tables.read_text() + " ")
    done = outsider(world)
    assert done.returncode == 1
    assert "no file here has the hash of period 0" in done.stderr
