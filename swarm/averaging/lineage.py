"""Certificates, their signatures and which branch to follow (PROTOCOL §2, §3.6, §5). Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from swarm.averaging.commitments import body_hash, contributors_root, electorate_hash, quorum
from swarm.averaging.records import KIND_ROUND, KIND_SEATING, ZERO_HASH, Account, Hash, RoundBody, RoundCertificate
from swarm.errors import PeerFault

RECENT_CERTIFICATES = 16
MAX_ELECTORATE = 64


@dataclass
class Entry:
    """A certificate known here: its preimages, and who signed it at which attempt."""

    id: Hash
    certificate: RoundCertificate
    body: RoundBody
    signatures: dict[int, dict[Account, bytes]] = field(default_factory=dict)
    attempt: int | None = None  # at which a quorum signed

    def signers(self) -> set[Account]:
        return {account for signed in self.signatures.values() for account in signed}


def check_content(certificate: RoundCertificate, body: RoundBody) -> None:
    """`PeerFault` where the preimages do not belong to the certificate or break a rule that needs no other record."""
    peers = [leaf.peer for leaf in body.contributors]
    if peers != sorted(set(peers)) or list(body.electorate) != sorted(set(body.electorate)):
        raise PeerFault("certificate: contributors or electorate are not ascending")
    if len(body.clip_factors) != len(peers) or len(body.electorate) > MAX_ELECTORATE:
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
        self.entries: dict[Hash, Entry] = {ZERO_HASH: Entry(ZERO_HASH, certificate, body, attempt=0)}
        self.children: dict[Hash, list[Hash]] = {}
        self._waiting: dict[Hash, set[Hash]] = {}  # unknown or not yet valid predecessor → ids

    def valid(self, identity: Hash) -> bool:
        entry = self.entries.get(identity)
        return entry is not None and entry.attempt is not None

    def __getitem__(self, identity: Hash) -> Entry:
        return self.entries[identity]

    def electorate(self, identity: Hash) -> tuple[Account, ...]:
        """Who may certify what follows `identity`."""
        return self.entries[identity].body.electorate

    def add(
        self, identity: Hash, certificate: RoundCertificate, body: RoundBody, signer: Account, signature: bytes
    ) -> list[Hash]:
        """Take a signature in; ids that hold since (in order). `PeerFault` for a certificate that breaks a rule."""
        entry = self.entries.get(identity)
        if entry is None:
            check_content(certificate, body)
            entry = self.entries[identity] = Entry(identity, certificate, body)
        signatures = entry.signatures.setdefault(certificate.attempt, {})
        if len(signatures) < 4 * MAX_ELECTORATE:
            signatures.setdefault(signer, signature)
        if entry.attempt is not None:
            return []
        return list(self._settle(identity))

    def _settle(self, identity: Hash) -> Iterator[Hash]:
        entry = self.entries[identity]
        prev = entry.certificate.prev_certificate
        if not self.valid(prev):
            self._waiting.setdefault(prev, set()).add(identity)
            return
        if entry.attempt is not None or not self._linked(entry):
            return
        if entry.certificate.kind == KIND_SEATING and prev != ZERO_HASH:
            voters = entry.body.electorate
        else:
            voters = self.electorate(prev)
        for attempt, signed in entry.signatures.items():
            if len(signed.keys() & set(voters)) >= quorum(len(voters)):
                entry.attempt = attempt
                self.children.setdefault(prev, []).append(identity)
                yield identity
                for later in sorted(self._waiting.pop(identity, ())):
                    yield from self._settle(later)
                return

    def _linked(self, entry: Entry) -> bool:
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

    def branch_signers(self, identity: Hash) -> set[Account]:
        """All who signed anything from `identity` on."""
        out: set[Account] = set()
        stack = [identity]
        while stack:
            at = stack.pop()
            out |= self.entries[at].signers()
            stack += self.children.get(at, [])
        return out

    def choose(self, tip: Hash, may_follow: Callable[[Entry], bool]) -> Hash:
        """Fork choice: from the oldest fork on, the child whose whole branch has more distinct signers among the recent
        contributors; ties: a round before a seating, then the smaller id. `may_follow` holds back children off the own path."""
        on_path = set(self.ancestors(tip))
        at = ZERO_HASH
        while self.children.get(at):
            children = [c for c in self.children[at] if (at in on_path and at != tip) or may_follow(self.entries[c])]
            if not children:
                break
            if len(children) == 1:
                at = children[0]
                continue
            weight = self.recent(at)

            def key(child: Hash, weight: set[Account] = weight) -> tuple[int, int, Hash]:
                return (-len(self.branch_signers(child) & weight), self.entries[child].certificate.kind, child)

            at = min(children, key=key)
        return at
