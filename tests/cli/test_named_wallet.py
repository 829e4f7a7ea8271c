"""The first join of a run that pays asks whose wallet its pay is for: at a terminal, and only there."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from coincurve import PrivateKey

from incentives.keys import to_checksum
from peers.config import load_peer_config
from peers.directory import PeerDirectory
from peers.invite import Invite, anybodys_binding
from peers.payee import keep_bound
from swarm.config import RunConfig
from tests.chain.commands import ROOT, refused
from tests.pty_process import sitting

KEY = PrivateKey(b"\x0b" * 32)
WALLET, OTHER = to_checksum(b"\xab" * 20), to_checksum(b"\xcd" * 20)
JOIN = (sys.executable, "-m", "peers", "join")


RUN = RunConfig.parse(
    {
        "name": "test",
        "initial_root": "00" * 32,
        "task": {"kind": "causal_lm", "data": {"root": "00" * 32, "text": {"size": 1, "sha256": "00" * 32}}},
    }
)


def invite() -> str:
    return Invite.make(*anybodys_binding(RUN, KEY, ("/ip4/127.0.0.1/tcp/9/p2p/QmNobody",))).encode()


def named(where: Path) -> str:
    return load_peer_config(PeerDirectory(where).config).payout


def until_started(where: Path) -> None:
    deadline = time.monotonic() + 60
    while not PeerDirectory(where).config.exists():
        assert time.monotonic() < deadline, f"{where} has no peer.toml"
        time.sleep(0.05)


def test_who_sits_there_is_asked_once(tmp_path: Path) -> None:
    command = (*JOIN, invite(), "--dir", tmp_path / "peer", "--client")
    with sitting(command, ROOT) as terminal:
        terminal.until("Which wallet is this peer's pay for?")
        assert not (tmp_path / "peer").exists()  # nothing is made before it is clear
        terminal.answer("0x12")
        terminal.until("must be 0x and 40 hexadecimal digits")
        terminal.answer(WALLET.lower())
        until_started(tmp_path / "peer")
    assert named(tmp_path / "peer") == WALLET
    with sitting((*command, "--wallet", OTHER), ROOT) as terminal:
        deadline = time.monotonic() + 60
        while named(tmp_path / "peer") != OTHER:
            assert time.monotonic() < deadline, terminal.said
            time.sleep(0.05)
    assert "Which wallet" not in terminal.said


def test_nobody_there_is_waited_for(tmp_path: Path) -> None:
    """Neither with no terminal nor in the background of one, where a question would stop the process for good."""
    process = subprocess.Popen(
        [*JOIN, invite(), "--dir", str(tmp_path / "a"), "--client"], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until_started(tmp_path / "a")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert named(tmp_path / "a") == ""
    background = f"{' '.join(JOIN)} {invite()} --dir {tmp_path / 'b'} --client & wait"
    with sitting(("bash", "-mc", background), ROOT) as terminal:
        until_started(tmp_path / "b")
        assert "Which wallet" not in terminal.said
        os.write(terminal.terminal, b"\x03")
    assert named(tmp_path / "b") == ""


def test_whom_join_refuses_to_name(tmp_path: Path) -> None:
    where = tmp_path / "peer"
    assert "must be 0x and 40" in refused("join", invite(), "--dir", where, "--wallet", "0x12")
    line = refused("join", invite(), "--dir", where, "--wallet", "0x" + "00" * 20)
    assert "--wallet" in line and "is nobody's" in line
    assert not where.exists()
    where.mkdir()
    keep_bound(PeerDirectory(where), bytes.fromhex(WALLET[2:]))
    line = refused("join", invite(), "--dir", where, "--wallet", OTHER)
    assert f"--wallet = '{OTHER}': this peer's key is bound to {WALLET}, for ever" in line
    assert [path.name for path in where.iterdir()] == ["bound.json"]


def test_a_run_that_pays_nothing_takes_no_wallet(tmp_path: Path) -> None:
    config, binding, key, _ = anybodys_binding(RUN, KEY)
    unpaid = Invite.make(config, replace(binding, chain_id=0, settlement=bytes(20)), key).encode()
    line = refused("join", unpaid, "--dir", tmp_path / "peer", "--wallet", WALLET)
    assert "the run has no chain, nothing is paid in it: leave it out" in line
