"""The canonical anchor: the same state has the same bytes and root everywhere, and nothing else is read as one."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from swarm.checkpoint.anchor import Anchor, anchor_blocks, anchor_root, read_anchor
from swarm.checkpoint.runblocks import KEEP_ANCHORS, MAX_KEPT_ANCHORS, RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import decode_node, encode_directory, encode_file, read_file
from swarm.errors import PeerFault, RetryError
from swarm.models.layout import Layout
from swarm.records.types import Account, Hash
from tests.training.swarmlet import initial_anchor

LAYOUT = Layout(("a.weight", "b"), ((3, 2), (5,)))


def anchor(seed: int = 0, rounds: int = 3) -> Anchor:
    generator = torch.Generator().manual_seed(seed)
    return Anchor(torch.randn(11, generator=generator), torch.randn(11, generator=generator), LAYOUT, 40, rounds)


def stored(value: Anchor) -> dict[bytes, bytes]:
    return {block.digest: block.data for block in anchor_blocks(value)}


def test_two_processes_give_the_same_state_the_same_root() -> None:
    program = (
        "import torch; from tests.training.test_anchor import anchor, anchor_root\nprint(anchor_root(anchor()).hex())"
    )
    roots = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True,
            cwd=Path(__file__).parents[2], env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert roots == {anchor_root(anchor()).hex()}


def test_the_root_is_this_one() -> None:
    """Changing it makes every run's roots others: docs/decisions/0005."""
    ramp = Anchor(torch.arange(11.0), torch.arange(11.0) / 8, LAYOUT, 40, 3)
    assert anchor_root(ramp).hex() == "28348e6197bf98551f9b0c79b7347a5f1022dababd23421652ea5e9bc581d6c0"


def test_it_depends_on_each_value_and_on_nothing_else() -> None:
    value = anchor()
    again = replace(value, parameters=value.parameters.clone(), momentum=value.momentum.clone())
    assert anchor_root(again) == anchor_root(value)
    nudged = value.parameters.clone()
    nudged[10] = torch.nextafter(nudged[10], torch.tensor(9.0))
    others = [
        replace(value, parameters=nudged),
        replace(value, momentum=nudged),
        replace(value, parameters=value.momentum, momentum=value.parameters),
        replace(value, counted_units=41),
        replace(value, num_rounds=4),
        replace(value, layout=Layout(("a.weight", "b"), ((2, 3), (5,)))),
        replace(value, layout=Layout(("a.weight", "c"), ((3, 2), (5,)))),
    ]
    assert len({anchor_root(x) for x in [value, *others]}) == 8


def test_the_files_are_plain_safetensors_and_json() -> None:
    value = anchor()
    blocks = stored(value)
    links = {link.name: link for link in decode_node(blocks[anchor_root(value)]).links}
    assert list(links) == ["manifest.json", "momentum.safetensors", "parameters.safetensors"]
    parameters = load(read_file(links["parameters.safetensors"], blocks.__getitem__, 10_000))
    assert {name: tuple(t.shape) for name, t in parameters.items()} == {"a.weight": (3, 2), "b": (5,)}
    assert torch.equal(torch.cat([parameters["a.weight"].flatten(), parameters["b"]]), value.parameters)
    manifest = json.loads(read_file(links["manifest.json"], blocks.__getitem__, 10_000))
    assert manifest == {"counted_units": 40, "format": 2, "num_parameters": 11, "num_rounds": 3}


def test_reading_gives_the_same_anchor_back() -> None:
    value = anchor()
    again = read_anchor(anchor_root(value), stored(value).__getitem__, LAYOUT)
    assert torch.equal(again.parameters, value.parameters)
    assert torch.equal(again.momentum, value.momentum)
    assert (again.counted_units, again.num_rounds) == (40, 3)
    assert anchor_root(again) == anchor_root(value)


