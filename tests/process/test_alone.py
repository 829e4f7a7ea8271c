"""A volunteer whose seed is deaf, silent or all that there is, on machines of their own: what each of them is told."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from tests.process.machines import DEAD, Swarm, receipts

pytest_plugins = ("tests.process.machines",)
pytestmark = [pytest.mark.timeout(300), pytest.mark.long]


def test_who_is_alone_is_told_so_and_a_deaf_seed_mends_itself(swarm: Swarm) -> None:
    alice = swarm.join(1, "alice")
    swarm.wait(alice, "alice is told", lambda: "alone" in swarm.advice("alice"))
    swarm.wait(alice, "her work is called unpaid", lambda: swarm.status("alice")["unpaid_units"] > 0)
    swarm.wait(
        alice, "with the reason", lambda: "without a receipt so far: the run begins once 1 more" in alice.output()
    )
    assert swarm.status("alice")["receipts"] == 0
    first = swarm.status("seed")["pid"]
    ours = _listening(first)
    assert len(ours) == 1
    for path in ours:
        os.unlink(path)
    swarm.wait(swarm.seed, "the seed starts anew", lambda: swarm.status("seed").get("pid") not in (None, first), 40.0)
    assert "p2p daemon" in swarm.seed.output()
    bob = swarm.join(2, "bob")
    swarm.wait(bob, "bob, with the old invite, is paid", lambda: receipts(bob) >= 1)
    for name, job in (("alice", alice), ("bob", bob)):
        swarm.wait(job, "and nobody's work is unpaid", lambda name=name: swarm.status(name)["receipts"] >= 4)
        assert swarm.status(name)["unpaid_units"] == 0, swarm.status(name)
    assert "without a receipt" not in bob.output(), "what is just being certified is not called unpaid"
    assert swarm.seed.process.poll() is None
    swarm.seed.process.send_signal(signal.SIGTERM)


def _listening(pid: int) -> list[str]:
    """Paths of the unix sockets at which process `pid` itself listens: where its p2p daemon hands over streams."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(descriptor))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    return sorted({row[7] for row in rows if len(row) > 7 and row[5] == "01" and f"socket:[{row[6]}]" in held})


def test_a_joiner_is_told_whether_the_seed_is_silent_or_has_nothing(swarm: Swarm) -> None:
    """Said while it tries, not after minutes. The invite first leads to a machine where nobody listens."""
    swarm.wait(swarm.seed, "the seed serves", lambda: (swarm.terminal.cwd / "seed" / "ready.json").exists())
    swarm.seed.process.send_signal(signal.SIGTERM)
    swarm.seed.process.wait(30)
    early = swarm.start(1, "early", "sparehive join seed/invite.txt")
    swarm.wait(early, "it is told", lambda: "note: linked to nobody yet: " in early.output())
    assert re.search(r"/ip4/10\.77\.0\.1/tcp/\d+ does not answer", early.output())
    (swarm.terminal.cwd / "seed" / "ready.json").unlink()
    swarm.start(0, "seed", "sparehive seed run --announce " + DEAD)
    swarm.wait(early, "the seed is back at its old port", lambda: "training from" in early.output())
    seed = swarm.terminal.jobs[-1]
    swarm.wait(
        seed, "its operator is told", lambda: f"note: {DEAD}, which the invite names, answers none" in seed.output()
    )
