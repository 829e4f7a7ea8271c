"""Runs that start from models that transformers' own save_pretrained wrote: in, trained, and out again."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from incentives.ledger import Ledger
from incentives.records import Domain
from peers.beginning import Start
from peers.creating import create_run
from peers.errors import ConfigError, PeerError
from peers.lineage import Lineage, Work, lineage_of, model_card, read_lineage
from peers.planning import Length
from peers.published import read_published
from peers.runs import RunDirectory, check_run
from swarm import models
from swarm.checkpoint.bases import BaseFolder, found_base, write_base
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import RAW, cid_text, parse_cid
from swarm.config import Base, RunConfig
from swarm.errors import DiskError, InputError, PeerFault
from swarm.models import FlatModel, for_tokens
from swarm.models.pretrained import base_config, bits_of, load_base
from swarm.optim.inner import InnerOptimizer
from swarm.tasks import KINDS, new_model, open_task, purpose_of, save_model
from tests.chain.commands import ok
from tests.cli.test_fetch import gateway

SIZES = {
    "vocab_size": 300, "max_position_embeddings": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt2, untied": ("gpt2", {**GPT2, "tie_word_embeddings": False}),
    "llama": ("llama", GROUPED),
    "llama, tied": ("llama", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", GROUPED),
    "mistral": ("mistral", GROUPED),
    "gpt_neox": ("gpt_neox", SIZES),
    "phi": ("phi", {**SIZES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    "gemma": ("gemma", {**GROUPED, "head_dim": 8}),
}
TOKENS = torch.tensor([list(b"the quick brown fox jumps")])
TEXT = "the quick brown fox jumps over the lazy dog. " * 200


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sparehive" / "models"


def write_model(folder: Path, family: str = "llama, tied", dtype: torch.dtype = torch.float32, **how: Any) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, fields = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    model.to(dtype).save_pretrained(folder, **how)
    return folder


def make_run(tmp_path: Path, source: Path, *settings: str, name: str = "run", **start: Any) -> RunDirectory:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    run = RunDirectory(tmp_path / name)
    wanted = ("task.data.context=16", "inner.lr=0.003", *settings)
    create_run(
        run.root, "begun", text, "demo", 1, wanted, start=Start(str(source).replace("ipfs:/", "ipfs://"), **start)
    )
    return run


def opened(run: RunDirectory) -> tuple[RunConfig, Path, FlatModel]:
    """As a peer builds it: from the base in the cache and the run's first state."""
    from swarm.checkpoint.anchor import read_anchor

    config = run.load()
    base = config.task.model.published()
    assert base is not None
    folder = tmp = run.root.parent / "fetched"
    get = BlockStore(run.blocks, 1 << 30, owned=False).getter(lambda digest: KeyError(digest.hex()))
    write_base(base, get, tmp)
    model = new_model(config, seed=99, base=folder)
    model.flat.copy_(read_anchor(bytes.fromhex(config.initial_root), get, model.layout).parameters)
    return config, folder, model


def train(config: RunConfig, run: RunDirectory, model: FlatModel, steps: int = 4) -> tuple[float, float]:
    task = open_task(config, run.data)
    inner = InnerOptimizer(config.inner, model.flat, model.matrices)
    before = task.evaluate(model)
    for step in range(steps):
        task.step(model, bytes(20), bytes(32), *divmod(step, config.inner.steps_per_unit))
        inner.step(model.grad_flat, config.inner.lr)
    return before, task.evaluate(model)


def example_loss(config: RunConfig, model: FlatModel) -> torch.Tensor:
    return KINDS[config.task.kind].example_loss(config, model)


def save_weights(config: RunConfig, model: FlatModel, out: Path, whole_of: Path | None) -> None:
    models.save_model(config.task.model, purpose_of(config), model, {}, out, whole_of)


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(input_ids=TOKENS).logits.float()
    return found


