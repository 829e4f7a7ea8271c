"""Where published tables lie: a folder, or the http(s) URL of one. Nothing there is believed: hashes on chain decide.

A file above its limit is not read: whoever serves tables must not be able to fill an earner's memory or disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from incentives.errors import InputError, StorageError

MAX_TABLES_BYTES = 64 << 20  # about 250,000 receipts
MAX_EVIDENCE_BYTES = 4 * MAX_TABLES_BYTES
_CHUNK = 1 << 16


class Site:
    """A folder behind a URL. Each file is fetched once, whole or not at all; str() shows neither user nor query."""

    def __init__(self, url: str, *, timeout_seconds: float = 20.0) -> None:
        try:
            parts = urlsplit(url)
            self._shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError("--tables", url.split("@")[-1], "is no URL: give http(s)://HOST/FOLDER, or a folder")
        self._url, self._timeout = parts, timeout_seconds
        self._kept: dict[str, bytes | None] = {}

    def __str__(self) -> str:
        return self._shown

    def read(self, name: str, limit: int) -> bytes | None:
        """None where there is no such file; StorageError where the server does not give it, or more than `limit`."""
        if name not in self._kept:
            self._kept[name] = self._fetch(name, limit)
        return self._kept[name]

    def _fetch(self, name: str, limit: int) -> bytes | None:
        import requests

        url = self._url._replace(path=f"{self._url.path.rstrip('/')}/{name}", fragment="").geturl()
        where = f"--tables {self._shown}: {name}"
        try:
            with requests.get(url, timeout=self._timeout, stream=True) as answer:
                if answer.status_code in (404, 410):
                    return None
                if answer.status_code != 200:
                    raise StorageError(f"{where}: the server answers {answer.status_code}: check the URL, or try later")
                data = bytearray()
                for chunk in answer.iter_content(_CHUNK):
                    data += chunk
                    if len(data) > limit:
                        raise StorageError(f"{where} is larger than {limit} bytes: it is no table of a period")
                return bytes(data)
        except (requests.RequestException, ValueError):
            raise StorageError(f"{where} cannot be fetched: check the URL, or try later") from None


Shelf: TypeAlias = Path | Site


def open_shelf(text: str) -> Shelf:
    """What --tables names. InputError for a URL that is none."""
    return Site(text) if text.lower().startswith(("http://", "https://")) else Path(text)


def read(shelf: Shelf, name: str, limit: int) -> bytes | None:
    """The file's bytes; None where there is none. StorageError: unreadable, or larger than `limit`."""
    if isinstance(shelf, Site):
        return shelf.read(name, limit)
    path = shelf / name
    with _reading(path):
        if not path.is_file():
            return None
        if path.stat().st_size > limit:
            raise StorageError(f"{path} is larger than {limit} bytes: it is no table of a period")
        return path.read_bytes()


def lies_there(shelf: Shelf, name: str) -> str:
    """Words for what is no file and lies in its place: a folder, a link that leads nowhere; else nothing."""
    lies = not isinstance(shelf, Site) and os.path.lexists(shelf / name) and not (shelf / name).is_file()
    return " is no file: move it away" if lies else ""


def others(shelf: Shelf, stem: str, limit: int) -> Iterator[bytes]:
    """Further files of a folder, whose names begin with `stem`; a URL has no list of its files."""
    if isinstance(shelf, Site):
        return
    for path in sorted(shelf.glob(f"{stem}*.json")):
        try:
            data = read(shelf, path.name, limit)
        except StorageError:
            continue  # somebody else's file
        if data is not None:
            yield data


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None


__all__ = ["MAX_EVIDENCE_BYTES", "MAX_TABLES_BYTES", "Shelf", "Site", "lies_there", "open_shelf", "others", "read"]
