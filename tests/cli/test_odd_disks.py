"""Commands on file systems and terminals that lack what most have. Linux: seccomp stands in for such file systems."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.odd_machines import HARD_LINKS, LOCKS, MODES, run, without


def python(code: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


MAKE = (
    "import sys; from pathlib import Path; from incentives.keys import create_key; create_key(Path(sys.argv[1]), 'p')"
)
READ = (
    "import sys; from pathlib import Path; from incentives.keys import load_password as l\n"
    "print(l(Path(sys.argv[1])), l(Path(sys.argv[1])))"
)


def test_a_key_is_made_without_hard_links_and_replaces_none(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    done = run(without(HARD_LINKS, python(MAKE, key)))
    assert done.returncode == 0, done.stderr
    whole = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and whole and os.listdir(tmp_path) == ["key.json"]
    again = run(without(HARD_LINKS, python(MAKE, key)))
    assert "exists already" in again.stderr and key.read_bytes() == whole and os.listdir(tmp_path) == ["key.json"]


def test_modes_that_chmod_cannot_change_are_warned_of_once(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret", encoding="utf-8")
    password.chmod(0o666)
    fixed = run(without(MODES, ["sh", "-c", 'umask 0; exec "$@"', "sh", *python(READ, password)]))
    assert fixed.stdout == "secret secret\n" and fixed.stderr.count("no file modes") == 1, fixed.stderr
    real = run(["sh", "-c", 'umask 0; exec "$@"', "sh", *python(READ, password)])
    assert "chmod 600 it" in real.stderr and "secret" not in real.stdout
    assert os.listdir(tmp_path) == ["password"]


@pytest.mark.parametrize("kind", ["directory", "journal"])
def test_no_locks_is_told_as_that(kind: str, tmp_path: Path) -> None:
    code = {
        "directory": "from peers.directory import PeerDirectory as D\nwith D(p).locked(): pass",
        "journal": "from incentives.journal import SigningJournal as J\nJ(p / 'journal')",
    }[kind]
    done = run(without(LOCKS, python(f"import sys; from pathlib import Path; p = Path(sys.argv[1])\n{code}", tmp_path)))
    assert "locked there" in done.stderr and "disk of this machine" in done.stderr
    assert "another peer" not in done.stderr


def test_a_command_with_all_descriptors_closed_ends_well(tmp_path: Path) -> None:
    """The first files that are opened would become stdout and stderr, and hold what is printed."""
    code = (
        "import sys; from peers.descriptors import take_standard_descriptors; take_standard_descriptors()\n"
        "file = open(sys.argv[1], 'w', encoding='utf-8'); print('out'); print('err', file=sys.stderr)\n"
        "import subprocess; subprocess.run(['echo', 'child'], check=True); file.write(str(file.fileno()))"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *python(code, tmp_path / "file")], timeout=60, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text(encoding="utf-8") == "3"


def test_a_terminal_without_utf8_gets_escapes() -> None:
    code = (
        "from peers.descriptors import take_standard_descriptors; take_standard_descriptors(); print('\u2581 \u2026')"
    )
    done = run(python(code), PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, "\\u2581 \\u2026\n"), done.stderr
