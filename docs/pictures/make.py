"""`make pictures`: the README's two pictures, from a demo that is run for them: what `sparehive join` shows, and the loss alone and
together.

    python -m docs.pictures.make build/pictures docs/pictures

The panel is the product's own, fed from what alice's peer writes while it trains with three others; the lone peer is trained
here, with as many steps as alice did.
"""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from peers.directory import PeerDirectory
from peers.invite import Invite
from peers.live import View
from peers.status import PeerStatus
from peers.watching import read_events

PEERS, MIN_EPOCH = 4, 14  # the seed and three others are linked; dave joins after epoch 13
DIRECTORY = "sparehive-peer"  # of `sparehive join` without --dir
POINTS = 16  # of the lone peer's curve
TEXT, GRID = "#6e7781", "#8b949e"  # a contrast of 4:1 and more on white, and on what sites in the dark have


def live_view(demo: Path, out: Path, running: "subprocess.Popen[bytes]") -> None:
    """The panel of alice as her terminal shows it once her wallet is bound and dave, the fourth, is linked."""
    while not (demo / "alice").is_dir():
        _wait(running)
    directory = _as_a_volunteer_has_it(demo / "alice")
    view = View("join", directory, console=Console(file=io.StringIO(), width=80, force_terminal=True))
    while True:
        _wait(running)
        pid = PeerStatus.read(directory.status).pid
        if pid is None:
            continue
        view.tick(pid)
        if view.last.is_at_work and not directory.bound.exists():
            _bind(demo)
        if view.last.peers >= PEERS and view.last.epoch >= MIN_EPOCH and view.last.receipts > 0:
            break
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(view.panel(view.last))
    view.close()
    svg = console.export_svg(title="sparehive join INVITE", unique_id="live-view")
    out.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


def _wait(running: "subprocess.Popen[bytes]") -> None:
    if running.poll() is not None:
        sys.exit("the demo ended before four peers trained; see its directory")
    time.sleep(0.25)


def _bind(demo: Path) -> None:
    """Alice's peer to her wallet, as she does it soon after she has joined; at the end the demo finds it done."""
    alice, wallet = PeerDirectory(demo / "alice"), demo / "wallets" / "alice.json"
    rpc = Invite.of_file(alice.invite).rpc
    keys = ["--keystore", str(wallet), "--password-file", str(wallet.with_suffix(".password"))]
    command = [sys.executable, "-m", "peers", "bind", "--yes", "--dir", str(alice.root), "--rpc", rpc, *keys]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _as_a_volunteer_has_it(real: Path) -> PeerDirectory:
    """The panel names the directory: by the name that `sparehive join INVITE` gives it, seen from where the command was typed."""
    link = real.parent / DIRECTORY
    link.unlink(missing_ok=True)
    link.symlink_to(real.name)
    os.chdir(real.parent)
    return PeerDirectory(Path(DIRECTORY))


def loss(demo: Path, out: Path) -> None:
    """Held-out loss over the steps that one machine does: a lone peer, and the swarm's model beside alice's own steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps_per_unit = _steps_per_unit(demo / "run")
    done = [(e["time"], e["unit"] + 1) for e in read_events(PeerDirectory(demo / "alice")) if e["event"] == "UnitDone"]
    units = done[-1][1]
    together = [
        (sum(1 for time, _ in done if time <= e["time"]) * steps_per_unit, e["loss"])
        for e in read_events(PeerDirectory(demo / "seed"))
        if e["event"] == "Evaluated"
    ]
    alone = [(unit * steps_per_unit, value) for unit, value in _baseline(demo / "run", units)["curve"]]
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=110)
    axes.plot(*zip(*alone, strict=True), color="tab:orange", linestyle="--", marker="o", markersize=3, label="alone")
    axes.plot(*zip(*together, strict=True), color="tab:blue", marker="o", markersize=3, label="together, 3 to 4 peers")
    axes.set_xlabel("training steps of one machine", color=TEXT)
    axes.set_ylabel("loss on held-out text (lower is better)", color=TEXT)
    axes.set_title("The same machine, the same steps: alone and in a swarm", color=TEXT, fontsize=10)
    axes.tick_params(colors=TEXT)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    axes.grid(alpha=0.3, color=GRID)
    axes.legend(labelcolor=TEXT, framealpha=0.0)
    figure.tight_layout()
    figure.savefig(out, transparent=True, metadata={"Software": None})
    plt.close(figure)


def _steps_per_unit(run: Path) -> int:
    import tomllib

    return int(tomllib.loads((run / "run.toml").read_text(encoding="utf-8"))["inner"]["steps_per_unit"])


def _baseline(run: Path, units: int) -> dict[str, Any]:
    """The lone peer's curve, by the command that anybody has."""
    every = max(1, units // POINTS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "peers",
            "run",
            "baseline",
            str(run),
            "--units",
            str(units),
            "--every",
            str(every),
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def main() -> None:
    demo, out = (Path(argument).resolve() for argument in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-m", "peers", "demo", "--dir", str(demo)]) as running:
        live_view(demo, out / "live.svg", running)
    if running.returncode:
        sys.exit(running.returncode)
    loss(demo, out / "loss.png")
    for name in ("live.svg", "loss.png"):
        print(f"{out / name}: {(out / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
