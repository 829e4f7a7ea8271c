"""What a run pays for storing, from its configuration to what draws and pays by it: the two packages do not know each other."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from incentives.amounts import Unit
from incentives.storage import StorageRules, StoredObject, pool_id
from peers.errors import ConfigError
from swarm.config import PretrainedModel, RunConfig, StorageConfig
from swarm.errors import RetryError

if TYPE_CHECKING:
    from incentives.chain.terms import Terms

KIB_PER_GIB = 1 << 20
PAID_EPOCHS_PER_DAY = 2 * 1440  # that a day may release: twice one a minute, as the run's own pool by default
_MOST_AMOUNT = (1 << 128) - 1


def storage_rules(config: RunConfig) -> StorageRules | None:
    """The table `[storage]` as `incentives.storage` takes it; None where the run has none."""
    table = config.storage
    if table is None:
        return None
    objects = tuple(StoredObject(bytes.fromhex(each.segments_root), each.bytes) for each in table.objects)
    return StorageRules(objects, table.replicas, table.every_epochs, table.segments, config.witnesses)


def storage_of(config: RunConfig) -> StorageConfig:
    """ConfigError where the run pays nobody for storing."""
    if config.storage is None:
        raise ConfigError(
            "--storage", config.name, "pays nobody for storing: its run.toml has no [storage] (`run new --store-price`)"
        )
    return config.storage


def storage_terms(terms: "Terms", config: RunConfig) -> "Terms":
    """Of the Settlement that pays for storing (decision 0029), from those of the run's own: all of them follow, so that whoever knows
    where the run is paid knows where this is. ConfigError as `storage_of`."""
    table = storage_of(config)
    daily = table.price * table.num_segments * PAID_EPOCHS_PER_DAY
    return replace(
        terms,
        run_id=pool_id(config.run_id),
        unit_price_amount=table.price,
        units_per_epoch=table.num_segments,
        amount_per_day=min(daily, _MOST_AMOUNT),
    )


def storage_json(config: RunConfig) -> dict[str, Any] | None:
    """For programs; None where the run has none. Prices in base units: of a KiB, and of a GiB, for a paid epoch."""
    table = config.storage
    if table is None:
        return None
    return {
        "price_amount": table.price_amount,
        "gib_amount": str(table.price * KIB_PER_GIB),
        "epoch_amount_at_most": str(table.price * table.num_segments),
        "replicas": table.replicas,
        "every_epochs": table.every_epochs,
        "objects": [{"cid": each.cid, "bytes": each.bytes} for each in table.objects],
    }


def storage_line(table: StorageConfig, unit: Unit) -> str:
    """For people."""
    size = sum(each.bytes for each in table.objects)
    often = "epoch" if table.every_epochs == 1 else f"{table.every_epochs} epochs"
    return (
        f"storing pays {unit.shown(table.price * KIB_PER_GIB)} for a GiB and {often}, shared by at most {table.replicas} storers of it: "
        f"{unit.shown(table.price * table.num_segments)} at most for all {size:,} bytes in {len(table.objects)} objects"
    )


def storage_lasts(table: StorageConfig, deposit_amount: int, unit: Unit, epoch_seconds: float = 60.0) -> list[str]:
    """How far a deposit goes, for people; nothing where storing pays nothing."""
    amount = table.price * table.num_segments
    if not amount:
        return []
    epochs = deposit_amount // amount
    days = epochs * table.every_epochs * epoch_seconds / 86400
    return [
        f"{unit.shown(deposit_amount)} pay {epochs:,} times for all of it: {days:,.1f} days with an epoch every {epoch_seconds:g} s"
    ]


@dataclass(frozen=True, slots=True)
class Storing:
    """What `run new` is told. `price`: base units for a KiB and paid epoch."""

    price: int
    replicas: int

    @classmethod
    def of(cls, gib_amount: int, replicas: int) -> "Storing":
        """`gib_amount`: base units for a GiB, rounded down to those of a KiB. ConfigError where nothing is left of them."""
        if gib_amount and gib_amount < KIB_PER_GIB:
            raise ConfigError(
                "--store-price",
                f"{gib_amount}base",
                f"is less than a base unit for each KiB: give {KIB_PER_GIB}base at least",
            )
        return cls(gib_amount // KIB_PER_GIB, replicas)

    def draft(self) -> dict[str, Any]:
        """Values of `[storage]` before anything is made: the objects are to be filled in."""
        anything = {"cid": "b" + "a" * 58, "bytes": KIB_PER_GIB, "segments_root": "0" * 64}
        return {"price_amount": str(self.price), "replicas": self.replicas, "objects": [anything]}


def listed_objects(config: RunConfig, get: Callable[[bytes], bytes | None]) -> list[dict[str, Any]]:
    """`storage.objects` of a run: its data, and the base that it starts from, where it starts from one. `get`: a block by its digest, None
    where it is not here (RetryError)."""
    roots = [config.task.data.root]
    if isinstance(config.task.model, PretrainedModel):
        roots.append(config.task.model.root)
    return [_listed(bytes.fromhex(root), get) for root in roots]


def _listed(root: bytes, get: Callable[[bytes], bytes | None]) -> dict[str, Any]:
    from swarm.checkpoint.segments import MAX_CONTENT_BYTES, segments_root
    from swarm.checkpoint.trees import content_leaves, read_plan
    from swarm.checkpoint.unixfs import DAG_PB, cid_text

    def block(digest: bytes) -> bytes:
        data = get(digest)
        if data is None:
            raise RetryError(f"block {digest.hex()} of {cid_text(root)} is not here")
        return data

    async def bring(digests: Sequence[bytes]) -> dict[bytes, bytes]:
        return {digest: block(digest) for digest in digests}

    plan = asyncio.run(read_plan(root, DAG_PB, bring, MAX_CONTENT_BYTES))
    segments, size = segments_root(block(digest) for digest, _ in content_leaves(plan))
    return {"cid": cid_text(root), "bytes": size, "segments_root": segments.hex()}


__all__ = [
    "Storing",
    "listed_objects",
    "storage_json",
    "storage_lasts",
    "storage_line",
    "storage_of",
    "storage_rules",
    "storage_terms",
]
