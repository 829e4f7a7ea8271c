"""A pipe in the place of a key or password file: read where somebody writes it, refused in time where nobody does."""

import os
import threading
from pathlib import Path

import pytest

from incentives import keys
from incentives.errors import KeyFileError


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    return path


@pytest.mark.timeout(20)
def test_a_pipe_into_which_nobody_writes_is_refused_in_time(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PIPE_SECONDS", 0.2)
    for read in (keys.load_password, lambda path: keys.load_key(path, "x")):
        with pytest.raises(
            KeyFileError, match=r"is a pipe into which nobody has written all within 0\.2 s: name a file"
        ):
            read(pipe)


@pytest.mark.timeout(20)
def test_a_pipe_that_another_program_writes_is_read(pipe: Path, tmp_path: Path) -> None:
    key = keys.create_key(tmp_path / "key", "of another program")
    writer = threading.Thread(target=pipe.write_bytes, args=(b"of another program\n",))
    writer.start()
    assert keys.unlock_key(tmp_path / "key", pipe).secret == key.secret
    writer.join()


@pytest.mark.timeout(20)
def test_what_is_written_and_never_ended_is_refused_in_time(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PIPE_SECONDS", 0.2)
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    os.write(held, b"half")
    with pytest.raises(KeyFileError, match="is a pipe"):
        keys.load_password(pipe)
    os.close(held)
