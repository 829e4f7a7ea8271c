"""Looks at a peer from outside: dials an address as a stranger would and waits for an answer of the peer's own process.

A daemon that has a connection to a peer opens every stream over it and dials no more, so each look takes a daemon of its own
for the second that it lasts (libp2p's AutoNAT does the same).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.errors import SwarmError
from swarm.transport.addresses import endpoint_of, peer_id_of
from swarm.transport.node import Node

log = logging.getLogger(__name__)
TCP_SECONDS = 3.0  # without an answer to SYN there is nothing to be started for
CONNECT_SECONDS = 8.0
MOST = 4  # addresses of one peer
AT_ONCE, FOR_STRANGERS = 2, 1  # looks for members, and for all others: each is a process


class Dialer:
    """`key`: file for the identity that is shown to the peers looked at, made anew. `startup_timeout_seconds`: for a daemon on a
    slow machine. `close` (idempotent) when nobody looks any more."""

    def __init__(self, key: Path, startup_timeout_seconds: float = 120.0) -> None:
        self._key, self._startup = key, startup_timeout_seconds
        self._turns = {True: asyncio.Semaphore(AT_ONCE), False: asyncio.Semaphore(FOR_STRANGERS)}
        self.close()

    def close(self) -> None:
        self._key.unlink(missing_ok=True)

    async def answering(self, addresses: Sequence[str], found: Callable[[str], None], for_member: bool = True) -> None:
        """`found` is told each of the complete addresses at which the peer that it names answers, as soon as it does. One that
        does not answer is no error. Of those that take a connection at all the first `MOST` are tried. May be cancelled. Strangers
        wait for each other: an address that takes a connection and says nothing lasts long."""
        takes = await asyncio.gather(*map(_takes_connections, addresses))
        open_here = [address for address, is_open in zip(addresses, takes, strict=True) if is_open]
        await asyncio.gather(*(self._try(address, found, for_member) for address in open_here[:MOST]))

    async def _try(self, address: str, found: Callable[[str], None], for_member: bool) -> None:
        async with self._turns[for_member]:
            if await self._look(address):
                found(address)

    async def _look(self, address: str) -> bool:
        peer_id = peer_id_of(address)
        if peer_id is None:
            return False
        try:
            async with await Node.open(self._key, client_mode=True, startup_timeout_seconds=self._startup) as node:
                await node.connect([address], CONNECT_SECONDS)
                return await node.ask_whether_here(peer_id)
        except (SwarmError, OSError) as error:
            log.debug("%s: %s", address, error)
            return False


async def _takes_connections(address: str) -> bool:
    endpoint = endpoint_of(address)
    if endpoint is None:
        return False
    try:
        async with asyncio.timeout(TCP_SECONDS):
            _, writer = await asyncio.open_connection(*endpoint)
    except (OSError, TimeoutError, UnicodeError):
        return False
    writer.close()
    return True
