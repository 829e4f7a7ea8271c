"""A key holder: its shares, and what it does about each purchase that the chain shows (protocol §8.11).

It owes a share within the delivery's time, else it loses its bond. What is delivered everybody sees, so a purchase that a reorganisation
could still undo is waited for, until half of the time is over.
"""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coincurve import PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from incentives import sealing
from incentives.chain.license import LicenseContract
from incentives.chain.reverts import Reverted
from incentives.errors import ChainError, InputError
from incentives.keys import to_checksum
from peers.errors import StartError
from peers.market.shares import ShareFile
from swarm.atomic import write_atomically

DONE = ("AlreadyDelivered", "DeliveryOver")  # what the contract says where nothing is to be delivered any more


@dataclass(frozen=True)
class HolderFolder:
    """`shares`: the files of `model publish`; `watch.json`: how far the chain was looked at."""

    root: Path

    @property
    def shares(self) -> Path:
        return self.root / "shares"

    @property
    def watch(self) -> Path:
        return self.root / "watch.json"

    def add(self, path: Path) -> None:
        """InputError where it is no share."""
        share = ShareFile.read(path)
        self.shares.mkdir(parents=True, exist_ok=True)
        write_atomically(self.shares / f"{share.model[2:]}-{share.holder}.json", share.content())

    def read_shares(self) -> list[ShareFile]:
        """InputError where there is none, or one is damaged."""
        paths = sorted(self.shares.glob("*.json")) if self.shares.is_dir() else []
        if not paths:
            raise InputError("--dir", str(self.root), "holds no share: give the owner's file with --share")
        return [ShareFile.read(path) for path in paths]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """StartError where another process holds it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise StartError(
                        f"--dir {self.root}: another key holder is running in it: stop that first"
                    ) from None
                raise StartError(
                    f"--dir {self.root}: cannot be locked ({error.strerror}): choose another disk"
                ) from None
            yield


@dataclass(frozen=True)
class Holding:
    """A share that was found right: `index` is the holder's number."""

    model: bytes
    index: int
    share: int
    delivery_seconds: int
    published_block: int


def check_share(contract: LicenseContract, file: ShareFile, account: bytes, secret: int) -> Holding:
    """InputError where the share is of another chain or account, or is not the one of the publication."""
    named = f"{file.model}, holder {file.holder}"
    if (file.chain_id, file.contract) != (contract.chain.chain_id, "0x" + contract.address.hex()):
        raise InputError("--share", named, f"is of chain {file.chain_id}: give a node of that chain")
    if file.account != "0x" + account.hex():
        raise InputError(
            "--share", named, f"is for {file.account}, and --keystore is {to_checksum(account)}: use that key"
        )
    event = contract.publication_event(file.model_id)
    holders, share = event.publication.holders, file.open(secret)
    if file.holder >= len(holders) or holders[file.holder][0] != account:
        raise InputError(
            "--share", named, "is not of this account in the publication: ask the owner for the right file"
        )
    if not 0 < share < sealing.ORDER or sealing.point_of(share) != holders[file.holder][1]:
        raise InputError(
            "--share",
            named,
            "is not the share of the publication, or was sealed to another key: ask the owner for the right file",
        )
    return Holding(file.model_id, file.holder, share, event.publication.delivery_seconds, event.block)


class _Watched(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    next_block: int = Field(ge=0)
    waiting: dict[str, int] = {}  # licensee: block of its purchase


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    models: dict[str, _Watched]


@dataclass
class Watch:
    """How far each model's purchases were looked at, and who waits for a share; on disk before it counts. What is lost or damaged is looked
    at again from the publication on."""

    path: Path
    models: dict[bytes, _Watched] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Watch":
        try:
            kept = _Kept.model_validate(from_json(path.read_bytes()))
            return cls(path, {bytes.fromhex(model): watched for model, watched in kept.models.items()})
        except (OSError, ValueError, ValidationError):
            return cls(path)

    def of(self, holding: Holding) -> _Watched:
        return self.models.setdefault(holding.model, _Watched(next_block=holding.published_block))

    def write(self) -> None:
        kept = _Kept(models={model.hex(): watched for model, watched in self.models.items()})
        write_atomically(self.path, kept.model_dump_json().encode())


@dataclass(frozen=True, slots=True)
class Delivery:
    """`problem`: why it was not delivered now ("": it was)."""

    model: bytes
    licensee: bytes
    problem: str = ""
    transaction: str = ""


def look(contract: LicenseContract, holding: Holding, watch: Watch) -> None:
    """Notes the purchases since the last look. ChainError: the node."""
    watched, (newest, _) = watch.of(holding), contract.chain.block(finalised=False)
    watched.next_block = min(watched.next_block, newest + 1)  # a chain that was set back
    for purchase in contract.purchases(holding.model, from_block=watched.next_block, to_block=newest):
        watched.waiting["0x" + purchase.licensee.hex()] = purchase.block
    watched.next_block = newest + 1
    watch.write()


def deliver_due(
    contract: LicenseContract, key: PrivateKey, holding: Holding, watch: Watch, *, may_be_undone: bool
) -> Iterator[Delivery]:
    """Delivers to all that wait and whose purchase no reorganisation can undo (`may_be_undone`: whichever). ChainError: the node."""
    watched = watch.of(holding)
    (final, _), (_, now) = contract.chain.block(finalised=True), contract.chain.block(finalised=False)
    for text, block in list(watched.waiting.items()):
        contract.chain.renew()
        licensee = bytes.fromhex(text[2:])
        licence = contract.licence(holding.model, licensee)
        if licence.state != "pending" or holding.index in licence.given or now > licence.deliver_by:
            del watched.waiting[text]
            continue
        is_late = 2 * (licence.deliver_by - now) < holding.delivery_seconds
        if block > final and not (may_be_undone or is_late):
            continue
        yield _deliver(contract, key, holding, licensee)
        del watched.waiting[text]
    watch.write()


def _deliver(contract: LicenseContract, key: PrivateKey, holding: Holding, licensee: bytes) -> Delivery:
    point = contract.key_of(licensee)
    if point is None:
        raise ChainError(f"the node shows a purchase of {to_checksum(licensee)} and not its key: use another node")
    sealed = sealing.seal(holding.share, point, sealing.new_scalar())
    try:
        sent = contract.deliver(key, holding.model, licensee, holding.index, sealed)
    except Reverted as error:
        if error.name not in DONE:
            raise
        return Delivery(holding.model, licensee, str(error))
    return Delivery(holding.model, licensee, transaction=sent.hash)


__all__ = ["Delivery", "HolderFolder", "Holding", "Watch", "check_share", "deliver_due", "look"]
