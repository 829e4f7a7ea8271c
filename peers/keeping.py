"""What a peer has on disk besides its records, and how much it may write: budget, blocks, archive and what they give back, joined."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from peers.books import Books
from peers.config import PeerConfig
from peers.directory import PeerDirectory
from peers.history import round_body
from swarm.audit.archive import Archive
from swarm.audit.kept import Certified, KeptStates
from swarm.averaging.parts import PartStore
from swarm.budget import DiskBudget, Measure
from swarm.checkpoint.runblocks import RunBlocks
from swarm.config import RunConfig
from swarm.consensus.machine import RoundMachine
from swarm.records.types import Hash, RoundCertificate


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
        if signed is None:
            return None
        certificate = RoundCertificate(**{**signed.values, "attempt": 0})  # type: ignore[arg-type]
        return certificate, round_body(signed.body)

    return find


__all__ = ["Kept", "kept_states", "open_budget"]
