"""Following a peer's files and showing them: a script writes what a peer writes, no peer runs."""

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from incentives.amounts import Unit
from incentives.closing import PayRules
from incentives.ledger import Ledger
from peers.config import PeerConfig, save_peer_config
from peers.directory import PeerDirectory, write_json
from peers.live import View, sparkline
from peers.payee import Payee
from peers.watching import EventTail, Observation, PeerWatcher, ReceiptCount, Terms
from tests.pure import small_lineage as small

PID = 4711
TERMS = Terms("bees", 10**6, True, PayRules(small.RUN, 1, (small.FOUNDER,)), Unit("HONEY", 6))
AT_WORK = {"pid": PID, "phase": "training", "account": "0x" + "ab" * 20, "epoch": 3, "peers": 2}


class Scene:
    """A view and what it wrote."""

    def __init__(self, root: Path, mode: str = "join", *, quiet: bool = False, terminal: bool = False) -> None:
        self.directory, self.out = PeerDirectory(root), io.StringIO()
        console = Console(file=self.out, force_terminal=terminal, highlight=False, width=100)
        self.view = View(mode, self.directory, quiet=quiet, console=console)
        self.view.watcher.terms = TERMS

    def status(self, **values: Any) -> None:
        write_json(self.directory.status, {**AT_WORK, **values})
        self.view.tick(PID)

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_a_storer_says_what_it_keeps(tmp_path: Path) -> None:
    kept = {"mode": "store", "phase": "serving", "wanted_objects": 2, "quota_bytes": 10**9, "storers": 3}
    scene = Scene(tmp_path, "store")
    scene.status(**kept, stored_objects=0)
    scene.status(**kept, stored_objects=1, stored_bytes=5 * 10**6)
    scene.status(**kept, stored_objects=1, stored_bytes=5 * 10**6, epoch=9)
    scene.view.leaving(signal.SIGTERM)
    scene.view.finish(0)
    assert [line for line in scene.lines() if line.startswith("keeps")] == [
        "keeps 0 of 2 objects, 0.0 MB of 1000.0 MB",
        "keeps 1 of 2 objects, 5.0 MB of 1000.0 MB",
    ]
    assert "leaving" in scene.lines() and "go on: sparehive store --dir" in scene.out.getvalue()
    with Scene(tmp_path, "store", terminal=True).view as view:
        view.tick(PID)
        out = io.StringIO()
        write_json(
            tmp_path / "status.json",
            {
                **AT_WORK,
                **kept,
                "stored_objects": 1,
                "stored_bytes": 5 * 10**6,
                "storage_receipts": 4,
                "rotten_blocks": 1,
            },
        )
        view.tick(PID)
        Console(file=out, width=200).print(view.panel(view.last))
    told = out.getvalue()
    for words in ("1 of 2 objects", "3 storers", "4 receipts of storage", "1 block, fetched again"):
        assert words in told


@pytest.mark.parametrize(
    "text", ["", '{"epoch": 3', "[1]", "null", "\x00\xff", '{"epoch": NaN, "peers": "x", "pid": 4711}']
)
def test_a_status_that_is_no_status_counts_as_none(tmp_path: Path, text: str) -> None:
    directory = PeerDirectory(tmp_path)
    directory.status.write_text(text, encoding="latin-1")
    assert PeerWatcher(directory, PID, TERMS).read() == Observation()


def test_the_status_of_another_process_is_an_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "status.json", AT_WORK)
    assert PeerWatcher(PeerDirectory(tmp_path), PID + 1, TERMS).read().phase == "starting"
    assert PeerWatcher(PeerDirectory(tmp_path), PID, TERMS).read().phase == "training"


def test_events_are_given_once_and_half_a_line_waits_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "old"}\n')
    tail = EventTail(path)
    with open(path, "a") as handle:
        handle.write('{"event": "a"}\nno json\n[1]\n{"event"')
        handle.flush()
        assert [e["event"] for e in tail.read()] == ["a"]
        assert tail.read() == []
        handle.write(': "b"}\n')
    assert [e["event"] for e in tail.read()] == ["b"]
    path.write_text('{"event": "c"}\n')  # somebody began the file anew
    assert [e["event"] for e in tail.read()] == ["c"]
    assert [e["event"] for e in EventTail(path, from_start=True).read()] == ["c"]
    assert EventTail(tmp_path / "none").read() == []


def test_utilisation_is_the_share_of_the_last_minute(tmp_path: Path) -> None:
    watcher = PeerWatcher(PeerDirectory(tmp_path), PID, TERMS)
    found = []
    for second, compute in ((0.0, 0.0), (10.0, 5.0), (70.0, 65.0), (80.0, 65.0)):
        write_json(tmp_path / "status.json", {**AT_WORK, "time": 1000.0 + second, "compute_seconds": compute})
        found.append(watcher.read().utilisation)
    assert found == [None, 0.5, 1.0, 0.0]