def from_pretrained(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_model_goes_in_is_trained_and_comes_out_as_what_the_anchor_is(family: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", family)
    run = make_run(tmp_path, source)
    config, folder, model = opened(run)
    assert (logits(model.module) - logits(from_pretrained(source))).abs().max() < 1e-5
    model.module.train()
    before, after = train(config, run, model)
    assert after < before
    save_model(config, model, lambda name: b"", tmp_path / "out", None)
    out = from_pretrained(tmp_path / "out")
    assert (logits(model.module) - logits(out)).abs().max() < 1e-5
    assert (logits(out) - logits(from_pretrained(source))).abs().max() > 1e-3, "it has learnt"
    assert BaseFolder(folder).root == bytes.fromhex(config.task.model.root), "what it was made of is untouched"


@pytest.mark.parametrize(
    "family",
    [name if name in ("gpt2", "llama, tied") else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES],
)
def test_an_adapter_beside_any_family_opens_in_peft_and_merges(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    source = write_model(tmp_path / "source", family)
    run = make_run(tmp_path, source, rank=4)
    config, folder, model = opened(run)
    assert all("lora_" in name for name in model.layout.names)
    assert model.layout.num_values() < sum(p.numel() for p in from_pretrained(source).parameters()) / 2
    kept = {n: p.detach().clone() for n, p in model.module.named_parameters() if not p.requires_grad}
    before, after = train(config, run, model)
    assert after < before
    now = dict(model.module.named_parameters())
    assert kept and all(torch.equal(now[name], value) for name, value in kept.items()), "the base stays as it was"
    save_model(config, model, lambda name: b"", tmp_path / "adapter", None)
    save_model(config, model, lambda name: b"", tmp_path / "whole", folder)
    wanted = logits(model.module)
    assert (
        wanted - logits(PeftModel.from_pretrained(from_pretrained(source), tmp_path / "adapter"))
    ).abs().max() < 1e-5
    assert (wanted - logits(from_pretrained(tmp_path / "whole"))).abs().max() < 1e-5
    assert (wanted - logits(from_pretrained(source))).abs().max() > 1e-4
    assert str(tmp_path) not in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_the_same_weights_have_the_same_root_however_they_were_written(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole")
    shards = write_model(tmp_path / "shards", max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    values = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**dict(reversed(values.items())), "_name_or_path": "elsewhere"}))
    save_file(dict(reversed(load_file(whole / "model.safetensors").items())), again / "model.safetensors")
    roots = {read_published(folder).base.root for folder in (whole, shards, again)}
    assert len(roots) == 1
    other = load_file(whole / "model.safetensors")
    other["model.norm.weight"][0] += 1
    save_file(other, again / "model.safetensors")
    assert read_published(again).base.root not in roots


def test_bf16_weights_stay_as_they_are_on_disk_and_are_trained_in_fp32(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", dtype=torch.bfloat16)
    _, folder, model = opened(make_run(tmp_path, source))
    found, wanted = load_file(folder / "model.safetensors"), load_file(source / "model.safetensors")
    assert all(value.dtype == torch.bfloat16 and torch.equal(value, wanted[name]) for name, value in found.items())
    assert model.flat.dtype == torch.float32
    assert (logits(model.module) - logits(from_pretrained(source).float())).abs().max() < 1e-5


@pytest.mark.parametrize(("freeze", "frozen"), [
    (("embeddings",), ("embed_tokens",)), (("layers.0",), ("layers.0.",)), (("layers.0-1", "head"), ("layers.", "lm_head")),
])  # fmt: skip
def test_frozen_parts_are_in_no_anchor_and_stay(
    freeze: tuple[str, ...], frozen: tuple[str, ...], tmp_path: Path
) -> None:
    source = write_model(tmp_path / "source", "llama")
    config, _, model = opened(make_run(tmp_path, source, freeze=freeze))
    names = {name for name, _ in from_pretrained(source).named_parameters()}
    assert set(model.layout.names) == {name for name in names if not any(part in name for part in frozen)}
    run = RunDirectory(tmp_path / "run")
    train(config, run, model)
    save_model(config, model, lambda name: b"", tmp_path / "out", None)
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name in names if not torch.equal(before[name], after[name])}
    assert changed and changed <= set(model.layout.names)


@pytest.mark.parametrize("base", ["bf16", "int8", "nf4"])
def test_a_base_in_smaller_numbers_is_the_same_bits_each_time_and_learns(base: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", "llama")
    run = make_run(tmp_path, source, "inner.lr=0.01", rank=4, base=base)
    config, folder, model = opened(run)
    assert bits_of(load_base(folder, base, for_tokens(16))) == bits_of(load_base(folder, base, for_tokens(16)))
    assert (config.task.model.base_sha256 != "") == (base != "bf16")
    assert model.flat.dtype == torch.float32
    before, after = train(config, run, model, 12)
    assert after < before
    save_model(config, model, lambda name: b"", tmp_path / "whole", folder)
    wanted, found = logits(model.module), logits(from_pretrained(tmp_path / "whole"))
    assert (wanted - found).abs().max() < 0.15 * wanted.abs().max(), "as near as numbers of this size are"
    memory = check_run(run.toml)["memory_bytes"]
    whole = make_run(tmp_path, source, name="whole-base", rank=4)
    assert memory < check_run(whole.toml)["memory_bytes"], "the base is counted, in its numbers"


def test_nothing_of_a_base_is_left_to_chance_wherever_it_says_so(tmp_path: Path) -> None:
    """Families hand their dropout to the attention as a number, and those of several parts keep it in a config inside the config."""
    from transformers import Gemma3Config, LlamaConfig

    LlamaConfig(**GROUPED, attention_dropout=1).save_pretrained(tmp_path / "llama")
    assert base_config(tmp_path / "llama", for_tokens(16)).attention_dropout == 0
    Gemma3Config(text_config={"attention_dropout": 0.5}).save_pretrained(tmp_path / "gemma")
    assert base_config(tmp_path / "gemma", for_tokens(16)).get_text_config().attention_dropout == 0


def test_a_quantised_base_of_other_bits_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", "llama")
    run = make_run(tmp_path, source, rank=4, base="nf4")
    values = run.load().model_dump(mode="json")
    values["task"]["model"]["base_sha256"] = "11" * 32
    with pytest.raises(InputError, match="quantises the base to other bits"):
        new_model(RunConfig.parse(values), base=read_published(source).base.folder)


@pytest.mark.parametrize(("settings", "kept"), [
    ("task.model.train.dora=true", "magnitude"), ("task.model.train.rslora=true", "lora_A"),
    ('task.model.train.targets=["q_proj"]', "q_proj"),
])  # fmt: skip
def test_forms_of_lora_by_choice(settings: str, kept: str, tmp_path: Path) -> None:
    from peft import PeftModel

    source = write_model(tmp_path / "source", "llama")
    run = make_run(tmp_path, source, settings, "inner.lr=0.01", rank=4)
    config, folder, model = opened(run)
    assert any(kept in name for name in model.layout.names)
    train(config, run, model)
    save_model(config, model, lambda name: b"", tmp_path / "adapter", None)
    save_model(config, model, lambda name: b"", tmp_path / "whole", folder)
    wanted = logits(model.module)
    assert (
        wanted - logits(PeftModel.from_pretrained(from_pretrained(source), tmp_path / "adapter"))
    ).abs().max() < 1e-5
    assert (wanted - logits(from_pretrained(tmp_path / "whole"))).abs().max() < 1e-5


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _config(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        old = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**old, **values}))

    return change


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _lacking(folder: Path) -> None:
    values = load_file(folder / "model.safetensors")
    del values["model.layers.1.mlp.up_proj.weight"]
    save_file(values, folder / "model.safetensors", {"format": "pt"})


def _no_numbers(folder: Path) -> None:
    values = load_file(folder / "model.safetensors")
    values["model.norm.weight"][3] = float("nan")
    save_file(values, folder / "model.safetensors", {"format": "pt"})


def _shard_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _lineage(folder: Path) -> None:
    (folder / "lineage.json").write_text('{"format": 1, "shares": {"0x00": -1}}')


@pytest.mark.parametrize(("damage", "said"), [
    (_without("config.json"), "holds no config.json"), (_without("model.safetensors"), "holds no model.safetensors"),
    (_config(auto_map={"AutoModelForCausalLM": "modeling.Mine"}), "code that came with the model"),
    (_config(model_type="nobodys"), "nobodys"), (_config(model_type="t5"), "AutoModelForCausalLM"),
    (_config(quantization_config={"bits": 4}), "quantised already"), (_pickled, "can run code"), (_cut, "safetensors"),
    (_lacking, "has no weights for 1 parts"), (_shard_elsewhere, "no safetensors file beside it"), (_lineage, "lineage.json"),
    (shutil.rmtree, "is no folder"), (_config(hidden_size=48), "weights"),
    (_config(attn_implementation="kernels-community/x"), "names code to compute with"),
    (_no_numbers, "no finite numbers"), (_config(num_hidden_layers=100_000), "more layers than the 512"),
])  # fmt: skip
def test_what_is_no_model_to_start_from_is_told_in_one_line_and_leaves_nothing(
    damage: Callable[[Path], object], said: str, tmp_path: Path, own_cache: Path
) -> None:
    source = write_model(tmp_path / "source", "llama")
    damage(source)
    with pytest.raises((ConfigError, InputError), match=said) as refusal:
        make_run(tmp_path, source)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()
    assert list(own_cache.glob("*.part")) == list(own_cache.glob(".*")) == []


@pytest.mark.parametrize(("start", "settings", "said"), [
    ({"freeze": ("layers.7",)}, (), "the model has layers 0 to 1"),
    ({"freeze": ("embeddings", "layers.0-1", "head")}, (), "a model of 32 parameters in a single part"),
    ({"rank": 4}, ("task.model.train={kind='all'}", "task.model.train.freeze=['embeddings']"), "rank"),
    ({"freeze": ("attention",)}, (), "freeze"), ({"rank": 4, "freeze": ("head",)}, (), "leave out one of the two"),
    ({"rank": 4}, ('task.model.train.targets=["nobody"]',), "its linear layers are .*q_proj"),
    ({"base": "bf16"}, (), 'must be "fp32"'), ({}, ("task.data.context=128",), "has positions for 64 tokens"),
    ({}, ("task.model.fields={n_embd=8}",), "unknown key"), ({}, ("task.model.root=" + "0" * 64,), "give --from"),
    ({"rank": 4}, ("task.model.train.dropout=0.1",), "unknown key"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_told_in_one_line(
    start: dict[str, Any], settings: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "source", "llama")
    with pytest.raises((ConfigError, InputError), match=said) as refusal:
        make_run(tmp_path, source, *settings, **start)
    assert "\n" not in str(refusal.value) and not (tmp_path / "run").exists()


def test_the_bases_blocks_are_read_out_of_its_files_and_make_them_again(tmp_path: Path) -> None:
    base = read_published(write_model(tmp_path / "source")).base
    blocks = {digest: base.get(digest) for digest in base.digests()}
    assert all(data is not None and hashlib.sha256(data).digest() == digest for digest, data in blocks.items())
    wanted = opened(make_run(tmp_path, tmp_path / "source"))[0].task.model.published()
    assert wanted is not None and (wanted.root, wanted.size) == (base.root, base.size)
    made = write_base(wanted, lambda digest: blocks[digest] or b"", tmp_path / "made")
    assert made.root == base.root
    (made.folder / "config.json").write_bytes(b"{}")
    assert found_base(made.folder, wanted) is None, "what was changed is not taken"
    small = type(wanted)(wanted.root, wanted.size - 1)
    with pytest.raises(PeerFault):
        write_base(small, lambda digest: blocks[digest] or b"", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot be written"):
        write_base(wanted, lambda digest: blocks[digest] or b"", tmp_path / "file" / "in")


def test_an_exported_lineage_travels_in_the_base_of_the_next_run(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    plain = read_published(source).base.root
    cid = "b" + "a" * 58
    lineage = Lineage(run_id="0x" + "1" * 64, name="before", epoch=3, anchor=cid, data=cid, shares={"0x" + "2" * 40: 7})
    (source / "lineage.json").write_text(json.dumps(lineage.model_dump(mode="json"), indent=2))
    found = read_published(source).base
    assert found.root != plain
    assert json.loads((found.folder / "lineage.json").read_bytes())["shares"] == {"0x" + "2" * 40: 7}


def test_a_cid_is_found_in_a_run_s_blocks_and_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    run = make_run(tmp_path, write_model(tmp_path / "source"))
    base = run.load().task.model.published()
    assert base is not None
    cid = cid_text(base.root)
    shutil.rmtree(own_cache)
    with pytest.raises(ConfigError, match="in no directory that --blocks names"):
        make_run(tmp_path, Path(cid), name="lost")
    assert not (tmp_path / "lost").exists()
    again = make_run(tmp_path, Path(cid), name="again", blocks=(str(run.root),))
    assert again.load().task.model == run.load().task.model
    third = make_run(tmp_path, Path(f"ipfs://{cid}"), name="third")
    assert third.load().initial_root == run.load().initial_root
    with pytest.raises(ConfigError, match="is of no model"):
        make_run(
            tmp_path, Path(cid_text(bytes.fromhex(run.load().initial_root))), name="anchor", blocks=(str(run.root),)
        )
    with pytest.raises(ConfigError, match="is no folder"):
        make_run(tmp_path, Path("no:where"), name="nowhere")


def test_a_cid_is_fetched_from_who_hands_it_out(tmp_path: Path, own_cache: Path) -> None:
    """Over HTTP from a gateway of the run's own blocks, and out of a CAR; what is no model is not kept."""
    run = make_run(tmp_path, write_model(tmp_path / "source"))
    base = run.load().task.model.published()
    assert base is not None
    cid = cid_text(base.root)
    ok("car", "export", cid, tmp_path / "a.car", "--store", run.root)
    ok("car", "export", run.data, tmp_path / "other.car")
    other = ok("car", "import", tmp_path / "other.car", "--store", tmp_path / "store")["roots"][0]
    (node,) = [path for path in (tmp_path / "store").rglob("*") if path.name == parse_cid(other).hex()]
    nodes = tmp_path / "nodes" / "blocks" / node.name
    nodes.parent.mkdir(parents=True)
    shutil.copy(node, nodes)

    def left() -> list[str]:
        return [path.name for path in own_cache.iterdir() if not path.name.endswith(".lock")]

    with gateway(run.root) as url, gateway(nodes.parents[1]) as beside:
        for name, source in (("http", url), ("car", str(tmp_path / "a.car"))):
            shutil.rmtree(own_cache)
            made = make_run(tmp_path, Path(cid), name=name, blocks=(source,))
            assert made.load().task.model == run.load().task.model
            assert left() == [base.root.hex()]
        shutil.rmtree(own_cache)
        nobody = Path(cid_text(bytes(32)))
        for source, where, words in (
            (nobody, url, "has it not"),
            (Path(other), str(tmp_path / "other.car"), "is of no model"),
            (
                Path(other),
                beside,
                "is of no model",
            ),  # its names say so: the files themselves, which are nowhere, are not asked for
            (Path(cid), "nonsense", "--blocks = .*no folder of blocks"),
        ):
            with pytest.raises(PeerError, match=words):
                make_run(tmp_path, source, name="none", blocks=(where,))
            assert not (tmp_path / "none").exists()
    assert left() == []


@pytest.mark.parametrize(
    "text", ["", "b", "b" + "A" * 58, "f" + "a" * 58, "b" + "a" * 58, "bé", cid_text(b"\1" * 32, RAW)]
)
def test_what_is_no_cid_of_a_directory_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind: the caller asks whether it is one
        parse_cid(text)
    assert parse_cid(cid_text(b"\1" * 32)) == b"\1" * 32


RECORDS = {"kind": "records", "root": "11" * 32, "num_train": 50, "num_held": 5, "num_labels": 3}
LABELS = {"labels": {"size": 5, "sha256": "ab" * 32}}
TASKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "texts": ("llama", GROUPED, {"kind": "text_classification", "data": {**RECORDS, **LABELS, "context": 16}}),
    "texts, bert": (
        "bert", {**SIZES, "hidden_dropout_prob": 0.1},
        {"kind": "text_classification", "data": {**RECORDS, **LABELS, "context": 16}},
    ),
    "images": (
        "vit", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
         "patch_size": 8},
        {"kind": "image_classification", "data": {**RECORDS, **LABELS, "size": 32}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("name", TASKS)
def test_a_base_gets_a_new_head_for_labels_which_is_trained_with_it(name: str, rank: int, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification

    kind, fields, task = TASKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        source = AutoModel.from_config(AutoConfig.for_model(kind, **fields))
    source.save_pretrained(tmp_path / "source")
    published = read_published(tmp_path / "source")
    train_of = {"train": {"kind": "lora", "rank": rank}} if rank else {}
    values = {"name": "labels", "initial_root": "00" * 32, "task": {**task, "model": {**published.model(), **train_of}}}
    config = RunConfig.parse({**values, "codec": {"part_values": 256}})
    model, again = (new_model(config, seed=3, base=published.base.folder) for _ in range(2))
    assert torch.equal(model.flat, again.flat)
    assert any("classifier" in part or "score" in part for part in model.layout.names)
    assert all("lora_" in part or "classifier" in part or "score" in part for part in model.layout.names) == bool(rank)
    loss = example_loss(config, model)
    loss.backward()
    assert float(loss.detach()) > 0 and all(p.grad is not None for p in model.module.parameters() if p.requires_grad)
    with torch.no_grad():
        model.flat += 0.01 * torch.randn(model.flat.shape, generator=torch.Generator().manual_seed(1))
    save_weights(config, model, tmp_path / "out", published.base.folder if rank else None)
    opens = AutoModelForImageClassification if name == "images" else AutoModelForSequenceClassification
    out = opens.from_pretrained(tmp_path / "out")
    inputs = {"pixel_values": torch.rand(2, 3, 32, 32)} if name == "images" else {"input_ids": TOKENS}
    with torch.no_grad():
        wanted, found = model.module(**inputs).logits, out(**inputs).logits
    assert found.shape[1] == 3 and (wanted - found).abs().max() < 1e-5


def test_a_damaged_base_is_written_anew(tmp_path: Path) -> None:
    base = read_published(write_model(tmp_path / "source")).base
    wanted, blocks = Base(base.root, base.size), {digest: base.get(digest) or b"" for digest in base.digests()}
    (base.folder / "model.safetensors").write_bytes(b"rotten")
    assert found_base(base.folder, wanted) is None
    assert write_base(wanted, blocks.__getitem__, base.folder).root == base.root
    assert sorted(path.name for path in base.folder.parent.iterdir() if path.is_dir()) == [base.root.hex()]
    (base.folder / "model.safetensors").write_bytes(b"rotten")
    assert read_published(tmp_path / "source").base.root == base.root


def test_parents_and_their_shares_are_in_the_lineage_of_what_comes_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, write_model(tmp_path / "source"))
    config = run.load()
    cid, account = cid_text(b"\2" * 32), "0x" + "2" * 40
    first = Work(run_id="0x" + "1" * 64, name="first", epoch=3, anchor=cid, data=cid, shares={account: 7})
    before = Lineage(
        run_id="0x" + "3" * 64, name="second", epoch=4, anchor=cid, data=cid, shares={account: 9}, parents=(first,)
    )
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "lineage.json").write_bytes(before.bytes())
    with Ledger(tmp_path / "ledger.sqlite", run_id=config.run_id, domain=Domain(0, bytes(20))) as ledger:
        found = lineage_of(config, ledger, None, 0, bytes.fromhex(config.initial_root), tmp_path / "base")
    assert [(work.name, work.shares) for work in found.parents] == [("second", {account: 9}), ("first", {account: 7})]
    assert found.base == cid_text(bytes.fromhex(config.task.model.root))
    (tmp_path / "lineage.json").write_bytes(found.bytes())
    assert read_lineage(tmp_path / "lineage.json") == found
    card = model_card(found, False, 5.5, 4.25)
    for word in (
        found.base,
        found.data,
        found.run_id,
        config.initial_root,
        "5.5000",
        "4.2500",
        f"| {account} | 9 | 100.00% |",
    ):
        assert word in card


def test_rates_and_parts_follow_from_the_start_and_settings_go_before_them(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    found = []
    for at, (start, settings, length) in enumerate([
        ({}, (), None), ({"rank": 2}, (), Length("--samples", "4k", 4000)), ({"rank": 2}, ("inner.lr=0.5", "codec.part_values=512"), None),
    ]):  # fmt: skip
        run = RunDirectory(tmp_path / f"run{at}")
        wanted = ("task.data.context=16", *settings)
        create_run(run.root, "rates", text, "demo", 1, wanted, length=length, start=Start(str(source), **start))
        config = run.load()
        found.append((config.inner.lr, config.inner.total_units, config.codec.part_values))
    assert [lr for lr, *_ in found] == [5e-5, 3e-4, 0.5]
    assert found[1][1] == 100 and found[0][1] == 1500
    assert found[2][2] == 512 and all(part % 256 == 0 and part <= 65536 for *_, part in found)
