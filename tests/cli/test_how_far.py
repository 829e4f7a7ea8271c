"""How far a run is, by what a peer's directory says: `run status --dir` and the notebook. A script writes what a peer writes."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peers.directory import PeerDirectory, write_json
from peers.notebook import NotebookPeer
from peers.watching import FRESH_SECONDS, PeerWatcher
from tests.chain.commands import ok, refused, sparehive

AT_WORK = {
    "phase": "serving",
    "epoch": 37,
    "run_units": 312,
    "total_units": 400,
    "ends_in_seconds": 720.0,
    "held_out_loss": 1.95,
}


def peer(root: Path, age: float = 0.0, **changed: Any) -> Path:
    write_json(root / "status.json", {**AT_WORK, "time": time.time() - age, **changed})
    return root


def test_without_a_node_it_says_how_much_is_left_and_when_it_ends(tmp_path: Path) -> None:
    code, out, err = sparehive("run", "status", "--dir", peer(tmp_path))
    assert (code, err) == (0, "")
    assert out == "work: 312 of 400 units (78%), ends in about 12 min at this pace; epoch 37, held-out loss 1.950\n"
    said = ok("run", "status", "--dir", tmp_path)["work"]
    assert (said["units"], said["total_units"], said["finished"], said["ends_in_seconds"]) == (312, 400, False, 720.0)


def test_who_has_stopped_says_when_that_was_and_nothing_of_an_end(tmp_path: Path) -> None:
    _, out, _ = sparehive("run", "status", "--dir", peer(tmp_path, age=max(7200.0, 2 * FRESH_SECONDS)))
    assert out == "work: 312 of 400 units (78%); epoch 37, held-out loss 1.950; as its peer saw it 2.0 h ago\n"
    assert ok("run", "status", "--dir", tmp_path)["work"]["ends_in_seconds"] is None


def test_a_finished_run_is_finished_however_long_ago(tmp_path: Path) -> None:
    over = {"run_units": 403, "phase": "finished", "ends_in_seconds": 0.0, "held_out_loss": None}
    _, out, _ = sparehive("run", "status", "--dir", peer(tmp_path, age=1e6, **over))
    assert out == "work: 403 of 400 units (100%): finished; epoch 37\n"
    assert ok("run", "status", "--dir", tmp_path)["work"]["finished"] is True


def test_a_directory_that_says_nothing_is_named(tmp_path: Path) -> None:
    assert "--dir = " in refused("run", "status", "--dir", tmp_path)
    assert "--rpc URL is needed" in refused("run", "status", tmp_path, "--dir", peer(tmp_path), code=2)


def test_the_notebook_shows_it_above_its_plot_and_says_once_that_it_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = NotebookPeer.__new__(NotebookPeer)
    notebook.watcher, notebook.samples, notebook.told = PeerWatcher(PeerDirectory(peer(tmp_path))), [], set()
    notebook.invite = SimpleNamespace(limits=None)  # type: ignore[assignment]
    pytest.importorskip("matplotlib")
    assert notebook.plot().get_suptitle() == "312 of 400 units (78%), ends in about 12 min at this pace"
    peer(tmp_path, phase="finished", run_units=403)
    notebook.tell(notebook.status())
    notebook.tell(notebook.status())
    assert capsys.readouterr().out == "note: the run is over, 403 of 400 units: `sparehive export` has its model\n"


def test_the_notebook_says_that_work_has_no_receipt_and_why_and_again_when_it_is_twice_as_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = NotebookPeer.__new__(NotebookPeer)
    notebook.watcher, notebook.told = PeerWatcher(PeerDirectory(peer(tmp_path))), set()
    why = "no other peer trains in this run: invite somebody"
    for units in (0, 32, 33, 64):
        peer(tmp_path, phase="training", units=64, unpaid_units=units, unpaid_why=why if units else "")
        notebook.tell(notebook.status())
    assert capsys.readouterr().out.splitlines() == [
        f"note: 32 units without a receipt so far: {why}",
        f"note: 64 units without a receipt so far: {why}",
    ]
