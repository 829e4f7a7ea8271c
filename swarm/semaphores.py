"""hivemind makes locks of `multiprocessing` when it is imported: semaphores in /dev/shm, which some machines do not have."""

import multiprocessing
import threading


def lend_thread_locks() -> None:
    """To be called before hivemind is imported. Where no semaphore can be made, `multiprocessing.Lock` becomes a lock between
    threads: a peer is one process and starts none of hivemind's, so that nobody else could hold them."""
    try:
        multiprocessing.Lock()
    except (OSError, ImportError):  # /dev/shm missing, read-only or full; a system without semaphores
        multiprocessing.Lock = threading.Lock  # type: ignore[assignment]
