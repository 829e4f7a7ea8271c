"""What a command is given as its standard descriptors: closed ones, full disks, terminals that know no UTF-8."""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

STDOUT = "stdout"


class _Output(FileIO):
    """Whose errors say what they are about, as those of every file do."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT) from None


def take_standard_descriptors() -> None:
    """To be called first thing. A closed descriptor would be taken by the next file that is opened, and a print would go there:
    it becomes /dev/null. What a terminal cannot show is written as an escape, where it would be an error."""
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free: this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
    old = sys.stdout
    if old is sys.__stdout__ and isinstance(
        old, TextIOWrapper
    ):  # else somebody has taken it already: a test, a notebook
        old.flush()
        sys.stdout = TextIOWrapper(
            BufferedWriter(_Output(1, "w", closefd=False)),
            encoding=old.encoding,
            line_buffering=old.line_buffering,
            write_through=old.write_through,
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
