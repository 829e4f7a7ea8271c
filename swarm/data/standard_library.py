"""The Python standard library's own source: a text that is on every machine, for the demo and the tests."""

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
