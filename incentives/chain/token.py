"""The ERC-20 that a run pays in. Its interface is taken from TestToken, which is a plain one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coincurve import PrivateKey

from incentives.amounts import Unit
from incentives.chain.terms import NO_SALT, worthless_token_code
from incentives.keys import to_checksum
from incentives.records import account_of

if TYPE_CHECKING:
    from incentives.chain.node import Chain, Sent

TEST_TOKEN_UNIT = Unit("SPARE-TEST", 18)  # of `deploy_test_token`, by its code
_SYMBOL, _DECIMALS = (
    bytes.fromhex("95d89b41"),
    bytes.fromhex("313ce567"),
)  # symbol() and decimals(), which ERC-20 leaves optional
_MAX_SYMBOL_BYTES = 1024  # that are looked at


@dataclass(frozen=True, slots=True)
class TokenContract:
    """The one at `address`. Amounts in its base unit."""

    chain: "Chain"
    address: bytes

    def unit(self, *, block: int | None = None) -> Unit:
        """What its amounts are shown in, by what it says of itself; whatever it says, or where it says nothing, this raises no error but
        that the node cannot be asked."""
        symbol = text_of(self.chain.answer(self.address, _SYMBOL, block=block))
        return Unit.of(symbol, number_of(self.chain.answer(self.address, _DECIMALS, block=block)))

    def balance_of(self, account: bytes, *, block: int | None = None) -> int:
        return int(self.chain.call("TestToken", self.address, "balanceOf", to_checksum(account), block=block))

    def allowance(self, owner: bytes, spender: bytes) -> int:
        """What `spender` may still take from `owner`."""
        return int(self.chain.call("TestToken", self.address, "allowance", to_checksum(owner), to_checksum(spender)))

    def approve(self, key: PrivateKey, spender: bytes, amount: int) -> "Sent":
        return self.chain.transact(key, "TestToken", self.address, "approve", to_checksum(spender), amount)


def number_of(answer: bytes) -> int | None:
    """Of `decimals()`; None where it is no number."""
    return int.from_bytes(answer) if len(answer) == 32 else None


def text_of(answer: bytes) -> str:
    """Of `symbol()`: a string, or as tokens from before 2017 a bytes32. Its beginning, where it is long; "" where it is neither."""
    if len(answer) == 32:
        return answer.rstrip(b"\0").decode("utf-8", "replace")
    start = int.from_bytes(answer[:32]) + 32
    if start > len(answer):
        return ""
    length = int.from_bytes(answer[start - 32 : start])
    return answer[start : start + min(length, _MAX_SYMBOL_BYTES)].decode("utf-8", "replace")


def deploy_test_token(chain: "Chain", key: PrivateKey, supply_amount: int, salt: bytes = NO_SALT) -> bytes:
    """A worthless token, all of it with the deployer; another one for each `salt` (32 bytes)."""
    return chain.create(key, worthless_token_code(account_of(key), supply_amount), "TestToken", salt)


__all__ = ["TEST_TOKEN_UNIT", "TokenContract", "deploy_test_token", "number_of", "text_of"]
