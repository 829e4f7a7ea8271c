"""A run is the same run whatever the encoding of whoever makes or reads it."""

import json
from pathlib import Path

import pytest

from tests.odd_machines import run, sparehive

NAME = "Gr\u00fc\u00dfe \u4e2d\u6587 \u00e9"  # letters of one, two and three bytes
SMALL = (
    "task.model.fields.n_embd=32",
    "task.model.fields.n_layer=1",
    "task.model.fields.n_head=2",
    "codec.part_values=4096",
)
OLD = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF_8 = {"PYTHONUTF8": "1"}
C = {**OLD, "LC_ALL": "C", "PYTHONIOENCODING": ""}
LATIN_1 = {**OLD, "LC_ALL": "de_DE.ISO-8859-1", "PYTHONIOENCODING": "latin-1"}  # where it is not installed: as C


def run_id(*command: str | Path, **environment: str) -> str:
    done = run(sparehive("run", *command, "--json"), **environment)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["run_id"])


def new(where: Path, text: Path, **environment: str) -> str:
    settings = [part for field in SMALL for part in ("--set", field)]
    return run_id("new", where, "--preset", "demo", "--name", NAME, "--data", text, *settings, **environment)


@pytest.mark.long
def test_the_same_text_and_run_toml_are_the_same_run(tmp_path: Path) -> None:
    """The names of the text, of the run and of its directory are not ASCII."""
    text = tmp_path / (NAME + ".txt")
    text.write_text(f"{NAME} {NAME} " * 300, encoding="utf-8")
    made = new(tmp_path / NAME, text, **UTF_8)
    assert new(tmp_path / "again", text, **C) == made
    assert NAME in (tmp_path / NAME / "run.toml").read_text(encoding="utf-8")
    assert run_id("check", tmp_path / "again", **UTF_8) == made
    assert run_id("check", tmp_path / NAME / "run.toml", **LATIN_1) == made
