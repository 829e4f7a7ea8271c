"""Who is there, as one peer sees it: who trains on its anchor now, is linked, is gone, kept silent of late; and who is drawn."""

from collections.abc import Collection, Iterable, Mapping

from swarm.consensus.lineage import MAX_ELECTORATE
from swarm.consensus.round import Round
from swarm.records.commitments import draw_order
from swarm.records.types import FLAG_REDUCES, FLAG_VOTES, Account, Hash

MIN_REDUCERS = 2
PASSED_OVER_EPOCHS, MAX_PASSED_OVER = 16, 1024
MAX_GONE = 256


class Roster:
    """`reduces`: this peer has a listening address; `votes`: it wants a seat (a seed does not)."""

    def __init__(self, account: Account, reduces: bool, votes: bool) -> None:
        self.account, self.reduces, self.votes = account, reduces, votes
        self.ready: dict[Account, int] = {}  # other peers that train on this peer's anchor → flags
        self.linked: set[Account] = set()
        self.gone: set[Account] = set()  # were ready, and are no more
        self.saw_quorum = False  # agree on a round, since this peer's start
        self._unreached: frozenset[Account] = frozenset()  # cannot reduce, whatever they say
        # Reducers that were silent of late → epoch up to which others are drawn first.
        self._passed_over: dict[Account, int] = {}
        # Reducers that signed a wrong average: drawn only where there is nobody else, for as long as this process runs.
        self._convicted: dict[Account, None] = {}
        # Initiators that drew such a one among few voters: what theirs average is redone.
        self._doubted: dict[Account, None] = {}
        self.num_shown = 0  # how often somebody was added to these two
        # Joiners that did not keep their word → epoch up to which nobody waits for them.
        self._unawaited: dict[Account, int] = {}

    def look(self, ready: Mapping[Account, int], unreached: Collection[Account], linked: Collection[Account]) -> bool:
        """How it is now; whether anything is different that others wait for."""
        self._unreached = frozenset(unreached)
        self.gone = (self.gone | self.ready.keys()) - ready.keys()
        while len(self.gone) > MAX_GONE:
            self.gone.pop()
        changed = ready != self.ready or self.linked != set(linked)
        self.ready, self.linked = dict(ready), set(linked)
        return changed

    def heard_of(self, account: Account) -> None:
        """Something that it signed has come."""
        self.gone.discard(account)

    def seats(self, prev: Hash, epoch: int) -> tuple[Account, ...]:
        """Whom a seating after `prev` would seat."""
        able = {a for a, flags in self.ready.items() if flags & FLAG_VOTES}
        if self.votes:
            able.add(self.account)
        return tuple(sorted(draw_order(prev, epoch, 0, able)[:MAX_ELECTORATE]))

    def joiners(self, r: Round) -> set[Account]:
        """Ready without a vote. Who did not keep its word is not waited for again, nor is a key that nobody has a link with."""
        return {a for a in self.ready if a not in {*r.voters, self.account} and self._unawaited.get(a, 0) < r.epoch}

    def await_no_more(self, accounts: Iterable[Account], epoch: int) -> None:
        _defer(self._unawaited, accounts, epoch)

    def pass_over(self, accounts: Iterable[Account], epoch: int) -> None:
        """They are drawn after others for some epochs: who keeps silent in each would cost each an attempt."""
        _defer(self._passed_over, accounts, epoch)

    def convict(self, account: Account) -> None:
        """It signed an average that is not one: from now on it is drawn after all others."""
        self._show(self._convicted, account)

    def doubt(self, initiator: Account) -> None:
        """It drew who was then convicted, and too few voters beside that one."""
        self._show(self._doubted, initiator)

    def _show(self, shown: dict[Account, None], account: Account) -> None:
        self.num_shown += account not in shown
        shown.pop(account, None)
        shown[account] = None
        while len(shown) > MAX_PASSED_OVER:
            del shown[next(iter(shown))]

    def is_convicted(self, account: Account) -> bool:
        return account in self._convicted

    def is_doubted(self, initiator: Account) -> bool:
        return initiator in self._doubted or initiator in self._convicted

    def is_passed_over(self, account: Account, epoch: int) -> bool:
        return account in self._convicted or self._passed_over.get(account, 0) >= epoch

    def draw_reducers(self, r: Round, most: int) -> tuple[Account, ...]:
        """Voters before all others: a key costs nothing, a vote a contribution that was certified. Where fewer than two of them
        will do, so many others that two can witness for each other. In rank order."""
        voters = set(r.voters)
        able = {a for a, flags in self.ready.items() if flags & FLAG_REDUCES}
        # a voter that contributed already and can reduce is alive too
        able |= {a for a, s in r.messages.first().items() if s.record.flags & FLAG_REDUCES and a in voters}
        able |= {self.account} if self.reduces else set()
        able -= r.messages.lying | self.gone | self._unreached | r.silent
        convicted = able & self._convicted.keys()
        able -= convicted
        late = {a for a in able if self.is_passed_over(a, r.epoch)}
        drawn: list[Account] = sorted(able & voters - late)
        for others in (able & voters & late, able - voters - late, able - voters & late, convicted):
            room = max(0, MIN_REDUCERS - len(drawn))
            drawn += draw_order(r.prev, r.epoch, r.attempt, others)[:room]
        return tuple(draw_order(r.prev, r.epoch, r.attempt, drawn)[:most])


def _defer(deferred: dict[Account, int], accounts: Iterable[Account], epoch: int) -> None:
    for account in accounts:
        deferred.pop(account, None)
        deferred[account] = epoch + PASSED_OVER_EPOCHS
    while len(deferred) > MAX_PASSED_OVER:
        del deferred[next(iter(deferred))]
