"""A run without training: a really signed ledger for a deployed settlement, and the commands as users call them."""

import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coincurve import PrivateKey

from incentives import records
from incentives.devchain import DevChain
from incentives.keys import load_key, load_password, store_key, to_checksum
from incentives.ledger import Ledger
from incentives.storage import storage_witnesses
from peers.directory import PeerDirectory
from peers.invite import Invite, RunBinding
from peers.notary import values_of
from peers.runs import RunDirectory
from swarm.config import RunConfig, dump_run
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
from tests.chain.commands import ok, refused, sparehive

UNIT_PRICE = 10**15
BUDGET = 10**21
AMOUNT_PER_DAY = 10**24


class Lineage:
    """Certificates and receipts on one another, signed by `keys` (peers, ascending by account) and a founder."""

    def __init__(self, run_id: bytes, domain: records.Domain, keys: list[PrivateKey], founder: PrivateKey) -> None:
        self.run_id, self.domain, self.founder = run_id, domain, founder
        self.keys = sorted(keys, key=records.account_of)
        self.accounts = [records.account_of(key) for key in self.keys]
        self.by_account = {records.account_of(key): key for key in [*keys, founder]}
        self.entries: list[tuple[RoundCertificate, RoundBody, tuple[bytes, ...]]] = []
        self.receipts: list[tuple[ContributionReceipt, tuple[bytes, ...]]] = []
        self.stored: list[tuple[StorageReceipt, tuple[bytes, ...]]] = []
        body = RoundBody((), (), (), (), 0.0, tuple(self.accounts))
        self.append(KIND_SEATING, body, (records.account_of(founder),))

    def copy(self) -> "Lineage":
        """What is appended to the one is not in the other."""
        made = copy(self)
        made.entries, made.receipts, made.stored = list(self.entries), list(self.receipts), list(self.stored)
        return made

    def round(self, units: dict[bytes, int], *, unsigned: tuple[bytes, ...] = ()) -> int:
        """A certified round in which each account did its units; those in `unsigned` get no witness. Its epoch."""
        leaves = tuple(
            ContributorLeaf(a, records.hash_struct("RoundVoid", {
                "run_id": self.run_id, "epoch": len(self.entries) + 1, "attempt": 0, "prev_certificate": bytes(12) + a
            }), units.get(a, 0), 3)
            for a in self.accounts
        )  # fmt: skip
        body = RoundBody(leaves, tuple(self.accounts), (b"\x55" * 32,), (1.0,) * len(leaves), 2.5, tuple(self.accounts))
        certificate = self.append(KIND_ROUND, body, tuple(self.accounts))
        identity = records.certificate_id(values_of(certificate))
        for leaf in leaves:
            if leaf.units:
                receipt = ContributionReceipt(
                    self.run_id, certificate.epoch, leaf.peer, leaf.units, leaf.contribution, identity
                )
                witness = next(a for a in self.accounts if a != leaf.peer)
                signers = (leaf.peer,) if leaf.peer in unsigned else (leaf.peer, witness)
                self.receipts.append((receipt, signers))
        return certificate.epoch

    def store(self, storer: bytes, held: bytes, *, is_witnessed: bool = True, proof: bytes = b"\x07" * 32) -> None:
        """The newest certificate's receipt for storing, signed by `storer` and, if it is, by its witness (k = 1)."""
        certificate, body, _ = self.entries[-1]
        identity = records.certificate_id(values_of(certificate))
        receipt = StorageReceipt(self.run_id, certificate.epoch, storer, identity, held, proof)
        (witness,) = storage_witnesses(body.electorate, identity, storer, 1)
        self.stored.append((receipt, (storer, witness) if is_witnessed else (storer,)))

    def write(self, path: Path) -> None:
        """Into the ledger at `path`; what is there already stays."""
        with Ledger(path, run_id=self.run_id, domain=self.domain) as ledger:
            for certificate, body, signers in self.entries:
                signed = self.sign("RoundCertificate", certificate, signers)
                identity = ledger.add_certificate(values_of(certificate), body_bytes(body), signed)
                ledger.set_tip(identity)
            for receipt, signers in self.receipts:
                signed = self.sign("ContributionReceipt", receipt, signers)
                ledger.add_receipt(values_of(receipt), signed)
            for stored, signers in self.stored:
                ledger.add_storage_receipt(values_of(stored), self.sign("StorageReceipt", stored, signers))

    def append(self, kind: int, body: RoundBody, signers: tuple[bytes, ...]) -> RoundCertificate:
        last = self.entries[-1][0] if self.entries else None
        units = sum(leaf.units for leaf in body.contributors)
        epoch = last.epoch + 1 if last else 1
        root = last.next_root if last else b"\x01" * 32
        certificate = RoundCertificate(
            self.run_id,
            epoch,
            0,
            kind,
            records.certificate_id(values_of(last)) if last else ZERO_HASH,
            root,
            root if kind == KIND_SEATING else bytes([1 + epoch % 250]) * 32,
            contributors_root(body.contributors),
            len(body.contributors),
            units,
            (last.cumulative_units if last else 0) + units,
            electorate_hash(body.electorate),
            body_hash(body),
        )
        self.entries.append((certificate, body, signers))
        return certificate

    def sign(self, kind: str, record: object, signers: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
        digest = records.digest(self.domain, kind, values_of(record))
        return [(signer, records.sign(self.by_account[signer], digest)) for signer in signers]


@dataclass
class World:
    """A deployed and funded run, three peers with directories, and a wallet each. Everything under `root`."""

    root: Path
    chain: DevChain
    window: int = 3600
    make_token: Callable[[str], str] | None = (
        None  # of another token than the test token, all of it the account's that is given
    )
    unit_price: int = UNIT_PRICE
    storage: dict[str, Any] | None = None  # the table of run.toml
    organiser: str | None = None  # a wallet elsewhere, whose invites "organiser" signs

    def __post_init__(self) -> None:
        self.names = ("alice", "bob", "carol")
        self.run = RunDirectory(self.root / "run")
        self.wallets = {name: ok("wallet", *self.keys(name))["address"] for name in (*self.names, "organiser")}
        self.config = self.make_run()
        for wallet in self.wallets.values():
            self.chain.give_gas(wallet)
        self.deployed = ok(
            "run", "deploy", self.run.root, *self.rpc, *self.keys("organiser"), *self.pay(), "--window", self.window,
            "--amount-per-day", f"{AMOUNT_PER_DAY}base", "--chain-id", self.chain.chain_id,
        )  # fmt: skip
        self.fund(BUDGET)
        self.founder = PrivateKey(b"\x09" * 32)
        # New ones, for a chain has one registry for all its runs; bob's account is the last.
        alice, carol, bob = sorted((PrivateKey() for _ in self.names), key=records.account_of)
        peer_keys = {"alice": alice, "bob": bob, "carol": carol}
        self.accounts = {name: records.account_of(key) for name, key in peer_keys.items()}
        domain = records.Domain(self.chain.chain_id, bytes.fromhex(self.deployed["settlement"][2:]))
        self.lineage = Lineage(self.config.run_id, domain, list(peer_keys.values()), self.founder)
        self.invite = self.invite_of(self.founder)
        for name, key in peer_keys.items():
            directory = self.peer(name)
            directory.root.mkdir()
            directory.invite.write_text(self.invite + "\n")
            store_key(directory.hot_key, key, load_password(directory.hot_password, create=True))

    def copy(self, root: Path) -> "World":
        """Its files again in `root`, which is empty; the chain is the same."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        made = copy(self)
        made.root, made.run, made.lineage = root, RunDirectory(root / "run"), self.lineage.copy()
        return made

    def pay(self) -> tuple[str, ...]:
        if self.make_token is None:
            return ("--test-token",)
        return "--token", self.make_token(self.wallets["organiser"]), "--unit-price", f"{self.unit_price}base"

    def make_run(self) -> RunConfig:
        """run.toml alone: nobody trains."""
        self.run.root.mkdir()
        elsewhere = self.organiser and {
            "organiser": {"wallet": self.organiser[2:].lower(), "invites": self.wallets["organiser"][2:].lower()}
        }
        config = RunConfig.parse(
            {
                **(elsewhere or {}),
                **({"storage": self.storage} if self.storage else {}),
                "name": "test",
                "initial_root": "00" * 32,
                "unit_price_amount": str(self.unit_price),
                "rounds": {"max_units_per_contribution": 65535},
                "task": {"kind": "causal_lm", "data": {"root": "00" * 32, "text": {"size": 1, "sha256": "00" * 32}}},
            }
        )
        dump_run(config, self.run.toml)
        return config

    def invite_of(self, founder: PrivateKey) -> str:
        """The run's invite, as if `founder` had to sign the first seating."""
        domain = self.lineage.domain
        founders = (records.account_of(founder),)
        binding = RunBinding(self.config.run_id, domain.chain_id, domain.verifying_contract, founders, ())
        limits = self.run.limits(self.config, records.account_of(self.key("organiser")))
        return Invite.make(self.config, binding, self.key("organiser"), limits).encode()

    @property
    def rpc(self) -> tuple[str, str]:
        return "--rpc", self.chain.rpc

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    def keys(self, name: str) -> tuple[str, ...]:
        base = self.root / "wallets"
        return "--keystore", str(base / f"{name}.json"), "--password-file", str(base / f"{name}.password")

    def key(self, name: str) -> PrivateKey:
        _, keystore, _, password = self.keys(name)
        return load_key(Path(keystore), load_password(Path(password)))

    def peer(self, name: str) -> PeerDirectory:
        return PeerDirectory(self.root / name)

    def fund(self, amount: int) -> dict[str, Any]:
        return ok("run", "fund", self.run.root, *self.rpc, *self.keys("organiser"), "--amount", f"{amount}base")

    def settle(self, *options: object, name: str = "alice") -> dict[str, Any]:
        return ok("settle", *self.settle_options(name), *options)

    def settle_options(self, name: str = "alice") -> tuple[object, ...]:
        """Its ledger holds all that there will be of the newest epoch, too: nothing is on its way here."""
        run = ("--dir", self.peer(name).root, "--run", self.run.root, "--tables", self.tables, "--to-newest")
        return (*run, *self.rpc, *self.keys("organiser"))

    def work(self, name: str = "alice", **units: int) -> int:
        """A round, written into the peer's ledger. Its epoch."""
        epoch = self.lineage.round({self.accounts[who]: count for who, count in units.items()})
        self.lineage.write(self.peer(name).ledger)
        return epoch

    def finalise(self) -> dict[str, Any]:
        """Lets the window pass, then anyone finalises."""
        self.chain.advance(self.window + 1)
        return ok("settle", "--run", self.run.root, "--finalise", *self.rpc, *self.keys("bob"))

    def bind(self, name: str, *options: object) -> dict[str, Any]:
        where = ("--dir", self.peer(name).root, "--run", self.run.root)
        return ok("bind", "--yes", *where, *self.rpc, *self.keys(name), *options)

    def claim_options(self, name: str) -> tuple[object, ...]:
        return ("--run", self.run.root, "--tables", self.tables, *self.rpc, *self.keys(name))

    def claim(self, name: str, *options: object) -> dict[str, Any]:
        return ok("claim", *self.claim_options(name), *options)

    def rewards(self, name: str) -> dict[str, Any]:
        where = ("--run", self.run.root, "--tables", self.tables, "--dir", self.peer(name).root)
        return dict(ok("rewards", *where, *self.rpc)["accounts"][0])

    def balance(self, name: str) -> int:
        return self.chain.balance_of(self.deployed["token"], self.wallets[name])

    def account(self, name: str) -> str:
        return to_checksum(self.accounts[name])


__all__ = ["BUDGET", "UNIT_PRICE", "Lineage", "World", "ok", "refused", "sparehive"]
