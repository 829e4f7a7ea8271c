"""Files that a chain or a signature refers to, where the file system does not sync its names."""

import errno
import os
from pathlib import Path

import pytest

from incentives import atomic


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_what_cannot_be_synced_at_all_is_let_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "sync_directory", refuse)

    def write(path: Path) -> None:
        if path.name == "tables":
            atomic.write_atomically(path, b"whole")
        else:
            atomic.write_new(path, b"whole", draft=path.with_name("draft"))

    for name in ("tables", "key"):
        if number == errno.EIO:
            with pytest.raises(OSError, match=os.strerror(number)):
                write(tmp_path / name)
        else:
            write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "tables"]
