"""What `sparehive join` and `sparehive seed` show while they run: a live panel on a terminal, else one line per change.

It runs in the supervisor, beside the peer, and only reads what the peer writes: it can neither slow nor stop it.
"""

import contextlib
import shlex
import signal
import sys
from collections import deque
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from peers.config import PeerConfig, load_peer_config
from peers.directory import PeerDirectory
from peers.errors import PeerError
from peers.leaving import EXIT_WARNED
from peers.overdue import unpaid_news
from peers.watching import EventTail, Observation, PeerWatcher, Stored
from swarm.errors import printable_lines

LOSSES_SHOWN = 40
WIDTH = 78
_BARS = "▁▂▃▄▅▆▇█"
_LOOPBACK = ("127.", "localhost", "::1")


class View:
    """Follows one peer. `tick` is to be called a few times a second; a context manager, `close` is idempotent.

    `quiet`: nothing but a seed's invite. `console` decides between panel and lines (`is_terminal`)."""

    def __init__(self, mode: str, directory: PeerDirectory, *, quiet: bool = False, console: Console | None = None):
        self.mode, self.directory, self.quiet = mode, directory, quiet
        self.console = console or Console(highlight=False)
        self.watcher = PeerWatcher(directory)
        self.tail = EventTail(directory.events)
        self.last = Observation()
        self.losses: deque[float] = deque(maxlen=LOSSES_SHOWN)
        self._step = -1  # quarters of a download that were told
        self._invited = False
        self._leaving = False
        self._by = ""
        self._worked = False
        self._unpaid_told = {""}
        live = self.console.is_terminal and not quiet
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if live else None

    @property
    def is_live(self) -> bool:
        """On a terminal: then nobody else may write there."""
        return self._live is not None

    @property
    def takes_words(self) -> bool:
        """What the peer says is given to `said`, unless nothing is shown here that it could be mixed up with."""
        return not self.quiet

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    # -- called by the supervisor -------------------------------------------------------------------------------------
    def tick(self, pid: int) -> None:
        """Read and show. `pid`: the peer's process now."""
        if self.watcher.pid != pid:
            self.watcher.pid, self.last, self._step = pid, Observation(), -1
        new = self.watcher.read()
        if new.is_at_work and not self._invited:
            self._show_invite()
        if not self.quiet and not self._leaving:
            for line in self._changes(self.last, new):
                self._say(line)
        self._worked = self._worked or new.is_at_work
        self.last = new
        if self._live is not None:
            self._live.update(self.panel(new), refresh=True)

    def leaving(self, by: int) -> None:
        """The owner asked to stop, with that signal."""
        self._by = f"stopped by {'Ctrl-C' if by == signal.SIGINT else signal.Signals(by).name}"
        if not self._leaving and not self.quiet:
            works = self._worked and self.mode != "store"
            kept = ": the step under way ends and what was done is kept" if works else ""
            self._say(f"leaving{kept}")
        self._leaving = True

    def said(self, text: str) -> None:
        """What the peer's process wrote to its stderr."""
        for line in text.splitlines():
            if self.is_live:
                self._say(line)
            else:
                print(printable_lines(line), file=sys.stderr, flush=True)

    def restarting(self, text: str) -> None:
        """A word of the supervisor; also where the view is quiet."""
        if self.is_live:
            self.said(f"sparehive: {text}")
        else:
            print(f"sparehive: {text}", file=sys.stderr, flush=True)

    def finish(self, code: int) -> None:
        """The last words, after the panel is gone. `code`: exit status of the command."""
        if self.quiet:
            return
        self.watcher.look_again()
        last = self.watcher.read()
        self.close()
        if code in (0, EXIT_WARNED):
            for line in self._last_words(last):
                self._say(line)
            if last.warning:
                self._say(f"WARNING: {last.warning}")
            if self._by or last.ended:
                self._say(self._by or last.ended)

    # -- lines --------------------------------------------------------------------------------------------------------
    def _say(self, line: str) -> None:
        self.console.print(Text(printable_lines(line)), soft_wrap=True)
        if not self.console.is_terminal:
            with contextlib.suppress(OSError):
                self.console.file.flush()

    def _changes(self, old: Observation, new: Observation) -> list[str]:
        lines = self._told_by_events()
        if new.phase.startswith("fetching"):
            lines += self._fetched(old, new)
        elif new.phase.startswith("making a stamp"):
            lines += self._made_of_a_stamp(old, new)
        elif new.phase == "connecting" and old.phase != new.phase:
            lines.append("connecting to the swarm")
        elif new.phase == "finished" != old.phase and (old.is_at_work or self._stays):
            lines.append(
                f"the run is finished at epoch {new.epoch}, {new.run_units:,} of {new.total_units:,} units: its last state is here"
            )
        elif new.is_at_work and not old.is_at_work and new.phase != "finished":
            where = f"from epoch {new.epoch}" if new.epoch else "from the initial model"
            lines.append(f"{new.phase} {where} as {new.account}")
        if new.warning and new.warning != old.warning:
            lines.append(f"WARNING: {new.warning}")
        if new.pay and new.pay != old.pay:
            lines.append(f"pay: {new.pay}")
        lines += [f"note: {text}" for text in new.advice if text not in old.advice]
        news = unpaid_news(new.unpaid_units, new.unpaid_why) if new.is_at_work and not self.is_live else ""
        if news not in self._unpaid_told:
            self._unpaid_told.add(news)
            lines.append(f"note: {new.unpaid}")
        if self.mode == "store" and new.is_at_work:
            return lines + self._kept_lines(old.stored, new.stored)
        if new.is_at_work and new.epoch != old.epoch:
            loss = new.held_out_loss if self.mode == "seed" else new.train_loss
            if loss is not None:
                self.losses.append(loss)
            if not self.is_live and old.is_at_work:
                lines.append(self._epoch_line(new))
        elif not self.is_live and new.is_at_work and old.is_at_work and new.peers != old.peers:
            lines.append(f"{_count(new.peers, 'peer')} linked")
        return lines

    def _kept_lines(self, old: Stored | None, new: Stored | None) -> list[str]:
        if new is None or (old is not None and (old.objects, old.wanted) == (new.objects, new.wanted)):
            return []
        return [f"keeps {stored_words(new)}, {_megabytes(new.size)} of {_megabytes(new.quota)}"] if new.wanted else []

    def _fetched(self, old: Observation, new: Observation) -> list[str]:
        if old.phase != new.phase:
            self._step = -1
        share = min(1.0, new.received_bytes / new.total_bytes) if new.total_bytes else 0.0
        if int(share * 4) <= self._step:
            return []
        self._step = int(share * 4)
        return [f"{new.phase}: {share:.0%} of {_megabytes(new.total_bytes)}"]

    def _made_of_a_stamp(self, old: Observation, new: Observation) -> list[str]:
        share = new.received_bytes
        return [f"{new.phase}: {share} %"] if (old.phase, old.received_bytes) != (new.phase, share) else []

    def _told_by_events(self) -> list[str]:
        lines = []
        for event in self.tail.read():
            if event.get("event") == "Voided":
                lines.append(f"epoch {event.get('epoch')} is void: what was done for it counts in the next one, unpaid")
            elif event.get("event") == "Undone":
                ids = event.get("ids")
                number = len(ids) if isinstance(ids, list) else 0
                lines.append(
                    f"fork: {_count(number, 'certificate')} undone, following the branch that most have signed; "
                    "what was done in them is not paid"
                )
        return lines

    def _epoch_line(self, new: Observation) -> str:
        parts = [_count(new.peers, "peer")]
        if self.mode == "seed":
            if new.held_out_loss is not None:
                parts.append(f"held-out loss {new.held_out_loss:.3f}")
        else:
            if new.train_loss is not None:
                parts.append(f"loss {new.train_loss:.3f}")
            parts.append(_count(new.units, "unit"))
            parts.append(_count(new.receipts, "receipt") + self._worth(new, ", "))
            if new.unpaid_units:
                parts.append(f"{_count(new.unpaid_units, 'unit')} without a receipt")
            if new.utilisation is not None:
                parts.append(f"{new.utilisation:.0%} of the time in training steps")
        if new.total_units:
            parts.append(f"run: {new.course}")
        return f"epoch {new.epoch}: " + ", ".join(parts)

    def _worth(self, new: Observation, before: str) -> str:
        """What the receipts are worth, where something is paid at all. The pool's budget is the chain's to know."""
        terms = self.watcher.terms
        if terms is None or not terms.has_chain:
            return ""
        return before + terms.unit.shown(new.paid_units * terms.unit_price_amount)

    def _last_words(self, last: Observation) -> list[str]:
        where = shlex.quote(str(self.directory.root))
        if self.mode == "seed":
            if not self._worked:
                return ["the seed has stopped before it served"]
            if last.phase == "finished":
                return ["the seed has stopped; the run is finished, and nobody gets its model from here any more"]
            return [
                f"the seed has stopped at epoch {last.epoch}; peers go on without it, but new ones cannot find them"
            ]
        if self.mode == "store":
            return [
                f"the storer has stopped: others fetch what it kept from who has it; go on: sparehive store --dir {where}"
            ]
        again = f"go on: sparehive join --dir {where}"
        if not self._worked:
            return [f"left before training began; {again}"]
        lines = [
            f"left at epoch {last.epoch} after {_count(last.units, 'unit')}; "
            f"{_count(last.receipts, 'receipt')} co-signed{self._worth(last, ', worth ')}",
            *([last.unpaid] if last.unpaid else []),
        ]
        if last.phase != "finished":
            lines.append(again)
        elif not last.ended.startswith("the run is finished"):  # which says it
            lines.append(f"the model: sparehive export --dir {where} --out model")
        if self.watcher.terms is not None and self.watcher.terms.has_chain:
            lines.append(f"paid yet? sparehive rewards --dir {where} --rpc URL")
        return lines

    # -- the seed's invite --------------------------------------------------------------------------------------------
    def _show_invite(self) -> None:
        self._invited = True
        if self.mode != "seed":
            return
        try:
            invite = self.directory.invite.read_text(encoding="utf-8").strip()
        except OSError:
            return
        if self.quiet:
            print(invite, flush=True)
            return
        self._say("")
        self._say("The run is open. On any machine that reaches this one:")
        self._say("")
        self._say(f"    sparehive join {invite}")
        self._say("")
        self._say(f"The same invite lies in {self.directory.invite}")
        for line in self._reachability():
            self._say(line)
        self._say("")

    def _config(self) -> PeerConfig:
        try:
            return load_peer_config(self.directory.config)
        except (PeerError, OSError):
            return PeerConfig()

    @property
    def _stays(self) -> bool:
        """After the run's end; who leaves then says so itself."""
        choice = self._config().after_end
        return choice == "serve" or (choice == "auto" and self.mode == "seed")

    def _reachability(self) -> list[str]:
        if self._config().host.startswith(_LOOPBACK):
            return ["It listens on this machine alone: without --host it is open to others"]
        return []

    # -- the panel ----------------------------------------------------------------------------------------------------
    def panel(self, new: Observation) -> Panel:
        """For a terminal."""
        terms = self.watcher.terms
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column()
        phase = "leaving" if self._leaving else new.phase
        grid.add_row("", Text(phase, style="bold green" if new.is_at_work else "bold yellow"))
        if new.is_at_work or self._worked:
            grid.add_row("epoch", f"{new.epoch}   {_count(new.peers, 'peer')} linked")
            if new.course:
                grid.add_row("run", new.course)
            self._loss_row(grid, new)
            if new.stored is not None:
                self._stored_rows(grid, new.stored)
            if self.mode == "join":
                share = "" if new.utilisation is None else f"   {new.utilisation:.0%} of the time in training steps"
                grid.add_row("done", f"{_count(new.units, 'unit')}{share}")
                grid.add_row("earned", f"{_count(new.receipts, 'receipt')} co-signed{self._worth(new, ',  ')}")
                if new.unpaid:
                    grid.add_row("unpaid", Text(printable_lines(new.unpaid), style="yellow"))
        if new.warning:
            grid.add_row(
                Text("WARNING", style="bold white on red"), Text(printable_lines(new.warning), style="bold red")
            )
        if new.pay:
            grid.add_row(
                "pay", Text(printable_lines(new.pay), style="" if new.pay.startswith("bound to") else "yellow")
            )
        for text in new.advice:
            grid.add_row(Text("note", style="bold yellow"), Text(printable_lines(text), style="yellow"))
        if new.faults:
            grid.add_row("dropped", f"{_count(new.faults, 'message')} or part that broke a rule; see peer.log")
        grid.add_row("account", new.account or "…")
        grid.add_row("directory", Text(str(self.directory.root), overflow="ellipsis", no_wrap=True))
        title = f"sparehive {self.mode}" + (f" · {terms.name}" if terms else "")
        return Panel(
            Group(grid),
            title=Text(printable_lines(title)),
            subtitle=Text("Ctrl-C leaves cleanly"),
            width=min(WIDTH, self.console.width),
            title_align="left",
            subtitle_align="right",
            border_style="cyan",
        )

    def _stored_rows(self, grid: Table, stored: Stored) -> None:
        grid.add_row("keeps", f"{stored_words(stored)}   {_count(stored.storers, 'storer')}")
        grid.add_row("disk", f"{_megabytes(stored.size)} of {_megabytes(stored.quota)}")
        if stored.receipts:
            grid.add_row("earned", f"{_count(stored.receipts, 'receipt')} of storage co-signed")
        if stored.rotten:
            grid.add_row("rotten", f"{_count(stored.rotten, 'block')}, fetched again from others")

    def _loss_row(self, grid: Table, new: Observation) -> None:
        loss = new.held_out_loss if self.mode == "seed" else new.train_loss
        if loss is not None:
            kind = "held out" if self.mode == "seed" else "in training"
            grid.add_row("loss", Text.assemble(f"{loss:.3f} {kind}   ", (sparkline(self.losses), "cyan")))


def stored_words(stored: Stored) -> str:
    """How much of what a storer is to keep it has."""
    return f"{stored.objects} of {_count(stored.wanted, 'object')}"


def sparkline(values: Any) -> str:
    """One bar per value, the lowest empty-most; nothing for fewer than two."""
    found = [v for v in values if v == v and abs(v) != float("inf")]
    if len(found) < 2:
        return ""
    low, high = min(found), max(found)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((v - low) * scale)] for v in found)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"
