"""Data as people have it, row by row: one reader for each form, and which form it is."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from peers.errors import ConfigError
from peers.reading.columns import ParquetForm, SavedForm
from peers.reading.images import ImageForm, open_image
from peers.reading.lines import CsvForm, JsonLinesForm, TextForm
from peers.reading.rows import Form, Row, broken
from peers.sources import Sources, checksum_line, files_below

FORMS: tuple[Form, ...] = (JsonLinesForm(), CsvForm(), ParquetForm(), ImageForm(), TextForm())
_SAVED = SavedForm()
_REMEDY = "give text, JSONL, CSV or Parquet files, a folder that datasets saved, or images in folders by class"


@dataclass(frozen=True)
class Rows:
    """Somebody's data: files of one form, (path, name) in the order in which they are read."""

    form: Form
    files: tuple[tuple[Path, str], ...]
    skipped: Sources

    def columns(self) -> tuple[str, ...]:
        """Of the first file."""
        path, name = self.files[0]
        return self.form.columns(path, name)

    def read(self, columns: Sequence[str], report: Callable[[float], None] = lambda share: None) -> Iterator[Row]:
        """All rows, of these columns. ConfigError names the first that is broken, and what to do; where a column is missing those that
        there are."""
        sizes = [_size(path) for path, _ in self.files]
        total, done = max(1, sum(sizes)), 0
        for (path, name), size in zip(self.files, sizes, strict=True):
            try:
                yield from self.form.rows(
                    path,
                    name,
                    columns,
                    lambda share, done=done, size=size: report((done + share * size) / total),  # type: ignore[misc]
                )
            except OSError as error:
                raise broken(name, f"cannot be read ({error.strerror or error}); check it") from None
            done += size
            report(done / total)

    def size_bytes(self) -> int:
        return sum(_size(path) for path, _ in self.files)

    def checksums(self) -> str:
        """As `sha256sum` writes and checks them."""
        lines = []
        for path, name in self.files:
            below = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            for each in below:
                with open(each, "rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                inside = f"{name}/{each.relative_to(path).as_posix()}" if path.is_dir() else name
                lines.append(checksum_line(digest, inside))
        return "".join(lines)


def open_rows(data: Path) -> Rows:
    """Which form the data has, by suffix and content, and its files. Of a folder all files of the form that has the most bytes there; what
    else lies there is left out and told. ConfigError where there is nothing that can be read."""
    try:
        kind = stat.S_IFMT(data.stat().st_mode)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError("--data", str(data), f"cannot be read ({why}); {_REMEDY}") from None
    if kind == stat.S_IFREG:
        form = _form_of_file(data)
        if form is None:
            raise ConfigError("--data", str(data), f"is of a form that is not known; {_REMEDY}")
        return Rows(form, ((data, data.name),), Sources())
    if kind != stat.S_IFDIR:
        raise ConfigError("--data", str(data), f"is neither a file nor a folder; {_REMEDY}")
    if SavedForm.is_one(data):
        return Rows(_SAVED, ((data, data.name),), Sources())
    return _of_folder(data)


def _of_folder(folder: Path) -> Rows:
    suffixes = tuple(suffix for form in FORMS for suffix in _in_folders(form))
    skipped = Sources()
    found = [(Path(path), name) for path, name in files_below(skipped, os.fspath(folder), suffixes)]
    of_form = {
        form: [(path, name) for path, name in found if path.suffix.lower() in _in_folders(form)] for form in FORMS
    }
    form = max(FORMS, key=lambda each: sum(_size(path) for path, _ in of_form[each]))  # of equals the first
    mine = [(path, name) for path, name in of_form[form] if _size(path)]
    if mine:
        taken = set(mine)
        for path, name in found:
            if (path, name) not in taken:
                skipped.skip(name, f"no {form.name}" if _size(path) else "empty")
        return Rows(form, tuple(mine), skipped)
    said = f"; {skipped.words()}" if skipped.skipped else ""
    raise ConfigError("--data", str(folder), f"holds no data{said}; {_REMEDY}")


def _in_folders(form: Form) -> tuple[str, ...]:
    """A .json beside other files is rather somebody's settings than rows."""
    return tuple(suffix for suffix in form.suffixes if suffix != ".json")


def _form_of_file(path: Path) -> Form | None:
    """By suffix; what has none that is known by its first bytes, Parquet, JSONL, or text."""
    suffix = path.suffix.lower()
    for form in FORMS:
        if suffix in form.suffixes:
            return form
    try:
        with open(path, "rb") as stream:
            first = stream.read(4096)
    except OSError as error:
        raise broken(str(path), f"cannot be read ({error.strerror}); check it") from None
    if first[:4] == b"PAR1":
        return ParquetForm()
    if first.lstrip()[:1] == b"{" and b"\n" in first and _is_json(first[: first.index(b"\n")]):
        return JsonLinesForm()
    return None if b"\0" in first else TextForm()


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


__all__ = ["FORMS", "Form", "Row", "Rows", "broken", "open_image", "open_rows"]
