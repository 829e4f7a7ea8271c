"""One door between a device and the host: nobody goes around it, and a peer on another device works."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swarm.device import HOST, copy_to_host, to_device, to_host

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_peer_on_another_device() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/training/cases_elsewhere.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_tensor_of_the_host_is_not_copied_unless_asked() -> None:
    here = torch.arange(4.0)
    assert to_host(here).data_ptr() == to_device(here, HOST).data_ptr() == here.data_ptr()
    copy = copy_to_host(here)
    here.zero_()
    assert copy.tolist() == [0.0, 1.0, 2.0, 3.0]


_OTHER_DOORS = {"numpy", "cpu", "data_ptr", "untyped_storage", "frombuffer", "save_file", "safe_open"}
_NUMPY_ALONE = (
    "swarm/data/",
    "peers/making/",
    "peers/recording.py",
    "peers/published.py",
)  # arrays of tokens, and files


def test_nobody_else_asks_a_tensor_for_its_memory() -> None:
    found = []
    for package in ("swarm", "peers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name == "swarm/device.py" or name.startswith(_NUMPY_ALONE):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = node.func if isinstance(node, ast.Call) else None
                word = getattr(called, "attr", getattr(called, "id", ""))
                if word in _OTHER_DOORS or (word == "save" and ast.unparse(called).startswith("torch.")):  # type: ignore[arg-type]
                    found.append(f"{name}:{node.lineno}: {ast.unparse(called)}")  # type: ignore[arg-type, attr-defined]
    assert found == []
