"""Where the parts of a peer are put together: opened in their order, joined, and closed the other way round.

What a volunteer and a seed do not share is in their `Role`; `peers.peer` runs what is put together here.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from pydantic_core import from_json

from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.accounting import Accounting
from peers.bases import cache_root, folder_of, open_base
from peers.belonging import check_run_of
from peers.books import Books
from peers.config import PeerConfig, load_peer_config
from peers.contents import Contents
from peers.datasets import published_roots
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from peers.eventlog import shown_before
from peers.gate import Gate, GatedNetwork
from peers.history import LedgerHistory
from peers.identity import Identity, recover_account
from peers.invite import Invite
from peers.keeping import Kept, check_quota, kept_states, open_budget, open_cache
from peers.notary import JournalNotary
from peers.opening import RESTORE_BLOCK
from peers.remembering import check_journal
from peers.runs import RunDirectory, bind_run, copy_blocks
from peers.storage import storage_rules
from peers.storing.receipts import StorageAccounting, is_linked_storer
from peers.storing.witnessing import Witness
from swarm import events
from swarm.atomic import write_atomically
from swarm.audit.archive import Archive
from swarm.averaging.driver import Driver
from swarm.averaging.parts import PartStore
from swarm.averaging.reception import Reception
from swarm.budget import DiskBudget
from swarm.checkpoint.bases import BaseFolder
from swarm.checkpoint.cache import LeafCache
from swarm.checkpoint.runblocks import RunBlocks
from swarm.checkpoint.store import BlockStore
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine, RunRules
from swarm.device import HOST, Cards, choose_device, failed_card
from swarm.dht.board import BoardSettings
from swarm.models import FlatModel
from swarm.network import Membership, NetworkSettings, SwarmNetwork
from swarm.optim.codec import wire_bytes
from swarm.pace import Pace
from swarm.records.types import (
    FLAG_VOTES,
    ZERO_HASH,
    Account,
    Contribution,
    ContributionReceipt,
    Hash,
    Signed,
    StorageReceipt,
)
from swarm.records.wire import pack, unpack
from swarm.tasks import Task, new_model
from swarm.train import Trainer
from swarm.transport.catalogue import Listing
from swarm.transport.door import Door
from swarm.transport.reach import Reach

log = logging.getLogger(__name__)
ANCHOR_BYTES_PER_VALUE = 8  # fp32 parameters and momentum


class Role(Protocol):
    """What this peer is in its run."""

    flags: int  # that it begins with; it reduces once it is known to be reachable

    def bootstrap(self) -> tuple[str, ...]:
        """Addresses of live peers, known before anything is opened. `ConfigError` where what says so cannot be read."""

    async def invite(self, network: SwarmNetwork) -> Invite:
        """Of the run, once the network listens."""

    async def lay_in(self, run: RunConfig, store: BlockStore, cache: str) -> BaseFolder | None:
        """Blocks that need not be fetched, and the model that the run starts from; None: it starts from none."""

    def addresses(self, network: SwarmNetwork) -> tuple[str, ...]:
        """That are told to others before anybody has dialled back."""

    def text(self) -> Path:
        """Where the run's text is, or goes to."""


class Volunteer:
    """Trains, votes and, where it can be reached, reduces."""

    flags = FLAG_VOTES

    def __init__(self, directory: PeerDirectory) -> None:
        self._directory = directory
        self.base: BaseFolder | None = None  # brought before anything else

    def bootstrap(self) -> tuple[str, ...]:
        return Invite.of_file(self._directory.invite).binding.bootstrap

    async def invite(self, network: SwarmNetwork) -> Invite:
        return Invite.of_file(self._directory.invite)

    async def lay_in(self, run: RunConfig, store: BlockStore, cache: str) -> BaseFolder | None:
        return self.base

    def addresses(self, network: SwarmNetwork) -> tuple[str, ...]:
        return ()

    def text(self) -> Path:
        return self._directory.data


