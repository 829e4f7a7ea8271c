"""Messages as anybody could make them: every record, field and list of the wire, right and wrong in every place."""

import random
from dataclasses import fields, replace
from typing import Any, get_args

from swarm.consensus.machine import RoundMachine
from swarm.errors import PeerFault
from swarm.records.commitments import (
    body_hash,
    complete_hash,
    contributors_root,
    draw_order,
    electorate_hash,
    merges_hash,
    parts_root,
    reducers_hash,
)
from swarm.records.types import (
    ZERO_HASH,
    Account,
    CallContent,
    Content,
    Contribution,
    ContributionContent,
    ContributorLeaf,
    Hash,
    Merge,
    PartLeaf,
    Record,
    ReducerReport,
    ReportContent,
    RoundBody,
    RoundCall,
    RoundCertificate,
    RoundSet,
    SetContent,
    Signed,
)
from swarm.records.wire import pack
from tests.machine.strangers import RUN, key

RECORDS: tuple[type[Any], ...] = get_args(Record)
NUMBERS = (0, 1, 2, 3, 15, 16, 17, 2**16 - 1, 2**16, 2**32 - 2, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 1.0, 2.5, 5e-324, 1e308, -1.0, float("inf"), float("nan"))
LENGTHS = (0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 64, 65)
LONG = (256, 257, 1024, 1025, 4096, 4097)
CONTENTS: dict[type[Any], type[Any]] = {
    Contribution: ContributionContent,
    RoundCall: CallContent,
    ReducerReport: ReportContent,
    RoundSet: SetContent,
    RoundCertificate: RoundBody,
}


