"""Everything that incentives raises on purpose, grouped by what the caller does.

IncentivesError
├── InputError        fix the input: field, value and remedy are in the message
│   └── NothingToSettle   all that is certified is settled: come back later
│       ├── NoWork        what is certified and not settled pays nobody yet
│       └── InFlight      its receipts may still be on their way
├── KeyFileError       fix the key file, its password or its permissions
│   └── WrongPassword
├── BadSignature      drop what carries it
├── Equivocation      do not sign: the journal already holds another digest for this subject
├── StorageError      the disk, or who else uses the file: try later, or restore from a copy
├── TamperedError     what is stored, published or shown contradicts itself: do not use it
└── ChainError        the node or the contract said no
"""

import errno


def disk_remedy(error: OSError) -> str:
    """What lets through next time what the system did not write."""
    if error.errno == errno.EFBIG:
        return "raise the limit on file sizes (ulimit -f), or choose a disk that takes larger files"
    return "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"


def shorten(value: object) -> str:
    """`value` for a one-line message; bytes as hex."""
    shown = "0x" + value.hex() if isinstance(value, bytes) else repr(value)
    return shown if len(shown) <= 120 else shown[:117] + "..."


class IncentivesError(Exception):
    """Base of all errors of this package; `str()` is one line for people."""


class InputError(IncentivesError):
    """Bad input. The message names the field, the value and the remedy."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field} = {shorten(value)}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class NothingToSettle(InputError):
    """Every certified epoch is settled, or in the final period already."""


class NoWork(NothingToSettle):
    """There are unsettled epochs, and no receipt in them that can be paid."""


class InFlight(NothingToSettle):
    """What is certified and not settled is so new that receipts of it may still be on their way."""


class KeyFileError(IncentivesError):
    """A key file or its password is missing, malformed, readable by others or wrong. Says which, never the key."""


class WrongPassword(KeyFileError):
    """The key file is well, and another password opens it."""


class BadSignature(IncentivesError):
    """The signature is malformed, not canonical (high s) or not by the account it claims."""


class Equivocation(IncentivesError):
    """Refused to sign: the journal holds a different digest for the same subject."""


class StorageError(IncentivesError):
    """A file cannot be read, written or locked. What was asked for did not happen."""


class TamperedError(IncentivesError):
    """Stored or published data contradicts its own hashes, order or totals."""


class ChainError(IncentivesError):
    """The node cannot be reached, is on another chain, or the contract refused."""
