"""What people paste, without what chats, mail programs and editors put around it. Pure."""

import re
import unicodedata

_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so (Notepad's "Unicode"). UnicodeDecodeError where it is no text."""
    return data.decode(next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8"))


def visible(text: str) -> str:
    """Without what nobody sees: zero-width spaces, joiners, marks of direction, soft hyphens, byte order marks."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def token(text: str, prefix: str) -> str | None:
    """The first word in `text` that begins with `prefix` and goes on in URL-safe base64; None where there is none."""
    found = re.search(re.escape(prefix) + r"[A-Za-z0-9_-]*={0,2}", visible(text))
    return found.group() if found else None


def braced(text: str) -> str:
    """From the first brace to the last: a JSON object that was pasted with words around it."""
    text = visible(text)
    return text[text.find("{") : text.rfind("}") + 1]


def first_line(text: str) -> str:
    """As a password file holds it: no line end and nothing invisible. Spaces and quotes may be meant and stay."""
    return visible(re.split(r"[\r\n]", visible(text).lstrip("\r\n"), maxsplit=1)[0])
