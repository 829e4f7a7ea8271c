"""What the demo shows at the end: the table, report.json, the plot."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from incentives.chain.token import TEST_TOKEN_UNIT
from incentives.evidence import SignedReceipt, parse_evidence
from incentives.keys import parse_address, to_checksum
from peers.directory import PeerDirectory
from peers.watching import read_events

if TYPE_CHECKING:
    from peers.demo import Session


def build_report(session: "Session", money: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
    """The documented content of report.json (docs/demo.md)."""
    from peers.demo import KILLED, PEERS

    seed_events = read_events(session.seed)
    losses = [(e["time"], e["epoch"], e["loss"]) for e in seed_events if e["event"] == "Evaluated"]
    certified = [e for e in seed_events if e["event"] == "Certified" and e["kind"] == 0]
    common, roots = _common_roots({name: session.peers[name] for name in PEERS if name != KILLED})
    return {
        "peers": [_peer_row(session, name, money) for name in PEERS],
        "loss": {
            "untrained": None,
            "start": losses[0][2] if losses else None,
            "final": exported["loss"],
            "single_peer": None,
        },
        "losses": [{"time": t, "epoch": e, "loss": v} for t, e, v in losses],
        "epochs": exported["epoch"],
        "certificates": len(certified),
        "roots_epoch": common,
        "roots": roots,
        "chain": {
            "rpc_state": "chain-state.json",
            "chain_id": session.chain.chain_id,
            "settlement": session.deployed["settlement"],
            "registry": session.deployed["registry"],
            "token": session.deployed["token"],
            "funded": str(money["verify"]["funded"]),
            "released": str(money["verify"]["released"]),
            "claimed": str(money["verify"]["claimed"]),
            "tables": Path(money["tables"]).name,
        },
        "marks": [{"time": t, "text": text} for t, text in session.marks],
        "sample": exported.get("sample", ""),
        "seconds": None,
    }


def _peer_row(session: "Session", name: str, money: dict[str, Any]) -> dict[str, Any]:
    from peers.demo import JOINS_LATE, KILLED

    account = money["claims"][name]["accounts"][0]
    receipts = _receipts_of(parse_address(account["account"]), Path(money["tables"]))
    return {
        "name": name,
        "account": account["account"],
        "wallet": session.wallets[name],
        "units": account["units"],
        "receipts": len(receipts),
        "co_signers": sorted({to_checksum(s) for each in receipts for s, _ in each.signatures if s != each.peer}),
        "earned": str(account["earned"]),
        "claimed": str(account["claimed"]),
        "balance_before": str(money["before"][name]),
        "balance_after": str(money["after"][name]),
        "joined_epoch": next((e["epoch"] for e in read_events(session.peers[name]) if e["event"] == "Ready"), 0),
        "joined_late": name == JOINS_LATE,
        "killed": name == KILLED,
    }


def _receipts_of(account: bytes, tables: Path) -> list[SignedReceipt]:
    """The account's paid receipts, with those who signed them."""
    published = (parse_evidence(path.read_bytes()) for path in sorted(tables.glob("evidence-?.json")))
    receipts = (receipt for evidence in published for receipt in evidence.receipts if receipt.peer == account)
    return [receipt for receipt in receipts if isinstance(receipt, SignedReceipt)]


def _common_roots(survivors: dict[str, PeerDirectory]) -> tuple[int, dict[str, str]]:
    """The newest epoch that all have seen certified, and each one's root of it; one may have left before the last."""
    seen = {
        name: {e["epoch"]: e["root"] for e in read_events(directory) if e["event"] == "Certified"}
        for name, directory in survivors.items()
    }
    common = min(max(epochs, default=0) for epochs in seen.values())
    return common, {name: epochs.get(common, "") for name, epochs in seen.items()}


