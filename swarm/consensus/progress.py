"""When is an epoch's work done, and who trains? From signed progress records: bounded in number, size and rate, so that no
single peer can end or prolong an epoch, and strangers cannot fill the memory."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from swarm.records.types import ZERO_HASH, Account, Hash, Progress
from swarm.records.units import capped_units

MAX_PEERS = 1024
RECORDS_PER_SECOND, BURST_RECORDS = 8.0, 24.0
READY_SECONDS = 15.0  # what was heard longer ago says nothing
MOVE_SECONDS = 1.0  # for a certificate, and the next word on progress, to reach everyone
MAX_LEFT = 64


def swarm_units(units: Mapping[Account, int], max_units: int) -> int:
    """Units that count as done in the epoch.

    Each peer's word is capped by the run's `max_units` per contribution and, from three peers on, by four times the lower
    median: the largest number anybody wrote never decides (protocol §3.1)."""
    said = sorted(capped_units(value, max_units) for value in units.values())
    if len(said) >= 3:
        bound = max(1, 4 * said[(len(said) - 1) // 2])
        said = [min(value, bound) for value in said]
    return sum(said)


@dataclass
class _Word:
    record: Progress
    allowance: float
    heard_at: float
    # Heard since its signer's link came up: a process that died and is back has said nothing yet.
    is_of_link: bool = True
    was_current: bool = False  # named the swarm's anchor when it was heard


class ProgressBook:
    """The newest progress record of each peer. `clock` in seconds, of any origin. A record's own time (`sequence`) only orders
    the words of its signer: nobody's clock has to agree with ours."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._words: dict[Account, _Word] = {}
        self._tip: Hash = ZERO_HASH
        self._left: dict[Hash, float] = {}  # certificates → when the swarm moved on from them

    def moved(self, tip: Hash) -> None:
        """The round under way is the one after `tip`."""
        if tip != self._tip:
            self._left[self._tip] = self._clock()
            self._left.pop(tip, None)
            self._tip = tip
            while len(self._left) > MAX_LEFT:
                del self._left[next(iter(self._left))]

    def lost(self, account: Account) -> None:
        """Its link has ended: what it said before does not speak for whoever links up next."""
        if account in self._words:
            self._words[account].is_of_link = False

    def _is_current(self, record: Progress) -> bool:
        left_at = self._left.get(record.prev_certificate, float("-inf"))
        return record.prev_certificate == self._tip or self._clock() - left_at <= MOVE_SECONDS

    def take(self, signer: Account, record: Progress, members: Callable[[], Collection[Account]]) -> bool:
        """Remember it; False (do not pass it on): old, too many of one signer, or of a stranger where the book is full.
        `members`: voters and linked peers, who always find room. After a silence an older one will do: a machine whose clock
        was ahead has been set right."""
        now, old = self._clock(), self._words.get(signer)
        if old is None:
            if len(self._words) >= MAX_PEERS and not self._make_room(signer, members()):
                return False
            self._words[signer] = _Word(record, BURST_RECORDS, now, was_current=self._is_current(record))
            return True
        if old.record.sequence >= record.sequence and (old.record == record or now - old.heard_at <= READY_SECONDS):
            return False
        old.allowance = min(BURST_RECORDS, old.allowance + (now - old.heard_at) * RECORDS_PER_SECOND)
        old.heard_at = now
        if old.allowance < 1.0:
            return False
        old.allowance -= 1.0
        old.record, old.is_of_link, old.was_current = record, True, self._is_current(record)
        return True

    def _make_room(self, signer: Account, members: Collection[Account]) -> bool:
        stranger = next((a for a in self._words if a not in members), None)
        if signer not in members or stranger is None:
            return False
        del self._words[stranger]
        return True

    def units(self, voters: Collection[Account], prev_certificate: Hash) -> dict[Account, int]:
        """What voters say that they have done since `prev_certificate`: only who had a part in the last certificate has a
        say in when the next one comes, or else a stranger's hundred keys would have it."""
        return {
            account: word.record.units
            for account, word in self._words.items()
            if account in voters and word.record.prev_certificate == prev_certificate
        }

    def heard_lately(self) -> dict[Account, int]:
        """Whose word on progress has come of late, by whichever way, with their flags."""
        oldest = self._clock() - READY_SECONDS
        return {account: word.record.flags for account, word in self._words.items() if word.heard_at >= oldest}

    def ready(self, linked: Collection[Account]) -> dict[Account, int]:
        """Linked peers that said of late that they train on the newest anchor, with their flags.

        Who named another one when the swarm had moved on, and a moment for the news to get round had passed, is behind, or on
        another lineage: it could not take part. What was true when it was said holds until the next word, also where certificates
        follow each other faster than words do."""
        oldest = self._clock() - READY_SECONDS
        return {
            account: word.record.flags
            for account, word in self._words.items()
            if account in linked
            and word.heard_at >= oldest
            and word.is_of_link
            and (word.was_current or word.record.prev_certificate == self._tip)
        }


__all__ = ["ProgressBook", "swarm_units"]
