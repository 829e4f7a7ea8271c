"""Text, JSONL and CSV: read line by line, so that a broken one is named and a file may be of any size."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from peers.reading.rows import Report, Row, broken, kind_of, missing_column

MAX_LINE_BYTES = 64 << 20
PIECE_CHARACTERS = 1 << 16
_UTF8 = "is not UTF-8 (byte {} of the line); convert the file"


def _lines(path: Path, name: str, report: Report) -> Iterator[tuple[int, str]]:
    """Number from 1 and text, line end included."""
    size = max(1, path.stat().st_size)
    with open(path, "rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise broken(f"{name}:{number}", f"is longer than {MAX_LINE_BYTES >> 20} MiB; break it into lines")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise broken(f"{name}:{number}", _UTF8.format(error.start + 1)) from None
            yield number, text
            if number % 1024 == 0:
                report(stream.tell() / size)


class TextForm:
    """Implements `Form`: a file is one document, in column "text", in pieces that end with a line."""

    name, suffixes = "text", (".txt", ".py", ".md")

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        return ("text",)

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        if list(columns) != ["text"]:
            raise missing_column(name, next(c for c in columns if c != "text"), ("text",))
        begun, first, size = list[str](), 1, 0
        for number, line in _lines(path, name, report):
            begun.append(line)
            size += len(line)
            if size >= PIECE_CHARACTERS:
                yield Row(f"{name}:{first}", {"text": "".join(begun)}, is_end=False)
                begun, first, size = [], number + 1, 0
        yield Row(f"{name}:{first}", {"text": "".join(begun)})


class JsonLinesForm:
    """Implements `Form`: an object a line."""

    name, suffixes = "JSONL", (".jsonl", ".ndjson", ".json")

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        for _, value in self._objects(path, name, lambda share: None):
            return tuple(value)
        raise broken(name, "holds no row; give a file with an object a line")

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        for number, value in self._objects(path, name, report):
            where = f"{name}:{number}"
            for column in columns:
                if column not in value:
                    raise missing_column(where, column, tuple(value))
            yield Row(where, {column: value[column] for column in columns})

    def _objects(self, path: Path, name: str, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in _lines(path, name, report):
            if not line.strip():
                continue
            try:
                value = from_json(line)
            except ValueError as error:
                what = getattr(error, "msg", None) or str(error) or type(error).__name__
                raise broken(f"{name}:{number}", f"is no JSON ({what}); write one object a line") from None
            if not isinstance(value, dict):
                raise broken(f"{name}:{number}", f'is {kind_of(value)}; write one object a line, as {{"text": …}}')
            yield number, value


class CsvForm:
    """Implements `Form`: the first line names the columns; every value is text."""

    name, suffixes = "CSV", (".csv", ".tsv")

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        for _, header in self._records(path, name, lambda share: None):
            return tuple(header)
        raise broken(name, "holds no line; the first one names the columns")

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        records = self._records(path, name, report)
        _, header = next(records, (0, []))
        for column in columns:
            if column not in header:
                raise missing_column(f"{name}:1", column, header)
        places = {column: header.index(column) for column in columns}
        for number, record in records:
            if len(record) != len(header):
                raise broken(
                    f"{name}:{number}",
                    f"has {len(record)} values for {len(header)} columns; quote values with commas or line ends in them",
                )
            yield Row(f"{name}:{number}", {column: record[place] for column, place in places.items()})

    def _records(self, path: Path, name: str, report: Report) -> Iterator[tuple[int, list[str]]]:
        """With the number of each one's first line; empty lines are passed over."""
        csv.field_size_limit(MAX_LINE_BYTES)
        lines = (line for _, line in _lines(path, name, report))
        reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        while True:
            first = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise broken(f"{name}:{first}", f"is no CSV ({error}); mend the line") from None
            if record is None:
                return
            if record:
                yield first, record


__all__ = ["CsvForm", "JsonLinesForm", "TextForm"]
