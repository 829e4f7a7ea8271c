"""Each guard against strangers taken out, one by one: a test has to fail without it.

    python -m tests.hostile.without [WORDS OF A GUARD]

A guard is taken out in a copy of the tracked files (build/without); the checkout is not touched. The table goes to
tests/hostile/without.md. `tests/pure/test_without.py` sees to it that every line named here is there.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
COPY, TABLE = REPOSITORY / "build" / "without", HERE / "without.md"
TEST_SECONDS = 900.0


@dataclass(frozen=True)
class Guard:
    """`old` stands once in `path`, and becomes `new`; `tests`: what pytest is given."""

    what: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


def _pull(*only: str) -> tuple[str, ...]:
    return ("tests/pure/test_pull.py", *only)


_NEXT = ("tests/training/test_next_anchor.py",)
_ENDING = ("tests/machine/test_ending.py",)
_FLOODS = ("tests/machine/test_floods.py",)
_RECHECKS = ("tests/machine/test_rechecks.py",)
_RECEPTION = ("tests/pure/test_reception.py",)
_STORED = ("tests/pure/test_storage_receipts.py",)
_STREAMS = "tests/process/test_hostile_streams.py"

GUARDS = (
    # The model
    Guard(
        "a peer weighs at most twice the median",
        "swarm/records/units.py",
        "return tuple(min(u, most) for u in units)",
        "return tuple(units)",
        _pull(),
    ),
    Guard(
        "a peer pulls at most twice the median",
        "swarm/optim/clip.py",
        "if median > 0.0 and weight * norm > most:",
        "if False:",
        _pull(),
    ),
    Guard(
        "nobody moves further than its steps can",
        "swarm/optim/clip.py",
        "if norm * factor > bound:",
        "if False:",
        _pull(),
    ),
    Guard(
        "from three on the round's own median decides",
        "swarm/optim/clip.py",
        "MIN_FOR_OWN_MEDIAN = 3",
        "MIN_FOR_OWN_MEDIAN = 99",
        _pull(),
    ),
    Guard(
        "who pulls against the others is left out",
        "swarm/averaging/reduce.py",
        "may_leave = (len(counting) - 1) // 3 if len(counting) >= MIN_FOR_DIRECTION else 0",
        "may_leave = 0",
        ("tests/pure/test_average.py",),
    ),
    Guard(
        "the run's clock counts weights, not claims",
        "swarm/averaging/states.py",
        "counted = anchor.counted_units + clock_units(leaves, config.rounds.max_units_per_contribution)",
        "counted = anchor.counted_units + sum(leaf.units for leaf in leaves)",
        _NEXT,
    ),
    Guard(
        "so does the clock that ends the run",
        "swarm/records/units.py",
        "return sum(capped_weights([capped_units(leaf.units, max_units) for leaf in leaves]))",
        "return sum(capped_units(leaf.units, max_units) for leaf in leaves)",
        _ENDING,
    ),
    Guard(
        "nothing holds after the run's last certificate",
        "swarm/consensus/lineage.py",
        "not self.is_last(now.prev_certificate)",
        "True",
        _ENDING,
    ),
    Guard(
        "no word on a round after it is kept",
        "swarm/consensus/heard.py",
        "if self._lineage.is_last(prev):",
        "if False:",
        _ENDING,
    ),
    Guard(
        "an average longer than the norms allow is redone",
        "swarm/averaging/states.py",
        "if self._longest is not None and not is_within(part, self._longest[index]):",
        "if False:",
        _NEXT,
    ),
    # Averages
    Guard(
        "parts of others are averaged again",
        "swarm/consensus/rechecks.py",
        "if rules.recheck_share <= 0.0 or len(content.contributors) < MIN_CONTRIBUTORS:",
        "if True:",
        _RECHECKS,
    ),
    Guard(
        "of a narrow set voters average a share themselves",
        "swarm/consensus/rechecks.py",
        "    narrow = is_narrow(content, voters)\n",
        "    narrow = False\n",
        _RECHECKS,
    ),
    Guard(
        "a narrow set waits until a quorum has looked",
        "swarm/consensus/rechecks.py",
        "and (looked or r.has_quorum(done))",
        "and (looked or True)",
        _RECHECKS,
    ),
    Guard(
        "one word against another is a dispute",
        "swarm/consensus/rechecks.py",
        "if len(digests) == 1 and",
        "if",
        _RECHECKS,
    ),
    Guard(
        "who averaged wrongly is drawn last",
        "swarm/consensus/rechecks.py",
        "                self._roster.convict(who)\n",
        "",
        _RECHECKS,
    ),
    Guard(
        "who drew liars is not believed again",
        "swarm/consensus/rechecks.py",
        "self._roster.doubt(proposal.signer)",
        "pass",
        _RECHECKS,
    ),
    Guard(
        "what a convicted reducer averages is redone",
        "swarm/consensus/rechecks.py",
        "return drawn_by or self._roster.is_convicted(author)",
        "return drawn_by",
        _RECHECKS,
    ),
    # Floods
    Guard(
        "over one link 8 MiB of strangers' words",
        "swarm/consensus/shelf.py",
        "while self._bytes_of.get(who, 0) > self._most_of_one:",
        "while False:",
        _FLOODS,
    ),
    Guard(
        "64 MiB of strangers' words in all",
        "swarm/consensus/shelf.py",
        "while self.num_bytes > self._most:",
        "while False:",
        _FLOODS,
    ),
    Guard(
        "a seating carries neither reducers nor averages",
        "swarm/consensus/lineage.py",
        "peers or body.reducers or body.averages or certificate.units or",
        "peers or certificate.units or",
        _FLOODS,
    ),
    Guard(
        "a body is no larger than the run's can be",
        "swarm/consensus/heard.py",
        "or len(body.averages) > self._num_parts",
        "",
        _FLOODS,
    ),
    Guard(
        "a contribution has 64 merges at most",
        "swarm/records/wire.py",
        "MAX_MERGES = 64 ",
        "MAX_MERGES = 65536 ",
        _FLOODS,
    ),
    Guard(
        "strangers' words are not handed on",
        "swarm/consensus/machine.py",
        "            return self.lineage.is_known(record.prev_certificate)\n        return False\n",
        "            return True\n        return False\n",
        _FLOODS,
    ),
    Guard(
        "strangers' certificates are not handed on",
        "swarm/consensus/machine.py",
        "return self.lineage.is_known(identity) or (entry is not None and entry.is_vouched)",
        "return True",
        _FLOODS,
    ),
    Guard(
        "strangers push out neither the round nor its voters",
        "swarm/averaging/reception.py",
        "        return signed.record.prev_certificate == self._tip, signed.signer in self._voters\n",
        "        return False, False\n",
        _RECEPTION,
    ),
    Guard(
        "strangers' contributions are bounded by bytes",
        "swarm/averaging/reception.py",
        "return strange > 0 and strange + kept_bytes(new.content) > MAX_STRANGE_BYTES",
        "return False",
        _RECEPTION,
    ),
    Guard(
        "strangers' parts push out no others",
        "swarm/averaging/reception.py",
        "is_strange=known.signed.signer not in self._voters",
        "is_strange=False",
        _RECEPTION,
    ),
    Guard(
        "of one signer four contributions",
        "swarm/averaging/reception.py",
        "if len(others) >= MAX_PER_SIGNER:",
        "if False:",
        _RECEPTION,
    ),
    Guard(
        "early parts are bounded by sender",
        "swarm/averaging/reception.py",
        "or self._early_bytes[sender] + new.cost > EARLY_SENDER_BYTES",
        "",
        _RECEPTION,
    ),
    Guard(
        "an identity has one presence record",
        "swarm/dht/guard.py",
        "            if before != subkey:\n                del entries[before]\n",
        "",
        ("tests/process/test_dht.py", "-k", "identity"),
    ),
    # Streams and links
    Guard(
        "places of strangers: whoever has most gives way",
        "swarm/transport/places.py",
        "loser = self._richest(place, own) or next(",
        "loser = next(",
        ("tests/pure/test_places.py",),
    ),
    Guard(
        "a stranger holds four streams of a protocol",
        "swarm/transport/places.py",
        "if own >= (MAX_STREAMS_PER_PEER if place.is_member else MAX_STREAMS_PER_STRANGER):",
        "if False:",
        ("tests/pure/test_places.py",),
    ),
    Guard(
        "a stranger opens so many streams in a time",
        "swarm/transport/places.py",
        "        return allowance >= 0.0\n",
        "        return True\n",
        ("tests/pure/test_places.py",),
    ),
    Guard(
        "a silent stream is closed in seconds",
        "swarm/transport/node.py",
        "stream.serve_at(place, places.free, math.inf if is_member else PATIENCE_SECONDS)",
        "stream.serve_at(place, places.free, math.inf)",
        (_STREAMS, "-k", "says_nothing"),
    ),
    Guard(
        "no part is taken from who has no link",
        "swarm/transport/bulk.py",
        "if not self._may_push(stream.remote):",
        "if False:",
        (_STREAMS, "-k", "no_link"),
    ),
    Guard(
        "seats of links are left for members",
        "swarm/transport/links.py",
        "if len(self.links) < MAX_LINKS and len(alike) < MAX_STRANGERS_IN:",
        "if len(self.links) < MAX_LINKS:",
        ("tests/process/test_hostile_links.py", "-k", "seats"),
    ),
    Guard(
        "a stamp is looked at",
        "swarm/transport/door.py",
        "if not await asyncio.to_thread(holds, stamp, self.run_id, account, self.seconds, time.time()):",
        "if False:",
        ("tests/pure/test_stamp.py",),
    ),
    Guard(
        "a block that nobody asked for is a fault",
        "swarm/transport/bitswap.py",
        'raise PeerFault(f"bitswap: a block of {len(data)} bytes that nobody asked for")',
        "pass",
        ("tests/pure/test_bitswap.py",),
    ),
    Guard(
        "wants of one peer are bounded",
        "swarm/transport/bitswap.py",
        "elif want.cid in self._wants or len(self._wants) < MAX_WANTS:",
        "else:",
        ("tests/pure/test_bitswap.py",),
    ),
    Guard(
        "who has no link gets what a day allows",
        "swarm/transport/exchange.py",
        "if not is_linked and not self._allowance.take(peer_id, num_bytes):",
        "if False:",
        ("tests/process/test_exchange.py", "-k", "day_allows"),
    ),
    Guard(
        "a stranger that takes nothing of a block is given up in seconds",
        "swarm/transport/exchange.py",
        "stream.patience_seconds = math.inf if place.is_member else PATIENCE_SECONDS",
        "stream.patience_seconds = math.inf",
        ("tests/process/test_exchange.py", "-k", "reads_slowly"),
    ),
    # Storing
    Guard(
        "a witness signs what it found right alone",
        "peers/storing/witnessing.py",
        "if fault is None:",
        "if True:",
        _STORED,
    ),
    Guard(
        "a segment is the run's, by its path",
        "incentives/storage.py",
        "        if not _answers(rules, draw, segment, path):\n",
        "        if False:\n",
        ("tests/pure/test_storage.py",),
    ),
    Guard(
        "the draw says which segment is shown",
        "incentives/storage.py",
        "if block[at : at + 9] != _head(draw):",
        "if False:",
        ("tests/pure/test_storage.py",),
    ),
    Guard(
        "of strangers' storage receipts so many wait",
        "peers/storing/receipts.py",
        " or (is_strangers and self.strangers >= MAX_OF_STRANGERS)",
        "",
        _STORED,
    ),
    Guard(
        "storage receipts of who is neither storer nor witness are refused",
        "peers/storing/receipts.py",
        "if witnesses is None or signed.signer not in (record.peer, *witnesses):",
        "if witnesses is None:",
        _STORED,
    ),
    Guard(
        "a witness that lies fills its part of a challenge's books",
        "peers/storing/receipts.py",
        "else (self.by_witness, self._most_of_witness())",
        "else (self.by_witness, 1 << 30)",
        _STORED,
    ),
    Guard(
        "of one storer two receipts for a challenge",
        "peers/storing/receipts.py",
        "(self.by_storer, MAX_OF_STORER) if",
        "(self.by_storer, 1 << 30) if",
        _STORED,
    ),
    Guard(
        "what its storer has not signed is in nobody's books",
        "peers/storing/receipts.py",
        "if record.peer not in waiting.signed or waiting.signed.keys().isdisjoint(witnesses):",
        "if waiting.signed.keys().isdisjoint(witnesses):",
        _STORED,
    ),
    Guard(
        "who lets go of a copy asks others for a block of it first",
        "peers/storing/keeper.py",
        "if not self.holdings.is_whole(item) or await self._others_show(item)]",
        "]",
        ("tests/pure/test_storing.py",),
    ),
)


def make_copy() -> None:
    """The tracked files, with what is changed in them here and without what is made from them."""
    shutil.rmtree(COPY, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, COPY / name)


def is_missed(guard: Guard) -> tuple[str, float]:
    """The tests that fail without the guard, as pytest counts them; its seconds. RuntimeError where they could not be run."""
    path = COPY / guard.path
    text = path.read_text(encoding="utf-8")
    begun = time.monotonic()
    path.write_text(text.replace(guard.old, guard.new), encoding="utf-8")
    try:
        options = ["-o", "addopts=", "-q", "-p", "no:cacheprovider", "--tb=no"]
        command = [sys.executable, "-m", "pytest", *options, *guard.tests]
        done = subprocess.run(
            command, cwd=COPY, env=os.environ | {"PYTHONPATH": str(COPY), "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
            capture_output=True, text=True, timeout=TEST_SECONDS,
        )  # fmt: skip
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(
            f"{guard.what}: pytest ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        )
    return done.stdout.strip().splitlines()[-1].split(" in ")[0], time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    words = parser.parse_args().words
    chosen = [guard for guard in GUARDS if all(word in guard.what for word in words)]
    console = Console(stderr=True)
    make_copy()
    rows, missed_by_nobody = [], 0
    for guard in track(chosen, "guards", console=console):
        told, _ = is_missed(guard)
        missed_by_nobody += "failed" not in told
        tests = " ".join(guard.tests)
        rows.append(f"| {guard.what} | `{guard.path}` | `{tests}` | {told} |")
        console.print(f"{guard.what}: {told}")
    if not words:
        day = datetime.datetime.now(datetime.UTC).date()
        head = [f"# Without each guard: {day}", "", "| taken out | in | tests | they say |", "|---|---|---|---|"]
        TABLE.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
    shutil.rmtree(COPY, ignore_errors=True)
    if missed_by_nobody:
        console.print(f"{missed_by_nobody} of {len(chosen)} guards can be taken out and no test fails")
    return 1 if missed_by_nobody else 0


if __name__ == "__main__":
    sys.exit(main())