class Seed:
    """The organiser's own peer: it writes the invite, hands out the text and trains nothing. `check` is awaited once the network
    listens: what is deaf must not be open to others."""

    flags = 0

    def __init__(self, directory: PeerDirectory, account: Account) -> None:
        """`ConfigError` where seed.json cannot be read."""
        self._directory, self._account = directory, account
        try:
            link = from_json(directory.seed_link.read_bytes())
            self._run = RunDirectory(Path(str(link["run"])))
            self._keystore, self._password_file = Path(str(link["keystore"])), Path(str(link["password_file"]))
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                "seed.json", str(directory.seed_link), "cannot be read; `sparehive seed RUN --dir …` writes it anew"
            ) from None

    def bootstrap(self) -> tuple[str, ...]:
        return ()

    async def invite(self, network: SwarmNetwork) -> Invite:
        """Made anew at each start, with the addresses of this one."""
        addresses = network.addresses()
        made = bind_run(self._run, self._keystore, self._password_file, (self._account,), addresses)
        made = replace(made, rpc=load_peer_config(self._directory.config).invite_rpc if made.binding.chain_id else "")
        check_run_of(self._directory, made.binding.run_id, made.binding.domain())
        write_atomically(self._directory.invite, made.encode().encode() + b"\n")
        return Invite.of_file(self._directory.invite)

    async def lay_in(self, run: RunConfig, store: BlockStore, cache: str) -> BaseFolder | None:
        own = BlockStore(self._run.blocks, 1 << 62, owned=False).getter(
            lambda digest: StartError(f"{self._run.blocks / digest.hex()} is missing or damaged{RESTORE_BLOCK}")
        )
        base = await asyncio.to_thread(open_base, run, own, cache_root(cache))
        await asyncio.to_thread(copy_blocks, self._run, run, store, base)
        return base

    def addresses(self, network: SwarmNetwork) -> tuple[str, ...]:
        return network.addresses()

    def text(self) -> Path:
        return self._run.root / "data"


@dataclass(frozen=True)
class Assembled:
    """A peer's parts. `trainer` is None at a seed."""

    network: SwarmNetwork
    invite: Invite
    notary: JournalNotary
    gate: Gate
    books: Books
    store: BlockStore
    parts: PartStore
    archive: Archive
    model: FlatModel
    content: RunBlocks
    base: BaseFolder | None
    machine: RoundMachine
    accounting: Accounting
    trainer: Trainer | None
    driver: Driver
    history: LedgerHistory
    pace: Pace
    budget: DiskBudget
    cache: LeafCache | None  # of records; None: the run has none, or all of them are here
    published: Contents  # what else is handed out
    storage: StorageAccounting | None = None  # None: the run pays nobody for storing

    @property
    def run(self) -> RunConfig:
        return self.invite.config

    def is_written(self) -> bool:
        """Whether all that was heard and signed is on disk, and what was to follow has left."""
        return not self.books.num_waiting and not self.gate.num_waiting

    @property
    def is_paid_run(self) -> bool:
        return self.invite.binding.chain_id != 0


@dataclass(frozen=True)
class Wiring:
    """What the parts tell the peer: events, and bytes of what is being fetched (what, received, in all)."""

    emit: Callable[[events.Event], None]
    on_fetch: Callable[[str, int, int], None]
    trainer_type: type[Trainer] = Trainer


async def assemble(
    stack: contextlib.AsyncExitStack,
    directory: PeerDirectory,
    config: PeerConfig,
    identity: Identity,
    role: Role,
    network: SwarmNetwork,
    wiring: Wiring,
) -> Assembled:
    """Everything but what waits for other peers; `stack` closes it."""
    invite = await role.invite(network)
    run, store = invite.config, BlockStore(directory.blocks, config.blocks_quota_bytes)
    budget = open_budget(directory, config, stack)
    base = await role.lay_in(run, store, config.base_cache)
    is_training = bool(role.flags & FLAG_VOTES)
    device = choose_device(config.device, Cards.here()) if is_training else HOST  # a seed leaves the card to peers
    model = await asyncio.to_thread(_model_on, run, folder_of(base), device)
    parts = PartStore(directory.contributions, spending=budget)
    notary, gate, books, archive = await _open_books(stack, directory, identity, invite, parts, budget)
    content = _content(run, store, model, network, archive, config, wiring, budget, not is_training)
    cache = open_cache(run, notary.account, content, config, stack) if is_training else None
    pace, num_values, founders = Pace(config.step_pause_seconds), model.layout.num_values(), invite.binding.founders
    machine = RoundMachine(notary, RunRules.of(run, founders, num_values), reduces=False, votes=is_training)

    def publish(receipt: Signed) -> None:
        books.after(lambda: network.publish(pack(receipt)))

    accounting = Accounting(notary, books, run.witnesses, publish, machine.certified_body)
    storage = _storage(stack, run, notary, books, publish, network)
    kept = Kept(kept_states(run, archive, parts, content, machine, books), budget)
    trainer = _trainer(notary, model, archive, directory, config, wiring, run, pace, kept) if is_training else None
    driver = Driver(
        run,
        notary,
        machine,
        GatedNetwork(network, gate),
        kept.states,
        Reception(run, num_values, parts, notary.hash),
        trainer,
        wiring.emit,
        accounting.on_receipt,
        role.flags,
        pace,
        None if storage is None else storage.on_receipt,
    )
    stack.push_async_callback(driver.close)
    history = LedgerHistory(books.reader, machine.current_messages, machine.certificates_since, notary.may_show)
    made = (network, invite, notary, gate, books, store, parts, archive, model, content, base, machine, accounting)
    published = Contents([Path(each) for each in config.published])
    return Assembled(*made, trainer, driver, history, pace, budget, cache, published, storage)


