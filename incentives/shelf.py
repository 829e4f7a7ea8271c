"""Where published tables lie: a folder, or the http(s) URL of one. Nothing there is believed: hashes on chain decide.

A file above its limit is not read: whoever serves tables must not be able to fill an earner's memory or disk."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO, TypeAlias, cast
from urllib.parse import urlsplit

from incentives.errors import InputError, StorageError, disk_remedy

MAX_TABLES_BYTES = 64 << 20  # about 250,000 receipts
MAX_EVIDENCE_BYTES = 4 * MAX_TABLES_BYTES
_CHUNK = 1 << 16
_IN_MEMORY = 1 << 20  # of a file that was fetched; what is larger lies on disk until the process ends


class Site:
    """A folder behind a URL, which may name a file in it. Each file is fetched once, whole or not at all; str() shows neither user nor
    query. `timeout_seconds`: for the server's next word; `total_seconds`: for all of a file, where somebody else has chosen the server."""

    def __init__(self, url: str, *, timeout_seconds: float = 20.0, total_seconds: float | None = None) -> None:
        try:
            parts = urlsplit(url)
            self._shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError("--tables", url.split("@")[-1], "is no URL: give http(s)://HOST/FOLDER, or a folder")
        folder, _, last = parts.path.rpartition("/")
        self.named = (last,) if last.endswith(".json") else ()
        self._url, self._timeout = (parts._replace(path=folder) if self.named else parts), timeout_seconds
        self._total_seconds = total_seconds
        self._kept: dict[str, BinaryIO | None] = {}

    def __str__(self) -> str:
        return self._shown

    def open(self, name: str, limit: int) -> BinaryIO | None:
        """From its beginning. None where there is no such file; StorageError where the server does not give it, or more than
        `limit` bytes."""
        if name not in self._kept:
            self._kept[name] = self._in_time(name, limit)
        found = self._kept[name]
        if found is not None:
            found.seek(0)
        return found

    def _in_time(self, name: str, limit: int) -> BinaryIO | None:
        """In a thread of its own where there is a limit: a server that sends a byte now and then ends no wait for the next one."""
        if self._total_seconds is None:
            return self._fetch(name, limit)
        found: SimpleQueue[BinaryIO | Exception | None] = SimpleQueue()

        def fetch() -> None:
            try:
                found.put(self._fetch(name, limit))
            except Exception as error:  # whatever it is belongs to who waits, not into this thread's traceback
                found.put(error)

        Thread(target=fetch, daemon=True).start()
        try:
            given = found.get(timeout=self._total_seconds)
        except Empty:
            raise StorageError(f"{self}: {name} did not come within {self._total_seconds:g} s: try later") from None
        if isinstance(given, Exception):
            raise given
        return given

    def _fetch(self, name: str, limit: int) -> BinaryIO | None:
        import requests

        url = self._url._replace(path=f"{self._url.path.rstrip('/')}/{name}", fragment="").geturl()
        where = f"--tables {self._shown}: {name}"
        try:
            with requests.get(url, timeout=self._timeout, stream=True) as answer:
                if answer.status_code in (404, 410):
                    return None
                if answer.status_code != 200:
                    raise StorageError(f"{where}: the server answers {answer.status_code}: check the URL, or try later")
                found = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  it lives as long as this
                size = 0
                for chunk in answer.iter_content(_CHUNK):
                    size += found.write(chunk)
                    if size > limit:
                        raise StorageError(f"{where} is larger than {limit} bytes: it is no table of a period")
                return cast(BinaryIO, found)
        except (requests.RequestException, ValueError):
            raise StorageError(f"{where} cannot be fetched: check the URL, or try later") from None
        except OSError as error:  # a large file lies on disk while it is read
            raise StorageError(
                f"{where} cannot be kept while it is read ({error.strerror}): {disk_remedy(error)}"
            ) from None


Shelf: TypeAlias = Path | Site


def open_shelf(text: str) -> Shelf:
    """What --tables names. InputError for a URL that is none."""
    return Site(text) if text.lower().startswith(("http://", "https://")) else Path(text)


@contextmanager
def opened(shelf: Shelf, name: str, limit: int) -> Iterator[BinaryIO | None]:
    """The file, to be read from its beginning; None where there is none. StorageError: unreadable, or larger than `limit`."""
    if isinstance(shelf, Site):
        yield shelf.open(name, limit)
        return
    path = shelf / name
    with _reading(path):
        if not path.is_file():
            yield None
            return
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > limit:
                raise StorageError(f"{path} is larger than {limit} bytes: it is no table of a period")
            yield stream


def read(shelf: Shelf, name: str, limit: int) -> bytes | None:
    """All of its bytes, as `opened`."""
    with opened(shelf, name, limit) as stream:
        return None if stream is None else stream.read()


def lies_there(shelf: Shelf, name: str) -> str:
    """Words for what is no file and lies in its place: a folder, a link that leads nowhere; else nothing."""
    lies = not isinstance(shelf, Site) and os.path.lexists(shelf / name) and not (shelf / name).is_file()
    return " is no file: move it away" if lies else ""


def others(shelf: Shelf, stem: str) -> Iterator[str]:
    """Names of further files of a folder, which begin with `stem`; a URL has no list of its files, but the one that it may name."""
    if isinstance(shelf, Site):
        yield from (name for name in shelf.named if name.startswith(stem))
    else:
        yield from (path.name for path in sorted(shelf.glob(f"{stem}*.json")))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None


__all__ = [
    "MAX_EVIDENCE_BYTES",
    "MAX_TABLES_BYTES",
    "Shelf",
    "Site",
    "lies_there",
    "open_shelf",
    "opened",
    "others",
    "read",
]
