"""A small run for tests of checks and ledger: five keys, a founder, a seating and rounds on it, all really signed."""

from dataclasses import replace

from coincurve import PrivateKey

from incentives import records
from incentives.evidence import SignedCertificate, SignedReceipt
from swarm.records.commitments import body_bytes, body_hash, contributors_root, electorate_hash
from swarm.records.types import (
    KIND_ROUND,
    KIND_SEATING,
    ZERO_HASH,
    ContributionReceipt,
    ContributorLeaf,
    RoundBody,
    RoundCertificate,
    StorageReceipt,
)

RUN = b"\x77" * 32
DOMAIN = records.Domain(31337, b"\x88" * 20)
_ALL = sorted((PrivateKey(bytes([i]) * 32) for i in range(1, 7)), key=records.account_of)
FOUNDER_KEY, KEYS = _ALL[0], _ALL[1:]
FOUNDER = records.account_of(FOUNDER_KEY)
PEERS = tuple(records.account_of(key) for key in KEYS)  # ascending
BY_ACCOUNT = {records.account_of(key): key for key in _ALL}


def values(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__slots__}  # type: ignore[attr-defined]


def leaf(peer: bytes, units: int = 10, flags: int = 3, epoch: int = 1) -> ContributorLeaf:
    return ContributorLeaf(peer, records.hash_struct("RoundVoid", {
        "run_id": RUN, "epoch": epoch, "attempt": 0, "prev_certificate": bytes(12) + peer
    }), units, flags)  # fmt: skip


def round_body(
    leaves: tuple[ContributorLeaf, ...], reducers: tuple[bytes, ...], voters: tuple[bytes, ...]
) -> RoundBody:
    return RoundBody(leaves, reducers, (b"\x55" * 32,), (1.0,) * len(leaves), 2.5 if leaves else 0.0, voters)


def certificate(
    prev: SignedCertificate | None, body: RoundBody, kind: int = KIND_ROUND, attempt: int = 0
) -> RoundCertificate:
    units = sum(leaf.units for leaf in body.contributors)
    root = prev.values["next_root"] if prev else b"\x01" * 32
    return RoundCertificate(
        RUN,
        prev.epoch + 1 if prev else 1,
        attempt,
        kind,
        prev.id if prev else ZERO_HASH,
        root,  # type: ignore[arg-type]
        bytes([prev.epoch + 2]) * 32 if prev and body.contributors else root,  # type: ignore[arg-type]
        contributors_root(body.contributors),
        len(body.contributors),
        units,
        (prev.values["cumulative_units"] if prev else 0) + units,  # type: ignore[operator]
        electorate_hash(body.electorate),
        body_hash(body),
    )


def signatures(record: object, signers: tuple[bytes, ...]) -> tuple[tuple[bytes, bytes], ...]:
    digest = records.digest(DOMAIN, type(record).__name__, values(record))
    return tuple((signer, records.sign(BY_ACCOUNT[signer], digest)) for signer in signers)


def signed(record: RoundCertificate, body: RoundBody, signers: tuple[bytes, ...]) -> SignedCertificate:
    fields = {name: value for name, value in values(record).items() if name != "attempt"}
    identity = records.certificate_id(values(record))
    return SignedCertificate(identity, fields, body_bytes(body), {record.attempt: signatures(record, signers)})


def signed_receipt(record: ContributionReceipt, signers: tuple[bytes, ...]) -> SignedReceipt:
    fields = values(record)
    return SignedReceipt(records.hash_struct("ContributionReceipt", fields), fields, signatures(record, signers))


SEATING_BODY = RoundBody((), (), (), (), 0.0, PEERS)
SEATING_RECORD = certificate(None, SEATING_BODY, KIND_SEATING)
SEATING = signed(SEATING_RECORD, SEATING_BODY, (FOUNDER,))

# Peer 1 pulls only (flag 2), peer 4 leaves (flag 1), so that 0 to 3 are seated. Reducers are not ascending.
LEAVES = tuple(leaf(peer, 10 + i, 2 if i == 1 else 1 if i == 4 else 3) for i, peer in enumerate(PEERS))
REDUCERS = (PEERS[3], PEERS[0], PEERS[4])
ROUND_BODY = round_body(LEAVES, REDUCERS, PEERS[:4])
ROUND_RECORD = certificate(SEATING, ROUND_BODY)
ROUND = signed(ROUND_RECORD, ROUND_BODY, PEERS[:4])


def receipt(index: int, **changes: object) -> ContributionReceipt:
    """The receipt of peer `index` in ROUND."""
    own = LEAVES[index]
    record = ContributionReceipt(RUN, ROUND.epoch, own.peer, own.units, own.contribution, ROUND.id)
    return replace(record, **changes)  # type: ignore[arg-type]


def storage_receipt(index: int = 0, **changes: object) -> StorageReceipt:
    """The receipt of peer `index` for storing the first object, at ROUND."""
    record = StorageReceipt(RUN, ROUND.epoch, PEERS[index], ROUND.id, bytes(31) + b"\1", b"\5" * 32)
    return replace(record, **changes)  # type: ignore[arg-type]
