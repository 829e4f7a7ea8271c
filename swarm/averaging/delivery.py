"""The bytes of a round on their way: parts to reducers, averages to everyone. It sends, asks for and takes in what the driver
says that the round needs; which contributions count, and when, is not decided here.

Failure semantics: who does not take or give something in time costs nobody else a wait; a part that breaks a rule is refused
with a word to its sender and a fault.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from swarm.averaging.reception import Reception
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.errors import PeerFault, RetryError
from swarm.optim.codec import wire_bytes
from swarm.records.types import (
    ZERO_ACCOUNT,
    Account,
    Hash,
    SignedCall,
)

ASK_SECONDS = 1.0  # how often, at most, a reducer asks for parts that were not sent to it
ASKS_PER_CONTRIBUTION = 4  # within `contribute_seconds`, whatever the run's is
RETRY_SECONDS = 0.3
ASKED_AT_ONCE = 8  # contributions whose missing parts a reducer asks for; anybody can announce some that do not exist


class Network(Protocol):
    """What the round needs of the transport."""

    def publish(self, data: bytes, again: bool = False) -> None:
        """Flood to everyone; `again`: also what was sent or heard before."""

    def linked(self) -> dict[Account, int]:
        """Accounts with a live link → their flags."""

    def unreached(self) -> set[Account]:
        """Those of them that say that they reduce, and were found not to answer."""

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        """(header, payload) pairs to one peer; RetryError if it does not take them in time."""

    async def fetch(
        self,
        accounts: Sequence[Account],
        digests: Sequence[Hash],
        max_bytes: int,
        timeout: float,
        came: Callable[[Hash, bytes], None] = lambda digest, data: None,
    ) -> dict[Hash, bytes]:
        """Verified bytes by digest, from whichever of the accounts (or anyone linked) has them; may be incomplete. `came` is told of
        each as soon as it is here."""


class Owner(Protocol):
    """The driver, as far as the bytes need it."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...

    def blame(self, account: Account, reason: str) -> None: ...

    def fail(self, error: Exception) -> None: ...

    def arrived(self, key: Hash) -> None:
        """Something of this contribution is here that was not, or may have been all along."""