class Grammar:
    """Of messages to one peer, whose state it knows."""

    def __init__(self, seed: int, machine: RoundMachine, accounts: list[Account], parts: int) -> None:
        self.rng, self.machine, self.parts = random.Random(seed), machine, parts
        self.accounts = accounts + [key(n) for n in range(6)] + [bytes(20), b"\xff" * 20]
        self.hashes: list[Hash] = [ZERO_HASH, b"\xff" * 32]  # ids and hashes that were met
        self.made: list[bytes] = []

    def message(self) -> bytes:
        """On the wire; not always readable."""
        u = self.rng.random()
        if u < 0.06 and self.made:
            return self._broken(self.rng.choice(self.made))
        if u < 0.12 and self.made:
            return self.rng.choice(self.made)  # again
        while True:
            try:
                data = pack(self._signed())
            except (PeerFault, OverflowError):
                continue  # it cannot be written
            self.made.append(data)
            if len(self.made) > 500:
                self.made.pop(self.rng.randrange(500))
            return data

    def _broken(self, data: bytes) -> bytes:
        rng = self.rng
        at = rng.randrange(len(data))
        return rng.choice(
            (data[:at], data + rng.randbytes(3), data[:at] + rng.randbytes(4) + data[at + 4 :], rng.randbytes(at))
        )

    def _signed(self) -> Signed:
        rng = self.rng
        kind = rng.choice(RECORDS)
        wanted = CONTENTS.get(kind)
        content = self._content(wanted if rng.random() < 0.9 else rng.choice((None, *CONTENTS.values())))
        record = kind(**{f.name: self._value(f.name, f.type) for f in fields(kind)})
        if rng.random() < 0.85:
            record = self._committed(record, content)
        who = record.peer if hasattr(record, "peer") and rng.random() < 0.8 else self._account()
        if isinstance(record, RoundCall | RoundSet) and rng.random() < 0.7 and self.machine.tip != ZERO_HASH:
            who = self.machine.leader(min(record.attempt, 1000))
        if isinstance(content, RoundBody) and content.electorate and rng.random() < 0.5:
            who = rng.choice(content.electorate)
        return Signed(record, who, bytes(65), content)

    # -- fields -------------------------------------------------------------------------------------------------------
    def _account(self) -> Account:
        return self.rng.choice(self.accounts)

    def _hash(self) -> Hash:
        rng, machine = self.rng, self.machine
        u = rng.random()
        if u < 0.45:
            return machine.tip
        if u < 0.9:
            return rng.choice(self.hashes)
        return rng.randbytes(32)

    def _value(self, name: str, kind: Any) -> Any:
        rng = self.rng
        if name == "run_id":
            return RUN if rng.random() < 0.98 else self._hash()
        if name == "peer":
            return self._account()
        if kind not in (int, "int"):
            return self._hash()
        if name == "epoch" and rng.random() < 0.8:
            return self.machine.epoch
        if name in ("attempt", "valid_attempt") and rng.random() < 0.8:
            return max(0, self.machine.attempt + rng.choice((-1, 0, 0, 0, 1)))
        if name in ("kind", "part") and rng.random() < 0.9:
            return rng.randrange(2)
        if name in ("units", "cumulative_units", "num_contributors") and rng.random() < 0.8:
            return rng.choice((0, 0, 1, self.machine.lineage[self.machine.tip].certificate.cumulative_units))
        return rng.choice(NUMBERS)

    def _committed(self, record: Any, content: Content) -> Any:
        """With the hashes of its content, as far as it is of its kind, and following something that is known."""
        rng, lineage = self.rng, self.machine.lineage
        if isinstance(record, Contribution) and isinstance(content, ContributionContent):
            return replace(record, parts_root=parts_root(content.parts), merges_hash=merges_hash(content.merges))
        if isinstance(record, RoundCall) and isinstance(content, CallContent):
            return replace(record, reducers_hash=reducers_hash(content.reducers))
        if isinstance(record, ReducerReport) and isinstance(content, ReportContent):
            return replace(record, complete_hash=complete_hash(content.complete))
        if isinstance(record, RoundSet) and isinstance(content, SetContent):
            if content.certificate is not None:
                record = replace(record, proposal=self.machine.notary.certificate_id(content.certificate))
            elif rng.random() < 0.9:
                record = replace(record, proposal=ZERO_HASH)
            return replace(
                record,
                contributors_root=contributors_root(content.contributors),
                num_contributors=len(content.contributors),
                reducers_hash=reducers_hash(content.reducers),
            )
        if isinstance(record, RoundCertificate) and isinstance(content, RoundBody):
            prev = record.prev_certificate
            if lineage.valid(prev) and rng.random() < 0.9:
                before = lineage[prev].certificate
                record = replace(
                    record, epoch=before.epoch + 1, prev_root=before.next_root, next_root=before.next_root, units=0,
                    cumulative_units=before.cumulative_units,
                )  # fmt: skip
            record = replace(
                record,
                body=body_hash(content),
                electorate=electorate_hash(content.electorate),
                contributors_root=contributors_root(content.contributors),
                num_contributors=len(content.contributors),
            )
            self._met(self.machine.notary.certificate_id(record))
        return record

    def _met(self, hash_: Hash) -> None:
        self.hashes.append(hash_)
        if len(self.hashes) > 200:
            self.hashes.pop(self.rng.randrange(200))

    # -- contents -----------------------------------------------------------------------------------------------------
    def _length(self) -> int:
        return self.rng.choice(LONG if self.rng.random() < 0.002 else LENGTHS)

    def _real(self) -> float:
        return self.rng.choice(REALS if self.rng.random() < 0.1 else REALS[:4])

    def _some_accounts(self) -> tuple[Account, ...]:
        rng = self.rng
        number = self._length()
        found = [self._account() for _ in range(number)] if number > 5 else rng.sample(self.accounts, number)
        u = rng.random()
        if u < 0.7:
            return tuple(sorted(set(found)))
        if u < 0.9:
            return draw_order(self.machine.tip, self.machine.epoch, self.machine.attempt, set(found))
        return tuple(found)

    def _leaves(self) -> tuple[ContributorLeaf, ...]:
        return tuple(
            ContributorLeaf(a, self._hash(), self.rng.choice((0, 1, 2**32 - 1)), self.rng.randrange(4))
            for a in self._some_accounts()
        )

    def _content(self, kind: type[Any] | None) -> Content:
        rng = self.rng
        if kind is ContributionContent:
            number = self.parts if rng.random() < 0.8 else self._length()
            parts = tuple(
                PartLeaf(i if rng.random() < 0.97 else 7, 4, self._hash(), self._real()) for i in range(number)
            )
            merges = tuple(
                Merge(rng.choice(("start", "certificate", "void")), self._hash(), i) for i in range(self._length())
            )
            return ContributionContent(parts, merges)
        if kind is CallContent:
            return CallContent(self._some_accounts())
        if kind is ReportContent:
            hashes = [self._hash() for _ in range(self._length())]
            return ReportContent(tuple(sorted(set(hashes)) if rng.random() < 0.8 else hashes))
        if kind is SetContent:
            leaves, reducers = self._leaves(), self._some_accounts()
            if rng.random() < 0.6:
                return SetContent(leaves, reducers)
            again = RoundCertificate(**{f.name: self._value(f.name, f.type) for f in fields(RoundCertificate)})
            body = replace(self._body(), contributors=leaves, reducers=reducers)
            return SetContent(leaves, reducers, again, body)
        return None if kind is None else self._body()

    def _body(self) -> RoundBody:
        rng = self.rng
        leaves = self._leaves() if rng.random() < 0.4 else ()
        factors = tuple(self._real() for _ in range(len(leaves) if rng.random() < 0.9 else self._length()))
        averages = tuple(self._hash() for _ in range(rng.choice((0, 0, self.parts, self._length()))))
        reducers = self._some_accounts() if rng.random() < 0.3 else ()
        return RoundBody(leaves, reducers, averages, factors, self._real(), self._some_accounts())