def _storage(
    stack: contextlib.AsyncExitStack,
    run: RunConfig,
    notary: JournalNotary,
    books: Books,
    publish: Callable[[Signed], None],
    network: SwarmNetwork,
) -> StorageAccounting | None:
    """Books of who stores, and this peer's part as their witness; `stack` ends it."""
    rules = storage_rules(run)
    if rules is None:
        return None
    witness = Witness(rules, network.ask)
    stack.push_async_callback(witness.close)
    is_storer = is_linked_storer(network.linked)
    witness.accounting = StorageAccounting(notary, books, rules, publish, witness.asked, is_storer)
    return witness.accounting


def _model_on(run: RunConfig, base: Path | None, device: torch.device) -> FlatModel:
    """StartError where the device cannot hold it."""
    try:
        return new_model(run, device=device, base=base)
    except RuntimeError as error:
        if why := failed_card(error):
            raise StartError(f"device = {device}: {why}") from None
        raise


async def _open_books(
    stack: contextlib.AsyncExitStack,
    directory: PeerDirectory,
    identity: Identity,
    invite: Invite,
    parts: PartStore,
    budget: DiskBudget,
) -> tuple[JournalNotary, Gate, Books, Archive]:
    """What this peer has signed, heard and kept. `StartError` where the journal lacks what the others show."""
    run, domain = invite.config, invite.binding.domain()
    journal = stack.enter_context(SigningJournal(directory.journal))
    gate = Gate(journal)
    stack.push_async_callback(gate.close)
    notary = identity.notary(domain, journal, gate)
    ledger = stack.enter_context(Ledger(directory.ledger, run_id=run.run_id, domain=domain))
    archive = Archive(directory.archive, run, parts, notary.hash, spending=budget)
    stack.callback(archive.close)
    if ledger.tip() is None and len(journal):
        log.warning(
            "%s is new, or all in it was lost: certificates and receipts come back from the others", directory.ledger
        )
    await asyncio.to_thread(check_journal, directory.journal, notary, ledger, list(archive.signed()))
    books = Books(ledger, stack.enter_context(Ledger.read(directory.ledger)), journal)
    stack.push_async_callback(books.close)
    return notary, gate, books, archive


def _trainer(
    notary: JournalNotary,
    model: FlatModel,
    archive: Archive,
    directory: PeerDirectory,
    config: PeerConfig,
    wiring: Wiring,
    run: RunConfig,
    pace: Pace,
    kept: Kept,
) -> Trainer:
    return wiring.trainer_type(
        run,
        notary.account,
        model,
        None,
        directory.snapshot,
        wiring.emit,
        pace,
        config.snapshot_seconds,
        archive=archive,
        on_disk=kept.states,
        spending=kept.budget,
    )


def _content(
    run: RunConfig,
    store: BlockStore,
    model: FlatModel,
    network: SwarmNetwork,
    archive: Archive,
    config: PeerConfig,
    wiring: Wiring,
    budget: DiskBudget,
    is_seed: bool,
) -> RunBlocks:
    """The run's initial anchor and those that audits may ask for stay."""
    initial = frozenset([bytes.fromhex(run.initial_root)])
    archive.is_stored = store.has
    check_quota(config, run, model.layout.num_values(), is_seed)
    content = RunBlocks(
        store,
        model.layout,
        network.ask,
        network.donors,
        config.join_timeout_seconds,
        lambda: initial | archive.pinned_roots(),
        budget,
    )
    data_root, data_bytes = bytes.fromhex(run.task.data.root), sum(f.size for f in run.task.data.content().values())
    anchor_bytes = ANCHOR_BYTES_PER_VALUE * model.layout.num_values()

    def tell(root: Hash, received: int) -> None:
        is_data = root == data_root
        wiring.on_fetch("data" if is_data else "the anchor", received, data_bytes if is_data else anchor_bytes)

    content.on_progress = tell
    return content


