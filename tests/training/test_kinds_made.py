"""`run new --task`, `evaluate` and `sample` of each kind: from files as people have them to a model that answers."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from peers.choosing import DataShape
from peers.creating import create_run
from peers.errors import ConfigError
from peers.progressbar import ProgressBar
from peers.runs import RunDirectory, check_run
from peers.using import evaluate, sample
from swarm import tasks
from swarm.checkpoint.leaves import store_leaves
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.data.tokenizer import parse_tokenizer
from swarm.errors import InputError, RetryError
from swarm.tasks import Manner
from tests.chain.commands import ok
from tests.training.labelled import CHAT_MODEL, IMAGE_MODEL, TEXT_MODEL, digits, echoes, topical_texts

QUIET = ProgressBar(quiet=True)
SIZES = {"text_classification": TEXT_MODEL, "image_classification": IMAGE_MODEL, "chat": CHAT_MODEL}
MORE = {
    "text_classification": ["context=64"],
    "image_classification": ["size=8", "channels=1"],
    "chat": ["context=128"],
}
KINDS = list(SIZES)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def files(kind: str, path: Path, count: int = 200) -> Path:
    """Of this kind, as somebody has them."""
    if kind == "text_classification":
        return write_rows(path / "texts.jsonl", topical_texts(count))  # type: ignore[arg-type]
    if kind == "chat":
        return write_rows(path / "chats.jsonl", echoes(count))
    for number, row in enumerate(digits()[:count]):
        folder = path / "images" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{number}.png")
    return path / "images"


def make(kind: str, where: Path, data: Path, tokenizer: str = "bytes", **shape: Any) -> dict[str, Any]:
    settings = [f"task.model.fields.{name}={value}" for name, value in SIZES[kind]["fields"].items()]  # type: ignore[attr-defined]
    settings += [f"task.data.{each}" for each in MORE[kind]] + ["codec.part_values=4096"]
    return create_run(where, kind, data, "demo", 1, settings, tokenizer, shape=DataShape(task=kind, **shape))


def opened(where: Path) -> tuple[RunConfig, tasks.InPieces]:
    run = RunDirectory(where)
    config = run.load()
    store = BlockStore(run.blocks, 1 << 62, owned=False)
    leaves = store_leaves(bytes.fromhex(config.task.data.root), store, lambda digest: RetryError(digest.hex()))
    return config, tasks.open_task(config, run.data, leaves=leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_made_of_files_checked_and_measured(kind: str, tmp_path: Path) -> None:
    made = make(kind, tmp_path / "run", files(kind, tmp_path))
    config, task = opened(tmp_path / "run")
    assert config.task.kind == kind and task.num_samples() == 180
    found = check_run(tmp_path / "run" / "run.toml")
    assert found["opened"] and found["run_id"] == made["run_id"] and found["memory_bytes"] > 0
    measured = evaluate(tmp_path / "run", None, 512, QUIET)
    assert measured["num_samples"] == 20 and "tuned" not in measured
    chance = {"text_classification": np.log(4), "image_classification": np.log(10), "chat": np.log(256)}[kind]
    assert measured["base"]["loss"] == pytest.approx(chance, rel=0.15)
    assert ("accuracy" in measured["base"]) == (kind != "chat") == ("perplexity" not in measured["base"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_files_are_the_same_run(kind: str, tmp_path: Path) -> None:
    data = files(kind, tmp_path, 60)
    tokenizer = "bytes" if kind == "image_classification" else "bpe:300"
    made = [make(kind, tmp_path / name, data, tokenizer)["run_id"] for name in ("a", "b")]
    assert made[0] == made[1]


def test_texts_come_back_out_of_their_records_with_their_labels(tmp_path: Path) -> None:
    make("text_classification", tmp_path / "run", files("text_classification", tmp_path), "bpe:400")
    config, task = opened(tmp_path / "run")
    names = json.loads((tmp_path / "run" / "data" / "labels.json").read_text())
    tokenizer = parse_tokenizer((tmp_path / "run" / "data" / "tokenizer.json").read_bytes())
    records = task.subject.records.read(np.arange(task.num_samples()))  # type: ignore[attr-defined]
    rows = [*records, *task.held_out(20)]
    found = {(tokenizer.decode(list(r["tokens"][: r["length"]])), names[int(r["label"])]) for r in rows}
    assert found == {(row["text"], row["label"]) for row in topical_texts(200)}
    assert all((row["tokens"][row["length"] :] == config.task.data.padding).all() for row in rows)


def test_an_image_comes_back_out_of_its_record(tmp_path: Path) -> None:
    make("image_classification", tmp_path / "run", files("image_classification", tmp_path))
    _, task = opened(tmp_path / "run")
    records = [*task.subject.records.read(np.arange(180)), *task.held_out(20)]  # type: ignore[attr-defined]
    found = {(record["pixels"].tobytes(), str(record["label"])) for record in records}
    assert found == {(row["image"].tobytes(), row["label"]) for row in digits()[:200]}


def test_a_published_tokenizer_s_template_and_special_tokens_are_the_run_s(tmp_path: Path) -> None:
    import transformers

    from swarm.data.tokenizer import train_bpe

    text = "\n".join(row["messages"][0]["content"] for row in echoes(200)).encode()
    saved = transformers.PreTrainedTokenizerFast(
        tokenizer_object=parse_tokenizer(train_bpe(text, 400)), bos_token="<s>", eos_token="</s>"
    )
    saved.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[Q]{{ m.content }}{% else %}[A]{{ m.content }}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[A]{% endif %}"
    )
    saved.save_pretrained(tmp_path / "tokenizer")
    rows = [{"messages": [*a["messages"], *b["messages"]]} for a, b in zip(echoes(60), echoes(60, 1), strict=True)]
    make("chat", tmp_path / "run", write_rows(tmp_path / "chats.jsonl", rows), str(tmp_path / "tokenizer"))
    _, task = opened(tmp_path / "run")
    answers = {row["messages"][1]["content"] + row["messages"][3]["content"] for row in rows}
    for record in task.subject.records.read(np.arange(54)):  # type: ignore[attr-defined]
        whole, learnt = (saved.decode(record["tokens"][record[mask] > 0]) for mask in ("tokens", "learnt"))
        assert whole.startswith("<s>[Q]") and learnt.count("</s>") == 2 and "[A]" not in learnt
        assert learnt.replace("</s>", "") in answers
    answer = sample(tmp_path / "run", "some words", None, Manner(5), QUIET)
    assert len(answer) == 1 and isinstance(answer[0]["text"], str)


@pytest.mark.parametrize(
    ("kind", "rows", "words"),
    [
        ("text_classification", [{"text": "a b", "label": "x"}], "has 1 label; two are needed"),
        (
            "text_classification",
            [{"text": "a", "label": "x"}, {"text": " ", "label": "y"}],
            r"rows\.jsonl:2.*must be a text that",
        ),
        (
            "text_classification",
            [{"text": "a", "label": "x"}, {"text": "b", "label": None}],
            r"rows\.jsonl:2.*label 'None' is no word",
        ),
        (
            "text_classification",
            [{"text": 3, "label": "x"}, {"text": "b", "label": "y"}],
            r"rows\.jsonl:1.*must be a text that",
        ),
        ("text_classification", [{"words": "a", "label": "x"}], r"--text-column = 'text'.*'words', 'label'"),
        ("chat", [{"messages": []}] * 3, r"rows\.jsonl:1.*must be a list of"),
        ("chat", [{"messages": [{"role": "user", "content": "a"}]}], r"rows\.jsonl:1.*none is the assistant's"),
        (
            "chat",
            [{"messages": [{"role": "assistant"}]}],
            r"rows\.jsonl:1.*messages\[0\].*must have a .role. and a .content.",
        ),
        ("chat", [{"text": "a"}], r"has 'text'; name the one with the messages"),
        ("image_classification", [{"text": "a", "label": "x"}], r"name the one with the image"),
    ],
)
def test_broken_rows_are_named_and_leave_nothing(
    kind: str, rows: list[dict[str, Any]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        make(kind, tmp_path / "run", write_rows(tmp_path / "rows.jsonl", rows))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("image_classification", {"text_column": "a"}, "--task image_classification takes none"),
        ("chat", {"text_column": "a"}, "--task chat takes none"),
        ("causal_lm", {"label_column": "a"}, "a language model learns no labels"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    kind: str, more: dict[str, Any], words: str, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"text": "a"}])
    with pytest.raises(ConfigError, match=words):
        create_run(tmp_path / "run", kind, data, "demo", 1, [], shape=DataShape(task=kind, **more))
    if kind != "causal_lm":
        with pytest.raises(ConfigError, match="--data = None: is needed"):
            create_run(tmp_path / "run", kind, None, "demo", 1, [], shape=DataShape(task=kind))


@pytest.mark.parametrize("preset", ["demo", "small", "base"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_preset_fits_each_kind_and_family(kind: str, preset: str) -> None:
    from peers.settings import with_settings

    data = {"kind": "records", "root": "0" * 64, "num_train": 9, "num_held": 1}
    file = {"size": 1, "sha256": "0" * 64}
    data |= {"template": file} if kind == "chat" else {"labels": file, "num_labels": 2}
    given = {"name": "a", "unit_price_amount": "0", "initial_root": "0" * 64, "task": {"kind": kind, "data": data}}
    tables = {
        table.model_fields["kind"].annotation.__args__[0]: table
        for table in get_args(RunConfig.model_fields["task"].annotation)
    }
    models = get_args(tables[kind].model_fields["model"].annotation)
    families = get_args(next(m for m in models if "family" in m.model_fields).model_fields["family"].annotation)
    for family in families:
        config = RunConfig.parse(with_settings(preset, given, [f"task.model.family={family}"]))
        assert tasks.check_model(config) > 30_000


# -- a model in use ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_folder_is_measured_and_asked_without_run_or_peer(kind: str, tmp_path: Path) -> None:
    data = files(kind, tmp_path)
    make(kind, tmp_path / "run", data)
    config, task = opened(tmp_path / "run")
    model = tasks.new_model(config, int.from_bytes(bytes.fromhex(config.task.data.root)[:4], "big"))
    model.flat.mul_(1.1)
    tasks.save_model(config, model, lambda name: (tmp_path / "run" / "data" / name).read_bytes(), tmp_path / "out")
    found = evaluate(tmp_path / "out", data, 40, QUIET)
    assert found["num_samples"] == 40
    assert found["base"]["loss"] != found["tuned"]["loss"]
    records = task.held_out(20)
    mine = task.subject.use.measure(model, records, lambda share: None)  # type: ignore[attr-defined]
    theirs = tasks.open_saved(config, tmp_path / "out")
    again = task.subject.use.measure(theirs, records, lambda share: None)  # type: ignore[attr-defined]
    assert again.loss == pytest.approx(mine.loss, rel=1e-5)
    with pytest.raises(ConfigError, match=r"--data = None: .* holds no samples that nobody trained on"):
        evaluate(tmp_path / "out", None, 40, QUIET)
    if kind == "image_classification":
        first = sorted((data / "3").iterdir())[0]
        answers = sample(tmp_path / "out", None, first, Manner(), QUIET)
        several = sample(tmp_path / "out", None, data / "3", Manner(), QUIET)
        assert answers[0]["label"] in "0123456789" and len(several) > 5
        assert sum(answers[0]["labels"].values()) == pytest.approx(1)
        assert several[0] == answers[0]
        with pytest.raises(ConfigError, match="this model looks at images"):
            sample(tmp_path / "out", "a", None, Manner(), QUIET)
    elif kind == "text_classification":
        answers = sample(tmp_path / "out", "the dog and the owl", None, Manner(), QUIET)
        assert answers[0]["label"] in ("animals", "kitchen", "music", "weather") and 0 < answers[0]["probability"] < 1
        assert len(sample(tmp_path / "out", None, data, Manner(), QUIET)) == 200
    else:
        ask = lambda seed: sample(tmp_path / "out", "dog owl", None, Manner(8, 1.0, seed), QUIET)[0]["text"]  # noqa: E731
        assert ask(0) == ask(0) != ask(1)


def test_an_exported_folder_runs_no_code_and_is_measured_whole_or_not_at_all(tmp_path: Path) -> None:
    data = files("text_classification", tmp_path)
    make("text_classification", tmp_path / "run", data)
    config, _ = opened(tmp_path / "run")
    out = tmp_path / "out"
    tasks.save_model(config, tasks.new_model(config), lambda name: (tmp_path / "run" / "data" / name).read_bytes(), out)
    whole = (out / "config.json").read_text()
    (out / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    mine = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_x.C", "AutoModelForSequenceClassification": "modeling_x.M"},
    }
    (out / "config.json").write_text(json.dumps({**json.loads(whole), **mine}))
    with pytest.raises(InputError, match="code that came with the model"):
        evaluate(out, data, 10, QUIET)
    assert not (tmp_path / "ran").exists()
    (out / "config.json").write_text(whole)
    values = load_file(out / "model.safetensors")
    name = next(each for each in values if "layer.0" in each)
    save_file(
        {other: value for other, value in values.items() if other != name}, out / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match="lacks weights"):
        evaluate(out, data, 10, QUIET)


def test_labels_that_are_numbers_have_one_order(tmp_path: Path) -> None:
    rows = [{"text": "a b c d", "label": label} for label in ("10", "01", "1", "-2", "2")] * 8
    make("text_classification", tmp_path / "run", write_rows(tmp_path / "rows.jsonl", rows))
    assert json.loads((tmp_path / "run" / "data" / "labels.json").read_bytes()) == ["-2", "01", "1", "2", "10"]
    rows = [{"text": "a b c d", "label": label} for label in ("--5", "3")] * 8
    make("text_classification", tmp_path / "other", write_rows(tmp_path / "other.jsonl", rows))
    assert json.loads((tmp_path / "other" / "data" / "labels.json").read_bytes()) == ["--5", "3"]


def test_images_begin_from_a_body_without_embeddings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    from peers.beginning import Start

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes = {
        "num_channels": 1,
        "image_size": 8,
        "patch_size": 2,
        "hidden_sizes": [8, 8],
        "depths": [1, 1],
        "num_stages": 2,
    }
    transformers.ConvNextModel(transformers.ConvNextConfig(**sizes)).save_pretrained(tmp_path / "body")
    kind = "image_classification"
    settings = [*(f"task.data.{each}" for each in MORE[kind]), "codec.part_values=1024"]
    create_run(
        tmp_path / "run", kind, files(kind, tmp_path), "demo", 1, settings, shape=DataShape(task=kind),
        start=Start(str(tmp_path / "body")),
    )  # fmt: skip
    assert check_run(tmp_path / "run" / "run.toml")["opened"]


def test_what_is_no_model_s_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no invite\.txt, no run\.toml and no exported model"):
        evaluate(tmp_path, None, 5, QUIET)
    with pytest.raises(ConfigError, match="is no directory"):
        sample(tmp_path / "none", "a", None, Manner(), QUIET)


def test_a_label_that_the_run_has_not_is_named(tmp_path: Path) -> None:
    make("text_classification", tmp_path / "run", files("text_classification", tmp_path))
    data = write_rows(
        tmp_path / "other.jsonl", [{"text": "the dog", "label": "animals"}, {"text": "a", "label": "ships"}]
    )
    with pytest.raises(ConfigError, match=r"other\.jsonl:2.*is none of the run's labels \(animals, kitchen"):
        evaluate(tmp_path / "run", data, 5, QUIET)


def test_a_text_of_one_s_own_is_measured_as_the_run_s(tmp_path: Path) -> None:
    text = b"".join(b"def f%d(x): return x * %d\n" % (i, i) for i in range(2000))
    (tmp_path / "text.txt").write_bytes(text)
    settings = ["task.model.fields={n_embd=32,n_layer=1,n_head=2}", "task.data.context=16", "codec.part_values=4096"]
    create_run(tmp_path / "run", "text", tmp_path / "text.txt", "demo", 1, settings)
    own, held = (
        evaluate(tmp_path / "run", tmp_path / "text.txt", 64, QUIET),
        evaluate(tmp_path / "run", None, 64, QUIET),
    )
    assert own["base"]["loss"] == pytest.approx(held["base"]["loss"], rel=0.05)
    assert held["base"]["perplexity"] == pytest.approx(np.exp(held["base"]["loss"]))
    assert sample(tmp_path / "run", "def ", None, Manner(10), QUIET)[0]["text"].startswith("def ")


def test_images_of_any_mode_and_size_become_the_run_s_squares() -> None:
    from PIL import Image

    from swarm.data.images import square_pixels

    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"):
        found = square_pixels(Image.new(mode, (7, 31)), 16, 3)
        assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    seen = square_pixels(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 4, 1)
    assert (seen == 255).all(), "what is transparent shows the white below"


# -- from a published model ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rank", [0, 2], ids=["all", "lora"])
@pytest.mark.parametrize("kind", ["text_classification", "image_classification"])
def test_a_published_body_gets_a_new_head_that_is_trained(
    kind: str, rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    from peers.beginning import Start

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fields: dict[str, Any] = dict(SIZES[kind]["fields"])  # type: ignore[call-overload]
    if kind == "text_classification":
        body: Any = transformers.DistilBertModel(
            transformers.DistilBertConfig(vocab_size=256, max_position_embeddings=64, **fields)
        )
    else:
        body = transformers.ViTModel(transformers.ViTConfig(image_size=8, num_channels=1, **fields))
    body.save_pretrained(tmp_path / "body")
    settings = [*(f"task.data.{each}" for each in MORE[kind]), "codec.part_values=1024"]
    create_run(
        tmp_path / "run", kind, files(kind, tmp_path), "demo", 1, settings, shape=DataShape(task=kind),
        start=Start(str(tmp_path / "body"), rank),
    )  # fmt: skip
    found = check_run(tmp_path / "run" / "run.toml")
    names = [name for name in opened_model(tmp_path / "run").layout.names if "classifier" in name]
    assert found["opened"] and names
    assert (found["parameters"] < 8000) == bool(rank)
    measured = evaluate(tmp_path / "run", None, 20, QUIET)
    assert measured["base"]["loss"] == pytest.approx(np.log(4 if kind == "text_classification" else 10), rel=0.2)


@pytest.mark.parametrize("rank", [0, 2], ids=["all", "lora"])
def test_a_chat_starts_from_a_published_model_with_its_tokenizer_and_template(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run measures first is what that model says of the same conversations, by transformers alone."""
    import torch
    import transformers

    from swarm.data.tokenizer import train_bpe

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = echoes(200)
    words = "\n".join(row["messages"][0]["content"] for row in rows).encode()
    saved = transformers.PreTrainedTokenizerFast(
        tokenizer_object=parse_tokenizer(train_bpe(words, 400)), bos_token="<s>", eos_token="</s>"
    )
    saved.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[Q]{{ m.content }}{% else %}[A]{{ m.content }}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[A]{% endif %}"
    )
    saved.save_pretrained(tmp_path / "model")
    torch.manual_seed(1)
    shape = transformers.GPT2Config(vocab_size=len(saved), n_positions=64, n_embd=32, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(shape).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)  # far from saying that all is equally likely
    model.save_pretrained(tmp_path / "model")
    data = write_rows(tmp_path / "chats.jsonl", rows)
    lora = ("--lora", rank) if rank else ()
    ok(
        "run", "new", tmp_path / "run", "--task", "chat", "--data", data, "--from", tmp_path / "model", *lora,
        "--preset", "demo", "--set", "task.data.context=48", "--set", "codec.part_values=1024",
    )  # fmt: skip
    config, task = opened(tmp_path / "run")
    assert config.task.model.published() is not None and check_run(tmp_path / "run" / "run.toml")["opened"]
    records = task.held_out(20)
    losses = []
    for record in records:
        tokens = torch.tensor(record["tokens"].astype(np.int64))
        learnt = torch.tensor(record["learnt"].astype(bool))
        with torch.no_grad():
            logits = model(input_ids=tokens[None]).logits[0]
        each = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
        losses.append(float(each[learnt[1:]].mean()))
    measured = evaluate(tmp_path / "run", None, 20, QUIET)
    assert measured["base"]["loss"] == pytest.approx(np.mean(losses), rel=0.02)
    prompt = saved.apply_chat_template(
        [{"role": "user", "content": "some words"}], tokenize=False, add_generation_prompt=True
    )
    asked = saved(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        greedy = model.generate(asked, max_new_tokens=5, do_sample=False, pad_token_id=0)[0, asked.shape[1] :]
    (answer,) = sample(tmp_path / "run", "some words", None, Manner(5, temperature=0), QUIET)
    assert answer["text"] == saved.decode(greedy).split("</s>")[0]


def opened_model(where: Path) -> Any:
    from peers.bases import cached_base

    config = RunDirectory(where).load()
    return tasks.new_model(config, base=cached_base(config))


def test_own_samples_are_measured_whatever_their_columns_are_called(tmp_path: Path) -> None:
    make("text_classification", tmp_path / "run", files("text_classification", tmp_path))
    rows = topical_texts(30, seed=9)
    plain = write_rows(tmp_path / "plain.jsonl", rows)  # type: ignore[arg-type]
    renamed = write_rows(tmp_path / "own.jsonl", [{"review": row["text"], "stars": row["label"]} for row in rows])
    expected = evaluate(tmp_path / "run", plain, 512, QUIET)
    found = evaluate(tmp_path / "run", renamed, 512, QUIET, {"text": "review", "label": "stars"})
    assert found["num_samples"] == 30 and found["base"] == expected["base"]
    with pytest.raises(ConfigError, match="review"):
        evaluate(tmp_path / "run", renamed, 512, QUIET)
    make("chat", tmp_path / "chat", files("chat", tmp_path))
    with pytest.raises(ConfigError, match="--label-column = 'stars': chat reads no label"):
        evaluate(tmp_path / "chat", files("chat", tmp_path), 512, QUIET, {"label": "stars"})
