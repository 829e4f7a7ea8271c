"""Errors of the process around a peer; what they say is meant for its owner.

PeerError
├── ConfigError      fix peer.toml, an option or a file
└── StartError       the peer cannot start or go on: port, bootstrap, disk
"""

from swarm.errors import printable, shown


class PeerError(Exception):
    """Base of all errors of this package; `str()` is one line for people."""


class ConfigError(PeerError):
    """Bad configuration. The message names the field, the value and the remedy."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{printable(field, 120)} = {shown(value)}: {printable(remedy, 800)}")


class StartError(PeerError):
    """The peer cannot start or go on."""