def test_only_receipts_that_would_be_paid_count_as_earned(tmp_path: Path) -> None:
    directory = PeerDirectory(tmp_path)
    paid, unwitnessed = 4, 1
    with Ledger(directory.ledger, run_id=small.RUN, domain=small.DOMAIN) as ledger:
        for each, body, signers in (
            (small.SEATING_RECORD, small.SEATING_BODY, (small.FOUNDER,)),
            (small.ROUND_RECORD, small.ROUND_BODY, small.PEERS[:4]),
        ):
            signed = small.signatures(each, signers)
            ledger.set_tip(ledger.add_certificate(small.values(each), small.body_bytes(body), signed))
        for index, signers in (
            (paid, (small.PEERS[paid], small.REDUCERS[0])),
            (unwitnessed, (small.PEERS[unwitnessed],)),
        ):
            record = small.receipt(index)
            ledger.add_receipt(small.values(record), small.signatures(record, signers))
    assert ReceiptCount(directory, TERMS, "0x" + small.PEERS[paid].hex()).read() == (1, small.LEAVES[paid].units, 0)
    assert ReceiptCount(directory, TERMS, "0x" + small.PEERS[unwitnessed].hex()).read() == (0, 0, 0), (
        "it may still come"
    )
    assert ReceiptCount(PeerDirectory(tmp_path / "none"), TERMS, "0x" + small.PEERS[0].hex()).read() is None
    scene = Scene(tmp_path)
    scene.status(account="0x" + small.PEERS[paid].hex())
    scene.view.finish(0)
    assert f"1 receipt co-signed, worth {small.LEAVES[paid].units} HONEY" in scene.lines()[-3]


