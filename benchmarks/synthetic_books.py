"""A run's books of any size without training: really signed certificates and receipts in a ledger, for `benchmarks.settling`.

Each epoch all peers contribute; of 64 voters all sign, k = 1 witness co-signs each receipt."""

import json
from dataclasses import dataclass
from pathlib import Path

from coincurve import PrivateKey

from incentives import records
from incentives.commitments import body_hash, contributors_root, electorate_hash, parse_body
from incentives.ledger import Ledger

VOTERS = 64
REDUCERS = 16
DOMAIN = records.Domain(31337, b"\x5e" * 20)
RUN_ID = b"\x52" * 32
FOUNDER = PrivateKey(b"\xf0" * 32)


@dataclass(frozen=True)
class Size:
    """How many peers contribute in how many epochs."""

    peers: int
    epochs: int

    @property
    def receipts(self) -> int:
        return self.peers * self.epochs

    @classmethod
    def of(cls, text: str) -> "Size":
        """From "1000x10"."""
        peers, epochs = text.split("x")
        return cls(int(peers), int(epochs))

    def __str__(self) -> str:
        return f"{self.peers}x{self.epochs}"


def make(path: Path, size: Size) -> None:
    """A ledger with a seating and `size.epochs` certified rounds on it."""
    keys = sorted((PrivateKey((index + 1).to_bytes(32, "big")) for index in range(size.peers)), key=records.account_of)
    accounts = [records.account_of(key) for key in keys]
    voters = list(zip(accounts, keys, strict=True))[:VOTERS]
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with Ledger(draft, run_id=RUN_ID, domain=DOMAIN) as ledger:
        last = _certify(ledger, None, _body([], accounts), [(records.account_of(FOUNDER), FOUNDER)])
        for epoch in range(2, size.epochs + 2):
            with ledger.together():
                body = _body([(account, epoch) for account in accounts], accounts)
                last = _certify(ledger, last, body, voters)
                _receive(ledger, last, body, keys)
    draft.rename(path)


def _body(contributions: list[tuple[bytes, int]], accounts: list[bytes]) -> bytes:
    leaves = [
        ["0x" + account.hex(), "0x" + _contribution(account, epoch).hex(), _units(account, epoch), 3]
        for account, epoch in contributions
    ]
    start = contributions[0][1] * REDUCERS % len(accounts) if contributions else 0
    drawn = (accounts + accounts)[start : start + min(REDUCERS, len(accounts))] if contributions else []
    content = {
        "averages": ["0x" + "55" * 32] * bool(contributions),
        "clip_factors": ["0x3ff0000000000000"] * len(leaves),
        "contributors": leaves,
        "electorate": ["0x" + account.hex() for account in accounts[:VOTERS]],
        "median_norm": "0x4004000000000000",
        "reducers": ["0x" + account.hex() for account in drawn],
    }
    return json.dumps(content, separators=(",", ":")).encode()  # the names stand in order: canonical


def _contribution(account: bytes, epoch: int) -> bytes:
    return bytes(4) + account + epoch.to_bytes(8, "big")


def _units(account: bytes, epoch: int) -> int:
    return 1 + (account[-1] + epoch) % 7


def _certify(
    ledger: Ledger, last: records.Values | None, data: bytes, signers: list[tuple[bytes, PrivateKey]]
) -> records.Values:
    body = parse_body(data)
    units = sum(leaf.units for leaf in body.contributors)
    root = last["next_root"] if last else b"\x01" * 32
    epoch = int(str(last["epoch"])) + 1 if last else 1
    certificate: dict[str, object] = {
        "run_id": RUN_ID,
        "epoch": epoch,
        "attempt": 0,
        "kind": 0 if last else 1,
        "prev_certificate": records.certificate_id(last) if last else records.ZERO_HASH,
        "prev_root": root,
        "next_root": epoch.to_bytes(32, "big") if last else root,
        "contributors_root": contributors_root(body),
        "num_contributors": len(body.contributors),
        "units": units,
        "cumulative_units": (int(str(last["cumulative_units"])) if last else 0) + units,
        "electorate": electorate_hash(body),
        "body": body_hash(data),
    }
    digest = records.digest(DOMAIN, "RoundCertificate", certificate)
    signed = [(account, records.sign(key, digest)) for account, key in signers]
    ledger.set_tip(ledger.add_certificate(certificate, data, signed))
    return certificate


def _receive(ledger: Ledger, certificate: records.Values, data: bytes, keys: list[PrivateKey]) -> None:
    body = parse_body(data)
    named = records.certificate_id(certificate)
    by_account = {leaf.peer: key for leaf, key in zip(body.contributors, keys, strict=True)}
    for leaf in body.contributors:
        receipt = {
            "run_id": RUN_ID,
            "epoch": certificate["epoch"],
            "peer": leaf.peer,
            "units": leaf.units,
            "contribution": leaf.contribution,
            "certificate": named,
        }
        witness = next(each for each in body.reducers if each != leaf.peer)
        digest = records.digest(DOMAIN, "ContributionReceipt", receipt)
        ledger.add_receipt(receipt, [(s, records.sign(by_account[s], digest)) for s in (leaf.peer, witness)])
