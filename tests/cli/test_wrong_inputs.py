"""Every command, given something wrong: one line on stderr that names field, value and remedy, and a non-zero exit.

What needs a chain is in tests/chain/test_refusals.py."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from peers.cli import cli
from peers.directory import PeerDirectory
from peers.invite import DICTIONARY, PREFIX, Invite, RunBinding
from swarm.config import RunConfig, dump_run
from tests.chain.commands import refused, sparehive

ORGANISER = PrivateKey(b"\x0b" * 32)
RPC = ("--rpc", "http://127.0.0.1:9")


def config(name: str = "test") -> RunConfig:
    return RunConfig.parse(
        {
            "name": name,
            "initial_root": "00" * 32,
            "task": {"kind": "causal_lm", "data": {"root": "00" * 32, "text": {"size": 1, "sha256": "00" * 32}}},
        }
    )


def invite(run: RunConfig | None = None) -> str:
    run = run or config()
    return Invite.make(run, RunBinding(run.run_id, 0, bytes(20), (b"\x01" * 20,), ()), ORGANISER).encode()


def changed_invite(**changes: Any) -> str:
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    value = json.loads(inflate.decompress(base64.urlsafe_b64decode(invite()[len(PREFIX) :])))
    for key, new in changes.items():
        value[key] = {**value[key], **new} if isinstance(new, dict) else new
    return PREFIX + base64.urlsafe_b64encode(zlib.compress(json.dumps(value).encode())).decode()


# -- no command is left out -------------------------------------------------------------------------------------------
COMMANDS = {
    (): (
        "join",
        "seed",
        "store",
        "export",
        "settle",
        "bind",
        "rewards",
        "claim",
        "verify",
        "wallet",
        "books",
        "unstick",
        "evaluate",
        "sample",
        "fetch",
        "gateway",
        "ipfs",
    ),
    ("data",): ("publish", "list", "show", "withdraw"),
    ("car",): ("export", "import"),
    ("run",): ("new", "check", "baseline", "replay", "deploy", "fund", "status"),
    ("model",): (
        "publish",
        "offer",
        "list",
        "show",
        "verify",
        "hold",
        "buy",
        "fetch",
        "open",
        "earnings",
        "serve",
        "ask",
        "proxy",
    ),
}


@pytest.mark.parametrize("path", [(*group, name) for group, names in COMMANDS.items() for name in names])
def test_an_unknown_option_is_wrong_usage(path: tuple[str, ...]) -> None:
    assert "No such option" in refused(*path, "--surprise", code=2)


@pytest.mark.parametrize("path", [(*group, name) for group, names in COMMANDS.items() for name in names])
def test_errors_are_json_where_the_result_would_be(path: tuple[str, ...]) -> None:
    """Programs read one object from stderr, whatever is wrong and whichever command it is."""
    code, out, err = sparehive(*path, "--surprise", "--json")
    said = json.loads(err)
    assert (code, out, said["exit_status"]) == (2, "", 2) and "No such option" in said["error"]
    assert said["kind"] == "NoSuchOption"


def test_errors_of_what_a_command_does_are_json_too(tmp_path: Path) -> None:
    code, out, err = sparehive("run", "status", tmp_path, *RPC, "--json")
    assert (code, out) == (1, "")
    said = json.loads(err)
    assert said["kind"] == "InputError" and said["exit_status"] == 1
    assert f"{tmp_path}/chain.json" in said["error"] and not said["error"].startswith("sparehive")


def test_homes_and_file_urls_in_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--dir=~/peer` comes as it is: shells replace a ~ only at a word's beginning."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/peer", f"file://{tmp_path}/peer"):
        assert f"--dir = '{tmp_path}/peer'" in refused("rewards", f"--dir={given}", *RPC)
        assert f"{tmp_path}/peer" in refused("run", "check", given)
    (tmp_path / "invite.txt").write_text("no invite")
    assert f"invite {tmp_path}/invite.txt" in refused("rewards", "--invite=~/invite.txt", *RPC)
    keys = ("--keystore", "k", "--password-file", "p")
    line = refused("claim", "--dir", tmp_path, *RPC, *keys, "--tables", "ipfs://bafy")
    assert "--tables = 'ipfs://bafy': is on IPFS" in line and "gateway" in line
    assert "is a URL: give a path" in refused("rewards", "--dir", "https://a/b", *RPC, code=2)
    line = refused("settle", "--dir", tmp_path, *RPC, *keys, "--uri", "file:///home/me/tables")
    assert "--uri = 'file:///home/me/tables': is on this machine: others need a URL" in line


def test_an_unknown_command_is_wrong_usage() -> None:
    assert "No such command" in refused("surprise", code=2)
    assert "No such command" in refused("run", "surprise", code=2)


def test_every_command_is_listed_above_and_has_help() -> None:
    known = {name for names in COMMANDS.values() for name in names} | {*(group for path in COMMANDS for group in path)}
    listed = set(cli.list_commands(None))  # type: ignore[arg-type]
    for (group,) in filter(None, COMMANDS):
        listed |= set(cli.get_command(None, group).list_commands(None))  # type: ignore[arg-type, union-attr]
    assert listed - known <= {"demo"}, "a new command needs its wrong inputs here"
    for group, names in COMMANDS.items():
        for name in names:
            code, out, err = sparehive(*group, name, "--help")
            assert (code, err) == (0, "")
            assert out.startswith("Usage: ")


# -- evaluate, sample -------------------------------------------------------------------------------------------------
def test_evaluate_and_sample(tmp_path: Path) -> None:
    assert "has no invite.txt, no run.toml and no exported model" in refused("evaluate", tmp_path)
    assert "DIR = '/none/such': is no directory; give a folder of" in refused("sample", "/none/such", "--prompt", "a")
    assert "give either --prompt TEXT or --file PATH" in refused("sample", tmp_path, code=2)
    assert "give either --prompt" in refused("sample", tmp_path, "--prompt", "a", "--file", "b", code=2)
    assert "--temperature" in refused("sample", tmp_path, "--prompt", "a", "--temperature", -1, code=2)
    new = ("run", "new", tmp_path / "run", "--task", "chat")
    assert "--data = None: is needed: rows of" in refused(*new)
    assert "'speech' is not one of" in refused(*new[:-1], "speech", code=2)
    assert not (tmp_path / "run").exists()


# -- run new, check, baseline -----------------------------------------------------------------------------------------
def test_run_new(tmp_path: Path) -> None:
    assert "--data = '/none/such': does not exist" in refused("run", "new", tmp_path / "a", "--data", "/none/such")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no text" in refused("run", "new", tmp_path / "a", "--data", empty)
    new = ("run", "new", tmp_path / "a", "--preset", "demo")
    assert "'many' is no count: give e.g. 1.5M" in refused(*new, "--tokens", "many", code=2)
    assert "'1.2345k' is not a whole number" in refused(*new, "--samples", "1.2345k", code=2)
    assert "--tokens and --samples both say when the run ends" in refused(
        *new, "--tokens", "1M", "--samples", "9k", code=2
    )
    assert "--tokens = '2k': is less than two units of 2,560" in refused(*new, "--tokens", "2k")
    ends = ("--set", "inner.total_units=700")
    assert "--samples = '20k': decides inner.total_units" in refused(*new, "--samples", "20k", *ends)
    warm = ("--set", "inner.warmup_units=900")
    assert "inner.warmup_units = 900: must be below inner.total_units = 500" in refused(*new, "--samples", "20k", *warm)
    assert not (tmp_path / "a").exists()
    assert "is not one of 'demo', 'small', 'base'" in refused("run", "new", tmp_path / "a", "--preset", "huge", code=2)
    assert "'-1' is no amount" in refused("run", "new", tmp_path / "a", "--unit-price", -1, code=2)
    line = refused("run", "new", tmp_path / "a", "--unit-price", "0.0000001", "--token-decimals", 6)
    assert "--unit-price = '0.0000001': has more digits after the point than the token's 6 decimals" in line
    text = tmp_path / "text.txt"
    text.write_text("some text\n" * 1000)
    unknown = refused("run", "new", tmp_path / "b", "--data", text, "--set", "inner.surprise=1")
    assert "inner.surprise" in unknown
    wrong = refused("run", "new", tmp_path / "c", "--data", text, "--set", "inner.lr=fast")
    assert "inner.lr" in wrong and "fast" in wrong
    assert "is not a group of settings" in refused("run", "new", tmp_path / "d", "--data", text, "--set", "name.x=1")
    (tmp_path / "taken").mkdir()
    dump_run(config(), tmp_path / "taken" / "run.toml")
    assert "holds a run already" in refused("run", "new", tmp_path / "taken", "--data", text)
    for name in "abcd":
        assert not (tmp_path / name / "run.toml").exists()


BAD_TOML = [
    ("name = ", "is not TOML"),
    ("\ufeffname", "is not TOML"),
    ('surprise = 1\nname = "x"', "surprise"),
    ("name = 3", "name"),
    ('name = "x"\n[rounds]\nunits_per_epoch = -1', "units_per_epoch"),
]


@pytest.mark.parametrize(("text", "said"), BAD_TOML)
def test_run_check_of_a_bad_run_toml(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert said in refused("run", "check", path)


def test_run_check_of_a_missing_file(tmp_path: Path) -> None:
    line = refused("run", "check", tmp_path / "run.toml")
    assert str(tmp_path / "run.toml") in line
    assert "is not there: give the directory that `sparehive run new` made" in line
    assert "is not there" in refused("run", "check", tmp_path)


def test_run_baseline(tmp_path: Path) -> None:
    assert "make one with: sparehive run new" in refused("run", "baseline", tmp_path, "--units", 1)
    assert "Missing option '--units'" in refused("run", "baseline", tmp_path, code=2)
    dump_run(config(), tmp_path / "run.toml")
    assert "is missing or damaged: restore it from a copy" in refused("run", "baseline", tmp_path, "--units", 1)


def test_run_replay(tmp_path: Path) -> None:
    assert "is no peer's directory" in refused("run", "replay", "--dir", tmp_path)
    (tmp_path / "invite.txt").write_text(invite())
    assert str(tmp_path) in refused("run", "replay", "--dir", tmp_path)
    assert "is not in the range x>=1" in refused("run", "replay", "--dir", tmp_path, "--epoch", 0, code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"invite.txt"}, "a reader leaves nothing behind"


# -- seed, join, export -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "said"), BAD_TOML[:3])
def test_seed_with_a_bad_run(tmp_path: Path, text: str, said: str) -> None:
    options = ("--dir", tmp_path / "seed")
    assert "make one with: sparehive run new" in refused("seed", tmp_path, *options)
    (tmp_path / "run.toml").write_text(text)
    assert said in refused("seed", tmp_path, *options)
    assert not (tmp_path / "seed").exists()


def test_a_description_of_a_chain_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text("{")
    line = refused("run", "status", tmp_path / "chain.json", "--rpc", "http://127.0.0.1:1")
    assert "is no JSON (" in line and "restore it" in line and "Invalid JSON" not in line


def test_join_with_a_bad_invite(tmp_path: Path) -> None:
    options = ("--dir", tmp_path / "peer")
    good = invite()
    altered = changed_invite(binding={"chain_id": "x"})
    for text, said in (
        ("nonsense", "is neither an invite"),
        (good[:-9], "cannot be read"),
        (PREFIX + "!!!!", "cannot be read"),
        (str(tmp_path / ("long" * 20) / ("name" * 20) / "invite.txt"), "invite.txt"),
        (PREFIX + "A" * 70000, "copy it whole"),
        ("x" * 5000, "is neither an invite"),
        (PREFIX + base64.urlsafe_b64encode(zlib.compress(b"[" * 200_000)).decode(), "cannot be read"),
        (altered, "cannot be read"),
        (changed_invite(signature="00" * 65), "cannot be read"),
        (changed_invite(config={"surprise": 1}), "surprise"),
        (changed_invite(config={"name": 3}), "name"),
    ):
        line = refused("join", text, *options)
        assert "invite" in line and said in line
        assert not re.search("padding|decompress|Error|hexadecimal|expected", line), "words of a library"
    assert "INVITE is missing" in refused("join", *options, code=2)
    assert not (tmp_path / "peer" / "invite.txt").exists()


def test_join_in_a_directory_of_another_run(tmp_path: Path) -> None:
    (tmp_path / "invite.txt").write_text(invite(config("other")))
    assert "belongs to a peer of another run" in refused("join", invite(), "--dir", tmp_path)
    assert Invite.decode((tmp_path / "invite.txt").read_text()).config.name == "other"


@pytest.mark.parametrize(
    ("text", "said"), [("port = ", "is not TOML"), ("surprise = 1", "surprise"), ("port = 70000", "port")]
)
def test_join_with_a_bad_peer_toml(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "peer.toml").write_text(text)
    line = refused("join", invite(), "--dir", tmp_path)
    assert "peer.toml" in line and said in line


def test_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "is no peer's directory" in refused("export", "--dir", tmp_path, "--out", out)
    (tmp_path / "invite.txt").write_text(invite())
    assert "has this peer run?" in refused("export", "--dir", tmp_path, "--out", out)
    out.mkdir()
    (out / "kept").write_text("mine")
    assert "is not empty" in refused("export", "--dir", tmp_path, "--out", out)
    assert (out / "kept").read_text() == "mine"
    assert "Missing option '--out'" in refused("export", "--dir", tmp_path, code=2)


# -- money, as far as no chain is needed ------------------------------------------------------------------------------
def test_wallet(tmp_path: Path) -> None:
    keys = ("--keystore", tmp_path / "w.json", "--password-file", tmp_path / "w.password")
    assert "Missing option" in refused("wallet", code=2)
    (tmp_path / "w.json").write_text("{}")
    (tmp_path / "w.json").chmod(0o600)
    (tmp_path / "w.password").write_text("\n")
    (tmp_path / "w.password").chmod(0o600)
    assert "is empty: write the password" in refused("wallet", *keys)
    (tmp_path / "w.password").write_text("secret\n")
    for text in ("{}", "[" * 100_000, '{"version": 3, "crypto": {"kdf": "scrypt", "kdfparams": {"r": 0}}}'):
        (tmp_path / "w.json").write_text(text)
        line = refused("wallet", *keys)
        assert "is malformed" in line and "secret" not in line
    blocked = ("--keystore", tmp_path / "w.json" / "under", "--password-file", tmp_path / "w.password")
    assert "cannot be" in refused("wallet", *blocked)


def test_deploy(tmp_path: Path) -> None:
    assert "either --token ADDRESS or --test-token" in refused("run", "deploy", tmp_path, *RPC, code=2)
    line = refused("run", "deploy", tmp_path, *RPC, "--test-token")
    assert "make one with: sparehive run new" in line
    dump_run(config(), tmp_path / "run.toml")
    assert "organiser.password does not exist" in refused("run", "deploy", tmp_path, *RPC, "--test-token")
    assert "is not in the range" in refused("run", "deploy", tmp_path, *RPC, "--test-token", "--window", 0, code=2)
    too_long = ("--window", 366 * 24 * 3600)
    assert "is not in the range" in refused("run", "deploy", tmp_path, *RPC, "--test-token", *too_long, code=2)


@pytest.mark.parametrize("command", ["settle", "bind", "rewards", "claim", "verify"])
def test_where_the_contracts_are_has_to_be_said(tmp_path: Path, command: str) -> None:
    keys = ("--keystore", "k", "--password-file", "p") if command in ("settle", "claim", "bind") else ()
    assert "--run, --settlement, --invite or --dir is needed" in refused(command, *RPC, *keys, code=2)
    assert "--rpc URL is needed (or SPAREHIVE_RPC in the environment)" in refused(command, *keys, code=2)
    assert "must be 0x and 40 hexadecimal digits" in refused(command, *RPC, *keys, "--settlement", "0x12")
    missing = refused(command, *RPC, *keys, "--run", tmp_path)
    assert f"{tmp_path}/chain.json" in missing and "sparehive run deploy" in missing


@pytest.mark.parametrize("command", ["settle", "rewards", "verify", "bind", "claim"])
def test_a_run_without_a_chain_pays_nothing(tmp_path: Path, command: str) -> None:
    keys = ("--keystore", "k", "--password-file", "p") if command in ("settle", "bind", "claim") else ()
    assert "is no peer's directory: it holds neither" in refused(command, *RPC, *keys, "--dir", tmp_path)
    PeerDirectory(tmp_path).invite.write_bytes(b"\xff\xfe")
    assert "is no text: it must hold an invite" in refused(command, *RPC, *keys, "--dir", tmp_path)
    PeerDirectory(tmp_path).invite.write_text(invite())
    assert "its run has no chain" in refused(command, *RPC, *keys, "--dir", tmp_path)


def test_fund_amounts(tmp_path: Path) -> None:
    options = (tmp_path, *RPC, "--keystore", "k", "--password-file", "p", "--amount")
    for amount in (0, "0.00", "0base", -1, "much", "1.5base"):
        assert "--amount" in refused("run", "fund", *options, amount, code=2)