class Reactions:
    """Implements `swarm.network.Handler` for a peer."""

    def __init__(self, made: Assembled, on_reach: Callable[[Reach], None]) -> None:
        self._made, self._on_reach = made, on_reach
        self.history = made.history
        self._members: tuple[Hash, set[Account]] | None = None  # at which tip, and who
        self._worked, self._worked_to = set[Account](), ZERO_HASH  # up to which certificate

    async def on_message(self, sender: Account, data: bytes) -> bool:
        await self._made.books.room()
        return await self._made.driver.on_message(sender, data)

    def on_part(self, sender: Account, header: bytes, payload: bytes) -> None:
        self._made.driver.on_part(sender, header, payload)

    def on_reach(self, reach: Reach) -> None:
        self._on_reach(reach)

    def on_link(self, account: Account, flags: int, up: bool) -> None:
        self._made.driver.on_link(account, flags, up)

    def lookup(self, digest: Hash) -> bytes | None:
        return self._made.parts.get(digest)

    def block(self, digest: Hash) -> bytes | None:
        found, base, published = self._made.content.block(digest), self._made.base, self._made.published
        if found is None and base is not None:
            found = base.get(digest)
        return published.get(digest) if found is None and not published.is_withdrawn(digest) else found

    def has_block(self, digest: Hash) -> bool:
        base, published = self._made.base, self._made.published
        if self._made.content.has(digest) or (base is not None and base.has(digest)):
            return True
        return published.has(digest) and not published.is_withdrawn(digest)

    def tip(self) -> tuple[int, Hash]:
        return self._made.machine.epoch - 1, self._made.driver.tip

    def has_worked(self, account: Account) -> bool:
        """Had a contribution certified on the lineage that this peer follows, however long ago."""
        machine = self._made.machine
        if machine.tip != self._worked_to:
            for identity in machine.lineage.steps(self._worked_to, machine.tip)[1]:
                self._worked |= {leaf.peer for leaf in machine.lineage[identity].body.contributors}
            self._worked_to = machine.tip
        return account in self._worked

    def is_member(self, account: Account) -> bool:
        """Voters, and whoever had a contribution certified of late; asked often, and new only with a new tip."""
        machine = self._made.machine
        if self._members is None or self._members[0] != machine.tip:
            self._members = machine.tip, {*machine.voters(), *machine.lineage.recent(machine.tip)}
        return account in self._members[1]


async def join_run(
    made: Assembled,
    directory: PeerDirectory,
    config: PeerConfig,
    identity: Identity,
    role: Role,
    reactions: Reactions,
    door: Door,
) -> None:
    """The network takes part in the run from now on."""
    await made.network.join(
        Membership(
            made.run.run_id,
            made.notary.account,
            role.flags,
            identity.sign_digest,
            recover_account,
            made.invite.binding.founders,
        ),
        reactions,
        NetworkSettings(
            addresses=role.addresses(made.network),
            known_file=directory.known,
            sync_seconds=config.sync_seconds,
            reach_seconds=config.reach_seconds,
            presence=BoardSettings(
                config.presence_renew_seconds, config.presence_expiry_seconds, config.dht_request_seconds
            ),
            door=door,
            max_part_bytes=wire_bytes(made.run.codec.part_values, made.run.codec.contribution),
            strangers_bytes_per_day=config.strangers_bytes_per_day,
            upload_bytes_per_day=config.upload_bytes_per_day,
            listing=lambda: Listing((), published_roots([Path(each) for each in config.published])),
        ),
    )


async def begin(made: Assembled, task: Task | None, events_file: Path) -> None:
    """Take up what was kept of rounds and work, and go on from there. No `task`: the run has ended, nothing is trained."""
    made.machine.convict(await asyncio.to_thread(shown_before, events_file))
    signed = [(record, keep) for record, _, keep in made.notary.replay_records()]
    if made.trainer is not None:
        made.trainer.task = task
        used = (r.first_unit + r.units for r, _ in signed if isinstance(r, Contribution))
        made.trainer.resume(max(used, default=0))
    kept = [unpack(data) for data in (*made.history.everything(), *made.history.current())]
    await made.driver.start(kept, signed)
    for said in kept:  # who has co-signed the newest work already: nobody says it again
        if isinstance(said.record, ContributionReceipt) and said.record.certificate == made.machine.tip:
            made.accounting.on_receipt(said)
        elif isinstance(said.record, StorageReceipt) and made.storage is not None:
            made.storage.on_receipt(said)
    if made.trainer is not None:
        made.trainer.start()
