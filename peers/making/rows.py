"""What tasks share whose samples are one row each."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.errors import ConfigError
from peers.making import NO_ROOT, Written
from peers.progressbar import ProgressBar
from peers.reading import Row, Rows, broken, open_image
from peers.recording import RecordSpool
from swarm.config import RecordsConfig, RunConfig
from swarm.errors import InputError

if TYPE_CHECKING:
    from swarm.checkpoint.store import BlockStore


class RowTask:
    """Implements `peers.making.TaskMaker` but for what its kind has of its own. `columns`: names in the files, by the names that the
    task's `Use.encode` takes."""

    kind: str
    making = "making the records"

    def __init__(self, rows: Rows, columns: Mapping[str, str]) -> None:
        self.rows, self.columns = rows, dict(columns)
        self.content: dict[str, bytes] = {}

    @abstractmethod
    def draft(self) -> dict[str, Any]: ...

    @abstractmethod
    def prepare(self, progress: ProgressBar) -> None:
        """What is known once the rows were looked through: names of labels, a tokenizer."""

    def tables(self, data: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
        data = {"kind": "records", "root": NO_ROOT, "num_train": 1, "num_held": 1, **data}
        return {"kind": self.kind, "data": data, "model": model}

    def read(self, progress: ProgressBar) -> dict[str, Any]:
        if self.rows.skipped.skipped:
            progress.note(self.rows.skipped.words())
        there = self.rows.columns()
        for name, column in self.columns.items():
            if column not in there:
                option = {"text": "--text-column", "label": "--label-column"}.get(name, "--data")
                raise ConfigError(
                    option,
                    column,
                    f"{self.rows.files[0][1]} has {', '.join(map(repr, there))}; name the one with the {name}",
                )
        self.prepare(progress)
        return self.draft()

    def check(self, config: RunConfig) -> None:
        pass

    def write(self, store: "BlockStore", scratch: Path, draft: RunConfig, progress: ProgressBar) -> Written:
        """ConfigError names the first row that is broken."""
        from swarm.data.draw import draw_sizes
        from swarm.data.records import RecordLayout
        from swarm.tasks import open_use

        data = draft.task.data
        assert isinstance(data, RecordsConfig)
        layout, left = RecordLayout(data.record_fields()), 0
        use = open_use(draft, self.content.__getitem__)
        with RecordSpool(scratch, layout) as spool:
            with progress.during(self.making) as report:
                for row in self.rows.read(list(self.columns.values()), report):
                    try:
                        record = use.encode(self.given(row))
                    except InputError as error:
                        shown = "" if error.value is None else f" = {str(error.value)[:60]!r}"
                        raise broken(row.where, f"{error.field}{shown}: {error.remedy}") from None
                    left += len(record) == 0
                    spool.append(record)
            if left:
                progress.note(f"{left} rows are left out: nothing of what is to be learnt is within task.data.context")
            stored = spool.store(store, False, progress)
        per_unit = draft.inner.batch_size * draft.inner.steps_per_unit
        leaves, units = draw_sizes(layout.table(1).records_per_leaf, per_unit)
        values = {
            "num_train": stored.num_train, "num_held": stored.num_held, "leaves_per_draw": leaves, "units_per_draw": units
        }  # fmt: skip
        return Written({"data": values}, self.content, stored.entries)

    def given(self, row: Row) -> dict[str, Any]:
        """The row by the task's names, images opened, labels as words."""
        made = {name: row.values[column] for name, column in self.columns.items()}
        if "image" in made:
            made["image"] = open_image(made["image"], row.where)
        if "label" in made:
            made["label"] = label_of(made["label"], row.where)
        return made

    def facts(self) -> dict[str, Any]:
        return {
            "data_bytes": self.rows.size_bytes(),
            "files": len(self.rows.files),
            "left_out": self.rows.skipped.counts(),
        }

    def checksums(self) -> str:
        return self.rows.checksums()


def label_of(value: object, where: str) -> str:
    """A label as a word; ConfigError where it is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > 200 or not value.isprintable():
        raise broken(where, f"label {str(value)[:60]!r} is no word of at most 200 letters and no number; mend it")
    return value


__all__ = ["RowTask", "label_of"]
