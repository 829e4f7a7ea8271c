"""Certificates, their signatures, and which of them hold (protocol §2, §3.6, §5). Pure; what holds stands in `Branches`."""

from collections.abc import Callable

from swarm.consensus.branches import RECENT_CERTIFICATES, Branch, Branches, LineageEntry, Trust
from swarm.consensus.rules import NO_END
from swarm.consensus.shelf import SIGNATURE_BYTES_KEPT, Shelf, kept_bytes
from swarm.errors import PeerFault
from swarm.records.commitments import body_hash, contributors_root, draw_order, electorate_hash, quorum
from swarm.records.types import KIND_ROUND, KIND_SEATING, ZERO_HASH, Account, Hash, RoundBody, RoundCertificate
from swarm.records.units import clock_units

MAX_ELECTORATE = 64
MAX_ATTEMPTS_SIGNED = 64  # by one signer of one certificate
MAX_UNDECIDED = 64  # certificates that lack a quorum, by who was first to sign them
OPEN_CERTIFICATES = 256  # a branch that has grown within so many is told to who links up
MAX_STRANGE_TOLD = 64  # seatings on the tip that no voter has signed: told, as it may be all that is left


def check_content(certificate: RoundCertificate, body: RoundBody) -> None:
    """`PeerFault` where the preimages do not belong to the certificate or break a rule that needs no other record."""
    peers = [leaf.peer for leaf in body.contributors]
    if peers != sorted(set(peers)) or list(body.electorate) != sorted(set(body.electorate)):
        raise PeerFault("certificate: contributors or electorate are not ascending")
    if len(body.clip_factors) != len(peers) or not 0 < len(body.electorate) <= MAX_ELECTORATE:
        raise PeerFault("certificate: lists of wrong length")
    if certificate.kind not in (KIND_ROUND, KIND_SEATING):
        raise PeerFault("certificate: unknown kind")
    if certificate.kind == KIND_SEATING and (
        peers or body.reducers or body.averages or certificate.units or certificate.prev_root != certificate.next_root
    ):
        raise PeerFault("certificate: a seating changes nothing but the electorate")
    if (
        body_hash(body) != certificate.body
        or electorate_hash(body.electorate) != certificate.electorate
        or contributors_root(body.contributors) != certificate.contributors_root
        or len(peers) != certificate.num_contributors
    ):
        raise PeerFault("certificate: its body is not what it commits")


