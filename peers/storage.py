"""What a run pays for storing, from its configuration to what draws and pays by it: the two packages do not know each other."""

from incentives.storage import StorageRules, StoredObject
from swarm.config import RunConfig


def storage_rules(config: RunConfig) -> StorageRules | None:
    """The table `[storage]` as `incentives.storage` takes it; None where the run has none."""
    table = config.storage
    if table is None:
        return None
    objects = tuple(StoredObject(bytes.fromhex(each.segments_root), each.bytes) for each in table.objects)
    return StorageRules(objects, table.replicas, table.every_epochs, table.segments, config.witnesses)


__all__ = ["storage_rules"]
