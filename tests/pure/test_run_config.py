"""run.toml: parsed once, hashed canonically, wrong values named."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest

from peers.settings import PRESETS, with_settings
from swarm.config import RunConfig, dump_run, load_run
from swarm.errors import InputError
from swarm.hashing import canonical_json, keccak256

FILE = {"size": 5, "sha256": "ab" * 32}
BPE = {"kind": "bpe", "vocabulary": 300, "file": FILE, "tokens_sha256": "cd" * 32}


PRETRAINED = {"kind": "pretrained", "root": "22" * 32, "size": 1000, "vocabulary": 300}


def values(**sections: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "run",
        "initial_root": "00" * 32,
        "task": {"kind": "causal_lm", "data": {"root": "11" * 32, "text": copy.deepcopy(FILE)}},
    }
    for name, section in sections.items():
        base[name] = section
    return base


def of_task(model: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """Its task with these settings of model and data over the usual ones."""
    task = values()["task"]
    return {"task": {**task, "data": {**task["data"], **data}, **({"model": model} if model else {})}}


def labelled(model: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """A task of texts with labels, with these settings."""
    usual = {"root": "11" * 32, "num_train": 9, "num_held": 3, "labels": FILE, "num_labels": 3}
    task = {"kind": "text_classification", "data": {**usual, **data}}
    return {"task": {**task, "model": model} if model else task}


def pictured(model: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """The same of images."""
    task = labelled(model, **data)["task"]
    return {"task": {**task, "kind": "image_classification"}}


@pytest.mark.parametrize("bpe", [False, True])
def test_the_file_gives_the_same_run_back(tmp_path: Path, bpe: bool) -> None:
    more = of_task({"fields": {"vocab_size": 300}}, tokenizer=BPE) if bpe else {}
    config = RunConfig.parse(values(**more))
    dump_run(config, tmp_path / "run.toml")
    again = load_run(tmp_path / "run.toml")
    assert again == config
    assert again.run_id == config.run_id == keccak256(canonical_json(config.model_dump(mode="json")))
    assert len(config.task.data.content()) == 1 + bpe


def test_a_run_from_before_precision_could_be_chosen_keeps_its_id() -> None:
    """The id is what the version before that field computed."""
    config = RunConfig.parse(values())
    assert config.run_id.hex() == "bdc9640388510ec406c5932a81563cdde9c5c07c81a0df54a250324fd28a4e72"
    assert RunConfig.parse(values(inner={"precision": "fp32"})).run_id == config.run_id


def test_bf16_asks_for_a_tolerance_that_honest_work_keeps() -> None:
    with pytest.raises(
        InputError, match=r"audit\.tolerance = 0\.2: must be at least 6 .*bf16.*--set audit\.tolerance=6"
    ):
        RunConfig.parse(values(inner={"precision": "bf16"}))


def test_any_value_makes_another_run() -> None:
    ids = {
        RunConfig.parse(values(**more)).run_id
        for more in (
            {},
            {"audit": {"rate": 0.1}},
            {"audit": {"hold_seconds": 7200}},
            {"audit": {"tolerance": 0.1}},
            {"rounds": {"recheck_share": 0.5}},
            {"admission": {"stamp_seconds": 30.0}},
            {"witnesses": 2},
            {"unit_price_amount": "7"},
            {"inner": {"optimizer": "adamw8bit"}},
            {"inner": {"precision": "bf16"}, "audit": {"tolerance": 7.0}},
            {"audit": {"tolerance": 7.0}},
            of_task({"fields": {"vocab_size": 300}}, tokenizer=BPE),
            {"organiser": {"wallet": "5a" * 20, "invites": "5b" * 20}},
            {"organiser": {"wallet": "5a" * 20, "invites": "5c" * 20}},
            {"storage": storage()},
            {"storage": storage(replicas=2)},
        )
    }
    assert len(ids) == 16


def stored(letter: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "cid": "b" + letter * 58,
        "bytes": 5000,
        "segments_root": hashlib.sha256(letter.encode()).hexdigest(),
        **more,
    }


def storage(*objects: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"price_amount": "7", "objects": list(objects or [stored()]), **more}


def test_what_is_stored_for_pay_is_read_and_written_again(tmp_path: Path) -> None:
    run = RunConfig.parse(values(storage=storage(stored("a"), stored("b", bytes=2049))))
    assert run.storage is not None
    assert (run.storage.price, run.storage.replicas, run.storage.every_epochs, run.storage.segments) == (7, 3, 1, 4)
    assert run.storage.num_segments == 8
    dump_run(run, tmp_path / "run.toml")
    assert load_run(tmp_path / "run.toml") == run
    assert "[[storage.objects]]" in (tmp_path / "run.toml").read_text()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (storage(*[]) | {"objects": []}, r"storage\.objects = \[\]"),
        (storage(*(stored(letter) for letter in "abcdefghi")), "must have at most 8 entries"),
        (storage(stored(cid="bafy")), r"storage\.objects\.0\.cid = 'bafy'"),
        (storage(stored(bytes=0)), r"storage\.objects\.0\.bytes = 0"),
        (storage(stored(segments_root="zz")), r"objects\.0\.segments_root = 'zz'"),
        (storage(stored(more=1)), r"objects\.0\.more = 1: unknown key"),
        (storage(stored("a"), stored("b"), stored("a")), r"storage\.objects\.2 = .*listed twice"),
        (storage(stored("a"), {**stored("b"), "segments_root": stored("a")["segments_root"]}), "listed twice"),
        (storage(stored(bytes=2**43)), "may have 4294967295 KiB together; list fewer"),
        (storage(stored(bytes=2048)), r"storage\.objects\.0\.bytes = 2048: must be 2049 at least"),
        (storage(price_amount="-1"), r"storage\.price_amount = '-1'"),
        (storage(replicas=0), r"storage\.replicas = 0"),
        (storage(every_epochs=2000), r"storage\.every_epochs = 2000"),
        (storage(segments=17), r"storage\.segments = 17"),
        (storage(unknown=1), r"storage\.unknown = 1: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_table_of_storage_is_refused_by_its_field(table: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RunConfig.parse(values(storage=table))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_valid(preset: str) -> None:
    RunConfig.parse(with_settings(preset, values(), []))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"unknown": 1}, "unknown = 1: unknown key"),
        ({"inner": {"learning_rate": 1}}, r"inner\.learning_rate.*unknown key"),
        ({"inner": {"optimizer": "lion"}}, r"inner\.optimizer = 'lion'"),
        ({"inner": {"steps_per_unit": 1, "betas": [0.9, 0.999]}}, "at least 0.005"),
        ({"inner": {"warmup_units": 10, "total_units": 10}}, "below inner.total_units"),
        ({"codec": {"average": "int2"}}, r"codec\.average = 'int2'"),
        ({"codec": {"average": "float32", "part_values": 1 << 20}}, "at most 524288"),
        ({"codec": {"part_values": 1 << 21}}, r"codec\.part_values"),
        ({"rounds": {"max_reducers": 1}}, r"rounds\.max_reducers = 1"),
        ({"audit": {"hold_seconds": 10}}, r"audit\.hold_seconds = 10"),
        ({"audit": {"rate": 1.5}}, r"audit\.rate = 1.5"),
        ({"rounds": {"recheck_share": -1}}, r"rounds\.recheck_share = -1"),
        (of_task(tokenizer=BPE), "vocab_size"),
        (of_task(tokenizer={"kind": "bpe", "vocabulary": 300}), r"task\.data\.tokenizer\.file"),
        (of_task(tokenizer={"kind": "words"}), r"task\.data\.tokenizer\.kind = 'words': must be bytes or bpe"),
        (of_task(files=[FILE]), r"task\.data\.files"),
        (of_task(text={"size": 0, "sha256": "ab" * 32}), r"task\.data\.text\.size = 0"),
        (of_task(text={"size": 5, "sha256": "../etc/passwd"}), r"task\.data\.text\.sha256"),
        (of_task({"family": "gpt5"}), r"task\.model\.family = 'gpt5'"),
        (of_task({"kind": "hub"}), r"task\.model\.kind = 'hub': must be untrained or pretrained"),
        (of_task({"kind": "pretrained"}), r"task\.model\.root = None: is missing"),
        (of_task({**PRETRAINED, "base": "fp16"}), r"task\.model\.base = 'fp16'"),
        (of_task({**PRETRAINED, "base": "bf16"}), r"task\.model\.base = 'bf16': must be \"fp32\""),
        (
            of_task({**PRETRAINED, "base_sha256": "ab" * 32}),
            r"task\.model\.base_sha256 = .*: belongs to a quantised base",
        ),
        (of_task({**PRETRAINED, "base": "nf4", "train": {"kind": "lora"}}), r"task\.model\.base_sha256 = ''"),
        (
            of_task({**PRETRAINED, "train": {"kind": "prefix"}}),
            r"task\.model\.train\.kind = 'prefix': must be all or lora",
        ),
        (of_task({**PRETRAINED, "train": {"kind": "lora", "rank": 0}}), r"task\.model\.train\.rank = 0"),
        (
            of_task({**PRETRAINED, "train": {"kind": "lora", "targets": ["x" * 40] * 8}}),
            r"train\.targets = .*at most 256 letters",
        ),
        (of_task({**PRETRAINED, "train": {"freeze": ["layers.01"]}}), r"task\.model\.train\.freeze"),
        (
            of_task({**PRETRAINED, "vocabulary": 200}),
            r"task\.model\.vocabulary = 200: .*fewer tokens than the 256",
        ),
        (
            {"task": {"kind": "speech"}},
            r"task\.kind = 'speech': must be causal_lm or chat or text_classification or image_",
        ),
        (labelled(num_labels=1), r"task\.data\.num_labels = 1"),
        (labelled(padding=256), r"task\.data\.padding = 256: must be one of the tokenizer's 256 tokens"),
        (labelled({"family": "vit"}), r"task\.model\.family = 'vit'"),
        (labelled({"fields": {"vocab_size": 255}}), r"task\.model\.fields\.vocab_size = 255: .* at least 256"),
        (labelled({"fields": {"sizes": [1]}}), r"task\.model\.fields\.sizes = \[1\]: must be a number"),
        (pictured(mean=[0.5, 0.5]), r"task\.data\.mean = .*: must be one number, or 3: one for each channel"),
        (pictured(channels=2), r"task\.data\.channels = 2"),
        (pictured(std=[0.5, 0.5, 0.0]), r"task\.data\.std\.2 = 0\.0"),
        (pictured(size=1024), r"task\.data = 'records of 3145730 bytes'"),
        (
            pictured(model={"fields": {"depths": [0]}}),
            r"task\.model\.fields\.depths = \[0\]: a list must be of 1 to 16 whole",
        ),
        (pictured(model={"fields": {"depths": [True]}}), r"task\.model\.fields\.depths"),
        ({"task": "causal_lm"}, r"task = 'causal_lm': must be a table with kind = \"causal_lm\""),
        ({"model": {"fields": {"n_embd": 8}}}, r"model = .*: belongs into the task: write task\.model"),
        ({"data": {"context": 8}}, r"data = .*: belongs into the task: write task\.data"),
        ({"version": 2, "task": "causal_lm", "data": {}}, "version = 2: this Sparehive reads version 3"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        RunConfig.parse(values(**more))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_toml_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there: give the directory that `sparehive run new` made"):
        load_run(tmp_path / "run.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_run(tmp_path)
    (tmp_path / "run.toml").write_text("name = \n")
    with pytest.raises(InputError, match="is not TOML"):
        load_run(tmp_path / "run.toml")


def test_one_letter_is_said_as_one() -> None:
    for name, words in (("", "must have at least 1 letter"), ("a" * 10_000, r"must have at most \d+ letters")):
        with pytest.raises(InputError, match=f"{words}; write another value$"):
            RunConfig.parse(values(name=name))
