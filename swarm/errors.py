"""Everything that swarm raises on purpose, grouped by what the caller does.

SwarmError
├── InputError         fix the input: field, value and remedy are in the message
├── RoundError         skip this round
├── RetryError         try later
│   └── DiskError      the disk refuses: stop before anything else is signed, free some space, start again
└── PeerFault          drop the peer: what it sent breaks a rule
    └── BadSignature
ForgottenSignature     (a SwarmError) stop: the journal does not hold what this peer's own account has signed
Equivocation           (a SwarmError) the journal already holds another digest for this subject
"""

import errno


def disk_remedy(error: Exception) -> str:
    """What lets through next time what the system did not write; safetensors says the system's reason in words."""
    if getattr(error, "errno", None) == errno.EFBIG or f"os error {errno.EFBIG}" in str(error):
        return "raise the limit on file sizes (ulimit -f), or choose a disk that takes larger files"
    return "free some disk"


def shown(value: object) -> str:
    """A wrong value as one line of at most 120 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; nested too deep
        return f"a {type(value).__name__} that is too large to show"
    return printable(text, 120)


def printable(text: str, most: int) -> str:
    """Text from outside for a terminal: at most `most` characters, and what is not to be printed as its escape."""
    short = text if len(text) <= most else text[: most - 3] + "..."
    return short if short.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)


def printable_lines(text: str, most: int = 5000) -> str:
    """Text from outside for a terminal, line by line; `most` bounds each line."""
    return "\n".join(printable(line.expandtabs(), most) for line in text.splitlines())


class SwarmError(Exception):
    """Base of all errors of this package; `str()` is one line for people."""


class InputError(SwarmError):
    """Bad input of the user. The message names the field, the value and the remedy."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{printable(field, 120)} = {shown(value)}: {printable(remedy, 500)}")
        self.field, self.value, self.remedy = field, value, remedy


class RoundError(SwarmError):
    """This round cannot be finished; training goes on."""


class RetryError(SwarmError):
    """Not now: a peer, the disk or the network is not ready. Try again later."""


class DiskError(RetryError):
    """The disk does not take what has to be on it. Nothing was signed, nothing half-written counts; who relies on the disk
    stops, and goes on from what is there once it has been started again."""


class PeerFault(SwarmError):
    """A peer broke a rule. The message says which; the caller drops what it sent, and the peer if it repeats."""


class BadSignature(PeerFault):
    """The signature is malformed, not canonical (high s) or not by the account it claims."""


class ForgottenSignature(SwarmError):
    """Somebody shows a signature by this peer's own account that its journal does not hold: the journal was lost or shortened, or
    the key is used in two places. Signing on could mean signing twice; the caller stops the peer."""


class Equivocation(SwarmError):
    """Refused to sign: the journal holds a different digest for the same subject."""
