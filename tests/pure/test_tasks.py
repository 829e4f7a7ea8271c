"""One door for tasks: configuration and code have the same kinds, and nobody else reads what is of one kind alone."""

import re
from pathlib import Path
from typing import get_args

from swarm.config import DataConfig, RunConfig
from swarm.tasks import KINDS

ROOT = Path(__file__).parents[2]
# of their task alone, and where its runs are made
FILES_OF_TASKS = ("swarm/config/", "swarm/tasks/", "peers/texts.py", "peers/making/")
_READ = re.compile(r"\btask\.(?:data|model)\.(\w+)")
_IMPORTED = re.compile(
    r"^\s*from swarm\.(?:config\.(?:causal_lm|chat|\w+_classification|texts)|tasks\.(?:causal_lm|chat|\w+_classification)) import",
    re.MULTILINE,
)
_FOR_ALL = {
    "root",
    "content",
    "tables",
    "size_bytes",
    "tokens_per_sample",
    "of_a_model",
    "model_dump",
    "published",
    "is_adapter",
}


def others() -> dict[str, str]:
    found = {}
    for package in ("swarm", "peers", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(FILES_OF_TASKS):
                found[name] = path.read_text(encoding="utf-8")
    assert len(found) > 100
    return found


def test_every_kind_of_task_that_a_run_can_name_is_there_and_no_other() -> None:
    annotation = RunConfig.model_fields["task"].annotation
    tables = get_args(annotation) or (annotation,)
    kinds = [get_args(table.model_fields["kind"].annotation)[0] for table in tables]
    assert sorted(kinds) == sorted(KINDS)
    for table in tables:
        data = table.model_fields["data"].annotation
        assert all(issubclass(each, DataConfig) for each in get_args(data) or (data,))


def test_what_is_of_one_kind_alone_is_read_in_its_files() -> None:
    words = re.compile(r"\"[^\"\n]*\"")  # names of fields in messages and settings
    astray = [
        f"{name}: {found[0]}"
        for name, text in others().items()
        for found in _READ.finditer(words.sub("", text))
        if found[1] not in _FOR_ALL
    ]
    assert astray == []
    assert [name for name, text in others().items() if _IMPORTED.search(text)] == []
