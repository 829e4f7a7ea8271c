"""Who belongs to the run, as this peer knows it: by account, and by the identity that the account was linked with last. Pure.

A member's streams and links have places that no stranger can take, so being one has to cost work: a member is named by the lineage
(a voter, or a contributor of late), or was until a while ago. What the invite names counts as one, too: a seed trains nothing.
"""

from collections.abc import Callable

from swarm.records.types import Account

MEMBER_SECONDS = 900.0  # after the lineage has named it last
MAX_REMEMBERED = 1024


class Members:
    """`is_named(account)`: by the lineage, now. `clock` in seconds."""

    def __init__(self, is_named: Callable[[Account], bool], clock: Callable[[], float]) -> None:
        self._is_named, self._clock = is_named, clock
        self._named_at: dict[Account, float] = {}
        self._accounts: dict[str, Account] = {}  # peer id → account; each account has one
        self._invited: set[str] = set()

    def invite(self, peer_id: str) -> None:
        """The run's organiser, or the owner of this peer, has named it."""
        self._invited.add(peer_id)

    def is_invited(self, peer_id: str) -> bool:
        return peer_id in self._invited

    def is_member(self, account: Account) -> bool:
        now = self._clock()
        if self._is_named(account):
            self._named_at.pop(account, None)
            self._named_at[account] = now
            while len(self._named_at) > MAX_REMEMBERED:
                del self._named_at[next(iter(self._named_at))]
            return True
        return now - self._named_at.get(account, float("-inf")) < MEMBER_SECONDS

    def remember(self, peer_id: str, account: Account) -> None:
        """The account has proved that it is this identity; it counts as one for as long as it is a member."""
        for other in [each for each, whose in self._accounts.items() if whose == account]:
            del self._accounts[other]
        self._accounts[peer_id] = account
        if len(self._accounts) > MAX_REMEMBERED:
            strangers = (each for each, whose in self._accounts.items() if not self.is_member(whose))
            del self._accounts[next(strangers, next(iter(self._accounts)))]

    def is_identity(self, peer_id: str) -> bool:
        """Whether a member is known by this identity."""
        account = self._accounts.get(peer_id)
        return peer_id in self._invited or (account is not None and self.is_member(account))


__all__ = ["MEMBER_SECONDS", "Members"]
