"""What an exported model came out of: `lineage.json` for those who go on from it, and README.md, its card, for people.

A run that starts from an exported folder has that file in its base, so the base's root names it: whose work the model is, back to the first
run, is known wherever the run is, and cannot be changed afterwards (decision 0022).
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from incentives.ledger import Ledger
from peers.errors import ConfigError
from peers.history import round_body
from swarm.checkpoint.unixfs import cid_text, parse_cid
from swarm.config import RunConfig
from swarm.hashing import canonical_json

FILE, MAX_BYTES, MAX_PARENTS = "lineage.json", 1 << 20, 64
CID = Annotated[str, Field(pattern=r"^b[a-z2-7]{58}$")]
Account = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Work(_Part):
    """A run up to one of its anchors: `shares`, certified units of each account up to there; `base`: what it started from ("": noise)."""

    run_id: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    name: str = Field(min_length=1, max_length=64)
    epoch: int = Field(ge=0, le=2**53 - 1)
    anchor: CID
    data: CID
    base: CID | Literal[""] = ""
    shares: dict[Account, Annotated[int, Field(ge=1, le=2**53 - 1)]]


class Lineage(Work):
    """The newest run, and those before it, the last one first."""

    format: Literal[1] = 1
    parents: tuple[Work, ...] = Field((), strict=False, max_length=MAX_PARENTS)

    def bytes(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))


def read_lineage(path: Path) -> Lineage | None:
    """None where there is no such file. ConfigError in one line for one that is none."""
    try:
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            return None
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return Lineage.model_validate(from_json(data))
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(str(part)[:50] for part in first['loc'])}: {first['msg']}"
    except (OSError, ValueError) as error:
        why = str(error)
    raise ConfigError(
        FILE, str(path), f"cannot be read ({why}); restore it, or remove it if the model came out of no run"
    )


def lineage_of(
    run: RunConfig, ledger: Ledger, tip: bytes | None, epoch: int, root: bytes, base: Path | None
) -> Lineage:
    """Of the anchor `root` after the certificate `tip` (None: the initial one)."""
    units: Counter[str] = Counter()
    for _, identity in () if tip is None else ledger.way_back(tip):
        certificate = ledger.certificate(identity)
        if certificate is not None:
            units.update({"0x" + leaf.peer.hex(): leaf.units for leaf in round_body(certificate.body).contributors})
    published = run.task.model.published()
    before = None if base is None else read_lineage(base / FILE)
    parents: tuple[Work, ...] = ()
    if before is not None:
        last = Work(**{name: getattr(before, name) for name in Work.model_fields})
        parents = (last, *before.parents)[:MAX_PARENTS]
    return Lineage(
        run_id="0x" + run.run_id.hex(),
        name=run.name,
        epoch=epoch,
        anchor=cid_text(root),
        data=cid_text(bytes.fromhex(run.task.data.root)),
        base="" if published is None else cid_text(published.root),
        shares=dict(sorted(units.items())),
        parents=parents,
    )


def model_card(lineage: Lineage, is_adapter: bool, loss_before: float | None, loss: float | None) -> str:
    """README.md of an exported folder, as model hubs show it."""
    total = sum(lineage.shares.values())
    head: dict[str, Any] = {"library_name": "peft" if is_adapter else "transformers"}
    if lineage.base:
        head["base_model"] = f"ipfs://{lineage.base}"
    rows = [
        ("Run", f"`{lineage.run_id}`"),
        ("Starts from", f"`ipfs://{lineage.base}`" if lineage.base else "noise"),
        ("Data", f"`ipfs://{lineage.data}`"),
        ("Epoch", str(lineage.epoch)),
        ("Anchor", f"`ipfs://{lineage.anchor}`"),
        ("Anchor's root", f"`0x{parse_cid(lineage.anchor).hex()}`"),
        ("Units", f"{total:,}"),
        *([] if loss_before is None else [("Held-out loss before", f"{loss_before:.4f}")]),
        *([] if loss is None else [("Held-out loss after", f"{loss:.4f}")]),
    ]
    what = "An adapter in peft's format" if is_adapter else "A model"
    lines = [
        "---",
        *(f"{name}: {value}" for name, value in head.items()),
        "---",
        "",
        f"# {_plain(lineage.name)}",
        "",
        f"{what}, trained by volunteers with Sparehive.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        *_shares("Whose work it is", lineage),
        *(line for work in lineage.parents for line in _shares(f"What it builds on: run {work.run_id}", work)),
    ]
    return "\n".join(lines) + "\n"


def _shares(title: str, work: Work) -> list[str]:
    total = sum(work.shares.values()) or 1
    rows = [f"| {account} | {units:,} | {units / total:.2%} |" for account, units in work.shares.items()]
    return ["", f"## {title}", "", "| account | units | share |", "|---|---|---|", *rows]


def _plain(name: str) -> str:
    """An organiser's word in Markdown that others render."""
    return "".join("\\" + letter if letter in "\\`*_{}[]<>()#+!|" else letter for letter in name)


__all__ = ["FILE", "Lineage", "Work", "lineage_of", "model_card", "read_lineage"]
