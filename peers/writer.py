"""A thread that writes what others hand it, as much at once as has come meanwhile: one fsync for many (group commit)."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
Item = TypeVar("Item")


class Writer(Generic[Item]):
    """`write(items)` is called in the thread with what was put, in order, at most `most` at once. When it raises, `failed(error)` is
    called, once, and nothing is written any more. A context manager: what was put is written before it ends."""

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], None],
        failed: Callable[[Exception], None],
        most: int = 1024,
    ) -> None:
        self._write, self._failed, self._most = write, failed, most
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._num_writing = 0
        self._is_ending = self._is_broken = False
        # A daemon: a disk that hangs must not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """To be written; returns at once. After a failure or `close` it is forgotten."""
        with self._changed:
            if not self._is_broken and not self._is_ending:
                self._items.append(item)
                self._changed.notify_all()

    @property
    def num_waiting(self) -> int:
        """What was put and is not written yet."""
        return len(self._items) + self._num_writing

    def close(self, seconds: float | None = None) -> None:
        """Idempotent. Returns when what was put before is written, or after `seconds`."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def __enter__(self) -> "Writer[Item]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while items := self._next():
            try:
                self._write(items)
            except Exception as error:  # the process boundary of this thread: its owner decides
                log.error("%s: not written", self._thread.name, exc_info=error)
                with self._changed:
                    self._is_broken = True
                    self._items.clear()
                    self._num_writing = 0
                self._failed(error)
                return

    def _next(self) -> list[Item]:
        """Waits for what is to be written; nothing at the end."""
        with self._changed:
            self._num_writing = 0
            while not self._items and not self._is_ending:
                self._changed.wait()
            count = min(self._most, len(self._items))
            self._num_writing = count
            return [self._items.popleft() for _ in range(count)]


__all__ = ["Writer"]
