"""`sparehive car`: content out to a file and in again, whole or not at all."""

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from peers.carfiles import export_car
from peers.directory import PeerDirectory
from peers.errors import ConfigError
from peers.progressbar import ProgressBar
from swarm.checkpoint.car import CarReader
from tests.chain.commands import last_words, ok, own_process, own_process_started, refused, sparehive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts" / "more").mkdir(parents=True)
    (tmp_path / "texts" / "one.txt").write_bytes(b"one" * 1000)
    (tmp_path / "texts" / "more" / "two.txt").write_bytes(b"two" * 800_000)
    return tmp_path / "texts"


def test_out_and_in_and_out_again(folder: Path, tmp_path: Path) -> None:
    made = ok("car", "export", folder, tmp_path / "a.car")
    taken = ok("car", "import", tmp_path / "a.car", "--store", tmp_path / "store")
    assert taken["roots"] == [made["cid"]] and taken["new_blocks"] == made["blocks"] == 7
    again = ok("car", "export", made["cid"], tmp_path / "b.car", "--store", tmp_path / "store")
    assert again["cid"] == made["cid"]
    assert (tmp_path / "b.car").read_bytes() == (tmp_path / "a.car").read_bytes()
    assert ok("car", "import", tmp_path / "a.car", "--store", tmp_path / "store")["new_blocks"] == 0


def test_one_file_is_its_own_root(folder: Path, tmp_path: Path) -> None:
    made = ok("car", "export", folder / "one.txt", tmp_path / "a.car")
    assert made["cid"].startswith("bafkrei") and made["blocks"] == 1


def test_a_damaged_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    ok("car", "export", folder, tmp_path / "a.car")
    whole = (tmp_path / "a.car").read_bytes()
    store = tmp_path / "store"
    for damaged, why in (
        (whole[:-1], "cut off"),
        (whole[:-1] + b"?", "not the one that its CID names"),
        (whole[:-3_000], "cut off"),
        (b"no car", "car:"),
        (b"", "empty"),
    ):
        (tmp_path / "b.car").write_bytes(damaged)
        assert why in refused("car", "import", tmp_path / "b.car", "--store", store)
        assert not store.exists()
    ends = whole.rindex((b"two" * 800_000)[2 << 20 :]) - 36 - 3
    (tmp_path / "b.car").write_bytes(whole[:ends])
    assert "lacks block" in refused("car", "import", tmp_path / "b.car", "--store", store)
    ok("car", "import", tmp_path / "a.car", "--store", store)
    assert ok("car", "import", tmp_path / "b.car", "--store", store)["new_blocks"] == 0, (
        "what it lacks is there already"
    )


def test_what_is_wrong_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.car"
    made = ok("car", "export", folder, out)
    assert "is there already" in refused("car", "export", folder, out)
    other = tmp_path / "b.car"
    assert "is in none of" in refused("car", "export", made["cid"], other, "--store", tmp_path / "nowhere")
    assert "version 0" in refused("car", "export", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", other)
    assert "no file or folder here" in refused("car", "export", "surprise", other)
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refused("car", "export", tmp_path / "empty", other)
    assert "there is no folder" in refused("car", "export", folder, tmp_path / "nowhere" / "a.car")
    assert "No such file" in refused("car", "import", tmp_path / "missing.car")
    said = refused("car", "import", out, folder, "--store", tmp_path / "store")
    assert f"FILE = '{folder}': is a folder, and no CAR" in said and not (tmp_path / "store").exists()
    assert not other.exists() and not list(tmp_path.glob("*.part"))


def test_what_is_left_out_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / ".hidden").write_text("secret")
    (folder / "way out").symlink_to(tmp_path)
    code, _, err = sparehive("car", "export", folder, tmp_path / "a.car")
    assert code == 0 and "1 hidden (.hidden)" in err and "1 symbolic link (way out)" in err


def test_what_is_larger_than_a_piece_is_several_files_of_one_root(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(11 << 20))
    whole = ok("car", "export", tmp_path / "big", tmp_path / "whole.car", "--piece-size", "16MiB")
    assert [each["path"] for each in whole["files"]] == [str(tmp_path / "whole.car")], "it fits into one"
    made = ok("car", "export", tmp_path / "big", tmp_path / "data.car", "--piece-size", "4MiB")
    paths = [Path(each["path"]) for each in made["files"]]
    assert [path.name for path in paths] == [f"data.{n}.car" for n in range(len(paths))] and len(paths) == 4
    assert all(path.stat().st_size == each["bytes"] <= 4161536 for path, each in zip(paths, made["files"], strict=True))
    assert made["cid"] == whole["cid"] and sum(each["blocks"] for each in made["files"]) == whole["blocks"]
    assert not list(tmp_path.glob("*.part"))
    store = ("--store", tmp_path / "store")
    said = refused("car", "import", *paths[:-1], *store)
    assert "lacks block" in said and "give all of them at once" in said and not (tmp_path / "store").exists()
    assert ok("car", "import", *reversed(paths), *store)["roots"] == [made["cid"]]
    sources = (option for path in paths for option in ("--from", path))
    ok("fetch", made["cid"], *sources, "--out", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()


def test_nothing_is_left_of_several_files_where_one_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(9 << 20))
    (tmp_path / "data.1.car").write_bytes(b"mine")
    before = sorted(tmp_path.iterdir())
    export = ("car", "export", tmp_path / "big", tmp_path / "data.car", "--piece-size")
    assert "is there already" in refused(*export, "4MiB")
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "data.1.car").read_bytes() == b"mine"
    for wrong in ("5MiB", "2MiB", "100"):
        assert "power of two" in refused(*export, wrong)


