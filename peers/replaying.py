"""`sparehive run replay`: redo a contribution that a peer has kept, from its directory alone."""

import os
import time
from typing import Any

from incentives import records
from incentives.ledger import Ledger
from peers.bases import folder_of, kept_base
from peers.directory import PeerDirectory
from peers.errors import ConfigError, StartError
from peers.history import certified
from peers.invite import Invite
from peers.notary import values_of
from swarm.audit.archive import Archive, rebuild_anchor
from swarm.audit.replay import CertifiedState, ReplayMaterial, SignedWork, replay_contribution
from swarm.averaging.parts import PartStore
from swarm.checkpoint.anchor import Anchor, read_anchor
from swarm.checkpoint.leaves import store_leaves
from swarm.checkpoint.store import BlockStore
from swarm.device import device_class, shown_device_class
from swarm.errors import InputError, SwarmError
from swarm.records.types import (
    ZERO_HASH,
    Contribution,
    ContributionContent,
    Hash,
    Record,
    RoundBody,
    RoundCertificate,
)
from swarm.tasks import new_model, open_task


def hash_record(record: Record) -> Hash:
    """hashStruct, as `JournalNotary.hash`; needs no key."""
    return records.hash_struct(type(record).__name__, values_of(record))


NOT_KEPT = (
    "is not kept here: it is older than what audits may still ask for (audit.hold_seconds), was not drawn, or "
    "disk_write_bytes_per_day left no room; replay a newer epoch, or raise that in peer.toml"
)


class KeptRun:
    """What a peer's directory holds for a replay; read only, may be used while the peer runs."""

    def __init__(self, directory: PeerDirectory, ledger: Ledger) -> None:
        self.run = Invite.of_file(directory.invite).config
        self.parts = PartStore(directory.contributions, owned=False)
        self.archive = Archive(directory.archive, self.run, self.parts, hash_record, owned=False)
        self.store = BlockStore(directory.blocks, 1 << 62, owned=False)
        self.ledger = ledger
        self.model = new_model(self.run, base=folder_of(kept_base(directory, self.run)))
        self.kept = self.archive.contributions()
        self._states: dict[Hash, CertifiedState] = {}
        self._anchors: dict[Hash, Anchor] = {}

    def material(self, key: Hash) -> ReplayMaterial:
        """InputError where a piece is not there any more."""
        record, content = self.kept[key]
        after = self.archive.state(record.state_after)
        if after is None:
            raise InputError("stateAfter", record.state_after.hex(), NOT_KEPT)
        if record.previous == ZERO_HASH:
            return ReplayMaterial(self._work(record, content), after, None, None, self.certified)
        if record.previous not in self.kept:
            raise InputError("previous", record.previous.hex(), NOT_KEPT)
        previous = self._work(*self.kept[record.previous])
        return ReplayMaterial(
            self._work(record, content), after, previous, self.archive.state(record.state_before), self.certified
        )

    def _work(self, record: Contribution, content: ContributionContent) -> SignedWork:
        wires = [self.parts.get(leaf.digest) for leaf in content.parts]
        return SignedWork(record, content, [wire for wire in wires if wire is not None])

    def certified(self, key: Hash) -> CertifiedState:
        if key not in self._states:
            anchor = rebuild_anchor(self.run, key, self._certificate, self._stored, self._averages)
            found = self._certificate(key)
            root = bytes.fromhex(self.run.initial_root) if found is None else found[0].next_root
            self._anchors[root] = anchor
            self._states[key] = CertifiedState.initial(anchor) if found is None else CertifiedState.of(*found, anchor)
        return self._states[key]

    def _certificate(self, key: Hash) -> tuple[RoundCertificate, RoundBody] | None:
        signed = self.ledger.certificate(key)
        return None if signed is None else certified(signed)

    def _stored(self, root: Hash) -> Anchor | None:
        if root in self._anchors:
            return self._anchors[root]
        get = self.store.getter(lambda digest: InputError("block", digest.hex(), "is not here"))
        try:
            return read_anchor(root, get, self.model.layout)
        except SwarmError:
            return None

    def _averages(self, key: Hash, certificate: RoundCertificate, body: RoundBody) -> list[bytes] | None:
        return self.archive.averages(key, certificate.epoch, body.averages, self.model.flat.numel())


def _missing(digest: Hash) -> StartError:
    return StartError(
        f"block {digest.hex()[:12]} of the run's data is no longer in this peer's cache: redo a newer epoch, or raise data_cache_bytes in "
        "peer.toml for those to come"
    )


def replay_peer(directory: PeerDirectory, epoch: int | None) -> dict[str, Any]:
    """Redo the peer's own contribution of `epoch` (None: the newest). ConfigError where it is not there."""
    if not os.path.lexists(directory.invite):
        raise ConfigError("--dir", str(directory.root), "is no peer's directory; give the one of `sparehive join`")
    with Ledger.read(directory.ledger) as ledger:
        kept = KeptRun(directory, ledger)
        epochs = {record.epoch: key for key, (record, _) in kept.kept.items()}
        if not epochs:
            raise ConfigError("--dir", str(directory.root), "keeps no contribution; let the peer train for a round")
        if epoch is not None and epoch not in epochs:
            raise ConfigError("--epoch", epoch, f"is not kept; there are {min(epochs)} to {max(epochs)}")
        key = epochs[max(epochs) if epoch is None else epoch]
        begun = time.monotonic()
        leaves = store_leaves(bytes.fromhex(kept.run.task.data.root), kept.store, _missing)
        task = open_task(kept.run, directory.data, leaves=leaves)
        found = replay_contribution(kept.run, kept.model, task, kept.material(key), hash_record)
        record, content = kept.kept[key]
        certified = [identity for identity, *_ in ledger.contribution(key)]
        kept.archive.close()
        return {
            "epoch": record.epoch,
            "contribution": "0x" + key.hex(),
            "certified": bool(certified),
            "units": record.units,
            "made_on": shown_device_class(record.device_class),
            "redone_on": shown_device_class(device_class(kept.model.device)),
            "inner_steps": found.inner_steps,
            "merges": [[m.kind, m.inner_step] for m in content.merges],
            "distance": found.distance,
            "moments_distance": found.moments_distance,
            "tolerance": found.tolerance,
            "fault": found.fault,
            "passed": found.passed,
            "seconds": round(time.monotonic() - begun, 3),
        }


__all__ = ["KeptRun", "hash_record", "replay_peer"]
