"""When is an epoch's work done, and who trains? From signed progress records: bounded in number, size and rate, so that no
single peer can end or prolong an epoch, and strangers cannot fill the memory."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from swarm.averaging.records import Account, Hash, Progress

MAX_PEERS = 1024
RECORDS_PER_SECOND, BURST_RECORDS = 8.0, 24.0
READY_SECONDS = 15.0  # what was heard longer ago says nothing


def swarm_units(units: Mapping[Account, int], max_units: int) -> int:
    """Units that count as done in the epoch.

    Each peer's word is capped by the run's `max_units` per contribution and, from three peers on, by four times the lower
    median: the largest number anybody wrote never decides (DESIGN §3)."""
    said = sorted(min(max(0, value), max_units) for value in units.values())
    if len(said) >= 3:
        bound = max(1, 4 * said[(len(said) - 1) // 2])
        said = [min(value, bound) for value in said]
    return sum(said)


@dataclass
class _Word:
    record: Progress
    allowance: float
    heard_at: float


class ProgressBook:
    """The newest progress record of each peer. `clock` in seconds, of any origin. A record's own time (`sequence`) only orders
    the words of its signer: nobody's clock has to agree with ours."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._words: dict[Account, _Word] = {}

    def take(self, signer: Account, record: Progress, members: Callable[[], Collection[Account]]) -> bool:
        """Remember it; False (do not pass it on): old, too many of one signer, or of a stranger where the book is full.
        `members`: voters and linked peers, who always find room. After a silence an older one will do: a machine whose clock
        was ahead has been set right."""
        now, old = self._clock(), self._words.get(signer)
        if old is None:
            if len(self._words) >= MAX_PEERS and not self._make_room(signer, members()):
                return False
            self._words[signer] = _Word(record, BURST_RECORDS, now)
            return True
        if old.record.sequence >= record.sequence and (old.record == record or now - old.heard_at <= READY_SECONDS):
            return False
        old.allowance = min(BURST_RECORDS, old.allowance + (now - old.heard_at) * RECORDS_PER_SECOND)
        old.heard_at = now
        if old.allowance < 1.0:
            return False
        old.allowance -= 1.0
        old.record = record
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

    def ready(self, linked: Collection[Account], tip: Hash, since: float) -> dict[Account, int]:
        """Linked peers that said of late that they train on the anchor of `tip`, with their flags.

        Who named another one after `since` (of `clock`: when the swarm moved on, and a moment for the news to get round) is
        behind, or on another lineage: it could not take part."""
        oldest = self._clock() - READY_SECONDS
        return {
            account: word.record.flags
            for account, word in self._words.items()
            if account in linked
            and word.heard_at >= oldest
            and (word.heard_at <= since or word.record.prev_certificate == tip)
        }


__all__ = ["ProgressBook", "swarm_units"]
