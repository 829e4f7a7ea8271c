"""Events as JSON lines in the peer's directory: what the dashboard, the demo, the notebook and the benchmarks read.

Bounded: a full file is renamed and a new one begun, and the one renamed before goes. Strangers can cause events (each message
that breaks a rule is one), so without a bound they could fill the disk.
"""

import contextlib
import dataclasses
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from peers.directory import old_events
from swarm import events
from swarm.records import wire

WRONG_AVERAGE = json.dumps(events.WrongAverage.__name__).encode()
MAX_BYTES = 32 << 20  # of each of the two files: about 100,000 epochs


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
            "reducers": ["0x" + reducer.hex() for reducer in event.body.reducers],
            "signatures": len(event.signatures),
            "own": event.own != bytes(32),
        }
    if isinstance(event, events.Contributed):
        record: Any = event.signed.record
        return {"epoch": record.epoch, "units": record.units, "first_unit": record.first_unit}
    if isinstance(
        event, events.WrongAverage
    ):  # with both signed messages: the proof, for whoever has the set's contributions
        average: Any = event.average.record
        return {
            "account": "0x" + event.average.signer.hex(),
            "epoch": average.epoch,
            "attempt": average.attempt,
            "part": average.part,
            "right": "0x" + event.digest.hex(),
            "average": "0x" + wire.pack(event.average).hex(),
            "set": "0x" + wire.pack(event.proposal).hex(),
        }
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
    """Appends one line per event: {"time": unix seconds, "event": name, …}. Thread-safe; a full disk loses lines, not the peer.

    At `max_bytes` the file becomes `old_events(path)`, in place of the one before."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._lock = threading.Lock()
        self._handle = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self._torn = _is_torn(path)
        self.lost = 0

    def write(self, event: events.Event) -> None:
        fields = {"time": round(time.time(), 3), "event": type(event).__name__, **event_fields(event)}
        line = json.dumps(fields).encode() + b"\n"
        with self._lock:
            try:
                if self._handle.tell() + len(line) > self._max_bytes:
                    self._rotate()
                data = b"\n" + line if self._torn else line
                self._torn = self._handle.write(data) < len(data)
            except (OSError, ValueError):
                self.lost += 1

    def _rotate(self) -> None:
        os.replace(self._path, old_events(self._path))
        full = self._handle
        self._handle, self._torn = open(self._path, "ab", buffering=0), False  # noqa: SIM115 (closed by close)
        full.close()

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._handle.close()


def shown_before(path: Path) -> set[bytes]:
    """Accounts that this peer has shown to have averaged wrongly, as far as its events (at `path`, and those before) go back: whoever
    starts it again need not find out anew. Lines that cannot be read say nothing."""
    found = set()
    for events_file in (old_events(path), path):
        with contextlib.suppress(OSError), open(events_file, "rb") as lines:
            for line in lines:
                if WRONG_AVERAGE in line:
                    with contextlib.suppress(ValueError, TypeError, KeyError):
                        found.add(bytes.fromhex(from_json(line)["account"][2:]))
    return {account for account in found if len(account) == 20}


def _is_torn(path: Path) -> bool:
    """Whether a power cut or a full disk left half a line: the next one must not be written onto its end."""
    with open(path, "rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - 1))
        return handle.read(1) not in (b"", b"\n")
