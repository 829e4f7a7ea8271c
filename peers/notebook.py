"""A peer in the background of a notebook: join, watch, leave. The peer is `sparehive join`, a process tree of its own; it
ends when it is told to, and with the kernel."""

import contextlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incentives.amounts import BASE_UNITS
from incentives.keys import to_checksum
from peers.directory import PeerDirectory
from peers.errors import StartError
from peers.invite import Invite
from peers.overdue import unpaid_news
from peers.supervisor import GRACE_SECONDS, die_with_parent
from peers.watching import Observation, PeerWatcher
from swarm.errors import printable_lines

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of a terminal
SAMPLE_SECONDS = 1.0
DRAW_SECONDS = 3.0
LEAVE_SECONDS = GRACE_SECONDS + 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment; `seconds` since joining, `earned_amount` in the token's base unit."""

    seconds: float
    train_loss: float | None
    receipts: int
    earned_amount: int


@dataclass
class NotebookPeer:
    """A running peer. Also a context manager; `leave` is idempotent."""

    directory: PeerDirectory
    invite: Invite
    process: "subprocess.Popen[bytes]"
    samples: list[Sample] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.watcher = PeerWatcher(self.directory)

    @property
    def log(self) -> Path:
        """What `sparehive join` printed."""
        return self.directory.root / "join.log"

    @property
    def settlement(self) -> str:
        """Address of the run's settlement: where claims are paid."""
        return to_checksum(self.invite.binding.settlement)

    def status(self) -> Observation:
        return self.watcher.read()

    def wait(self, seconds: float = 300.0) -> Observation:
        """Until it trains. StartError with the peer's own last words if it ends or takes longer."""
        deadline = time.monotonic() + seconds
        while not self.directory.ready.exists():
            if self.process.poll() is not None:
                raise StartError(f"the peer has ended: {self._last_words()}")
            if time.monotonic() > deadline:
                raise StartError(f"the peer does not train after {seconds:.0f} s: {self._last_words()}")
            time.sleep(0.2)
        return self.status()

    def watch(self, seconds: float, *, until_receipts: int | None = None) -> None:
        """Plot loss and earnings, anew every few seconds; returns after `seconds`, or with so many receipts, or when the
        peer ends. The kernel's stop button ends the watching, not the peer."""
        deadline = time.monotonic() + seconds
        handle, drawn = None, 0.0
        with contextlib.suppress(KeyboardInterrupt):
            while self.process.poll() is None and time.monotonic() < deadline:
                snapshot = self._sample()
                self.tell(snapshot)
                if until_receipts is not None and snapshot.receipts >= until_receipts:
                    break
                if time.monotonic() - drawn > DRAW_SECONDS:
                    handle, drawn = self._show(handle), time.monotonic()
                time.sleep(min(SAMPLE_SECONDS, max(0.0, deadline - time.monotonic())))
        self._sample()
        self._show(handle)

    def plot(self) -> Any:
        """A matplotlib figure of what has been watched: how far the run is, loss per unit, what the receipts are worth."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.2), layout="constrained")
        figure.suptitle(self.status().course, fontsize="medium")
        left, right = figure.subplots(1, 2)
        losses = [(s.seconds, s.train_loss) for s in self.samples if s.train_loss is not None]
        left.plot([t for t, _ in losses], [loss for _, loss in losses], color="tab:blue")
        left.set(title="loss of this peer", xlabel="seconds", ylabel="nats per token")
        limits = self.invite.limits
        unit = limits.unit if limits else BASE_UNITS
        scale = 10 ** (unit.decimals or 0)
        right.step([s.seconds for s in self.samples], [s.earned_amount / scale for s in self.samples], where="post")
        receipts = self.samples[-1].receipts if self.samples else 0
        right.set(title=f"{receipts} receipts co-signed", xlabel="seconds", ylabel=f"{unit.word}, before settlement")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.grid(alpha=0.3)
        return figure

    def leave(self) -> None:
        """Leave cleanly: the step under way ends, the last unit is kept. Returns when nothing runs any more."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()  # the peer below gets SIGTERM from the system
                self.process.wait()
        text = _CONTROL.sub("", self.log.read_text(errors="replace", encoding="utf-8"))  # a kernel asks for colours
        lines = text.splitlines()
        begins = [at for at, line in enumerate(lines) if line.startswith(("left at ", "left before "))]
        begin = begins[-1] if begins else max(0, len(lines) - 3)
        print(printable_lines("\n".join(lines[begin:])))

    def __enter__(self) -> "NotebookPeer":
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def _sample(self) -> Observation:
        snapshot = self.status()
        earned = snapshot.paid_units * self.invite.config.unit_price
        self.samples.append(Sample(time.monotonic() - self._begun, snapshot.train_loss, snapshot.receipts, earned))
        return snapshot

    def tell(self, snapshot: Observation) -> None:
        """What its owner should know, each once: that this work cannot be paid, say. Of units without receipts again with another
        reason, and when they are twice as many."""
        notes = list(snapshot.advice)
        news = unpaid_news(snapshot.unpaid_units, snapshot.unpaid_why)
        if news and news not in self.told:
            self.told.add(news)
            notes.append(snapshot.unpaid)
        if snapshot.phase == "finished":
            notes.append(
                f"the run is over, {snapshot.run_units:,} of {snapshot.total_units:,} units: `sparehive export` has its model"
            )
        for text in notes:
            if text not in self.told:
                self.told.add(text)
                print(f"note: {printable_lines(text)}", flush=True)

    def _show(self, handle: Any) -> Any:
        from IPython.display import DisplayHandle, Image

        png = io.BytesIO()
        self.plot().savefig(png, format="png", dpi=100)
        image: Any = Image(png.getvalue())  # type: ignore[no-untyped-call]
        if handle is None:
            handle = DisplayHandle()  # type: ignore[no-untyped-call]
            handle.display(image)
        else:
            handle.update(image)
        return handle

    def _last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace", encoding="utf-8").splitlines()[-2:])


def join(
    invite: str, directory: str | Path = "sparehive-peer", *, client_mode: bool = True, options: Sequence[str] = ()
) -> NotebookPeer:
    """Start `sparehive join` in the background; `options` are further ones of that command. Errors of a bad invite at once."""
    decoded = Invite.decode(invite)
    where = PeerDirectory(Path(directory))
    where.root.mkdir(parents=True, exist_ok=True)
    where.ready.unlink(missing_ok=True)  # of an earlier process
    command = [sys.executable, "-m", "peers", "join", decoded.encode(), "--dir", str(where.root)]
    command += ["--client"] if client_mode else []
    with open(where.root / "join.log", "wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    return NotebookPeer(where, decoded, process)


__all__ = ["NotebookPeer", "Sample", "join"]
