"""`sparehive data` and `run new --data CID`: made, shown, handed on and trained on; hostile manifests are refused in one line."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import put_folders, put_pieces
from swarm.checkpoint.unixfs import cid_text
from swarm.config import load_run
from tests.chain.commands import ok, refused, sparehive
from tests.cli.test_fetch import gateway

OWNER = "0x" + "ab" * 20
TINY = ("--preset", "demo", "--set", "task.model.fields={n_embd=16,n_layer=1,n_head=2}", "--set", "task.data.context=16",
        "--set", "codec.part_values=2048")  # fmt: skip


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "one.txt").write_text("the quick brown fox jumps over the lazy dog. " * 300)
    (folder / "more" / "two.txt").write_text("a second text of the same kind. " * 300)
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_published_listed_shown_and_fetched(texts: Path, tmp_path: Path) -> None:
    (texts / ".key").write_text("secret")
    made = ok("data", "publish", texts, "--licence", "CC-BY-4.0", "--owner", f"{OWNER}:2.5", "--description", "foxes")
    assert made["files"] == 2 and made["owners"] == [{"account": OWNER, "share_bps": 250}] and made["name"] == "texts"
    assert (
        ok("data", "publish", texts, "--licence", "CC-BY-4.0", "--owner", f"{OWNER}:2.5", "--description", "foxes")[
            "cid"
        ]
        == made["cid"]
    )
    (row,) = ok("data", "list")["data"]
    assert row["cid"] == made["cid"] and row["licence"] == "CC-BY-4.0"
    with gateway(Path("sparehive-data")) as url:
        shown = ok("data", "show", made["cid"], "--from", url)
        assert [file["name"] for file in shown["files"]] == ["more/two.txt", "one.txt"]
        assert shown["files"][1]["sha256"] == sha256((texts / "one.txt").read_bytes()).hexdigest()
        ok("fetch", made["cid"], "--from", url, "--out", tmp_path / "out")
        assert (tmp_path / "out" / "more" / "two.txt").read_bytes() == (texts / "more" / "two.txt").read_bytes()
        assert not (tmp_path / "out" / ".key").exists()
        ok("data", "withdraw", made["cid"])
        assert "gives it no more (410)" in refused("data", "show", made["cid"], "--from", url)
    assert ok("data", "list")["data"] == []
    assert "was not published" in refused("data", "withdraw", made["cid"])
    code, out, _ = sparehive("data", "show", made["cid"])
    assert code == 0 and "asks for 2.5 %" in out and "licence: CC-BY-4.0" in out


def test_a_run_is_made_of_one(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ok("data", "publish", texts, "--licence", "CC0-1.0", "--owner", OWNER)
    monkeypatch.chdir(tmp_path)
    assert "nobody was named" in refused("run", "new", "a", "--data", made["cid"], *TINY)
    with gateway(tmp_path / "here" / "sparehive-data") as url:
        code, _, err = sparehive("run", "new", "a", "--data", f"ipfs://{made['cid']}", "--data-from", url, *TINY)
        assert code == 0, err
    code, _, err = sparehive("run", "new", "b", "--data", texts, *TINY)
    assert code == 0, err
    assert load_run(tmp_path / "a" / "run.toml").task.data == load_run(tmp_path / "b" / "run.toml").task.data
    beside = json.loads((tmp_path / "a" / "dataset.json").read_bytes())
    assert beside["cid"] == made["cid"] and beside["about"]["owners"][0]["account"] == OWNER
    (kept,) = (path for path in (tmp_path / "cache" / "sparehive" / "data").iterdir() if path.is_dir())
    (kept / "one.txt").write_text("somebody was here")
    assert "nobody was named" in refused("run", "new", "c", "--data", made["cid"], *TINY), (
        "what was changed is not taken"
    )
    source = ("--data-from", tmp_path / "here" / "sparehive-data")
    assert sparehive("run", "new", "c", "--data", made["cid"], *source, *TINY)[0] == 0
    assert "--data-from is about" in refused("run", "new", "d", "--data", texts, *source, code=2)


def test_one_file_is_taken_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("the quick brown fox jumps over the lazy dog. " * 300)
    made = ok("data", "publish", tmp_path / "corpus", "--licence", "CC0-1.0")
    code, _, err = sparehive("run", "new", tmp_path / "run", "--data", made["cid"], *TINY)
    assert code == 0, err


def test_what_is_wrong_is_one_line_and_leaves_nothing(texts: Path, tmp_path: Path) -> None:
    assert "licence" in refused("data", "publish", texts, code=2)
    licence = ("--licence", "CC0-1.0")
    assert "names no part" in refused("data", "publish", texts, *licence, "--owner", f"{OWNER}:x", code=2)
    assert "0x12" in refused("data", "publish", texts, *licence, "--owner", "0x12:1")
    twice = ("--owner", f"{OWNER}:1", "--owner", f"{OWNER}:2")
    assert "twice" in refused("data", "publish", texts, *licence, *twice)
    much = ("--owner", f"{OWNER}:60", "--owner", f"0x{'cd' * 20}:60")
    assert "more than the whole" in refused("data", "publish", texts, *licence, *much)
    (texts / "manifest.json").write_text("{}")
    assert "manifest.json of its own" in refused("data", "publish", texts, *licence)
    (texts / "manifest.json").rename(texts / "ONE.TXT")
    assert "case alone" in refused("data", "publish", texts, *licence)
    assert "neither a CID, nor a file" in refused("data", "publish", tmp_path / "nothing", *licence)
    assert not Path("sparehive-data").exists()
    assert "is no store" in refused("data", "list")
    assert "nobody was named" in refused("data", "show", cid_text(bytes(32)))


# -- hostile manifests ---------------------------------------------------------------------------------------------------
FILE = b"a line of text\n" * 200
ENTRY: dict[str, Any] = {"name": "a.txt", "size": len(FILE), "sha256": sha256(FILE).hexdigest()}
GOOD: dict[str, Any] = {
    "kind": "sparehive-data",
    "format": 1,
    "name": "n",
    "licence": "l",
    "owners": [],
    "files": [ENTRY],
}


def with_files(*entries: dict[str, Any]) -> Callable[[], bytes]:
    return lambda: json.dumps(GOOD | {"files": [ENTRY | entry for entry in entries]}).encode()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a path out of the folder": (with_files({}, {"name": "../../etc/passwd"}), "leads out of its folder"),
    "an absolute path": (with_files({}, {"name": "/etc/passwd"}), "leads out of its folder"),
    "a file that is not there": (with_files({}, {"name": "b.txt"}), "which is not in it"),
    "a file that it does not name": (lambda: json.dumps(GOOD | {"files": [ENTRY | {"name": "b"}]}).encode(), "does not name it"),
    "a size that is a lie": (with_files({"size": 1}), "has 3000 bytes"),
    "a file twice": (with_files({}, {}), "twice"),
    "itself": (with_files({}, {"name": "manifest.json"}), "manifest.json"),
    "no file": (with_files(), "files"),
    "a key that nobody knows": (lambda: json.dumps(GOOD | {"run": "rm -rf"}).encode(), "run"),
    "another format": (lambda: json.dumps(GOOD | {"format": 2}).encode(), "format"),
    "an owner that is no account": (lambda: json.dumps(GOOD | {"owners": [{"account": "me", "share_bps": 1}]}).encode(), "owners"),
    "more than the whole": (
        lambda: json.dumps(GOOD | {"owners": [{"account": OWNER, "share_bps": 10_001}]}).encode(), "owners"
    ),
    "brackets without end": (lambda: b"[" * 200_000, "cannot be used"),
    "more files than anybody has": (with_files(*({"name": str(i)} for i in range(100_001))), "files"),
    "no JSON": (lambda: b"\xff\xfe", "cannot be used"),
}  # fmt: skip


def put(store: Path, manifest: bytes) -> str:
    blocks = BlockStore(store / "blocks", 1 << 30)
    links = {"a.txt": put_pieces((FILE,), blocks), "manifest.json": put_pieces((manifest,), blocks)}
    return cid_text(put_folders(links, blocks).digest)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_manifest_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, why = HOSTILE[case]
    cid = put(tmp_path / "store", make())
    assert why in refused("data", "show", cid, "--from", tmp_path / "store")


def test_hashes_that_are_lies_make_no_run(tmp_path: Path) -> None:
    source = ("--data-from", tmp_path / "store")
    cid = put(tmp_path / "store", with_files({"sha256": "0" * 64})())
    said = refused("run", "new", tmp_path / "run", "--data", cid, *source, *TINY)
    assert "is not the file that manifest.json describes" in said and not (tmp_path / "run").exists()
    cid = put(tmp_path / "store", json.dumps(GOOD).encode())
    assert sparehive("run", "new", tmp_path / "run", "--data", cid, *source, *TINY)[0] == 0
