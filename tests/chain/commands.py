"""The commands as users call them, in this process or in one of their own."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers.cli import main

ROOT = Path(__file__).parents[2]
STILL_WAITING = re.compile(r"sparehive: .+: (\d+%, )?\d+ s")  # peers/progressbar.py, where a busy machine takes seconds


def sparehive(*arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command, by its own entry point, in this process."""
    out, err, old = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["sparehive", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = old
    raise AssertionError("main() always exits")


def ok(*arguments: object) -> dict[str, Any]:
    """The command's JSON; it must succeed and say nothing else."""
    code, out, err = sparehive(*arguments, "--json")
    assert code == 0, err
    return dict(json.loads(out))


def refused(*arguments: object, code: int = 1) -> str:
    """The one line that a command fails with."""
    found, out, err = sparehive(*arguments)
    assert found == code, (found, out, err)
    assert out == "", "a failure prints no result"
    return last_words(err)


def last_words(err: str) -> str:
    """The one line of an error on stderr, before which there is only how long it took."""
    *waiting, why = err.splitlines()
    assert all(STILL_WAITING.fullmatch(line) for line in waiting), err
    assert why.startswith("sparehive: ") and not STILL_WAITING.fullmatch(why) and err.endswith("\n"), err
    return why


def own_process_started(*arguments: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """The command in a process, as somebody else runs it: another directory, another home."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(cwd)}
    command = [sys.executable, "-m", "peers", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment, **pipes, **options)


def own_process(*arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = own_process_started(*arguments, cwd=cwd, **options)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


__all__ = ["ROOT", "STILL_WAITING", "last_words", "ok", "own_process", "own_process_started", "refused", "sparehive"]
