"""A mount point as the place to write to: another disk, that can neither be removed nor replaced by a folder made beside it."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chain.commands import ok
from tests.odd_machines import mounted, run, sparehive

SMALL = ("task.model.fields={n_embd=16,n_layer=1,n_head=2}", "task.data.context=16", "codec.part_values=2048")


def on_a_disk(place: Path, kept: Path, *commands: Sequence[str | Path]) -> tuple[int, str]:
    """Exit status and stderr of `commands`, run one after the other until one fails while `place` is a disk of its own; what lies there
    then is copied to `kept`."""
    place.mkdir()
    script = f"{' && '.join(shlex.join(map(str, each)) for each in commands)}; status=$?"
    script += f"\ncp -a {shlex.quote(str(place))}/. {shlex.quote(str(kept))}"
    setup = f"mount -t tmpfs t {shlex.quote(str(place))}"
    done = run(mounted(setup, ["sh", "-c", f"{script}\nexit $status"]), timeout=120.0)
    return done.returncode, done.stderr


@pytest.fixture
def content(tmp_path: Path) -> dict[str, str]:
    """CIDs of a folder and of a file, of which a.car has all."""
    (tmp_path / "in" / "more").mkdir(parents=True)
    (tmp_path / "in" / "text").write_bytes(os.urandom(3 << 20))
    (tmp_path / "in" / "more" / "small").write_bytes(b"small")
    cids = {
        "folder": ok("car", "export", tmp_path / "in", tmp_path / "a.car")["cid"],
        "file": ok("car", "export", tmp_path / "in" / "text", tmp_path / "file.car")["cid"],
    }
    return {name: str(cid) for name, cid in cids.items()}


def fetch(tmp_path: Path, cid: str, donor: str = "a.car") -> list[str]:
    return sparehive("fetch", cid, "--from", tmp_path / donor, "--out", tmp_path / "disk")


def test_content_is_fetched_into_it(tmp_path: Path, content: dict[str, str]) -> None:
    code, err = on_a_disk(tmp_path / "disk", tmp_path / "kept", fetch(tmp_path, content["folder"]))
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["more", "text"]
    assert (tmp_path / "kept" / "text").read_bytes() == (tmp_path / "in" / "text").read_bytes()
    assert (tmp_path / "kept" / "more" / "small").read_bytes() == b"small"
    assert not list(tmp_path.glob("*.part"))


def test_what_was_broken_off_in_it_goes_on(tmp_path: Path, content: dict[str, str]) -> None:
    """On that disk, not beside it: it may be the only one with room."""
    ok("car", "import", tmp_path / "a.car", "--store", tmp_path / "half")
    max((tmp_path / "half" / "blocks").iterdir(), key=lambda path: path.stat().st_size).unlink()  # of `text`
    half, all_of_it = (fetch(tmp_path, content["folder"], car) for car in ("half", "a.car"))
    beside = f'test -n "$(ls -A {shlex.quote(str(tmp_path / "disk"))})"'
    code, err = on_a_disk(
        tmp_path / "disk", tmp_path / "kept", ["sh", "-c", f"! {shlex.join(half)}"], ["sh", "-c", beside], all_of_it
    )
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["more", "text"]


def test_a_file_cannot_take_its_place(tmp_path: Path, content: dict[str, str]) -> None:
    code, err = on_a_disk(tmp_path / "disk", tmp_path / "kept", fetch(tmp_path, content["file"], "file.car"))
    assert code == 1
    assert err.splitlines()[-1].startswith(f"sparehive: --out = '{tmp_path / 'disk'}': is a mount point"), err
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_run_is_made_in_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200, encoding="utf-8")
    settings = [part for each in SMALL for part in ("--set", each)]
    command = sparehive("run", "new", tmp_path / "disk", "--data", tmp_path / "text.txt", *settings)
    code, err = on_a_disk(tmp_path / "disk", tmp_path / "kept", command)
    assert code == 0, err
    assert (tmp_path / "kept" / "run.toml").is_file()
    assert not [path.name for path in (tmp_path / "kept").iterdir() if path.name.startswith(".")]
