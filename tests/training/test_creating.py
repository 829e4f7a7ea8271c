"""`run new` and `run check` open what they made as a seed and a peer will; what does not open is refused in one line and leaves
nothing behind."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from incentives.keys import create_key, key_account, load_password
from peers.creating import create_run
from peers.errors import ConfigError
from peers.opening import open_run
from peers.planning import Length
from peers.progressbar import ProgressBar
from peers.runs import RunDirectory, bind_run, check_run
from peers.settings import with_settings
from swarm.checkpoint.runblocks import put_data
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig, UntrainedModel, dump_run
from swarm.errors import InputError
from swarm.models import build_model, for_tokens
from swarm.models.transformer import transformer_config
from tests.pure.test_hostile_values import RUN_PATHS
from tests.training.swarmlet import TEXT

TINY = ["task.data.context=16", "task.model.fields={n_embd=32,n_layer=1,n_head=2}", "codec.part_values=4096"]


def new(root: Path, *settings: str, text: bytes = TEXT, tokenizer: str = "bytes") -> RunDirectory:
    source = root / "source.txt"
    source.write_bytes(text)
    create_run(root / "run", "test", source, "demo", 1, [*TINY, *settings], tokenizer)
    return RunDirectory(root / "run")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "six bytes": ({"text": b"abcdef"}, r"data = '6 tokens': too little text for samples of 17 tokens"),
    "six bytes for a tokenizer": ({"text": b"abcdef", "tokenizer": "bpe:300"}, "too little text|too short to train"),
    "a context longer than the text": ({"settings": ["task.data.context=65000"]}, "too little text for samples of 65001"),
    "a vocabulary too small": ({"settings": ["task.model.fields.vocab_size=255"]}, r"task\.model\.fields\.vocab_size = 255.*at least 256"),
    "a vocabulary below the tokenizer's": (
        {"settings": ["task.model.fields.vocab_size=399"], "tokenizer": "bpe:400"},
        r"task\.model\.fields\.vocab_size = 399.*at least 400",
    ),
    "text that is no UTF-8": ({"text": TEXT + b"\xff", "tokenizer": "bpe:400"}, rf"not UTF-8 at byte {len(TEXT)}"),
    "a width that heads do not divide": ({"settings": ["task.model.fields.n_embd=33"]}, r"task\.model\.fields\.n_embd = 33"),
    "a width that is a word": ({"settings": ['task.model.fields.n_embd="x"']}, r"task\.model\.fields\.n_embd = 'x'.*whole number"),
    "an unknown activation": (
        {"settings": ['task.model.fields.activation_function="nope"']}, r"task\.model\.fields\.activation_function = 'nope'"
    ),
    "a negative initialisation": (
        {"settings": ["task.model.fields.initializer_range=-1.0"]}, r"task\.model\.fields\.initializer_range = -1\.0"
    ),
    "an initialisation beyond all numbers": (
        {"settings": ["task.model.fields.initializer_range=1e15"]}, r"task\.model.*not finite"
    ),
    "a model larger than any machine": ({"settings": ["task.model.fields.n_embd=100000000"]}, r"task\.model\.fields"),
    "layers without end": ({"settings": ["task.model.fields.n_layer=10000000"]}, r"task\.model\.fields\.n_layer = 10000000"),
    "a root of something negative": (
        {"settings": ["task.model.fields.layer_norm_epsilon=-1.0"]},
        r"task\.model\.fields\.layer_norm_epsilon = -1\.0: with it the untrained model's.* not finite; leave it out",
    ),
    "another family's field": ({"settings": ["task.model.fields.hidden_size=32"]}, "it calls that n_embd"),
    "what follows from the context": ({"settings": ["task.model.fields.n_positions=4"]}, r"follows from task\.data\.context"),
    "the data's root": ({"settings": [f'task.data.root="{"00" * 32}"']}, r"task\.data\.root.*follows from the text"),
    "the data's root in a table": ({"settings": [f'task.data={{root="{"00" * 32}"}}']}, r"task\.data\.root.*follows from the text"),
    "where the model stood in version 2": ({"settings": ["model.fields.n_embd=32"]}, r"model = .*write task\.model"),
    "where the data stood in version 2": ({"settings": ["data.context=32"]}, r"data = .*write task\.data"),
    "another kind of task": ({"settings": ["task.kind=chat"]}, r"task\.kind cannot be set: it follows from --task"),
    "the tokenizer": ({"settings": ['task.data.tokenizer.kind="bytes"']}, r"task\.data\.tokenizer.*give --tokenizer"),
    "the initial root": ({"settings": [f'initial_root="{"00" * 32}"']}, "initial_root.*follows from the model"),
    "no value": ({"settings": ["inner.lr"]}, "give KEY=VALUE"),
    "no key": ({"settings": ["=3"]}, "give KEY=VALUE"),
    "two lines": ({"settings": ["inner.lr=1\nouter=2"]}, "one TOML value"),
    "an endless rate": ({"settings": ["inner.lr=inf"]}, r"inner\.lr = inf.*finite"),
    "a beta below zero": ({"settings": ["inner.betas=[-1,2]"]}, r"inner\.betas\.0 = -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_peer_could_open_is_refused_and_nothing_is_left(tmp_path: Path, case: str) -> None:
    given, said = REFUSED[case]
    with pytest.raises((ConfigError, InputError), match=said) as error:
        new(tmp_path, *given.get("settings", ()), **{k: v for k, v in given.items() if k != "settings"})
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["source.txt"]


def test_a_table_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    values = with_settings("demo", {}, ["task.model.fields={n_layer=2}", "inner={lr=0.5}", "inner.betas=[0.5,0.5]"])
    assert values["task"]["model"]["fields"] == {"n_embd": 96, "n_layer": 2, "n_head": 4}
    assert (values["inner"]["lr"], values["inner"]["betas"], values["inner"]["warmup_units"]) == (0.5, [0.5, 0.5], 40)
    run = new(tmp_path, "task.model.fields={n_inner=64}", tokenizer="bpe:400")
    config = run.load()
    assert config.task.model.fields == {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_inner": 64, "vocab_size": 400}
    assert with_settings("demo", {}, []) == with_settings("demo", {}, ["task.model.fields={}"])


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mistral", "qwen2"])
def test_a_preset_s_sizes_follow_the_family(tmp_path: Path, family: str) -> None:
    source = tmp_path / "source.txt"
    source.write_bytes(TEXT)
    made = create_run(tmp_path / "run", "test", source, "demo", 1, [f"task.model.family={family}"])
    config = RunDirectory(tmp_path / "run").load()
    assert (config.task.model.family, config.task.model.fields["hidden_size"]) == (family, 96)
    assert 200_000 < made["parameters"] < 700_000


def test_the_run_s_directory_may_hold_keys_but_no_data_of_its_owner_s(tmp_path: Path) -> None:
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "mine.txt").write_bytes(TEXT)
    with pytest.raises(ConfigError, match="holds data already"):
        new(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["data"]
    (tmp_path / "run" / "data").rename(tmp_path / "texts")
    run = new(tmp_path)
    key = run.organiser_key.read_bytes()
    for path in (run.data, run.blocks):
        os.rename(path, tmp_path / path.name)
    for path in (run.toml, run.sources):
        path.unlink()
    assert new(tmp_path).organiser_key.read_bytes() == key, "a key is never replaced"
    assert sorted(path.name for path in run.root.iterdir()) == ["blocks", "data", "keys", "run.toml", "sources.sha256"]


def test_a_run_directory_is_left_as_it_was_when_the_making_fails(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError):
        new(tmp_path, text=b"short")
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(InputError):
        create_run(tmp_path / "a" / "b", "x", tmp_path / "source.txt", "demo", 1, TINY)
    assert not (tmp_path / "a").exists()


STOPPED = """
import os, sys
from pathlib import Path
from peers.creating import create_run

