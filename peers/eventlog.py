"""Events as JSON lines in the peer's directory: what the dashboard, the demo, the notebook and the benchmarks read."""

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

from swarm import events


def event_fields(event: events.Event) -> dict[str, Any]:
    """A flat, JSON-ready form: hashes as 0x-hex, what is large (bodies, signatures) as counts."""
    if isinstance(event, events.Certified):
        certificate = event.certificate
        return {
            "id": "0x" + event.id.hex(),
            "epoch": certificate.epoch,
            "attempt": certificate.attempt,
            "kind": certificate.kind,
            "root": "0x" + certificate.next_root.hex(),
            "units": certificate.units,
            "cumulative_units": certificate.cumulative_units,
            "contributors": ["0x" + leaf.peer.hex() for leaf in event.body.contributors],
            "signatures": len(event.signatures),
            "own": event.own != bytes(32),
        }
    if isinstance(event, events.Contributed):
        record: Any = event.signed.record
        return {"epoch": record.epoch, "units": record.units, "first_unit": record.first_unit}
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if isinstance(value, bytes):
            value = "0x" + value.hex()
        elif isinstance(value, tuple):
            value = ["0x" + v.hex() if isinstance(v, bytes) else v for v in value]
        fields[field.name] = value
    return fields


class EventLog:
    """Appends one line per event: {"time": unix seconds, "event": name, …}. Thread-safe; a full disk loses lines, not the peer."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._handle = open(path, "a", buffering=1)  # noqa: SIM115 (closed by close)
        self.lost = 0

    def write(self, event: events.Event) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": type(event).__name__, **event_fields(event)})
        with self._lock:
            try:
                self._handle.write(line + "\n")
            except (OSError, ValueError):
                self.lost += 1

    def close(self) -> None:
        with self._lock:
            self._handle.close()
