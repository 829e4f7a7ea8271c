"""What a peer's disk gives back after a kill: anchors from blocks and averages, own contributions, committed states (decision 0019).

An anchor is written whole now and then; those between follow from it and the averages, which are written with each certificate.
So what was certified is on disk at every moment, for an eighth of the bytes or less.
"""

import asyncio
import logging
from collections.abc import Callable

import torch

from swarm.audit.archive import Archive, rebuild_anchor
from swarm.averaging.parts import PartStore
from swarm.checkpoint.anchor import Anchor, read_anchor
from swarm.checkpoint.held import HeldAnchor
from swarm.checkpoint.runblocks import RunBlocks
from swarm.config import RunConfig
from swarm.errors import PeerFault, SwarmError
from swarm.optim.inner import CommittedState
from swarm.records.types import ZERO_HASH, Hash, RoundBody, RoundCertificate

log = logging.getLogger(__name__)
MOST_EPOCHS = 64  # that are redone from averages at a start; then an anchor is written whole, whatever the budget says
FLUSH_SECONDS = 30.0
Certified = tuple[RoundCertificate, RoundBody]
Chain = list[tuple[Hash, RoundCertificate, RoundBody]]


class KeptStates:
    """Implements `swarm.averaging.member.AnchorSource` and `swarm.averaging.snapshot.OnDisk` of a running peer.

    `tip()`, `certificates(id)`, `has_ended()`: the lineage that it follows; asked in the loop's thread only."""

    def __init__(
        self,
        config: RunConfig,
        archive: Archive,
        parts: PartStore,
        content: RunBlocks,
        tip: Callable[[], Hash],
        certificates: Callable[[Hash], Certified | None],
        has_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config, self._archive, self._parts, self._content = config, archive, parts, content
        self._tip, self._certificates, self._has_ended = tip, certificates, has_ended
        self._initial = bytes.fromhex(config.initial_root)
        self._safe: dict[Hash, None] = {}  # certificates whose anchor this disk gives back

    def _chain(self, newest: Hash) -> Chain:
        """Certificates from the newest back, as many as are ever redone and a few for a tip that has gone on."""
        chain: Chain = []
        while newest != ZERO_HASH and len(chain) < 2 * MOST_EPOCHS:
            found = self._certificates(newest)
            if found is None:
                break
            chain.append((newest, *found))
            newest = found[0].prev_certificate
        return chain

    def _is_rebuildable(self, chain: Chain) -> bool:
        """Whether the anchor after the first of `chain` follows from blocks and averages that are on disk."""
        for _, certificate, _ in chain[:1]:
            if self._content.store.has(certificate.next_root):
                return True
        for identity, certificate, _ in chain[:MOST_EPOCHS]:
            changes = certificate.next_root != certificate.prev_root
            if changes and not self._archive.has_averages(identity, certificate.epoch):
                return False
            if self._content.store.has(certificate.prev_root):
                return True
        return False

    # -- as AnchorSource ----------------------------------------------------------------------------------------------
    async def save(self, anchor: Anchor) -> None:
        """As `RunBlocks.save`; written whole wherever it could not be rebuilt."""
        await asyncio.to_thread(self._save, anchor, self._chain(self._tip()), self._has_ended())

    def _save(self, anchor: Anchor, chain: Chain, is_last: bool) -> None:
        held = HeldAnchor(anchor)
        at = next((i for i, (_, certificate, _) in enumerate(chain) if certificate.next_root == held.root), None)
        try:
            self._archive.flush(FLUSH_SECONDS)
        except (TimeoutError, RuntimeError):
            log.warning("the averages are not on disk after %.0f s: the anchor is written whole", FLUSH_SECONDS)
            at = None
        if at is None or not self._is_rebuildable(chain[at:]):
            if at is not None and held.root != self._initial:
                identity, certificate, _ = chain[at]
                self._archive.pin(certificate.epoch, identity, held.root)
            self._content.keep(held, must=True)
        else:
            self._content.keep(held, must=is_last)
        if at is not None:
            self._safe[chain[at][0]] = None
            while len(self._safe) > MOST_EPOCHS:
                self._safe.pop(next(iter(self._safe)))

    async def load(self, root: Hash, is_obsolete: Callable[[], bool] = lambda: False) -> Anchor:
        """From blocks; else rebuilt, where this disk has what that takes; else from peers. As `RunBlocks.load`."""
        if not self._content.store.has(root):
            chain = self._chain(self._tip())
            at = next((i for i, (_, certificate, _) in enumerate(chain) if certificate.next_root == root), None)
            if at is not None:
                found = await asyncio.to_thread(self._rebuilt, chain[at:])
                if found is not None:
                    return found
        return await self._content.load(root, is_obsolete)

    def _rebuilt(self, chain: Chain) -> Anchor | None:
        if not self._is_rebuildable(chain):
            return None
        known = {identity: (certificate, body) for identity, certificate, body in chain}
        try:
            return rebuild_anchor(self._config, chain[0][0], known.get, self._stored, self._averages)
        except SwarmError as error:
            log.warning("the state of epoch %d cannot be rebuilt here: %s", chain[0][1].epoch, error)
            return None

    def _stored(self, root: Hash) -> Anchor | None:
        get = self._content.store.getter(lambda digest: PeerFault(f"block {digest.hex()[:12]} is not here"))
        try:
            return read_anchor(root, get, self._content.layout)
        except SwarmError:
            return None

    def _averages(self, key: Hash, certificate: RoundCertificate, body: RoundBody) -> list[bytes] | None:
        return self._archive.averages(key, certificate.epoch, body.averages, self._content.layout.num_values())

    # -- as OnDisk ----------------------------------------------------------------------------------------------------
    def has_anchor(self, certificate_id: Hash) -> bool:
        return certificate_id in self._safe or (certificate_id == ZERO_HASH and self._content.store.has(self._initial))

    def anchor(self, certificate_id: Hash) -> torch.Tensor | None:
        if certificate_id == ZERO_HASH:
            initial = self._stored(self._initial)
            return None if initial is None else initial.parameters
        chain = self._chain(certificate_id)
        found = self._rebuilt(chain) if chain else None
        if found is None:
            return None
        self._safe[certificate_id] = None
        return found.parameters

    def has_contribution(self, contribution: Hash) -> bool:
        signed = self._archive.contribution(contribution)
        return signed is not None and all(self._parts.is_on_disk(leaf.digest) for leaf in signed.content.parts)

    def contribution(self, contribution: Hash) -> bytes | None:
        signed = self._archive.contribution(contribution)
        if signed is None:
            return None
        wires = [self._parts.get(leaf.digest) for leaf in signed.content.parts]
        return b"".join(wire for wire in wires if wire is not None) if None not in wires else None

    def has_state(self, key: Hash) -> bool:
        return self._archive.has_state(key)

    def state(self, key: Hash) -> CommittedState | None:
        return self._archive.state(key)


__all__ = ["KeptStates"]