class Delivery:
    """Of one peer; everything runs in the driver's loop."""

    def __init__(
        self, config: RunConfig, machine: RoundMachine, network: Network, reception: Reception, owner: Owner
    ) -> None:
        self.config, self.machine, self.network, self.reception = config, machine, network, reception
        self.call: SignedCall | None = None  # the newest one that was acted on
        self._owner = owner
        self._fetching: set[Hash] = set()  # contributions whose missing parts are being asked for
        self._asked: dict[Hash, int] = {}  # how often, in this round
        self._coming: set[Hash] = set()  # averages that are on their way

    def moved(self) -> None:
        """The round under way is another one."""
        self._asked.clear()

    async def scatter(self, call: SignedCall, key: Hash) -> None:
        """The own contribution's parts, each to the reducer that is to have it."""
        if key not in self.reception:
            return
        reducers = call.content.reducers
        for position, reducer in enumerate(reducers):
            if reducer == self.machine.account:
                continue
            payload = []
            for leaf in self.reception.content(key).parts:
                if leaf.index % len(reducers) == position:
                    data = self.reception.parts.get(leaf.digest)
                    if data is not None:
                        payload.append((key + leaf.index.to_bytes(4, "big"), data))
            if payload:
                self._owner.spawn(self._push(call, reducer, payload))
        self._owner.arrived(key)

    async def _push(self, call: SignedCall, reducer: Account, payload: Sequence[tuple[bytes, bytes]]) -> None:
        """Again while the reducer has no link or does not know the contribution yet; not beyond the round."""
        seconds = self.config.rounds.contribute_seconds
        deadline = time.monotonic() + seconds
        while True:
            try:
                await self.network.push_parts(reducer, payload, seconds)
                return
            except RetryError:
                if time.monotonic() > deadline or self.machine.tip != call.record.prev_certificate:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    def on_part(self, sender: Account, header: bytes, payload: bytes) -> None:
        """A pushed part. The sender may be any member, who need not be the contributor: the digest decides. `PeerFault`: it is
        refused; `RetryError`: it may be sent again later. Raises nothing else."""
        if sender not in self.network.linked():
            raise PeerFault("member: no link with the sender; link up first")
        if len(header) != 36:
            raise PeerFault("header: 36 bytes expected")
        key, index = header[:32], int.from_bytes(header[32:], "big")
        if key in self.reception:
            self._take(sender, key, index, payload)
        else:
            self.reception.early(sender, key, index, payload)

    def take(self, sender: Account, key: Hash, index: int, payload: bytes) -> None:
        """A part of a known contribution, from whoever had it. Raises nothing: what breaks a rule is its sender's fault."""
        with contextlib.suppress(PeerFault, RetryError):
            self._take(sender, key, index, payload)

    def _take(self, sender: Account, key: Hash, index: int, payload: bytes) -> None:
        try:
            if self.reception.take(key, index, payload):
                self._owner.arrived(key)
        except PeerFault as error:
            self._owner.blame(sender, str(error))
            raise
        except Exception as error:
            self._owner.fail(error)
            raise RetryError("this peer has to stop") from None

    async def collect(self, call: SignedCall) -> None:
        """As reducer: parts that are here already count; missing ones are asked for from whoever holds them, each contributor's
        in a task of its own, so that one who answers slowly or never keeps nobody else waiting. Who is alive pushes; what the dead
        left with the reducers of an earlier attempt is asked for at once."""
        prev: Hash = call.record.prev_certificate
        for key in self.reception.on_tip(prev):
            self._owner.arrived(key)
        pause = min(ASK_SECONDS, self.config.rounds.contribute_seconds / ASKS_PER_CONTRIBUTION)
        left = self.machine.was_whole(call.record.attempt).keys() - self.network.linked().keys()
        self._ask_all(call, [(key, signer) for key, signer in self._worth_asking(call) if signer in left])
        while self.call is call and prev == self.machine.tip:
            await asyncio.sleep(pause)
            self._ask_all(call, self._worth_asking(call))

    def _ask_all(self, call: SignedCall, contributions: Sequence[tuple[Hash, Account]]) -> None:
        for key, _ in contributions:
            if len(self._fetching) < ASKED_AT_ONCE and key not in self._fetching and self.missing(call, key):
                self._fetching.add(key)
                self._owner.spawn(self.ask(call, key))

    def _worth_asking(self, call: SignedCall) -> list[tuple[Hash, Account]]:
        """Contributions, and whose, of voters, of linked peers, and of whom all had them in an earlier attempt; the voters' first,
        then whose turn was longest ago. Strangers push theirs."""
        voters, linked = set(self.machine.voters()), self.network.linked()
        had = self.machine.was_whole(call.record.attempt)
        found = []
        for key in self.reception.on_tip(call.record.prev_certificate):
            signed = self.reception.get(key)
            if signed is not None and (signed.signer in voters or signed.signer in linked or signed.signer in had):
                found.append((signed.signer not in voters, self._asked.get(key, 0), key, signed.signer))
        return [(key, signer) for _, _, key, signer in sorted(found)]

    async def ask(self, call: SignedCall, key: Hash) -> None:
        """Once for what is missing of one contribution: its owner first, then who had it in an earlier attempt, then anyone."""
        self._asked[key] = self._asked.get(key, 0) + 1
        try:
            signed, content = self.reception.get(key), self.reception.content(key)
            assert signed is not None
            leaves = [content.parts[i] for i in self.missing(call, key)]
            largest = wire_bytes(self.config.codec.part_values, self.config.codec.contribution)
            size = sum(min(leaf.length, largest) for leaf in leaves)
            seconds = self.config.rounds.contribute_seconds
            had = self.machine.was_whole(call.record.attempt).get(signed.signer, ())
            holders = [signed.signer, *(a for a in had if a != self.machine.account)]
            found = await self.network.fetch(holders, [leaf.digest for leaf in leaves], size, seconds)
            for leaf in leaves:
                if leaf.digest in found and key in self.reception:
                    self.take(signed.signer, key, leaf.index, found[leaf.digest])
        finally:
            self._fetching.discard(key)

    def missing(self, call: SignedCall, key: Hash) -> list[int]:
        """Parts that this peer as one of the call's reducers was to get and has not."""
        return self.reception.missing(key, call.content.reducers, self.machine.account)

    async def gather(
        self,
        digests: Sequence[Hash],
        holders: Sequence[Account],
        withheld: Callable[[Account], None] = lambda account: None,
        came: Callable[[int, bytes], None] = lambda index, part: None,
    ) -> list[bytes] | None:
        """Encoded parts by digest, in order, from memory or from their holders first; None when some did not come in time.
        `withheld` is told of a holder that gave nothing when it was asked, as did all others; `came` of each part, by its place in
        `digests`, once and as soon as it is here."""
        rounds = self.config.rounds
        deadline = time.monotonic() + rounds.average_seconds + rounds.vote_seconds
        codec = self.config.codec
        largest = max(wire_bytes(codec.part_values, name) for name in (codec.contribution, codec.average))
        here = _Arrivals(digests, came)
        while True:
            local = ((digest, self.reception.parts.get(digest)) for digest in here.missing())
            here.add({digest: part for digest, part in local if part is not None})
            missing = set(here.missing())
            if not missing:
                return [here.have[d] for d in digests]
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            by_holder: dict[Account, list[Hash]] = {}
            for digest, holder in zip(digests, holders or [ZERO_ACCOUNT] * len(digests), strict=True):
                if digest in missing and digest not in self._coming:  # the round and the follower want the same bytes
                    by_holder.setdefault(holder, []).append(digest)
            asked = {digest for wanted in by_holder.values() for digest in wanted}
            self._coming |= asked
            try:
                gave = await asyncio.gather(
                    *(
                        self._bring(holder, wanted, largest * len(wanted), left, here)
                        for holder, wanted in by_holder.items()
                    ),
                    return_exceptions=True,
                )
            finally:
                self._coming -= asked
            for holder, result in zip(by_holder, gave, strict=True):
                if result is not True:
                    withheld(holder)
            if here.missing():
                await asyncio.sleep(RETRY_SECONDS if asked else 0.05)

    async def _bring(
        self, holder: Account, wanted: Sequence[Hash], max_bytes: int, seconds: float, here: "_Arrivals"
    ) -> bool:
        """In one question: one that stalls costs its share of the time once. Whether anything came, each told of when it did."""

        def came(digest: Hash, payload: bytes) -> None:
            self.reception.parts.put(payload)
            here.add({digest: payload})

        return bool(await self.network.fetch([holder], wanted, max_bytes, seconds, came))


class _Arrivals:
    """What has come of a list of parts, of which one can be there twice; `came` is told of each place once."""

    def __init__(self, digests: Sequence[Hash], came: Callable[[int, bytes], None]) -> None:
        self.have: dict[Hash, bytes] = {}
        self._places: dict[Hash, list[int]] = {}
        for place, digest in enumerate(digests):
            self._places.setdefault(digest, []).append(place)
        self._came = came

    def missing(self) -> list[Hash]:
        """In their order."""
        return [digest for digest in self._places if digest not in self.have]

    def add(self, found: Mapping[Hash, bytes]) -> None:
        """What was not asked for is left out."""
        for digest in found.keys() & self._places.keys() - self.have.keys():
            self.have[digest] = found[digest]
            for place in self._places[digest]:
                self._came(place, found[digest])


__all__ = ["Delivery", "Network", "Owner"]
