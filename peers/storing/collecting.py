"""Data sets of the accounts that a storer's owner names, as linked peers hand them out: heard of, looked at, and kept.

Whose a data set is its manifest says, as who published it says: an account that others name as owner makes a storer keep what they
publish, up to its quota.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pydantic_core import from_json

from peers.datasets import FILE, MAX_BYTES, DataManifest
from peers.storing.drawing import MAX_OBJECTS, StoredObject
from peers.storing.keeper import Links
from swarm.atomic import write_atomically
from swarm.checkpoint.fetch import fetch_graph
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import DAG_PB, cid_text, decode_node, parse_any_cid, read_file
from swarm.errors import DiskError, PeerFault, RetryError, printable
from swarm.records.types import Account, Hash
from swarm.transport.catalogue import Listing

log = logging.getLogger(__name__)
LOOK_SECONDS = 20.0
LOOKED_AT_ONCE = 8  # manifests in one round: strangers name as many as they like
MANIFEST_SECONDS = 30.0
MAX_REMEMBERED = 65536  # data sets of others that were looked at


class Collector:
    """`owners`: "0x…" in small letters. `listings()`: what linked peers say that they have; `file` keeps what was found."""

    def __init__(
        self,
        owners: Collection[str],
        network: Links,
        store: BlockStore,
        listings: Callable[[], Mapping[Account, Listing]],
        file: Path,
    ) -> None:
        self._owners, self._network, self._store = frozenset(owners), network, store
        self._listings, self._file = listings, file
        self._others: dict[Hash, None] = {}  # looked at, and not of these owners
        self.found: dict[Hash, StoredObject] = self._read() if owners else {}

    async def run(self) -> None:
        """Until cancelled. `DiskError` where the disk takes nothing."""
        while self._owners:
            for root, account in self._new()[:LOOKED_AT_ONCE]:
                await self._look(root, account)
            await asyncio.sleep(LOOK_SECONDS)

    def _new(self) -> list[tuple[Hash, Account]]:
        heard = {root: account for account, listing in self._listings().items() for root in listing.published}
        return [pair for pair in heard.items() if pair[0] not in self.found and pair[0] not in self._others]

    async def _look(self, root: Hash, account: Account) -> None:
        try:
            await fetch_graph(
                root,
                self._store,
                self._network.ask,
                lambda: [account, *(other for other in self._network.donors() if other != account)],
                max_bytes=2 * MAX_BYTES,
                seconds=MANIFEST_SECONDS,
                only=[FILE],
            )
            manifest = await asyncio.to_thread(self._manifest, root)
        except DiskError:
            raise
        except (RetryError, PeerFault, TimeoutError) as error:
            log.info("%s: not looked at: %s", cid_text(root), error)
            self._forget(root)
            return
        if self._owners.isdisjoint(owner.account for owner in manifest.owners) or len(self.found) >= MAX_OBJECTS:
            self._forget(root)
            return
        name = printable(manifest.name, 60)
        log.info("data set %s (%s) is kept: it names an owner that this storer collects", name, cid_text(root))
        self.found[root] = StoredObject(root, DAG_PB, manifest.size_bytes() + MAX_BYTES, root, name, is_pinned=True)
        await asyncio.to_thread(self._keep)

    def _forget(self, root: Hash) -> None:
        """It is not looked at again soon; its blocks go with the next sweep."""
        self._others[root] = None
        while len(self._others) > MAX_REMEMBERED:
            del self._others[next(iter(self._others))]

    def _manifest(self, root: Hash) -> DataManifest:
        get = self._store.getter(lambda digest: RetryError(f"block {digest.hex()[:12]} rotted on disk"))
        link = next((each for each in decode_node(get(root)).links if each.name == FILE), None)
        if link is None:
            raise PeerFault("it has no manifest")
        return DataManifest.parse(read_file(link, get, MAX_BYTES))

    def _keep(self) -> None:
        rows = [[cid_text(item.root), item.num_bytes, item.name] for item in self.found.values()]
        try:
            write_atomically(self._file, json.dumps(rows).encode())
        except OSError as error:
            log.warning("%s: cannot be written (%s)", self._file, error.strerror)

    def _read(self) -> dict[Hash, StoredObject]:
        """What cannot be read is heard of again."""
        try:
            rows = from_json(self._file.read_bytes())
            return {item.root: item for item in map(_item, rows)}
        except (OSError, ValueError, TypeError, IndexError):
            return {}

    def pins(self) -> Sequence[StoredObject]:
        return list(self.found.values())


def _item(row: object) -> StoredObject:
    cid, size, name = row if isinstance(row, list) and len(row) == 3 else ("", 0, "")
    root, codec = parse_any_cid(str(cid))
    return StoredObject(root, codec, int(size), root, str(name), is_pinned=True)


__all__ = ["Collector"]
