"""status.json: what a peer says of itself, twice a second. Written and read by one type."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from pydantic_core import from_json

from peers.advice import Advice
from peers.directory import write_json


@dataclass
class PeerStatus:
    """Seconds are wall clock, losses nats per token, bytes payload; None: not known yet. `phase`: starting, connecting, fetching
    data, reading the data, fetching the anchor, training, serving or finished."""

    mode: str = ""
    phase: str = "starting"
    pid: int | None = None
    account: str = ""
    epoch: int = 0
    attempt: int = 0
    root: str = ""
    time: float | None = None
    peers: int = 0  # linked
    present: int = 0  # who signed a presence that still holds
    addresses: tuple[str, ...] = ()  # told to others
    reachable: bool | None = None  # None: nobody was asked
    advice: tuple[Advice, ...] = ()
    warning: str = ""  # a proposal that the own ledger would not make is in its window
    watched_time: float | None = None  # when the chain was last looked at for proposals
    named_wallet: str = ""  # whom its owner wants paid
    binding: str = ""  # of its key: "bound", "named" or "none"; "": nothing is paid in this run, or to a seed
    pay: str = ""  # the same for people, with what is at risk
    device: str = ""  # where its inner steps are computed
    units: int = 0  # all it ever did
    receipts: int = 0  # of its work, that would be paid now; those that are settled are in it
    paid_units: int = 0  # in those receipts
    unpaid_units: int = 0  # done, and should have a receipt by now (peers.overdue)
    unpaid_why: str = ""  # the same for people, with the remedy
    swarm_units: int = 0
    run_units: int = 0  # on the run's clock: certified
    total_units: int = 0  # at which the run ends
    ends_in_seconds: float | None = None  # at the pace of late
    train_loss: float | None = None
    held_out_loss: float | None = None  # a seed's
    inner_steps: int | None = None  # of this process, as are the seconds
    inner_seconds: float | None = None
    rest_seconds: float | None = None
    training_seconds: float | None = None
    data_wait_seconds: float | None = None
    compute_seconds: float | None = None
    received_bytes: int = 0
    total_bytes: int = 0
    sent_bytes: int = 0
    disk_written_bytes: int = 0  # in the last 24 hours
    stored_objects: int = 0  # of a storer: that are here whole
    wanted_objects: int = 0  # that it is to keep
    stored_bytes: int = 0
    quota_bytes: int = 0
    storers: int = 0  # that it knows, itself with them
    rotten_blocks: int = 0  # found on its disk since it started
    storage_receipts: int = 0  # its own, that are co-signed
    faults: int = 0
    ended: str = ""

    @property
    def is_at_work(self) -> bool:
        return self.phase in ("training", "serving", "finished")

    def write(self, path: Path) -> None:
        """Renamed into place. What cannot be written is not worth ending for."""
        with contextlib.suppress(OSError):
            write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> "PeerStatus":
        """What is missing, half-written or of another type is as if it had not been said. Raises nothing."""
        try:
            found = from_json(path.read_bytes())  # bounds the depth; json.loads can overflow the stack
        except (OSError, ValueError):  # not there, not JSON, or not UTF-8
            return cls()
        return cls.of(found) if isinstance(found, dict) else cls()

    @classmethod
    def of(cls, values: dict[str, Any]) -> "PeerStatus":
        """As `read`."""
        said = {name: _as(kind, values[name]) for name, kind in get_type_hints(cls).items() if name in values}
        return cls(**{name: value for name, value in said.items() if value is not None})


def _as(kind: Any, value: Any) -> Any:
    """`value` as a field of this type; None where it is no such thing."""
    wanted = next((t for t in get_args(kind) if t is not NoneType), kind) if NoneType in get_args(kind) else kind
    if wanted is bool or wanted is str:
        return value if isinstance(value, wanted) else None
    if wanted in (int, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
        return wanted(value) if is_number else None
    if not isinstance(value, list):
        return None
    if get_args(wanted)[0] is str:
        return tuple(each for each in value if isinstance(each, str))
    pairs = ((each.get("code"), each.get("text")) for each in value if isinstance(each, dict))
    return tuple(Advice(code, text) for code, text in pairs if isinstance(code, str) and isinstance(text, str))
