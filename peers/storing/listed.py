"""What of a run is kept: the content that it lists; and what a storer's owner has named besides."""

from collections.abc import Sequence

from peers.storing.drawing import StoredObject
from swarm.checkpoint.unixfs import DAG_PB, parse_any_cid
from swarm.config import RunConfig
from swarm.config.storage import StoredObject as Listed

DEFAULT_REPLICAS = 3  # of a run that says nothing of storage


def objects_of(run: RunConfig) -> list[StoredObject]:
    """What it pays for, in its order; of a run that pays nobody: its data, and the published model that it starts from."""
    if run.storage is not None:
        return [_listed(number, each) for number, each in enumerate(run.storage.objects)]
    data = run.task.data
    root = bytes.fromhex(data.root)
    size = sum(file.size for file in data.content().values()) + sum(t.size_bytes() for t in data.tables().values())
    found = [StoredObject(root, DAG_PB, size, root, "the run's data")]
    base = run.task.model.published()
    if base is not None:
        found.append(StoredObject(base.root, DAG_PB, base.size, base.root, "the model that the run starts from"))
    return found


def replicas_of(run: RunConfig) -> int:
    """How many storers are to hold each."""
    return DEFAULT_REPLICAS if run.storage is None else run.storage.replicas


def _listed(number: int, listed: Listed) -> StoredObject:
    root, codec = parse_any_cid(listed.cid)
    return StoredObject(root, codec, listed.bytes, bytes.fromhex(listed.segments_root), f"the run's object {number}")


def pinned(cids: Sequence[str]) -> list[StoredObject]:
    """What the owner names; its size is known once its nodes are here."""
    found = []
    for cid in cids:
        root, codec = parse_any_cid(cid)
        found.append(StoredObject(root, codec, 0, root, cid[:16] + "…", is_pinned=True))
    return found


__all__ = ["DEFAULT_REPLICAS", "objects_of", "pinned", "replicas_of"]
