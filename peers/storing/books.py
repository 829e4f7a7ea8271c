"""The run as a storer knows it: journal, ledger, the state machine that follows the lineage, and what keeps receipts."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.accounting import Accounting
from peers.books import Books
from peers.directory import PeerDirectory
from peers.gate import Gate
from peers.history import LedgerHistory
from peers.identity import Identity
from peers.invite import Invite
from peers.notary import JournalNotary
from peers.remembering import check_journal
from peers.storage import storage_rules
from peers.storing.following import Follower
from peers.storing.receipts import StorageAccounting, is_linked_storer
from swarm import events
from swarm.consensus.machine import RoundMachine, RunRules
from swarm.network import SwarmNetwork
from swarm.records.types import Hash, Signed, StorageReceipt
from swarm.records.wire import pack, unpack


@dataclass(frozen=True)
class StorerBooks:
    """All of it, open."""

    notary: JournalNotary
    gate: Gate
    books: Books
    machine: RoundMachine
    accounting: Accounting
    storage: StorageAccounting | None  # None: the run pays nobody for storing
    follower: Follower
    history: LedgerHistory

    @property
    def failure(self) -> BaseException | None:
        return self.follower.failure or self.gate.failure or self.books.failure

    def tip(self) -> tuple[int, Hash]:
        return self.machine.epoch - 1, self.machine.tip

    def begin(self) -> None:
        """Take up what is on disk, once the network is joined."""
        signed = [(record, keep) for record, _, keep in self.notary.replay_records()]
        kept = [unpack(data) for data in (*self.history.everything(), *self.history.current())]
        self.follower.start(kept, signed)
        for said in kept:
            self.follower.remember(said)
            if self.storage is not None and isinstance(said.record, StorageReceipt):
                self.storage.on_receipt(said)


async def open_books(
    stack: contextlib.AsyncExitStack,
    directory: PeerDirectory,
    identity: Identity,
    invite: Invite,
    network: SwarmNetwork,
    num_values: int,
    emit: Callable[[events.Event], None],
) -> StorerBooks:
    """`num_values` of the run's model; `stack` closes all. `StartError` where the journal lacks what the ledger shows."""
    run, domain = invite.config, invite.binding.domain()
    journal = stack.enter_context(SigningJournal(directory.journal))
    gate = Gate(journal)
    stack.push_async_callback(gate.close)
    notary = identity.notary(domain, journal, gate)
    ledger = stack.enter_context(Ledger(directory.ledger, run_id=run.run_id, domain=domain))
    check_journal(directory.journal, notary, ledger, [])
    books = Books(ledger, stack.enter_context(Ledger.read(directory.ledger)), journal)
    stack.push_async_callback(books.close)
    machine = RoundMachine(notary, RunRules.of(run, invite.binding.founders, num_values), reduces=False, votes=False)

    def publish(signed: Signed) -> None:
        books.after(lambda: network.publish(pack(signed)))

    accounting = Accounting(notary, books, run.witnesses, publish, machine.certified_body)

    rules = storage_rules(run)
    storage = None
    if rules is not None:
        storage = StorageAccounting(notary, books, rules, publish, is_storer=is_linked_storer(network.linked))

    def followed(event: events.Event) -> None:
        accounting.on_event(event)
        if storage is not None:
            storage.on_event(event)
        emit(event)

    on_storage = None if storage is None else storage.on_receipt
    follower = Follower(notary, machine, network, followed, accounting.on_receipt, on_storage)
    stack.push_async_callback(follower.close)
    history = LedgerHistory(books.reader, machine.current_messages, machine.certificates_since, notary.may_show)
    return StorerBooks(notary, gate, books, machine, accounting, storage, follower, history)


__all__ = ["StorerBooks", "open_books"]