def stop_before(event, given):
    if event == "os.rename" and os.path.basename(given[1]) == sys.argv[1]:
        print("there", flush=True)
        sys.stdin.readline()

sys.addaudithook(stop_before)
create_run(Path("run"), "test", Path("source.txt"), "demo", 1, %r)
"""


@pytest.mark.parametrize("path", ["blocks", "run.toml"])
def test_what_a_killed_one_left_is_removed_by_the_next_but_nothing_of_a_living_one(tmp_path: Path, path: str) -> None:
    """Killed before anything, and when all but run.toml had its place."""
    (tmp_path / "source.txt").write_bytes(TEXT)
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED % TINY, path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConfigError, match="another `run new` is at work in it"):
            new(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        process.kill()
        process.communicate(timeout=30)
    mine = tmp_path / "run" / "notes.txt"
    mine.write_text("mine")
    key = RunDirectory(tmp_path / "run").organiser_key
    kept = key.read_bytes() if key.exists() else None
    run = new(tmp_path, text=TEXT + b"and more")
    names = ["blocks", "data", "keys", "notes.txt", "run.toml", "sources.sha256"]
    assert sorted(p.name for p in run.root.iterdir()) == names
    assert check_run(run.toml)["opened"] and mine.read_text() == "mine"
    assert kept is None or run.organiser_key.read_bytes() == kept


FAMILIES = ["gpt2", "llama", "gpt_neox", "mistral", "qwen2"]


def fields_of(family: str) -> list[str]:
    config = transformer_config(UntrainedModel(kind="untrained", family=family), for_tokens(16))
    return [f"task.model.fields.{name}" for name in config.to_dict() if not name.startswith("_")]


def tiny(family: str) -> list[str]:
    if family == "gpt2":
        return TINY
    sizes = ["hidden_size=32", "intermediate_size=32", "num_hidden_layers=1", "num_attention_heads=2"]
    sizes += [] if family == "gpt_neox" else ["num_key_value_heads=2"]
    # Parts so small that a model of a width of 1 has two of them.
    fields = f"task.model.fields={{{','.join(sizes)}}}"
    return ["task.data.context=16", f"task.model.family={family}", fields, "codec.part_values=256"]


def is_made_or_named(tmp_path: Path, key: str, text: str, settings: list[str]) -> None:
    source, root = tmp_path / "source.txt", tmp_path / "run"
    if not source.exists():
        source.write_bytes(TEXT[:2000])
    try:
        create_run(root, "test", source, "demo", 1, [*settings, f"{key}={text}"])
    except (ConfigError, InputError) as error:
        line = str(error)
        assert line.isprintable() and len(line) < 1000
        assert key in line, line
        assert "alidation error" not in line, "it speaks of transformers' own checks"
        assert not root.exists()
    else:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    "text", ["inf", "nan", "-1", "0", "1", "1e300", "9" * 30, '"x"', "[]", "{a=1}", "true", "", "[[", "é\x1b"]
)
def test_any_value_of_any_setting_makes_a_run_that_opens_or_is_named(tmp_path: Path, text: str) -> None:
    settings = [".".join(path) for kind, path in RUN_PATHS if kind == "causal_lm"]
    for key in [*settings, *fields_of("gpt2")]:
        is_made_or_named(tmp_path, key, text, TINY)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_value_of_any_field_of_any_family_makes_a_run_that_opens_or_is_named(tmp_path: Path, family: str) -> None:
    """Among them those that only a step of the model meets: heads that do not divide, a root of something negative."""
    for key in fields_of(family):
        for text in ("-1.5", "1", "3", "7", "1e30", '"nope"'):
            is_made_or_named(tmp_path, key, text, tiny(family))


def test_fields_that_do_not_go_together_are_named_together(tmp_path: Path) -> None:
    key = "task.model.fields"
    settings = [*tiny("llama"), f"{key}.num_key_value_heads=3", f"{key}.rms_norm_eps=-1.5"]
    (tmp_path / "source.txt").write_bytes(TEXT)
    with pytest.raises(InputError) as error:
        create_run(tmp_path / "run", "test", tmp_path / "source.txt", "demo", 1, settings)
    assert f"{key}.num_key_value_heads = 3" in str(error.value) and f"{key}.rms_norm_eps = -1.5" in str(error.value)


# -- run check ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return new(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copy(made: RunDirectory, tmp_path: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(made.root, tmp_path / "copy")))


def test_check_opens_a_whole_run_and_settings_alone(made: RunDirectory, tmp_path: Path) -> None:
    assert check_run(made.toml)["opened"] is True
    dump_run(made.load(), tmp_path / "run.toml")
    alone = check_run(tmp_path / "run.toml")
    assert alone["opened"] is False
    assert alone["run_id"] == check_run(made.toml)["run_id"]


@pytest.mark.parametrize("what", ["a byte of the text", "no text", "a block", "no blocks", "the largest block"])
def test_check_finds_what_a_seed_or_a_peer_would(copy: RunDirectory, what: str) -> None:
    blocks = sorted(copy.blocks.iterdir(), key=lambda path: path.stat().st_size)
    if what == "a byte of the text":
        text = copy.data / "text.txt"
        text.write_bytes(b"X" + text.read_bytes()[1:])
    elif what == "no text":
        (copy.data / "text.txt").unlink()
    elif what == "no blocks":
        for block in blocks:
            block.unlink()
    else:
        block = blocks[0 if what == "a block" else -1]
        block.write_bytes(block.read_bytes()[:-1] + b"?")
    with pytest.raises((ConfigError, InputError), match=r"text\.txt|blocks/"):
        check_run(copy.toml)


def test_check_finds_blocks_of_other_files_than_run_toml_says(copy: RunDirectory) -> None:
    config = copy.load()
    for files in ([("text.txt", TEXT[:-1])], [("other.txt", TEXT)], [("text.txt", TEXT), ("../x", b"x")]):
        root = put_data(BlockStore(copy.blocks, 1 << 40), files)
        values = config.model_dump(mode="json")
        values["task"]["data"]["root"] = root.hex()
        changed = RunConfig.parse(values)
        dump_run(changed, copy.toml)
        with pytest.raises(ConfigError, match=r"other blocks than run\.toml says"):
            check_run(copy.toml)


def test_a_model_without_a_reproducible_step_is_refused(made: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    config = made.load()
    monkeypatch.setattr("swarm.models.transformer.NO_CHANCE", "let it pass")  # so dropout stays
    with pytest.raises(InputError, match=r"transformer\.drop: dropout 0\.1"):
        open_run(config, made.data, made.blocks, ProgressBar(quiet=True))
    monkeypatch.setattr("swarm.models.transformer.check_redoable", lambda module: None)
    with pytest.raises(InputError, match="could not be redone"):
        open_run(config, made.data, made.blocks, ProgressBar(quiet=True))


def test_a_model_larger_than_the_machine_is_refused_before_it_takes_memory() -> None:
    huge = UntrainedModel(kind="untrained", fields={"n_embd": 65536, "n_layer": 500, "n_head": 64})
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"parameters take \d+ GB at least, and this machine has"):
        build_model(huge, for_tokens(64))
    assert time.monotonic() - begun < 30.0
    assert torch.get_default_device().type == "cpu"


# -- progress -------------------------------------------------------------------------------------------------------------
def test_what_lasts_is_said_on_stderr_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(first_seconds=0.05)
    with bar.during("thinking") as report:
        report(0.25)
        deadline = time.monotonic() + 20.0
        seen = ""
        while "thinking" not in seen and time.monotonic() < deadline:
            time.sleep(0.02)
            seen += capsys.readouterr().err
    assert seen == "sparehive: thinking: 25%, 0 s\n"
    with bar.during("no time at all"), ProgressBar(quiet=True).during("quiet"):
        pass
    assert capsys.readouterr() == ("", "")


def test_the_model_library_is_loaded_in_sight(tmp_path: Path) -> None:
    """It takes seconds, and comes first."""
    (tmp_path / "source.txt").write_bytes(TEXT)
    script = f"""
