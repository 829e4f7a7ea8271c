"""A peer that speaks the whole protocol and bends the model: `attack` in its directory (read each time) says how."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from swarm.averaging import driver
from swarm.averaging.averages import Averages
from swarm.averaging.contribution import encode_parts
from swarm.averaging.member import Boundary
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.consensus.roster import Roster
from swarm.consensus.round import Round
from swarm.optim.clip import Pull
from swarm.optim.codec import decode, encode, part_slices
from swarm.records.types import Account, ContributionContent, SignedSet
from swarm.train import Trainer
from tests.faults.runner import FaultyPeer, HostileNetwork

CLAIMED_UNITS = 64


class BendingAverages(Averages):
    """As a reducer it signs averages that are none, of its own parts and of those of others that it looks at."""

    def __init__(self, config: RunConfig, machine: RoundMachine, *others: Any) -> None:
        super().__init__(config, machine, *others)
        honest = Roster.draw_reducers

        def draw(roster: Roster, r: Round, most: int) -> tuple[Account, ...]:
            """Where it leads: nobody else averages."""
            return (machine.account,) if HostileNetwork.breaks("draws itself") else honest(roster, r, most)

        Roster.draw_reducers = draw  # type: ignore[method-assign]

    async def _redone(
        self, proposal: SignedSet, index: int, contents: Sequence[ContributionContent], pull: Pull
    ) -> bytes | None:
        true = await super()._redone(proposal, index, contents, pull)
        where, codec = self.reception.slices[index], self.config.codec.average
        size = where.stop - where.start
        if true is None:
            return None
        if HostileNetwork.breaks("a million"):
            return encode(torch.full((size,), 1e6), codec)
        if HostileNetwork.breaks(
            "turned average", "draws itself"
        ):  # as long as the true one: no bound on its length finds it
            return encode(-decode(true, size, codec), codec)
        return true


class BendingTrainer(Trainer):
    """It commits, consistently, to values and units that it has not."""

    async def boundary(self, prev_certificate: Any, seconds: float) -> Boundary | None:
        made = await super().boundary(prev_certificate, seconds)
        codec = self.config.codec
        if made is None or not HostileNetwork.breaks("minus twenty", "everywhere", "claims"):
            return made
        slices = part_slices(self.model.flat.numel(), codec.part_values)
        parts = zip(made.parts, slices, strict=True)
        values = torch.cat([decode(part, s.stop - s.start, codec.contribution) for part, s in parts])
        if HostileNetwork.breaks("minus twenty"):
            values = values * -20.0
        elif HostileNetwork.breaks("everywhere"):
            values = torch.full_like(values, 8e4)
        encoded = encode_parts(values, codec.contribution, codec.part_values)
        return replace(made, units=CLAIMED_UNITS, parts=encoded.parts, leaves=encoded.leaves)


class BendingPeer(FaultyPeer):
    network_type = HostileNetwork
    trainer_type = BendingTrainer

    def __init__(self, *arguments: Any) -> None:
        driver.Averages = BendingAverages  # type: ignore[attr-defined, misc]
        super().__init__(*arguments)
