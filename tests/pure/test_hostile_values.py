"""Any value in any field of both configuration files works, or gives one line that names the field."""

import copy
import datetime
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import tomli_w
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from peers.config import PeerConfig, load_peer_config, save_peer_config
from peers.errors import ConfigError
from peers.invite import SHORT_TEXT, Invite, anybodys_binding
from swarm.checkpoint.unixfs import cid_text
from swarm.config import RunConfig, dump_run, load_run
from swarm.consensus.machine import RunRules
from swarm.errors import InputError
from swarm.optim.schedule import learning_rate, momentum_at

KEY = PrivateKey(b"\x0b" * 32)
FILE = {"size": 5, "sha256": "ab" * 32}
BASE: dict[str, Any] = {
    "name": "run",
    "storage": {"objects": [{"cid": cid_text(b"\x33" * 32), "bytes": 5000, "segments_root": "44" * 32}]},
    "initial_root": "00" * 32,
    "task": {
        "kind": "causal_lm",
        "model": {"kind": "untrained", "fields": {"n_embd": 32, "vocab_size": 65536}},
        "data": {
            "kind": "text",
            "root": "11" * 32,
            "text": FILE,
            "tokenizer": {"kind": "bpe", "vocabulary": 300, "file": dict(FILE), "tokens_sha256": "cd" * 32},
        },
    },
}


_RECORDS = {"kind": "records", "root": "11" * 32, "num_train": 50, "num_held": 5}
_PUBLISHED = {"kind": "published", "vocabulary": 300, "file": FILE}
TASKS: dict[str, dict[str, Any]] = {
    "causal_lm": BASE["task"],
    "pretrained": {
        "kind": "causal_lm",
        "model": {
            "kind": "pretrained",
            "root": "22" * 32,
            "size": 1000,
            "vocabulary": 65536,
            "base": "nf4",
            "base_sha256": "33" * 32,
            "train": {"kind": "lora"},
        },
        "data": BASE["task"]["data"],
    },
    "records": {
        "kind": "causal_lm",
        "model": {"kind": "untrained", "fields": {"n_embd": 32, "vocab_size": 65536}},
        "data": {**_RECORDS, "leaves_per_draw": 2, "units_per_draw": 3, "context": 64, "tokenizer": _PUBLISHED},
    },
    "chat": {
        "kind": "chat",
        "model": {"kind": "untrained", "fields": {"n_embd": 32, "vocab_size": 65536}},
        "data": {**_RECORDS, "template": dict(FILE), "tokenizer": _PUBLISHED},
    },
    "text_classification": {
        "kind": "text_classification",
        "model": {"kind": "untrained", "fields": {"dim": 32, "vocab_size": 65536}},
        "data": {**_RECORDS, "labels": dict(FILE), "num_labels": 3, "tokenizer": _PUBLISHED},
    },
    "image_classification": {
        "kind": "image_classification",
        "model": {"kind": "untrained", "family": "convnext", "fields": {"depths": [2, 2], "n_embd": 2}},
        "data": {**_RECORDS, "labels": dict(FILE), "num_labels": 3},
    },
}