from pathlib import Path
from peers.creating import create_run
from peers.progressbar import ProgressBar
from peers.runs import check_run
root = Path({str(tmp_path)!r})
create_run(root / "run", "test", root / "source.txt", "demo", 1, {TINY!r}, progress=ProgressBar())
"""
    assert "loading the model library" in on_a_terminal(script, COLUMNS="80")
    check = f"""
from pathlib import Path
from peers.progressbar import ProgressBar
from peers.runs import check_run
check_run(Path({str(tmp_path)!r}) / "run" / "run.toml", progress=ProgressBar())
"""
    assert "loading the model library" in on_a_terminal(check, COLUMNS="80")


CHEAP = {
    "a path that is not there": (["--data", "nowhere"], "does not exist"),
    "a folder without text": (["--data", "empty"], "holds no text"),
    "rows that are not there": (["--data", "nowhere", "--task", "chat"], "cannot be read"),
    "a tokenizer that is not there": (["--data", "source.txt", "--tokenizer", "nowhere"], "--tokenizer"),
    "a value of another type": (["--data", "source.txt", "--set", "inner.lr=x"], "inner.lr"),
    "a run that is not there": (None, "is not there"),
}


@pytest.mark.parametrize("case", CHEAP)
def test_what_is_cheap_to_see_is_said_before_the_model_library_is_loaded(tmp_path: Path, case: str) -> None:
    (tmp_path / "source.txt").write_bytes(TEXT)
    (tmp_path / "empty").mkdir()
    options, said = CHEAP[case]
    arguments = ["run", "check", "nowhere"] if options is None else ["run", "new", "made", *options]
    script = f"""
