"""How this peer speaks in a round: it signs, and queues what its driver is to do.

Signing journals before it returns (`swarm.records.notary`), so whatever leaves here is bound. What was said comes back as a word of
this peer's own when the step under way is over: no step finds the world changed under it by what it said itself.
"""

from collections import deque

from swarm.consensus.actions import Action, Blame, Send
from swarm.errors import Equivocation
from swarm.records.notary import Notary
from swarm.records.types import Account, Content, Record, Signed
from swarm.records.wire import pack_content


class Voice:
    """Of one peer."""

    def __init__(self, notary: Notary) -> None:
        self.notary, self.account = notary, notary.account
        self._actions: list[Action] = []
        self._own: deque[Signed] = deque()

    def say(self, record: Record, content: Content = None) -> bool:
        """Sign it and send it to everyone; False where another word on its subject was signed before a restart: then this peer
        stays silent."""
        try:
            signature = self.notary.sign(record, pack_content(content))
        except Equivocation:
            return False
        signed = Signed(record, self.account, signature, content)
        self.ask(Send(signed))
        self._own.append(signed)
        return True

    def ask(self, *actions: Action) -> None:
        """Queue them for the driver."""
        self._actions += actions

    def blame(self, account: Account, reason: str) -> None:
        self.ask(Blame(account, reason))

    def own_word(self) -> Signed | None:
        """The oldest that this peer has not taken in itself; given once."""
        return self._own.popleft() if self._own else None

    def actions(self) -> list[Action]:
        """All that was queued, in order; given once."""
        taken, self._actions = self._actions, []
        return taken
