"""Where the unix sockets between this process and its p2p daemon lie: one private directory per daemon.

hivemind writes its own into `/tmp`, whatever TMPDIR says and whether `/tmp` may be written to; and the path of a unix socket
is short (107 bytes on Linux, 103 on macOS), shorter than many a TMPDIR. So places are tried by binding there.
"""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from swarm.errors import InputError

PREFIX = "sparehive-"
DAEMON_SOCKET = "p2pd.sock"
# A daemon that has bound its socket and does not listen yet refuses, too: nothing that young is called dead.
YOUNG_SECONDS = 3600.0
_LONGEST_NAME = "p2pclient-" + "x" * 11 + ".sock"  # as `P2P.replicate` of hivemind 1.1.12 names its own


def places(peer_directory: Path) -> list[Path]:
    """Where a private directory may be made, the customary first."""
    found = [Path("/tmp"), Path("/var/tmp"), Path(f"/run/user/{os.getuid()}"), Path("/dev/shm"), Path("/run")]
    with contextlib.suppress(FileNotFoundError):  # where it, too, finds none that it may write to
        found.insert(0, Path(tempfile.gettempdir()).absolute())
    return list(dict.fromkeys([*found, peer_directory.absolute()]))


def make_socket_directory(candidates: Iterable[Path]) -> Path:
    """A new directory of mode 0700 in the first of `candidates` where sockets can be bound. What daemons that are dead left
    there is removed. `InputError` where there is none."""
    refused = []
    for parent in candidates:
        try:
            _remove_dead(parent)
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            refused.append(f"{parent} ({error.strerror})")
            continue
        probe = made / _LONGEST_NAME
        try:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(probe))
            probe.unlink()
            return made
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            refused.append(f"{parent} ({error.strerror or error})")
    raise InputError(
        "sockets of the p2p daemon",
        ", ".join(refused),
        "nowhere can one be made: let TMPDIR name a directory that you may write to, of at most 60 characters",
    )


def _remove_dead(parent: Path) -> None:
    """A peer that was killed could not clean up. Its daemon is gone when its socket refuses long after it was made."""
    for left in parent.glob(f"{PREFIX}*"):
        try:
            found = left.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < YOUNG_SECONDS:
                continue
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(1.0)
                caller.connect(str(left / DAEMON_SOCKET))
        except ConnectionRefusedError:
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue
