"""The model that a run starts from, brought by who joins before its own can be built: in a visit of its own, that only asks.

The layout of what is trained is known once the base is there, and with it what rounds, ledger and trainer are made of. So a newcomer
links up, fetches blocks, each checked, and leaves; then it comes as a peer.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from peers.bases import LOCK_SECONDS, cache_root, place_of, trying_alone
from peers.config import PeerConfig
from peers.errors import StartError
from peers.history import WINDOW_EPOCHS
from peers.identity import Identity, recover_account
from peers.invite import Invite
from swarm.checkpoint.bases import BaseFolder, found_base, write_base
from swarm.checkpoint.fetch import fetch_graph
from swarm.checkpoint.store import BlockStore
from swarm.config import Base
from swarm.dht.board import BoardSettings
from swarm.errors import PeerFault, RetryError
from swarm.network import Membership, NetworkSettings, SwarmNetwork
from swarm.records.types import ZERO_HASH, Account, Hash
from swarm.transport.door import Door
from swarm.transport.reach import Reach

SPARE_BYTES = 1 << 20  # of nodes beside the files


class Visitor:
    """Implements `swarm.network.Handler` and its history: it takes nothing and has nothing yet."""

    @property
    def history(self) -> "Visitor":
        return self

    async def on_message(self, sender: Account, data: bytes) -> bool:
        return False

    def on_part(self, sender: Account, header: bytes, payload: bytes) -> None:
        raise RetryError("this peer is not in the run yet")

    def on_link(self, account: Account, flags: int, up: bool) -> None:
        pass

    def on_reach(self, reach: Reach) -> None:
        pass

    def lookup(self, digest: Hash) -> bytes | None:
        return None

    def block(self, digest: Hash) -> bytes | None:
        return None

    def has_block(self, digest: Hash) -> bool:
        return False

    def tip(self) -> tuple[int, Hash]:
        return 0, ZERO_HASH

    def is_member(self, account: Account) -> bool:
        return False

    def summary(self) -> bytes:
        return WINDOW_EPOCHS.to_bytes(8, "big")

    def missing(self, summary: bytes) -> Iterator[bytes]:
        return iter(())

    def current(self) -> Iterable[bytes]:
        return ()


async def here(base: Base, config: PeerConfig) -> BaseFolder | None:
    """What lies in the cache, read whole, if it is the base."""
    return await asyncio.to_thread(found_base, place_of(base, cache_root(config.base_cache)), base)


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    while True:
        with trying_alone(folder) as is_alone:
            if is_alone:
                yield
                return
        await asyncio.sleep(LOCK_SECONDS)


async def visit(
    network: SwarmNetwork, invite: Invite, config: PeerConfig, identity: Identity, door: Door, known: Path
) -> None:
    """Join the run for asking alone."""
    run_id, founders = invite.config.run_id, invite.binding.founders
    presence = BoardSettings(config.presence_renew_seconds, config.presence_expiry_seconds, config.dht_request_seconds)
    await network.join(
        Membership(run_id, identity.account, 0, identity.sign_digest, recover_account, founders),
        Visitor(),
        NetworkSettings(
            known_file=known,
            sync_seconds=config.sync_seconds,
            reach_seconds=config.reach_seconds,
            presence=presence,
            door=door,
        ),
    )


async def bring_base(
    network: SwarmNetwork,
    invite: Invite,
    config: PeerConfig,
    identity: Identity,
    door: Door,
    known: Path,
    on_progress: Callable[[int], None],
) -> BaseFolder:
    """Over `network`, which is joined for this alone and to be closed after. Of several peers of this user one fetches, the others wait
    for it. StartError where the run's base is too large for this peer or no such model; RetryError where nobody has it in time."""
    base = invite.config.task.model.published()
    assert base is not None
    folder = place_of(base, cache_root(config.base_cache))
    if base.size + SPARE_BYTES > config.blocks_quota_bytes:
        raise StartError(
            f"blocks_quota_bytes = {config.blocks_quota_bytes} in peer.toml: the model that this run starts from takes {base.size} bytes; "
            "raise it, or join a smaller run"
        )
    async with _alone(folder):
        found = await here(base, config)
        if found is not None:
            return found
        await visit(network, invite, config, identity, door, known)
        kept = folder.with_name(folder.name + ".blocks")  # a fetch that is broken off goes on from there
        store = BlockStore(kept, config.blocks_quota_bytes + SPARE_BYTES)
        await fetch_graph(
            base.root,
            store,
            network.ask,
            network.donors,
            max_bytes=base.size + (base.size >> 10) + SPARE_BYTES,
            seconds=config.join_timeout_seconds,
            on_progress=on_progress,
        )
        get = store.getter(lambda digest: RetryError(f"block {digest.hex()[:12]} rotted on disk; try again"))
        try:
            made = await asyncio.to_thread(write_base, base, get, folder)
        except PeerFault as error:
            raise StartError(f"{error}; ask the organiser for a new run") from None
        await asyncio.to_thread(shutil.rmtree, kept, ignore_errors=True)
        return made


__all__ = ["bring_base", "here", "visit"]
