"""peer.log: for people, of bounded size."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from swarm.errors import printable_lines

LOG_BYTES = 16 << 20  # of peer.log, and of the one before


class ForTerminals(logging.Formatter):
    """People look at a log with `cat` and `tail -f`, and strangers' words are in it."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def print_nothing() -> None:
    """What people are to read is printed by who ends the process, once."""
    logging.raiseExceptions, logging.lastResort = False, None


def log_to(path: Path) -> None:
    """All that this process logs, from now on."""
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(ForTerminals("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


__all__ = ["ForTerminals", "log_to", "print_nothing"]