import sys
from peers.cli import main
sys.argv = ["sparehive", *{arguments!r}]
try:
    main()
finally:
    print(sorted({{"torch", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said in done.stderr and done.stdout == "[]\n" and done.returncode == 1


def test_progress_needs_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    bar = ProgressBar(first_seconds=0.01)
    with bar.during("thinking") as report:
        report(0.5)
    bar.note("said to nobody")


def on_a_terminal(script: str, **environment: str) -> str:
    """What the script writes to a terminal as its stderr."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=theirs,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TERM": "xterm", **environment},
    )
    os.close(theirs)
    seen = bytearray()
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0, seen
    return seen.decode(errors="replace")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("columns", ["80", "10"])
def test_a_terminal_sees_a_bar_that_goes_away(encoding: str, columns: str) -> None:
    script = """
from peers.progressbar import ProgressBar
bar = ProgressBar()
with bar.during("thinking") as report:
    report(0.5)
bar.note("done: \\u00e9")
"""
    seen = on_a_terminal(script, PYTHONIOENCODING=encoding, COLUMNS=columns)
    assert "think" in seen and ("50%" in seen or columns == "10")
    assert "Traceback" not in seen
    last = seen.rpartition("\x1b[2K")[2]  # what was erased stands before
    assert last.strip() == "sparehive: done: " + ("\\xe9" if encoding == "ascii" else "é")


def test_a_run_is_planned_in_tokens_and_its_check_says_so(tmp_path: Path) -> None:
    """What else is set stays: here larger units, and a warm-up of the organiser's."""
    source = tmp_path / "source.txt"
    source.write_bytes(TEXT)
    settings = [*TINY, "inner.batch_size=4", "inner.warmup_units=7"]
    made = create_run(tmp_path / "run", "test", source, "demo", 1, settings, length=Length("--tokens", "32k", 32_000))
    inner = RunDirectory(tmp_path / "run").load().inner
    assert (inner.total_units, inner.warmup_units) == (100, 7)  # 5 steps of 4 samples of 16 tokens
    checked = check_run(tmp_path / "run" / "run.toml")
    for said in (made, checked):
        assert (said["planned_tokens"], said["planned_samples"], said["total_units"]) == (32_000, 2_000, 100)
        assert said["planned_epochs"] == 12


def test_an_organiser_elsewhere_stands_in_the_run_beside_the_key_that_signs_invites(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_bytes(TEXT)
    wallet = b"\x5a" * 20
    made = create_run(tmp_path / "run", "test", source, "demo", 1, TINY, organiser=wallet)
    run = RunDirectory(tmp_path / "run")
    named, own = run.load().organiser, key_account(run.organiser_key)
    assert named is not None and own is not None
    assert (named.wallet, named.invites) == (wallet.hex(), own.hex()) and made["organiser"] == "0x" + wallet.hex()
    keys = run.organiser_key, run.organiser_password
    invite = bind_run(run, *keys, (own,), ())
    assert (invite.organiser, invite.signer) == (wallet, own)
    other, password = tmp_path / "other.json", tmp_path / "other.password"
    create_key(other, load_password(password, create=True))
    with pytest.raises(ConfigError, match="are signed by 0x" + own.hex()):
        bind_run(run, other, password, (own,), ())