class Lineage(Branches):
    """The tree of certificates that hold, and those that lack a quorum or their predecessor. The root stands for the run itself:
    id 0, its electorate are the founders.

    What strangers can make lies on `shelf`: certificates whose predecessor is unknown, seatings that too few trusted voters
    have signed, and all that stands on those. Each is forgotten when it has to make room."""

    def __init__(
        self,
        run_id: Hash,
        initial_root: Hash,
        founders: tuple[Account, ...],
        shelf: Shelf | None = None,
        max_units: int = NO_END,
        total_units: int = NO_END,
    ) -> None:
        """`max_units` of a contribution count; the run ends where its clock reaches `total_units`."""
        electorate = tuple(sorted(founders))
        body = RoundBody((), (), (), (), 0.0, electorate)
        certificate = RoundCertificate(
            run_id,
            0,
            0,
            KIND_SEATING,
            ZERO_HASH,
            initial_root,
            initial_root,
            ZERO_HASH,
            0,
            0,
            0,
            electorate_hash(electorate),
            ZERO_HASH,
        )
        super().__init__(LineageEntry(ZERO_HASH, certificate, body, attempt=0))
        self._max_units, self._total_units = max_units, total_units
        self.shelf = Shelf() if shelf is None else shelf
        self._pending: dict[Hash, dict[Hash, None]] = {}  # without a quorum, by predecessor, known or not
        self._undecided: dict[Account, dict[Hash, None]] = {}
        self._number = 0
        self.forgotten: Callable[[LineageEntry], None] = lambda entry: None  # is told what made room

    def __getitem__(self, identity: Hash) -> LineageEntry:
        return self.entries[identity]

    def electorate(self, identity: Hash) -> tuple[Account, ...]:
        """Who may certify what follows `identity`."""
        return self.entries[identity].body.electorate

    def initiator(self, identity: Hash, attempt: int) -> Account:
        """The first-ranked voter; after a time-out the next of the same order, so that a dead one is not drawn twice."""
        entry = self.entries[identity]
        if not entry.order:
            entry.order = draw_order(identity, entry.certificate.epoch + 1, 0, entry.body.electorate)
        return entry.order[attempt % len(entry.order)]

    def may_initiate(self, identity: Hash, attempt: int, account: Account) -> bool:
        """Whether `account` is the one initiator of this attempt at what follows `identity`."""
        return account == self.initiator(identity, attempt)

    def units_left(self, identity: Hash) -> int:
        """On the run's clock, after a certificate that holds."""
        return max(0, self._total_units - self.entries[identity].clock)

    def is_last(self, identity: Hash) -> bool:
        """Whether the run ends with it: then nothing that follows it holds, whoever signs that."""
        return self.valid(identity) and not self.units_left(identity)

    # -- taking in ----------------------------------------------------------------------------------------------------
    def add(
        self,
        identity: Hash,
        certificate: RoundCertificate,
        body: RoundBody,
        signer: Account,
        signature: bytes,
        sender: Account | None = None,
    ) -> list[Hash]:
        """Take a signature in, which `sender` handed on; ids that hold since (in order). `PeerFault` for a certificate that breaks
        a rule."""
        entry = self.entries.get(identity)
        if entry is None:
            check_content(certificate, body)
            self._check_signer(certificate, body, signer)
            self._make_room(signer)
            self._number += 1
            entry = LineageEntry(identity, certificate.without_attempt(), body, creator=signer, number=self._number)
            self.entries[identity] = entry
            self._undecided.setdefault(signer, {})[identity] = None
            self._pending.setdefault(certificate.prev_certificate, {})[identity] = None
            entry.brought_by = signer if sender is None else sender
            if self._is_strangers(entry):
                self._shelve(entry)
        else:
            self._check_signer(entry.certificate, entry.body, signer)
        own = [attempt for attempt, signed in entry.signatures.items() if signer in signed]
        if len(own) >= MAX_ATTEMPTS_SIGNED and certificate.attempt not in own:
            oldest = min(a for a in own if a != entry.attempt)
            del entry.signatures[oldest][signer]
            if not entry.signatures[oldest]:
                del entry.signatures[oldest]
        at_attempt = entry.signatures.setdefault(certificate.attempt, {})
        if signer in at_attempt:
            return []
        at_attempt[signer] = signature
        self.shelf.grow(entry.ticket, SIGNATURE_BYTES_KEPT)
        if entry.attempt is None:
            return self._decide(identity)
        if not own and self.valid(identity):
            self._signed(entry, signer)
        return []

    def _check_signer(self, certificate: RoundCertificate, body: RoundBody, signer: Account) -> None:
        prev = certificate.prev_certificate
        if self.is_last(prev):
            raise PeerFault("certificate: it follows the run's last one")
        if certificate.kind == KIND_SEATING and prev != ZERO_HASH:
            voters = body.electorate
        elif self.valid(prev):
            voters = self.electorate(prev)
        else:
            return
        if signer not in voters:
            raise PeerFault("certificate: signed by an account that has no vote on it")

    def _is_strangers(self, entry: LineageEntry) -> bool:
        """Whether anybody could have made what lacks a quorum."""
        prev = entry.certificate.prev_certificate
        if not self.valid(prev) or self.is_strange(prev):
            return True
        is_seating = entry.certificate.kind == KIND_SEATING and prev != ZERO_HASH
        return is_seating and not entry.is_vouched

    def _look_at_signers(self, entry: LineageEntry) -> None:
        """Of what lacks a quorum on a known predecessor."""
        prev = entry.certificate.prev_certificate
        branch = self.branch_of(prev)
        voters = branch.voters if branch.is_strange else self.entries[prev].trust.voters
        entry.is_vouched = entry.is_vouched or not entry.signers().isdisjoint(voters)
        if entry.ticket is not None and not self._is_strangers(entry):
            self.no_longer_strange(entry)

    def _shelve(self, entry: LineageEntry) -> None:
        size = kept_bytes(entry.body) + SIGNATURE_BYTES_KEPT * sum(map(len, entry.signatures.values()))
        entry.ticket = self.shelf.put(entry.brought_by, size, lambda: self._forget(entry.id))
        if self.entries.get(entry.id) is not entry:  # made room at once
            self.no_longer_strange(entry)

    def no_longer_strange(self, entry: LineageEntry) -> None:
        self.shelf.take(entry.ticket)
        entry.ticket = None

    def _make_room(self, signer: Account) -> None:
        """Who signs what nobody else does crowds out what it signed itself before."""
        created = self._undecided.get(signer, {})
        while len(created) >= MAX_UNDECIDED:
            entry = self.entries[next(iter(created))]
            others = entry.signers() - {signer}
            heir = next((a for a in sorted(others) if len(self._undecided.get(a, {})) < MAX_UNDECIDED), None)
            if heir is None:
                self._forget(entry.id)
            else:
                self._disown(entry)
                entry.creator = heir
                self._undecided.setdefault(heir, {})[entry.id] = None

    def _disown(self, entry: LineageEntry) -> None:
        created = self._undecided[entry.creator]
        del created[entry.id]
        if not created:
            del self._undecided[entry.creator]

    def _settle(self, entry: LineageEntry) -> None:
        """It lacks a quorum no more, or is forgotten."""
        self._disown(entry)
        prev = entry.certificate.prev_certificate
        del self._pending[prev][entry.id]
        if not self._pending[prev]:
            del self._pending[prev]

    def _forget(self, identity: Hash) -> None:
        """It makes room: what lacks a quorum alone, what holds with all of the strange branch that it belongs to."""
        entry = self.entries.get(identity)
        if entry is None:
            return
        if entry.attempt is None:
            self._settle(entry)
            del self.entries[identity]
            self.no_longer_strange(entry)
            self.forgotten(entry)
            return
        branch = self.branch_of(identity)
        while branch.parent is not None and branch.parent.is_strange:
            branch = branch.parent
        if branch.is_strange:
            self._cut(branch)

    def _cut(self, branch: Branch) -> None:
        head = self.entries[branch.head]
        before = self.entries[head.certificate.prev_certificate]
        todo = [branch]
        while todo:
            part = todo.pop()
            todo += part.hanging.values()
            for identity in list(self._certificates(part)):
                entry = self.entries.pop(identity)
                self.children.pop(identity, None)
                self.no_longer_strange(entry)
        self._in_doubt &= self.entries.keys()
        del self.children[before.id][head.id]
        before.supported.pop(head.id, None)
        del self.branch_of(before.id).hanging[head.id]
        self._look_at_fork(before)

    def needed(self, entry: LineageEntry) -> int:
        """How many of `deciders` must sign."""
        return quorum(len(self.deciders(entry)))

    def deciders(self, entry: LineageEntry) -> tuple[Account, ...]:
        """The predecessor's electorate; for a seating those whom it seats, the first excepted: the founders."""
        prev = entry.certificate.prev_certificate
        if entry.certificate.kind == KIND_SEATING and prev != ZERO_HASH:
            return entry.body.electorate
        return self.electorate(prev)

    def _decide(self, identity: Hash) -> list[Hash]:
        """What holds by now: this, and all that waited for it."""
        found: list[Hash] = []
        todo = [identity]
        while todo:
            entry = self.entries.get(todo.pop())
            if entry is None or entry.attempt is not None or not self.valid(entry.certificate.prev_certificate):
                continue
            deciders, needed = set(self.deciders(entry)), self.needed(entry)
            signed = (a for a, who in entry.signatures.items() if len(who.keys() & deciders) >= needed)
            attempt = next(signed, None) if self._linked(entry) else None
            if attempt is None:
                self._look_at_signers(entry)
                continue
            self._settle(entry)
            entry.attempt = attempt
            before = self.entries[entry.certificate.prev_certificate]
            entry.clock = before.clock + clock_units(entry.body.contributors, self._max_units)
            self._grow(entry)
            if not self.is_strange(entry.id):
                self.no_longer_strange(entry)
            elif entry.ticket is None:
                self._shelve(entry)
            found.append(entry.id)
            todo += sorted(self._pending.get(entry.id, ()), reverse=True)
        return [held for held in found if self.valid(held)]

    def _linked(self, entry: LineageEntry) -> bool:
        before, now = self.entries[entry.certificate.prev_certificate].certificate, entry.certificate
        return (
            not self.is_last(now.prev_certificate)
            and now.run_id == before.run_id
            and now.epoch == before.epoch + 1
            and now.prev_root == before.next_root
            and now.cumulative_units == before.cumulative_units + now.units
        )

    # -- what others are told -----------------------------------------------------------------------------------------
    def undecided_after(self, identity: Hash) -> list[LineageEntry]:
        """Certificates proposed to follow `identity` that lack a quorum, in the order in which they were heard of."""
        return [self.entries[after] for after in self._pending.get(identity, ())]

    def after(self, identity: Hash) -> list[LineageEntry]:
        """All certificates on `identity`, with a quorum or without."""
        return [self.entries[at] for at in self.children.get(identity, ())] + self.undecided_after(identity)

    def contested(self, tip: Hash) -> list[LineageEntry]:
        """All whose signatures may still matter, for who links up: from the oldest open fork on, the newest two at least. A branch
        is open while it has support and has grown of late: who still follows a closed one tells of it."""
        newest = self.entries[tip].certificate.epoch
        first, told = newest - 1, []
        leave, branch = newest, self.entries[tip].branch
        is_way: Hash = ZERO_HASH
        while branch is not None:
            for epoch, beside in self._beside(branch, leave, is_way):
                if max(self.entries[at].certificate.epoch for at in beside) > newest - OPEN_CERTIFICATES:
                    first = min(first, epoch)
                    told += beside
            is_way, leave, branch = branch.head, branch.hangs_on, branch.parent
        for at in self.ancestors(tip):
            if self.entries[at].certificate.epoch < first:
                break
            told.append(at)
        entries = [self.entries[at] for at in told if at != ZERO_HASH] + self._proposed(tip, first)
        return sorted(entries, key=lambda entry: (entry.certificate.epoch, entry.number))

    def _beside(self, branch: Branch, leave: int, is_way: Hash) -> list[tuple[int, list[Hash]]]:
        """Of a branch that the way to the tip leaves at epoch `leave`, for `is_way`: the first epoch and all certificates of each
        branch that goes on elsewhere and that a trusted voter has signed."""
        beside = [other for other in branch.hanging.values() if other.hangs_on <= leave and other.head != is_way]
        rest = [at for at in self._certificates(branch) if self.entries[at].certificate.epoch > leave]
        found = []
        if rest:
            later = [other for other in branch.hanging.values() if other.hangs_on > leave]
            found.append((leave + 1, rest + self._all_of(later)))
        for other in beside:
            if certificates := self._all_of([other]):
                found.append((other.hangs_on + 1, certificates))
        return found

    def _all_of(self, todo: list[Branch]) -> list[Hash]:
        found: list[Hash] = []
        while todo:
            branch = todo.pop()
            if branch.is_vouched or not branch.is_strange:
                found += self._certificates(branch)
                todo += branch.hanging.values()
        return found

    def _proposed(self, tip: Hash, first: int) -> list[LineageEntry]:
        """Without a quorum: what voters have signed, and a little of what they have not. Of that also what holds, by those that it seats
        alone: where all voters are dead the living may have to choose among such seatings, and must know the same."""
        pending = [self.entries[at] for after in self._pending.values() for at in after]
        known = [e for e in pending if e.certificate.epoch >= first and (e.is_vouched or e.ticket is None)]
        strange = [e for e in self.undecided_after(tip) if not (e.is_vouched or e.ticket is None)]
        heads = [self.entries[at] for at in self.children.get(tip, ()) if not self.is_known(at)]
        newest = sorted(strange + heads, key=lambda entry: entry.number)[-MAX_STRANGE_TOLD:]
        return known + newest

    def is_known(self, identity: Hash) -> bool:
        """Whether it holds, and somebody else than strangers has signed in its branch."""
        return self.valid(identity) and (self.branch_of(identity).is_vouched or not self.is_strange(identity))


__all__ = ["MAX_ELECTORATE", "RECENT_CERTIFICATES", "Branch", "Lineage", "LineageEntry", "Trust", "check_content"]