def test_lines_tell_what_changed_and_nothing_twice(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.status(phase="connecting")
    scene.status(phase="connecting")
    for received in (0, 10, 260, 280, 1000):
        scene.status(phase="fetching data", received_bytes=received * 1000, total_bytes=1000_000)
    scene.status(phase="fetching the anchor", received_bytes=0, total_bytes=8_000_000)
    for _ in range(3):
        scene.status(units=5, train_loss=2.5)
    scene.status(epoch=4, units=9, train_loss=2.25)
    scene.status(epoch=4, units=9, train_loss=2.0, peers=3)
    scene.view.leaving(signal.SIGINT)
    scene.view.leaving(signal.SIGINT)
    scene.view.finish(0)
    assert scene.lines() == [
        "connecting to the swarm",
        "fetching data: 0% of 1.0 MB",
        "fetching data: 26% of 1.0 MB",
        "fetching data: 100% of 1.0 MB",
        "fetching the anchor: 0% of 8.0 MB",
        f"training from epoch 3 as {AT_WORK['account']}",
        "epoch 4: 2 peers, loss 2.250, 9 units, 0 receipts, 0 HONEY",
        "3 peers linked",
        "leaving: the step under way ends and what was done is kept",
        "left at epoch 4 after 9 units; 0 receipts co-signed, worth 0 HONEY",
        f"go on: sparehive join --dir {tmp_path}",
        f"paid yet? sparehive rewards --dir {tmp_path} --rpc URL",
        "stopped by Ctrl-C",
    ]


def test_who_left_by_itself_says_why(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.status(ended="epoch 3 is certified, after which it was to stop")
    scene.view.finish(0)
    assert scene.lines()[-1] == "epoch 3 is certified, after which it was to stop"


WHY = "no other peer trains in this run: invite somebody"


def test_work_without_receipts_is_said_while_it_is_done_and_at_the_end(tmp_path: Path) -> None:
    """No epoch was certified: 64 units and no receipt, and nothing else that would bring a line."""
    scene = Scene(tmp_path)
    scene.status(epoch=0, units=30, receipts=0, paid_units=0)
    for units in (32, 40, 63, 64):
        scene.status(epoch=0, units=units, unpaid_units=units, unpaid_why=WHY)
    scene.view.finish(0)
    told = [line for line in scene.lines() if "without a receipt" in line]
    assert told == [
        f"note: 32 units without a receipt so far: {WHY}",
        f"note: 64 units without a receipt so far: {WHY}",
        f"64 units without a receipt so far: {WHY}",
    ]
    scene = Scene(tmp_path, terminal=True)
    with scene.view:
        scene.status(epoch=0, units=64, unpaid_units=64, unpaid_why=WHY)
        plain = Console(file=(shown_as := io.StringIO()), width=200)
        plain.print(scene.view.panel(scene.view.last))
    words = " ".join(shown_as.getvalue().replace("│", " ").split())
    assert f"unpaid 64 units without a receipt so far: {WHY}" in words


def test_void_epochs_and_forks_are_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    events = [{"event": "Voided", "epoch": 7}, {"event": "Undone", "ids": ["0x1"]}, {"event": "UnitDone"}]
    scene.directory.events.write_text("".join(json.dumps(e) + "\n" for e in events))
    scene.status()
    assert "epoch 7 is void" in scene.lines()[0]
    assert "1 certificate undone" in scene.lines()[1]


def test_a_peer_that_failed_has_no_farewell(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.status()
    before = scene.lines()
    scene.view.finish(1)
    assert scene.lines() == before


def test_whose_wallet_its_pay_is_for_is_shown(tmp_path: Path) -> None:
    unbound, bound = Payee().line(), Payee("", "0x" + "ab" * 20).line()
    scene = Scene(tmp_path)
    for pay in (unbound, unbound, bound):
        scene.status(pay=pay)
    assert [line for line in scene.lines() if line.startswith("pay: ")] == [f"pay: {unbound}", f"pay: {bound}"]
    scene = Scene(tmp_path, terminal=True)
    with scene.view:
        scene.status(pay=unbound)
        plain = Console(file=(shown_as := io.StringIO()), width=200)
        plain.print(scene.view.panel(scene.view.last))
        assert "no wallet is named or bound" in shown_as.getvalue()


def test_the_panel_shows_loss_work_and_earnings(tmp_path: Path) -> None:
    scene = Scene(tmp_path, terminal=True)
    with scene.view:
        for epoch in range(4, 8):
            scene.status(
                epoch=epoch, units=12, train_loss=10.0 - epoch, faults=1, time=1e9 + epoch, compute_seconds=epoch / 2
            )
        assert scene.view.is_live
        plain = Console(file=(shown_as := io.StringIO()), width=100)
        plain.print(scene.view.panel(scene.view.last))
        shown = shown_as.getvalue()
        for text in (
            "join · bees",
            "7   2 peers linked",
            "3.000 in training   █▆▃▁",
            "12 units   50%",
            "0 HONEY",
            "1 message",
        ):
            assert text in shown, shown
        scene.view.said("sparehive: the disk is full\n")
    assert "sparehive: the disk is full" in scene.out.getvalue()


def test_a_seed_shows_its_invite_once_when_it_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invite = "sparehive1:" + "A" * 900
    (tmp_path / "invite.txt").write_text(invite + "\n")
    save_peer_config(tmp_path / "peer.toml", PeerConfig(host="127.0.0.1"))
    scene = Scene(tmp_path, "seed")
    scene.status(phase="connecting")
    assert invite not in scene.out.getvalue()
    for epoch in (0, 0, 1):
        scene.status(phase="serving", epoch=epoch, held_out_loss=5.5)
    lines = scene.lines()
    assert lines.count(f"    sparehive join {invite}") == 1, "on one line, to be copied whole"
    assert f"The same invite lies in {tmp_path / 'invite.txt'}" in lines
    assert any("listens on this machine alone" in line for line in lines)
    assert lines[-1] == "epoch 1: 2 peers, held-out loss 5.500"

    save_peer_config(tmp_path / "peer.toml", PeerConfig(port=4001))
    quiet = Scene(tmp_path, "seed", quiet=True)
    quiet.status(phase="serving")
    quiet.status(phase="serving", epoch=9)
    quiet.view.leaving(signal.SIGINT)
    quiet.view.finish(0)
    assert quiet.out.getvalue() == ""
    assert capsys.readouterr().out == invite + "\n"


def test_a_seed_that_never_served_does_not_say_that_peers_go_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "seed")
    scene.status(phase="connecting")
    scene.view.leaving(signal.SIGINT)
    scene.status(phase="fetching data")
    scene.view.finish(0)
    lines = scene.lines()
    assert "the seed has stopped before it served" in lines and not any("peers go on" in line for line in lines)
    assert not any("fetching data" in line for line in lines[lines.index("leaving") :])


def test_a_sparkline_takes_what_numbers_there_are() -> None:
    assert sparkline([1.0, float("nan"), 3.0, 2.0]) == "▁█▅"
    assert sparkline([1.0]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"


def test_what_is_left_and_the_end_are_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    run = {"total_units": 400, "run_units": 300, "ends_in_seconds": 720.0, "train_loss": 2.0}
    scene.status(**run)
    scene.status(**run, epoch=4)
    assert "run: 300 of 400 units (75%), ends in about 12 min at this pace" in scene.lines()[-1]
    ended = {**run, "run_units": 402, "ends_in_seconds": 0.0, "epoch": 5, "phase": "finished"}
    scene.status(**ended)
    (line,) = [line for line in scene.lines() if "finished" in line and "run is" in line]
    assert line == "the run is finished at epoch 5, 402 of 400 units: its last state is here"
    words = "the run is finished (epoch 5, 402 of 400 units); the model: sparehive export --dir x --out model"
    scene.status(**ended, ended=words)
    scene.view.finish(0)
    assert scene.lines()[-1] == words
    assert not any("sparehive join" in line for line in scene.lines()), "there is nothing to go on with"


def test_who_comes_after_the_end_is_told_by_its_process_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.status(phase="connecting")
    scene.status(phase="finished", total_units=400, run_units=402)
    scene.view.finish(5)
    assert not any("finished" in line or "training" in line for line in scene.lines())


def test_the_panel_says_how_far_the_run_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.status(total_units=400, run_units=300)
    scene.view.console.print(scene.view.panel(scene.view.last))
    assert "300 of 400 units (75%)" in scene.out.getvalue()
