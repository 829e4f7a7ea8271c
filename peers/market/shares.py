"""What goes between an owner and the key holders beside the chain: a holder's card, and its share, sealed to it (protocol §8.11)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from coincurve import PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from incentives import sealing
from incentives.errors import BadSignature, InputError
from incentives.jsonform import HexAddress, HexHash, first_fault
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of, recover, sign
from incentives.sealing import Point, SealedShare
from swarm.hashing import keccak256

MAX_SHARE_BYTES = 1 << 16
_CARD = re.compile("holder:(0x[0-9a-fA-F]{40}):([0-9a-f]{64})([0-9a-f]{64}):([0-9a-f]{130})")
Uint256 = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Card:
    """Who is to hold a share, and the point that the share is sealed to."""

    account: bytes
    key: Point

    @classmethod
    def make(cls, wallet: PrivateKey, secret: int) -> str:
        """The text, signed by the account. `secret`: of the key that shares are sealed to."""
        card = cls(account_of(wallet), sealing.point_of(secret))
        x, y = card.key
        return f"holder:{to_checksum(card.account)}:{x:064x}{y:064x}:{sign(wallet, card.digest()).hex()}"

    @classmethod
    def parse(cls, text: str) -> "Card":
        """InputError where it is none, or not signed by the account that it names."""
        found = _CARD.fullmatch(text.strip())
        if found is None:
            raise InputError(
                "--holder", text, "is neither an account nor a card: take what `sparehive model hold --card` prints"
            )
        card = cls(parse_address(found[1]), (int(found[2], 16), int(found[3], 16)))
        try:
            signer = recover(card.digest(), bytes.fromhex(found[4]))
        except BadSignature:
            signer = b""
        if signer != card.account:
            raise InputError("--holder", text, "is not signed by the account that it names: ask for it again")
        return card

    def digest(self) -> bytes:
        """Of a signed message (EIP-191), as wallets sign them."""
        x, y = self.key
        return message_digest(f"Sparehive key holder {to_checksum(self.account)}: seal shares to {x:064x}{y:064x}")


def message_digest(text: str) -> bytes:
    """EIP-191, version 0x45: what a wallet signs where it is asked to sign a text."""
    data = text.encode()
    return keccak256(b"\x19Ethereum Signed Message:\n%d" % len(data) + data)


class ShareFile(BaseModel):
    """A share for one holder, sealed to its key as deliveries are; of no use to anybody else. `holder`: its number in the publication."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    chain_id: int = Field(ge=1, lt=1 << 53)
    contract: HexAddress
    model: HexHash
    holder: int = Field(ge=0, le=15)
    account: HexAddress
    ephemeral: tuple[Uint256, Uint256] = Field(strict=False)
    sealed_share: Uint256

    @classmethod
    def seal(cls, chain_id: int, contract: bytes, model: bytes, holder: int, card: Card, share: int) -> "ShareFile":
        sealed = sealing.seal(share, card.key, sealing.new_scalar())
        x, y = sealed.ephemeral
        return cls(
            chain_id=chain_id,
            contract="0x" + contract.hex(),
            model="0x" + model.hex(),
            holder=holder,
            account="0x" + card.account.hex(),
            ephemeral=(f"0x{x:064x}", f"0x{y:064x}"),
            sealed_share=f"0x{sealed.sealed_share:064x}",
        )

    @classmethod
    def read(cls, path: Path) -> "ShareFile":
        """InputError in one line."""
        try:
            data = path.read_bytes()
            if len(data) > MAX_SHARE_BYTES:
                raise ValueError("it is too large")
            return cls.model_validate(from_json(data))
        except ValidationError as error:
            why = first_fault(error)
        except OSError as error:
            why = str(error.strerror)
        except ValueError as error:
            why = str(error)
        raise InputError(
            "--share", str(path), f"is no share ({why}): take the file that `sparehive model publish` wrote"
        )

    def content(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"

    @property
    def model_id(self) -> bytes:
        return bytes.fromhex(self.model[2:])

    def open(self, secret: int) -> int:
        """The share, by the secret of the key on the holder's card; another secret gives another number. InputError: no point of the
        curve."""
        x, y = (int(value, 16) for value in self.ephemeral)
        return sealing.open_share(SealedShare((x, y), int(self.sealed_share, 16)), secret)


__all__ = ["Card", "ShareFile", "message_digest"]