def show_table(console: Console, report: dict[str, Any], exported: dict[str, Any]) -> None:
    table = Table(
        title="What each peer did and got (amounts in test tokens)",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for heading in ("peer", "account", "units", "receipts", "signers", "earned", "claimed", "before", "after"):
        table.add_column(heading, justify="left" if heading in ("peer", "account") else "right", no_wrap=True)
    for peer in report["peers"]:
        mark = " †" if peer["killed"] else " *" if peer["joined_late"] else ""
        table.add_row(
            peer["name"] + mark,
            peer["account"][:8] + "…",
            str(peer["units"]),
            str(peer["receipts"]),
            str(len(peer["co_signers"])),
            TEST_TOKEN_UNIT.column(int(peer["earned"])),
            TEST_TOKEN_UNIT.column(int(peer["claimed"])),
            TEST_TOKEN_UNIT.column(int(peer["balance_before"])),
            TEST_TOKEN_UNIT.column(int(peer["balance_after"])),
        )
    console.print(table)
    for mark, key, text in (("*", "joined_late", "joined after epoch {}"), ("†", "killed", "killed with SIGKILL")):
        for peer in report["peers"]:
            if peer[key]:
                console.print(
                    f"[dim]{mark} {peer['name']} {text.format(peer['joined_epoch'])}; paid for what was certified[/]"
                )
    loss = report["loss"]
    console.print(
        f"held-out loss: untrained {loss['untrained']:.3f}, one peer alone with equal steps {loss['single_peer']:.3f}, "
        f"[bold]together {loss['final']:.3f}[/] after {report['epochs']} epochs and {report['certificates']} certificates"
    )
    console.print(f"[dim]the model writes:[/] {report['sample']!r}")


def draw_loss(session: "Session", report: dict[str, Any], path: Path) -> None:
    """Held-out loss over time, joins and the kill marked, the lone peer and the untrained model as lines."""
    plt = _pyplot()
    points = report["losses"]
    origin = points[0]["time"] if points else 0.0
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=130)
    axes.plot(
        [p["time"] - origin for p in points],
        [p["loss"] for p in points],
        marker="o",
        markersize=3,
        label="swarm, held-out text",
    )
    loss = report["loss"]
    axes.axhline(loss["untrained"], color="0.6", linestyle=":", label=f"untrained {loss['untrained']:.2f}")
    axes.axhline(
        loss["single_peer"], color="tab:orange", linestyle="--", label=f"one peer alone {loss['single_peer']:.2f}"
    )
    for mark in report["marks"]:
        axes.axvline(mark["time"] - origin, color="tab:red" if "killed" in mark["text"] else "tab:green", linewidth=1)
        axes.annotate(
            mark["text"], (mark["time"] - origin, axes.get_ylim()[1]), rotation=90, va="top", ha="right", fontsize=8
        )
    axes.set_xlabel("seconds")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title("One model, strangers' machines")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def show_transfer(console: Console, report: dict[str, Any]) -> None:
    """The table of `sparehive demo --transfer`."""
    loss, base, tuned = report["loss"], report["base"], report["tuned"]
    table = Table(title="Held-out loss on the little text", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("model", "loss", "perplexity", "trained values", "bytes sent"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    rows = (
        ("from noise, alone", loss["from_noise"], base),
        ("as published", loss["before"], None),
        ("fine-tuned together", loss["after"], tuned),
    )
    for name, value, costs in rows:
        sizes = (f"{costs['parameters']:,}", f"{costs['contribution_bytes']:,}") if costs else ("", "")
        table.add_row(name, f"{value:.3f}", f"{math.exp(value):.2f}", *sizes)
    console.print(table)
    console.print("[dim]bytes of one contribution; alone: as many steps as each of the three did[/]")


def draw_transfer(report: dict[str, Any], path: Path) -> None:
    """Held-out loss over time of both runs, each on its own text; what the second is compared with as lines."""
    plt = _pyplot()
    figure, (first, second) = plt.subplots(1, 2, figsize=(9, 4), dpi=130, sharey=True)
    loss = report["loss"]
    panels = ((first, "base", "1: from noise, on much text"), (second, "tuned", "2: adapters, on little text"))
    for axes, run, title in panels:
        points = report[run]["losses"]
        seconds = [point["time"] - points[0]["time"] for point in points]
        axes.plot(seconds, [point["loss"] for point in points], marker="o", markersize=3, label="three peers together")
        axes.set_title(title)
        axes.set_xlabel("seconds")
        axes.grid(alpha=0.3)
    first.set_ylabel("held-out loss (nats per token)")
    second.axhline(loss["before"], color="0.6", linestyle=":", label=f"as published {loss['before']:.2f}")
    second.axhline(
        loss["from_noise"], color="tab:orange", linestyle="--", label=f"from noise, alone {loss['from_noise']:.2f}"
    )
    for axes in (first, second):
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _pyplot() -> Any:
    """Without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
