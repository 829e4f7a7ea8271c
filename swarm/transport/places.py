"""Whose streams are served: places of members that nobody else can take, and few others for all strangers, in fair shares. Pure.

An identity costs nothing, an address costs something. So where the strangers' places are full, who comes displaces a stream of
the network address with the most of them, and at that address of the identity with the most: whoever holds many never keeps out
who holds none. Where all hold as much, it displaces the oldest stream that has said nothing. Members share their places in the same
way, by identity.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from swarm.transport.addresses import host_of

MAX_STREAMS, MAX_STREAMS_PER_PEER = 256, 16  # of members served at once, per protocol
MAX_STRANGER_STREAMS, MAX_STREAMS_PER_STRANGER = 48, 4  # of all others
OPENINGS_PER_SECOND, OPENINGS_AT_ONCE = 2.0, 32.0  # of one stranger, over all protocols
MAX_OPENERS = 1024


def network_of(address: str) -> str:
    """What one machine has one of: the IPv4 address of a multiaddr, the /64 of an IPv6 address. Empty where it has none."""
    host = host_of(address) or ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host
    if ip.version == 4:
        return host
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.ipv4_mapped is None else str(ip.ipv4_mapped)


@dataclass(eq=False, slots=True)
class Place:
    """Of one stream. `give_up` closes it; it is called once somebody else has the place. `has_spoken`: a whole frame has come."""

    peer_id: str
    network: str
    is_member: bool
    give_up: Callable[[], None]
    has_spoken: bool = False


class Places:
    """Of one protocol."""

    def __init__(self, of_members: int = MAX_STREAMS, of_strangers: int = MAX_STRANGER_STREAMS) -> None:
        self._most = {True: of_members, False: of_strangers}
        self._held: dict[bool, dict[Place, None]] = {True: {}, False: {}}  # the oldest first

    def take(self, place: Place) -> bool:
        """Whether the stream is served. A place that somebody else had more of is taken from it."""
        held = self._held[place.is_member]
        own = sum(each.peer_id == place.peer_id for each in held)
        if own >= (MAX_STREAMS_PER_PEER if place.is_member else MAX_STREAMS_PER_STRANGER):
            return False
        if len(held) >= self._most[place.is_member]:
            loser = self._richest(place, own) or next((each for each in held if not each.has_spoken), None)
            if loser is None:
                return False
            del held[loser]
            loser.give_up()
        held[place] = None
        return True

    def free(self, place: Place) -> None:
        """The stream has ended, or is counted elsewhere; also what was given up."""
        self._held[place.is_member].pop(place, None)

    def num_held(self, is_member: bool) -> int:
        return len(self._held[is_member])

    def _richest(self, place: Place, own: int) -> Place | None:
        """The oldest place of whoever has the most, if it has more than the newcomer will have."""
        held = self._held[place.is_member]
        if not place.is_member:
            networks = Counter(each.network for each in held)
            network, most = networks.most_common(1)[0]
            if most > networks[place.network] + 1:
                peers = Counter(each.peer_id for each in held if each.network == network)
                richest = peers.most_common(1)[0][0]
                return next(each for each in held if each.peer_id == richest and each.network == network)
            held = {each: None for each in held if each.network == place.network}
        richest, most = Counter(each.peer_id for each in held).most_common(1)[0] if held else ("", 0)
        return next(each for each in held if each.peer_id == richest) if most > own + 1 else None


class Openings:
    """How often strangers open streams: each has an allowance, which grows with time. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._allowed: dict[str, tuple[float, float]] = {}  # peer id → (openings, when)

    def may_open(self, peer_id: str) -> bool:
        now = self._clock()
        allowance, when = self._allowed.pop(peer_id, (OPENINGS_AT_ONCE, now))
        allowance = min(OPENINGS_AT_ONCE, allowance + (now - when) * OPENINGS_PER_SECOND) - 1.0
        self._allowed[peer_id] = max(allowance, -1.0), now
        while len(self._allowed) > MAX_OPENERS:
            del self._allowed[next(iter(self._allowed))]
        return allowance >= 0.0


__all__ = ["Openings", "Place", "Places", "network_of"]
