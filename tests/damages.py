"""What can happen to a file."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

Damage = Callable[[Path], None]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(share: float) -> Damage:
    def flipped(path: Path) -> None:
        data = bytearray(path.read_bytes())
        if data:
            data[min(int(len(data) * share), len(data) - 1)] ^= 0x10
            path.write_bytes(data)

    flipped.__name__ = f"flip-{share}"
    return flipped


def other_version(path: Path) -> None:
    path.write_bytes(b'{"version": 99, "peers": 3}\n')


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 200_000)


def huge_number(path: Path) -> None:
    path.write_bytes(b"[[1" + b"0" * 400 + b', "00"]]')


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def leads_nowhere(path: Path) -> None:
    """Nobody can read it, root neither."""
    path.unlink()
    path.symlink_to(path)


DAMAGES: tuple[Damage, ...] = (
    empty, half, flip(0.0), flip(0.3), flip(0.7), flip(1.0), other_version, deep, huge_number, missing, folder, leads_nowhere,
)  # fmt: skip


def huge_numbers(path: Path) -> None:
    """In every number's place that stands alone."""
    path.write_bytes(re.sub(rb"(?<=[ :,=])[0-9]+(?=[,}\n ]|$)", b"1" + b"0" * 400, path.read_bytes()))


def cuts_and_flips(whole: bytes, every: int) -> Iterator[bytes]:
    """`whole` cut off, and with one bit turned over, at every so many bytes."""
    for at in range(0, len(whole), every):
        yield whole[:at]
        for bit in (1, 16):
            yield whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
