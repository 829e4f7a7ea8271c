"""The tree of certificates that hold, who weighs in which part of it, and which branch to follow (protocol §5.4). Pure.

The tree is cut into *branches*: a seating, or a second certificate on one predecessor, begins one; rounds that follow each other stay
in it. A branch notes for each account the newest epoch at which its signature counts in it, so that the signers of all that
follows any certificate of it are those with a newer epoch: nothing is walked for that. What hangs on a branch and gives weight
counts at the epoch of the certificate that it hangs on. A message therefore costs what it changes, however old the run is.
"""

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from swarm.records.types import KIND_ROUND, KIND_SEATING, ZERO_HASH, Account, Hash, RoundBody, RoundCertificate, Signed

RECENT_CERTIFICATES = 16


class Trust(NamedTuple):
    """Whose word counts for a seating: the voters of the predecessor, unless those came in by a seating that too few had signed. Then
    it is the voters before them, until as many certificates followed as are recent: who goes on there has accepted it."""

    voters: tuple[Account, ...]
    age: int  # certificates since they had the vote


NOBODY = Trust((), 0)


@dataclass(eq=False)
class Branch:
    """Certificates in a row."""

    head: Hash
    parent: "Branch | None"
    hangs_on: int  # epoch of the head's predecessor
    end: Hash  # the newest of them
    is_strange: bool = False  # unsupported, or on such a one, and never followed: anybody can make it
    voters: frozenset[Account] = frozenset()  # of a strange one: who was trusted where that begins
    is_vouched: bool = False  # one of them has signed something in it, or in what hangs on it
    gives_weight: bool = False  # to what it hangs on
    last: dict[Account, int] = field(default_factory=dict)  # newest epoch at which who signed counts
    hanging: dict[Hash, "Branch"] = field(default_factory=dict)  # on certificates of this one, by head
    forks: dict[int, Hash] = field(
        default_factory=dict
    )  # by epoch: what more than one follows, and weight decides between


@dataclass
class LineageEntry:
    """A certificate known here: its preimages, and who signed it at which attempt."""

    id: Hash
    certificate: RoundCertificate
    body: RoundBody
    signatures: dict[int, dict[Account, bytes]] = field(default_factory=dict)
    attempt: int | None = None  # at which a quorum signed
    order: tuple[Account, ...] = ()  # in which those that may follow are initiated; drawn when first asked for
    number: int = 0  # in the order in which they were heard of
    creator: Account = b""  # who was first to sign it
    brought_by: Account = b""  # who handed that on
    is_vouched: bool = False  # without a quorum: who is trusted at its predecessor has signed it
    ticket: int | None = None  # of the shelf, where it is strange
    # Of what holds:
    jump: Hash = ZERO_HASH  # an ancestor far back, so that any is found in a logarithm of steps
    trust: Trust = NOBODY  # after it
    clock: int = 0  # of the run, after it
    branch: Branch | None = field(default=None, repr=False)
    supported: dict[Hash, None] = field(default_factory=dict)  # of what follows it

    def signers(self) -> set[Account]:
        return {account for signed in self.signatures.values() for account in signed}

    def messages(self) -> Iterator[Signed[RoundCertificate, RoundBody]]:
        """One for each signature."""
        for attempt, signed in self.signatures.items():
            for who, signature in signed.items():
                yield Signed(replace(self.certificate, attempt=attempt), who, signature, self.body)


