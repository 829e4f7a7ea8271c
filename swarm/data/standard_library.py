"""Texts that are on every machine, for demos and tests: the Python standard library's source, and the prose of its help."""

import sysconfig
from pathlib import Path

MAX_BYTES = 1_500_000
_SKIP = {"test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__", "ensurepip", "pydoc_data", "turtledemo"}


def standard_library_text(max_bytes: int = MAX_BYTES) -> bytes:
    """Modules in order of their names, ASCII ones only, cut at `max_bytes`."""
    root = Path(sysconfig.get_path("stdlib"))
    out = bytearray()
    for path in sorted(root.rglob("*.py")):
        if _SKIP & set(path.relative_to(root).parts):
            continue
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if data.isascii() and len(data) > 2000:
            out += data
        if len(out) >= max_bytes:
            break
    return bytes(out[:max_bytes])


def language_reference_text(max_bytes: int = 100_000) -> bytes:
    """Chapters of the language reference as `help()` has them, in order of their names, cut at `max_bytes`."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name].strip() + "\n" for name in sorted(topics)).encode()[:max_bytes]
