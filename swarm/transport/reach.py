"""Where this peer is reached from outside, by the word of others that dialled it. Pure; `reaching` asks them.

Only what answered is told to the swarm, and only who is reached reduces and witnesses: a reducer that nobody can reach costs
everybody an attempt, and a peer that nobody can reach is as well off as a client.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from swarm.transport.addresses import Scope, best_addresses, endpoint_of, scope_of
from swarm.transport.dialback import Answer


@dataclass(frozen=True, slots=True)
class Reach:
    """`addresses`: those that answered somebody, the best first. `asked`: peers that gave an answer, `reached_by` so many of
    them got through. `silent`: what the owner announces and nobody got through at. Before anybody was asked all is empty."""

    addresses: tuple[str, ...] = ()
    asked: int = 0
    reached_by: int = 0
    silent: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return self.asked > 0

    @property
    def is_reachable(self) -> bool:
        """By at least half of those that tried: one neighbour in the same house does not make a reducer for all, and one
        liar among several does not unmake one."""
        return self.reached_by > 0 and 2 * self.reached_by >= self.asked


def judge(answers: Sequence[Answer], announced: Collection[str], bridges: Collection[str] = ()) -> Reach:
    """What follows from the answers of one look."""
    found = {address for answer in answers for address in answer.answered}
    reached_by = sum(1 for answer in answers if answer.answered)
    return Reach(
        best_addresses(sorted(found), bridges),
        len(answers),
        reached_by,
        tuple(a for a in announced if a not in found) if answers else (),
    )


def further_candidates(addresses: Sequence[str], seen: Collection[str], port: int, peer_id: str) -> tuple[str, ...]:
    """Addresses worth asking about besides `addresses`: the own port at the outside addresses that others see. A router may
    forward it, a cloud machine does not know its public address."""
    known = {endpoint_of(address) for address in addresses}
    found = []
    for host in sorted(set(seen)):
        address = f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}/p2p/{peer_id}"
        if scope_of(address) is Scope.PUBLIC and (host, port) not in known and endpoint_of(address) is not None:
            found.append(address)
    return tuple(found)


def whom_to_ask(linked: Mapping[str, int], asked: Collection[str], most: int) -> list[str]:
    """Peer ids of `linked` (peer id → how much its word counts) to ask next: who counts most first, those not asked yet before
    the others."""
    return sorted(linked, key=lambda p: (p in asked, -linked[p], p))[:most]


__all__ = ["Reach", "further_candidates", "judge", "whom_to_ask"]
