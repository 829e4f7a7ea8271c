"""What a peer keeps so that contributions can be redone (protocol §7.1), on disk: of the newest epochs all, of older ones, until
`audit.hold_seconds` have passed, what was drawn.

    states/<hash>.safetensors         moments and residual after a boundary, by stateAfter
    contributions/<epoch>-<hash>      the signed contribution and its content
    averages/<epoch>-<certificate>    a round's averages as encoded, one after the other
    draws/<epoch>-<certificate>       which contributions of an epoch were drawn, by the certificate after it; none: no file
    anchors/<epoch>-<certificate>     root of an anchor whose blocks stay in the block store: every few epochs, and wherever
                                      averages are missing, so that each state between can be rebuilt

The own wire bytes lie in the `PartStore`. Nothing here is trusted when it is read: every file is checked against a hash that
others signed.
"""

import contextlib
import logging
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors import SafetensorError

from swarm import events
from swarm.atomic import remove_half_written, replacing, write_atomically
from swarm.audit.draw import drawn
from swarm.averaging.parts import PartStore
from swarm.averaging.states import next_anchor
from swarm.budget import Boundless, Spending
from swarm.checkpoint.anchor import Anchor, anchor_root
from swarm.config import RunConfig
from swarm.device import read_tensors, write_tensors
from swarm.errors import InputError, PeerFault, RetryError, SwarmError, disk_remedy
from swarm.hashing import sha256
from swarm.optim.codec import part_slices, wire_bytes
from swarm.optim.inner import CommittedState
from swarm.records.types import (
    Contribution,
    ContributionContent,
    Hash,
    Record,
    RoundBody,
    RoundCertificate,
    Signed,
    SignedContribution,
)
from swarm.records.wire import pack, unpack

log = logging.getLogger(__name__)
PRUNE_SECONDS = 10.0  # it looks at every file that is kept
NEWEST = 2  # certified epochs of which all is kept: of the last one the draw is not known yet, one more for forks
FRESH_SECONDS = (
    10.0  # what is not that much older than the newest contribution may be of one that is about to be signed
)
OTHERS_START = 2  # epochs before a drawn one from which states are kept: there began who contributed to each
ALWAYS = 2  # newest contributions that are kept however old they are: a restart needs them
FOLDERS = ("states", "contributions", "averages", "anchors", "draws")
_OURS = re.compile(r"[0-9]{12,20}-[0-9a-f]{64}")
_RESIDUAL, _MOMENT = "residual", "moment."


