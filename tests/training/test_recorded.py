"""A causal language model over records of tokens trains as one over a text does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from swarm import tasks
from swarm.config import RunConfig
from swarm.data.draw import RecordDraw
from swarm.data.records import FileLeaves, RecordLayout, Records, RecordWriter
from swarm.errors import InputError
from tests.training.labelled import CHATS, TEXTS, echoes, lay_out, topical_texts, word_tokenizer
from tests.training.swarmlet import TEXT, make_config, new_model

PEER, BEACON = b"\3" * 20, b"\2" * 32


def recorded(path: Path, num_train: int = 5000, num_held: int = 40) -> RunConfig:
    """The config of `make_config` on records cut from its text, whose files lie in `path`."""
    values = make_config(path).model_dump(mode="json")
    context = values["task"]["data"]["context"]
    values["task"]["data"] = {
        "kind": "records", "root": "0" * 64, "num_train": num_train, "num_held": num_held, "context": context,
        "units_per_draw": 3, "tokenizer": {"kind": "bytes"},
    }  # fmt: skip
    config = RunConfig.parse(values)
    layout = RecordLayout(config.task.data.record_fields())
    tokens, at = np.frombuffer(TEXT, dtype=np.uint8), 0
    for name, count in (("train.records", num_train), ("held.records", num_held)):
        records = layout.empty(count)
        for row in range(count):
            records["tokens"][row] = np.take(tokens, range(at, at + context + 1), mode="wrap")
            at += context + 1
        with open(path / name, "wb") as out:
            writer = RecordWriter(layout, lambda leaf, out=out: out.write(leaf))  # type: ignore[misc]
            writer.append(records)
            writer.close()
    return config


def test_a_step_is_plain_torch_s_on_the_records_that_are_drawn(tmp_path: Path) -> None:
    config = recorded(tmp_path)
    task, model = tasks.open_task(config, tmp_path), new_model()
    context, inner = config.task.data.context, config.inner
    table = RecordLayout(config.task.data.record_fields()).table(5000)
    drawn = RecordDraw(config.run_id, table, 1, 3).samples(PEER, BEACON, 4, inner.steps_per_unit * inner.batch_size)
    mine = drawn[inner.batch_size : 2 * inner.batch_size]
    data = np.fromfile(tmp_path / "train.records", dtype=np.uint8)
    rows = [
        data[(n // table.records_per_leaf << 20) + n % table.records_per_leaf * (context + 1) :][: context + 1]
        for n in mine
    ]
    windows = torch.from_numpy(np.stack(rows).astype(np.int64))
    logits = model.module(input_ids=windows[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert float(task.step(model, PEER, BEACON, 4, 1)) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert task.num_samples() == 5000


def test_a_step_is_the_same_in_any_order_and_in_another_process_s_task(tmp_path: Path) -> None:
    config = recorded(tmp_path)
    first, second = tasks.open_task(config, tmp_path), tasks.open_task(config, tmp_path)
    model = new_model()
    forward = [float(first.step(model, PEER, BEACON, unit, step)) for unit in (0, 7) for step in range(4)]
    backward = [float(second.step(model, PEER, BEACON, unit, step)) for unit in (7, 0) for step in (3, 2, 1, 0)]
    assert forward == backward[::-1] and len(set(forward)) == 8


def test_it_learns_and_held_out_records_are_its_own(tmp_path: Path) -> None:
    config = recorded(tmp_path, 2000)
    task, model = tasks.open_task(config, tmp_path), new_model()
    before = task.evaluate(model)
    optimizer = torch.optim.AdamW([model.flat], lr=4e-3)
    for step in range(40):
        task.step(model, PEER, BEACON, step, 0)
        model.flat.grad = model.grad_flat
        optimizer.step()
    after = task.evaluate(model)
    assert after < before - 0.5
    (tmp_path / "held.records").write_bytes(bytes((tmp_path / "held.records").stat().st_size))
    assert tasks.open_task(config, tmp_path).evaluate(model) != pytest.approx(after, abs=0.05)


def test_a_file_of_records_that_is_missing_is_named(tmp_path: Path) -> None:
    config = recorded(tmp_path)
    (tmp_path / "train.records").unlink()
    with pytest.raises(InputError, match=r"train\.records.*cannot be read"):
        tasks.open_task(config, tmp_path)


def test_a_token_that_the_model_has_no_row_for_is_named_with_its_record(tmp_path: Path) -> None:
    """A run whose organiser made such would end every trainer with a trace, on a card with the process."""
    config = recorded(tmp_path, 400)
    layout = RecordLayout(config.task.data.record_fields())
    (narrow,) = layout.fields
    broken = RecordLayout((dataclasses.replace(narrow, most=60),))
    found = Records(broken, 400, FileLeaves(tmp_path / "train.records", broken.table(400)))
    first = Records(layout, 400, FileLeaves(tmp_path / "train.records", layout.table(400))).read([17])
    letter = next(int(value) for value in first["tokens"][0] if value > 60)
    with pytest.raises(InputError, match=rf"data\.tokens = {letter}: in record 17 must be from 0 to 60"):
        found.read([17])


def text_run(path: Path) -> RunConfig:
    rows = topical_texts(120)
    tokenizer = word_tokenizer(path, rows)
    fields = {**TEXTS["model"]["fields"], "vocab_size": tokenizer["vocabulary"]}
    model, data = {**TEXTS["model"], "fields": fields}, {**TEXTS["data"], "tokenizer": tokenizer}
    return lay_out(path, {**TEXTS, "model": model, "data": data}, rows, 20)


def chat_run(path: Path) -> RunConfig:
    return lay_out(path, {**CHATS, "data": {**CHATS["data"], "tokenizer": {"kind": "bytes"}}}, echoes(120), 20)


@pytest.mark.parametrize(
    ("make", "field", "value", "said"),
    [
        (text_run, "tokens", 60000, r"data\.tokens = 60000: in record \d+ must be from 0 to"),
        (text_run, "length", 0, r"data\.length = 0: in record"),
        (text_run, "label", 4, r"data\.label = 4: in record"),
        (chat_run, "learnt", 2, r"data\.learnt = 2: in record"),
        (chat_run, "learnt", 0, r"data\.learnt = 0: in a record: nothing is learnt"),
    ],
)
def test_broken_records_end_a_step_with_one_line(
    tmp_path: Path, make: Callable[[Path], RunConfig], field: str, value: int, said: str
) -> None:
    config = make(tmp_path)
    layout = RecordLayout(config.task.data.record_fields())
    path = tmp_path / "train.records"
    leaf = np.fromfile(path, dtype=np.uint8)
    records = leaf[: len(leaf) // layout.record_bytes * layout.record_bytes].view(layout.dtype)
    records[field] = value
    leaf.tofile(path)
    with pytest.raises(InputError, match=said):
        tasks.open_task(config, tmp_path).step(tasks.new_model(config), PEER, BEACON, 0, 0)
