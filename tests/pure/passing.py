"""A loop whose seconds pass at once: hours of waiting take no time, and nothing depends on how busy the machine is."""

import asyncio
import selectors


class PassingLoop(asyncio.SelectorEventLoop):
    """Its seconds pass at once."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Passing(self))

    def time(self) -> float:
        return self.now


class _Passing(selectors.SelectSelector):
    def __init__(self, loop: PassingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.now += timeout or 0.0
        return super().select(0)
