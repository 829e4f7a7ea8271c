"""The ERC-20 that a run pays in. Its interface is taken from TestToken, which is a plain one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coincurve import PrivateKey

from incentives.chain.terms import NO_SALT, worthless_token_code
from incentives.keys import to_checksum
from incentives.records import account_of

if TYPE_CHECKING:
    from incentives.chain.node import Chain, Sent


@dataclass(frozen=True, slots=True)
class TokenContract:
    """The one at `address`. Amounts in its base unit."""

    chain: "Chain"
    address: bytes

    def balance_of(self, account: bytes, *, block: int | None = None) -> int:
        return int(self.chain.call("TestToken", self.address, "balanceOf", to_checksum(account), block=block))

    def allowance(self, owner: bytes, spender: bytes) -> int:
        """What `spender` may still take from `owner`."""
        return int(self.chain.call("TestToken", self.address, "allowance", to_checksum(owner), to_checksum(spender)))

    def approve(self, key: PrivateKey, spender: bytes, amount: int) -> "Sent":
        return self.chain.transact(key, "TestToken", self.address, "approve", to_checksum(spender), amount)


def deploy_test_token(chain: "Chain", key: PrivateKey, supply_amount: int, salt: bytes = NO_SALT) -> bytes:
    """A worthless token, all of it with the deployer; another one for each `salt` (32 bytes)."""
    return chain.create(key, worthless_token_code(account_of(key), supply_amount), "TestToken", salt)


__all__ = ["TokenContract", "deploy_test_token"]
