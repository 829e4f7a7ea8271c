"""`sparehive export` from a block store and a ledger on disk, once in a process of its own; transformers opens what it writes."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coincurve import PrivateKey

from incentives import records
from incentives.ledger import Ledger
from peers.creating import create_run
from peers.directory import PeerDirectory
from peers.invite import Invite, RunBinding
from peers.notary import values_of
from peers.runs import RunDirectory
from swarm.checkpoint.anchor import Anchor, anchor_blocks, anchor_root, read_anchor
from swarm.checkpoint.store import BlockStore
from swarm.records.commitments import body_bytes, body_hash, contributors_root, electorate_hash
from swarm.records.types import KIND_ROUND, ZERO_HASH, RoundBody, RoundCertificate
from swarm.tasks import new_model
from tests.chain.commands import last_words, own_process, sparehive
from tests.odd_machines import mounted, run
from tests.odd_machines import sparehive as sparehive_of

TINY = ("task.model.fields={n_embd=16,n_layer=1,n_head=2}", "task.data.context=16", "codec.part_values=2048")
KEY = PrivateKey(b"\x05" * 32)
VOTER = records.account_of(KEY)


def export(directory: PeerDirectory, out: Path | str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    return sparehive("export", "--dir", directory.root, "--out", out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PeerDirectory, Anchor]:
    """A peer whose newest certificate (epoch 2) is for an anchor that differs from the initial one."""
    root = tmp_path_factory.mktemp("export")
    text = root / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    run = RunDirectory(root / "run")
    create_run(run.root, "export", text, "demo", 1, TINY)
    config = run.load()
    directory = PeerDirectory(root / "peer")
    directory.root.mkdir()
    binding = RunBinding(config.run_id, 0, bytes(20), (VOTER,), ())
    directory.invite.write_text(Invite.make(config, binding, KEY).encode() + "\n")
    layout = new_model(config).layout
    known = BlockStore(run.blocks, 1 << 30)
    first = read_anchor(bytes.fromhex(config.initial_root), lambda digest: known.get(digest) or b"", layout)
    generator = torch.Generator().manual_seed(1)
    moved = first.parameters + 0.1 * torch.randn(first.parameters.shape, generator=generator)
    anchor = replace(first, parameters=moved, counted_units=9, num_rounds=1)
    store = BlockStore(directory.blocks, 1 << 30)
    for block in anchor_blocks(anchor):
        store.put(block.data)
    body = RoundBody((), (VOTER,), (), (), 0.0, (VOTER,))
    certificate = RoundCertificate(
        config.run_id, 2, 0, KIND_ROUND, ZERO_HASH, bytes.fromhex(config.initial_root), anchor_root(anchor),
        contributors_root(()), 0, 9, 9, electorate_hash((VOTER,)), body_hash(body),
    )  # fmt: skip
    domain = binding.domain()
    signature = records.sign(KEY, records.digest(domain, "RoundCertificate", values_of(certificate)))
    with Ledger(directory.ledger, run_id=config.run_id, domain=domain) as ledger:
        ledger.set_tip(ledger.add_certificate(values_of(certificate), body_bytes(body), [(VOTER, signature)]))
    return directory, anchor


def test_transformers_opens_the_certified_model(trained: tuple[PeerDirectory, Anchor], tmp_path: Path) -> None:
    directory, anchor = trained
    done = own_process("export", "--dir", directory.root, "--out", tmp_path / "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"epoch 2 written to {tmp_path / 'model'}\n"
    assert done.stderr == ""
    from transformers import AutoModelForCausalLM

    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    parameters = dict(opened.named_parameters(remove_duplicate=False))
    for name, value in anchor.layout.views(anchor.parameters).items():
        assert torch.equal(parameters[name].detach(), value), name
    with torch.no_grad():
        logits = opened(input_ids=torch.tensor([list(b"the quick")])).logits
    assert logits.shape == (1, 9, 256)
    assert bool(torch.isfinite(logits).all())


def test_who_stopped_before_it_had_the_newest_state_gets_the_one_before(
    trained: tuple[PeerDirectory, Anchor], tmp_path: Path
) -> None:
    """A certificate is known at once, and the state after it is made of averages that may not have come."""
    directory = PeerDirectory(tmp_path / "peer")
    shutil.copytree(trained[0].root, directory.root)
    run = Invite.of_file(directory.invite).config
    domain = Invite.of_file(directory.invite).binding.domain()
    with Ledger(directory.ledger, run_id=run.run_id, domain=domain) as ledger:
        tip = ledger.tip()
        assert tip is not None
        body = RoundBody((), (VOTER,), (), (), 0.0, (VOTER,))
        certificate = RoundCertificate(
            run.run_id, 3, 0, KIND_ROUND, tip, anchor_root(trained[1]), b"\x07" * 32,
            contributors_root(()), 0, 9, 18, electorate_hash((VOTER,)), body_hash(body),
        )  # fmt: skip
        signature = records.sign(KEY, records.digest(domain, "RoundCertificate", values_of(certificate)))
        ledger.set_tip(ledger.add_certificate(values_of(certificate), body_bytes(body), [(VOTER, signature)]))
    code, out, err = export(directory, tmp_path / "model")
    assert code == 0, err
    assert out.startswith("epoch 2 written to") and "epoch 3 was certified, too" in out
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_full_folder_is_not_written_into(trained: tuple[PeerDirectory, Anchor], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    code, out, err = export(trained[0], tmp_path)
    assert (code, out) == (1, "")
    assert last_words(err).startswith("sparehive: --out = ")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_working_directory_is_filled(
    trained: tuple[PeerDirectory, Anchor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be replaced by another folder."""
    monkeypatch.chdir(tmp_path)
    code, _, err = export(trained[0], ".")
    assert code == 0, err
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_a_mount_point_is_filled(trained: tuple[PeerDirectory, Anchor], tmp_path: Path) -> None:
    """Another disk: what is made beside it could not be moved there."""
    place, kept = tmp_path / "disk", tmp_path / "kept"
    place.mkdir()
    kept.mkdir()
    keep = 'here=$1 kept=$2; shift 2; "$@" && cp -a "$here/." "$kept"'
    command = [
        "sh",
        "-c",
        keep,
        "sh",
        str(place),
        str(kept),
        *sparehive_of("export", "--dir", trained[0].root, "--out", place),
    ]
    done = run(mounted(f"mount -t tmpfs t {shlex.quote(str(place))}", command), timeout=120.0)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in kept.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "kept"}


def test_a_directory_of_no_peer_is_named(tmp_path: Path) -> None:
    code, out, err = export(PeerDirectory(tmp_path), tmp_path / "model")
    assert (code, out) == (1, "")
    assert "sparehive join" in last_words(err)


def test_a_damaged_block_is_found_and_nothing_half_written_stays(
    trained: tuple[PeerDirectory, Anchor], tmp_path: Path
) -> None:
    directory, _ = trained
    path = max(directory.blocks.iterdir(), key=lambda p: p.stat().st_size)  # parameters or momentum
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        code, out, err = export(directory, tmp_path / "model")
    finally:
        path.write_bytes(whole)
    assert (code, out) == (1, "")
    assert "missing or damaged" in last_words(err)
    assert list(tmp_path.iterdir()) == []
