"""Whatever lies in a run's or a wallet's directory or among the published tables: each command that reads it heals it, or ends with one
line that names it and says what to do; never a traceback, nothing is lost, and nothing goes to the chain twice or otherwise."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from incentives.devchain import DevChain
from incentives.errors import IncentivesError
from peers.creating import create_run
from peers.errors import PeerError, in_one_line
from peers.runs import RunDirectory, bind_run, copy_blocks
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig, load_run
from swarm.errors import SwarmError
from swarm.tasks import new_model
from swarm.tasks.causal_lm import CausalLMTask
from tests.chain.commands import last_words, ok, refused, sparehive
from tests.chain.test_broken_off import kill_at_transaction
from tests.chain.world import UNIT_PRICE, World
from tests.damages import (
    Damage,
    cuts_and_flips,
    deep,
    empty,
    flip,
    folder,
    half,
    huge_numbers,
    leads_nowhere,
    missing,
    other_version,
)
from tests.faults.damage import Nobody

TINY = ["task.data.context=16", "task.model.fields={n_embd=16,n_layer=1,n_head=1}", "codec.part_values=4096"]
DAMAGES: tuple[Damage, ...] = (
    empty, half, flip(0.3), other_version, deep, huge_numbers, missing, folder, leads_nowhere,
)  # fmt: skip
REMEDY = re.compile(r"restore|move|remove|write|get it|get them|copy|make|check|give|ask|fetch|choose|use a")


class MadeWorld(World):
    """Its run is one that `run new` made, and the run's own key is the organiser's."""

    def make_run(self) -> RunConfig:
        (self.root / "text.txt").write_text("some text, and some more\n" * 200)
        create_run(self.run.root, "test", self.root / "text.txt", "demo", UNIT_PRICE, TINY)
        return self.run.load()

    def keys(self, name: str) -> tuple[str, ...]:
        if name != "organiser":
            return super().keys(name)
        return "--keystore", str(self.run.organiser_key), "--password-file", str(self.run.organiser_password)


class Kept:
    """A world, and the way back to it. A period is final, alice may claim, bob may be bound, a second period may be proposed, and a
    deposit was sent by a command that was killed before it knew."""

    def __init__(self, world: World, copy: Path) -> None:
        self.world, self.copy = world, copy
        shutil.copytree(world.root, copy)
        self.files = tree(world.root)
        self.snapshot = world.chain.request("evm_snapshot")
        self.block = world.chain.request("eth_blockNumber")

    def restore(self) -> None:
        if tree(self.world.root) != self.files:
            shutil.rmtree(self.world.root)
            shutil.copytree(self.copy, self.world.root)
        if not self.is_untouched():
            self.world.chain.request("evm_revert", self.snapshot)
            self.snapshot = self.world.chain.request("evm_snapshot")

    def is_untouched(self) -> bool:
        return bool(self.world.chain.request("eth_blockNumber") == self.block)

    def on_chain(self) -> dict[str, Any]:
        """All that a command can change there."""
        world = self.world
        settlement = ("--settlement", world.deployed["settlement"], "--chain-id", 31337)
        sent = {name: world.chain.request("eth_getTransactionCount", w, "latest") for name, w in world.wallets.items()}
        state = ok("run", "status", *settlement, *world.rpc, "--latest")
        if state["pending"]:
            del state["pending"]["ready_at"], state["proposal"]["ready_at"]
        return {"sent": sent, **{name: value for name, value in state.items() if not name.startswith("block")}}


def tree(root: Path) -> dict[str, bytes | str]:
    """What lies there; a folder is "folder", a link "link"."""
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(root))] = kind
    return found


@pytest.fixture(scope="module")
def kept(node: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    root = tmp_path_factory.mktemp("damage") / "world"
    root.mkdir()
    world = MadeWorld(root, node)
    world.work(alice=2, bob=1)
    world.settle()
    world.finalise()
    world.bind("alice")
    world.bind("bob", "--write-consent", root / "consent.json")
    world.work(alice=3, carol=1)
    (root / "invite.txt").write_text(f"The invite of our run:\n\n{world.invite}\n")
    kill_at_transaction(node, 2, True, "run", "fund", world.run.root, *world.rpc, "--amount", "7base")
    return Kept(world, tmp_path_factory.mktemp("kept") / "world")


CHAIN, CONFIG, KEY, PASSWORD = (
    "run/chain.json",
    "run/run.toml",
    "run/keys/organiser.json",
    "run/keys/organiser.password",
)
TABLES, EVIDENCE, INVITE, TEXT = "tables/period-0.json", "tables/evidence-0.json", "invite.txt", "run/data/text.txt"
WALLET, OPENS, SENDING = "wallets/alice.json", "wallets/alice.password", ".sending"
CHECKED = "tables/checked.bin"  # what a settle remembers: worth nothing to anybody else, and heals
# Each command and the files that it reads or writes over.
READS: dict[str, tuple[str, ...]] = {
    "run check": (CONFIG, TEXT, "block", "run/sources.sha256"),
    "run status": (CHAIN, CONFIG),
    "run deploy": (CONFIG, KEY, PASSWORD, CHAIN),
    "run fund": (CHAIN, KEY, PASSWORD, KEY + SENDING),
    "settle": (KEY + SENDING, TABLES, INVITE, "tables/period-1.json", "tables/evidence-1.json", CHECKED),
    "verify": (CHAIN, TABLES, EVIDENCE, INVITE),
    "rewards": (TABLES, EVIDENCE, WALLET),
    "claim": (TABLES, EVIDENCE, WALLET, WALLET + SENDING),
    "bind": (CHAIN, "consent.json"),
    "wallet": (WALLET, OPENS),
    "seed": (CONFIG, CHAIN, KEY, PASSWORD, TEXT, "block"),
}
SENDS = ("run deploy", "run fund", "settle", "claim", "bind")
# A file that is not there, or empty, is what a command leaves that ended well, or that was killed before it sent anything.
UNKNOWABLE = {("run fund", KEY + SENDING, empty), ("run fund", KEY + SENDING, missing)}


def command(world: World, name: str) -> tuple[object, ...]:
    run, tables = world.run.root, ("--tables", world.tables)
    at, invite = ("--run", run, *world.rpc), ("--invite", world.root / "invite.txt")
    options: dict[str, tuple[object, ...]] = {
        "run check": (run,),
        "run status": (run, *world.rpc, "--latest"),
        "run deploy": (run, *world.rpc, "--test-token"),
        "run fund": (run, *world.rpc, "--amount", "7base"),
        "settle": ("--dir", world.peer("alice").root, *at, *tables, *invite, "--to-newest"),
        "verify": (*at, *tables, *invite, "--latest"),
        "rewards": (*at, *tables, "--keystore", world.root / WALLET, "--latest"),
        "claim": world.claim_options("alice"),
        "bind": ("--yes", "--consent", world.root / "consent.json", *at, *world.keys("bob")),
        "wallet": world.keys("alice"),
        "seed": (run, "--dir", world.root / "seed"),
    }
    return (*name.split(), *options[name])


def open_as_a_seed(arguments: Sequence[str], view: object) -> int:
    """What the seed's own process opens of the run's directory, without its network; its exit status."""
    seed = Path(arguments[-1])
    link = json.loads((seed / "seed.json").read_text())
    run = RunDirectory(Path(link["run"]))
    try:
        config = bind_run(run, Path(link["keystore"]), Path(link["password_file"]), (bytes(20),), ()).config
        store = BlockStore(seed / "blocks", 1 << 30)
        copy_blocks(run, config, store)
        layout = new_model(config).layout
        content = RunBlocks(store, layout, Nobody().ask, Nobody().donors, 0.1, set)
        asyncio.run(content.fetch_data(config.task.data, run.data))
        CausalLMTask(config, run.data)
    except (PeerError, SwarmError, IncentivesError, OSError) as error:
        print(f"sparehive: {in_one_line(error)}", file=sys.stderr)
        return 3
    return 0


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    import peers.supervisor

    monkeypatch.setattr(peers.supervisor, "supervise", open_as_a_seed)


@pytest.mark.usefixtures("seeds")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == "settle" else name for name in READS]
)
def test_every_file_heals_or_is_named(kept: Kept, name: str) -> None:
    world = kept.world
    arguments = command(world, name)
    try:
        if name == "run deploy":
            world.run.chain.unlink()
        assert sparehive(*arguments)[0] == 0
        undamaged = kept.on_chain()
        assert kept.is_untouched() == (name not in SENDS or name == "run fund")  # whose deposit was sent before
        if name in SENDS:
            kept.restore()
        wrong = []
        for file in READS[name]:
            for how in DAMAGES:
                if (name, file, how) in UNKNOWABLE:
                    continue
                kept.restore()
                if fault := fault_of(kept, name, arguments, file, how, undamaged):
                    wrong.append((file, how.__name__, *fault))
    finally:
        kept.restore()
    assert wrong == []


def fault_of(
    kept: Kept, name: str, arguments: tuple[object, ...], file: str, how: Damage, undamaged: dict[str, Any]
) -> tuple[str, str] | None:
    """What is wrong with what the command does about the damage, and what it said."""
    world = kept.world
    path = world.root / file if file != "block" else next(world.run.blocks.iterdir())
    if name == "run deploy" and file != CHAIN:
        world.run.chain.unlink()
    if not path.exists():
        path.write_text("{}")
    how(path)
    if name == "run deploy" and file == CHAIN and how is missing:
        return None
    before = tree(world.root)
    code, _, said = sparehive(*arguments)  # raises what would be a traceback
    after = tree(world.root)
    own = {str(path.relative_to(world.root)), *(p for p in {*before, *after} if is_its_own(name, p))}
    lost = [p for p in before if p not in own and after.get(p) != before[p]]
    if lost:
        return f"changes {lost}", said
    if not code:
        is_right = kept.on_chain() == undamaged if name in SENDS else kept.is_untouched()
        return None if is_right else ("does something else", said)
    if not kept.is_untouched():
        return "sends, and fails", said
    left = [p for p in {*before, *after} if before.get(p) != after.get(p) and not is_its_own(name, p)]
    if left:
        return f"fails, and changes {left}", said
    line = said.removeprefix("sparehive: ").rstrip("\n")
    if code not in (1, 3) or "\n" in line or path.name not in line or not REMEDY.search(line.replace(str(path), "")):
        return f"exit status {code}", said
    return None


def is_its_own(name: str, path: str) -> bool:
    """What the command is there to write or to take away, and SQLite's files for readers."""
    return path.endswith((SENDING, CHECKED, "-wal", "-shm")) or (name == "seed" and path.startswith("seed"))


