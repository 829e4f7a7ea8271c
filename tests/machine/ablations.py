"""The named rules of the round, each of which can be taken out of the product's classes for as long as a test lasts."""

import contextlib
from collections.abc import Iterator

from swarm.averaging.machine import STALLS_BEFORE_FEWER, RoundMachine

__all__ = ["STALLS_BEFORE_FEWER", "without"]


@contextlib.contextmanager
def without(names: tuple[str, ...]) -> Iterator[type[RoundMachine]]:
    yield RoundMachine
