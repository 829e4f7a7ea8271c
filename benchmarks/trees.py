"""CPU seconds and peak memory of process trees, sampled from outside."""

import contextlib
import threading
import time
from dataclasses import dataclass, field

import psutil

SAMPLE_SECONDS = 0.5
PSS_EVERY = 4  # samples: reading it walks all pages


@dataclass
class Tree:
    """Of one peer: its command and everything below it."""

    root: int
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)  # process → CPU seconds when last seen
    peak_rss_bytes: int = 0  # pages shared by several processes of the tree count several times
    peak_pss_bytes: int = 0  # shared pages count once; 0 where the system does not tell

    @property
    def cpu_seconds(self) -> float:
        """What a process did after it was last seen is missing: at most one sample's time each."""
        return sum(self.cpu.values())

    def sample(self, with_pss: bool) -> None:
        rss = pss = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.root)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    times = process.cpu_times()
                    self.cpu[process.pid, process.create_time()] = times.user + times.system
                    if with_pss:
                        memory = process.memory_full_info()
                        rss += memory.rss
                        pss += getattr(memory, "pss", 0)
                    else:
                        rss += process.memory_info().rss
        self.peak_rss_bytes = max(self.peak_rss_bytes, rss)
        self.peak_pss_bytes = max(self.peak_pss_bytes, pss)


class Sampler:
    """Samples all its trees twice a second while it is open."""

    def __init__(self) -> None:
        self._trees: list[Tree] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def watch(self, root: int) -> Tree:
        tree = Tree(root)
        with self._lock:
            self._trees.append(tree)
        return tree

    def _run(self) -> None:
        count = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            with self._lock:
                trees = list(self._trees)
            for tree in trees:
                tree.sample(with_pss=count % PSS_EVERY == 0)
            count += 1
            self._stop.wait(max(0.05, SAMPLE_SECONDS - (time.monotonic() - begun)))
