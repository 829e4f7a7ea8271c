"""The tensors of a round: parts are averaged, averages of others redone, and the next state follows from all of them.

Failure semantics: what cannot be had in time is given up with a word in the log, and the attempt runs into its time-out; what cannot be
true is handed to the machine, which has it redone.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from swarm import events
from swarm.averaging.delivery import Delivery
from swarm.averaging.reception import Reception
from swarm.averaging.states import BrokenAverages, Making, States, longest_averages, pulls, reduce_part
from swarm.checkpoint.anchor import Anchor, anchor_root
from swarm.config import RunConfig
from swarm.consensus.actions import Action, Expose, FetchAverages, Recheck, Redo, ReduceSet
from swarm.consensus.machine import RoundMachine
from swarm.optim.clip import Pull
from swarm.records.types import Account, ContributionContent, ContributorLeaf, Hash, SignedSet
from swarm.records.units import total_units

log = logging.getLogger(__name__)


class Averages:
    """Of one peer; everything runs in the driver's loop but for the tensors, which have a worker of their own. `act` carries out what
    the machine asks for, `blame` counts a fault."""

    def __init__(
        self,
        config: RunConfig,
        machine: RoundMachine,
        states: States,
        reception: Reception,
        delivery: Delivery,
        act: Callable[[Sequence[Action]], None],
        blame: Callable[[Account, str], None],
        emit: Callable[[events.Event], None],
    ) -> None:
        self.config, self.machine, self.states = config, machine, states
        self.reception, self.delivery, self._act = reception, delivery, act
        self._blame, self._emit = blame, emit
        self._pool = ThreadPoolExecutor(1, "averaging")
        self._choice = random.SystemRandom()  # who is checked must not be foreseen

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _contents(self, leaves: Sequence[ContributorLeaf]) -> list[ContributionContent] | None:
        """Of the contributions of a set; None when one is not known here."""
        if any(leaf.contribution not in self.reception for leaf in leaves):
            log.warning("a set names a contribution that is not known here")
            return None
        return [self.reception.content(leaf.contribution) for leaf in leaves]

    def _pulls(self, proposal: SignedSet, contents: Sequence[ContributionContent]) -> Pull:
        before = self.machine.lineage[proposal.record.prev_certificate]
        return pulls(
            self.config,
            proposal.content.contributors,
            contents,
            before.body.median_norm,
            before.certificate.cumulative_units,
            self.reception.slices[-1].stop,
        )

    async def reduce(self, action: ReduceSet) -> None:
        """The own parts."""
        reducers, me = action.proposal.content.reducers, self.machine.account
        if me in reducers:
            await self._average(action.proposal, range(reducers.index(me), len(self.reception.slices), len(reducers)))

    async def recheck(self, action: Recheck) -> None:
        """Some parts of others."""
        reducers, me = action.proposal.content.reducers, self.machine.account
        others = [i for i in range(len(self.reception.slices)) if reducers[i % len(reducers)] != me]
        await self._average(action.proposal, self._choice.sample(others, min(action.count, len(others))))

    async def _average(self, proposal: SignedSet, indices: Sequence[int]) -> None:
        contents = self._contents(proposal.content.contributors)
        if contents is None:
            return
        pull = self._pulls(proposal, contents)
        for index in indices:
            data = await self._redone(proposal, index, contents, pull)
            if data is None:
                return
            digest = self.reception.parts.put(data)
            self._act(self.machine.averaged(proposal, index, len(data), digest))

    async def _redone(
        self, proposal: SignedSet, index: int, contents: Sequence[ContributionContent], pull: Pull
    ) -> bytes | None:
        """The encoded average of one part; None where not all of it could be had in time."""
        digests = [content.parts[index].digest for content in contents]
        holders = [leaf.peer for leaf in proposal.content.contributors]
        wires = await self.delivery.gather(digests, holders)  # of the own parts all are here, unless memory was short
        if wires is None:
            return None
        where = self.reception.slices[index]
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, reduce_part, self.config, index, where.stop - where.start, contents, wires, pull
        )

    async def redo(self, action: Redo) -> None:
        """A part on which reducers differ."""
        contents = self._contents(action.proposal.content.contributors)
        if contents is None:
            return
        pull = self._pulls(action.proposal, contents)
        data = await self._redone(action.proposal, action.part, contents, pull)
        if data is not None:
            digest = self.reception.parts.put(data)
            self._act(self.machine.redone(action.proposal, action.part, len(data), digest))

    def expose(self, action: Expose) -> None:
        """Somebody signed a wrong average: the proof goes to the events, a fault is counted."""
        record = action.average.record
        self._blame(action.average.signer, f"average of part {record.part}: not what the set's contributions give")
        self._emit(events.WrongAverage(action.proposal, action.average, action.digest))

    async def prepare(self, action: FetchAverages) -> None:
        """Get every average of the set, take the outer step, tell the machine the certificate that follows."""
        proposal = action.proposal
        leaves, prev = proposal.content.contributors, proposal.record.prev_certificate
        anchor, contents = self.states.get(prev), self._contents(leaves)
        if anchor is None or contents is None:
            return
        digests: list[Hash] = [digest for digest, _ in action.averages]
        holders = [holder for _, holder in action.averages]
        pull = self._pulls(proposal, contents)
        units = total_units(leaves, self.config.rounds.max_units_per_contribution)
        longest = longest_averages(self.config, contents, pull, [s.stop - s.start for s in self.reception.slices])
        made = await self._made(self.states.begin(anchor, leaves, longest), proposal, digests, holders)
        if made is None:
            return
        new, root = made
        actions, identity = self.machine.prepared(proposal, tuple(digests), pull.factors, pull.median, root, units)
        self.states.prepare(identity, prev, new)
        self._act(actions)

    async def _made(
        self, making: Making, proposal: SignedSet, digests: Sequence[Hash], holders: Sequence[Account]
    ) -> tuple[Anchor, Hash] | None:
        """The state that follows and its root, each part worked on while others are still on their way; None where some did not come, or
        were broken."""
        loop = asyncio.get_running_loop()
        steps: list[asyncio.Future[None]] = []
        try:
            data = await self.delivery.gather(
                digests,
                holders,
                lambda who: self._act(self.machine.withheld(proposal, who)),
                lambda index, part: steps.append(loop.run_in_executor(self._pool, making.add, index, part)),
            )
            await asyncio.gather(*steps)
            if data is None:
                return None
            new = await loop.run_in_executor(self._pool, making.made, data)
            return new, await loop.run_in_executor(self._pool, anchor_root, new)
        except BrokenAverages as error:
            self._act(self.machine.broken(proposal, error.parts))
            return None
        finally:
            making.put_off()


__all__ = ["Averages"]
