"""`run new` on rows: the same files give the same run, and what is in its records are the files' tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peers import recording
from peers.baseline import baseline
from peers.choosing import MAX_TEXT_BYTES, DataShape, choose_task
from peers.creating import create_run
from peers.errors import ConfigError
from peers.making.tokens import TokenTask
from peers.progressbar import ProgressBar
from peers.reading import open_rows
from peers.recording import RecordSpool
from peers.runs import RunDirectory, check_run
from peers.texts import TextTask
from swarm.checkpoint.leaves import store_leaves
from swarm.checkpoint.store import BlockStore
from swarm.config import HELD_RECORDS, TRAIN_RECORDS, RecordField, RunConfig
from swarm.data.records import RecordLayout, Records
from swarm.data.tokenizer import parse_tokenizer, train_bpe
from swarm.errors import RetryError
from tests.training.swarmlet import TEXT

TINY = ["task.data.context=16", "task.model.fields={n_embd=32,n_layer=1,n_head=2}", "codec.part_values=4096"]
ROWS = [{"text": line} for line in TEXT[:60_000].decode().split("\n") if line]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def records_of(run: RunDirectory) -> dict[str, np.ndarray]:
    """Tokens of both files, [N, context + 1], as a peer reads them."""
    config = run.load()
    data = config.task.data
    leaves = store_leaves(
        bytes.fromhex(data.root), BlockStore(run.blocks, 1 << 62, owned=False), lambda d: RetryError(d.hex())
    )
    layout = RecordLayout(data.record_fields())
    return {
        name: Records(layout, table.num_records, leaves(name, table)).read(range(table.num_records))["tokens"]
        for name, table in data.tables().items()
    }


def test_records_of_bytes_are_the_rows_one_behind_the_other_the_end_held_out(tmp_path: Path) -> None:
    made = create_run(tmp_path / "run", "rows", write_rows(tmp_path / "a.jsonl", ROWS), "demo", 1, TINY)
    run = RunDirectory(tmp_path / "run")
    found, config = records_of(run), run.load()
    joined = "".join(row["text"] if row["text"].endswith("\n") else row["text"] + "\n" for row in ROWS).encode()
    windows = [joined[at : at + 17] for at in range(0, len(joined) - 16, 17)]
    held = len(windows) // 10
    assert [row.tobytes() for row in found[HELD_RECORDS]] == windows[-held:]
    trained = [row.tobytes() for row in found[TRAIN_RECORDS]]
    assert trained != windows[:-held] and sorted(trained) == sorted(windows[:-held])
    assert (config.task.data.num_train, config.task.data.num_held) == (len(windows) - held, held)
    assert (config.task.data.leaves_per_draw, config.task.data.units_per_draw) == (1, (1 << 20) // 17 // 80)
    assert made["files"] == 1 and made["data_bytes"] == (tmp_path / "a.jsonl").stat().st_size
    assert run.sources.read_text().endswith("  a.jsonl\n")
    assert not list(run.root.glob("records.*")) and not (run.data / TRAIN_RECORDS).exists()
    assert check_run(run.toml)["opened"]
    assert baseline(run.root, 3, 1)["loss"] > 0


def test_the_same_rows_give_the_same_records_in_any_form_and_at_any_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run(tmp_path / "a", "rows", write_rows(tmp_path / "a.jsonl", ROWS), "demo", 1, TINY)
    pq.write_table(pa.Table.from_pylist([{"body": row["text"], "n": 1} for row in ROWS]), tmp_path / "b.parquet")
    monkeypatch.setattr("peers.making.tokens.ROWS_AT_ONCE", 3)
    create_run(tmp_path / "b", "rows", tmp_path / "b.parquet", "demo", 1, TINY, shape=DataShape(text_column="body"))
    roots = {RunDirectory(tmp_path / name).load().task.data.root for name in "ab"}
    assert len(roots) == 1


def test_a_shuffle_by_buckets_is_the_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = RecordLayout((RecordField("n", "uint32"),))

    def shuffled(name: str, is_ordered: bool) -> tuple[list[int], list[int]]:
        (tmp_path / name).mkdir()
        store = BlockStore(tmp_path / name / "blocks", 1 << 40)
        with RecordSpool(tmp_path / name, layout) as spool:
            for start in range(0, 50_000, 7_000):
                batch = layout.empty(min(7_000, 50_000 - start))
                batch["n"] = np.arange(start, start + len(batch))
                spool.append(batch)
            made = spool.store(store, is_ordered, ProgressBar(quiet=True))
        assert [path.name for path in (tmp_path / name).iterdir()] == ["blocks"]
        found = []
        for (_, link), count in zip(made.entries, (made.num_held, made.num_train), strict=True):
            found.append(np.frombuffer(store.get(link.digest) or b"", dtype="<u4").tolist())
            assert len(found[-1]) == count
        return found[0], found[1]

    held, train = shuffled("whole", False)
    assert sorted(held + train) == list(range(50_000)) and len(held) == 5_000 and held + train != sorted(held + train)
    ordered = shuffled("ordered", True)
    assert ordered[0] == list(range(45_000, 50_000)) and sorted(ordered[1]) == list(range(45_000))
    assert abs(np.corrcoef(np.arange(45_000), ordered[1])[0, 1]) < 0.02
    monkeypatch.setattr(recording, "BUCKET_BYTES", 20_000)
    assert shuffled("buckets", False) == (held, train)


def test_a_published_tokenizer_cuts_the_rows_and_its_end_token_parts_them(tmp_path: Path) -> None:
    value = json.loads(train_bpe(TEXT[:100_000], 400))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    value["added_tokens"] = [{"id": 70_000, "content": "<|fin|>", **flags}]
    value["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(value))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|fin|>"}}))
    create_run(tmp_path / "run", "t", write_rows(tmp_path / "a.jsonl", ROWS), "demo", 1, TINY, str(folder))
    run = RunDirectory(tmp_path / "run")
    config, found = run.load(), records_of(run)
    tokenizer = parse_tokenizer((run.data / "tokenizer.json").read_bytes())
    end = tokenizer.token_to_id("<|fin|>")
    assert config.task.data.tokenizer.vocabulary == config.task.model.fields["vocab_size"] == end + 1
    assert found[HELD_RECORDS].dtype == ("<u4" if end > 65_535 else "<u2")
    tokens = [token for row in ROWS for token in [*tokenizer.encode(row["text"]).ids, end]]
    assert any(len(tokenizer.encode(row["text"]).ids) > 4 for row in ROWS)  # truncation is off
    count = len(tokens) // 17
    held = count // 10
    assert found[HELD_RECORDS].tolist() == np.reshape(tokens[: count * 17], (-1, 17))[-held:].tolist()


def test_a_tokenizer_is_trained_on_the_rows(tmp_path: Path) -> None:
    create_run(tmp_path / "run", "t", write_rows(tmp_path / "a.jsonl", ROWS), "demo", 1, TINY, "bpe:300")
    config = RunDirectory(tmp_path / "run").load()
    assert config.task.data.tokenizer.kind == "published" and config.task.data.tokenizer.vocabulary == 300
    assert records_of(RunDirectory(tmp_path / "run"))[TRAIN_RECORDS].dtype == "<u2"


def test_a_broken_row_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", ROWS[:5])
    data.write_text(data.read_text() + '{"text": 5}\n')
    with pytest.raises(ConfigError, match=r"a\.jsonl:6': text is a number"):
        create_run(tmp_path / "new" / "run", "t", data, "demo", 1, TINY)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match=r"--text-column = 'body'.*'text'"):
        create_run(tmp_path / "run", "t", data, "demo", 1, TINY, shape=DataShape(text_column="body"))
    with pytest.raises(ConfigError, match="too little data"):
        create_run(tmp_path / "run", "t", write_rows(data, [{"text": "short"}]), "demo", 1, TINY)


def test_a_damaged_leaf_is_found_when_the_run_is_checked(tmp_path: Path) -> None:
    create_run(tmp_path / "run", "rows", write_rows(tmp_path / "a.jsonl", ROWS), "demo", 1, TINY)
    run = RunDirectory(tmp_path / "run")
    size = run.load().task.data.tables()[TRAIN_RECORDS].size_bytes()  # of one leaf
    (largest,) = [path for path in run.blocks.iterdir() if path.stat().st_size == size]
    largest.write_bytes(b"x" + largest.read_bytes()[1:])
    with pytest.raises(ConfigError, match=f"{largest.name} is missing or damaged"):
        check_run(run.toml)


def test_what_the_run_asks_for_without_its_data_s_sizes_is_another_run(tmp_path: Path) -> None:
    create_run(
        tmp_path / "run",
        "rows",
        write_rows(tmp_path / "a.jsonl", ROWS),
        "demo",
        1,
        [*TINY, "task.data.units_per_draw=7"],
    )
    values = RunDirectory(tmp_path / "run").load().model_dump(mode="json")
    assert values["task"]["data"]["units_per_draw"] == 7
    changed = RunConfig.parse(
        {**values, "task": {**values["task"], "data": {**values["task"]["data"], "units_per_draw": 8}}}
    )
    assert changed.run_id != RunConfig.parse(values).run_id
    with pytest.raises(ConfigError, match="num_train cannot be set"):
        create_run(tmp_path / "other", "rows", tmp_path / "a.jsonl", "demo", 1, [*TINY, "task.data.num_train=7"])


def test_a_small_text_stays_a_text_and_everything_else_becomes_records(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes(TEXT[:50_000])
    assert isinstance(choose_task(text, "bytes", DataShape()), TextTask)
    assert isinstance(choose_task(None, "bytes", DataShape()), TextTask)
    assert isinstance(choose_task(text, "bytes", DataShape(records=True)), TokenTask)
    assert isinstance(choose_task(write_rows(tmp_path / "a.jsonl", ROWS), "bytes", DataShape()), TokenTask)
    with open(tmp_path / "large.txt", "wb") as large:
        large.truncate(MAX_TEXT_BYTES + 1)
    assert isinstance(choose_task(tmp_path / "large.txt", "bytes", DataShape()), TokenTask)
    assert open_rows(text).form.name == "text"
    with pytest.raises(ConfigError, match="--data = None"):
        choose_task(None, "bytes", DataShape(records=True))
    for wrong in ("bpe:3", "bpe:x", "wordpiece", str(tmp_path / "absent.json")):
        with pytest.raises(ConfigError, match=r"--tokenizer.*bpe:N"):
            choose_task(text, wrong, DataShape())
