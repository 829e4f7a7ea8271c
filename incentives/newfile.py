"""A file that is there whole or not at all, and never replaces another one."""

import errno
import os
from pathlib import Path

_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.EXDEV}


def place_new(draft: Path, path: Path) -> None:
    """Give `draft`, which lies beside it, the name `path`. FileExistsError where that is taken; the caller removes the draft.

    Where the file system has no hard links (exFAT, SMB, cloud drives) the name is taken by an empty file first: a crash in
    between leaves that."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.replace(draft, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
