"""A swarm in one thread, in lock-step: real models, optimisers, codecs, reduction, outer step and records; no network, no clock.

`Lineage` certifies sets of contributions; a `Learner` trains, contributes and merges when the test says so.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from incentives import records
from peers.notary import values_of
from swarm import tasks
from swarm.audit.replay import CertifiedState, Replay, ReplayMaterial, SignedWork, replay_contribution
from swarm.averaging.merge import MadeContribution, MemberState
from swarm.averaging.states import next_anchor, pulls, reduce_part
from swarm.checkpoint.anchor import Anchor, anchor_root
from swarm.config import RunConfig
from swarm.device import HOST
from swarm.models import FlatModel, build_model, for_tokens
from swarm.optim.codec import part_slices
from swarm.optim.inner import CommittedState, InnerOptimizer
from swarm.records.commitments import contributors_root, merges_hash, parts_root
from swarm.records.types import (
    ZERO_HASH,
    Account,
    Contribution,
    ContributionContent,
    ContributorLeaf,
    Hash,
    Record,
    RoundBody,
    RoundCertificate,
)
from swarm.tasks import InPieces, open_task
from swarm.train import inner_step

TEXT = b"".join(b"def f%d(x): return x * %d + %d\n" % (i, i * 7 % 13, i) for i in range(2000))


def hash_record(record: Record) -> Hash:
    return records.hash_struct(type(record).__name__, values_of(record))


def write_text(directory: Path, text: bytes = TEXT) -> dict[str, Any]:
    """The data section of a config, with its file in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "text.txt").write_bytes(text)
    file = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    return {"root": "11" * 32, "text": file, "context": 16}


