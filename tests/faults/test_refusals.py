"""What a user can get wrong when joining: one line that names it, a non-zero exit status, within seconds."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers.invite import Invite
from peers.runs import RunDirectory, bind_run
from tests.faults.swarm import LOCAL, Runner, Swarm, until

QUICKLY = 60.0  # on a busy machine; alone it takes two or three


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def refused(runner: Runner, tmp_path: Path, *argv: str) -> str:
    """The one line that the command ends with."""
    begun = time.monotonic()
    pid = runner.start(*argv, log=tmp_path / "output")
    status = runner.wait(pid, QUICKLY)
    text = (tmp_path / "output").read_text()
    assert status > 0, text
    assert time.monotonic() - begun < QUICKLY
    (line,) = text.splitlines()
    assert line.startswith("sparehive: ")
    return line


def directory(swarm: Swarm, tmp_path: Path, config: str, invite: str | None = None) -> str:
    root = tmp_path / "peer"
    root.mkdir()
    (root / "peer.toml").write_text(LOCAL + config)
    (root / "invite.txt").write_text(invite or swarm.seed.directory.invite.read_text())
    return str(root)


def test_a_taken_port(runner: Runner, swarm: Swarm, tmp_path: Path, taken_port: int) -> None:
    where = directory(swarm, tmp_path, f"port = {taken_port}\n")
    line = refused(runner, tmp_path, "peer", "join", where)
    assert f"--port = {taken_port}" in line


@pytest.fixture
def dead_invite(swarm: Swarm, taken_port: int) -> str:
    """Of a seed that does not answer."""
    binding = Invite.decode(swarm.seed.directory.invite.read_text()).binding
    run = RunDirectory(swarm.run)
    nobody = binding.bootstrap[0].split("/")
    nobody[4] = str(taken_port)  # listens, but speaks no libp2p
    return bind_run(run, run.organiser_key, run.organiser_password, binding.founders, ("/".join(nobody),)).encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_finds_nobody_and_gives_up_leaves_at_once(
    runner: Runner, swarm: Swarm, tmp_path: Path, dead_invite: str, number: int
) -> None:
    root = Path(directory(swarm, tmp_path, "", dead_invite))
    pid = runner.start("peer", "join", str(root), log=tmp_path / "output")
    until((root / "status.json").exists, QUICKLY, "it has begun to connect")
    begun = time.monotonic()
    os.kill(pid, number)
    assert runner.wait(pid, QUICKLY) == 0
    assert time.monotonic() - begun < 10.0
    assert (tmp_path / "output").read_text() == ""


def test_an_invite_whose_seed_does_not_answer(runner: Runner, swarm: Swarm, tmp_path: Path, dead_invite: str) -> None:
    where = directory(swarm, tmp_path, "join_timeout_seconds = 3.0\nstartup_timeout_seconds = 20.0\n", dead_invite)
    line = refused(runner, tmp_path, "peer", "join", where)
    assert "join_timeout_seconds" in line or "bootstrap" in line or "daemon" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sparehive1:not-base64!", "invite"),
        ("sparehive0:AAAA", "invite"),
        ("/nowhere/invite.txt", "invite"),
    ],
)
def test_a_damaged_invite(runner: Runner, tmp_path: Path, text: str, says: str) -> None:
    line = refused(runner, tmp_path, "join", text, "--dir", str(tmp_path / "peer"))
    assert says in line and not (tmp_path / "peer").exists()


def test_an_invite_file_that_is_no_text(runner: Runner, swarm: Swarm, tmp_path: Path) -> None:
    where = directory(swarm, tmp_path, "")
    (Path(where) / "invite.txt").write_bytes(b"sparehive1:\xff\xfe")
    assert "invite" in refused(runner, tmp_path, "peer", "join", where)


def test_an_invite_with_a_changed_letter(runner: Runner, swarm: Swarm, tmp_path: Path) -> None:
    invite = swarm.seed.directory.invite.read_text().strip()
    changed = invite[:200] + ("A" if invite[200] != "A" else "B") + invite[201:]
    assert "invite" in refused(runner, tmp_path, "join", changed, "--dir", str(tmp_path / "peer"))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("prot = 4001\n", "peer.toml: prot"),
        ("port = 70000\n", "peer.toml: port"),
        ("port = \n", "is not TOML"),
    ],
)
def test_a_wrong_peer_toml(runner: Runner, swarm: Swarm, tmp_path: Path, config: str, says: str) -> None:
    where = directory(swarm, tmp_path, config)
    assert says in refused(runner, tmp_path, "join", "--dir", where)


def test_a_directory_in_use(runner: Runner, swarm: Swarm, tmp_path: Path) -> None:
    line = refused(runner, tmp_path, "peer", "join", str(swarm.peers["alice"].directory.root))
    assert "another peer is running in it" in line
