"""Errors of the process around a peer; what they say is meant for its owner.

PeerError
├── ConfigError      fix peer.toml, an option or a file
└── StartError       the peer cannot start or go on: port, bootstrap, disk
"""

import errno

from swarm.errors import disk_remedy, printable, shown

_REMEDIES = {
    errno.EISDIR: "a folder lies where a file belongs: move it away",
    errno.ENOTDIR: "a file lies where a folder belongs: move it away",
    errno.EEXIST: "something else lies in its place: move it away",
    errno.ELOOP: "a link that leads nowhere lies in its place: remove it",
    errno.EACCES: "make it yours: chown and chmod u+rwX",
    errno.EPERM: "make it yours: chown and chmod u+rwX",
    errno.EROFS: "choose a directory that you may write to",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: disk_remedy(OSError(errno.EFBIG, "")),
    errno.EIO: "check the disk",
    errno.ENOENT: "check the path",
}


class PeerError(Exception):
    """Base of all errors of this package; `str()` is one line for people."""


class ConfigError(PeerError):
    """Bad configuration. The message names the field, the value and the remedy."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{printable(field, 120)} = {shown(value)}: {printable(remedy, 800)}")
        self.field, self.remedy = field, remedy


def in_one_line(error: BaseException) -> str:
    """What its owner is told: of an error of the system the file, what is wrong with it and what to do."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.errno is not None:
        text = f"{error.filename}: {error.strerror}"
        if error.errno in _REMEDIES:
            text += f": {_REMEDIES[error.errno]}"
    return one_line(text)


def one_line(text: str) -> str:
    """Words of the system, of strangers or of the owner, as one line that a terminal can show."""
    return printable(" ".join(text.split()), 2000)


class StartError(PeerError):
    """The peer cannot start or go on."""
