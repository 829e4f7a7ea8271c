"""Chat, texts and images with labels: each learns, each swarm as one process on the same samples, each contribution can be redone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swarm import tasks
from swarm.config import RunConfig
from swarm.optim.inner import InnerOptimizer
from swarm.optim.schedule import learning_rate
from swarm.tasks import InPieces, Manner
from swarm.tasks.labelling import macro_f1
from swarm.tasks.uses import settled
from tests.training.labelled import CHATS, IMAGES, TEXTS, digits, echoes, lay_out, topical_texts, word_tokenizer
from tests.training.swarmlet import Learner, make_learners

PEER, BEACON = b"\3" * 20, b"\2" * 32


def texts(path: Path, **sections: dict[str, Any]) -> RunConfig:
    rows = topical_texts(1800)
    tokenizer = word_tokenizer(path, rows)
    fields = {**TEXTS["model"]["fields"], "vocab_size": tokenizer["vocabulary"]}
    data = {**TEXTS["data"], "tokenizer": tokenizer, "context": 24}
    return lay_out(path, {**TEXTS, "model": {**TEXTS["model"], "fields": fields}, "data": data}, rows, **sections)


def images(path: Path, **sections: dict[str, Any]) -> RunConfig:
    return lay_out(path, IMAGES, digits(), **sections)


def chats(path: Path, **sections: dict[str, Any]) -> RunConfig:
    return lay_out(path, CHATS, echoes(1200), **sections)


MAKERS = {"text_classification": texts, "image_classification": images, "chat": chats}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- each by itself ------------------------------------------------------------------------------------------------------
def test_a_step_in_pieces_is_the_step_of_the_whole_batch(kind: str, tmp_path: Path) -> None:
    """Samples of other lengths have the same weight."""
    config = MAKERS[kind](tmp_path)
    model, found = tasks.new_model(config, 7), []
    for size in (0, 16, 5, 1):
        loss = float(tasks.open_task(config, tmp_path, micro_batch=size).step(model, PEER, BEACON, 3, 1))
        found.append((loss, model.grad_flat.clone()))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert float((gradient - found[0][1]).norm() / found[0][1].norm()) < 1e-4


def test_the_loss_is_plain_torch_s_on_what_is_not_padding(tmp_path: Path) -> None:
    config = texts(tmp_path)
    task, model = tasks.open_task(config, tmp_path), tasks.new_model(config, 7)
    record = task.held_out(1)[0]
    tokens = torch.from_numpy(record["tokens"][: record["length"]].astype(np.int64))[None]
    logits = model.module(input_ids=tokens).logits
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([int(record["label"])]))
    assert task.evaluate(model, 1) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert (record["tokens"][record["length"] :] == 0).all() and int(record["length"]) < 24


def test_a_chat_learns_the_assistant_s_words_and_what_ends_them_alone(tmp_path: Path) -> None:
    config = chats(tmp_path)
    task, model = tasks.open_task(config, tmp_path), tasks.new_model(config, 7)
    record = task.held_out(1)[0]
    text = record["tokens"].astype(np.uint8).tobytes()
    learnt = bytes(byte for byte, is_learnt in zip(text, record["learnt"], strict=True) if is_learnt)
    asked, answer = text.split(b"<|im_end|>\n")[:2]
    assert learnt == answer.removeprefix(b"<|im_start|>assistant\n") + b"<|im_end|>\n"
    assert learnt.split(b"<")[0] == asked.split()[-1]
    tokens = torch.from_numpy(record["tokens"][:128].astype(np.int64))[None]
    at = np.flatnonzero(record["learnt"])
    logits = model.module(input_ids=tokens).logits[0, at - 1]
    expected = torch.nn.functional.cross_entropy(logits, tokens[0, at])
    assert task.evaluate(model, 1) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_same_unit_is_the_same_step_for_whoever_redoes_it(kind: str, tmp_path: Path) -> None:
    config = MAKERS[kind](tmp_path)
    first, second = tasks.open_task(config, tmp_path), tasks.open_task(config, tmp_path)
    model = tasks.new_model(config, 7)
    forward = [float(first.step(model, PEER, BEACON, unit, step)) for unit in (0, 5) for step in range(4)]
    backward = [float(second.step(model, PEER, BEACON, unit, step)) for unit in (5, 0) for step in (3, 2, 1, 0)]
    assert forward == backward[::-1] and len(set(forward)) == 8


def test_macro_f1_is_scikit_learn_s() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(1)
    for size in (1, 5, 400):
        true, guessed = rng.integers(0, 6, size), rng.integers(0, 7, size)
        assert macro_f1(true, guessed) == pytest.approx(f1_score(true, guessed, average="macro"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [(["a", "b"], "must be a list of 4"), (["a", "b", "c", ""], "must be a list of 4"), (b"{", "is no JSON")],
)
def test_names_of_labels_that_are_none_are_refused(labels: Any, words: str, tmp_path: Path) -> None:
    import hashlib
    import json

    from swarm.errors import InputError

    config = texts(tmp_path)
    content = labels if isinstance(labels, bytes) else json.dumps(labels).encode()
    (tmp_path / "labels.json").write_bytes(content)
    values = config.model_dump(mode="json")
    values["task"]["data"]["labels"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with pytest.raises(InputError, match=words):
        tasks.open_task(RunConfig.parse(values), tmp_path)


# -- a swarm -------------------------------------------------------------------------------------------------------------
def alone(
    config: RunConfig, path: Path, accounts: list[bytes], beacons: list[bytes], rounds: int, units: int
) -> InPieces:
    """One process on the very samples of the swarm: each step takes those of all peers' steps as one batch."""
    task, model = tasks.open_task(config, path), tasks.new_model(config, 7)
    inner, settings = InnerOptimizer(config.inner, model.flat, model.matrices), config.inner
    for number in range(rounds):
        for unit in range(units):
            for step in range(settings.steps_per_unit):
                mine = [task.subject.samples(a, beacons[number], number * units + unit, step) for a in accounts]
                task.step_on(model, np.concatenate(mine))
                clock = (number * units + unit) * len(accounts)
                inner.step(
                    model.grad_flat, learning_rate(clock, settings.lr, settings.warmup_units, settings.total_units)
                )
    task.model = model  # type: ignore[attr-defined]
    return task


