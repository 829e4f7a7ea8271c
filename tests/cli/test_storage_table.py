"""`run new --store-price`: what a run pays to be stored is its own data, hashed as whoever stores it will."""

from pathlib import Path

import pytest

from swarm.checkpoint.segments import content_order, segments_root
from swarm.checkpoint.unixfs import cid_text
from swarm.config import load_run
from tests.chain.commands import ok, refused

KIB_PER_GIB = 1 << 20


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {number} of what is learnt\n" for number in range(3000)))
    return path


def new(text: Path, run: Path, *options: object) -> tuple[object, ...]:
    small = (
        "--set",
        "task.model.fields={n_embd=16,n_layer=1,n_head=2}",
        "--set",
        "codec.part_values=2048",
        "--preset",
        "demo",
        "--tokenizer",
        "bpe:300",
    )
    return ("run", "new", run, "--data", text, *small, *options)


def test_a_run_lists_its_data_to_be_stored(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    price = 3 * KIB_PER_GIB + 5
    options = ("--store-price", f"{price}base", "--store-replicas", "2", "--set", "storage.every_epochs=4")
    made = ok(*new(text, run, *options))
    table = load_run(run / "run.toml").storage
    assert table is not None and (table.price, table.replicas, table.every_epochs, table.segments) == (3, 2, 4, 4)
    files = content_order(path.name for path in (run / "data").iterdir())
    assert files == ["text.txt", "tokenizer.json"]
    root, size = segments_root((run / "data" / name).read_bytes() for name in files)
    (listed,) = table.objects
    config = load_run(run / "run.toml")
    assert (listed.segments_root, listed.bytes) == (root.hex(), size)
    assert listed.cid == cid_text(bytes.fromhex(config.task.data.root))
    assert made["storage"]["objects"] == [{"cid": listed.cid, "bytes": size}]
    assert made["storage"]["gib_amount"] == str(3 * KIB_PER_GIB)
    assert made["storage"]["epoch_amount_at_most"] == str(3 * -(-size // 1024))
    assert ok("run", "check", run)["run_id"] == made["run_id"]


def test_without_the_option_a_run_is_what_it_was(text: Path, tmp_path: Path) -> None:
    made = ok(*new(text, tmp_path / "run"))
    assert made["storage"] is None and "storage" not in (tmp_path / "run" / "run.toml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--store-price", "9base"), "--store-price = '9base': is less than a base unit for each KiB: give 1048576base"),
        (("--store-price", "1", "--set", "storage.objects=[]"), "storage.objects cannot be set: it follows from data and base"),
        (("--store-price", "1", "--set", "storage.replicas=2"), "storage.replicas cannot be set: it is that of --store-replicas"),
        (("--store-price", "1", "--set", "storage.segments=99"), "storage.segments = 99"),
        (("--set", "storage.every_epochs=2"), "storage.every_epochs': is about people who are paid to store: give --store-price"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_told_and_leaves_nothing(
    text: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    assert words in refused(*new(text, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


def test_data_too_small_for_so_many_storers_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("a few words, again and again. " * 900)
    run = tmp_path / "run"
    said = refused(*new(tiny, run, "--store-price", "1", "--store-replicas", "64"))
    assert "storage.objects.0.bytes" in said and "to be paid to storage.replicas = 64 storers" in said
    assert not run.exists()
