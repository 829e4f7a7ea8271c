"""How far a run is, by what a peer's directory says of it: for people and as JSON."""

import time
from pathlib import Path
from typing import Any

from incentives.errors import InputError
from incentives.storage import pool_id
from peers.directory import PeerDirectory
from peers.ending import course_words, duration_words
from peers.invite import Invite
from peers.status import PeerStatus
from peers.watching import FRESH_SECONDS


def read_course(directory: Path) -> PeerStatus:
    """InputError where no peer has run in it yet."""
    status = PeerStatus.read(PeerDirectory(directory).status)
    if not status.total_units:
        raise InputError(
            "--dir", str(directory), "says nothing of a run yet: give the directory of a peer or seed that has run"
        )
    return status


def check_course_of(directory: Path, run_id: bytes, of_storage: bool = False) -> None:
    """InputError where the peer in `directory` is of another run than the settlement, whose run id is that of a pool for storing where
    `of_storage`."""
    own = Invite.of_file(PeerDirectory(directory).invite).binding.run_id
    own = pool_id(own) if of_storage else own
    if own != run_id:
        raise InputError(
            "--dir", str(directory), f"is of run 0x{own.hex()}, the settlement of 0x{run_id.hex()}: give a peer of that"
        )


def _age(status: PeerStatus, now: float) -> float:
    return now - (status.time or 0.0)


def course_line(status: PeerStatus, now: float | None = None) -> str:
    """One line; who does not run says nothing of an end. `now`: unix seconds."""
    age = _age(status, time.time() if now is None else now)
    is_fresh = age <= FRESH_SECONDS
    words = course_words(status.run_units, status.total_units, status.ends_in_seconds if is_fresh else None)
    loss = "" if status.held_out_loss is None else f", held-out loss {status.held_out_loss:.3f}"
    old = "" if is_fresh or status.phase == "finished" else f"; as its peer saw it {duration_words(age)} ago"
    return f"work: {words}; epoch {status.epoch}{loss}{old}"


def course_json(status: PeerStatus, now: float | None = None) -> dict[str, Any]:
    """`ends_in_seconds` is null where it is not known, or the peer does not run."""
    is_fresh = _age(status, time.time() if now is None else now) <= FRESH_SECONDS
    return {
        "work": {
            "epoch": status.epoch,
            "units": status.run_units,
            "total_units": status.total_units,
            "finished": status.run_units >= status.total_units,
            "ends_in_seconds": status.ends_in_seconds if is_fresh else None,
            "held_out_loss": status.held_out_loss,
            "time": status.time,
        }
    }


__all__ = ["check_course_of", "course_json", "course_line", "read_course"]
