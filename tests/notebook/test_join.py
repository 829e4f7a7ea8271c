"""notebooks/join.ipynb, executed head to tail in a kernel of its own, against a real seed, a real peer and a real chain."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from incentives.devchain import DevChain, find_tool
from tests.terminal import ROOT, Terminal, until

NOTEBOOK = ROOT / "notebooks" / "join.ipynb"
RECEIPTS = 2
ORGANISER = "--keystore run/keys/organiser.json --password-file run/keys/organiser.password"
SMALL = (
    "--set rounds.min_seated=2 --set 'task.model.fields={n_embd=32,n_layer=1,n_head=2}' --set codec.part_values=8192 "
    "--set inner.steps_per_unit=1 --set inner.total_units=1000000"
)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[DevChain]:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    with DevChain(log=tmp_path / "anvil.log") as made:
        yield made


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_no_outputs_are_committed() -> None:
    for cell in code_cells(nbformat.read(NOTEBOOK, as_version=4)):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_volunteer_joins_watches_leaves_and_claims(
    chain: DevChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Terminal(tmp_path / "home", RPC=chain.rpc) as terminal:
        wallet = prepare(terminal, chain)
        for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS"):
            monkeypatch.setenv(name, terminal.environment[name])
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        first = code_cells(notebook)[0]
        assert "parameters" in first.metadata["tags"]
        # The names of the first cell with other values: a name that the notebook does not have would be of no use.
        values = {
            "INVITE": (terminal.cwd / "seed" / "invite.txt").read_text().strip(),
            "PACKAGE": "never-to-be-installed",
            "WATCH_SECONDS": 240,
            "WATCH_RECEIPTS": RECEIPTS,
            "RPC": chain.rpc,
            "TABLES": "tables",
            "KEYSTORE": "wallet.json",
            "PASSWORD_FILE": "wallet.password",
        }
        assert set(re.findall(r"\b([A-Z_]{3,})\b(?=[^\"']*?=)", first.source)) == set(values)
        first.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        execute(notebook, terminal)
        text = ["".join(o.get("text", "") for o in cell.outputs) for cell in code_cells(notebook)]
        assert any(re.match(r"training from epoch \d+ as 0x", t) for t in text)
        assert "never-to-be-installed" not in "".join(text), "installed again though it is there"
        plots = [o for cell in code_cells(notebook) for o in cell.outputs if "image/png" in o.get("data", {})]
        assert len(plots) == 1, "one plot, drawn anew in its place"
        left = next(t for t in text if "left at epoch" in t)
        assert int(re.findall(r"(\d+) receipts? co-signed", left)[0]) >= RECEIPTS
        assert re.search(r"[\d.]+ SPARE-TEST paid to 1 accounts", text[-1]), text[-1]
        peer = terminal.cwd / "sparehive-peer"  # what it said while it ran, and what the commands saw since
        assert json.loads((peer / "status.json").read_text())["binding"] == "none"
        assert json.loads((peer / "bound.json").read_text())["wallet"] == wallet
        token = json.loads((terminal.cwd / "run" / "chain.json").read_text())["token"]
        assert chain.balance_of(token, wallet) > 0


def prepare(terminal: Terminal, chain: DevChain) -> str:
    """A deployed and funded run with a seed and a listening peer; the address of a wallet with gas."""
    terminal.run(f"sparehive run new run --preset demo {SMALL}")
    keys = {"organiser": ORGANISER, "wallet": "--keystore wallet.json --password-file wallet.password"}
    addresses = {}
    for name, options in keys.items():
        addresses[name] = json.loads(terminal.run(f"sparehive wallet {options} --json"))["address"]
        chain.give_gas(addresses[name])
    terminal.run("sparehive run deploy run --rpc $RPC --test-token --window 1")
    terminal.run(f"sparehive run fund run --rpc $RPC {ORGANISER} --amount 1000")
    seed = terminal.start("exec sparehive seed run --dir seed --host 127.0.0.1 --quiet")
    until((terminal.cwd / "seed" / "ready.json").exists, 120.0, seed.output)
    terminal.rest("bob", "sparehive-peer")
    bob = terminal.start("exec sparehive join seed/invite.txt --dir bob --host 127.0.0.1")
    until((terminal.cwd / "bob" / "ready.json").exists, 120.0, bob.output)
    return str(addresses["wallet"])


def execute(notebook: Any, terminal: Terminal) -> None:
    """Cell after cell; between leaving and claiming the organiser settles."""
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(terminal.cwd)}}
    )
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if "claim" in cell.metadata.get("tags", []):
                terminal.run(f"sparehive settle --dir seed --run run --rpc $RPC {ORGANISER} --to-newest --finalise")
            client.execute_cell(cell, index)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.long
def test_the_peer_ends_with_the_kernel(tmp_path: Path) -> None:
    with Terminal(tmp_path / "home") as terminal:
        terminal.run(f"sparehive run new run --preset demo {SMALL}")
        seed = terminal.start("exec sparehive seed run --dir seed --host 127.0.0.1 --quiet")
        until((terminal.cwd / "seed" / "ready.json").exists, 120.0, seed.output)
        kernel = terminal.start(
            f"exec {sys.executable} -c 'import time; from peers.notebook import join; "
            'peer = join("seed/invite.txt"); peer.wait(); print(peer.process.pid, flush=True); time.sleep(300)\''
        )
        until(lambda: kernel.output().endswith("\n"), 120.0, kernel.output)
        tree = psutil.Process(int(kernel.output()))
        peers = [tree, *tree.children(recursive=True)]
        kernel.process.kill()
        until(lambda: all(gone(p) for p in peers), 60.0, lambda: f"{peers} end")


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
