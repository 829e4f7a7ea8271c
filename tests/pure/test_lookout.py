"""Who watches for proposals costs the peer nothing, whatever the node does."""

import json
import socket
import time
from pathlib import Path

import psutil
import pytest
from coincurve import PrivateKey

from peers.config import PeerConfig
from peers.directory import PeerDirectory
from peers.errors import ConfigError
from peers.invite import Invite, anybodys_binding
from peers.lookout import Lookout, Watch, nodes_of
from swarm.config import RunConfig


def config_of_a_run() -> RunConfig:
    data = {"root": "00" * 32, "text": {"size": 1, "sha256": "00" * 32}}
    return RunConfig.parse({"name": "test", "initial_root": "00" * 32, "task": {"kind": "causal_lm", "data": data}})


def invite(chain_id: int = 1, rpc: str = "") -> Invite:
    made = Invite.make(*anybodys_binding(config_of_a_run(), PrivateKey(b"\x01" * 32), chain_id=chain_id))
    return Invite(made.config, made.binding, made.organiser, made.signature, made.limits, rpc)


def test_the_owners_node_comes_before_that_of_the_invite() -> None:
    named = invite(rpc="https://node.example.org/v1")
    assert Invite.decode(named.encode()).rpc == "https://node.example.org/v1"
    assert nodes_of(PeerConfig(), named) == ("https://node.example.org/v1",)
    own = ("http://127.0.0.1:8545", "http://127.0.0.1:8546")
    assert nodes_of(PeerConfig(rpc=own), named) == own
    assert nodes_of(PeerConfig(), invite()) == ()
    assert nodes_of(PeerConfig(rpc=own), invite(chain_id=0)) == ()


def test_an_invite_that_names_no_node_but_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no URL of a node"):
        Invite.decode(invite(rpc="file:///etc/passwd").encode())


@pytest.mark.parametrize("text", ["", "[]", "null", '{"time":"x"}', json.dumps({"time": 1.0, "block": 2})])
def test_what_is_half_written_or_of_another_kind_is_as_if_nobody_had_looked(tmp_path: Path, text: str) -> None:
    (tmp_path / "watch.json").write_text(text)
    assert Watch.read(tmp_path / "watch.json") == Watch()
    Watch(1.5, 2, None, 0, "careful", "").write(tmp_path / "watch.json")
    assert Watch.read(tmp_path / "watch.json") == Watch(1.5, 2, None, 0, "careful", "")


def watchers(directory: PeerDirectory) -> list[psutil.Process]:
    """Processes of this one that look for a peer, and have not ended."""
    found = psutil.Process().children()
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE and str(directory.root) in p.cmdline()]


def test_a_node_that_never_answers_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It takes the connection and is silent: the process waits, the peer does not, and ends it when it leaves."""
    directory = PeerDirectory(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60.0)
        directory.config.write_text(f'rpc = "http://127.0.0.1:{silent.getsockname()[1]}"\n')
        directory.invite.write_text(invite().encode())
        lookout = Lookout(directory, ("http://127.0.0.1",), 1.0)
        assert lookout.look() == Watch()
        asked, _ = silent.accept()
        with asked:
            assert len(watchers(directory)) == 1
            begun = time.monotonic()
            for _ in range(100):
                assert lookout.look() == Watch()
            assert time.monotonic() - begun < 1.0
            lookout.close()
            assert watchers(directory) == []
            lookout.close()
    assert lookout.look() == Watch() and watchers(directory) == [], "nothing is started again"


def test_a_process_that_cannot_start_is_not_started_without_end(tmp_path: Path) -> None:
    directory = PeerDirectory(tmp_path)  # holds no invite
    lookout = Lookout(directory, ("http://127.0.0.1:9",), 1.0)
    lookout.look()
    (first,) = watchers(directory)
    first.wait(60)
    for _ in range(20):
        lookout.look()
    assert watchers(directory) == []
    lookout.close()