class Archive:
    """Thread-safe. `on_event` returns at once: files are written in a thread of its own. `close` waits for it.
    `hash_record` is the notary's. `owned`: as of `BlockStore`; a reader beside a running peer passes False."""

    def __init__(
        self,
        directory: Path,
        config: RunConfig,
        parts: PartStore,
        hash_record: Callable[[Record], Hash],
        owned: bool = True,
        spending: Spending | None = None,
    ) -> None:
        """`spending`: how much may be written of what can wait."""
        self._spending = spending or Boundless()
        self._directory, self._config, self._parts, self._hash = directory, config, parts, hash_record
        for name in FOLDERS if owned else ():
            (directory / name).mkdir(parents=True, exist_ok=True)
            remove_half_written(directory / name)
        self._pool = ThreadPoolExecutor(1, "archive")
        self._lock = threading.Lock()
        self.pruned_at, self._opened_at = float("-inf"), time.time()
        self.lacks_room = False  # the newest state was not kept: the budget is used up
        self._pinned = dict(self._roots())
        self._last_anchor = max((_epoch_of(name) for name in self._pinned), default=-1)
        newest = max((_epoch_of(p.name) for p in self._listed("averages")), default=self._last_anchor)
        self._last_epoch = max(newest, self._last_anchor)
        self._bodies: OrderedDict[Hash, tuple[int, tuple[Hash, ...]]] = (
            OrderedDict()
        )  # of certificates whose draw is to come
        self._known: set[int] = set()  # epochs of which the draw is known
        self._drawn = {key for path in self._listed("draws") for key in _hashes(path)}
        self._kept: dict[str, SignedContribution] = {}  # contributions by file name, read once
        self.is_stored: Callable[[Hash], bool] = lambda root: True  # whether an anchor's blocks are here

    def close(self) -> None:
        """Idempotent; what is queued is written first."""
        self._pool.shutdown(wait=True)

    def flush(self, seconds: float) -> None:
        """Until all that was queued before is written; TimeoutError where it takes longer."""
        self._pool.submit(lambda: None).result(seconds)

    def _listed(self, name: str) -> list[Path]:
        """By epoch. What is not named as `_name` does is not ours: half-written, or left by a file manager."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(p for p in (self._directory / name).iterdir() if _OURS.fullmatch(p.name) and p.is_file())
        return []

    def _roots(self) -> Iterator[tuple[str, Hash]]:
        """Of the kept anchors; a damaged file names no root, so its anchor may go."""
        for path in self._listed("anchors"):
            try:
                root = path.read_bytes()
            except OSError as error:
                log.warning("%s cannot be read (%s): its anchor is not kept for audits", path, error.strerror)
                continue
            if len(root) == 32:
                yield path.name, root
            else:
                log.warning("%s is damaged: its anchor is not kept for audits", path)

    # -- what is kept -------------------------------------------------------------------------------------------------
    def keep_state(self, state: CommittedState) -> None:
        """On disk when this returns, unless the budget has no room for it: then nobody can redo what begins or ends there.
        `RetryError` where the disk is full."""
        path = self._directory / "states" / (state.hash().hex() + ".safetensors")
        tensors = {_MOMENT + name: value for name, value in state.tensors.items()}
        self.lacks_room = not self._spending.take(
            "audits", state.residual.nbytes + sum(v.nbytes for v in tensors.values())
        )
        if self.lacks_room:
            return
        try:
            with replacing(path) as part:
                write_tensors(part, {**tensors, _RESIDUAL: state.residual}, {"num_steps": str(state.num_steps)})
        except (OSError, SafetensorError) as error:
            raise RetryError(
                f"{path.parent}: the training state cannot be kept ({error}); {disk_remedy(error)}"
            ) from None

    def on_event(self, event: events.Event) -> None:
        """Keeps what a signed contribution and a certificate add."""
        if isinstance(event, events.Contributed):
            self._submit(lambda: self._keep_contribution(event.signed))
        elif isinstance(event, events.Certified):
            self._certified(event)

    def _submit(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except (OSError, SwarmError) as error:
                log.warning("not kept for audits: %s", error)

        with contextlib.suppress(RuntimeError):  # closed: a late event
            self._pool.submit(guarded)

    def _keep_contribution(self, signed: Signed) -> None:
        write_atomically(
            self._directory / "contributions" / _name(signed.record.epoch, self._hash(signed.record)), pack(signed)
        )

    def _certified(self, event: events.Certified) -> None:
        epoch, rounds = event.certificate.epoch, self._config.audit.anchor_every_epochs
        self._draw(event)
        averages = [self._parts.get(digest) for digest in event.body.averages]
        complete = None not in averages
        changes = event.certificate.next_root != event.certificate.prev_root
        with self._lock:
            follows = epoch == self._last_epoch + 1 and (complete or not changes)
            is_due = epoch - self._last_anchor >= rounds
            is_new = epoch > self._last_epoch
            if is_new and (not follows or (is_due and self._spending.take("anchors", self._anchor_bytes(event.body)))):
                self._pin(epoch, event.id, event.certificate.next_root)
            self._last_epoch = max(self._last_epoch, epoch)
        if complete and averages and not self.has_averages(event.id, epoch):
            data = b"".join(wire for wire in averages if wire is not None)
            self._submit(lambda: write_atomically(self._directory / "averages" / _name(epoch, event.id), data))
        if time.monotonic() - self.pruned_at > PRUNE_SECONDS:
            self.pruned_at = time.monotonic()
            self._submit(lambda: self.prune(time.time() - self._config.audit.hold_seconds))

    def _draw(self, event: events.Certified) -> None:
        """Of the epoch before, which this certificate decides on."""
        before = self._bodies.pop(event.certificate.prev_certificate, None)
        self._bodies[event.id] = event.certificate.epoch, tuple(leaf.contribution for leaf in event.body.contributors)
        while len(self._bodies) > 8:
            self._bodies.popitem(last=False)
        if before is None:
            return
        epoch, contributions = before
        found = drawn(event.id, contributions, self._config.audit.rate)
        with self._lock:
            self._known.add(epoch)
            self._drawn |= found
        path = self._directory / "draws" / _name(epoch, event.id)
        if found and event.certificate.epoch > self._last_epoch:  # a start hears of the whole lineage again
            self._submit(lambda: write_atomically(path, b"".join(sorted(found))))

    def _anchor_bytes(self, body: RoundBody) -> int:
        """About what one takes: parameters and momentum, fp32. At most one part too many."""
        return 8 * len(body.averages) * self._config.codec.part_values

    def _pin(self, epoch: int, certificate_id: Hash, root: Hash) -> None:
        self._last_anchor = max(self._last_anchor, epoch)
        self._pinned[_name(epoch, certificate_id)] = root
        self._submit(lambda: write_atomically(self._directory / "anchors" / _name(epoch, certificate_id), root))

    def pin(self, epoch: int, certificate_id: Hash, root: Hash) -> None:
        """This anchor's blocks stay: what follows is rebuilt from it."""
        with self._lock:
            self._pin(epoch, certificate_id, root)

    def has_averages(self, certificate_id: Hash, epoch: int) -> bool:
        return (self._directory / "averages" / _name(epoch, certificate_id)).is_file()

    def pinned_roots(self) -> frozenset[Hash]:
        """Roots of the anchors whose blocks must stay."""
        with self._lock:
            return frozenset(self._pinned.values())

    def prune_all(self) -> None:
        """What was drawn goes too, but for the newest epochs."""
        with contextlib.suppress(RuntimeError, TimeoutError):  # closed, or a disk that hangs
            self._pool.submit(self.prune, time.time()).result(PRUNE_SECONDS)

    def prune(self, older_than: float) -> None:
        """Forget what nobody may ask for any more: what was written before `older_than` (unix seconds) or was not drawn, and is not of
        the newest epochs nor needed to redo what is kept."""
        with self._lock:
            newest, known, drawn_ones = self._last_epoch, set(self._known), set(self._drawn)
        kept, starts = self._wanted(older_than, newest, known, drawn_ones)
        records = [signed.record for signed in kept.values()]
        digests: set[Hash] = set()
        for signed in [*kept.values(), *starts.values()]:
            digests.update(leaf.digest for leaf in signed.content.parts)
        states = {key.hex() for record in records for key in (record.state_after, record.state_before)}
        for path in self._listed("contributions"):
            if path.name in self._kept and path.name not in kept and path.name not in starts:
                _forget(path)
                del self._kept[path.name]
        # what came later may be of the next one, also of the first, which a slow disk and signature keep waiting
        times = [path.stat().st_mtime for path in self._listed("contributions")[-1:]]
        settled_before = min(time.time(), *(times or [self._opened_at])) - FRESH_SECONDS
        self._parts.prune(digests, settled_before)
        for path in (self._directory / "states").iterdir():  # what a crash left half-written, too
            if path.stem not in states:
                _forget(path, settled_before)
        self._prune_states_between(self._spans(older_than, newest, kept))

    def _wanted(
        self, older_than: float, newest: int, known: set[int], drawn_ones: set[Hash]
    ) -> tuple[dict[str, SignedContribution], dict[str, SignedContribution]]:
        """Own contributions that stay, and those that they start from, by file name."""
        paths = self._listed("contributions")
        for path in paths:
            if path.name not in self._kept:
                with contextlib.suppress(OSError, PeerFault):
                    self._kept[path.name] = self._unpack(path.read_bytes())
        kept: dict[str, SignedContribution] = {}
        for place, path in enumerate(paths):
            epoch, key = _epoch_of(path.name), bytes.fromhex(path.name.split("-")[1])
            is_open = epoch not in known or key in drawn_ones
            with contextlib.suppress(OSError):
                is_young = path.stat().st_mtime >= older_than
                if place >= len(paths) - ALWAYS or (is_young and (is_open or epoch > newest - NEWEST)):
                    kept.update({path.name: self._kept[path.name]} if path.name in self._kept else {})
        starting = {signed.record.previous.hex() for signed in kept.values()}
        starts = {n: s for n, s in self._kept.items() if n.split("-")[1] in starting and n not in kept}
        return kept, starts

    def _spans(self, older_than: float, newest: int, kept: Mapping[str, SignedContribution]) -> list[tuple[int, int]]:
        """First and last epoch of states that are needed one after the other."""
        epochs = {name.split("-")[1]: _epoch_of(name) for name in self._kept}
        spans = [(newest - OTHERS_START, newest)]
        for name, signed in kept.items():
            record, last = signed.record, _epoch_of(name) - 1
            start = epochs.get(record.previous.hex(), last + 1 - len(signed.content.merges))
            spans.append((min(start, last + 1) - 1, last))
        for path in self._listed("draws"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < older_than:
                    _forget(path)
                else:
                    spans.append((_epoch_of(path.name) - OTHERS_START, _epoch_of(path.name)))
        return spans

    def _prune_states_between(self, spans: Sequence[tuple[int, int]]) -> None:
        """Averages and anchors that no span needs go; so do anchors whose blocks never came."""
        with self._lock:
            newest = max(map(_epoch_of, self._pinned), default=-1)
            there = {n: r for n, r in self._pinned.items() if _epoch_of(n) == newest or self.is_stored(r)}
        bases = sorted(map(_epoch_of, there))
        wanted: set[int] = set()
        used: set[int] = {newest}
        for first, last in spans:
            base = max((epoch for epoch in bases if epoch <= first), default=0)
            used.add(base)
            wanted.update(range(base, last + 1))
        for path in self._listed("averages"):
            if _epoch_of(path.name) not in wanted:
                _forget(path)
        for path in self._listed("anchors"):
            if _epoch_of(path.name) not in used:
                _forget(path)
        with self._lock:
            self._pinned = {n: r for n, r in self._pinned.items() if _epoch_of(n) in used or _epoch_of(n) > newest}

    # -- what is found ------------------------------------------------------------------------------------------------
    def contribution(self, key: Hash) -> SignedContribution | None:
        """The kept contribution of this hash; None where it is not here, or damaged."""
        for path in (self._directory / "contributions").glob(f"*-{key.hex()}"):
            with contextlib.suppress(OSError, PeerFault):
                signed = self._unpack(path.read_bytes())
                return signed if self._hash(signed.record) == key else None
        return None

    def has_state(self, key: Hash) -> bool:
        return (self._directory / "states" / (key.hex() + ".safetensors")).is_file()

    def state(self, key: Hash) -> CommittedState | None:
        """The state with this hash, or None; one that has rotted counts as absent."""
        try:
            tensors, metadata = read_tensors(self._directory / "states" / (key.hex() + ".safetensors"))
            found = CommittedState(
                {name[len(_MOMENT) :]: value for name, value in tensors.items() if name.startswith(_MOMENT)},
                tensors[_RESIDUAL],
                int(metadata["num_steps"]),
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
        return found if found.hash() == key else None

    def contributions(self) -> dict[Hash, tuple[Contribution, ContributionContent]]:
        """All that are kept, by hash, in order of their epochs; damaged ones are left out."""
        return {self._hash(signed.record): (signed.record, signed.content) for signed in self.signed()}

    def signed(self) -> Iterator[SignedContribution]:
        """The kept contributions as they were signed, in order of their epochs; damaged ones are left out."""
        for path in self._listed("contributions"):
            with contextlib.suppress(OSError, PeerFault):
                signed = self._unpack(path.read_bytes())
                if path.name == _name(signed.record.epoch, self._hash(signed.record)):
                    yield signed

    def _unpack(self, data: bytes) -> SignedContribution:
        signed = unpack(data)
        if not isinstance(signed.record, Contribution) or not isinstance(signed.content, ContributionContent):
            raise PeerFault("contribution: another record was kept")
        return signed.of(Contribution).holding(ContributionContent)

    def averages(
        self, certificate_id: Hash, epoch: int, digests: tuple[Hash, ...], num_values: int
    ) -> list[bytes] | None:
        """A round's averages by part, each with the digest in the certificate's body; None if they are not here."""
        try:
            data = (self._directory / "averages" / _name(epoch, certificate_id)).read_bytes()
        except OSError:
            return None
        codec, at, out = self._config.codec, 0, []
        for where in part_slices(num_values, codec.part_values):
            size = wire_bytes(where.stop - where.start, codec.average)
            out.append(data[at : at + size])
            at += size
        return out if at == len(data) and tuple(sha256(wire) for wire in out) == digests else None


def rebuild_anchor(
    config: RunConfig,
    certificate_id: Hash,
    certificates: Callable[[Hash], tuple[RoundCertificate, RoundBody] | None],
    stored: Callable[[Hash], Anchor | None],
    averages: Callable[[Hash, RoundCertificate, RoundBody], list[bytes] | None],
) -> Anchor:
    """The anchor of a certificate: from the nearest stored one and the averages since, checked against the certified root.

    `certificates(id)`: with its body; `stored(root)`: an anchor from checked blocks; `averages(id, …)`: as encoded. The id 0
    stands for the initial anchor. `InputError` says what is missing."""
    path: list[tuple[Hash, RoundCertificate, RoundBody]] = []
    at, anchor = certificate_id, None
    while anchor is None:
        if at == bytes(32):
            anchor = stored(bytes.fromhex(config.initial_root))
            if anchor is None:
                raise InputError("anchor", config.initial_root, "the initial anchor's blocks are not here; fetch them")
            break
        found = certificates(at)
        if found is None:
            raise InputError("certificate", at.hex(), "is not here; fetch the lineage from a peer")
        anchor = stored(found[0].next_root)
        if anchor is None:
            path.append((at, *found))
            at = found[0].prev_certificate
    for identity, certificate, body in reversed(path):
        if certificate.next_root == certificate.prev_root:
            continue
        wires = averages(identity, certificate, body)
        if wires is None:
            raise InputError(
                "averages", f"epoch {certificate.epoch}", "are not here any more; ask another peer for them"
            )
        anchor = next_anchor(config, anchor, wires, body.contributors)
        if anchor_root(anchor) != certificate.next_root:
            raise PeerFault(f"epoch {certificate.epoch}: the averages do not lead to the certified root")
    return anchor


def _name(epoch: int, key: Hash) -> str:
    return f"{epoch:012d}-{key.hex()}"


def _epoch_of(name: str) -> int:
    return int(name.split("-")[0])


def _hashes(path: Path) -> list[Hash]:
    try:
        data = path.read_bytes()
    except OSError:
        return []
    return [data[at : at + 32] for at in range(0, len(data) - len(data) % 32, 32)]


def _forget(path: Path, older_than: float = math.inf) -> None:
    with contextlib.suppress(OSError):  # a folder, say: not ours
        if path.stat().st_mtime < older_than:
            path.unlink()


__all__ = ["Archive", "rebuild_anchor"]
