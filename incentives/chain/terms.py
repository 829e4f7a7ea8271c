"""What a run's contract was made with, and where it therefore stands: no node is asked, and none can lie about it.

All contracts are made by the deterministic factory that stands at one address on every chain
(https://github.com/Arachnid/deterministic-deployment-proxy): an address of its making (CREATE2, EIP-1014) is the hash of
the init code and its arguments. Whatever stands at `Terms.settlement` was made by this version's Settlement with these
terms, whoever sent the transaction and whatever a node says of it. Pure.
"""

from dataclasses import dataclass
from functools import cache

from incentives.contracts import artifact
from incentives.hashing import keccak
from incentives.records import encode_word

FACTORY = bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c")
FACTORY_CODE = bytes.fromhex(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd"
    "5b8082525050506014600cf3"
)
# Nobody has a key of its signer: whoever gives that a hundredth of a coin can send this, and nothing else can come from there.
FACTORY_SIGNER = bytes.fromhex("3fab184622dc19b6109349b94811493bf2a45362")
FACTORY_TRANSACTION = (
    bytes.fromhex("f8a58085174876e800830186a08080b853604580600e600039806000f350fe")
    + FACTORY_CODE
    + bytes.fromhex("1ba0" + 32 * "22" + "a0" + 32 * "22")
)
FACTORY_COST = 10**16  # wei: the gas that it pays for, at the price that it is signed for
NO_SALT = bytes(32)


def created_at(init_code: bytes, salt: bytes = NO_SALT) -> bytes:
    """Where the factory puts what this code makes."""
    return bytes(keccak(b"\xff" + FACTORY + salt + keccak(init_code)))[12:]


@dataclass(frozen=True, slots=True)
class Terms:
    """The arguments of a Settlement's construction. Amounts in the token's base unit; the registry is the chain's only one."""

    token: bytes
    run_id: bytes
    organiser: bytes
    unit_price_amount: int
    window_seconds: int
    epochs_per_day: int
    units_per_epoch: int
    amount_per_day: int

    @property
    def init_code(self) -> bytes:
        """InputError names a term that is out of range."""
        words = (
            ("address", "token", self.token),
            ("address", "registry", registry_address()),
            ("bytes32", "run_id", self.run_id),
            ("address", "organiser", self.organiser),
            ("uint128", "unit_price_amount", self.unit_price_amount),
            ("uint32", "window_seconds", self.window_seconds),
            ("uint64", "epochs_per_day", self.epochs_per_day),
            ("uint64", "units_per_epoch", self.units_per_epoch),
            ("uint128", "amount_per_day", self.amount_per_day),
        )
        return init_code("Settlement") + b"".join(encode_word(*word) for word in words)

    @property
    def settlement(self) -> bytes:
        """Address of the contract with these terms."""
        return created_at(self.init_code)


@cache
def init_code(name: str) -> bytes:
    """What makes the contract `name` of this version, without arguments."""
    return bytes.fromhex(artifact(name).bytecode[2:])


@cache
def registry_address() -> bytes:
    """The PeerRegistry of this version: the same on every chain."""
    return created_at(init_code("PeerRegistry"))


def worthless_token_code(owner: bytes, supply_amount: int) -> bytes:
    words = encode_word("address", "owner", owner), encode_word("uint256", "supply", supply_amount)
    return init_code("TestToken") + b"".join(words)


__all__ = [
    "FACTORY",
    "FACTORY_CODE",
    "FACTORY_COST",
    "FACTORY_SIGNER",
    "FACTORY_TRANSACTION",
    "NO_SALT",
    "Terms",
    "created_at",
    "init_code",
    "registry_address",
    "worthless_token_code",
]