def make_config(directory: Path, data: dict[str, Any] | None = None, **sections: dict[str, Any]) -> RunConfig:
    values: dict[str, Any] = {
        "name": "test",
        "task": {
            "kind": "causal_lm",
            "model": {"family": "gpt2", "fields": {"n_embd": 32, "n_layer": 1, "n_head": 2}},
            "data": {**write_text(directory), **(data or {})},
        },
        "inner": {"lr": 4e-3, "batch_size": 8, "steps_per_unit": 4, "warmup_units": 4, "total_units": 400},
        "outer": {"momentum_ramp_rounds": 4},
        "codec": {"contribution": "int8", "average": "int8", "part_values": 8192},
        "initial_root": anchor_root(initial_anchor()).hex(),
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return RunConfig.parse(values)


def new_model(device: torch.device = HOST) -> FlatModel:
    from swarm.config import UntrainedModel

    config = UntrainedModel(kind="untrained", fields={"n_embd": 32, "n_layer": 1, "n_head": 2})
    return FlatModel(build_model(config, for_tokens(16), seed=7), device)


@cache
def initial_anchor() -> Anchor:
    model = new_model()
    return Anchor(model.flat.clone(), torch.zeros_like(model.flat), model.layout, 0, 0)


class Lineage:
    def __init__(self, config: RunConfig, anchor: Anchor | None = None) -> None:
        self.config = config
        self.tip, self.epoch, self.anchor, self.median = ZERO_HASH, 0, anchor or initial_anchor(), 0.0
        self.states: dict[Hash, CertifiedState] = {ZERO_HASH: CertifiedState.initial(self.anchor)}
        self.certificates: dict[Hash, tuple[RoundCertificate, RoundBody]] = {}
        self.wires: dict[Hash, list[bytes]] = {}

    def certify(self, works: list[SignedWork], kind: int = 0) -> Hash:
        """A round over `works` (none: the epoch is void), or a seating; the new tip."""
        works = sorted(works, key=lambda w: w.record.peer)
        leaves = tuple(ContributorLeaf(w.record.peer, hash_record(w.record), w.record.units, 3) for w in works)
        contents, size = [w.content for w in works], self.anchor.parameters.numel()
        found = pulls(self.config, leaves, contents, self.median, self.anchor.counted_units, size)
        averages: list[bytes] = []
        if works:
            for index, where in enumerate(part_slices(size, self.config.codec.part_values)):
                wires = [w.wires[index] for w in works]
                averages.append(reduce_part(self.config, index, where.stop - where.start, contents, wires, found))
        units = sum(leaf.units for leaf in leaves)
        old = self.anchor
        self.anchor = next_anchor(self.config, old, averages, leaves)
        self.median, self.epoch = found.median, self.epoch + 1
        digests = tuple(hashlib.sha256(wire).digest() for wire in averages)
        body = RoundBody(leaves, (), digests, found.factors, found.median, ())
        certificate = RoundCertificate(
            self.config.run_id, self.epoch, 0, kind, self.tip, anchor_root(old), anchor_root(self.anchor),
            contributors_root(leaves), len(leaves), units, self.anchor.counted_units, ZERO_HASH, ZERO_HASH,
        )  # fmt: skip
        self.tip = records.certificate_id(values_of(certificate))
        self.states[self.tip] = CertifiedState.of(certificate, body, self.anchor)
        self.certificates[self.tip] = (certificate, body)
        self.wires[self.tip] = averages
        return self.tip


@dataclass
class Learner:
    lineage: Lineage
    account: Account
    task: InPieces
    model: FlatModel = field(default_factory=new_model)

    def __post_init__(self) -> None:
        self.config = self.lineage.config
        self.inner = InnerOptimizer(self.config.inner, self.model.flat, self.model.matrices)
        self.kept: dict[Hash, SignedWork] = {}
        self.committed: dict[Hash, CommittedState] = {}
        self.begin()

    def begin(self, next_unit: int = 0) -> None:
        """As a joiner, or after lost state."""
        line = self.lineage
        self.model.flat.copy_(line.anchor.parameters)
        self.member = MemberState.fresh(
            line.tip, line.epoch, line.anchor.parameters, line.anchor.counted_units, self.inner, next_unit
        )

    def steps(self, count: int) -> float:
        loss = torch.zeros((), device=self.model.device)
        for _ in range(count):
            loss = inner_step(self.config, self.task, self.model, self.inner, self.member, self.account)
        return float(loss)

    def units(self, count: int) -> float:
        return self.steps(count * self.config.inner.steps_per_unit)

    def contribute(self) -> SignedWork:
        codec = self.config.codec
        made = self.member.boundary(self.model.flat, self.inner, codec.contribution, codec.part_values)
        return self.sign(made)

    def sign(self, made: MadeContribution) -> SignedWork:
        content = ContributionContent(made.encoded.leaves, made.merges)
        record = Contribution(
            self.config.run_id, self.member.epoch + 1, self.account, self.member.anchor_id, made.previous,
            made.first_unit, made.units, 0, ZERO_HASH, merges_hash(made.merges), made.state_before, made.state_after,
            parts_root(made.encoded.leaves), 3,
        )  # fmt: skip
        work = SignedWork(record, content, made.encoded.parts)
        self.member.signed(hash_record(record))
        self.kept[hash_record(record)] = work
        self.committed[made.state_after] = made.state
        return work

    def merge(self, certificate_id: Hash) -> None:
        state = self.lineage.states[certificate_id]
        if state.is_void:
            self.member.void(certificate_id, state.epoch)
        else:
            anchor = state.anchor
            self.member.certificate(
                certificate_id, state.epoch, anchor.parameters, anchor.counted_units, state.contributions,
                self.model.flat,
            )  # fmt: skip

    def round_alone(self) -> SignedWork:
        """Contribute, certify with nobody else, merge at once."""
        work = self.contribute()
        self.merge(self.lineage.certify([work]))
        return work

    def evidence(self, work: SignedWork) -> ReplayMaterial:
        previous = self.kept.get(work.record.previous)
        before = self.committed.get(work.record.state_before)
        after = self.committed[work.record.state_after]
        return ReplayMaterial(work, after, previous, before if previous else None, self.lineage.states.__getitem__)

    def redo(self, work: SignedWork) -> Replay:
        return replay_contribution(
            self.config,
            tasks.new_model(self.config, 7, self.model.device),
            self.task,
            self.evidence(work),
            hash_record,
        )


def make_learners(config: RunConfig, directory: Path, count: int = 2) -> tuple[Lineage, list[Learner]]:
    first = tasks.new_model(config, 7)
    lineage = Lineage(config, Anchor(first.flat.clone(), torch.zeros_like(first.flat), first.layout, 0, 0))
    task = open_task(config, directory)
    peers = [(bytes([i + 1]) * 20, tasks.new_model(config, 7)) for i in range(count)]
    return lineage, [Learner(lineage, account, task, model) for account, model in peers]
