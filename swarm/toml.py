"""TOML files as people edit and paste them: with a byte order mark, in UTF-16, between the fences of a chat, with spaces that
nobody sees. Pure."""

import tomllib
import unicodedata
from typing import Any

_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def parse_toml(data: bytes) -> dict[str, Any]:
    """The values. UnicodeDecodeError where it is no text; another ValueError or RecursionError (nested too deep) says why it is
    no TOML."""
    text = data.decode(next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8"))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        seen = _seen(text)
        if seen == text:
            raise
    return tomllib.loads(seen)


def _seen(text: str) -> str:
    """Without what nobody sees and without fences; every space a plain one. Only for what is no TOML as it stands: in a string
    such characters can be meant."""
    plain = "".join(" " if unicodedata.category(c) == "Zs" else c for c in text if unicodedata.category(c) != "Cf")
    return "\n".join(line for line in plain.split("\n") if not line.strip().startswith("```"))
