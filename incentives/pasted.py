"""What people paste, without what chats, mail programs and editors put around it. Pure."""

import contextlib
import re
import unicodedata
from collections.abc import Iterator

_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 where a byte order mark says so (Notepad's "Unicode"). UnicodeDecodeError where it is no text."""
    return data.decode(next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8"))


def visible(text: str) -> str:
    """Without what nobody sees: zero-width spaces, joiners, marks of direction, soft hyphens, byte order marks."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def words(text: str, prefix: str) -> Iterator[str]:
    """What the first word in `text` that begins with `prefix` and goes on in URL-safe base64 may be: the word, then the word with
    one, two, … of the lines after it, over which a mail program broke it (and quoted it). Which is whole, its reader must know."""
    text = visible(text)
    found = re.search(re.escape(prefix) + r"[A-Za-z0-9_-]*={0,2}", text)
    word = ""
    while found is not None:
        word = word.rstrip("=") + found.group().lstrip("> \t\r\n")
        yield word
        found = re.compile(r"[ \t]*\r?\n[ \t>]*[A-Za-z0-9_-]+={0,2}").match(text, found.end())


def braced(text: str) -> str:
    """From the first brace to the last: a JSON object that was pasted with words around it."""
    text = visible(text)
    return text[text.find("{") : text.rfind("}") + 1]


def passwords(data: bytes) -> list[str]:
    """What a password file may mean, the likeliest first: its first line without what nobody sees around it, then that line as
    it stands, which an older key may have been made with. Spaces, quotes and what lies within (joiners of many scripts and of
    emoji) are kept in both. Empty where there is no password; UnicodeDecodeError where the file is no text."""
    lines = re.split(r"[\r\n]+", decoded(data))
    found = [_trimmed(next((line for line in lines if _trimmed(line)), ""))]
    with contextlib.suppress(UnicodeDecodeError):
        found.append(data.decode("utf-8").split("\n", 1)[0].rstrip("\r"))
    return [password for password in dict.fromkeys(found) if password]


def _trimmed(line: str) -> str:
    kept = [at for at, c in enumerate(line) if unicodedata.category(c) != "Cf"]
    return line[kept[0] : kept[-1] + 1] if kept else ""
