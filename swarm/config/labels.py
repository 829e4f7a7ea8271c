"""What a run's configuration says of records that each have a label."""

from pydantic import Field

from swarm.config.fields import DataFile
from swarm.config.records import RecordField, RecordsConfig

LABELS_FILE = "labels.json"  # names of the labels, a list of words in the order of their numbers
MAX_LABELS = 4096


class LabelledRecords(RecordsConfig):
    """What is labelled, and behind it the number of its label."""

    labels: DataFile = Field(description="labels.json of the data directory")
    num_labels: int = Field(ge=2, le=MAX_LABELS)

    def content(self) -> dict[str, DataFile]:
        return {LABELS_FILE: self.labels}

    def of_a_model(self) -> tuple[str, ...]:
        return tuple(self.content())

    def tokens_per_sample(self) -> int:
        return 0


def label_field(num_labels: int) -> RecordField:
    """The number of a label."""
    return RecordField("label", "uint16", most=num_labels - 1)


__all__ = ["LABELS_FILE", "MAX_LABELS", "LabelledRecords", "label_field"]
