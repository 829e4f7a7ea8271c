import errno
import threading
from pathlib import Path

import pytest

from swarm.checkpoint.bases import BaseFolder
from swarm.checkpoint.store import BlockStore
from swarm.errors import RetryError
from swarm.hashing import sha256


def test_a_block_is_found_by_its_digest_also_after_a_restart(tmp_path: Path) -> None:
    digest = BlockStore(tmp_path, 100).put(b"block")
    assert digest == sha256(b"block")
    again = BlockStore(tmp_path, 100)
    assert again.get(digest) == b"block"
    assert again.has(digest)
    assert again.size_bytes() == 5
    assert again.get(sha256(b"other")) is None


def test_the_quota_holds_also_after_a_restart_and_deleting_makes_room(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 10)
    first = store.put(b"12345678")
    store.put(b"12345678")  # there already: costs nothing
    for again in (store, BlockStore(tmp_path, 10)):
        with pytest.raises(RetryError, match="blocks_quota_bytes = 10"):
            again.put(b"abc")
    store.delete(first)
    assert store.get(store.put(b"abcdefgh")) == b"abcdefgh"


def test_a_rotten_block_is_removed_and_can_be_put_again(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 100)
    digest = store.put(b"block")
    (tmp_path / digest.hex()).write_bytes(b"bl0ck")
    assert store.get(digest) is None
    assert not store.has(digest)
    store.put(b"block")
    assert store.get(digest) == b"block"


def test_a_reader_beside_a_running_peer_removes_nothing(tmp_path: Path) -> None:
    digest = BlockStore(tmp_path, 100).put(b"block")
    (tmp_path / digest.hex()).write_bytes(b"bl0ck")
    (tmp_path / "half.part").write_bytes(b"half")  # being written by the peer
    reader = BlockStore(tmp_path, 100, owned=False)
    assert reader.get(digest) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([digest.hex(), "half.part"])
    BlockStore(tmp_path, 100)
    assert [p.name for p in tmp_path.iterdir()] == [digest.hex()]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = BlockStore(tmp_path, 100)
    monkeypatch.setattr("swarm.atomic.os.fsync", full)
    with pytest.raises(RetryError, match=r"No space left on device.*free some disk"):
        store.put(b"block")
    assert list(tmp_path.iterdir()) == []
    assert store.size_bytes() == 0


def test_threads_that_put_at_once_stay_within_the_quota(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, 50)
    refused = []

    def work(number: int) -> None:
        try:
            store.put(b"%10d" % number)
        except RetryError:
            refused.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 7
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) == store.size_bytes() == 50


def test_a_base_whose_file_was_changed_meanwhile_hands_out_nothing_of_it(tmp_path: Path) -> None:
    """Whoever asks would take this peer for a liar."""
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    base, digest = BaseFolder(tmp_path), sha256(b"weights")
    assert base.has(digest) and base.get(digest) == b"weights"
    assert not base.has(sha256(b"other")) and base.get(sha256(b"other")) is None
    (tmp_path / "model.safetensors").write_bytes(b"WEIGHTS")
    assert base.get(digest) is None
