"""Who a peer is: its hot key (an EVM account that signs records, and says which wallet its pay is bound to) and its journal."""

import os
from dataclasses import dataclass, field

from coincurve import PrivateKey

from incentives import records
from incentives.errors import IncentivesError
from incentives.journal import MAGIC, SigningJournal
from incentives.keys import load_or_create_key
from peers.directory import PeerDirectory
from peers.errors import StartError
from peers.gate import Gate
from peers.netid import peer_id_of
from peers.notary import JournalNotary
from swarm.errors import PeerFault


@dataclass(frozen=True)
class Identity:
    """The unlocked hot key of a peer. Never shown: `repr` has the account alone."""

    account: bytes
    key: PrivateKey = field(repr=False)

    def sign_digest(self, digest: bytes) -> bytes:
        """For the hello of a link, which decides nothing; records are signed by the notary."""
        return records.sign(self.key, digest)

    def notary(self, domain: records.Domain, journal: SigningJournal, gate: Gate | None = None) -> JournalNotary:
        """The notary of one run. The journal's owner closes it."""
        return JournalNotary(self.key, domain, journal, gate)


def open_identity(directory: PeerDirectory) -> Identity:
    """Load the directory's hot key, or create it (0600, encrypted) on the first start."""
    if (
        not os.path.lexists(directory.hot_key)
        and directory.journal.is_file()
        and directory.journal.stat().st_size > len(MAGIC)
    ):
        raise StartError(
            f"key file {directory.hot_key} is missing, but this peer has signed before (its journal says so): restore it from a copy, or "
            "take a new key: sparehive join INVITE --dir ANOTHER"
        )
    if directory.identity.exists() and peer_id_of(directory.identity) is None:
        raise StartError(
            f"{directory.identity} is damaged: restore it from a copy, or move it away (the peer then gets a new peer id; account and "
            "receipts stay)"
        )
    key = load_or_create_key(directory.hot_key, directory.hot_password)
    return Identity(records.account_of(key), key)


def recover_account(digest: bytes, signature: bytes) -> bytes:
    """The account that signed a hello; `PeerFault` if the signature is malformed."""
    try:
        return records.recover(digest, signature)
    except IncentivesError as error:
        raise PeerFault(str(error)) from None
