"""The invite: short whatever the run, and what it says is checked where it is read."""

import base64
import json
import secrets
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from incentives.records import account_of
from peers.errors import ConfigError
from peers.invite import DICTIONARY, MAX_TEXT, PREFIX, SHORT_TEXT, Invite, PayLimits, RunBinding, anybodys_binding
from swarm.checkpoint.unixfs import cid_text
from swarm.config import MAX_FIELDS_BYTES, RunConfig
from swarm.config.storage import MAX_OBJECTS
from swarm.hashing import canonical_json

KEY = PrivateKey(b"\x0b" * 32)


def fullest_base() -> dict[str, Any]:
    """A published model with an adapter, as much as can be said of one."""
    targets = [secrets.token_hex(11)[:21] for _ in range(12)]
    train = {
        "kind": "lora",
        "rank": 1023,
        "alpha": 0.1234567890123456,
        "targets": targets,
        "rslora": True,
        "dora": True,
    }
    hashes = {"root": secrets.token_hex(32), "base_sha256": secrets.token_hex(32)}
    return {"kind": "pretrained", **hashes, "size": 2**50 + 3, "vocabulary": 16777211, "base": "nf4", "train": train}


def fullest_run() -> RunConfig:
    """Everything that a run may hold, as long as it may be and hard to compress."""
    number = iter(0.1 + secrets.randbelow(10**15) / 10**16 for _ in range(100))
    fields: dict[str, Any] = {"vocab_size": 65536}
    while len(canonical_json({**fields, "x" * 20: 0.1234567890123456})) <= MAX_FIELDS_BYTES:
        fields[secrets.token_hex(8)] = next(number)
    file = {"size": 2**50 + 1, "sha256": secrets.token_hex(32)}
    hashed = {"kind": "bpe", "vocabulary": 65535, "file": {**file, "sha256": secrets.token_hex(32)}}
    rounds = ("epoch_deadline", "contribute", "average", "vote", "stall")
    return RunConfig.parse(
        {
            "name": "".join(chr(0x4E00 + secrets.randbelow(20000)) for _ in range(64)),
            "initial_root": secrets.token_hex(32),
            "task": {
                "kind": "causal_lm",
                "model": {"fields": fields, "family": "gpt_neox"},
                "data": {
                    "root": secrets.token_hex(32),
                    "text": file,
                    "context": 65535,
                    "held_out_fraction": next(number),
                    "tokenizer": {**hashed, "tokens_sha256": secrets.token_hex(32)},
                },
            },
            "inner": {
                **{name: next(number) for name in ("lr", "weight_decay", "clip_norm")},
                "optimizer": "adamw8bit", "betas": [next(number), next(number)], "total_units": 2**53 - 1,
                "warmup_units": 2**53 - 3, "steps_per_unit": 10001,
            },
            "outer": {"lr": next(number), "momentum": next(number), "momentum_ramp_rounds": 2**53 - 2},
            "rounds": {**{f"{name}_seconds": next(number) for name in rounds}, "recheck_share": next(number)},
            "audit": {"rate": next(number), "tolerance": next(number), "hold_seconds": 2591999},
            "unit_price_amount": str(10**37 + secrets.randbelow(10**37)),
        }
    )  # fmt: skip


def fullest_of_kind(kind: str) -> RunConfig:
    """The same of another kind of task, with records."""
    values = fullest_run().model_dump(mode="json")

    def file() -> dict[str, Any]:
        return {"size": 2**50 + 1, "sha256": secrets.token_hex(32)}

    data: dict[str, Any] = {"kind": "records", "root": secrets.token_hex(32), "num_train": 2**53 - 1, "num_held": 8191}
    data |= {"leaves_per_draw": 63, "units_per_draw": 2**20 - 1}
    if kind != "image_classification":
        data |= {"context": 65535, "tokenizer": {"kind": "published", "vocabulary": 65535, "file": file()}}
    if kind == "image_classification":
        shades = [[secrets.randbelow(10**15) / 10**15 + 0.001 for _ in range(3)] for _ in range(2)]
        data |= {"size": 511, "mean": [min(1.0, shade) for shade in shades[0]], "std": shades[1]}
    data |= {"template": file()} if kind == "chat" else {"labels": file(), "num_labels": 4095}
    family = {"chat": "gpt_neox", "text_classification": "distilbert", "image_classification": "convnext"}[kind]
    model = {**values["task"]["model"], "family": family}
    return RunConfig.parse({**values, "task": {"kind": kind, "data": data, "model": model}})


def parts(run: RunConfig, *addresses: str) -> tuple[RunConfig, RunBinding, PrivateKey, PayLimits]:
    """Of the longest invite that pays."""
    return anybodys_binding(run, KEY, addresses, 2**53 - 1)


@pytest.mark.parametrize("is_begun", [False, True], ids=["untrained", "pretrained"])
@pytest.mark.parametrize("kind", ["causal_lm", "chat", "text_classification", "image_classification"])
def test_no_run_makes_an_invite_that_is_too_long_for_a_chat_or_for_its_reader(kind: str, is_begun: bool) -> None:
    run = fullest_run() if kind == "causal_lm" else fullest_of_kind(kind)
    if is_begun:
        values = run.model_dump(mode="json")
        run = RunConfig.parse({**values, "task": {**values["task"], "model": fullest_base()}})
    address = "/dns4/" + "x" * 60 + ".example.org/tcp/40001/p2p/" + "Qm" + "b" * 44
    made = Invite.short(*parts(run, address))
    text = made.encode()
    assert len(text) <= SHORT_TEXT
    assert Invite.decode(text) == made
    assert made.binding.bootstrap == (address,)


