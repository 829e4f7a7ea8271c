"""What is fetched from a web server and does not fit on this disk."""

import resource
import threading
import time
from pathlib import Path

import pytest

from incentives.errors import StorageError
from incentives.shelf import MAX_TABLES_BYTES, Site
from tests.chain.test_tables_url import Server


@pytest.mark.parametrize("total_seconds", [None, 30.0])
def test_a_file_that_the_disk_does_not_take_is_one_line_and_no_wait(
    tmp_path: Path, total_seconds: float | None
) -> None:
    """In a thread of its own it was a traceback there, and here "did not come" after all of the time."""
    (tmp_path / "period-0.json").write_bytes(bytes(8 << 20))
    server = Server(tmp_path)
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    begun = time.monotonic()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))
        with pytest.raises(StorageError, match=r"cannot be kept while it is read \(File too large\): raise the limit"):
            Site(server.url, total_seconds=total_seconds).open("period-0.json", MAX_TABLES_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        server.http.shutdown()
        server.http.server_close()
        thread.join(10)
    assert time.monotonic() - begun < 20.0
