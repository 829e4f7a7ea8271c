"""`python -m benchmarks.many`: what a round costs each peer as a swarm grows, and whether rounds, joins and leaves hold.

The product's machine draws, calls, sets, rechecks, votes and certifies; messages are packed and unpacked as they travel, in one process and
without loss. Tensors and streams are left out, and so are signatures, whose time is counted by what one costs here. After some calm rounds
a quarter of the peers leaves without a word, as many others join. Frames per peer are those of `swarm.transport.gossip`, and beside
them those of a swarm in which each message goes over every link.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coincurve import PrivateKey, PublicKey
from rich import box
from rich.console import Console
from rich.table import Table

from swarm.records.types import FLAG_REDUCES, FLAG_VOTES
from swarm.records.wire import pack, unpack
from swarm.transport.gossip import Gossip
from swarm.transport.sync import DIGEST_BYTES, Seen

SIZES = (4, 8, 16, 32, 64, 96)
PROGRESS_PER_ROUND, PROGRESS_BYTES = 8, 200  # said by each peer while it works, at least


@dataclass(frozen=True)
class Round:
    """Per peer and calm round, where all are linked; bytes as they come in."""

    peers: int
    messages: float
    frames: float
    frames_flooded: float
    kilobytes: float
    kilobytes_flooded: float
    cpu_ms: float  # of the machine, packing and unpacking
    signatures_ms: float
    by_kind: dict[str, float]
    left_and_joined: int
    rounds_after: int  # certified after they left and joined, of those tried
    tried_after: int
    joiners_in: int  # whose work was certified then


def _world() -> Any:
    """Of the tests, which are not checked as strictly as what is shipped."""
    return importlib.import_module("tests.machine.world")


def signature_ms() -> float:
    key, digest = PrivateKey(), os.urandom(32)
    signature = key.sign_recoverable(digest, hasher=None)
    begun = time.process_time()
    for _ in range(500):
        PublicKey.from_signature_and_message(signature, digest, hasher=None)
    return (time.process_time() - begun) * 2


class Counted:
    """A world whose messages and processor time are counted."""

    def __init__(self, size: int) -> None:
        tests = _world()
        base: Any = tests.World
        self.messages: Counter[str] = Counter()
        self.num_bytes = 0
        counted = self

        class World(base):  # type: ignore[misc]
            def send(self, sender: Any, signed: Any) -> None:
                data = pack(signed)
                counted.messages[type(signed.record).__name__] += 1
                counted.num_bytes += len(data)
                for receiver in (*self.seeds, *self.peers):
                    if receiver is not sender:
                        self.queue.append((sender, receiver, data))

            def settle(self) -> None:
                while self.queue:
                    _, receiver, data = self.queue.popleft()
                    if receiver.alive:
                        signed = unpack(data)
                        receiver.heard.append(signed)
                        receiver.act(receiver.machine.receive(signed))

        self.tests = tests
        self.world: Any = World(size, min_seated=size, recheck_share=0.1)

    def join(self, number: int) -> Any:
        """With what another peer has heard."""
        world = self.world
        other = next(p for p in world.peers if p.alive)
        peer = self.tests.Peer(world, number, FLAG_VOTES | FLAG_REDUCES)
        world.peers.append(peer)
        for signed in other.heard:
            peer.act(peer.machine.receive(signed))
        for signed in other.machine.current_messages():
            peer.act(peer.machine.receive(signed))
        return peer

    def certified(self) -> int:
        return max(len(p.tips) for p in self.world.peers if p.alive)

    def round(self) -> bool:
        """One more; whether it was certified, in however many attempts."""
        before = self.certified()
        self.world.round()
        for _ in range(12):
            if self.certified() > before:
                return True
            self.world.run(10.0, lambda: self.certified() > before)
        return False


def frames_of(size: int) -> tuple[float, float]:
    """That come to each peer for one message, in full, and digests told, where all are linked."""
    accounts = [_world().account(number) for number in range(size)]
    links = {a: _Link(a, frozenset(b for b in accounts if b != a)) for a in accounts}
    gossip = {a: Gossip(a, Seen(), lambda account: True) for a in accounts}
    source, full = accounts[0], size - 1
    for account in accounts[1:]:
        others = {a: link for a, link in links.items() if a != account}
        full += len(gossip[account].spread(b"message", others, source))
    told = sum(len(data) for peer in gossip.values() for data in peer.news().values()) // DIGEST_BYTES
    return full / (size - 1), told / (size - 1)


@dataclass
class _Link:
    account: bytes
    linked: frozenset[bytes]


def measure(size: int, rounds: int, one_signature_ms: float) -> Round:
    counted = Counted(size)
    world = counted.world
    world.seat()
    for _ in range(2):
        counted.round()
    counted.messages.clear()
    counted.num_bytes = 0
    begun = time.process_time()
    for _ in range(rounds):
        if not counted.round():
            raise SystemExit(f"{size} peers: no certificate in a calm round")
    cpu = time.process_time() - begun
    messages = counted.messages.total() / rounds + PROGRESS_PER_ROUND * size
    num_bytes = counted.num_bytes / rounds + PROGRESS_PER_ROUND * PROGRESS_BYTES * size
    by_kind = {kind: number / rounds for kind, number in counted.messages.most_common()}

    changed = size // 4
    for peer in world.peers[:changed]:
        peer.alive = False
    joiners = [counted.join(10_000 + number) for number in range(changed)]
    tried = 4
    after = sum(counted.round() for _ in range(tried))
    lineage = next(p for p in world.peers if p.alive).machine.lineage
    tip = next(p for p in world.peers if p.alive).machine.tip
    paid = {a for identity in list(lineage.path(tip))[-tried:] for a in _contributors(lineage, identity)}
    full, told = frames_of(size)
    others = (size - 1) / size
    flooded = size - 1.0
    return Round(
        size,
        messages,
        messages * others * full,
        messages * others * flooded,
        (num_bytes * others * full + messages * others * told * DIGEST_BYTES) / 1000,
        num_bytes * others * flooded / 1000,
        cpu / rounds / (size + 1) * 1000,
        messages * one_signature_ms,
        by_kind,
        changed,
        after,
        tried,
        sum(j.notary.account in paid for j in joiners),
    )


def _contributors(lineage: Any, identity: bytes) -> Sequence[bytes]:
    return [leaf.peer for leaf in lineage[identity].body.contributors]


def table(results: Sequence[Round]) -> Table:
    out = Table(box=box.SIMPLE, title="Per peer and round")
    for name in (
        "peers",
        "messages",
        "frames (over every link)",
        "kB in (over every link)",
        "CPU ms",
        "signatures ms",
        "certified after",
    ):
        out.add_column(name, justify="right")
    for r in results:
        out.add_row(
            str(r.peers),
            f"{r.messages:,.0f}",
            f"{r.frames:,.0f} ({r.frames_flooded:,.0f})",
            f"{r.kilobytes:,.0f} ({r.kilobytes_flooded:,.0f})",
            f"{r.cpu_ms:,.1f}",
            f"{r.signatures_ms:,.1f}",
            f"{r.rounds_after} of {r.tried_after}, {r.joiners_in} of {r.left_and_joined} joiners",
        )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of peers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="calm rounds that are measured (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(arguments)
    console, one = Console(), signature_ms()
    results = []
    for size in map(int, options.sizes.split(",")):
        begun = time.monotonic()
        results.append(measure(size, options.rounds, one))
        console.print(f"{size} peers: {time.monotonic() - begun:.0f} s", highlight=False)
    console.print(table(results))
    console.print(f"a signature: {one:.2f} ms", highlight=False)
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