@pytest.mark.parametrize(
    ("name", "file", "every"),
    [("run status", CHAIN, 5), ("verify", EVIDENCE, 199), ("verify", INVITE, 71), ("wallet", WALLET, 23), ("bind", "consent.json", 37)],
)  # fmt: skip
def test_one_bit_anywhere_is_harmless_or_named(kept: Kept, name: str, file: str, every: int) -> None:
    """Of what is valid and other, what the chain, the run or a signature says otherwise."""
    path, arguments = kept.world.root / file, command(kept.world, name)
    whole = path.read_bytes()
    right = sparehive(*arguments)[:2]
    kept.restore()
    try:
        for damaged in cuts_and_flips(whole, every):
            path.write_bytes(damaged)
            code, out, said = sparehive(*arguments)
            if code:
                assert path.name in last_words(said) and REMEDY.search(said), damaged
                assert kept.is_untouched()
            else:
                assert (code, re.sub("block [0-9]+", "", out)) == (0, re.sub("block [0-9]+", "", right[1])), damaged
                kept.restore()
    finally:
        kept.restore()


def test_a_run_toml_that_became_another_runs_is_seen_before_money_goes_there(kept: Kept) -> None:
    """Cut after a table it is valid, and another run; chain.json says which it was."""
    world = kept.world
    try:
        text = world.run.toml.read_text()
        world.run.toml.write_text(text[: text.index("[rounds]")])
        assert load_run(world.run.toml).run_id != world.config.run_id
        for name in ("run fund", "settle", "seed", "claim"):
            line = refused(*command(world, name))
            assert f"{world.run.chain}" in line and f"{world.run.toml} is run 0x" in line and "restore the one" in line
        assert kept.is_untouched()
    finally:
        kept.restore()
