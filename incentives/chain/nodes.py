"""Which nodes of a chain a command asks, and how patiently. No web3 here: who only reads options need not load it."""

from dataclasses import dataclass

COMMAND_SECONDS = 120.0  # that one command may wait for its nodes' answers, all of them together
WAIT_SECONDS = 180.0  # for a transaction to be in a block


@dataclass(frozen=True, slots=True)
class Nodes:
    """The options of a command. `max_age_seconds`: of the newest block; `wait_seconds`: for a transaction to be in a block."""

    urls: tuple[str, ...]
    timeout_seconds: float = COMMAND_SECONDS
    max_age_seconds: float | None = None  # an hour, but on a development chain, whose time stands still or is set
    wait_seconds: float = WAIT_SECONDS


def in_words(seconds: float) -> str:
    """About how long, for people."""
    left = max(0, int(seconds))
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if left >= 2 * size:
            return f"{left // size} {unit}"
    return f"{left} s"


__all__ = ["COMMAND_SECONDS", "WAIT_SECONDS", "Nodes", "in_words"]
