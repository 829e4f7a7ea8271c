"""Watches for its owner what the run's organiser proposes, for work and for storing: `python -m peers.lookout DIRECTORY`, a process beside
the peer.

A node that hangs, lies or sends without end, and a ledger of any size, cost training nothing: the process runs when nobody
else wants the processor, holds at most `MEMORY_BYTES`, and one look that takes longer than `LOOK_SECONDS` ends it; the
peer starts another. What it finds is a file that is renamed into place (watch.json), which the peer shows. No torch.
"""

import argparse
import contextlib
import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import from_json

from peers.config import PeerConfig, load_peer_config
from peers.directory import PeerDirectory, write_json
from peers.errors import PeerError, one_line
from peers.moments import until

if TYPE_CHECKING:
    from incentives.chain.node import Chain
    from incentives.chain.state import PeriodState, RunState
    from incentives.checks import Outcome
    from incentives.judging import OwnBooks
    from peers.invite import Invite

MEMORY_BYTES = 1 << 30
LOOK_SECONDS = 300
REST_SHARE, MAX_REST_SECONDS = 20, 600.0  # times as long as a look has taken it rests at least
GRACE_SECONDS = 10.0  # in which what differs may still be on its way: receipts, or the newest certificate
BEHIND_SECONDS = 120.0  # after which epochs that a working peer has not seen are no delay any more
SILENT_SECONDS = 300.0  # without an answer until its owner is told
MAX_RESTART_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Watch:
    """The newest look. `time`: unix seconds of the last one that was answered; `warning`: of a proposal that the own ledger would not
    make; `problem`: why nobody knows at the moment."""

    time: float = 0.0
    block: int = 0
    period: int | None = None
    ready_at: int = 0
    warning: str = ""
    problem: str = ""

    def write(self, path: Path) -> None:
        """What cannot be written is not worth ending for."""
        with contextlib.suppress(OSError):
            write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Watch":
        """What is missing or of another type is as if nobody had looked."""
        try:
            found = from_json(path.read_bytes())
            values = {field.name: found[field.name] for field in dataclasses.fields(cls)}
            kinds = (int | float, int, int | None, int, str, str)
            if all(isinstance(value, kind) for value, kind in zip(values.values(), kinds, strict=True)):
                return cls(**values)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return cls()


# -- in the peer ------------------------------------------------------------------------------------------------------
class Lookout:
    """Keeps the process running and reads what it finds. `look` is called a few times a second, in one thread; `close` is idempotent.

    `nodes`: their URLs; empty: nobody watches."""

    def __init__(self, directory: PeerDirectory, nodes: Sequence[str], look_every_seconds: float) -> None:
        self._directory, self.has_node, self._every = directory, bool(nodes), look_every_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._start_at = self._begun = time.monotonic()
        self._seen = (0, 0)
        self._watch = Watch()
        directory.watch.unlink(missing_ok=True)

    def look(self) -> Watch:
        """The newest that is known."""
        if not self.has_node:
            return self._watch
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self._start_at = time.monotonic() + min(2.0**self._starts, MAX_RESTART_SECONDS)
        if self._process is None and time.monotonic() >= self._start_at:
            self._starts += 1
            command = [sys.executable, "-m", "peers.lookout", "--", str(self._directory.root)]
            nothing = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # no process is to be had: tried again
                self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
        with contextlib.suppress(OSError):
            found = self._directory.watch.stat()
            if (found.st_mtime_ns, found.st_ino) != self._seen:
                self._seen = found.st_mtime_ns, found.st_ino
                self._watch = Watch.read(self._directory.watch)
                if not self._watch.problem:
                    self._starts = 0
        return self._watch

    def silence(self) -> str:
        """Why nobody has watched for a while, in words; nothing where somebody does."""
        since = time.time() - self._watch.time if self._watch.time else time.monotonic() - self._begun
        if not self.has_node or since < SILENT_SECONDS + 3 * self._every:
            return ""
        return self._watch.problem or "the process that watches does not come to an end with a look"

    def close(self) -> None:
        process, self._process, self.has_node = self._process, None, False
        if process is not None:
            process.kill()  # it holds nothing
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # a leaver has no time; the supervisor ends what is left
                process.wait(0.5)


def nodes_of(config: PeerConfig, invite: "Invite") -> tuple[str, ...]:
    """The nodes that are asked: the owner's, else the one that the invite names; empty: none."""
    if invite.binding.chain_id == 0:
        return ()
    return config.rpc or ((invite.rpc,) if invite.rpc else ())


