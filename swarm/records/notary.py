"""How the swarm signs and checks the records it agrees on. Given from outside: swarm knows no wallets and no EIP-712."""

from typing import Protocol

from swarm.records.types import Account, Hash, Record, RoundCertificate


class Notary(Protocol):
    """Signs as one account. `sign` journals (domain, kind, run, epoch, attempt, prevCertificate, subject) → digest, and raises
    `swarm.errors.Equivocation` where the journal holds another digest for that subject. What was signed is shown to others by what
    waits for `written`: the network that a driver is given does."""

    @property
    def account(self) -> Account: ...

    def hash(self, record: Record) -> Hash:
        """hashStruct of the record: 32 bytes, no signature, no domain."""

    def certificate_id(self, certificate: RoundCertificate) -> Hash:
        """Hash of the certificate without its attempt; what `prev_certificate` refers to."""

    def sign(self, record: Record, keep: bytes = b"") -> bytes:
        """65 bytes r‖s‖v, low s. `keep` is stored in the journal with the digest (votes and bodies of a lock)."""

    async def written(self) -> None:
        """Until the journal holds on disk all that was signed so far. `swarm.errors.DiskError` where the disk refuses."""

    def remembers(self, record: Record) -> bool:
        """Whether this record of the own account was signed here: always, where the journal is whole. True for what decides nothing."""

    def recover(self, record: Record, signature: bytes) -> Account:
        """Account that signed, or `swarm.errors.BadSignature`."""