def test_what_is_stored_fits_an_invite_too() -> None:
    """An usual run's with all objects fits a chat; the fullest one what is read."""
    objects = [
        {"cid": cid_text(secrets.token_bytes(32)), "bytes": 2**38 - index, "segments_root": secrets.token_hex(32)}
        for index in range(MAX_OBJECTS)
    ]
    price = str(10**37 + secrets.randbelow(10**37))
    table = {"price_amount": price, "replicas": 63, "every_epochs": 1023, "segments": 15, "objects": objects}
    values = fullest_of_kind("image_classification").model_dump(mode="json")
    usual = {"name": "texts of all kinds", "initial_root": secrets.token_hex(32)}
    text = {"size": 2**40, "sha256": secrets.token_hex(32)}
    task = {"kind": "causal_lm", "data": {"root": secrets.token_hex(32), "text": text}}
    for most, run in (
        (SHORT_TEXT, {**usual, "task": task}),
        (MAX_TEXT, {**values, "task": {**values["task"], "model": fullest_base()}}),
    ):
        made = Invite.short(*parts(RunConfig.parse({**run, "storage": table})))
        assert len(made.encode()) <= most
        assert Invite.decode(made.encode()) == made


def test_an_invite_leaves_out_the_last_addresses_rather_than_grow_too_long() -> None:
    run = RunConfig.parse(
        {
            "name": "run",
            "initial_root": secrets.token_hex(32),
            "task": {
                "kind": "causal_lm",
                "data": {"root": secrets.token_hex(32), "text": {"size": 9, "sha256": secrets.token_hex(32)}},
            },
        }
    )
    addresses = tuple(f"/dns4/{secrets.token_urlsafe(120)}/tcp/4001/p2p/Qm{secrets.token_hex(22)}" for _ in range(8))
    few = Invite.short(*parts(run, *addresses[:3]))
    assert few.binding.bootstrap == addresses[:3]
    assert len(Invite.make(*parts(run, *addresses)).encode()) > SHORT_TEXT
    many = Invite.short(*parts(run, *addresses))
    assert 3 <= len(many.binding.bootstrap) < 8
    assert many.binding.bootstrap == addresses[: len(many.binding.bootstrap)]
    assert len(many.encode()) <= SHORT_TEXT
    assert Invite.decode(many.encode()) == many


def test_a_run_of_many_files_has_the_invite_of_a_run_of_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from peers.creating import create_run
    from peers.runs import RunDirectory, bind_run

    (tmp_path / "texts").mkdir()
    for number in range(1200):
        (tmp_path / "texts" / f"{number}.txt").write_bytes(secrets.token_hex(4).encode())
    run = RunDirectory(tmp_path / "run")
    tiny = ["task.model.fields={n_embd=16,n_layer=1,n_head=2}", "task.data.context=16", "codec.part_values=2048"]
    assert create_run(run.root, "many", tmp_path / "texts", "demo", 1, tiny)["files"] == 1200
    made = bind_run(run, run.organiser_key, run.organiser_password, (bytes(20),), ("/ip4/127.0.0.1/tcp/1/p2p/Qm",))
    assert Invite.decode(made.encode()) == made
    assert len(made.encode()) < 700
    assert run.load().task.data.text.size == 1200 * 8


@pytest.mark.parametrize("section", ["rounds", "task"])
def test_what_is_wrong_in_an_invite_s_run_is_named(section: str) -> None:
    run = fullest_run()
    packed = base64.urlsafe_b64decode(Invite.short(*parts(run)).encode()[len(PREFIX) :])
    value = json.loads(zlib.decompressobj(zdict=DICTIONARY).decompress(packed))
    value["config"][section]["surprise"] = 1
    text = PREFIX + base64.urlsafe_b64encode(zlib.compress(json.dumps(value).encode())).decode()
    with pytest.raises(ConfigError, match=rf"{section}\.surprise = 1: unknown key") as error:
        Invite.decode(text)
    assert "\n" not in str(error.value)


def test_an_invite_of_another_version_says_so() -> None:
    """Its dictionary is another one: what zlib says of that is for nobody."""
    run = fullest_run()
    packed = base64.urlsafe_b64decode(Invite.short(*parts(run)).encode()[len(PREFIX) :])
    raw = zlib.decompressobj(zdict=DICTIONARY).decompress(packed)
    deflate = zlib.compressobj(9, zdict=DICTIONARY.replace(b'"version":3', b'"version":2'))
    text = PREFIX + base64.urlsafe_b64encode(deflate.compress(raw) + deflate.flush()).decode()
    with pytest.raises(ConfigError, match=r"another version of Sparehive.*ask for a new invite") as error:
        Invite.decode(text)
    assert "\n" not in str(error.value)


def test_a_forged_invite_is_refused_without_a_node() -> None:
    """Whoever signs another one for the same settlement is not its organiser, and its address says so."""
    config, right, _, limits = parts(fullest_run())
    assert Invite.decode(Invite.make(config, right, KEY, limits).encode()).organiser == account_of(KEY)
    thief = PrivateKey(b"\x0c" * 32)
    forgeries = (
        Invite.make(config, replace(right, founders=(account_of(thief),)), thief, limits),
        Invite.make(config, replace(right, settlement=b"\x05" * 20), KEY, limits),
        Invite.make(config, right, KEY, replace(limits, window_seconds=3600)),
        Invite.make(config, right, KEY, replace(limits, token=b"\x06" * 20)),
    )
    for forged in forgeries:
        with pytest.raises(ConfigError, match="is forged, or made by another version"):
            Invite.decode(forged.encode())
    with pytest.raises(ConfigError, match="was made by another version"):
        Invite.decode(Invite.make(config, right, KEY).encode())
