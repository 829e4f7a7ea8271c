"""A peer's consent to be paid to a wallet, which the wallet signs too where somebody else sends it: made, read, written."""

import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from incentives.chain.registry import PeerConsent
from incentives.chain.state import RunState
from incentives.errors import BadSignature, InputError, StorageError, disk_remedy
from incentives.keys import parse_address, to_checksum, unlock_key
from incentives.records import Domain, account_of, digest, recover, sign
from peers.directory import PeerDirectory
from peers.netid import net_id_of
from swarm.atomic import write_atomically

CONSENT_SECONDS = 7 * 24 * 3600
MAX_CONSENT_BYTES = 1 << 16


def wallet_signature_of(given: dict[str, Any]) -> bytes:
    """Empty where it has not signed."""
    return bytes.fromhex(given.get("wallet_signature", "0x")[2:])


def hex_signature(text: str) -> str:
    """As it stands in a consent; InputError: no signature."""
    digits = text.lower().removeprefix("0x")
    if not re.fullmatch("([0-9a-f]{2}){1,4096}", digits):
        raise InputError("--wallet-signature", text, "is no signature: give it in hexadecimal digits, after 0x")
    return "0x" + digits


def peer_consent(given: dict[str, Any]) -> PeerConsent:
    """As the registry is given it, from its JSON form."""
    net_id, signature = bytes.fromhex(given["net_id"][2:]), bytes.fromhex(given["signature"][2:])
    return PeerConsent(parse_address(given["peer"]), net_id, int(given["deadline"]), signature)


def _digest(state: RunState, wallet_: bytes, peer: bytes, net_id: bytes, deadline: int) -> bytes:
    values = {"wallet": wallet_, "peer": peer, "net_id": net_id, "deadline": deadline}
    return digest(Domain(state.chain_id, state.registry), "PeerBinding", values)


def binding_digest(given: dict[str, Any], state: RunState) -> bytes:
    """What the peer has signed, and the wallet signs too where somebody else sends it."""
    consent = peer_consent(given)
    return _digest(state, parse_address(given["wallet"]), consent.peer, consent.net_id, consent.deadline)


def make_consent(directory: PeerDirectory, state: RunState, owner: bytes) -> dict[str, Any]:
    """Signed by the peer's hot key; counts for a week after the newest block."""
    if not directory.hot_key.exists():
        raise InputError("--dir", str(directory.root), "holds no peer: it has no keys/hot.json")
    key = unlock_key(directory.hot_key, directory.hot_password)
    net_id = net_id_of(directory.identity)
    deadline = max(int(time.time()), state.block_time) + CONSENT_SECONDS
    signature = sign(key, _digest(state, owner, account_of(key), net_id, deadline))
    return {
        "chain_id": state.chain_id,
        "registry": to_checksum(state.registry),
        "wallet": to_checksum(owner),
        "peer": to_checksum(account_of(key)),
        "net_id": "0x" + net_id.hex(),
        "deadline": deadline,
        "signature": "0x" + signature.hex(),
    }


class _Consent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chain_id: Annotated[int, Field(gt=0)]
    registry: str
    wallet: str
    peer: str
    net_id: Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
    deadline: Annotated[int, Field(ge=0, lt=1 << 64)]
    signature: Annotated[str, Field(pattern="^0x[0-9a-f]{130}$")]
    wallet_signature: Annotated[str, Field(pattern="^0x([0-9a-f]{2}){1,4096}$")] | None = None


def read_consent(path: Path, state: RunState, owner: bytes | None) -> dict[str, Any]:
    """`owner` None: whichever wallet it names."""
    try:
        with open(path, "rb") as stream:
            given = _Consent.model_validate_json(stream.read(MAX_CONSENT_BYTES))
        named = tuple(parse_address(text) for text in (given.registry, given.wallet, given.peer))
    except (OSError, ValueError, InputError):
        raise InputError(
            "--consent", str(path), "is no consent; make one with `sparehive bind --write-consent`"
        ) from None
    owner = named[1] if owner is None else owner
    if (given.chain_id, *named[:2]) != (state.chain_id, state.registry, owner):
        where = f"is for chain {given.chain_id}, registry {given.registry}, wallet {given.wallet}"
        raise InputError("--consent", str(path), f"{where}: make one for this wallet and run")
    signed = _digest(state, owner, named[2], bytes.fromhex(given.net_id[2:]), given.deadline)
    if not is_by(named[2], signed, bytes.fromhex(given.signature[2:])):
        raise InputError(
            "--consent", str(path), f"was changed: {given.peer} has not signed it; copy it again, or make another"
        )
    return given.model_dump(exclude_none=True)


def is_by(account: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether the account's key has signed this digest."""
    try:
        return recover(signed, signature) == account
    except BadSignature:
        return False


def write_consent(path: Path, given: dict[str, Any]) -> None:
    """StorageError names the path and what stands in the way."""
    try:
        write_atomically(path, (json.dumps(given, indent=1) + "\n").encode())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}: {disk_remedy(error)}") from None


__all__ = [
    "binding_digest",
    "hex_signature",
    "is_by",
    "make_consent",
    "peer_consent",
    "read_consent",
    "wallet_signature_of",
    "write_consent",
]