class Branches:
    """What holds; id 0 stands for the run itself."""

    def __init__(self, root: LineageEntry) -> None:
        self.entries: dict[Hash, LineageEntry] = {root.id: root}
        self.children: dict[Hash, dict[Hash, None]] = {}
        root.trust = Trust(root.body.electorate, 0)
        root.branch = Branch(root.id, None, -1, root.id, gives_weight=True)
        self._chosen: Hash = root.id  # the way to it is what choice takes at every fork, but for those in doubt
        self._in_doubt: set[Hash] = set()

    def valid(self, identity: Hash) -> bool:
        entry = self.entries.get(identity)
        return entry is not None and entry.attempt is not None

    def branch_of(self, identity: Hash) -> Branch:
        """Of a certificate that holds."""
        branch = self.entries[identity].branch
        assert branch is not None
        return branch

    def is_strange(self, identity: Hash) -> bool:
        """Whether this, or a seating before it, is nothing that enough trusted voters have signed, and was never followed."""
        return self.branch_of(identity).is_strange

    # -- ancestors ----------------------------------------------------------------------------------------------------
    def is_before(self, identity: Hash, tip: Hash) -> bool:
        """Whether `identity` is a proper ancestor of `tip`, which holds."""
        if identity == tip or not self.valid(identity):
            return False
        epoch, at = self.entries[identity].certificate.epoch, self.entries[tip]
        while at.certificate.epoch > epoch:
            far = self.entries[at.jump]
            at = far if far.certificate.epoch >= epoch else self.entries[at.certificate.prev_certificate]
        return at.id == identity

    def _jump(self, before: LineageEntry) -> Hash:
        """For what follows `before`: jumps of lengths that double, as in a skew-binary number (Myers 1983)."""
        far = self.entries[before.jump]
        farther = self.entries[far.jump]
        near = before.certificate.epoch - far.certificate.epoch
        return farther.id if near == far.certificate.epoch - farther.certificate.epoch else before.id

    def path(self, identity: Hash) -> list[Hash]:
        """From the root to `identity`."""
        return list(self.ancestors(identity))[::-1]

    def ancestors(self, identity: Hash) -> Iterator[Hash]:
        """From `identity` to the root."""
        while identity != ZERO_HASH:
            yield identity
            identity = self.entries[identity].certificate.prev_certificate
        yield ZERO_HASH

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

    # -- weight -------------------------------------------------------------------------------------------------------
    def signers_among(self, identity: Hash, accounts: Set[Account]) -> set[Account]:
        """Who of them signed anything from `identity` on, as far as it is supported."""
        branch, epoch = self.branch_of(identity), self.entries[identity].certificate.epoch
        if len(branch.last) < len(accounts):
            return {a for a, last in branch.last.items() if last >= epoch and a in accounts}
        return {a for a in accounts if branch.last.get(a, -1) >= epoch}

    def is_supported(self, identity: Hash) -> bool:
        """Whether the branch that a certificate begins, if that is a seating, has more than a third of the voters that are trusted:
        one of that many is honest. A round needs none."""
        before = self.entries[self.entries[identity].certificate.prev_certificate]
        return identity in before.supported

    def gives_weight(self, branch: Branch) -> bool:
        """Whether who signed in it counts for what it hangs on: who chose for the sake of what is not supported would stop before
        it."""
        return self.is_supported(branch.head)

    def _has_support(self, entry: LineageEntry) -> bool:
        if entry.certificate.kind == KIND_ROUND:
            return True
        voters = set(self.entries[entry.certificate.prev_certificate].trust.voters)
        return len(self.signers_among(entry.id, voters)) > len(voters) // 3

    def _trust_after(self, trust: Trust, entry: LineageEntry) -> Trust:
        if entry.certificate.kind == KIND_SEATING:
            is_trusted = len(entry.signers().intersection(trust.voters)) > len(trust.voters) // 3
        else:
            is_trusted = not 0 < trust.age < RECENT_CERTIFICATES
        return Trust(entry.body.electorate, 0) if is_trusted else Trust(trust.voters, trust.age + 1)

    def _grow(self, entry: LineageEntry) -> None:
        """It holds since now."""
        before = self.entries[entry.certificate.prev_certificate]
        parent = self.branch_of(before.id)
        entry.jump, entry.trust = self._jump(before), self._trust_after(before.trust, entry)
        siblings = self.children.setdefault(before.id, {})
        siblings[entry.id] = None
        if entry.certificate.kind == KIND_ROUND:
            before.supported[entry.id] = None
        if entry.certificate.kind == KIND_ROUND and parent.end == before.id:
            entry.branch, parent.end = parent, entry.id
        else:
            made = Branch(entry.id, parent, before.certificate.epoch, entry.id)
            entry.branch = parent.hanging[entry.id] = made
            made.is_strange = parent.is_strange or entry.certificate.kind == KIND_SEATING
            made.voters = parent.voters if parent.is_strange else frozenset(before.trust.voters)
        if len(siblings) > 1:
            self._look_at_fork(before)
        for account in entry.signers():
            self._count(entry.branch, account, entry.certificate.epoch)
        self._weigh(entry.branch)

    def _signed(self, entry: LineageEntry, account: Account) -> None:
        """One more signature under what holds."""
        branch = self.branch_of(entry.id)
        self._count(branch, account, entry.certificate.epoch)
        if entry.certificate.kind == KIND_SEATING:
            self._trust_anew(entry)
            self._weigh(branch)

    def _count(self, branch: Branch, account: Account, epoch: int) -> None:
        todo = [(branch, account, epoch)]
        while todo:
            branch, account, epoch = todo.pop()
            before = branch.last.get(account)
            if before is not None and before >= epoch:
                continue
            branch.last[account] = epoch
            if before is None:
                self._vouch(branch, account)
            self._doubt(branch, -1 if before is None else before, epoch)
            if before is not None or branch.parent is None:
                continue
            # One more signer of all of it.
            self._doubt(branch.parent, branch.hangs_on, branch.hangs_on + 1)
            self._note_support(branch)
            gave, branch.gives_weight = branch.gives_weight, self.gives_weight(branch)
            more = [account] if gave else list(branch.last) if branch.gives_weight else []
            todo += [(branch.parent, who, branch.hangs_on) for who in more]

    def _vouch(self, branch: Branch, account: Account) -> None:
        above: Branch | None = branch
        while above is not None and above.is_strange and not above.is_vouched and account in branch.voters:
            above.is_vouched = True
            above = above.parent

    def _note_support(self, branch: Branch) -> None:
        head = self.entries[branch.head]
        before = self.entries[head.certificate.prev_certificate]
        has = self._has_support(head)
        if has == (head.id in before.supported):
            return
        if has:
            before.supported[head.id] = None
            self._familiar(branch)
        else:
            del before.supported[head.id]
        self._look_at_fork(before)

    def _weigh(self, branch: Branch) -> None:
        """Whether its support, and the weight that it gives, are as noted; after anything but one more signer."""
        has_lost = False  # signers
        while branch.parent is not None:
            self._note_support(branch)
            gave, branch.gives_weight = branch.gives_weight, self.gives_weight(branch)
            if branch.gives_weight and not gave:
                for who in list(branch.last):
                    self._count(branch.parent, who, branch.hangs_on)
                return
            if not gave or (branch.gives_weight and not has_lost):
                return
            branch = branch.parent
            has_lost = self._count_anew(branch)
            if not has_lost:
                return

    def _count_anew(self, branch: Branch) -> bool:
        """Something that hangs on it gives less weight than before, which is rare: whose word is trusted has changed before it.
        Whether it has lost signers."""
        had, branch.last = branch.last, {}
        for identity in self._certificates(branch):
            entry = self.entries[identity]
            for who in entry.signers():
                branch.last.setdefault(who, entry.certificate.epoch)
        for other in branch.hanging.values():
            for who in other.last if other.gives_weight else ():
                branch.last[who] = max(branch.last.get(who, -1), other.hangs_on)
        self._in_doubt.update(branch.forks.values())
        has_lost = had.keys() != branch.last.keys()
        if has_lost and branch.parent is not None:
            self._doubt(branch.parent, branch.hangs_on, branch.hangs_on + 1)
        return has_lost

    def _certificates(self, branch: Branch) -> Iterator[Hash]:
        """Of one branch, newest first."""
        for identity in self.ancestors(branch.end):
            yield identity
            if identity == branch.head:
                return

    def _trust_anew(self, entry: LineageEntry) -> None:
        """A seating has one more signer: whose word counts may be others from there on."""
        todo = [entry]
        while todo:
            entry = todo.pop()
            trust = self._trust_after(self.entries[entry.certificate.prev_certificate].trust, entry)
            if trust == entry.trust:
                continue
            entry.trust = trust
            for child in self.children.get(entry.id, ()):
                todo.append(self.entries[child])
                if self.entries[child].certificate.kind == KIND_SEATING:
                    self._weigh(self.branch_of(child))

    def _familiar(self, branch: Branch) -> None:
        """It has support, or is followed: nothing of it that is not on another strange one may make room any more."""
        todo = [branch]
        while todo:
            branch = todo.pop()
            is_off = branch.parent is not None and branch.parent.is_strange
            if not branch.is_strange or is_off:
                continue
            branch.is_strange = False
            for identity in self._certificates(branch):
                self.no_longer_strange(self.entries[identity])
            todo += [other for other in branch.hanging.values() if self.is_supported(other.head)]

    def no_longer_strange(self, entry: LineageEntry) -> None:
        """For who counts what is."""

    # -- choice -------------------------------------------------------------------------------------------------------
    def _look_at_fork(self, before: LineageEntry) -> None:
        """What follows it, or the support of that, has changed."""
        self._in_doubt.add(before.id)
        forks, epoch = self.branch_of(before.id).forks, before.certificate.epoch
        if len(self.children[before.id]) > 1 and len(before.supported) != 1:
            forks[epoch] = before.id
        else:
            forks.pop(epoch, None)

    def _doubt(self, branch: Branch, first: int, last: int) -> None:
        """Weight has changed of what follows the certificates of a branch with `first` ≤ epoch < `last`."""
        forks = branch.forks
        among = range(first, last) if last - first < len(forks) else list(forks)
        self._in_doubt.update(forks[epoch] for epoch in among if epoch in forks and first <= epoch < last)

    def _best(self, identity: Hash, candidates: list[Hash]) -> Hash:
        """Of several that may follow `identity`: the supported, then the heaviest; ties: a round before a seating, then the
        smaller id."""
        supported = self.entries[identity].supported
        among = [c for c in candidates if c in supported] or candidates
        if len(among) == 1:
            return among[0]
        recent = self.recent(identity)

        def key(child: Hash) -> tuple[int, int, Hash]:
            return -len(self.signers_among(child, recent)), self.entries[child].certificate.kind, child

        return min(among, key=key)

    def _leaves_the_way(self, tip: Hash) -> Hash:
        """The oldest certificate on the way to `tip` after which another branch is to be taken; `tip` where there is none."""
        if tip != self._chosen:
            self._in_doubt = {at for at, after in self.children.items() if len(after) > 1}
        on_way = [at for at in self._in_doubt if self.is_before(at, tip)]
        for at in sorted(on_way, key=lambda fork: self.entries[fork].certificate.epoch):
            best = self._best(at, list(self.entries[at].supported or self.children[at]))
            if best != tip and not self.is_before(best, tip):
                return at
        return tip

    def choose(self, tip: Hash, may_follow: Callable[[LineageEntry], bool]) -> Hash:
        """Fork choice: from the oldest fork on, the child that is supported and whose whole branch has more distinct signers
        among the recent contributors. `may_follow` holds back children off the own path (a round that stands alone never)."""
        at = self._leaves_the_way(tip)
        self._in_doubt = set()
        is_own = at != tip
        while after := self.children.get(at):
            may = list(after) if is_own else [c for c in after if may_follow(self.entries[c])]
            is_own = False
            if len(may) < len(after):
                self._in_doubt.add(at)  # what was held back may be the better one
            if not may:
                break
            at = self._best(at, may)
            self._familiar(self.branch_of(at))
        self._chosen = at
        return at
