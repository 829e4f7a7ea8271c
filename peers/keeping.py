"""What a peer has on disk besides its records, and how much it may write: budget, blocks, archive and what they give back, joined."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from peers.books import Books
from peers.config import PeerConfig
from peers.directory import PeerDirectory
from peers.errors import StartError
from peers.history import certified
from swarm.audit.archive import Archive
from swarm.audit.kept import Certified, KeptStates
from swarm.averaging.parts import PartStore
from swarm.budget import DiskBudget, DiskQuota, Measure
from swarm.checkpoint.cache import LeafCache, least_cache_bytes
from swarm.checkpoint.runblocks import RunBlocks
from swarm.config import RecordsConfig, RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.records.types import Account, Hash

BYTES_PER_VALUE = 3 * 8 + 2 * 6 + 16
RECORD_BYTES = 48 << 20


@dataclass(frozen=True)
class Kept:
    """`states`: what comes back after a kill; `budget`: what may be written for it."""

    states: KeptStates
    budget: DiskBudget


def open_budget(directory: PeerDirectory, config: PeerConfig, stack: contextlib.AsyncExitStack) -> DiskBudget:
    """Counts from now on; `stack` closes it."""
    ledger = [directory.ledger.with_name(directory.ledger.name + end) for end in ("", "-wal")]
    growing = [directory.journal, *ledger, directory.events, directory.root / "peer.log"]
    budget = DiskBudget(config.disk_write_bytes_per_day, directory.written, Measure(growing))
    stack.callback(budget.close)
    return budget


def check_quota(config: PeerConfig, run: RunConfig, num_values: int, is_seed: bool) -> None:
    """StartError where what has to be kept of the run does not fit: its text, as files and as blocks; of records what the cache holds, and
    at a seed all; three anchors (the first one, the
    one from which the newest is rebuilt, the next); the averages between; two states of own work; records and logs."""
    data = run.task.data
    records = sum(table.size_bytes() for table in data.tables().values())
    text = 2 * (data.size_bytes() - records) + (records if is_seed else min(records, config.data_cache_bytes))
    needed = text + BYTES_PER_VALUE * num_values + RECORD_BYTES
    if config.disk_quota_bytes < needed:
        raise StartError(
            f"disk_quota_bytes = {config.disk_quota_bytes} in peer.toml: this run has to keep {needed} bytes at least, {text} of them "
            "text; raise it, or join a smaller run"
        )


def open_quota(
    directory: PeerDirectory,
    config: PeerConfig,
    budget: DiskBudget,
    content: RunBlocks,
    archive: Archive,
    cache: LeafCache | None,
) -> DiskQuota:
    """What goes first when the directory is full: records of units that are done, anchors that only joiners want, then what audits may ask
    for of older epochs, then the snapshot. Journal, ledger, keys, the text and what the newest state is rebuilt from never go."""
    snapshot = directory.snapshot
    shrink = () if cache is None else (cache.shrink,)
    relief = (*shrink, content.drop_spare, archive.prune_all, lambda: snapshot.unlink(missing_ok=True))
    return DiskQuota(directory.root, config.disk_quota_bytes, budget, relief)


def open_cache(
    run: RunConfig, account: Account, content: RunBlocks, config: PeerConfig, stack: contextlib.AsyncExitStack
) -> LeafCache | None:
    """Of a volunteer in a run on records; `stack` closes it. StartError where it would be too small to train."""
    data = run.task.data
    if not isinstance(data, RecordsConfig):
        return None
    least = least_cache_bytes(data.leaves_per_draw)
    if config.data_cache_bytes < least:
        raise StartError(
            f"data_cache_bytes = {config.data_cache_bytes} in peer.toml: this run's units take {least} bytes of data at a time; "
            f"--data-cache {least}"
        )
    cache = LeafCache(run, account, content, config.data_cache_bytes)
    stack.push_async_callback(cache.close)
    return cache


def kept_states(
    run: RunConfig, archive: Archive, parts: PartStore, content: RunBlocks, machine: RoundMachine, books: Books
) -> KeptStates:
    """Of the lineage that `machine` follows; before it has been restored, of what the ledger holds."""
    return KeptStates(
        run, archive, parts, content, lambda: machine.tip, _certificates(machine, books), lambda: machine.has_ended
    )


def _certificates(machine: RoundMachine, books: Books) -> Callable[[Hash], Certified | None]:
    def find(identity: Hash) -> Certified | None:
        entry = machine.lineage.entries.get(identity)
        if entry is not None:
            return entry.certificate, entry.body
        signed = books.certificate(identity)
        return None if signed is None else certified(signed)

    return find


__all__ = ["Kept", "kept_states", "open_budget", "open_cache"]
