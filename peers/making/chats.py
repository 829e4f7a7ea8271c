"""The task of a new run on conversations."""

from pathlib import Path
from typing import Any

from peers.errors import ConfigError
from peers.making import file_of
from peers.making.rows import RowTask
from peers.making.tokenizing import ChosenTokenizer
from peers.progressbar import ProgressBar
from peers.reading import Rows
from swarm.config import TEMPLATE_FILE
from swarm.data.conversations import MAX_TEMPLATE_BYTES, PLAIN_TEMPLATE, Template, check_messages
from swarm.errors import InputError


class ChatTask(RowTask):
    """Messages as text by the published tokenizer's own template, else by ChatML's."""

    kind, making = "chat", "cutting the conversations into tokens"

    def __init__(self, rows: Rows, tokenizer: int | Path | None) -> None:
        super().__init__(rows, {"messages": "messages"})
        self._tokenizer = ChosenTokenizer(tokenizer)
        template = _whole(self._tokenizer.template or PLAIN_TEMPLATE, self._tokenizer.special)
        if len(template) > MAX_TEMPLATE_BYTES:
            raise ConfigError(
                "--tokenizer", str(tokenizer), f"its chat template has more than {MAX_TEMPLATE_BYTES} bytes"
            )
        self.content[TEMPLATE_FILE] = template

    def draft(self) -> dict[str, Any]:
        data = {"template": file_of(self.content[TEMPLATE_FILE]), **self._tokenizer.values()}
        return self.tables(data, {"fields": {"vocab_size": self._tokenizer.vocabulary}})

    def prepare(self, progress: ProgressBar) -> None:
        for note in self._tokenizer.notes:
            progress.note(note)
        if self._tokenizer.is_to_be_trained:
            self._tokenizer.train(self._texts(), progress)
        self.content |= self._tokenizer.content()

    def _texts(self) -> Any:
        template = Template(self.content[TEMPLATE_FILE].decode())
        for row in self.rows.read(["messages"]):
            try:
                yield template.render(check_messages(row.values["messages"]))
            except InputError as error:
                raise ConfigError("--data", row.where, f"{error.field}: {error.remedy}") from None


def _whole(template: str, special: dict[str, str]) -> bytes:
    """With the special tokens that it names said in it: who uses the model has nothing else."""
    named = [(name, text) for name, text in sorted(special.items()) if name in template]
    said = "".join(f"{{%- set {name} = {_quoted(text)} -%}}" for name, text in named)
    return (said + template).encode()


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


__all__ = ["ChatTask"]
