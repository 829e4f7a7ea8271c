"""How far one contributor of n, or f of them, can bend a model: held-out loss after a run, under each attack, with and without the rules.

    python -m benchmarks.bending [--rounds 40] [--seeds 2]

Peers in lock-step in one thread, with the product's training, codec, commitments, pull, average and outer step; the reference in the same
run weighs by claimed units and bounds nothing. A liar claims 64 units. "gone" is a loss that is not a number, or above chance.
"""

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from swarm.audit.replay import SignedWork
from swarm.averaging import reduce, states
from swarm.averaging.contribution import encode_parts
from swarm.config import RunConfig
from swarm.errors import SwarmError
from swarm.optim.clip import Pull
from swarm.optim.codec import decode, encode, part_slices
from swarm.records.commitments import parts_root
from swarm.records.types import ContributionContent
from tests.training import swarmlet
from tests.training.swarmlet import Learner, make_config, make_learners

CLAIMED_UNITS = 64
CHANCE = math.log(256)
Attack = Callable[[Sequence[torch.Tensor], torch.Tensor, torch.Generator], torch.Tensor]


def sign_flip(honest: Sequence[torch.Tensor], own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return -20.0 * own


def random_values(honest: Sequence[torch.Tensor], own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(own.shape, generator=generator) * own.std() * 1000.0


def against_the_mean(honest: Sequence[torch.Tensor], own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Inner product manipulation (Xie et al., 2019)."""
    return -2.0 * torch.stack(list(honest)).mean(0)


def a_little_off(honest: Sequence[torch.Tensor], own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A little is enough (Baruch et al., 2019): within the spread of the honest."""
    values = torch.stack(list(honest))
    return values.mean(0) - 1.0 * values.std(0)


def constant(honest: Sequence[torch.Tensor], own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.full_like(own, float(own.abs().mean()) * 1000.0)


def huge(honest: Sequence[torch.Tensor], own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.full_like(own, 8e4)


ATTACKS: dict[str, Attack] = {
    "minus twenty times": sign_flip,
    "random, a thousand times": random_values,
    "against the mean (IPM)": against_the_mean,
    "a little off (ALIE)": a_little_off,
    "constant direction": constant,
    "80,000 everywhere": huge,
}


def believing(norms: Sequence[float], units: Sequence[int], median: float, largest: Sequence[float]) -> Pull:
    """The reference: every word is taken."""
    return Pull(tuple(units), tuple(1.0 if u else 0.0 for u in units), 0.0)


def forged(learner: Learner, work: SignedWork, values: torch.Tensor) -> SignedWork:
    codec = learner.config.codec
    encoded = encode_parts(values, codec.contribution, codec.part_values)
    content = ContributionContent(encoded.leaves, work.content.merges)
    record = replace(work.record, units=CLAIMED_UNITS, parts_root=parts_root(encoded.leaves))
    return SignedWork(record, content, encoded.parts)


def decoded(learner: Learner, work: SignedWork) -> torch.Tensor:
    """fp32 [P]: what everybody else has of a contribution."""
    codec, size = learner.config.codec, learner.lineage.anchor.parameters.numel()
    slices = part_slices(size, codec.part_values)
    return torch.cat([decode(w, s.stop - s.start, codec.contribution) for w, s in zip(work.wires, slices, strict=True)])


def _loss_after(
    directory: Path, peers: int, liars: int, attack: Attack | None, rounds: int, seed: int, speeds: Sequence[int] = ()
) -> float:
    """Held-out loss of the last anchor, nats per byte; inf where it is gone. `speeds`: units of each peer in a round (2)."""
    config = make_config(directory, inner={"batch_size": 4, "warmup_units": 16, "total_units": 4 * peers * rounds})
    line, learners = make_learners(config, directory, peers)
    for number, learner in enumerate(learners):
        learner.account = bytes([number + 1, seed]) + bytes(18)  # samples follow from it
    generator = torch.Generator().manual_seed(seed)
    honest = learners[: peers - liars]
    for _ in range(rounds):
        for number, learner in enumerate(learners):
            learner.units(speeds[number] if speeds else 2)
        works = [learner.contribute() for learner in learners]
        if attack is not None:
            made = [decoded(learner, work) for learner, work in zip(learners, works, strict=True)]
            for number in range(len(honest), peers):
                values = attack(made[: len(honest)], made[number], generator)
                works[number] = forged(learners[number], works[number], values)
        tip = line.certify(works)
        if not bool(torch.isfinite(line.anchor.parameters).all()):
            return math.inf
        for learner in honest:
            learner.merge(tip)
        for learner in learners[len(honest) :]:
            learner.begin(learner.member.next_unit)  # what it sent is not what it has
    model = honest[0].model
    model.flat.copy_(line.anchor.parameters)
    return float(honest[0].task.evaluate(model, 256))


def loss_after(*arguments: Any) -> float:
    try:
        return _loss_after(*arguments)
    except SwarmError:  # nothing finite to average any more
        return math.inf


def loss_with_a_lying_reducer(directory: Path, rounds: int, seed: int, share: float | None) -> tuple[float, int]:
    """Two of four peers average, as drawn; one that lies turns the average of one of its parts around: as long as the true one. `share`
    of the parts is redone, by choices that it cannot foresee (None: it does not lie). The loss, and how many lies were certified."""
    config = make_config(
        directory, inner={"batch_size": 4, "warmup_units": 16, "total_units": 8 * rounds}, codec={"part_values": 2048}
    )
    line, learners = make_learners(config, directory, 4)
    for number, learner in enumerate(learners):
        learner.account = bytes([number + 1, seed]) + bytes(18)
    rng, is_shown, lies = random.Random(seed), False, 0
    honest = states.reduce_part
    num_parts = len(part_slices(line.anchor.parameters.numel(), config.codec.part_values))
    for _ in range(rounds):
        for learner in learners:
            learner.units(2)
        turned = -1
        leads = rng.randrange(4) == 0  # then it draws itself, even when it has been shown
        place = rng.randrange(4)  # among those drawn: 0 and 1 average
        if share is not None and place < 2 and (leads or not is_shown):
            turned = rng.choice(range(place, num_parts, 2))
            others = range(place, num_parts, 2)  # of which its fellow redoes some
            looked_at = rng.sample(others, max(1, math.ceil(share * num_parts / 2))) if share else []
            if turned in looked_at:
                is_shown, turned = True, -1
            lies += turned >= 0

        def reduce(config: RunConfig, index: int, size: int, *rest: Any, turned: int = turned) -> bytes:
            true = honest(config, index, size, *rest)
            codec = config.codec.average
            return encode(-decode(true, size, codec), codec) if index == turned else true

        with mock.patch.object(swarmlet, "reduce_part", reduce):
            tip = line.certify([learner.contribute() for learner in learners])
        for learner in learners:
            learner.merge(tip)
    model = learners[0].model
    model.flat.copy_(line.anchor.parameters)
    return float(learners[0].task.evaluate(model, 256)), lies


def shown(losses: Sequence[float]) -> str:
    middle = statistics.median(losses)
    return "gone" if not middle < CHANCE else f"{middle:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("attack", "peers", "liars", "every word believed", "with the rules", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory() as directory:

        def losses(peers: int, liars: int, attack: Attack | None, *speeds: int) -> list[float]:
            return [
                loss_after(Path(directory), peers, liars, attack, arguments.rounds, seed, speeds)
                for seed in range(arguments.seeds)
            ]

        def row(name: str, peers: int, liars: int, attack: Attack | None, *speeds: int) -> None:
            with mock.patch.object(states, "pull", believing), mock.patch.object(reduce, "MIN_FOR_DIRECTION", 1 << 30):
                before = losses(peers, liars, attack, *speeds)
            table.add_row(name, str(peers), str(liars), shown(before), shown(losses(peers, liars, attack, *speeds)))
            Console(stderr=True).print(f"{name}, {peers} peers, {liars} lying", highlight=False)

        row("nobody lies", 3, 0, None)
        row("nobody lies", 4, 0, None)
        row("nobody lies; 1, 1, 2 and 4 units a round", 4, 0, None, 1, 1, 2, 4)
        for name, attack in ATTACKS.items():
            row(name, 4, 1, attack)
        for name, attack in ATTACKS.items():
            row(name, 7, 2, attack)
    Console(width=120).print(table)
    second = Table("a reducer of four, 50 rounds", "loss", "lies that were certified", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory() as directory:
        for name, share in (("honest", None), ("lies, nobody looks", 0.0), ("lies, a tenth is redone", 0.1)):
            found = [loss_with_a_lying_reducer(Path(directory), 50, seed, share) for seed in range(arguments.seeds)]
            lies = ", ".join(str(count) for _, count in found)
            second.add_row(name, shown([loss for loss, _ in found]), lies)
    Console(width=120).print(second)


if __name__ == "__main__":
    main()
