"""How many bytes who has no link in the run is given in a day: of all such peers, and of one of them. Pure."""

from collections.abc import Callable

DAY_SECONDS = 86400.0
AT_ONCE = 0.5  # of a day's bytes may go at once, the rest comes evenly: in no 24 hours is it more than a day's
OWN_SHARE = 0.5  # of it may one identity have
MAX_REMEMBERED = 1024


class Allowance:
    """`bytes_per_day` 0: nothing. `clock` in seconds. Kept in memory alone: a start begins a new day."""

    def __init__(self, bytes_per_day: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all = _Bucket(AT_ONCE * bytes_per_day, (1.0 - AT_ONCE) * bytes_per_day, clock())
        self._own: dict[str, _Bucket] = {}

    def take(self, peer_id: str, num_bytes: int) -> bool:
        """Whether this peer may have so many bytes now; they are counted then."""
        now = self._clock()
        whole = self._all
        own = self._own.pop(peer_id, None) or _Bucket(OWN_SHARE * whole.most, OWN_SHARE * whole.per_day, now)
        self._own[peer_id] = own
        while len(self._own) > MAX_REMEMBERED:
            del self._own[next(iter(self._own))]
        if whole.left(now) < num_bytes or own.left(now) < num_bytes:
            return False
        whole.spend(num_bytes)
        own.spend(num_bytes)
        return True


class _Bucket:
    def __init__(self, most: float, per_day: float, now: float) -> None:
        self.most, self.per_day = most, per_day
        self._left, self._at = most, now

    def left(self, now: float) -> float:
        self._left = min(self.most, self._left + max(0.0, now - self._at) / DAY_SECONDS * self.per_day)
        self._at = now
        return self._left

    def spend(self, num_bytes: int) -> None:
        self._left -= num_bytes


__all__ = ["Allowance"]
