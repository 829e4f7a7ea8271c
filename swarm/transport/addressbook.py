"""Who could be linked and where: bounded, by how it was learnt, with the pause before the next try. Pure: the clock is given.

Anyone may tell us of peers. What the invite names is never forgotten; what was linked, or signed its own presence, outranks
hearsay; each teller may fill only so much; an address that leads nowhere is forgotten. So junk costs a few failed tries.
"""

import json
import logging
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from pydantic_core import from_json

from swarm.atomic import write_atomically
from swarm.transport.addresses import MAX_ADDRESSES, addresses_of, is_peer_id, peer_id_of

log = logging.getLogger(__name__)
MAX_ENTRIES = 512
MAX_PER_TELLER = 32
MAX_SAVED = 64
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 30.0


class Source(IntEnum):
    """How an address was learnt; a higher one replaces a lower one."""

    HEARSAY = 0
    PRESENCE = 1
    LINKED = 2
    INVITE = 3


_TRIES = {Source.HEARSAY: 4, Source.PRESENCE: 8, Source.LINKED: 60}


@dataclass
class AddressEntry:
    addresses: tuple[str, ...]
    source: Source
    teller: str
    account: bytes = b""  # that its hello or presence was signed by
    failures: int = 0
    retry_at: float = 0.0
    linked_at: float = 0.0  # wall clock of the last link; 0: never


class AddressBook:
    """Peer id → entry. `own` is never listed."""

    def __init__(self, own: str) -> None:
        self.own = own
        self._writing = threading.Lock()
        self.entries: dict[str, AddressEntry] = {}

    def add(
        self, peer_id: object, addresses: Iterable[object], source: Source, teller: str = "", account: bytes = b""
    ) -> bool:
        """Learn of a peer; False if it was refused: malformed, an address of another peer, known better, too many.

        `account` signed it. Who moved is followed by its presence, but nobody else's presence can move it."""
        if not isinstance(peer_id, str) or peer_id == self.own or not is_peer_id(peer_id):
            return False
        checked = addresses_of(peer_id, addresses)
        if not checked:
            return False
        old = self.entries.get(peer_id)
        if old is not None:
            if source == Source.HEARSAY or (source == Source.PRESENCE and old.account not in (b"", account)):
                return False
            source = max(source, old.source)
            if source == Source.INVITE:  # all that was ever said: it may have moved, or not yet
                checked = tuple(dict.fromkeys((*checked, *old.addresses)))[:MAX_ADDRESSES]
            if old.addresses != checked:
                old.failures, old.retry_at = 0, 0.0
            old.addresses, old.source, old.account = checked, source, account or old.account
            return True
        if source == Source.HEARSAY and (
            sum(e.teller == teller and e.source == source for e in self.entries.values()) >= MAX_PER_TELLER
        ):
            return False
        if len(self.entries) >= MAX_ENTRIES and not self._make_room(source):
            return False
        self.entries[peer_id] = AddressEntry(checked, source, teller, account)
        return True

    def add_invited(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self.add(peer_id_of(address), [address], Source.INVITE)

    def _make_room(self, source: Source) -> bool:
        worst = min(self.entries, key=lambda p: (self.entries[p].source, -self.entries[p].failures))
        if self.entries[worst].source > source or self.entries[worst].source == Source.INVITE:
            return False
        if self.entries[worst].source == source and not self.entries[worst].failures:
            return False
        del self.entries[worst]
        return True

    def due(self, now: float, busy: Iterable[str], most: int) -> list[str]:
        """Whom to try now, the best known first."""
        skip = set(busy)
        found = [p for p, e in self.entries.items() if p not in skip and now >= e.retry_at]
        return sorted(found, key=lambda p: (self.entries[p].failures, -self.entries[p].source))[: max(most, 0)]

    def failed(self, peer_id: str, now: float) -> None:
        """A try came to nothing: the next one later (with jitter, so that a mended network is not stormed), or never."""
        entry = self.entries.get(peer_id)
        if entry is None:
            return
        entry.failures += 1
        if entry.failures >= _TRIES.get(entry.source, 1 << 30):
            del self.entries[peer_id]
            return
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(entry.failures - 1, 10))
        entry.retry_at = now + pause * random.uniform(0.75, 1.25)

    def linked(self, peer_id: str, addresses: Iterable[object], account: bytes, wall_clock: float) -> None:
        """A link is up and the peer itself named its addresses (none: it is in client mode)."""
        self.add(peer_id, addresses, Source.LINKED, account=account)
        if peer_id in self.entries:
            self.entries[peer_id].linked_at = wall_clock

    def proven(self, peer_id: str) -> None:
        """The link lasted: earlier failures are forgiven."""
        if peer_id in self.entries:
            self.entries[peer_id].failures, self.entries[peer_id].retry_at = 0, 0.0

    def share(self, most: int) -> list[tuple[str, tuple[str, ...]]]:
        """What others are told: only peers that were linked, the newest first."""
        proven = [(p, e) for p, e in self.entries.items() if e.linked_at]
        proven.sort(key=lambda item: -item[1].linked_at)
        return [(p, e.addresses) for p, e in proven[:most]]

    def packed(self) -> bytes:
        """The newest proven peers, for the next start."""
        value = [
            {
                "peer_id": p,
                "account": self.entries[p].account.hex(),
                "addresses": list(a),
                "linked_at": self.entries[p].linked_at,
            }
            for p, a in self.share(MAX_SAVED)
        ]
        return (json.dumps({"peers": value}, indent=1) + "\n").encode()

    def write(self, path: Path, packed: bytes) -> None:
        """What `packed` gave; from any thread. Atomically; a full disk is no reason to stop."""
        try:
            with self._writing:
                write_atomically(path, packed)
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error.strerror)

    def load(self, path: Path) -> int:
        """Peers of the last run of this process; how many. A damaged file is as good as none."""
        try:
            found = 0
            for item in from_json(path.read_bytes()[: 1 << 20])["peers"][:MAX_SAVED]:
                account = bytes.fromhex(item["account"])
                if self.add(item["peer_id"], item["addresses"], Source.LINKED, account=account):
                    self.entries[item["peer_id"]].linked_at = float(item["linked_at"])
                    found += 1
            return found
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
            log.warning("%s cannot be read (%s): starting without it", path, error)
            return 0
