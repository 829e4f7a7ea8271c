"""The benchmark's result: one record per swarm, one table for people, one JSON file for machines."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

MISSING = "–"


@dataclass(frozen=True)
class Measured:
    """One swarm, from the moment all of its peers could train to the last epoch. Per-peer numbers are means over the peers."""

    system: str
    peers: int
    line: str
    repeat: int
    is_finished: bool  # all epochs within the time allowed
    seconds: float  # of wall clock, for `samples`
    epochs: int
    samples: int
    utilisation: float  # share of the time in inner steps
    utilisation_least: float  # of the worst peer
    speed: float  # inner steps per second over those of a lone trainer without a network
    sent_bytes_per_peer: float
    sent_bytes_base: float | None  # of the seed or bootstrap peer; None where the interface is shared
    loss: float | None  # held out, nats per byte
    cpu_seconds_per_peer: float
    cpu_share: float  # of the whole machine, everything that ran
    peak_rss_bytes_per_peer: float
    peak_pss_bytes_per_peer: float
    note: str = ""


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _spread(values: Sequence[float], digits: int) -> str:
    """The median; with repeats also the least and the greatest."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


@dataclass(frozen=True)
class Row:
    """One configuration of one system: text cells by column, repeats joined."""

    peers: int
    line: str
    system: str
    cells: dict[str, str]
    note: str = ""


def rows(results: Sequence[Measured], reference: str = "hivemind default") -> list[Row]:
    """Medians over repeats. `faster` and `less sent`: against `reference` at the same peers and line, per sample."""
    groups: dict[tuple[int, str, str], list[Measured]] = {}
    for result in results:
        groups.setdefault((result.peers, result.line, result.system), []).append(result)
    return [_row(group, groups.get((peers, line, reference), [])) for (peers, line, _), group in groups.items()]


def _row(group: Sequence[Measured], against: Sequence[Measured]) -> Row:
    first = group[0]
    seconds = statistics.median(r.seconds / max(1, r.samples) for r in group)
    sent = statistics.median(r.sent_bytes_per_peer / max(1, r.samples) for r in group)
    memory = statistics.median(r.peak_pss_bytes_per_peer or r.peak_rss_bytes_per_peer for r in group)
    loss = _median([r.loss for r in group])
    faster = less = MISSING
    if against and against[0].system != first.system and seconds and sent:
        faster = f"{statistics.median(r.seconds / max(1, r.samples) for r in against) / seconds:.1f}×"
        less = f"{statistics.median(r.sent_bytes_per_peer / max(1, r.samples) for r in against) / sent:.1f}×"
    late = [r for r in group if not r.is_finished]
    notes = [f"stopped after {late[0].epochs} epochs, {late[0].seconds:.0f} s"] if late else []
    return Row(
        first.peers,
        first.line,
        first.system,
        {
            "utilisation": _spread([r.utilisation for r in group], 3),
            "speed": _spread([r.speed for r in group], 2),
            "seconds": _spread([r.seconds for r in group], 0),
            "samples": f"{statistics.median(r.samples for r in group):.0f}",
            "faster": faster,
            "MB sent": f"{statistics.median(r.sent_bytes_per_peer for r in group) / 1e6:.1f}",
            "less sent": less,
            "loss": MISSING if loss is None else f"{loss:.3f}",
            "CPU s": f"{statistics.median(r.cpu_seconds_per_peer for r in group):.0f}",
            "MB memory": f"{memory / 1e6:.0f}",
        },
        "; ".join(dict.fromkeys([*notes, *(r.note for r in group if r.note)])),
    )


# column → heading in the terminal, narrow enough for 100 columns
COLUMNS = {
    "utilisation": "utili-\nsation",
    "speed": "speed",
    "seconds": "time\ns",
    "samples": "sam-\nples",
    "faster": "faster",
    "MB sent": "sent\nMB",
    "less sent": "less\nsent",
    "loss": "loss",
    "CPU s": "CPU\ns",
    "MB memory": "peak\nMB",
}


def not_measured(peers: int, line: str, why: str) -> Row:
    """A configuration that this machine does not allow: it stays in the table."""
    return Row(peers, line, "not measured", dict.fromkeys(COLUMNS, MISSING), why)


def build_table(found: Sequence[Row], title: str) -> Table:
    """For people: a heading per configuration, its systems below it, notes under the table."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    told = None
    notes = []
    for row in found:
        if told != (row.peers, row.line):
            told = (row.peers, row.line)
            table.add_row(f"[bold]{row.peers} peers, {row.line}[/]")
        table.add_row(f"  {row.system}", *(row.cells[name] for name in COLUMNS))
        if row.note:
            notes.append(f"{row.peers} peers, {row.line}, {row.system}: {row.note}")
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def markdown(found: Sequence[Row]) -> str:
    """The same for documents."""
    lines = ["| peers | line | system | " + " | ".join(COLUMNS) + " |", "|---|---|---|" + "---:|" * len(COLUMNS)]
    for row in found:
        name = f"{row.system} ({row.note})" if row.note else row.system
        lines.append(f"| {row.peers} | {row.line} | {name} | " + " | ".join(row.cells[c] for c in COLUMNS) + " |")
    return "\n".join(lines)


def write_results(path: Path, about: dict[str, Any], results: Sequence[Measured]) -> None:
    """`about` (date, versions, machine, workload, command) and every single result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {**about, "results": [dataclasses.asdict(result) for result in results]}
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
