"""The chain's contract PeerRegistry: which wallet a peer's hot account is bound to, and where its rewards go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coincurve import PrivateKey

from incentives.chain.terms import init_code
from incentives.errors import ChainError
from incentives.keys import parse_address, to_checksum

if TYPE_CHECKING:
    from incentives.chain.node import Chain, Sent
    from incentives.chain.unsigned import Call


@dataclass(frozen=True, slots=True)
class PeerConsent:
    """That the hot account `peer` is to be bound to a wallet, signed by it; counts until `deadline` (unix seconds)."""

    peer: bytes
    net_id: bytes
    deadline: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class RegistryContract:
    """The one at `address`, as the chain's node shows it. Errors are the chain's."""

    chain: "Chain"
    address: bytes

    def accounts_of(self, wallet: bytes) -> list[bytes] | None:
        """The hot accounts bound to a wallet; None where the node does not look that far back."""
        try:
            found = self.chain.events("PeerRegistry", self.address, "PeerBound", {"wallet": to_checksum(wallet)})
            return sorted(parse_address(event["peer"]) for _, event in found)
        except ChainError:
            return None

    def wallets_of(self, accounts: Sequence[bytes], *, block: int | None = None) -> list[bytes | None]:
        """The wallet of each hot account; None where it is bound to nobody."""
        found = self.chain.call_many("PeerRegistry", self.address, "walletsOf", accounts, block)
        return [parse_address(wallet) if int(wallet, 16) else None for wallet in found]

    def payout_address(self, account: bytes) -> bytes | None:
        """Where a hot account's rewards go; None while it is bound to nobody."""
        found = str(self.chain.call("PeerRegistry", self.address, "payoutOf", to_checksum(account)))
        return parse_address(found) if int(found, 16) else None

    def bind(self, key: PrivateKey, consent: PeerConsent) -> "Sent":
        """The wallet's own transaction."""
        return self.chain.transact(key, "PeerRegistry", self.address, "bind", *_consenting(consent))

    def bind_for(self, key: PrivateKey, wallet: bytes, consent: PeerConsent, wallet_signature: bytes) -> "Sent":
        """As `bind`, with the gas paid by `key`."""
        arguments = (to_checksum(wallet), *_consenting(consent), wallet_signature)
        return self.chain.transact(key, "PeerRegistry", self.address, "bindFor", *arguments)

    def set_pay_to(self, key: PrivateKey, pay_to: bytes) -> "Sent":
        return self.chain.transact(key, "PeerRegistry", self.address, "setPayTo", to_checksum(pay_to))

    # -- for the wallet to send ---------------------------------------------------------------------------------------
    def unsigned_bind(self, wallet: bytes, consent: PeerConsent) -> "Call":
        arguments = _consenting(consent)
        return self.chain.unsigned("PeerRegistry", self.address, "bind", *arguments, sender=wallet)

    def unsigned_pay_to(self, wallet: bytes, pay_to: bytes) -> "Call":
        return self.chain.unsigned("PeerRegistry", self.address, "setPayTo", to_checksum(pay_to), sender=wallet)


def _consenting(consent: PeerConsent) -> tuple[object, ...]:
    return to_checksum(consent.peer), consent.net_id, consent.deadline, consent.signature


def deploy_registry(chain: "Chain", key: PrivateKey) -> bytes:
    """The chain's only one, made where nobody has yet."""
    return chain.create(key, init_code("PeerRegistry"), "PeerRegistry")


__all__ = ["PeerConsent", "RegistryContract", "deploy_registry"]
