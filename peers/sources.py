"""The files that an organiser's text is made of: which are taken, in which order, and which are not and why."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peers.errors import ConfigError
from swarm.errors import printable

SUFFIXES = (".txt", ".py", ".md")
NAMES_SHOWN = 3
_REMEDY = f"give a text file or a folder of {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} files"
_OURS = ("run.toml", "identity.key")  # what lies in a directory that is not the owner's own text
_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True)
class Source:
    """One file: its path inside the folder (forward slashes; undecodable bytes escaped) and its bytes."""

    name: str
    text: bytes


@dataclass
class Sources:
    """What was read, in the order in which it is joined, and the names of what was left out by reason."""

    files: list[Source] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, name: str, why: str) -> None:
        self.skipped.setdefault(why, []).append(name)

    def counts(self) -> dict[str, int]:
        """How many files were left out, by reason."""
        return {why: len(names) for why, names in self.skipped.items()}

    def text(self) -> bytes:
        return b"".join(file.text for file in self.files)

    def words(self) -> str:
        """One line for people on what was left out; empty where nothing was."""
        if not self.skipped:
            return ""
        parts = []
        for why, names in sorted(self.skipped.items()):
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            shown = ", ".join(printable(name, 80) for name in names[:NAMES_SHOWN])
            parts.append(f"{len(names)} {why} ({shown}{more})")
        return f"left out of the text: {'; '.join(parts)}"

    def checksums(self) -> str:
        """As `sha256sum` writes and checks them."""
        return "".join(checksum_line(hashlib.sha256(file.text).hexdigest(), file.name) for file in self.files)


def read_sources(data: Path | None) -> Sources:
    """The text file, or all regular `.txt`, `.py` and `.md` files below the folder, by path (compared part by part, as bytes).

    Symbolic links below the folder are not followed (the text is published, and they lead out of it), pipes and devices never
    opened. None: the Python standard library's source. ConfigError where there is no text."""
    found = Sources()
    if data is None:
        from swarm.data.standard_library import standard_library_text

        found.files.append(Source("standard-library.txt", standard_library_text()))
        return found
    kind = _kind(data)
    if kind == stat.S_IFREG:
        _take(found, os.fspath(data), data.name)
    elif kind == stat.S_IFDIR:
        for path, name in files_below(found, os.fspath(data), SUFFIXES):
            _take(found, path, name)
    if not found.files:
        raise _no_text(data, found)
    return found


def check_sources(data: Path | None) -> None:
    """ConfigError where `read_sources` will find no file to read; none is opened."""
    found = Sources()
    if data is not None and _kind(data) == stat.S_IFDIR and not any(files_below(found, os.fspath(data), SUFFIXES)):
        raise _no_text(data, found)


def _kind(data: Path) -> int:
    """Whether it is a file or a folder; ConfigError where it is neither."""
    try:
        kind = stat.S_IFMT(data.stat().st_mode)  # what the user names may be a link
    except FileNotFoundError:
        raise ConfigError("--data", str(data), f"does not exist; {_REMEDY}") from None
    except (OSError, ValueError) as error:
        raise ConfigError("--data", str(data), f"cannot be read ({_why(error)}); {_REMEDY}") from None
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise ConfigError("--data", str(data), f"is a {_KINDS.get(kind, 'file of another kind')}; {_REMEDY}")
    return kind


def _no_text(data: Path, found: Sources) -> ConfigError:
    said = f"; {found.words()}" if found.skipped else ""
    return ConfigError("--data", str(data), f"holds no text{said}; {_REMEDY}")


def files_below(found: Sources, folder: str, suffixes: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """(path, name) of the regular files with one of these suffixes (None: with any), folder by folder; all else is noted in `found` as left
    out."""
    waiting = [_listed(found, folder, "")]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        path, name = waiting[-1].pop()
        try:
            kind = stat.S_IFMT(os.lstat(path).st_mode)
        except OSError as error:
            found.skip(_shown(name), f"unreadable: {_why(error)}")
            continue
        if os.path.basename(name).startswith("."):
            found.skip(_shown(name), "hidden")
        elif kind == stat.S_IFDIR and any(os.path.lexists(os.path.join(path, each)) for each in _OURS):
            found.skip(_shown(name), "the directory of a run or a peer")
        elif kind == stat.S_IFDIR:
            waiting.append(_listed(found, path, name))
        elif kind != stat.S_IFREG:
            found.skip(_shown(name), _KINDS.get(kind, "of another kind"))
        elif suffixes is not None and os.path.splitext(name)[1].lower() not in suffixes:
            found.skip(_shown(name), f"neither {', '.join(suffixes[:-1])} nor {suffixes[-1]}")
        else:
            yield path, name


def _listed(found: Sources, path: str, name: str) -> list[tuple[str, str]]:
    """(path, name) of what is in a folder, last first."""
    try:
        names = sorted(os.listdir(path), key=os.fsencode, reverse=True)
    except OSError as error:
        found.skip(_shown(name) or ".", f"unreadable: {_why(error)}")
        return []
    return [(os.path.join(path, entry), f"{name}/{entry}" if name else entry) for entry in names]


def _take(found: Sources, path: str, name: str) -> None:
    try:
        # a pipe put in its place meanwhile must not be waited for
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as stream:
            text = stream.read()
    except OSError as error:
        found.skip(_shown(name), f"unreadable: {_why(error)}")
        return
    if text:
        found.files.append(Source(_shown(name), text))
    else:
        found.skip(_shown(name), "empty")


def _shown(name: str) -> str:
    """A file's name as UTF-8 can hold it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def checksum_line(digest: str, name: str) -> str:
    """As `sha256sum` writes it."""
    if not {"\\", "\n", "\r"} & set(name):
        return f"{digest}  {name}\n"
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"\\{digest}  {escaped}\n"


__all__ = ["Source", "Sources", "checksum_line", "files_below", "read_sources"]
