"""What a command says on stderr while its user waits: a bar on a terminal, else a line now and then."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from swarm.errors import printable

FIRST_SECONDS, EVERY_SECONDS = 5.0, 15.0  # without a terminal


class ProgressBar:
    """One thing after another. Says nothing where `quiet`, and nothing without a terminal about what is done at once."""

    def __init__(self, quiet: bool = False, first_seconds: float = FIRST_SECONDS) -> None:
        self._quiet = quiet or sys.stderr is None
        self._first_seconds = first_seconds

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[Callable[[float], None]]:
        """While `what` is done; give what comes out the share that is done, 0 to 1, where that is known."""
        what = printable(what, 200)
        if self._quiet:
            yield lambda share: None
        elif sys.stderr.isatty():
            with _bar(what) as report:
                yield report
        else:
            with self._lines(what) as report:
                yield report

    def note(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            with contextlib.suppress(OSError):
                print(f"sparehive: {printable(text, 500)}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _lines(self, what: str) -> Iterator[Callable[[float], None]]:
        known: list[float] = []
        ended = threading.Event()
        begun = time.monotonic()

        def tell() -> None:
            wait = self._first_seconds
            while not ended.wait(wait):
                share = f"{known[-1]:.0%}, " if known else ""
                self.note(f"{what}: {share}{time.monotonic() - begun:.0f} s")
                wait = EVERY_SECONDS

        def report(share: float) -> None:
            known[:] = [share]

        teller = threading.Thread(target=tell, name="progress", daemon=True)
        teller.start()
        try:
            yield report
        finally:
            ended.set()
            teller.join()


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn("line"),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=None)
        yield lambda share: progress.update(task, total=1.0, completed=share)


__all__ = ["ProgressBar"]
