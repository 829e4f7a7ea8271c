"""Two machines with copies of one run's directory, each of which starts a seed: two swarms that share nothing, and are told so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.process.machines import SMALL
from tests.terminal import Terminal, until

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]


def status(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / "status.json").read_text()))
    except (OSError, ValueError):
        return {}


def advice(directory: Path) -> dict[str, str]:
    return {each["code"]: each["text"] for each in status(directory).get("advice", [])}


def test_seeds_that_know_nothing_of_each_other_are_told_once_they_meet(tmp_path: Path) -> None:
    with Terminal(tmp_path / "home") as terminal:
        cwd = terminal.cwd
        terminal.run(f"sparehive run new run --preset demo {SMALL}")
        shutil.copytree(cwd / "run", cwd / "copy")
        terminal.rest("two", config='host = "127.0.0.1"\n')
        two = terminal.start("exec sparehive seed copy --dir two")
        one = terminal.start("exec sparehive seed run --dir one --host 127.0.0.1")
        for name, job in (("one", one), ("two", two)):
            until(lambda name=name: (cwd / name / "ready.json").exists(), 120.0, job.output)  # type: ignore[misc]
        founders = {name: status(cwd / name)["account"] for name in ("one", "two")}
        named = json.dumps(status(cwd / "two")["addresses"])
        terminal.rest("alice", config=f'host = "127.0.0.1"\npeers = {named}\n')
        alice = terminal.start("exec sparehive join one/invite.txt --dir alice")
        until(lambda: "two-swarms" in advice(cwd / "alice"), 120.0, alice.output)
        assert founders["two"] in advice(cwd / "alice")["two-swarms"]
        until(lambda: "note: this run has two swarms" in alice.output(), 20.0, alice.output)
        assert status(cwd / "alice")["peers"] == 1, "it is linked to its own seed alone"
        assert "two-swarms" not in advice(cwd / "two"), "anybody could say so: a stranger has"
        two.stop()
        named = json.dumps(status(cwd / "one")["addresses"])
        terminal.rest("two", config=f'host = "127.0.0.1"\npeers = {named}\n')
        two = terminal.start("exec sparehive seed copy --dir two")
        until(lambda: founders["one"] in advice(cwd / "two").get("two-swarms", ""), 120.0, two.output)
