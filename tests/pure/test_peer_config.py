import re
from pathlib import Path

import pytest

from peers.config import PeerConfig, load_peer_config, save_peer_config
from peers.directory import PeerDirectory, write_json
from peers.errors import ConfigError, StartError


def test_a_saved_config_is_read_back(tmp_path: Path) -> None:
    config = PeerConfig(port=4001, client_mode=True)
    save_peer_config(tmp_path / "peer.toml", config)
    assert load_peer_config(tmp_path / "peer.toml") == config


def test_options_go_over_the_file_and_none_means_not_given(tmp_path: Path) -> None:
    save_peer_config(tmp_path / "peer.toml", PeerConfig(port=4001, threads=2))
    config = load_peer_config(tmp_path / "peer.toml", threads=3, port=None)
    assert (config.port, config.threads) == (4001, 3)


@pytest.mark.parametrize(
    ("written", "saved"),
    [
        ("'http://one:8545'", 'rpc = "http://one:8545"\n'),
        ("''", 'rpc = ""\n'),
        ("['http://one', 'http://two']", 'rpc = [\n    "http://one",\n    "http://two",\n]\n'),
        ("'http://one http://two'", 'rpc = [\n    "http://one",\n    "http://two",\n]\n'),
    ],
)
def test_one_node_stands_as_it_did_and_several_as_a_list(tmp_path: Path, written: str, saved: str) -> None:
    path = tmp_path / "peer.toml"
    path.write_text(f"rpc = {written}\n")
    config = load_peer_config(path)
    assert len(config.rpc) == saved.count("http")
    save_peer_config(path, config)
    assert saved in path.read_text()
    assert load_peer_config(path) == config


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("port = ", "peer.toml"),
        ("prot = 1", "prot"),
        ("port = 70000", "port"),
        ("rpc = ['http://one', 'two']", "rpc.1"),
        ("rpc = 5", "rpc"),
        ('threads = "many"', "threads"),
    ],
)
def test_a_bad_config_names_the_field(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / "peer.toml").write_text(text)
    with pytest.raises(ConfigError, match=names) as caught:
        load_peer_config(tmp_path / "peer.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('threads = "2"', "peer.toml: threads = '2': must be a whole number, without quotes"),
        ('threads = "many"', "peer.toml: threads = 'many': must be a whole number$"),
        ("threads = 0", "peer.toml: threads = 0: must be at least 1"),
        ("reach_seconds = true", "peer.toml: reach_seconds = True: must be a number"),
        ("client_mode = 1", "peer.toml: client_mode = 1: must be true or false"),
        ("host = 5", "peer.toml: host = 5: must be a text in quotes"),
        ("announce = 5", "peer.toml: announce = 5: must be a list"),
        ('after_end = "x"', "peer.toml: after_end = 'x': must be 'auto', 'leave' or 'serve'"),
        ("threads = ", "mend that, or move the file away"),
    ],
)
def test_it_is_said_what_must_stand_there(tmp_path: Path, text: str, said: str) -> None:
    """In no library's words."""
    (tmp_path / "peer.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said).replace(r"\$", "$")):
        load_peer_config(tmp_path / "peer.toml")


def test_a_second_process_is_kept_out_of_a_directory(tmp_path: Path) -> None:
    directory = PeerDirectory(tmp_path / "peer")
    with directory.locked(), pytest.raises(StartError, match="another peer is running"), directory.locked():
        pass
    with directory.locked():
        pass


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "status.json", {"epoch": 1})
    write_json(tmp_path / "status.json", {"epoch": 2})
    assert (tmp_path / "status.json").read_text() == '{\n "epoch": 2\n}\n'
    assert list(tmp_path.iterdir()) == [tmp_path / "status.json"]
