"""A chain with a test token and wallets, for the commands about models as users call them."""

from dataclasses import dataclass
from pathlib import Path

from coincurve import PrivateKey

from incentives.chain.license import LicenseContract, deploy_license
from incentives.chain.token import TokenContract, deploy_test_token
from incentives.devchain import RICH_KEY, DevChain
from incentives.keys import create_key, load_key, load_password, to_checksum
from incentives.records import account_of
from tests.chain.commands import ok

TOKENS = 10**18


@dataclass
class MarketWorld:
    """`root`: where everything lies. Wallets are made when they are first named, with coin for gas and 100 tokens."""

    root: Path
    node: DevChain
    salt: bytes = b"\x0a" * 32

    def __post_init__(self) -> None:
        chain = self.node.chain()
        self.contract = LicenseContract(chain, deploy_license(chain, RICH_KEY))
        self.token = TokenContract(chain, deploy_test_token(chain, RICH_KEY, 10**30, self.salt))

    @property
    def rpc(self) -> tuple[str, str]:
        return "--rpc", self.node.rpc

    def keys(self, name: str) -> tuple[str, ...]:
        base = self.root / "wallets"
        keystore, password = base / f"{name}.json", base / f"{name}.password"
        if not keystore.exists():
            key = create_key(keystore, load_password(password, create=True))
            self.node.give_gas(account_of(key))
            account = to_checksum(account_of(key))
            self.token.chain.transact(RICH_KEY, "TestToken", self.token.address, "transfer", account, 100 * TOKENS)
        return "--keystore", str(keystore), "--password-file", str(password)

    def key(self, name: str) -> PrivateKey:
        _, keystore, _, password = self.keys(name)
        return load_key(Path(keystore), load_password(Path(password)))

    def account(self, name: str) -> str:
        return to_checksum(account_of(self.key(name)))

    def balance(self, name: str) -> int:
        return self.token.balance_of(account_of(self.key(name)))

    def folder(self, name: str = "plain") -> Path:
        """Something to publish."""
        made = self.root / name
        if not made.exists():
            made.mkdir()
            (made / "config.json").write_text("{}")
            (made / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
        return made

    def publish(self, out: str, *options: object, name: str = "owner") -> dict[str, object]:
        token = ("--token", to_checksum(self.token.address), "--chain-id", 31337)
        return ok(
            "model", "publish", self.folder(), "--out", self.root / out, *token, *self.rpc, *self.keys(name), *options
        )


__all__ = ["TOKENS", "MarketWorld"]
