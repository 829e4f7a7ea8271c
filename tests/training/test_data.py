"""Who trains on what follows from public hashes; text and tokenizer are those that the run agreed on."""

import hashlib
import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peers.creating import create_run
from peers.errors import ConfigError
from peers.runs import RunDirectory, check_run
from swarm import tasks
from swarm.config import RunConfig
from swarm.data.text import TextData, sample_offsets, unit_seed
from swarm.data.tokenizer import byte_tokenizer, encode_text, open_tokenizer, parse_tokenizer, pieces_of, train_bpe
from swarm.errors import InputError
from swarm.hashing import keccak256
from swarm.tasks.causal_lm import CausalLMTask
from tests.training.swarmlet import TEXT, make_config, new_model

RUN, BEACON, PEER = b"\1" * 32, b"\2" * 32, b"\3" * 20


def test_a_unit_s_samples_follow_from_run_beacon_peer_and_number() -> None:
    seed = unit_seed(RUN, BEACON, PEER, 5)
    assert seed == keccak256(RUN + BEACON + PEER + (5).to_bytes(8, "big"))
    offsets = sample_offsets(seed, 100, 977)
    raw = hashlib.shake_256(seed).digest(800)
    assert offsets.tolist() == [int.from_bytes(raw[i : i + 8], "big") % 977 for i in range(0, 800, 8)]
    others = [
        unit_seed(RUN, BEACON, PEER, 6), unit_seed(RUN, BEACON, b"\4" * 20, 5),
        unit_seed(RUN, b"\4" * 32, PEER, 5), unit_seed(b"\4" * 32, BEACON, PEER, 5),
    ]  # fmt: skip
    assert all(sample_offsets(other, 100, 977).tolist() != offsets.tolist() for other in others)


def test_samples_are_spread_over_the_whole_text() -> None:
    counts = np.bincount(sample_offsets(b"\5" * 32, 100_000, 10), minlength=10)
    assert counts.min() > 9_500


