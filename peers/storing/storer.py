"""One storer from start to end: it joins the run as a peer that neither trains nor votes, keeps the run's books, and lets `Keeper` keep
content. No torch, nor anything that needs it.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

from incentives.errors import IncentivesError, StorageError
from peers.advice import Advice, Patience, of_a_storer, of_problems, of_watching
from peers.beside import Beside
from peers.config import PeerConfig, load_peer_config
from peers.descriptors import take_standard_descriptors
from peers.directory import PeerDirectory, write_json
from peers.errors import PeerError, StartError
from peers.eventlog import EventLog
from peers.identity import Identity, open_identity
from peers.invite import Invite
from peers.leaving import CLOSE_SECONDS, LEAVE_SECONDS, end_within, say_why
from peers.listening import open_network
from peers.logs import log_to, print_nothing
from peers.lookout import Lookout, nodes_of
from peers.remembering import forgot
from peers.status import PeerStatus
from peers.storing.books import StorerBooks, open_books
from peers.storing.collecting import Collector
from peers.storing.drawing import StoredObject
from peers.storing.holdings import Holdings
from peers.storing.joining import Reactions, anchor_blocks, find_num_values, join
from peers.storing.keeper import Keeper, KeeperStatistics
from peers.storing.listed import objects_of, pinned, replicas_of
from peers.storing.proving import Prover, Trees
from peers.supervisor import die_with_parent
from swarm import events
from swarm.budget import DiskBudget, Measure
from swarm.cancelling import cancel_all
from swarm.checkpoint.store import BlockStore
from swarm.errors import DiskError, ForgottenSignature, RetryError, SwarmError
from swarm.hashing import sha256
from swarm.network import SwarmNetwork
from swarm.records.types import FLAG_STORES, Hash
from swarm.transport.catalogue import Listing
from swarm.transport.door import Door

log = logging.getLogger(__name__)
STATUS_SECONDS = 0.5
RECORD_BYTES = 64 << 20  # of the quota, for books and logs
CONNECTING_SECONDS, LINK_SECONDS = 3.0, 0.2
MAX_PROOFS = 256


class Storer:
    """`start` brings it up; from then on `failure` and `write_status` are to be asked twice a second."""

    network: SwarmNetwork

    def __init__(self, directory: PeerDirectory) -> None:
        self.directory = directory
        self.config: PeerConfig = load_peer_config(directory.config)
        self.identity: Identity = open_identity(directory)
        self.invite = Invite.of_file(directory.invite)
        self.status = PeerStatus(mode="store", pid=os.getpid(), account="0x" + self.identity.account.hex())
        self.eventlog = EventLog(directory.events)
        self.is_ready = False
        self.books: StorerBooks | None = None
        self.keeper: Keeper | None = None
        self.collector: Collector | None = None
        self.prover: Prover | None = None
        self._budget = _open_budget(directory, self.config)
        self._patience = Patience()
        self._gateway = Beside("peers.offering", directory, directory.gateway, is_wanted=bool(self.config.gateway))
        self._lookout: Lookout | None = None
        self._ipfs = Beside("peers.ipfs_node", directory, directory.ipfs, is_wanted=bool(self.config.ipfs))

    @property
    def quota_bytes(self) -> int:
        """For blocks: what is left of the directory's beside books and logs."""
        return self.config.disk_quota_bytes - min(RECORD_BYTES, self.config.disk_quota_bytes // 4)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Join, and begin. Errors in one line where that cannot be."""
        run, config = self.invite.config, self.config
        store = BlockStore(self.directory.blocks, self.quota_bytes)
        door = Door(run.run_id, self.identity.account, run.admission.stamp_seconds, self.directory.stamp)
        self._enter("connecting")
        telling = asyncio.create_task(self._tell_while_connecting())
        stack.push_async_callback(cancel_all, [telling])
        await door.make(lambda share: self._enter("making a stamp", round(share * 100), 100))
        self._enter("connecting")
        common = (self.directory, config, self.identity, self.invite)
        num_values = await find_num_values(*common, store, door, self._take_network)
        bootstrap = (*self.invite.binding.bootstrap, *config.peers)
        self._take_network(await open_network(self.directory, config, self.invite.binding.bootstrap, SwarmNetwork))
        stack.push_async_callback(self.network.close)
        self.books = books = await open_books(
            stack, self.directory, self.identity, self.invite, self.network, num_values, self._emit
        )
        self.keeper = keeper = self._keeper(store)
        proofs = Proofs()
        self.prover = self._prover(store, proofs)
        reactions = Reactions(books, store, proofs, lambda reach: self.network.declare(FLAG_STORES))
        await join(self.network, *common, reactions, door, self._listing)
        stack.push_async_callback(self.network.close)  # before the books: nothing more is heard then
        books.begin()
        beside = [] if self.collector is None else [self.collector.run()]
        if self.prover is not None:
            beside.append(self.prover.run())
        keeper.start(*beside)
        stack.push_async_callback(keeper.close)
        self._lookout = Lookout(self.directory, nodes_of(config, self.invite), config.watch_seconds)
        stack.callback(self._lookout.close)
        stack.callback(self._gateway.close)
        stack.callback(self._ipfs.close)
        await self._until_linked(bootstrap)
        await cancel_all([telling])
        self._enter("serving")
        self.is_ready = True

    def _keeper(self, store: BlockStore) -> Keeper:
        run, root = self.invite.config, bytes.fromhex(self.invite.config.initial_root)
        pins = pinned(self.config.store_cids)
        keeper = Keeper(
            self.identity.account,
            self.network,
            Holdings(store, self.config.scrub_seconds, self.directory.scrubbed),
            self.quota_bytes,
            objects_of(run),
            replicas_of(run),
            lambda: [*pins, *(self.collector.pins() if self.collector else ())],
            anchor_blocks(root, store),
            lambda num_bytes: self._budget.look() + num_bytes <= self.config.disk_write_bytes_per_day,
        )
        owners, file = self.config.store_owners, self.directory.collected
        self.collector = Collector(owners, self.network, store, lambda: keeper.listings, file)
        return keeper

    def _listing(self) -> Listing:
        """Data sets that were collected are told on, for who collects them too."""
        assert self.keeper is not None and self.collector is not None
        return self.keeper.listing(
            [root for root in self.collector.found if root in self.keeper.holdings.whole_roots()]
        )

    def _prover(self, store: BlockStore, proofs: "Proofs") -> Prover | None:
        """None: the run pays nobody for storing."""
        books, keeper, run = self.books, self.keeper, self.invite.config
        assert books is not None and keeper is not None
        if books.storage is None:
            return None
        listed = {item.root: number for number, item in enumerate(keeper.objects)}

        def shown() -> dict[int, StoredObject]:
            return {
                listed[root]: item
                for root, item in keeper.kept.items()
                if root in listed and keeper.holdings.is_whole(item)
            }

        trees = Trees(self.directory.trees, store)
        rules, storage = books.storage.rules, books.storage
        return Prover(run.run_id, rules, storage, trees, shown, proofs.put, keeper.look_again)

    def _take_network(self, network: SwarmNetwork) -> None:
        self.network = network

    async def _until_linked(self, tried: tuple[str, ...]) -> None:
        """`RetryError` where nobody of the run answers in time."""
        until = time.monotonic() + self.config.join_timeout_seconds
        while not self.network.linked():
            if time.monotonic() > until:
                said = "; ".join(f"{address} {why}" for address, why in self.network.problems().items())
                raise RetryError(
                    f"no peer of the run could be linked within join_timeout_seconds = {self.config.join_timeout_seconds:.0f}: "
                    f"{said or ', '.join(tried) or 'no address is known'}. Ask the organiser whether the seed is up and can be reached"
                )
            await asyncio.sleep(LINK_SECONDS)

    # -- what it says --------------------------------------------------------------------------------------------------
    def _emit(self, event: events.Event) -> None:
        self.eventlog.write(event)
        if isinstance(event, events.Certified):
            if self.prover is not None:
                self.prover.on_event(event)
            self.status.epoch, self.status.root = event.certificate.epoch, "0x" + event.certificate.next_root.hex()

    def _enter(self, phase: str, received: int = 0, total: int = 0) -> None:
        status = self.status
        status.phase, status.received_bytes, status.total_bytes, status.time = phase, received, total, time.time()
        status.write(self.directory.status)

    async def _tell_while_connecting(self) -> None:
        while True:
            await asyncio.sleep(CONNECTING_SECONDS)
            network = getattr(self, "network", None)
            problems = {} if network is None or network.linked() else network.problems()
            said = tuple(of_problems(problems))
            if said != self.status.advice:
                self.status.advice = said
                self._enter(self.status.phase)

    def failure(self) -> BaseException | None:
        """Of a part that may not end."""
        found = None if self.books is None else self.books.failure
        found = found or (None if self.keeper is None else self.keeper.failure)
        return found or self.network.failure

    def write_status(self) -> None:
        status, books, keeper, network = self.status, self.books, self.keeper, self.network
        self._gateway.look()
        self._ipfs.look()
        if self._lookout is not None:
            watch = self._lookout.look()
            status.warning, status.watched_time = watch.warning, watch.time or None
        if books is not None and keeper is not None:
            kept = keeper.statistics()
            status.stored_objects, status.wanted_objects = kept.objects, kept.wanted
            status.stored_bytes, status.quota_bytes = kept.stored_bytes, self.quota_bytes
            status.storers, status.rotten_blocks = kept.storers, kept.rotten
            status.storage_receipts = 0 if books.storage is None else books.storage.num_cosigned
            status.peers, status.present = len(network.linked()), len(network.present())
            status.addresses = network.told_addresses()
            status.reachable = network.reach.is_reachable if network.reach.is_known else None
            status.faults, status.sent_bytes = books.follower.faults, network.sent_bytes()
            status.disk_written_bytes = self._budget.look()
            status.advice = tuple(self._patience.lasting(self._advice(kept), time.monotonic()))
            status.time = time.time()
        status.write(self.directory.status)

    def _advice(self, kept: KeeperStatistics) -> list[Advice]:
        network, reach = self.network, self.network.reach
        is_silent = reach.is_known and not reach.is_reachable
        found = of_problems({} if network.linked() else network.problems())
        if self._lookout is not None and self.invite.terms is not None and self.invite.config.storage is not None:
            found += of_watching(self._lookout.has_node, self._lookout.silence())
        return found + of_a_storer(is_silent, network.node.port, kept.is_full, kept.problem)


class Proofs:
    """Small blocks that are handed out besides: proofs of storage. The newest `MAX_PROOFS`."""

    def __init__(self) -> None:
        self._blocks: dict[Hash, bytes] = {}

    def put(self, data: bytes) -> Hash:
        digest = sha256(data)
        self._blocks[digest] = data
        while len(self._blocks) > MAX_PROOFS:
            self._blocks.pop(next(iter(self._blocks)), None)
        return digest

    def get(self, digest: Hash) -> bytes | None:
        return self._blocks.get(digest)


def _open_budget(directory: PeerDirectory, config: PeerConfig) -> DiskBudget:
    """Counts what is written from now on."""
    ledger = [directory.ledger.with_name(directory.ledger.name + end) for end in ("", "-wal")]
    measure = Measure([directory.journal, *ledger, directory.events, directory.root / "peer.log"])
    return DiskBudget(config.disk_write_bytes_per_day, directory.written, measure)


# -- the process -----------------------------------------------------------------------------------------------------------
async def run(storer: Storer, directory: PeerDirectory) -> None:
    """Until it is asked to stop. Raises where it cannot go on."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with contextlib.AsyncExitStack() as stack:
        starting, asked = asyncio.create_task(storer.start(stack)), asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await _serve(storer, directory, stopping)
            end_within(LEAVE_SECONDS)
        except Exception as error:
            end_within(CLOSE_SECONDS, error, storer.is_ready)
            raise
        finally:
            await cancel_all([starting, asked])
    storer.status.ended = "stopped"
    storer.status.write(directory.status)


async def _serve(storer: Storer, directory: PeerDirectory, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        _check(storer, directory)
        storer.write_status()
        if not directory.ready.exists():
            account, now = storer.status.account, storer.status.time
            write_json(directory.ready, {"pid": os.getpid(), "account": account, "time": now})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_SECONDS):
                await stopping.wait()


def _check(storer: Storer, directory: PeerDirectory) -> None:
    """Raises where a part has failed: `RetryError` where a start anew may help."""
    failure = storer.failure()
    if isinstance(failure, DiskError | StorageError):
        raise StartError(str(failure))
    if isinstance(failure, ForgottenSignature):
        raise StartError(forgot(directory.journal, storer.identity.account, f"others show {failure}"))
    if failure is not None:
        raise RetryError(f"a task of the storer failed: {failure!r}; see peer.log")
    if not storer.network.node.is_alive:
        raise RetryError(storer.network.node.failure or "the p2p daemon has died")


def main() -> None:
    """Of the process; hivemind must have been entered without torch, or with it, before this module is imported."""
    take_standard_descriptors()
    parser = argparse.ArgumentParser(description="one storer; started by sparehive store")
    parser.add_argument("directory", type=Path)
    directory = PeerDirectory(parser.parse_args().directory)
    die_with_parent()
    print_nothing()
    storer: Storer | None = None
    try:
        directory.check()
        with directory.locked():
            directory.ready.unlink(missing_ok=True)
            log_to(directory.root / "peer.log")
            storer = Storer(directory)
            asyncio.run(run(storer, directory))
    except (PeerError, SwarmError, IncentivesError, OSError) as error:
        log.error("%s", error)
        sys.exit(say_why(error, storer is not None and storer.is_ready))


__all__ = ["Storer", "main"]
