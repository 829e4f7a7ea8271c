"""A stamp: work that a key shows before strangers listen to it, where a run asks for it (`admission.stamp_seconds`). Pure.

Hashcash (Back 2002) over scrypt (RFC 7914), whose megabyte per try leaves a graphics card little of its lead. A stamp holds for one
account, one run and one day, so it can be neither lent nor shown elsewhere; it is made of `PROOFS` small proofs, so that luck
evens out. To make one takes so many seconds of one core as the run says, by `TRIES_PER_SECOND`; to check one takes `PROOFS` tries,
and a false one is found at the first.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from swarm.atomic import write_atomically
from swarm.hashing import keccak256
from swarm.records.types import Account, Hash

PROOFS = 8
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1024, 8, 1  # 1 MiB
TRIES_PER_SECOND = 400  # of one core of a common machine
DAY_SECONDS = 86_400
MAX_NONCE = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """`day` since 1970 (UTC); one nonce for each proof."""

    day: int
    nonces: tuple[int, ...]

    def value(self) -> list[int]:
        """As it stands in a hello."""
        return [self.day, *self.nonces]


def read_stamp(value: object) -> Stamp | None:
    """None for what is no stamp, or nothing."""
    if not isinstance(value, list) or len(value) != 1 + PROOFS:
        return None
    if any(not isinstance(each, int) or isinstance(each, bool) or not 0 <= each <= MAX_NONCE for each in value):
        return None
    return Stamp(value[0], tuple(value[1:]))


def today(wall_clock: float) -> int:
    return int(wall_clock // DAY_SECONDS)


def holds(stamp: Stamp, run_id: Hash, account: Account, seconds: float, wall_clock: float) -> bool:
    """Whether it is good now, for this account in this run. The day before and after count too: it may be midnight, or a clock be
    wrong. Takes some milliseconds of a good stamp, and less of a bad one."""
    if abs(stamp.day - today(wall_clock)) > 1 or len(stamp.nonces) != PROOFS:
        return False
    salt, bound = _salt(run_id, account, stamp.day), _bound(seconds)
    return all(_try(salt, proof, nonce) < bound for proof, nonce in enumerate(stamp.nonces))


def make_stamp(
    run_id: Hash,
    account: Account,
    seconds: float,
    day: int,
    on_progress: Callable[[float], None] = lambda share: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Stamp | None:
    """Takes about `seconds` on one core, other threads go on meanwhile; None once `is_cancelled`. `on_progress` gets the share of
    the proofs that are found."""
    salt, bound = _salt(run_id, account, day), _bound(seconds)
    nonces: list[int] = []
    nonce = 0
    while len(nonces) < PROOFS:
        if is_cancelled():
            return None
        if _try(salt, len(nonces), nonce) < bound:
            nonces.append(nonce)
            on_progress(len(nonces) / PROOFS)
            nonce = -1
        nonce += 1
    return Stamp(day, tuple(nonces))


def _salt(run_id: Hash, account: Account, day: int) -> bytes:
    return keccak256(b"sparehive stamp" + run_id + account + day.to_bytes(8, "big"))


def _bound(seconds: float) -> int:
    """Below which a proof's first 8 bytes have to be: it takes seconds · TRIES_PER_SECOND / PROOFS tries on average."""
    return int(2**64 / max(1.0, seconds * TRIES_PER_SECOND / PROOFS))


def _try(salt: bytes, proof: int, nonce: int) -> int:
    password = proof.to_bytes(1, "big") + nonce.to_bytes(8, "big")
    found = hashlib.scrypt(password, salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=8)
    return int.from_bytes(found, "big")


def load_stamp(path: Path) -> Stamp | None:
    """What `save_stamp` left; None where there is none, or it is damaged: then it is made again."""
    try:
        return read_stamp(from_json(path.read_bytes()[:4096]))
    except (OSError, ValueError):
        return None


def save_stamp(path: Path, stamp: Stamp) -> None:
    write_atomically(path, (json.dumps(stamp.value()) + "\n").encode())


__all__ = ["Stamp", "holds", "load_stamp", "make_stamp", "read_stamp", "save_stamp", "today"]
