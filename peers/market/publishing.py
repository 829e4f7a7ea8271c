"""What an owner makes before anything is sent: encrypted blocks, the publication, and a share for each key holder (protocol §8.10)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from incentives import sealing
from incentives.chain.license import Publication
from incentives.errors import InputError
from incentives.jsonform import HexAddress, HexHash, first_fault
from incentives.keys import to_checksum
from peers.errors import ConfigError, StartError
from peers.market.manifest import Manifest
from peers.market.packing import pack
from peers.market.shares import Card, ShareFile
from peers.progressbar import ProgressBar
from swarm.checkpoint.bases import making
from swarm.checkpoint.store import BlockStore
from swarm.errors import disk_remedy

Amount = Annotated[str, Field(pattern="^[0-9]{1,40}$")]
Coordinate = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class PublicationFolder:
    """`publication.json`: what is sent to the chain; `manifest.json`; `blocks`, by their digests; `shares`: a file for each holder."""

    root: Path

    @property
    def publication(self) -> Path:
        return self.root / "publication.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def blocks(self) -> Path:
        return self.root / "blocks"

    def share(self, holder: int, account: bytes) -> Path:
        return self.root / "shares" / f"{holder}-0x{account.hex()}.json"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Holder(_Strict):
    account: HexAddress
    commitment: tuple[Coordinate, Coordinate] = Field(strict=False)


class Prepared(_Strict):
    """What is sent, as a file: whoever was broken off sends the same later. Amounts in base units, parts in hundredths of a per cent."""

    format: int = Field(1, ge=1, le=1)
    chain_id: int = Field(ge=1, lt=1 << 53)
    contract: HexAddress
    owner: HexAddress
    model: HexHash
    root: HexHash
    manifest_hash: HexHash
    token: HexAddress
    settlement: HexAddress
    owner_bps: int
    contributors_bps: int
    data_owners: tuple[tuple[HexAddress, int], ...] = Field(strict=False)
    parents: tuple[tuple[HexHash, int], ...] = Field(strict=False)
    price: Amount
    term_seconds: int
    delivery_seconds: int
    threshold: int
    bond: Amount
    holders: tuple[_Holder, ...] = Field(strict=False)

    @classmethod
    def of(cls, chain_id: int, contract: bytes, owner: bytes, p: Publication) -> "Prepared":
        return cls(
            chain_id=chain_id,
            contract=_hex(contract),
            owner=_hex(owner),
            model=_hex(p.model_id(owner)),
            root=_hex(p.root),
            manifest_hash=_hex(p.manifest_hash),
            token=_hex(p.token),
            settlement=_hex(p.settlement),
            owner_bps=p.owner_bps,
            contributors_bps=p.contributors_bps,
            data_owners=tuple((_hex(payee), bps) for payee, bps in p.data_owners),
            parents=tuple((_hex(parent), bps) for parent, bps in p.parents),
            price=str(p.price_amount),
            term_seconds=p.term_seconds,
            delivery_seconds=p.delivery_seconds,
            threshold=p.threshold,
            bond=str(p.bond_amount),
            holders=tuple(
                _Holder(account=_hex(account), commitment=(f"0x{x:064x}", f"0x{y:064x}"))
                for account, (x, y) in p.holders
            ),
        )

    @classmethod
    def read(cls, path: Path) -> "Prepared":
        """ConfigError in one line; also where its parts are not those of the model that it names."""
        try:
            data = path.read_bytes()
            if len(data) > MAX_BYTES:
                raise ValueError("it is too large")
            found = cls.model_validate(from_json(data))
            if found.arguments().model_id(bytes.fromhex(found.owner[2:])) != bytes.fromhex(found.model[2:]):
                raise ValueError("its model is not the hash of what it says")
            return found
        except ValidationError as error:
            why = first_fault(error)
        except OSError as error:
            why = str(error.strerror)
        except ValueError as error:
            why = str(error)
        raise ConfigError("--out", str(path), f"holds no publication ({why}): restore it from a copy, or publish anew")

    def arguments(self) -> Publication:
        return Publication(
            root=_bytes(self.root),
            manifest_hash=_bytes(self.manifest_hash),
            token=_bytes(self.token),
            owner_bps=self.owner_bps,
            price_amount=int(self.price),
            term_seconds=self.term_seconds,
            settlement=_bytes(self.settlement),
            contributors_bps=self.contributors_bps,
            data_owners=tuple((_bytes(payee), bps) for payee, bps in self.data_owners),
            parents=tuple((_bytes(parent), bps) for parent, bps in self.parents),
            delivery_seconds=self.delivery_seconds,
            threshold=self.threshold,
            bond_amount=int(self.bond),
            holders=tuple(
                (_bytes(each.account), (int(each.commitment[0], 16), int(each.commitment[1], 16)))
                for each in self.holders
            ),
        )

    def content(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Plan:
    """What an owner has chosen. `offer`: the publication but for root, manifest and commitments."""

    chain_id: int
    contract: bytes
    owner: bytes
    offer: Publication
    cards: tuple[Card, ...]
    name: str
    licence: str

    def check(self) -> None:
        """InputError for what the contract would refuse after the work was done."""
        accounts = [card.account for card in self.cards]
        twice = next((each for each in accounts if accounts.count(each) > 1), None)
        if twice is not None:
            raise InputError("--holder", to_checksum(twice), "is named twice: a share for each of different accounts")
        if bool(self.cards) != bool(self.offer.threshold) or self.offer.threshold > len(self.cards):
            raise InputError(
                "--threshold", self.offer.threshold, f"must be from 1 to the number of holders ({len(self.cards)})"
            )


def prepare(plan: Plan, folder: Path, out: Path, progress: ProgressBar) -> tuple[Prepared, Manifest]:
    """Makes the publication folder `out`, whole or not at all. The content key is new, and nowhere kept: only the holders' shares make it.
    ConfigError or InputError: what was given; StartError: the disk."""
    plan.check()
    if out.exists():
        raise ConfigError("--out", str(out), "exists already: choose another folder")
    secret = sealing.new_scalar()
    shares = sealing.split(secret, plan.offer.threshold, len(plan.cards)) if plan.cards else []
    key = sealing.content_key(secret) if plan.cards else None
    try:
        with making(out) as part:
            made = PublicationFolder(part)
            store = BlockStore(made.blocks, 1 << 62)
            packed = pack(folder, store, key, plan.name, plan.licence, progress)
            publication = replace(
                plan.offer,
                root=packed.root,
                manifest_hash=packed.manifest.hash(),
                holders=tuple(
                    (card.account, sealing.point_of(share)) for card, share in zip(plan.cards, shares, strict=True)
                ),
            )
            prepared = Prepared.of(plan.chain_id, plan.contract, plan.owner, publication)
            made.publication.write_bytes(prepared.content())
            made.manifest.write_bytes(packed.manifest.content())
            _write_shares(made, plan.contract, prepared, plan.cards, shares)
    except OSError as error:
        raise StartError(f"--out {out}: cannot be written ({error.strerror}); {disk_remedy(error)}") from None
    return prepared, packed.manifest


def _write_shares(
    made: PublicationFolder, contract: bytes, prepared: Prepared, cards: Sequence[Card], shares: Sequence[int]
) -> None:
    for holder, (card, share) in enumerate(zip(cards, shares, strict=True)):
        path = made.share(holder, card.account)
        path.parent.mkdir(exist_ok=True)
        sealed = ShareFile.seal(prepared.chain_id, contract, _bytes(prepared.model), holder, card, share)
        path.write_bytes(sealed.content())


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


__all__ = ["Plan", "Prepared", "PublicationFolder", "prepare"]