def paths(model: type[BaseModel], values: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Of every table and every field in it; of tables by kind, that of `values`."""
    for name, field in model.model_fields.items():
        here = (*prefix, name)
        yield here
        found = values.get(name, {}) if isinstance(values, dict) else {}
        tables = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        tables = [table for table in tables if issubclass(table, BaseModel)]
        if len(tables) > 1:
            tables = [table for table in tables if found.get("kind") in get_args(table.model_fields["kind"].annotation)]
        if tables and get_origin(field.annotation) is tuple:
            yield from paths(tables[0], found[0], (*here, "0"))  # of several tables the first
        elif tables:
            yield from paths(tables[0], found, here)


FIELDS = ("task", "model", "fields")
NAMES = ("n_embd", "vocab_size", "other", "no name")
RUN_PATHS = [
    (kind, path)
    for kind, task in TASKS.items()
    for path in (*paths(RunConfig, {**BASE, "task": task}), *((*FIELDS, name) for name in NAMES))
    if kind == "causal_lm" or path[0] == "task"
]


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


EDGES = [0, 1, 2, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 10**400, 16**6000]
HOSTILE: list[Any] = [
    *EDGES, *(-edge for edge in EDGES), True, False,
    math.inf, -math.inf, math.nan, 5e-324, 1e308, 0.0, -0.0, 0.5, 2.0,
    "", " ", "\0", "\n", "a\nb", "\udcff", "\u202e", "é" * 65, "0" * 64, "nan", "8", "x" * 2000, "\x1b[31m", "gpt2", "float32",
    datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 1), datetime.time(1),
    [], {}, [[]], [0.9, 0.999], [1], [-1, 2], [0.5] * 10_000, ["/ip4/1.2.3.4/tcp/1"], [math.nan, 0.5], nested(50), nested(5000),
    {"a": {"b": {"c": [1]}}}, {"\x1b": 1}, {"": ""}, {"kind": 10**5000}, {"size": 1}, {f"n{i}": 0.1 for i in range(2000)},
]  # fmt: skip
SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=70))
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(st.characters(), max_size=5), SCALARS, max_size=3)
)


def with_value(path: tuple[str, ...], value: Any, kind: str = "causal_lm") -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy({**BASE, "task": TASKS[kind]})
    at: Any = values
    for name in path[:-1]:
        at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
    at[path[-1]] = value
    return values


def test_the_list_of_fields_is_whole() -> None:
    assert {".".join(path) for _, path in RUN_PATHS} >= {
        "name", "task.model.family", "task.model.fields", "task.data.text.size",
        "task.data.tokenizer.file.sha256", "task.data.tokenizer.kind", "task.kind", "task.data.kind", "task.model.kind", "task.data.root",
        "task.data.num_labels", "task.data.labels.sha256", "task.data.mean", "task.data.template", "task.data.units_per_draw",
        "inner.betas", "rounds.vote_seconds", "audit.tolerance", "codec.part_values", "outer.lr", "unit_price_amount",
    }  # fmt: skip
    assert len(RUN_PATHS) > 120


# Words of pydantic, zlib, base64 and msgpack, which say nothing to who edits a file.
FOREIGN = (
    "Input should",
    "String should",
    "Tuple should",
    "List should",
    "valid dictionary",
    "Value error",
    "Error -3",
)


def check_line(line: str, field: str) -> None:
    assert not any(words in line for words in FOREIGN), line
    assert line.isprintable() and len(line) < 1000
    assert field in line


def check_run_with(kind: str, path: tuple[str, ...], value: Any) -> None:
    try:
        config = RunConfig.parse(with_value(path, value, kind), "run.toml")
    except InputError as error:
        named = path[:3] if path[:3] == FIELDS else path
        if kind == "pretrained" and path[:2] == FIELDS[:2]:  # of its values that do not go together one is named
            named = path[:2]
        if path[-2:] == ("tokenizer", "vocabulary") and "vocab_size" in str(error):  # of the two one is named
            named = (*FIELDS, "vocab_size")
        check_line(str(error), ".".join(named))
        return
    assert len(config.run_id) == 32
    assert config.name.isprintable(), "it is shown to every volunteer"
    with tempfile.TemporaryDirectory() as folder:
        dump_run(config, Path(folder) / "run.toml")
        assert load_run(Path(folder) / "run.toml") == config
    made = Invite.short(*anybodys_binding(config, KEY))
    assert Invite.decode(made.encode()) == made
    assert len(made.encode()) <= SHORT_TEXT
    assert RunRules.of(config, (bytes(20),), 10**9).num_parts >= 1
    inner, outer = config.inner, config.outer
    for clock in (0, 1, inner.warmup_units, inner.total_units - 1, inner.total_units, 2**64):
        assert 0.0 <= learning_rate(clock, inner.lr, inner.warmup_units, inner.total_units) <= inner.lr
        assert 0.0 <= momentum_at(clock, outer.momentum, outer.momentum_ramp_rounds) < 1.0


@pytest.mark.parametrize(
    ("kind", "path"), RUN_PATHS, ids=lambda part: part if isinstance(part, str) else ".".join(part)
)
def test_a_hostile_value_of_a_run_s_field_works_or_is_named(kind: str, path: tuple[str, ...]) -> None:
    for value in HOSTILE:
        check_run_with(kind, path, value)


@settings(max_examples=500, deadline=None)
@given(where=st.sampled_from(RUN_PATHS), value=VALUES)
def test_any_value_of_a_run_s_field_works_or_is_named(where: tuple[str, tuple[str, ...]], value: Any) -> None:
    check_run_with(*where, value)


def _dumped(value: dict[str, Any]) -> str:
    """As TOML. Other tests' libraries raise the limit of recursion, and the writer takes time that grows with its power."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        return tomli_w.dumps(value)
    finally:
        sys.setrecursionlimit(limit)


def check_peer_with(name: str, value: Any, as_option: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.toml"
        if not as_option:
            try:
                path.write_text(_dumped({name: value}))
            except (RecursionError, ValueError, UnicodeEncodeError):
                return  # no file can hold it
        try:
            config = load_peer_config(path, **({name: value} if as_option else {}))
        except ConfigError as error:
            check_line(str(error), f"peer.toml: {name}" if "is not TOML" not in str(error) else "peer.toml")
            return
        save_peer_config(path, config)
        assert load_peer_config(path) == config


@pytest.mark.parametrize("as_option", [False, True], ids=["file", "option"])
@pytest.mark.parametrize("name", PeerConfig.model_fields)
def test_a_hostile_value_of_a_peer_s_field_works_or_is_named(name: str, as_option: bool) -> None:
    for value in HOSTILE:
        check_peer_with(name, value, as_option)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(list(PeerConfig.model_fields)), value=VALUES, as_option=st.booleans())
def test_any_value_of_a_peer_s_field_works_or_is_named(name: str, value: Any, as_option: bool) -> None:
    check_peer_with(name, value, as_option)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 10_000, "is not TOML"),
        ("inner.lr = " + "9" * 5000, "is not TOML"),
        ("a = 0x" + "f" * 9000, "unknown key|name = None: is missing"),
        ("[a]\nb = 1\n[a]\nb = 2", "is not TOML"),
    ],
)
def test_toml_that_no_parser_likes_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    for name, load in (("run.toml", load_run), ("peer.toml", load_peer_config)):
        (tmp_path / name).write_text(text)
        with pytest.raises((InputError, ConfigError), match=said) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value) and len(str(error.value)) < 800


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("host", "localhost", "is not an IP address"),
        ("announce", ["203.0.113.7:4001"], "/ip4/203.0.113.7/tcp/4001"),
        ("peers", ["/ip4/203.0.113.7/tcp/4001"], "is not the address of a peer"),
        ("join_timeout_seconds", math.inf, "finite"),
        ("sync_seconds", 1e-300, "must be at least 0.1"),
        ("payout", "my wallet", "40 hexadecimal digits"),
        ("threads", True, "must be a whole number$"),
        ("threads", "2", "must be a whole number, without quotes"),
        ("device", "gpu", "must be auto, cpu"),
        ("device", "cuda:-1", "must be auto, cpu"),
    ],
)
def test_a_peer_s_wrong_value_says_what_to_write(tmp_path: Path, name: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"peer\.toml: {name}.*{said}"):
        load_peer_config(tmp_path / "peer.toml", **{name: value})
