"""How the process of a peer ends: its exit status, its last words, and a limit on how long it may take."""

import contextlib
import os
import sys
import threading

from incentives.errors import IncentivesError
from peers.errors import PeerError, in_one_line
from swarm.errors import RetryError, SwarmError

EXIT_LEFT, EXIT_FAILED, EXIT_USER_ERROR = 0, 1, 3  # as asked; start it again; starting it again would not help
EXIT_FINISHED = 5  # the run had ended before this peer came: starting it again would not help either
EXIT_WARNED = 4  # of the command, not of the process: as asked, while a proposal is in its window that the own ledger would not make
LEAVE_SECONDS, TRAINER_SECONDS, CLOSE_SECONDS = 9.0, 7.0, 4.0  # a leaver is given 10 s in all


def exit_status(error: BaseException, has_been_ready: bool) -> int:
    """What was well once is worth another try; who has never got in is told why, at once."""
    if not isinstance(error, PeerError | SwarmError | IncentivesError | OSError):
        return EXIT_FAILED
    return EXIT_FAILED if isinstance(error, RetryError) and has_been_ready else EXIT_USER_ERROR


def say_why(error: BaseException, has_been_ready: bool) -> int:
    """One line for people (where it goes to may be on the full disk too), and the exit status that follows."""
    with contextlib.suppress(OSError):
        print(f"sparehive: {in_one_line(error)}", file=sys.stderr, flush=True)
    return exit_status(error, has_been_ready)


def end_within(
    seconds: float, error: BaseException | None = None, has_been_ready: bool = True, status: int = EXIT_LEFT
) -> None:
    """End the process after `seconds`, with `status` where there is no error, whatever still waits for streams to close: journal and
    ledger are on disk at every moment, and the supervisor ends the daemon."""

    def end() -> None:
        os._exit(status if error is None else say_why(error, has_been_ready))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
