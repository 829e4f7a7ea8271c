"""What the first page and the notebook say of a machine, of installing and of what is not published yet."""

import json
import re
import subprocess
import sys

import pytest

from tests.terminal import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PRESETS = ("demo", "small")


def row(page: str, begin: str) -> list[str]:
    """Cells of the table's row that begins so, without its first."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {begin}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_upload_of_an_hour_follows_from_the_epochs_that_were_measured() -> None:
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    told = row(README, "upload per hour")
    for preset, cell in zip(PRESETS, told, strict=False):
        _, seconds, *_, sent, _ = row(measured, f"`{preset}` |")
        gigabytes = float(sent.removesuffix(" MB")) * 3600 / float(seconds) / 1e3
        assert float(cell.removesuffix(" GB")) == pytest.approx(gigabytes, abs=0.05)
    most = float(row(README, "upload per averaging")[2].removeprefix("up to ").removesuffix(" MB"))
    assert told[2] == f"up to {most * 60 / 1e3:.0f} GB", "averaging once a minute"


def test_it_says_what_installing_takes_and_installs_into_an_environment_of_its_own() -> None:
    for what in ("installing it: download", "installing it: disk"):
        assert re.fullmatch(r"[0-9.]+ GB", row(README, what)[0])
    blocks = [text for text in README.split("\n\n") if "    pip install" in text]
    assert blocks and all("-m venv" in block for block in blocks), "pip refuses where the system manages its Python"


def cells() -> list[str]:
    notebook = json.loads((ROOT / "notebooks" / "join.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (None, "ask the organiser for a git or wheel URL"),
        ("sparehive[peer] @ https://example.org/sparehive-0.1.0-py3-none-any.whl", "installs sparehive[peer] @ https"),
        ("./sparehive[peer]", "installs ./sparehive[peer]"),
    ],
)
def test_the_notebook_installs_what_it_was_given_and_asks_for_it_where_that_is_nothing(
    package: str | None, said: str
) -> None:
    """On a machine that has nothing of it. Nothing is published under a name, so no name can be the default."""
    first, install, *_ = cells()
    assert "%pip install" in install
    install = re.sub(r'%pip install --quiet "\{PACKAGE\}"', 'print("installs", PACKAGE)', install)
    given = "" if package is None else f"PACKAGE = {package!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{first}\n{given}{install}"], capture_output=True, text=True, timeout=60
    )
    assert said in done.stdout + done.stderr
