"""Free identities that hold streams open at every peer and send nothing: the swarm keeps its pace, and nobody honest is blamed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarm.config import load_run
from tests.faults.swarm import REPOSITORY, Swarm, until
from tests.hostile.pace import epochs_per_second, honest_peers

pytestmark = pytest.mark.timeout(300)
IDENTITIES = 16
SECONDS = 5.0
SETTLE_SECONDS = 4.0  # opening all of them at once is the work of both sides
NICENESS = 15


class Squatters:
    """The process of `squatting.py`. Once it is ready it has a low priority: places are what it takes, and not this machine's time."""

    def __init__(self, directory: Path, run_id: bytes, addresses: list[str]) -> None:
        program = [sys.executable, "-m", "tests.hostile.squatting", str(directory), run_id.hex(), str(IDENTITIES)]
        self._process = subprocess.Popen(
            [*program, *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
        )
        assert self._answer() == {"doing": "rest"}
        own = psutil.Process(self._process.pid)
        for each in (own, *own.children(recursive=True)):
            for thread in each.threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, NICENESS)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())
        assert isinstance(found, dict)
        return found

    def order(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def squatters(swarm: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Squatters]:
    def addresses() -> list[str]:
        told = [json.loads(p.directory.status.read_text()).get("addresses", []) for p in swarm.everyone()]
        return [each[0] for each in told] if all(told) else []

    made = Squatters(
        tmp_path_factory.mktemp("squatters"),
        load_run(swarm.run / "run.toml").run_id,
        until(addresses, 30.0, "all have told where they are"),
    )
    yield made
    made.close()


def blamed(swarm: Swarm) -> list[str]:
    """Faults of honest peers in the words of others: that one did not take, or give, what it was to."""
    words = ("did not take", "does not take", "silent or gone", "no link to the reducer")
    reasons = [fault["reason"] for peer in honest_peers(swarm) for fault in peer.events("Fault")]
    return [reason for reason in reasons if any(each in reason for each in words)]


def test_squatters_slow_nobody_down(swarm: Swarm, squatters: Squatters) -> None:
    """`silent`: not a word on any stream; `linked`: a valid hello, and pings for ever."""
    calm = epochs_per_second(swarm, SECONDS)
    assert calm > 0.2, "the yardstick of all that follows"
    for doing in ("silent", "linked"):
        before = len(blamed(swarm))
        assert squatters.order(doing) == {"doing": doing}
        time.sleep(SETTLE_SECONDS)
        attacked = epochs_per_second(swarm, SECONDS)
        told = squatters.order("count")["count"]
        words = blamed(swarm)[before:]
        print(f"{doing}: {calm:.2f} epochs a second, beside {IDENTITIES} squatters {attacked:.2f}; {told}")
        assert told["opened"] >= 4 * IDENTITIES, "they did try"
        # Over 30 s it is 0.9 and more (docs/log.md); 5 s are a handful of rounds.
        assert attacked >= 0.5 * calm, (doing, calm, attacked, told, words)
        assert len(words) <= 2, words
    assert squatters.order("rest") == {"doing": "rest"}
