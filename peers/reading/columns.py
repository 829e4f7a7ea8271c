"""Parquet files and datasets that were saved to disk: memory-mapped or in groups of rows, never whole in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers.errors import one_line
from peers.reading.rows import Report, Row, broken, missing_column

ROWS_AT_ONCE = 256
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


class ParquetForm:
    """Implements `Form`; rows are numbered from 1."""

    name, suffixes = "Parquet", (".parquet",)

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        with self._opened(path, name) as file:
            return tuple(file.schema_arrow.names)

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        import pyarrow

        with self._opened(path, name) as file:
            for column in columns:
                if column not in file.schema_arrow.names:
                    raise missing_column(name, column, file.schema_arrow.names)
            total, number = max(1, file.metadata.num_rows), 0
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(f"{name} row {number}", values)
                    report(number / total)
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise broken(
                    f"{name} row {number + 1}", f"cannot be read ({_short(error)}); make the file again"
                ) from None

    def _opened(self, path: Path, name: str) -> Any:
        import pyarrow
        from pyarrow.parquet import ParquetFile

        try:
            return ParquetFile(path, memory_map=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise broken(name, f"is no Parquet file, or was cut off ({_short(error)}); make it again") from None


class SavedForm:
    """Implements `Form` for a folder that `datasets` saved to disk; of several splits `train`. Rows are numbered from 1."""

    name, suffixes = "datasets folder", ()

    @staticmethod
    def is_one(folder: Path) -> bool:
        return (folder / "dataset_dict.json").is_file() or (
            (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
        )

    def columns(self, path: Path, name: str) -> tuple[str, ...]:
        return tuple(self._opened(path, name).column_names)

    def rows(self, path: Path, name: str, columns: Sequence[str], report: Report) -> Iterator[Row]:
        data = self._opened(path, name)
        for column in columns:
            if column not in data.column_names:
                raise missing_column(name, column, data.column_names)
        data = _undecoded(data.select_columns(list(columns)))
        number, total = 0, max(1, len(data))
        try:
            for values in data:
                number += 1
                yield Row(f"{name} row {number}", values)
                if number % ROWS_AT_ONCE == 0:
                    report(number / total)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise broken(
                f"{name} row {number + 1}", f"cannot be read ({_short(error)}); save the data set again"
            ) from None

    def _opened(self, folder: Path, name: str) -> Any:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _PICKLES:
                inside = path.relative_to(folder).as_posix()
                raise broken(
                    f"{name}/{inside}",
                    "is a pickle, which could run any program; it is no part of a data set: remove it",
                )
        from datasets import DatasetDict, load_from_disk

        try:
            data = load_from_disk(str(folder))
        except Exception as error:  # the library raises what json, pyarrow and itself raise
            raise broken(
                name, f"is no folder that datasets saved, or is damaged ({_short(error)}); save it again"
            ) from None
        if isinstance(data, DatasetDict):
            if "train" not in data:
                raise broken(
                    name, f"has splits {', '.join(map(repr, data))} and no 'train'; give the folder of one of them"
                )
            data = data["train"]
        return data


def _undecoded(data: Any) -> Any:
    """Images stay bytes: pillow opens them under bounds of ours (`peers.reading.images`)."""
    from datasets import Image

    for column, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(column, Image(decode=False))
    return data


def _short(error: Exception) -> str:
    text = one_line(str(error)) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


__all__ = ["ParquetForm", "SavedForm"]