def test_a_step_is_the_same_in_any_order_and_in_another_process_s_task(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    first, second = tasks.open_task(config, tmp_path), tasks.open_task(config, tmp_path)
    model = new_model()
    forward = [float(first.step(model, PEER, BEACON, unit, step)) for unit in (0, 1) for step in range(4)]
    backward = [float(second.step(model, PEER, BEACON, unit, step)) for unit in (1, 0) for step in (3, 2, 1, 0)]
    assert forward == backward[::-1]
    assert len(set(forward)) == 8


def test_nobody_trains_on_the_held_out_end(tmp_path: Path) -> None:
    config = make_config(tmp_path, data={"held_out_fraction": 0.25})
    data = TextData(config.task.data, tmp_path)
    inputs, targets = data.batch(np.array([0, data.num_positions() - 1]))
    assert bytes(inputs[0].tolist()) == TEXT[:16]
    assert bytes(targets[0].tolist()) == TEXT[1:17]
    end = len(TEXT) - int(len(TEXT) * 0.25)
    assert bytes(targets[1].tolist()) == TEXT[end - 16 : end]
    held, _ = data.held_out(3)
    assert bytes(held[0].tolist()) == TEXT[end : end + 16]


def test_the_held_out_loss_is_the_mean_over_fixed_windows(tmp_path: Path) -> None:
    task = CausalLMTask(make_config(tmp_path), tmp_path)
    model = new_model()
    inputs, targets = task.data.held_out(40)
    with torch.no_grad():
        logits = model.module(input_ids=inputs).logits
    expected = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    assert task.evaluate(model, 40) == pytest.approx(expected, rel=1e-5)
    assert task.evaluate(model, 40) == task.evaluate(model, 40)
    assert 5.0 < expected < 6.0  # ln 256 = 5.55: untrained


@pytest.mark.parametrize("damage", ["missing", "longer", "flipped"])
def test_a_text_that_the_run_did_not_agree_on_is_refused(tmp_path: Path, damage: str) -> None:
    config = make_config(tmp_path)
    path = tmp_path / "text.txt"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(TEXT + b"x" if damage == "longer" else b"X" + TEXT[1:])
    with pytest.raises(InputError, match=r"text\.txt"):
        CausalLMTask(config, tmp_path)


def test_too_little_text_is_named(tmp_path: Path) -> None:
    config = make_config(tmp_path, data={"context": 65_000})
    with pytest.raises(InputError, match="too little text"):
        TextData(config.task.data, tmp_path)


# -- tokenizers -----------------------------------------------------------------------------------------------------------
TRICKY = "ab ä€😀\n\t\r\0 'll don't  x\u00a0y".encode()


def test_the_byte_tokenizer_s_tokens_are_the_bytes() -> None:
    tokenizer = byte_tokenizer()
    assert encode_text(tokenizer, TRICKY).tolist() == list(TRICKY)
    assert tokenizer.decode(list(TRICKY)).encode() == TRICKY
    assert tokenizer.get_vocab_size() == 256


def test_a_trained_tokenizer_is_shorter_and_loses_nothing() -> None:
    tokenizer = parse_tokenizer(train_bpe(TEXT, 400))
    tokens = encode_text(tokenizer, TEXT)
    assert tokenizer.get_vocab_size() == 400
    assert len(tokens) < 0.6 * len(TEXT)
    assert tokenizer.decode(tokens.tolist()).encode() == TEXT
    assert tokenizer.decode(tokenizer.encode(TRICKY.decode()).ids).encode() == TRICKY  # never seen: falls back to bytes


def test_a_text_larger_than_a_piece_is_cut_at_line_ends() -> None:
    text = TEXT * 4
    tokenizer = byte_tokenizer()
    assert len(text) > 1 << 17
    assert encode_text(tokenizer, text).tobytes() == np.frombuffer(text, dtype=np.uint8).astype(np.uint16).tobytes()
    assert encode_text(tokenizer, b"").tolist() == []


WITHOUT_SPACES = {
    "letters": bytes(random.Random(1).choices(range(97, 123), k=400_000)),
    "one letter": b"a" * 400_000,
    "spaces": b" " * 400_000,
    "signs": "".join(random.Random(1).choices("-=+*/", k=400_000)).encode(),
    "wide": "".join(random.Random(1).choices("的一是不了人我在有他這為之", k=130_000)).encode(),
}


@pytest.mark.parametrize("kind", WITHOUT_SPACES)
def test_text_without_spaces_costs_no_more_than_other_text_and_nothing_is_lost(kind: str) -> None:
    text = WITHOUT_SPACES[kind]
    shares: list[float] = []
    begun = time.process_time()
    tokenizer = parse_tokenizer(train_bpe(text, 1000, shares.append))
    tokens = encode_text(tokenizer, text, shares.append)
    assert time.process_time() - begun < 10.0  # of all threads; it was 70 s of one
    assert tokenizer.decode(tokens.tolist()).encode() == text
    assert shares[-1] == 1.0 and len(shares) >= 4
    assert max(len(piece) for _, piece in pieces_of(text)) <= 1 << 17


@given(st.lists(st.sampled_from(["a", "的", "😀", " ", "\n", "x" * 70_000, "é" * 66_000, "\n" * 3]), max_size=8))
def test_pieces_join_to_the_text_and_cut_no_character(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = list(pieces_of(text.encode()))
    assert "".join(piece for _, piece in pieces) == text
    assert [end for end, _ in pieces] == list(itertools.accumulate(len(piece.encode()) for _, piece in pieces))


@pytest.fixture(scope="module")
def bpe_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, RunConfig]:
    root = tmp_path_factory.mktemp("run")
    (root / "text.txt").write_bytes(TEXT)
    create_run(root / "run", "bpe", root / "text.txt", "demo", 1, ["task.data.context=16"], "bpe:400")
    run = RunDirectory(root / "run")
    return run, run.load()


def test_a_model_in_a_single_part_is_refused_with_the_part_size_that_would_do(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    tiny = ["task.data.context=16", "task.model.fields={n_embd=16,n_layer=1,n_head=2}"]
    with pytest.raises(ConfigError, match=r"codec\.part_values = '?65536'?: .*--set codec\.part_values=(\d+)") as error:
        create_run(tmp_path / "run", "tiny", tmp_path / "text.txt", "demo", 1, tiny)
    assert not (tmp_path / "run" / "run.toml").exists()
    told = str(error.value).rpartition("--set ")[2]
    create_run(tmp_path / "run", "tiny", tmp_path / "text.txt", "demo", 1, [*tiny, told])


def test_a_run_with_a_trained_tokenizer_agrees_on_file_tokens_and_vocabulary(
    bpe_run: tuple[RunDirectory, RunConfig], tmp_path: Path
) -> None:
    run, config = bpe_run
    assert config.task.model.fields["vocab_size"] == config.task.data.tokenizer.vocabulary == 400
    data = TextData(config.task.data, run.data)
    tokens = encode_text(open_tokenizer(config.task.data, run.data), TEXT)
    assert np.concatenate([data.train, data.held]).tolist() == tokens.tolist()
    task = tasks.open_task(config, run.data)
    model = tasks.new_model(config)
    assert model.layout.num_values() == check_run(run.toml)["parameters"]
    loss = float(task.step(model, PEER, BEACON, 0, 0))
    assert 5.0 < loss < 7.0  # ln 400 = 5.99
    assert task.sample(model).startswith("def ")


def test_another_tokenizer_or_another_cut_is_refused(bpe_run: tuple[RunDirectory, RunConfig], tmp_path: Path) -> None:
    run, config = bpe_run
    for file in run.data.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_bytes(train_bpe(TEXT, 300))
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        CausalLMTask(config, tmp_path)
    values = config.model_dump(mode="json")
    values["task"]["data"]["tokenizer"]["tokens_sha256"] = "00" * 32
    with pytest.raises(InputError, match="cuts the text otherwise"):
        CausalLMTask(RunConfig.parse(values), run.data)


@pytest.mark.parametrize(
    ("wanted", "words"), [("bpe:100", "257 to 65536"), ("bpe", "257 to 65536"), ("words", "give bytes")]
)
def test_a_wrong_tokenizer_option_is_one_line(tmp_path: Path, wanted: str, words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "peers", "run", "new", str(tmp_path / "r"), "--tokenizer", wanted],
        capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_run_check_says_what_audits_cost(bpe_run: tuple[RunDirectory, RunConfig]) -> None:
    run, config = bpe_run
    minute, second = check_run(run.toml, 60.0), check_run(run.toml, 1.0)
    p = minute["parameters"]
    blocks = -(-p // 256)
    own, shared = blocks * 258 + 4 * p + 2 * p, blocks * 258 + 8 * p // config.audit.anchor_every_epochs
    assert minute["audit_bytes_per_epoch"] == pytest.approx(own + shared, rel=0.01)
    held = own * (4 + 2 * 0.05 * 3600) + shared * (3600 + 8)  # of the own work the newest epochs, and what is drawn
    assert second["audit_hold_gigabytes"] == pytest.approx(held / 1e9, rel=0.02)
    assert json.dumps(minute)
