"""The end of the run as one peer meets it: what it says, whether it came too late, and when it goes."""

import shlex
import sys
from collections.abc import Callable

from peers.assembly import Assembled
from peers.config import PeerConfig
from peers.directory import PeerDirectory
from peers.ending import Course, Farewell, finished_words
from peers.errors import StartError
from peers.leaving import EXIT_FINISHED, EXIT_LEFT
from peers.status import PeerStatus
from swarm import events
from swarm.records.types import ZERO_HASH


class Finishing:
    """Of one process. `has_worked`: in this run, now or in an earlier process; `look` is to be called twice a second."""

    def __init__(self, directory: PeerDirectory, config: PeerConfig, status: PeerStatus, has_worked: bool) -> None:
        self._directory, self._status, self.has_worked = directory, status, has_worked
        self._course, self._farewell = Course(), Farewell()
        is_seed = status.mode == "seed"
        self._stays = config.after_end == "serve" or (config.after_end == "auto" and is_seed)
        self._phase_at_work = "serving" if is_seed else "training"
        self._told: bytes = ZERO_HASH  # the certificate with which the run has ended, where that was told
        self.exit_status = EXIT_LEFT

    def phase(self, made: Assembled) -> str:
        """Of a peer that has the newest state."""
        return "finished" if made.machine.has_ended else self._phase_at_work

    def is_late(self, made: Assembled) -> bool:
        """A newcomer to a run that has ended."""
        return self._status.mode == "join" and not self.has_worked and made.machine.has_ended

    def look(self, made: Assembled, now: float, is_busy: bool, emit: Callable[[events.Event], None]) -> str:
        """Notes how much is left. Why to leave, in words, once the run has ended and nobody lacks what this peer has; empty: stay.
        `is_busy`: something else is to be finished first. `StartError` where the last state cannot be kept."""
        machine, status = made.machine, self._status
        status.run_units, status.total_units = machine.clock, made.run.inner.total_units
        self._course.at(machine.clock, machine.epoch, now)
        status.ends_in_seconds = self._course.seconds_for(machine.units_left, now)
        has_ended = made.driver.holds_the_end()
        if status.is_at_work:
            status.phase = self.phase(made)  # where a heavier branch has not ended, back to work
        if has_ended and self._told != machine.tip:
            self._told = machine.tip
            emit(events.Finished(machine.epoch - 1, machine.clock, machine.root))
        follower = made.driver.follower
        if machine.has_ended and not has_ended and follower.tip == machine.tip and follower.problem:
            raise StartError(f"the run is finished, but its last state cannot be kept here: {follower.problem}")
        is_quits = made.accounting.is_quits() and made.is_written() and not is_busy
        num_behind = 0 if self.is_late(made) else len(made.driver.behind())
        may_leave = self._farewell.may_leave(now, has_ended=has_ended, is_quits=is_quits, num_behind=num_behind)
        return self._last_words(made) if may_leave and not self._stays else ""

    def _last_words(self, made: Assembled) -> str:
        is_late = self.is_late(made)
        words = finished_words(
            made.machine.epoch - 1,
            made.machine.clock,
            made.run.inner.total_units,
            self._status.held_out_loss,
            is_late,
            shlex.quote(str(self._directory.root)),
        )
        if is_late:
            self.exit_status = EXIT_FINISHED
            print(f"sparehive: {words}", file=sys.stderr, flush=True)
        return words


__all__ = ["Finishing"]
