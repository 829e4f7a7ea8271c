"""Directories and files whose names begin with a dash, and one that is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from coincurve import PrivateKey

from peers.invite import Invite, RunBinding
from swarm.config import RunConfig
from tests.chain.commands import own_process, refused, sparehive
from tests.terminal import ROOT

SMALL = ("task.data.context=16", "codec.part_values=4096", "task.model.fields={n_embd=32,n_layer=1,n_head=2}")
TINY = ("--preset=demo", *(f"--set={setting}" for setting in SMALL))


def test_a_peer_s_directory_may_begin_with_a_dash(tmp_path: Path) -> None:
    file = {"size": 1, "sha256": "00" * 32}
    config = RunConfig.parse(
        {
            "name": "x",
            "initial_root": "00" * 32,
            "task": {"kind": "causal_lm", "data": {"root": "00" * 32, "text": file}},
        }
    )
    nowhere = RunBinding(config.run_id, 0, bytes(20), (bytes(20),), ("no address",))
    (tmp_path / "-invite").write_text(Invite.make(config, nowhere, PrivateKey(b"\x0b" * 32)).encode())
    done = own_process("join", "--dir=-x", "--quiet", "--", "-invite", cwd=tmp_path)
    assert "bootstrap address = 'no address'" in done.stderr, (
        "the peer's process has come as far as the invite's address"
    )
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "-x" / "invite.txt").is_file()


def test_so_may_a_run_s_and_its_text_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-texts").mkdir()
    (tmp_path / "-texts" / "-a.txt").write_text("some text, and some more\n" * 100)
    code, made, _ = sparehive("run", "new", "--data=-texts", *TINY, "--", "-run")
    assert code == 0 and made.startswith("run 0x")
    code, checked, _ = sparehive("run", "check", "--", "-run")
    assert code == 0 and made.split()[1] in checked and "opened: True" in checked
    assert "is no peer's directory" in refused("export", "--dir=-x", "--out=-y")
    assert "is no peer's directory" in refused("run", "replay", "--dir=-x")


def test_a_working_directory_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m peers wallet --keystore x"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "sparehive: the current directory no longer exists: cd into another\n")