# -- the process ------------------------------------------------------------------------------------------------------
@dataclass
class Looking:
    """Looks at one pool again and again: the run's for work or, `of_storage`, that for storing, which its invite has to know. `is_at_work`:
    whether the peer hears what is certified; `now`: a clock in seconds."""

    directory: PeerDirectory
    invite: "Invite"
    connect: Callable[[], "Chain"]
    is_at_work: Callable[[], bool]
    now: Callable[[], float] = time.monotonic
    of_storage: bool = False
    _chain: "Chain | None" = None
    _books: "OwnBooks | None" = None
    _proposal: "PeriodState | None" = None  # the one that is looked at
    _since: float | None = None  # its first look that was not well
    _judged: "tuple[object, Outcome] | None" = None  # what the ledger held then, and what it gave

    def look(self) -> Watch:
        """IncentivesError where node or ledger give no answer."""
        from incentives.chain.settlement import SettlementContract

        if self._chain is None:
            self._chain = self.connect()
        else:
            self._chain.renew()
            self._chain.check_age()
        contract = SettlementContract(self._chain, self._pool())
        if self.of_storage and not self._chain.has_code(contract.address, None):
            return Watch(time.time())  # nobody has deployed it: nothing can be proposed
        state = contract.state()
        pending = state.pending
        if pending is None:
            return Watch(time.time(), state.block)
        why = self._refused(state, pending, lambda number: contract.period(number, block=state.block))
        is_over = pending.ready_at <= state.block_time
        warning = warning_text(pending, why, is_over=is_over, of_storage=self.of_storage) if why else ""
        return Watch(time.time(), state.block, pending.number, pending.ready_at, warning)

    def _pool(self) -> bytes:
        if not self.of_storage:
            return self.invite.binding.settlement
        terms = self.invite.storage_terms()
        assert terms is not None
        return terms.settlement

    def _refused(self, state: "RunState", pending: "PeriodState", period_of: Callable[[int], "PeriodState"]) -> str:
        """Why the ledger would not make the proposal, and that is no delay any more; empty: it would, or cannot tell (yet)."""
        from incentives.checks import OK, Answer
        from incentives.judging import OwnBooks, newest_epoch
        from incentives.ledger import Ledger

        if self._books is None:
            self._books = OwnBooks(self.invite.pay_rules(self.of_storage))
        if pending != self._proposal:
            self._proposal, self._since, self._judged = pending, None, None
        if self._judged is not None and self._judged[1] == OK:
            return ""
        with Ledger.read(self.directory.ledger) as ledger:
            held = state.num_periods, ledger.tip(), ledger.statistics()
            if self._judged is None or self._judged[0] != held:
                self._judged = held, self._books.judge(ledger, state, period_of)
            is_behind = newest_epoch(ledger) < pending.to_epoch
        outcome = self._judged[1]
        if outcome == OK:
            self._since = None
            return ""
        self._since = self.now() if self._since is None else self._since
        waited = self.now() - self._since
        if outcome.answer is Answer.FAILED:
            return outcome.reason if waited >= GRACE_SECONDS else ""
        return outcome.reason if is_behind and waited >= BEHIND_SECONDS and self.is_at_work() else ""


def warning_text(pending: "PeriodState", why: str, *, is_over: bool, of_storage: bool = False) -> str:
    """Of a proposal that the own ledger would not make: why, and what its owner can do."""
    left = (
        "its window is over and anybody can make it final: claim"
        if is_over
        else f"until {until(pending.ready_at)} claim"
    )
    what, option = (
        (f"period {pending.number} for storing", " --storage") if of_storage else (f"period {pending.number}", "")
    )
    return (
        f"the proposal of {what} is not what your own ledger gives: {why}; {left} what is final now (`sparehive claim{option}`), "
        f"look with `sparehive verify --dir{option}`, and ask the organiser to take it back"
    )


def pools_of(
    directory: PeerDirectory, invite: "Invite", connect: Callable[[], "Chain"], is_at_work: Callable[[], bool]
) -> list[Looking]:
    """That for work, and the one for storing where the run has it and the invite says on which terms."""
    has_storage = invite.config.storage is not None and invite.terms is not None
    kinds = (False, True) if has_storage else (False,)
    return [Looking(directory, invite, connect, is_at_work, of_storage=kind) for kind in kinds]


def look_at_all(pools: Sequence[Looking]) -> Watch:
    """One look for the owner: the first pool's, with the warnings of all. Errors as `Looking.look`."""
    first, *rest = [pool.look() for pool in pools]
    return dataclasses.replace(first, warning="; ".join(each.warning for each in (first, *rest) if each.warning))


def main() -> None:
    """Entry point of the process."""
    from peers.supervisor import die_with_parent

    parser = argparse.ArgumentParser(description="watches proposals; started by a peer")
    parser.add_argument("directory", type=Path)
    directory = PeerDirectory(parser.parse_args().directory)
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the peer's to hear
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from incentives.chain.node import Chain
    from incentives.chain.nodes import Nodes
    from incentives.errors import IncentivesError
    from peers.invite import Invite
    from peers.status import PeerStatus

    config, invite = load_peer_config(directory.config), Invite.of_file(directory.invite)
    pools = pools_of(
        directory,
        invite,
        lambda: Chain.connect(Nodes(nodes_of(config, invite)), invite.binding.chain_id),
        lambda: PeerStatus.read(directory.status).is_at_work,
    )
    watch = Watch()
    while True:
        begun = time.monotonic()
        signal.alarm(LOOK_SECONDS)  # ends this process: nothing else is sure to
        try:
            watch = look_at_all(pools)
        except (IncentivesError, PeerError, OSError, MemoryError) as error:
            watch = dataclasses.replace(watch, problem=one_line(str(error) or "no memory"))
        signal.alarm(0)
        watch.write(directory.watch)
        time.sleep(max(config.watch_seconds, min(REST_SHARE * (time.monotonic() - begun), MAX_REST_SECONDS)))


if __name__ == "__main__":
    main()
