"""What a command says at its end where its words or its files are not taken: one line, and a status that tells."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chain.commands import ROOT, refused, sparehive

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


def shell(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    script = command.replace("sparehive", f"{shlex.quote(sys.executable)} -m peers")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


WALLET = "sparehive wallet --keystore k.json --password-file p"


@pytest.mark.parametrize("command", [WALLET, "sparehive --help", WALLET + " --json"])
def test_what_nobody_takes_is_one_line_and_no_success(tmp_path: Path, command: str) -> None:
    done = shell(f"{command} > /dev/full", tmp_path)
    assert done.returncode == 1
    why = "stdout: No space left on device: free some space"
    if "--json" in command:
        assert json.loads(done.stderr)["error"] == why and done.stderr.count("\n") == 1
    else:
        assert done.stderr == f"sparehive: {why}\n"


def test_who_reads_no_further_is_told_nothing(tmp_path: Path) -> None:
    done = shell("set -o pipefail; sparehive --help | true", tmp_path)
    assert done.stderr == ""


def test_a_limit_on_file_sizes_is_named(tmp_path: Path) -> None:
    done = shell(f"ulimit -f 0; {WALLET}", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File too large: raise the limit on file sizes (ulimit -f)" in done.stderr


def test_own_paths_with_control_characters_are_shown_as_escapes(tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[2Jb"
    code, out, err = sparehive("wallet", "--keystore", odd, "--password-file", tmp_path / "p")
    assert code == 0, err
    assert "\x1b" not in out and "a\\x1b[2Jb" in out
    assert "\\x1b" in refused("wallet", "--keystore", odd, "--password-file", odd)


def test_a_file_for_both_is_one_line_and_makes_nothing(tmp_path: Path) -> None:
    same = tmp_path / "k.json"
    line = refused("wallet", "--keystore", same, "--password-file", tmp_path / "." / "k.json")
    assert "as the key file and as its password file: name two files" in line
    assert not same.exists()
    assert sparehive("wallet", "--keystore", same, "--password-file", tmp_path / "p")[0] == 0
    (tmp_path / "link").symlink_to(same)
    line = refused("wallet", "--keystore", same, "--password-file", tmp_path / "link")
    assert "as the key file and as its password file: name two files" in line


def test_so_are_they_in_what_is_said_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    from peers.progressbar import ProgressBar

    ProgressBar().note("reading /home/a\x1b[2Jb")
    assert capsys.readouterr().err == "sparehive: reading /home/a\\x1b[2Jb\n"
