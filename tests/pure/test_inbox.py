"""Messages on their way in: checked beside the loop, in their order, and nobody waits for a stranger's flood."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from swarm.averaging.inbox import AT_ONCE, Inbox
from swarm.errors import BadSignature, PeerFault, RetryError
from swarm.records.types import Account, Record, RoundVoid, Signed
from swarm.records.wire import pack

RUN = b"\1" * 32


class Checking:
    """The notary, as far as an inbox needs it: signatures begin with their account."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.checked: list[int] = []
        self.threads: set[int] = set()

    def recover(self, record: Record, signature: bytes) -> Account:
        assert self.go_on.wait(30.0), "the test never let it go on"
        self.threads.add(threading.get_ident())
        self.checked.append(record.epoch)
        if signature[20] != 0:
            raise BadSignature("signature recovers to no account")
        return signature[:20]


def message(epoch: int, signer: int = 1, run_id: bytes = RUN, tail: int = 0) -> bytes:
    return pack(
        Signed(RoundVoid(run_id, epoch, 0, bytes(32)), bytes([signer]) * 20, bytes([signer]) * 20 + bytes([tail]) * 45)
    )


def run(work: Callable[[Inbox, Checking], Awaitable[None]]) -> None:
    async def bounded() -> None:
        notary = Checking()
        inbox = Inbox(notary, RUN)  # type: ignore[arg-type]
        try:
            await asyncio.wait_for(work(inbox, notary), 60)
        finally:
            notary.go_on.set()
            inbox.close()
            inbox.close()

    asyncio.run(bounded())


def test_the_loop_goes_on_while_signatures_are_checked() -> None:
    async def work(inbox: Inbox, notary: Checking) -> None:
        notary.go_on.clear()
        checking = asyncio.create_task(inbox.checked(message(1)))
        for _ in range(5):
            await asyncio.sleep(0.01)  # in the loop the check would never have ended
        assert not checking.done()
        notary.go_on.set()
        assert (await checking).record.epoch == 1
        assert notary.threads and threading.get_ident() not in notary.threads

    run(work)


def test_messages_go_on_in_the_order_in_which_they_came() -> None:
    async def work(inbox: Inbox, notary: Checking) -> None:
        taken: list[int] = []

        async def take(epoch: int) -> None:
            taken.append((await inbox.checked(message(epoch))).record.epoch)

        await asyncio.gather(*(take(epoch) for epoch in range(5 * AT_ONCE)))
        assert taken == list(range(5 * AT_ONCE))

    run(work)


@pytest.mark.parametrize(
    "bad",
    [b"", b"\xff" * 40, message(2, tail=1), message(2, run_id=b"\2" * 32), message(2)[:-1]],
    ids=["empty", "no record", "signature", "run", "cut"],
)
def test_a_bad_message_is_its_senders_fault_and_the_others_pass(bad: bytes) -> None:
    async def work(inbox: Inbox, notary: Checking) -> None:
        notary.go_on.clear()
        tasks = [asyncio.create_task(inbox.checked(data)) for data in (message(1), bad, message(3))]
        await asyncio.sleep(0.05)
        notary.go_on.set()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(second, PeerFault)
        assert isinstance(first, Signed) and isinstance(third, Signed)
        assert (first.record.epoch, third.record.epoch) == (1, 3)

    run(work)


def test_a_link_that_ends_meanwhile_takes_nobody_along() -> None:
    async def work(inbox: Inbox, notary: Checking) -> None:
        notary.go_on.clear()
        ended, other = (asyncio.create_task(inbox.checked(message(epoch))) for epoch in (1, 2))
        await asyncio.sleep(0.05)
        ended.cancel()
        notary.go_on.set()
        assert (await other).record.epoch == 2
        assert (await inbox.checked(message(3))).record.epoch == 3

    run(work)


def test_what_comes_after_the_end_starts_nothing() -> None:
    """Links end after the round does."""

    async def work(inbox: Inbox, notary: Checking) -> None:
        inbox.close()
        with pytest.raises(RetryError):
            await inbox.checked(message(1))

    run(work)


def test_between_two_messages_the_loop_has_its_turn() -> None:
    """Else all that was checked at once is taken at once: for a large run longer than a tick."""

    async def work(inbox: Inbox, notary: Checking) -> None:
        notary.go_on.clear()
        turns = [0]

        async def turn() -> None:
            while True:
                await asyncio.sleep(0)
                turns[0] += 1

        seen: list[int] = []

        async def take(epoch: int) -> None:
            await inbox.checked(message(epoch))
            seen.append(turns[0])

        tasks = [asyncio.create_task(take(epoch)) for epoch in range(AT_ONCE)]
        await asyncio.sleep(0.01)
        turning = asyncio.create_task(turn())
        notary.go_on.set()
        await asyncio.gather(*tasks)
        turning.cancel()
        assert len(set(seen)) == len(seen)

    run(work)


def test_one_link_has_one_message_here_and_a_flood_waits_for_its_turn() -> None:
    """As `swarm.transport.links` reads: the next one after the one before."""

    async def work(inbox: Inbox, notary: Checking) -> None:
        async def flood() -> None:
            for epoch in range(1000, 2000):
                await inbox.checked(message(epoch, 9))

        flooding = [asyncio.create_task(flood()) for _ in range(3)]
        await asyncio.sleep(0.02)
        before = len(notary.checked)
        await inbox.checked(message(7))
        assert len(notary.checked) - before <= 2 * 3 + AT_ONCE
        for task in flooding:
            task.cancel()

    run(work)