def accuracy(task: InPieces, model: Any) -> float:
    found = task.subject.use.measure(model, task.held_out(200), lambda share: None)  # type: ignore[attr-defined]
    assert found.accuracy is not None
    return float(found.accuracy)


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "chance", "least", "rounds"), [(texts, 0.25, 0.95, 12), (images, 0.1, 0.93, 80)], ids=["texts", "images"]
)
def test_a_swarm_classifies_as_well_as_one_process_on_the_same_samples(
    make: Any, chance: float, least: float, rounds: int, tmp_path: Path
) -> None:
    units, peers = 2, 3
    total = rounds * units * peers
    config = make(
        tmp_path, inner={"lr": 8e-3, "batch_size": 64, "total_units": total * 5 // 4, "warmup_units": total // 20}
    )
    line, learners = make_learners(config, tmp_path, peers)
    beacons, before = [], accuracy(learners[0].task, learners[0].model)
    for _ in range(rounds):
        beacons.append(learners[0].member.beacon)
        for learner in learners:
            learner.units(units)
        tip = line.certify([learner.contribute() for learner in learners])
        for learner in learners:
            learner.merge(tip)
    learners[0].model.flat.copy_(line.anchor.parameters)
    after = accuracy(learners[0].task, learners[0].model)
    single = alone(config, tmp_path, [learner.account for learner in learners], beacons, rounds, units)
    reference = accuracy(single, single.model)  # type: ignore[attr-defined]
    assert abs(before - chance) < 0.15, before
    assert after >= least, (after, reference)
    assert after >= reference - 0.02, (after, reference)


def test_a_contribution_of_each_kind_can_be_redone(kind: str, tmp_path: Path) -> None:
    config = MAKERS[kind](tmp_path)
    line, learners = make_learners(config, tmp_path)
    for _ in range(2):
        for learner in learners:
            learner.units(2)
        works = [learner.contribute() for learner in learners]
        tip = line.certify(works)
        for learner in learners:
            learner.merge(tip)
    learners[0].units(1)
    found = learners[0].redo(learners[0].contribute())
    assert found.passed and found.distance <= 1e-3, found


def test_what_was_not_trained_on_the_drawn_samples_is_told(tmp_path: Path) -> None:
    """Another label is another gradient."""
    config = texts(tmp_path)
    _, learners = make_learners(config, tmp_path)
    honest: Learner = learners[0]
    read = honest.task.subject.records.read  # type: ignore[attr-defined]

    def wrong(numbers: np.ndarray) -> np.ndarray:
        records: np.ndarray = read(numbers)
        records["label"] = (records["label"] + 1) % 4
        return records

    honest.task.subject.records.read = wrong  # type: ignore[attr-defined]
    honest.units(2)
    work = honest.contribute()
    honest.task.subject.records.read = read  # type: ignore[attr-defined]
    assert not honest.redo(work).passed


def test_a_chat_gets_better_and_answers(tmp_path: Path) -> None:
    config = chats(tmp_path, inner={"lr": 4e-3})
    _, (learner, _) = make_learners(config, tmp_path)
    before = learner.task.evaluate(learner.model, 50)
    learner.units(15)
    after = learner.task.evaluate(learner.model, 50)
    assert after < before - 1.5, (before, after)
    assert learner.task.sample(learner.model)
    told: list[str] = []
    use = tasks.open_use(config, lambda name: (tmp_path / name).read_bytes())
    given = {"messages": [{"role": "user", "content": "hello"}]}
    answer = use.respond(learner.model, given, Manner(40, 0.8, 3, told.append), lambda share: None)["text"]
    assert told and all(answer.startswith(text) for text in told), "nothing that was told is taken back"
    assert len(answer) - len(told[-1]) <= len("<|im_end|>")


def test_what_may_still_change_is_not_told() -> None:
    assert settled("so far") == "so far"
    assert settled("caf\ufffd") == "caf", "half of a character"
    assert settled("well <|im_e", "<|im_end|>") == "well "
    assert settled("well <|im_x", "<|im_end|>") == "well <|im_x"
    assert settled("well<|im_end|> and more", "<|im_end|>") == "well"
    assert settled("") == settled("", "<") == ""


# -- saved ----------------------------------------------------------------------------------------------------------------
def test_what_is_saved_opens_with_transformers_and_says_the_same(kind: str, tmp_path: Path) -> None:
    import transformers

    config = MAKERS[kind](tmp_path)
    task, model = tasks.open_task(config, tmp_path), tasks.new_model(config, 7)
    out = tmp_path / "saved"
    tasks.save_model(config, model, lambda name: (tmp_path / name).read_bytes(), out)
    auto = {
        "chat": transformers.AutoModelForCausalLM,
        "text_classification": transformers.AutoModelForSequenceClassification,
        "image_classification": transformers.AutoModelForImageClassification,
    }[kind]
    opened = auto.from_pretrained(out).eval()
    record = task.held_out(1)[0]
    names = ("input_ids", "attention_mask", "pixel_values")
    if kind == "image_classification":
        processor = transformers.AutoImageProcessor.from_pretrained(out)
        found = processor(np.asarray(digits()[-200]["image"])[:, :, None], return_tensors="pt")
    elif kind == "text_classification":
        row = topical_texts(1800)[-200]
        found = transformers.AutoTokenizer.from_pretrained(out)(row["text"], return_tensors="pt", padding="max_length")
        assert opened.config.id2label[int(record["label"])] == row["label"]
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
        text = tokenizer.apply_chat_template(echoes(1200)[-200]["messages"], tokenize=False)
        found = tokenizer(text, return_tensors="pt")
        assert found["input_ids"][0].tolist() == record["tokens"][: found["input_ids"].shape[1]].tolist()
    with torch.no_grad():
        theirs = opened(**{name: found[name] for name in names if name in found}).logits
    if kind == "chat":
        ours = model.module(input_ids=found["input_ids"]).logits
    else:
        ours = task.subject.use.logits(model, task.held_out(1))  # type: ignore[attr-defined]
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert math.isfinite(task.evaluate(model, 4))
