"""How fast this peer works for others: its owner's word, or that of whoever watches over the machine.

Set from any thread, read by the trainer between two inner steps and by the driver several times a second. Who pauses keeps its links,
votes on and merges what is certified; it says that it does not train, is not drawn, and nobody waits for it.
"""


class Pace:
    """Runs until it is told otherwise."""

    def __init__(self, rest_seconds: float = 0.0) -> None:
        self.rest_seconds = rest_seconds  # after each inner step
        self.is_paused = False

    def run(self) -> None:
        """As fast as the machine goes."""
        self.throttle(0.0)

    def throttle(self, rest_seconds: float) -> None:
        """With a rest after each inner step."""
        self.rest_seconds, self.is_paused = rest_seconds, False

    def pause(self) -> None:
        """Not at all, from the next inner step on."""
        self.is_paused = True
