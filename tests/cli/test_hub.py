"""`run new --from OWNER/MODEL` against a server that speaks a hub's protocol, as huggingface_hub asks it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_pretrained import TEXT, write_model

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Repositories = dict[str, dict[str, bytes]]


class Hub(BaseHTTPRequestHandler):
    """Models of `repositories` at one commit; owners called "gated" hand out nothing. What was asked for is in `asked`."""

    repositories: Repositories
    asked: list[str]

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code} here"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _answer(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0].strip("/").removeprefix("api/models/")
        name, _, rest = path.partition("/revision/") if "/revision/" in path else path.partition("/resolve/")
        name, _, tree = name.partition("/tree/")
        files = self.repositories.get(name)
        if files is None:
            self._error(404, "RepoNotFound")
        elif name.startswith("gated/") and "/resolve/" in self.path:
            self._error(403, "GatedRepo")
        elif tree:
            entries = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
            self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith("/api/"):
            if rest not in ("", "main", COMMIT):
                self._error(404, "RevisionNotFound")
                return
            info: dict[str, Any] = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        else:
            data = files.get(rest.partition("/")[2])
            if data is None:
                self._error(404, "EntryNotFound")
            else:
                self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("published") / "tiny", "llama, tied", max_shard_size="20KB")


@pytest.fixture
def hub(published: Path) -> Iterator[str]:
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    Hub.repositories = {
        "owner/tiny": {**files, "modeling_tiny.py": b"raise SystemExit(7)", "pytorch_model.bin": b"pickle"},
        "gated/tiny": files,
        "owner/pickled": {"config.json": files["config.json"], "pytorch_model.bin": b"pickle"},
    }
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def run(cwd: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cwd / "hf"),
        "XDG_CACHE_HOME": str(cwd / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    offline = {"HF_HUB_OFFLINE", "HF_TOKEN"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
        env={**{name: value for name, value in os.environ.items() if name not in offline}, **own},
    )  # fmt: skip


def new(cwd: Path, endpoint: str, source: str) -> subprocess.CompletedProcess[str]:
    (cwd / "text.txt").write_text(TEXT)
    rest = ("--data", "text.txt", "--preset", "demo", "--set", "task.data.context=16", "--json")
    return run(cwd, endpoint, "-m", "peers", "run", "new", "run", "--from", source, *rest)


@pytest.mark.timeout(300)
def test_a_model_of_a_hub_becomes_the_base_without_its_code_and_pickles(
    published: Path, hub: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    made = new(tmp_path, hub, "owner/tiny")
    assert made.returncode == 0, made.stderr
    (folder,) = (path for path in (tmp_path / "cache/sparehive/models").iterdir() if path.is_dir())
    wanted = {name: value for shard in published.glob("*.safetensors") for name, value in load_file(shard).items()}
    found = load_file(folder / "model.safetensors")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not [path for path in Hub.asked if path.endswith((".py", ".bin"))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("source", "said"), [
    ("owner/nobody", "no such model"), ("owner/tiny@nowhere", "no such revision"), ("gated/tiny", "is gated"),
    ("owner/pickled", "which can run code"), ("b" + "a" * 58, "b" + "a" * 58),
])  # fmt: skip
def test_what_a_hub_does_not_give_is_one_line_and_leaves_nothing(
    source: str, said: str, hub: str, tmp_path: Path
) -> None:
    refused = new(tmp_path, hub, source)
    assert refused.returncode == 1 and said in refused.stdout + refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 1, refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(300)
def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    refused = new(tmp_path, "http://127.0.0.1:9", "owner/tiny")
    assert refused.returncode == 1 and "the hub does not give it" in refused.stdout + refused.stderr


@pytest.mark.parametrize("option", [("--lora", "4"), ("--freeze", "head"), ("--base", "nf4"), ("--blocks", ".")])
def test_what_is_trained_of_a_model_needs_the_model(option: tuple[str, str], tmp_path: Path) -> None:
    from click.testing import CliRunner

    from peers.cli.training import run_new

    result = CliRunner().invoke(run_new, [str(tmp_path / "run"), *option])
    assert result.exit_code == 2 and "--from" in result.output and not (tmp_path / "run").exists()
