"""How a storer comes into its run's swarm: a first look for what the state machine has to know, then as a peer."""

import contextlib
from collections.abc import Callable
from typing import Protocol

from pydantic_core import from_json

from peers.config import PeerConfig
from peers.directory import PeerDirectory
from peers.history import LedgerHistory
from peers.identity import Identity, recover_account
from peers.invite import Invite
from peers.laying_in import visit
from peers.listening import open_network
from peers.storing.books import StorerBooks
from swarm.checkpoint.fetch import fetch_graph
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import decode_node, read_file
from swarm.dht.board import BoardSettings
from swarm.errors import PeerFault, RetryError
from swarm.network import Membership, NetworkSettings, SwarmNetwork
from swarm.records.types import FLAG_STORES, Account, Hash
from swarm.transport.catalogue import Listing
from swarm.transport.door import Door
from swarm.transport.reach import Reach

MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 20
MAX_VALUES = 1 << 42


class Shelf(Protocol):
    """What is handed out besides what the store holds."""

    def get(self, digest: Hash) -> bytes | None: ...


class Reactions:
    """Implements `swarm.network.Handler` for a storer."""

    def __init__(self, books: StorerBooks, store: BlockStore, proofs: Shelf, on_reach: Callable[[Reach], None]) -> None:
        self._books, self._store, self._proofs, self._on_reach = books, store, proofs, on_reach
        self.history: LedgerHistory = books.history
        self._members: tuple[Hash, set[Account]] | None = None  # at which tip, and who

    async def on_message(self, sender: Account, data: bytes) -> bool:
        await self._books.books.room()
        return await self._books.follower.on_message(sender, data)

    def on_part(self, sender: Account, header: bytes, payload: bytes) -> None:
        raise PeerFault("a part, to who reduces nothing")

    def on_reach(self, reach: Reach) -> None:
        self._on_reach(reach)

    def on_link(self, account: Account, flags: int, up: bool) -> None:
        self._books.follower.on_link(account, flags, up)

    def lookup(self, digest: Hash) -> bytes | None:
        return None

    def block(self, digest: Hash) -> bytes | None:
        return self._proofs.get(digest) or self._store.get(digest)

    def has_block(self, digest: Hash) -> bool:
        return self._proofs.get(digest) is not None or self._store.has(digest)

    def tip(self) -> tuple[int, Hash]:
        return self._books.tip()

    def is_member(self, account: Account) -> bool:
        """Voters, and whoever had a contribution certified of late; new only with a new tip."""
        machine = self._books.machine
        if self._members is None or self._members[0] != machine.tip:
            self._members = machine.tip, {*machine.voters(), *machine.lineage.recent(machine.tip)}
        return account in self._members[1]


def values_in(root: Hash, store: BlockStore) -> int | None:
    """Of the initial anchor, as its manifest says; None where that is not here. `PeerFault` where it is none."""
    data = store.get(root)
    if data is None:
        return None
    link = next((each for each in decode_node(data).links if each.name == MANIFEST), None)
    if link is None:
        raise PeerFault("the run's initial anchor has no manifest")

    def absent(digest: Hash) -> Exception:
        return RetryError(f"block {digest.hex()[:12]} is not here")

    try:
        text = read_file(link, store.getter(absent), MANIFEST_BYTES)
        found = from_json(text)["num_parameters"]
    except RetryError:
        return None
    except (ValueError, TypeError, KeyError):
        raise PeerFault("the manifest of the run's initial anchor cannot be read") from None
    if type(found) is not int or not 0 < found < MAX_VALUES:
        raise PeerFault("the manifest of the run's initial anchor names no number of values")
    return found


def anchor_blocks(root: Hash, store: BlockStore) -> list[Hash]:
    """Those of the initial anchor that a storer keeps, to start again without asking anybody."""
    data = store.get(root)
    links = () if data is None else decode_node(data).links
    return [root, *(link.digest for link in links if link.name == MANIFEST)]


async def find_num_values(
    directory: PeerDirectory,
    config: PeerConfig,
    identity: Identity,
    invite: Invite,
    store: BlockStore,
    door: Door,
    on_network: Callable[[SwarmNetwork], None],
) -> int:
    """How many values the run's model has: what comes in a round is judged by it. It stands in the initial anchor, of which two small
    blocks are fetched, once, in a visit that only asks. `RetryError` where nobody has them in time."""
    root = bytes.fromhex(invite.config.initial_root)
    found = values_in(root, store)
    if found is not None:
        return found
    async with contextlib.AsyncExitStack() as stack:
        network = await open_network(directory, config, invite.binding.bootstrap, SwarmNetwork)
        stack.push_async_callback(network.close)
        on_network(network)
        await visit(network, invite, config, identity, door, directory.known)
        await fetch_graph(
            root,
            store,
            network.ask,
            network.donors,
            max_bytes=4 * MANIFEST_BYTES,
            seconds=config.join_timeout_seconds,
            only=[MANIFEST],
        )
    found = values_in(root, store)
    if found is None:
        raise RetryError("the manifest of the run's initial anchor rotted on this disk; try again")
    return found


async def join(
    network: SwarmNetwork,
    directory: PeerDirectory,
    config: PeerConfig,
    identity: Identity,
    invite: Invite,
    reactions: Reactions,
    door: Door,
    listing: Callable[[], Listing],
) -> None:
    """The network takes part in the run from now on."""
    presence = BoardSettings(config.presence_renew_seconds, config.presence_expiry_seconds, config.dht_request_seconds)
    run_id, founders = invite.config.run_id, invite.binding.founders
    await network.join(
        Membership(run_id, identity.account, FLAG_STORES, identity.sign_digest, recover_account, founders),
        reactions,
        NetworkSettings(
            known_file=directory.known,
            sync_seconds=config.sync_seconds,
            reach_seconds=config.reach_seconds,
            presence=presence,
            door=door,
            strangers_bytes_per_day=config.strangers_bytes_per_day,
            upload_bytes_per_day=config.upload_bytes_per_day,
            listing=listing,
        ),
    )


__all__ = ["Reactions", "Shelf", "anchor_blocks", "find_num_values", "join", "values_in"]