def directory(files: dict[str, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    blocks, entries = {}, []
    for name, data in files.items():
        link, made = encode_file(data)
        blocks.update({b.digest: b.data for b in made})
        entries.append((name, link))
    _, root = encode_directory(entries)
    return root.digest, {**blocks, root.digest: root.data}


GOOD = {
    "parameters.safetensors": LAYOUT.header() + bytes(44),
    "momentum.safetensors": LAYOUT.header() + bytes(44),
    "manifest.json": anchor().manifest(),
}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({k: v for k, v in GOOD.items() if k != "momentum.safetensors"}, "other files"),
        ({**GOOD, "code.py": b"x"}, "other files"),
        ({**GOOD, "manifest.json": b"{"}, "manifest"),
        ({**GOOD, "manifest.json": b'{"num_rounds": 1}'}, "manifest"),
        ({**GOOD, "manifest.json": b'{"counted_units": -1, "format": 2, "num_parameters": 11, "num_rounds": 3}'},
         "manifest"),
        ({**GOOD, "manifest.json": GOOD["manifest.json"] + b" "}, "manifest"),
        ({**GOOD, "parameters.safetensors": LAYOUT.header() + bytes(40)}, "not of this run's model"),
        ({**GOOD, "parameters.safetensors": LAYOUT.header() + bytes(48)}, "more than"),
        ({**GOOD, "parameters.safetensors": save({"a": torch.zeros(11)})}, "not of this run's model"),
        ({**GOOD, "momentum.safetensors": LAYOUT.header() + b"\xff" * 44}, "not finite"),
    ],
)  # fmt: skip
def test_what_is_no_canonical_anchor_of_this_model_is_refused(files: dict[str, bytes], words: str) -> None:
    root, blocks = directory(files)
    with pytest.raises(PeerFault, match=words):
        read_anchor(root, blocks.__getitem__, LAYOUT)


def test_the_good_files_alone_would_have_passed() -> None:
    root, blocks = directory(GOOD)
    assert read_anchor(root, blocks.__getitem__, LAYOUT).num_rounds == 3


# -- which anchors stay ---------------------------------------------------------------------------------------------------
async def nobody(account: Account, digests: Sequence[Hash]) -> dict[Hash, bytes]:
    raise RetryError("nobody")


def content(path: Path, pinned: set[bytes]) -> RunBlocks:
    store = BlockStore(path / "blocks", 1 << 24)
    return RunBlocks(store, LAYOUT, nobody, list, 0.5, lambda: frozenset(pinned))


def there(path: Path, value: Anchor) -> bool:
    try:
        return asyncio.run(content(path, set()).load(anchor_root(value))).num_rounds == value.num_rounds
    except RetryError:
        return False


def test_an_anchor_that_is_young_stays_for_slow_joiners(tmp_path: Path) -> None:
    anchors = [anchor(seed, seed) for seed in range(MAX_KEPT_ANCHORS + 3)]
    for value in anchors:
        asyncio.run(content(tmp_path, set()).save(value))
    assert [there(tmp_path, value) for value in anchors] == [i >= 3 for i in range(len(anchors))]


@pytest.mark.usefixtures("anchors_go_at_once")
def test_the_newest_anchors_and_pinned_ones_stay_also_across_a_restart(tmp_path: Path) -> None:
    anchors = [anchor(seed, seed) for seed in range(KEEP_ANCHORS + 6)]
    pinned = {anchor_root(anchors[0]), anchor_root(anchors[2])}
    for value in anchors:
        asyncio.run(content(tmp_path, pinned).save(value))  # a new process each time
    assert [there(tmp_path, value) for value in anchors] == [i in (0, 2) or i >= 6 for i in range(len(anchors))]
    pinned.clear()
    asyncio.run(content(tmp_path, pinned).save(anchor(99, 99)))
    assert not there(tmp_path, anchors[0])
    assert not there(tmp_path, anchors[2])
    blocks = {p.name for p in (tmp_path / "blocks").iterdir()}
    wanted = [*anchors[7:], anchor(99, 99)]
    assert blocks == {digest.hex() for value in wanted for digest in stored(value)}


def test_the_initial_anchor_stays_though_a_seating_certifies_it_again(tmp_path: Path) -> None:
    """Late joiners begin with it; it was deleted six epochs after the first seating."""
    first = anchor(0, 0)
    keeper = content(tmp_path, {anchor_root(first)})
    asyncio.run(keeper.save(first))
    for seed in range(1, KEEP_ANCHORS + 3):
        asyncio.run(keeper.save(anchor(seed, seed)))
    assert there(tmp_path, first)


def test_a_real_model_s_anchor_comes_back() -> None:
    value = initial_anchor()
    again = read_anchor(anchor_root(value), stored(value).__getitem__, value.layout)
    assert torch.equal(again.parameters, value.parameters)
