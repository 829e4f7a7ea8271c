"""Keeps up to date where this peer is reached (`reach`): asks linked peers at the start, on a change, and every some minutes."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from swarm.errors import PeerFault, RetryError
from swarm.transport.dialback import Answer, DialBack
from swarm.transport.interfaces import bridge_addresses
from swarm.transport.node import Node
from swarm.transport.reach import Reach, further_candidates, judge, whom_to_ask

log = logging.getLogger(__name__)
ASKED_AT_ONCE = 2
ENOUGH = 3  # words of others to go by
LOOK_SECONDS, FIRST_LOOK_SECONDS = 5.0, 0.5  # how often it is seen whether something changed
AGAIN_SECONDS = 3.0  # at least between two times that others are asked


class Reaching:
    """`linked()`: peer id → how much its word counts, of those that can be asked. `on_reach` gets every change, in the loop."""

    def __init__(
        self,
        node: Node,
        dialback: DialBack,
        linked: Callable[[], Mapping[str, int]],
        on_reach: Callable[[Reach], None],
        every_seconds: float,
    ) -> None:
        self.node, self._dialback, self._linked, self._on_reach = node, dialback, linked, on_reach
        self._every = every_seconds
        self.reach = Reach()
        self.known = asyncio.Event()  # somebody has answered, or there is nothing to ask about
        self._changed = asyncio.Event()
        self._answers: dict[str, Answer] = {}
        self._asked_about: tuple[str, ...] = ()
        self._asked_at = float("-inf")

    def changed(self) -> None:
        """A link came up, say: there may be something new to learn."""
        self._changed.set()

    async def run(self) -> None:
        """Until it is cancelled; at once in client mode."""
        while True:
            self._changed.clear()
            await self._look_at_interfaces()
            candidates = self.node.addresses()
            if not candidates:
                self.known.set()
                return
            linked = self._linked()
            if linked and self._is_due(candidates, linked):
                await self._ask_about(candidates, linked)
            try:
                async with asyncio.timeout(LOOK_SECONDS if self.reach.is_known else FIRST_LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(0.1)  # several links may come up at once

    def _is_due(self, candidates: tuple[str, ...], linked: Mapping[str, int]) -> bool:
        since = asyncio.get_running_loop().time() - self._asked_at
        if since < AGAIN_SECONDS:
            return False
        is_new = candidates != self._asked_about or not self.reach.is_known
        is_unsure = len(self._answers) < ENOUGH or not self.reach.is_reachable
        return is_new or (is_unsure and bool(linked.keys() - self._answers.keys())) or since >= self._every

    async def _look_at_interfaces(self) -> None:
        try:
            await self.node.look_at_interfaces()
        except RetryError as error:  # whether the daemon lives is watched elsewhere
            log.debug("interfaces not read: %s", error)

    async def _ask_about(self, candidates: tuple[str, ...], linked: Mapping[str, int]) -> None:
        if candidates != self._asked_about:
            self._answers.clear()
        self._asked_about, self._asked_at = candidates, asyncio.get_running_loop().time()
        who = whom_to_ask(linked, self._answers, ASKED_AT_ONCE)
        new = await self._ask(who, candidates)
        more = further_candidates(candidates, [a.seen for a in new.values()], self.node.port, self.node.peer_id)
        if more:
            for peer_id, answer in (await self._ask(list(new), more)).items():
                new[peer_id] = Answer(new[peer_id].answered + answer.answered, answer.seen)
        still = self._linked()
        self._answers = {p: a for p, a in self._answers.items() if p in still} | new
        if not self._answers:
            return
        reach = judge(list(self._answers.values()), self.node.announced, bridge_addresses())
        self.known.set()
        if reach != self.reach:
            where = ", ".join(reach.addresses) or "no address"
            log.info("%d of %d that were asked reach this peer, at %s", reach.reached_by, reach.asked, where)
            self.reach = reach
            self._on_reach(reach)

    async def _ask(self, who: list[str], addresses: tuple[str, ...]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}

        async def ask(peer_id: str) -> None:
            try:
                found[peer_id] = await self._dialback.ask(peer_id, addresses)
            except (RetryError, PeerFault) as error:
                log.info("%s does not dial back: %s", peer_id[:12], error)

        await asyncio.gather(*(ask(peer_id) for peer_id in who))
        return found


__all__ = ["Reaching"]