def test_a_second_import_waits_and_loses_nothing_to_the_first_that_fails(folder: Path, tmp_path: Path) -> None:
    made, store = ok("car", "export", folder, tmp_path / "a.car"), tmp_path / "store"
    os.mkfifo(tmp_path / "slow.car")
    first = own_process_started("car", "import", tmp_path / "slow.car", "--store", store, cwd=tmp_path)
    with open(tmp_path / "slow.car", "wb") as pipe:
        pipe.write((tmp_path / "a.car").read_bytes()[:-1])
        pipe.flush()
        half = store / "blocks" / f"{'a' * 64}.part"
        half.write_bytes(b"being written")
        second = own_process_started("car", "import", tmp_path / "a.car", "--store", store, cwd=tmp_path)
        assert second.stderr is not None
        assert "waiting for another import into" in second.stderr.readline()
        assert half.exists() and first.poll() is second.poll() is None
    assert "cut off" in first.communicate(timeout=60)[1] and first.returncode == 1
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert ok("car", "export", made["cid"], tmp_path / "b.car", "--store", store)["blocks"] == made["blocks"]


def test_no_import_where_a_peer_runs(folder: Path, tmp_path: Path) -> None:
    ok("car", "export", folder, tmp_path / "a.car")
    with PeerDirectory(tmp_path / "peer").locked():
        said = refused("car", "import", tmp_path / "a.car", "--store", tmp_path / "peer")
        assert "a peer or storer is running in it" in said and not (tmp_path / "peer" / "blocks").exists()
    ok("car", "import", tmp_path / "a.car", "--store", tmp_path / "peer")


def test_what_has_rotted_in_the_store_is_mended(folder: Path, tmp_path: Path) -> None:
    made, store = ok("car", "export", folder, tmp_path / "a.car"), tmp_path / "store"
    ok("car", "import", tmp_path / "a.car", "--store", store)
    largest = max((store / "blocks").iterdir(), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(b"?" + whole[1:])
    assert ok("car", "import", tmp_path / "a.car", "--store", store)["new_blocks"] == 1
    assert largest.read_bytes() == whole
    largest.write_bytes(b"?" + whole[1:])
    assert ok("data", "publish", folder, "--licence", "CC0-1.0", "--store", store)["new_blocks"] > 1
    assert largest.read_bytes() == whole
    assert ok("car", "export", made["cid"], tmp_path / "b.car", "--store", store)["blocks"] == made["blocks"]


def test_a_rotten_block_that_no_car_brings_is_missing(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(9 << 20))
    made = ok("car", "export", tmp_path / "big", tmp_path / "data.car", "--piece-size", "4MiB")
    paths = [Path(each["path"]) for each in made["files"]]
    ok("car", "import", *paths, "--store", tmp_path / "store")
    with open(paths[-1], "rb") as handle:
        last = [block.digest for block in CarReader(handle)]
    rotten = tmp_path / "store" / "blocks" / last[-1].hex()
    rotten.write_bytes(b"?" + rotten.read_bytes()[1:])
    assert "lacks block" in refused("car", "import", *paths[:-1], "--store", tmp_path / "store")


def test_a_full_disk_leaves_nothing_of_an_export(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(9 << 20))
    export = ("car", "export", tmp_path / "big", tmp_path / "a.car")
    most = (5 << 20, resource.RLIM_INFINITY)
    made = own_process(*export, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most))
    assert made.returncode == 1 and "File too large" in last_words(made.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_an_export_takes_no_file_of_others_for_its_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.car.0.part").write_bytes(b"mine")
    ok("car", "export", folder, tmp_path / "a.car")
    assert (tmp_path / "a.car.0.part").read_bytes() == b"mine"


class Meanwhile(ProgressBar):
    """While files are written another one takes a name."""

    def __init__(self, name: Path) -> None:
        super().__init__(quiet=True)
        self._name = name

    def during(self, what: str) -> contextlib.AbstractContextManager[Callable[[float], None]]:
        if what.startswith("writing"):
            self._name.write_bytes(b"of another export")
        return super().during(what)


@pytest.mark.parametrize("most", [None, 4 << 20])
def test_of_two_exports_to_one_file_the_second_is_refused(tmp_path: Path, most: int | None) -> None:
    (tmp_path / "big").write_bytes(os.urandom(5 << 20))
    out = tmp_path / "a.car"
    taken = out if most is None else tmp_path / "a.1.car"
    with pytest.raises(ConfigError, match="is there already"):
        export_car(str(tmp_path / "big"), out, (), Meanwhile(taken), most)
    assert taken.read_bytes() == b"of another export"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["big", taken.name])
