"""Paths as people give them: with a `~` that no shell has replaced, or as a file:// URL. Pure but for the home directory."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_URL = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://")
_ON_IPFS = ("ipfs", "ipns")


def scheme_of(text: str) -> str:
    """In small letters; "" where it is no URL."""
    found = _URL.match(text)
    return found.group(1).lower() if found else ""


def given_path(text: str) -> Path:
    """ValueError, without the text, where it names nothing on this machine."""
    scheme = scheme_of(text)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.hostname not in (None, "localhost") or not parts.path.startswith("/"):
            raise ValueError("is on another machine: write file:/// and the whole path, or the path alone")
        return Path(unquote(parts.path))
    if scheme in _ON_IPFS:
        raise ValueError(
            "is on IPFS, which is not asked from here: fetch it, or give a gateway's https://HOST/ipfs/… where a URL is taken"
        )
    if scheme:
        raise ValueError("is a URL: give a path on this machine")
    if text.startswith("~") and not Path(text).exists():
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise ValueError("begins with the home of somebody who is unknown here: write the whole path") from None
    return Path(text)


def check_published(uri: str) -> None:
    """ValueError, without the text, for what nobody else could open: it stands on chain for ever."""
    if not uri.isprintable() or len(uri) > 2000:
        raise ValueError("must be printable and have 2,000 characters at most")
    if scheme_of(uri) in ("", "file"):
        raise ValueError("is on this machine: others need a URL, https://HOST/FOLDER or ipfs://CID")


__all__ = ["check_published", "given_path", "scheme_of"]
