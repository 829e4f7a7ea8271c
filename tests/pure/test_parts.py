import errno
from pathlib import Path

import pytest

from swarm.averaging.parts import PartStore
from swarm.errors import RetryError
from swarm.hashing import sha256


def test_what_was_put_is_found_by_its_digest(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    assert store.get(store.put(b"part")) == b"part"
    assert store.get(sha256(b"another")) is None


def test_the_oldest_parts_are_forgotten_beyond_the_limit(tmp_path: Path) -> None:
    store = PartStore(tmp_path, memory_bytes=10)
    old = store.put(b"x" * 8)
    new = store.put(b"y" * 8)
    assert store.get(old) is None
    assert store.get(new) == b"y" * 8


def test_kept_parts_survive_a_restart_and_put_ones_do_not(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    kept, put = store.keep(b"own"), store.put(b"other")
    again = PartStore(tmp_path)
    assert again.get(kept) == b"own"
    assert again.get(put) is None


def test_a_rotten_file_is_not_handed_out(tmp_path: Path) -> None:
    digest = PartStore(tmp_path).keep(b"own")
    (tmp_path / digest.hex()).write_bytes(b"rot")
    assert PartStore(tmp_path).get(digest) is None


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("swarm.atomic.os.fsync", full)
    with pytest.raises(RetryError, match="No space left on device"):
        PartStore(tmp_path).keep(b"own")
    assert list(tmp_path.iterdir()) == []
