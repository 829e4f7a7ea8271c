"""The ledger's certificates and receipts as the messages they once were, for a peer that links up later."""

import struct

from incentives.commitments import parse_body
from incentives.evidence import SignedCertificate, SignedReceipt
from swarm.averaging.records import ContributionReceipt, ContributorLeaf, RoundBody, RoundCertificate, Signed
from swarm.averaging.wire import pack


def _fp64(bits: bytes) -> float:
    value: float = struct.unpack(">d", bits)[0]
    return value


def round_body(data: bytes) -> RoundBody:
    """A body as the ledger keeps it."""
    body = parse_body(data)
    return RoundBody(
        tuple(ContributorLeaf(x.peer, x.contribution, x.units, x.flags) for x in body.contributors),
        tuple(body.reducers),
        tuple(body.averages),
        tuple(_fp64(bits) for bits in body.clip_factors),
        _fp64(body.median_norm),
        tuple(body.electorate),
    )


def certificate_messages(certificate: SignedCertificate) -> list[bytes]:
    """One message per signature that the ledger holds."""
    content = round_body(certificate.body)
    return [
        pack(Signed(RoundCertificate(**{**certificate.values, "attempt": attempt}), signer, signature, content))  # type: ignore[arg-type]
        for attempt, signatures in sorted(certificate.signatures.items())
        for signer, signature in signatures
    ]


def receipt_messages(receipt: SignedReceipt) -> list[bytes]:
    """One message per signature that the ledger holds."""
    record = ContributionReceipt(**receipt.values)  # type: ignore[arg-type]
    return [pack(Signed(record, signer, signature)) for signer, signature in receipt.signatures]
