"""`rewards` and `claim` need the base install alone. `.ci/base_install` does it in a really fresh environment."""

import json
import resource
import subprocess
import sys
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from incentives.devchain import DevChain, find_tool
from incentives.keys import to_checksum
from tests.chain.commands import ROOT
from tests.chain.market_world import MarketWorld
from tests.chain.world import UNIT_PRICE, World

PEER_ONLY = (
    "torch", "hivemind", "transformers", "numpy", "bitsandbytes", "safetensors", "tokenizers", "matplotlib", "psutil",
)  # fmt: skip
START_SECONDS = (
    20.0  # 2 s is the aim on a free machine, which .ci/base_install checks; this one runs beside other tests
)

# Whatever only [peer] brings is as if it were not installed.
BLOCKED = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {PEER_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])
sys.meta_path.insert(0, Blocker())
sys.argv[0] = "sparehive"
from peers.cli import main
main()
"""


def blocked(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, timeout=120
    )


def test_an_earner_needs_nothing_of_a_peer(tmp_path: Path) -> None:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    (tmp_path / "run").mkdir()
    with DevChain() as node:
        world = World(tmp_path / "run", node)
        world.work(alice=2)
        world.settle()
        world.finalise()
        where = (
            "--settlement",
            world.deployed["settlement"],
            "--chain-id",
            31337,
            "--tables",
            world.tables,
            *world.rpc,
            "--json",
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = blocked("rewards", *where, cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert (shown.returncode, shown.stderr) == (0, "")
        assert json.loads(shown.stdout)["accounts"][0]["claimable"] == str(2 * UNIT_PRICE)
        assert seconds < START_SECONDS
        bound = blocked(
            "bind", "--yes", "--run", world.run.root, "--dir", world.peer("alice").root, *world.rpc, *world.keys("alice"),
            cwd=tmp_path,
        )  # fmt: skip
        assert (bound.returncode, bound.stderr) == (0, "")
        claimed = blocked("claim", *where, *world.keys("alice"), cwd=tmp_path)
        assert (claimed.returncode, claimed.stderr) == (0, "")
        assert world.balance("alice") == 2 * UNIT_PRICE
        verified = blocked("verify", *where, "--invite", world.invite, cwd=tmp_path)
        assert (verified.returncode, verified.stderr) == (0, "")
        assert json.loads(verified.stdout)["ok"] is True


@pytest.mark.long
def test_a_buyer_an_owner_and_a_key_holder_need_nothing_of_a_peer(tmp_path: Path) -> None:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")

    def done(*arguments: object) -> str:
        process = blocked(*arguments, cwd=tmp_path)
        assert (process.returncode, process.stderr) == (0, "")
        return process.stdout

    with DevChain() as node:
        world = MarketWorld(tmp_path, node)
        card = done("model", "hold", "--card", *world.keys("holder")).strip()
        published = world.folder(), "--out", "pub", "--price", 1, "--token", to_checksum(world.token.address)
        where = (*world.rpc, *world.keys("owner"), "--chain-id", 31337, "--json")
        made = json.loads(done("model", "publish", *published, "--holder", card, *where))
        (share,) = made["shares"].values()
        held = ("model", "hold", "--dir", "held", "--once", *world.rpc, *world.keys("holder"))
        assert "put up" in done(*held, "--share", share)
        node.advance(1)
        buyer = (*world.rpc, *world.keys("buyer"))
        done("model", "buy", made["model"], *buyer, "--no-wait")
        assert "share delivered" in done(*held)
        opened = done("model", "buy", made["model"], *buyer, "--from", "pub", "--out", "model")
        assert "2 files written, all of them checked" in opened
        assert "2 files" in done("model", "show", made["model"], *world.rpc, "--from", "pub")
        owed = done("model", "earnings", made["model"], *world.rpc, *world.keys("owner"), "--collect", "--json")
        assert json.loads(owed)["models"][0]["undecided"] == str(10**18)
        asked = blocked(
            "model", "ask", made["model"], "--url", "http://127.0.0.1:9", "--prompt", "a", *world.keys("buyer"), cwd=tmp_path
        )  # fmt: skip
        assert "gave no usable answer" in asked.stderr and asked.stderr.count("\n") == 1


def test_content_is_fetched_and_handed_out_without_a_peer(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text" * 1000)
    made = blocked("car", "export", "text", "a.car", "--json", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    cid = json.loads(made.stdout)["cid"]
    taken = blocked("car", "import", "a.car", "--store", "store", cwd=tmp_path)
    assert (taken.returncode, taken.stderr) == (0, "")
    command = [sys.executable, "-c", BLOCKED, "gateway", "store", "--listen", "0", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, stdout=subprocess.PIPE
    ) as serving:
        assert serving.stdout is not None
        try:
            url = json.loads(serving.stdout.readline())["url"]
            fetched = blocked("fetch", cid, "--from", url, "--out", "out", "--json", cwd=tmp_path)
            assert (fetched.returncode, fetched.stderr) == (0, "")
        finally:
            serving.terminate()
        assert serving.wait(20) == 0, "asked to end, it ends well"
    assert (tmp_path / "out").read_bytes() == b"text" * 1000


def test_the_blocker_blocks_and_a_peers_command_says_what_is_missing(tmp_path: Path) -> None:
    made = blocked("run", "new", tmp_path / "run", cwd=tmp_path)
    assert made.returncode == 1
    assert made.stderr.startswith("sparehive: this command needs ")
    assert "pip install 'sparehive[peer]'" in made.stderr
    assert made.stderr.count("\n") == 1


def test_help_and_version_import_next_to_nothing(tmp_path: Path) -> None:
    for arguments in (("--help",), ("--version",), ("run", "--help")):
        shown = blocked(*arguments, cwd=tmp_path)
        assert (shown.returncode, shown.stderr) == (0, "")
    heavy = "import sys\nimport peers.cli\nprint([m for m in ('web3', 'torch', 'numpy', 'eth_account') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_wheel_holds_the_contracts_and_the_marks_of_types(tmp_path: Path) -> None:
    if find_spec("setuptools") is None or (
        find_spec("wheel") is None and int(version("setuptools").split(".")[0]) < 71
    ):
        pytest.skip("a wheel is built without a network here: it needs setuptools 71, or an older one with wheel")
    source = tmp_path / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    for name in listed.stdout.split("\0"):
        if name.startswith(("swarm/", "peers/", "incentives/")) or name in ("pyproject.toml", "README.md"):
            if not (ROOT / name).is_file():
                continue
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, source]
    built = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("sparehive-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for contract in ("PeerRegistry", "Settlement", "TestToken"):
        assert f"incentives/contracts/generated/{contract}.json" in names
    assert {f"{package}/py.typed" for package in ("swarm", "incentives", "peers")} <= names
    assert not [name for name in names if "node_modules" in name or name.startswith("tests/")]
