"""Certificates, their signatures and which branch to follow (protocol §2, §3.6, §5). Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from swarm.errors import PeerFault
from swarm.records.commitments import body_hash, contributors_root, draw_order, electorate_hash, quorum
from swarm.records.types import (
    KIND_ROUND,
    KIND_SEATING,
    ZERO_HASH,
    Account,
    Hash,
    RoundBody,
    RoundCertificate,
    Signed,
)

RECENT_CERTIFICATES = 16
MAX_ELECTORATE = 64
MAX_ATTEMPTS_SIGNED = 64  # by one signer of one certificate
MAX_UNDECIDED = 64  # certificates that lack a quorum, by who was first to sign them
MAX_STRANGE = 1 << 14  # seatings, and certificates whose predecessor is unknown: anyone can make those


@dataclass
class LineageEntry:
    """A certificate known here: its preimages, and who signed it at which attempt."""

    id: Hash
    certificate: RoundCertificate
    body: RoundBody
    signatures: dict[int, dict[Account, bytes]] = field(default_factory=dict)
    attempt: int | None = None  # at which a quorum signed
    order: tuple[Account, ...] = ()  # in which those that may follow are initiated; drawn when first asked for

    def signers(self) -> set[Account]:
        return {account for signed in self.signatures.values() for account in signed}

    def messages(self) -> Iterator[Signed[RoundCertificate, RoundBody]]:
        """One for each signature."""
        for attempt, signed in self.signatures.items():
            for who, signature in signed.items():
                yield Signed(replace(self.certificate, attempt=attempt), who, signature, self.body)


class Trust(NamedTuple):
    """Whose word counts for a seating: the voters of the predecessor, unless those came in by a seating that too few had signed. Then
    it is the voters before them, until as many certificates followed as are recent: who goes on there has accepted it."""

    voters: tuple[Account, ...]
    age: int  # certificates since they had the vote


def check_content(certificate: RoundCertificate, body: RoundBody) -> None:
    """`PeerFault` where the preimages do not belong to the certificate or break a rule that needs no other record."""
    peers = [leaf.peer for leaf in body.contributors]
    if peers != sorted(set(peers)) or list(body.electorate) != sorted(set(body.electorate)):
        raise PeerFault("certificate: contributors or electorate are not ascending")
    if len(body.clip_factors) != len(peers) or not 0 < len(body.electorate) <= MAX_ELECTORATE:
        raise PeerFault("certificate: lists of wrong length")
    if (
        body_hash(body) != certificate.body
        or electorate_hash(body.electorate) != certificate.electorate
        or contributors_root(body.contributors) != certificate.contributors_root
        or len(peers) != certificate.num_contributors
    ):
        raise PeerFault("certificate: its body is not what it commits")
    if certificate.kind == KIND_SEATING and (
        peers or certificate.units or certificate.prev_root != certificate.next_root
    ):
        raise PeerFault("certificate: a seating changes nothing but the electorate")
    if certificate.kind not in (KIND_ROUND, KIND_SEATING):
        raise PeerFault("certificate: unknown kind")


class Lineage:
    """The tree of certificates that hold. The root stands for the run itself: id 0, its electorate are the founders."""

    def __init__(self, run_id: Hash, initial_root: Hash, founders: tuple[Account, ...]) -> None:
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
        self.entries: dict[Hash, LineageEntry] = {ZERO_HASH: LineageEntry(ZERO_HASH, certificate, body, attempt=0)}
        self.children: dict[Hash, list[Hash]] = {}
        self._forks: dict[Hash, None] = {}  # certificates that more than one follows
        self._waiting: dict[Hash, dict[Hash, None]] = {}  # unknown or not yet valid predecessor → ids
        self._undecided: dict[Account, dict[Hash, None]] = {}
        self._num_strange = 0

    def valid(self, identity: Hash) -> bool:
        entry = self.entries.get(identity)
        return entry is not None and entry.attempt is not None

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

    def is_before(self, identity: Hash, tip: Hash) -> bool:
        """Whether `identity` is a proper ancestor of `tip`."""
        epoch = self.entries[identity].certificate.epoch
        while tip != identity and self.entries[tip].certificate.epoch > epoch:
            tip = self.entries[tip].certificate.prev_certificate
            if tip == identity:
                return True
        return False

    def add(
        self, identity: Hash, certificate: RoundCertificate, body: RoundBody, signer: Account, signature: bytes
    ) -> list[Hash]:
        """Take a signature in; ids that hold since (in order). `PeerFault` for a certificate that breaks a rule."""
        entry = self.entries.get(identity)
        if entry is None:
            check_content(certificate, body)
            self._check_signer(certificate, body, signer)
            self._make_room(certificate, signer)
            entry = self.entries[identity] = LineageEntry(identity, certificate.without_attempt(), body)
            self._undecided.setdefault(signer, {})[identity] = None
            self._num_strange += self._is_strange(entry)
        else:
            self._check_signer(entry.certificate, entry.body, signer)
        own = [attempt for attempt, signed in entry.signatures.items() if signer in signed]
        if len(own) >= MAX_ATTEMPTS_SIGNED and certificate.attempt not in own:
            oldest = min(a for a in own if a != entry.attempt)
            del entry.signatures[oldest][signer]
            if not entry.signatures[oldest]:
                del entry.signatures[oldest]
        entry.signatures.setdefault(certificate.attempt, {}).setdefault(signer, signature)
        if entry.attempt is not None:
            return []
        return list(self._decide(identity))

    def _check_signer(self, certificate: RoundCertificate, body: RoundBody, signer: Account) -> None:
        prev = certificate.prev_certificate
        if certificate.kind == KIND_SEATING and prev != ZERO_HASH:
            voters = body.electorate
        elif self.valid(prev):
            voters = self.electorate(prev)
        else:
            return
        if signer not in voters:
            raise PeerFault("certificate: signed by an account that has no vote on it")

    def _is_strange(self, entry: LineageEntry) -> bool:
        return entry.certificate.kind == KIND_SEATING or not self.valid(entry.certificate.prev_certificate)

    def _make_room(self, certificate: RoundCertificate, signer: Account) -> None:
        """Who signs what nobody else does crowds out what it signed itself before."""
        strange = certificate.kind == KIND_SEATING or not self.valid(certificate.prev_certificate)
        if strange and self._num_strange >= MAX_STRANGE:
            raise PeerFault("certificate: too many that nobody knows")
        created = self._undecided.get(signer, {})
        while len(created) >= MAX_UNDECIDED:
            oldest = next(iter(created))
            del created[oldest]
            entry = self.entries[oldest]
            if entry.attempt is not None:
                continue
            others = entry.signers() - {signer}
            heir = next((a for a in sorted(others) if len(self._undecided.get(a, {})) < MAX_UNDECIDED), None)
            if heir is not None:
                self._undecided.setdefault(heir, {})[oldest] = None
                continue
            self._num_strange -= self._is_strange(entry)
            del self.entries[oldest]
            waiting = self._waiting.get(entry.certificate.prev_certificate, {})
            waiting.pop(oldest, None)
            if not waiting:
                self._waiting.pop(entry.certificate.prev_certificate, None)

    def needed(self, entry: LineageEntry) -> int:
        """How many of `deciders` must sign."""
        return quorum(len(self.deciders(entry)))

    def deciders(self, entry: LineageEntry) -> tuple[Account, ...]:
        """The predecessor's electorate; for a seating those whom it seats, the first excepted: the founders."""
        prev = entry.certificate.prev_certificate
        if entry.certificate.kind == KIND_SEATING and prev != ZERO_HASH:
            return entry.body.electorate
        return self.electorate(prev)

    def _decide(self, identity: Hash) -> Iterator[Hash]:
        entry = self.entries[identity]
        prev = entry.certificate.prev_certificate
        if not self.valid(prev):
            self._waiting.setdefault(prev, {})[identity] = None
            return
        if entry.attempt is not None or not self._linked(entry):
            return
        deciders = set(self.deciders(entry))
        for attempt, signed in entry.signatures.items():
            if len(signed.keys() & deciders) >= self.needed(entry):
                entry.attempt = attempt
                self.children.setdefault(prev, []).append(identity)
                if len(self.children[prev]) > 1:
                    self._forks[prev] = None
                yield identity
                for later in sorted(self._waiting.pop(identity, ())):
                    if self.entries[later].certificate.kind == KIND_ROUND:
                        self._num_strange -= 1
                    yield from self._decide(later)
                return

    def _linked(self, entry: LineageEntry) -> bool:
        before, now = self.entries[entry.certificate.prev_certificate].certificate, entry.certificate
        return (
            now.run_id == before.run_id
            and now.epoch == before.epoch + 1
            and now.prev_root == before.next_root
            and now.cumulative_units == before.cumulative_units + now.units
        )

    def path(self, identity: Hash) -> list[Hash]:
        """From the root to `identity`."""
        out = [identity]
        while out[-1] != ZERO_HASH:
            out.append(self.entries[out[-1]].certificate.prev_certificate)
        return out[::-1]

    def ancestors(self, identity: Hash) -> Iterator[Hash]:
        while identity != ZERO_HASH:
            yield identity
            identity = self.entries[identity].certificate.prev_certificate
        yield ZERO_HASH

    def undecided_after(self, identity: Hash) -> list[LineageEntry]:
        """Certificates proposed to follow `identity` that lack a quorum, in the order in which they were heard of."""
        return [e for e in self.entries.values() if e.attempt is None and e.certificate.prev_certificate == identity]

    def contested(self, tip: Hash) -> list[LineageEntry]:
        """All whose signatures may still matter: from the oldest fork on, the newest two at least."""
        path = set(self.ancestors(tip))
        others = [e.certificate.epoch for e in self.entries.values() if e.attempt is not None and e.id not in path]
        first = min([*others, self.entries[tip].certificate.epoch - 1])
        return sorted(
            (e for e in self.entries.values() if e.certificate.epoch >= first and e.id != ZERO_HASH),
            key=lambda entry: entry.certificate.epoch,
        )

    def recent(self, identity: Hash) -> set[Account]:
        """Contributors of the last certificates up to `identity`; near the root also its electorate."""
        out: set[Account] = set()
        for count, at in enumerate(self.ancestors(identity)):
            entry = self.entries[at]
            out |= {leaf.peer for leaf in entry.body.contributors}
            if entry.certificate.kind == KIND_SEATING and entry.certificate.prev_certificate == ZERO_HASH:
                out |= set(entry.body.electorate)
            if count >= RECENT_CERTIFICATES:
                break
        return out

    def _oldest_fork(self, tip: Hash) -> Hash:
        """The first branching on the way to `tip`; `tip` where there is none."""
        on_way = [fork for fork in self._forks if self.is_before(fork, tip)]
        return min(on_way, key=lambda fork: self.entries[fork].certificate.epoch, default=tip)

    def _down_to(self, old: Hash, new: Hash) -> Iterator[Hash]:
        """From `new` back to its ancestor `old`, both included."""
        while new != old:
            yield new
            new = self.entries[new].certificate.prev_certificate
        yield old

    def steps(self, old: Hash, new: Hash) -> tuple[list[Hash], list[Hash]]:
        """What is undone (newest first) and what is taken (oldest first) on the way from one certificate to another."""
        undone, taken = [], []
        while old != new:
            if self.entries[old].certificate.epoch >= self.entries[new].certificate.epoch:
                undone.append(old)
                old = self.entries[old].certificate.prev_certificate
            else:
                taken.append(new)
                new = self.entries[new].certificate.prev_certificate
        return undone, taken[::-1]

    def _trust_at(self, identity: Hash) -> Trust:
        trust = Trust(self.electorate(ZERO_HASH), 0)
        for at in self.path(identity)[1:]:
            trust = self._trust_after(trust, at)
        return trust

    def _trust_after(self, trust: Trust, identity: Hash) -> Trust:
        entry = self.entries[identity]
        if entry.certificate.kind == KIND_SEATING:
            is_trusted = self.is_supported(identity, entry.signers(), trust)
        else:
            is_trusted = not 0 < trust.age < RECENT_CERTIFICATES
        return Trust(entry.body.electorate, 0) if is_trusted else Trust(trust.voters, trust.age + 1)

    def branch_signers(self, identity: Hash, trust: Trust) -> set[Account]:
        """All who signed anything from `identity` on, as far as it is supported. `trust` of its predecessor."""
        order = [(identity, trust)]
        for at, before in order:
            after = self._trust_after(before, at)
            order += [(child, after) for child in self.children.get(at, [])]
        signed: dict[Hash, set[Account]] = {}
        trusts = dict(order)
        for at, _ in reversed(order):
            signed[at] = self.entries[at].signers()
            for child in self.children.get(at, []):
                signers = signed.pop(child)
                if self.is_supported(child, signers, trusts[child]):
                    signed[at] |= signers
        return signed[identity]

    def is_supported(self, identity: Hash, signers: set[Account], trust: Trust) -> bool:
        """Whether a branch with these signers, if a seating begins it, has more than a third of the voters that are trusted:
        one of that many is honest."""
        is_seating = self.entries[identity].certificate.kind == KIND_SEATING
        return not is_seating or len(signers.intersection(trust.voters)) > len(trust.voters) // 3

    def choose(self, tip: Hash, may_follow: Callable[[LineageEntry, Trust], bool]) -> Hash:
        """Fork choice: from the oldest fork on, the child that is supported and whose whole branch has more distinct signers
        among the recent contributors; ties: a round before a seating, then the smaller id. `may_follow` holds back children off
        the own path (a round that stands alone never). What is not supported gives no weight: who chose for its sake would
        stop before it."""
        at = self._oldest_fork(tip)
        on_path = set(self._down_to(at, tip))
        while len(after := self.children.get(at, [])) == 1 and self.entries[after[0]].certificate.kind == KIND_ROUND:
            at = after[0]  # nothing to choose; not every certificate of a long run should cost a walk over all of it
        trust = self._trust_at(at) if self.children.get(at) else None
        while trust is not None and self.children.get(at):
            children = [
                c for c in self.children[at] if (at in on_path and at != tip) or may_follow(self.entries[c], trust)
            ]
            if not children:
                break
            weight = self.recent(at) if len(children) > 1 else set()

            def key(child: Hash, weight: set[Account] = weight, trust: Trust = trust) -> tuple[bool, int, int, Hash]:
                signers, kind = self.branch_signers(child, trust), self.entries[child].certificate.kind
                return (not self.is_supported(child, signers, trust), -len(signers & weight), kind, child)

            at = min(children, key=key) if len(children) > 1 else children[0]
            trust = self._trust_after(trust, at)
        return at
