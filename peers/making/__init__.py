"""What `run new` asks of a kind of task before the run has an id: a file each for how that is made of an organiser's data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from peers.progressbar import ProgressBar
from swarm.config import RunConfig

if TYPE_CHECKING:
    from swarm.checkpoint.store import BlockStore
    from swarm.checkpoint.unixfs import BlockLink

NO_ROOT = "0" * 64  # of data that is not written yet
TOKENIZER_REMEDY = "give bytes, bpe:N with N tokens from 257 to 65536, or a tokenizer.json"


@dataclass(frozen=True)
class Written:
    """`task`: values of `[task]` that are known now; `content`: files of the data directory that are read whole; `entries`: those that are
    in the store already."""

    task: dict[str, Any] = field(default_factory=dict)
    content: Mapping[str, bytes] = field(default_factory=dict)
    entries: tuple[tuple[str, "BlockLink"], ...] = ()


class TaskMaker(Protocol):
    """One kind of task on somebody's data. Its methods are called in this order; ConfigError or InputError says what is wrong."""

    def draft(self) -> dict[str, Any]:
        """Values of `[task]` with which settings can be checked before the data is read, which may last."""

    def read(self, progress: ProgressBar) -> dict[str, Any]:
        """Values of `[task]`, as far as they are known before anything is written."""

    def check(self, config: RunConfig) -> None:
        """That the data is enough for what the settings ask."""

    def write(self, store: "BlockStore", scratch: Path, draft: RunConfig, progress: ProgressBar) -> Written:
        """What is large goes into the store; `scratch` is a folder for what is in between, which goes with an error."""

    def facts(self) -> dict[str, Any]:
        """For `run new`'s result: data_bytes, files, left_out by reason."""

    def checksums(self) -> str:
        """Of the organiser's files, as `sha256sum` writes them."""


def file_of(data: bytes) -> dict[str, Any]:
    """A `DataFile` of these bytes; before there are any, of one."""
    return {"size": max(1, len(data)), "sha256": hashlib.sha256(data).hexdigest()}


__all__ = ["NO_ROOT", "TOKENIZER_REMEDY", "TaskMaker", "Written", "file_of"]
