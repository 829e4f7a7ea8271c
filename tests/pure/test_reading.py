"""Data as people have it: each form gives its rows, and what is broken is named with its line and a remedy."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from peers.errors import ConfigError
from peers.reading import open_image, open_rows
from peers.reading.lines import PIECE_CHARACTERS
from peers.reading.rows import Row

ROWS = [
    {"text": "first", "label": "a"},
    {"text": 'with "quotes", commas\nand lines', "label": "b"},
    {"text": "ünï", "label": "a"},
]


def everything(data: Path, *columns: str) -> list[dict[str, Any]]:
    return [row.values for row in open_rows(data).read(columns)]


def refused(data: Path, *columns: str) -> str:
    with pytest.raises(ConfigError) as error:
        list(open_rows(data).read(columns))
    assert "\n" not in str(error.value)
    return str(error.value)


def image_bytes(size: tuple[int, int] = (5, 4), colour: str = "red", form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form, **options)
    return out.getvalue()


def test_jsonl_csv_parquet_and_a_datasets_folder_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    quoted = [",".join('"' + row[c].replace('"', '""') + '"' for c in ("label", "text")) for row in ROWS]
    (tmp_path / "a.csv").write_text("\ufefflabel,text\r\n" + "\r\n".join(quoted) + "\r\n", encoding="utf-8", newline="")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1])).save_to_disk(tmp_path / "splits")
    for name in ("a.jsonl", "a.csv", "a.parquet", "saved", "splits"):
        assert everything(tmp_path / name, "text", "label") == ROWS, name
        assert set(open_rows(tmp_path / name).columns()) == {"text", "label"}
    assert [row.where for row in open_rows(tmp_path / "a.csv").read(["text"])] == ["a.csv:2", "a.csv:3", "a.csv:5"]
    assert [row.where for row in open_rows(tmp_path / "a.parquet").read(["text"])][2] == "a.parquet row 3"


def test_a_text_comes_in_pieces_that_end_with_a_line_and_is_one_document(tmp_path: Path) -> None:
    text = "".join(f"line {n} ü\n" for n in range(30_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "b.md").write_text("end", encoding="utf-8")
    rows = list(open_rows(tmp_path).read(["text"]))
    assert "".join(row.values["text"] for row in rows) == text + "end"
    assert sum(row.is_end for row in rows) == 2 and len(rows) > 4
    assert all(PIECE_CHARACTERS <= len(row.values["text"]) < PIECE_CHARACTERS + 20 for row in rows if not row.is_end)
    first, second = rows[:2]
    assert second.where == f"a.txt:{first.values['text'].count(chr(10)) + 1}"


def test_images_are_of_the_class_of_their_folder(tmp_path: Path) -> None:
    for label, name in (("cat", "1.png"), ("dog", "1.jpg"), ("cat", "2.PNG")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_bytes(image_bytes())
    rows = list(open_rows(tmp_path).read(["image", "label"]))
    assert [(row.where, row.values["label"]) for row in rows] == [
        ("cat/1.png", "cat"),
        ("cat/2.PNG", "cat"),
        ("dog/1.jpg", "dog"),
    ]
    assert open_image(rows[0].values["image"], rows[0].where).size == (5, 4)


def test_images_of_a_datasets_folder_are_opened_under_the_same_bounds(tmp_path: Path) -> None:
    Dataset.from_dict({"image": [Image.new("L", (3, 2))], "label": [1]}).save_to_disk(tmp_path / "d")
    (row,) = open_rows(tmp_path / "d").read(["image"])
    opened = open_image(row.values["image"], row.where)
    assert (opened.size, opened.mode) == ((3, 2), "RGB")


def test_a_folder_is_of_the_form_with_the_most_bytes_and_says_what_it_left_out(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), tmp_path / "a.parquet")
    (tmp_path / "README.md").write_text("about it")
    (tmp_path / "settings.json").write_text("{}" * 5000)
    rows = open_rows(tmp_path)
    assert [name for _, name in rows.files] == ["a.parquet", "b.parquet"]
    assert "README.md" in rows.skipped.words() and "settings.json" in rows.skipped.words()
    assert len(rows.checksums().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"a.jsonl:2': is no JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n[1]\n', "a.jsonl:3': is a list; write one object a line"),
        ("a.jsonl", b'{"text": "x"}\n{"txet": "y"}\n', "a.jsonl:2': has no column 'text', but 'txet'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "a.jsonl:2': is not UTF-8 (byte 11 of the line)"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, "a.jsonl:1': is no JSON"),
        ("a.jsonl", rb'{"text": "\ud800"}' + b"\n", "a.jsonl:1': is no JSON"),
        ("a.csv", b"text,label\nx,a\ny\n", "a.csv:3': has 1 values for 2 columns"),
        ("a.csv", b'text,label\nx,a\n"y,b\nz,c\n', "a.csv:3': is no CSV"),
        ("a.csv", b"words,label\nx,a\n", "a.csv:1': has no column 'text', but 'words', 'label'"),
        ("a.csv", b"text\nx\n\xe9\n", "a.csv:3': is not UTF-8"),
        ("a.txt", b"one\ntwo\n\xc3\x28", "a.txt:3': is not UTF-8 (byte 1 of the line)"),
        ("a.parquet", b"PAR1 and no more", "a.parquet': is no Parquet file, or was cut off"),
        ("a.bin", b"\0\1\2", "is of a form that is not known"),
    ],
)
def test_what_is_broken_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refused(tmp_path / name, "text")


def test_a_value_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": 3}\n')
    _, row = open_rows(tmp_path / "a.jsonl").read(["text"])
    with pytest.raises(ConfigError, match=r"a\.jsonl:2': text is a number, not text"):
        row.text("text")
    with pytest.raises(ConfigError, match=r"a\.parquet: row 7': text has half a character at 1; mend it"):
        Row("a.parquet: row 7", {"text": "a\ud800"}).text("text")


def test_a_parquet_file_that_was_cut_off_or_has_rotted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist(ROWS * 2000), path, row_group_size=1000, compression="NONE", use_dictionary=False
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "a.parquet': is no Parquet file, or was cut off" in refused(path, "text")
    path.write_bytes(data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :])
    assert "a.parquet row" in refused(path, "text")


def test_a_folder_of_datasets_with_a_pickle_in_it_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "d")
    (tmp_path / "d" / "cache.pkl").write_bytes(b"cos\nsystem\n")
    assert "d/cache.pkl': is a pickle" in refused(tmp_path / "d", "text")


def test_a_folder_of_datasets_that_is_damaged_is_refused(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "d")
    (arrow,) = (tmp_path / "d").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    assert "d': is no folder that datasets saved, or is damaged" in refused(tmp_path / "d", "text")
    DatasetDict(test=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "s")
    assert "s': has splits 'test' and no 'train'" in refused(tmp_path / "s", "text")


def test_images_that_cannot_be_taken_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(data: Any) -> str:
        with pytest.raises(ConfigError) as error:
            open_image(data, "cat/1.png")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "cat/1.png': is no image that can be read" in said(image_bytes((300, 300), form="BMP")[:60_000])
    assert "cat/1.png': is no image that can be read" in said(b"")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    assert "is no image that can be read" in said(postscript) and "hostscript" not in said(
        postscript
    )  # it would be run
    tiff = bytearray(image_bytes(form="TIFF"))
    for at in range(8, len(tiff)):  # whatever pillow makes of a damaged one
        damaged = bytes(tiff[:at]) + bytes([tiff[at] ^ 0xFF]) + bytes(tiff[at + 1 :])
        with contextlib.suppress(ConfigError):
            open_image(damaged, "cat/1.tif")
    assert "holds no image" in said({"bytes": None, "path": "/elsewhere.png"})
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert "is animated" in said(out.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "has more than 100 pixels" in said(image_bytes((11, 10)))
    assert "has more than 100 pixels" in said(image_bytes((100, 100)))
    (tmp_path / "1.png").write_bytes(image_bytes())
    assert "1.png': lies in no folder of its class" in refused(tmp_path, "image")


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    assert "holds no data" in refused(tmp_path, "text")
    assert "cannot be read" in refused(tmp_path / "absent", "text")
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="holds no row"):
        open_rows(tmp_path / "a.jsonl").columns()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.csv", "a.txt", "a.parquet", "a.png", "a"]))
def test_any_bytes_are_rows_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        found = open_rows(path)
        list(found.read(found.columns()))
