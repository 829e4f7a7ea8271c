"""Rounds that this peer took part in and that ended without its work: what it sent did not reach the others in time."""

from swarm import events
from swarm.records.types import KIND_ROUND, ZERO_HASH


class Lateness:
    """Counts them in a row, from the peer's own events; `missed` may be read from any thread."""

    def __init__(self) -> None:
        self.missed = 0
        self._contributed: set[int] = set()  # epochs whose certificate has not come

    def on_event(self, event: events.Event) -> None:
        """Called from any thread, by one at a time."""
        if isinstance(event, events.Contributed):
            self._contributed.add(event.signed.record.epoch)
        elif isinstance(event, events.Certified):
            certificate = event.certificate
            if event.own != ZERO_HASH:
                self.missed = 0
            elif (
                certificate.epoch in self._contributed
                and certificate.kind == KIND_ROUND
                and certificate.num_contributors
            ):
                self.missed += 1
            self._contributed = {epoch for epoch in self._contributed if epoch > certificate.epoch}


__all__ = ["Lateness"]
