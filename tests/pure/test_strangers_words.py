"""What strangers write reaches the owner's terminal as text alone: it moves no cursor, turns nothing around, fills no screen."""

import io
import json
import logging
import os
from pathlib import Path

import pytest
from rich.console import Console

from peers.advice import of_problems
from peers.cli.options import show
from peers.directory import PeerDirectory
from peers.leaving import say_why
from peers.live import View
from peers.logs import ForTerminals
from peers.notebook import NotebookPeer
from swarm.errors import PeerFault, RetryError, printable_lines

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\rpaid " + "x" * 10_000


def is_harmless(shown: str) -> bool:
    return all(line.isprintable() and len(line) < 6000 for line in shown.split("\n"))


def told(tmp_path: Path, is_terminal: bool) -> tuple[View, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=120, color_system=None, highlight=False)
    return View("join", PeerDirectory(tmp_path), console=console), out


def test_what_is_printed_is_printable_and_bounded() -> None:
    shown = printable_lines(f"a\tb\n{HOSTILE}")
    assert shown.startswith("a       b\n\\x1b]0;owned") and "\\u202e" in shown and is_harmless(shown)


def test_a_peers_refusal_in_a_note_and_in_an_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the wire on: `Links` puts a peer's words into `problems`, which become a note."""
    fault = PeerFault(f"peer Qm refused a part: {HOSTILE}")
    assert say_why(RetryError(str(fault)), False) == 3
    line = capsys.readouterr().err.removesuffix("\n")
    assert "owned" in line and "\n" not in line and is_harmless(line)

    (note,) = of_problems({"/ip4/203.0.113.7/tcp/4001/p2p/Qm": f"answers, but with a {fault}"})
    status = {"pid": os.getpid(), "state": "training", "advice": [{"code": note.code, "text": note.text}]}
    PeerDirectory(tmp_path).status.write_text(json.dumps(status), encoding="utf-8")
    view, out = told(tmp_path, False)
    view.tick(os.getpid())
    assert "note: linked to nobody yet" in out.getvalue() and is_harmless(out.getvalue())
    panel, drawn = told(tmp_path, True)
    panel.console.print(panel.panel(view.last))
    assert "owned" in drawn.getvalue() and is_harmless(drawn.getvalue())

    notebook = NotebookPeer.__new__(NotebookPeer)
    notebook.told = set()
    notebook.tell(view.last)
    assert "owned" in (shown := capsys.readouterr().out) and is_harmless(shown)


def test_what_the_peers_process_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view, _ = told(tmp_path, False)
    view.said(HOSTILE)
    shown = capsys.readouterr().err
    assert "owned" in shown and is_harmless(shown)


def test_results_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show(False, {}, HOSTILE, "second")
    shown = capsys.readouterr().out
    assert "owned" in shown and shown.endswith("\nsecond\n") and is_harmless(shown)


def test_the_log() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "dropped: %s", (HOSTILE,), None)
    shown = ForTerminals("%(levelname)s %(message)s").format(record)
    assert shown.startswith("ERROR dropped: \\x1b") and is_harmless(shown)
