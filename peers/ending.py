"""How far a run is, when it ends at this pace, and when a peer that has reached its end may go. Pure: clocks are given, in seconds."""

from collections import deque

WINDOW_SECONDS = 600.0  # over which the pace is taken
MAX_STEPS = 64  # certificates in it
MOST_AT_ONCE = 2  # certificates between two looks; what comes faster is history that is caught up with, and says nothing of the pace
LINGER_SECONDS = 60.0  # at most, for others that lack the last state
QUIET_SECONDS = 2.0  # what was said last is on its way

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


class Course:
    """What was certified of late, as seen while it happened: the run's clock by time."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=MAX_STEPS)
        self._epoch = 0

    def at(self, units: int, epoch: int, now: float) -> None:
        """The run's clock and the round under way as they are seen now. Where the clock goes back another branch is followed, and where
        it leaps this peer has come, or come back, to what others have done meanwhile: the pace is taken anew."""
        if self._steps and (units < self._steps[-1][1] or epoch - self._epoch > MOST_AT_ONCE):
            self._steps.clear()
        self._epoch = epoch
        if not self._steps or units > self._steps[-1][1]:
            self._steps.append((now, units))
        while len(self._steps) > 2 and self._steps[0][0] < now - WINDOW_SECONDS:
            self._steps.popleft()

    def seconds_for(self, units: int, now: float) -> float | None:
        """How long so many more take at this pace; None: not known yet. A standstill that is longer than what was measured slows
        it."""
        if not units:
            return 0.0
        if len(self._steps) < 2:
            return None
        (first, before), (last, after) = self._steps[0], self._steps[-1]
        elapsed = max(last - first, now - last)
        return units * elapsed / (after - before)


class Farewell:
    """When a peer whose run has ended may leave: what it did and witnessed is signed and written, and no linked peer lacks the last
    state. For that it waits `LINGER_SECONDS` at most."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._quiet_since: float | None = None

    def may_leave(self, now: float, *, has_ended: bool, is_quits: bool, num_behind: int) -> bool:
        """To be asked again and again. `has_ended`: the run, and its last state is here."""
        if not has_ended:
            self._since = self._quiet_since = None
            return False
        self._since = now if self._since is None else self._since
        is_quiet = is_quits and not num_behind
        self._quiet_since = (now if self._quiet_since is None else self._quiet_since) if is_quiet else None
        if self._quiet_since is not None and now - self._quiet_since >= QUIET_SECONDS:
            return True
        return now - self._since >= LINGER_SECONDS


def course_words(units: int, total_units: int, ends_in_seconds: float | None) -> str:
    """One line for people; empty where nothing is known."""
    if not total_units:
        return ""
    done = f"{units:,} of {total_units:,} units ({min(100, 100 * units // total_units)}%)"  # all of it only at the end
    if units >= total_units:
        return f"{done}: finished"
    when = "" if ends_in_seconds is None else f", ends in about {duration_words(ends_in_seconds)} at this pace"
    return done + when


def duration_words(seconds: float) -> str:
    """As 40 s, 12 min, 3.5 h, 12 d."""
    for size, name in _UNITS:
        if seconds >= 2 * size or size == 1.0:
            many = seconds / size
            return f"{many:.1f} {name}" if many < 10 and size >= 3600.0 else f"{many:.0f} {name}"
    raise AssertionError("the last unit takes all")


def finished_words(epoch: int, units: int, total_units: int, loss: float | None, is_late: bool, directory: str) -> str:
    """That the run is over and what its owner can do now, in one line. `directory`: quoted for a shell; `loss` held out, where known."""
    known = "" if loss is None else f", held-out loss {loss:.3f}"
    late = ": it came too late to take part" if is_late else ""
    return (
        f"the run is finished (epoch {epoch}, {units:,} of {total_units:,} units{known}){late}; "
        f"the model: sparehive export --dir {directory} --out model"
    )


__all__ = ["Course", "Farewell", "course_words", "duration_words", "finished_words"]
