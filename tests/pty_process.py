"""A command that somebody sits before: a terminal of its own, in its foreground."""

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Sitting:
    """`said`: all that came so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process, self.terminal, self.said = process, terminal, ""

    def until(self, text: str, seconds: float = 60.0) -> None:
        """Reads on until `text` came."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, f"no {text!r} in {self.said!r}"
            self._read()

    def answer(self, text: str) -> None:
        os.write(self.terminal, text.encode() + b"\n")

    def ended(self, seconds: float = 60.0) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"does not end: {self.said!r}"
            self._read()
        self._read()
        return self.process.returncode

    def _read(self) -> None:
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.said += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # nobody has it open any more
                time.sleep(0.05)


@contextmanager
def sitting(command: Sequence[object], cwd: object) -> Iterator[Sitting]:
    outside, inside = os.openpty()
    process = subprocess.Popen(
        [str(each) for each in command], cwd=str(cwd), preexec_fn=lambda: os.login_tty(inside), pass_fds=(inside,)
    )
    os.close(inside)
    try:
        yield Sitting(process, outside)
    finally:
        process.kill()
        process.wait()
        os.close(outside)


__all__ = ["Sitting", "sitting"]
