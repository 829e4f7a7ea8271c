"""`sparehive demo --market`: a run trains a model, which is sold; a stranger buys it, and everybody who made it is paid.

Public commands only. The buyer's run as in the base install: whatever only peers need cannot be imported there. One storer is killed while
the buyer waits, one key holder keeps silent. What it leaves in its directory is described in docs/market.md.
"""

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from rich.console import Console
from rich.table import Table

from incentives.chain.license import license_address, share_of
from incentives.devchain import DevChain
from incentives.keys import to_checksum, unlock_key
from peers.demo import LOCAL, WINDOW_SECONDS, Demo, Running, everything_ends, make_room, say
from peers.demo_transfer import TransferDemo
from peers.directory import PeerDirectory, write_json
from peers.errors import StartError
from peers.market.manifest import Manifest

CONTRIBUTORS = ("alice", "bob", "carol")
STORERS, SILENT = ("storer-1", "storer-2"), "holder-3"
PARTS = {"contributors": "55", "data": "15", STORERS[0]: "2.5", STORERS[1]: "2.5"}  # per cent; the owner has the rest
PRICE, BUDGET_TOKENS, UNITS = 5 * 10**18 + 9_973, 1000, 90  # base units: of a price that no split divides evenly
SMALL = ("--set", "task.model.fields={n_embd=64,n_layer=2,n_head=2}", "--set", "task.data.context=64")
DAY = 86_400
WAIT_SECONDS = 90.0
LIGHT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "hivemind", "transformers", "numpy", "tokenizers", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
sys.meta_path.insert(0, Absent())
from peers.cli import main
main()
"""


def run_market_demo(root: Path) -> None:
    """Run it; raises PeerError with one line when a step fails, or the money does not add up. `root` must be new, empty, or of an earlier
    demo."""
    console, begun = Console(), time.monotonic()
    root = root.resolve()
    make_room(root)
    demo = Demo(root, console, cache=root / "cache")
    with everything_ends(demo), DevChain(state=root / "chain-state.json", log=root / "chain.log") as chain:
        report = MarketDemo(demo, chain).run()
    report["seconds"] = round(time.monotonic() - begun, 1)
    write_json(root / "report.json", report)
    console.print(f"[dim]{report['seconds']:.0f} s in all; nothing is left running.[/]")


class MarketDemo(TransferDemo):
    """The steps in order, and what they found."""

    def __init__(self, demo: Demo, chain: DevChain) -> None:
        super().__init__(demo, Path(), SMALL)
        self.chain, self.wallets = chain, dict[str, str]()
        self.run_dir, self.seed = self.root / "run", PeerDirectory(self.root / "seed")
        self.rpc = ("--rpc", chain.rpc)

    def run(self) -> dict[str, Any]:
        """What report.json holds."""
        exported = self.trained()
        model, published = self.published()
        servers, holders = self.held(model, published)
        self.give("buyer", PRICE)
        self.bought(model, servers, holders)
        losses = self.measured()
        say(self.console, "evaluate", f"loss {losses['bought']:.4f}, as the run's anchor has it")
        rows = self.paid(model)
        return self.report_of(model, exported, losses, rows)

    # -- a run, as anywhere -----------------------------------------------------------------------------------------------
    def keys(self, name: str) -> list[str]:
        """Of a wallet, which is made with coin for gas when it is first named."""
        base = self.root / "wallets"
        options = ["--keystore", str(base / f"{name}.json"), "--password-file", str(base / f"{name}.password")]
        if name not in self.wallets:
            self.wallets[name] = self.demo.command("wallet", *options, "--json")["address"]
            self.chain.give_gas(self.wallets[name])
        return options

    def give(self, name: str, amount: int) -> None:
        """Test tokens, as from an exchange: the organiser has what was made of them."""
        self.keys(name)
        _, keystore, _, password = self.keys("organiser")
        key, token = unlock_key(Path(keystore), Path(password)), bytes.fromhex(self.token[2:])
        self.chain.chain().transact(key, "TestToken", token, "transfer", self.wallets[name], amount)

    def trained(self) -> dict[str, Any]:
        """The exported model of a run whose first period is final, and whose contributors are bound."""
        own = self.keys("organiser")
        self.new_run(self.run_dir, "market", UNITS, *self.sizes, "--unit-price", "1")
        window = ("--test-token", "--window", str(WINDOW_SECONDS))
        self.token = self.demo.command("run", "deploy", str(self.run_dir), *self.rpc, *own, *window, "--json")["token"]
        self.demo.command("run", "fund", str(self.run_dir), *self.rpc, *own, "--amount", str(BUDGET_TOKENS), "--json")
        serving = self.demo.start(
            "seed", "seed", str(self.run_dir), "--dir", str(self.seed.root), *LOCAL, *own, "--quiet"
        )
        self.demo.wait_for(self.seed.ready, serving)
        say(self.console, "train", f"{len(CONTRIBUTORS)} peers, {UNITS} units")
        self.until_ended(
            self.seed,
            [
                self.demo.start(n, "join", str(self.seed.invite), "--dir", str(self.root / n), *LOCAL, "--quiet")
                for n in CONTRIBUTORS
            ],
        )
        time.sleep(2.0)  # the last receipts are on their way to the seed
        self.demo.stop(serving)
        where = ("--run", str(self.run_dir), *self.rpc)
        ends = ("--tables", str(self.root / "tables"), "--to-newest", "--finalise", "--json")
        self.demo.command("settle", "--dir", str(self.seed.root), *where, *own, *ends)
        for name in CONTRIBUTORS:
            self.demo.command("bind", "--yes", "--dir", str(self.root / name), *where, *self.keys(name), "--json")
        exported: dict[str, Any] = self.demo.command(
            "export", "--dir", str(self.seed.root), "--out", str(self.root / "model"), "--json"
        )
        say(self.console, "settle", f"epoch {exported['epoch']}, held-out loss {exported['loss']:.4f}; period final")
        return exported

    # -- the sale ---------------------------------------------------------------------------------------------------------
    def published(self) -> tuple[str, dict[str, Any]]:
        holders = (*STORERS, SILENT)
        cards = [self.demo.command("model", "hold", "--card", *self.keys(name), "--json")["card"] for name in holders]
        self.keys("data")
        made = self.demo.command(
            "model", "publish", str(self.root / "model"), "--out", str(self.root / "published"), "--run", str(self.run_dir),
            *self.rpc, *self.keys("organiser"), "--price", f"{PRICE}base", "--threshold", "2",
            *(option for card in cards for option in ("--holder", card)), "--contributors", PARTS["contributors"],
            "--data-owner", f"{self.wallets['data']}:{PARTS['data']}",
            *(option for name in STORERS for option in ("--storer", f"{self.wallets[name]}:{PARTS[name]}")), "--json",
        )  # fmt: skip
        say(self.console, "publish", f"model {made['model'][:24]}…, encrypted, for {PRICE} base units")
        return str(made["model"]), made

    def held(self, model: str, published: dict[str, Any]) -> tuple[dict[str, tuple[Running, str]], list[Running]]:
        """Two storers that hand the blocks out, and hold keys; a third one that puts up its bond and is not heard of again."""
        servers, holders = {}, []
        for name in (*STORERS, SILENT):
            self.give(name, PRICE)
            share = published["shares"][self.wallets[name]]
            hold = (
                "model",
                "hold",
                "--dir",
                str(self.root / f"{name}-keys"),
                "--share",
                share,
                *self.rpc,
                *self.keys(name),
            )
            if name == SILENT:
                self.demo.command(*hold, "--once")
                continue
            self.demo.command(
                "model",
                "fetch",
                model,
                *self.rpc,
                "--from",
                str(self.root / "published"),
                "--out",
                str(self.root / name),
                "--json",
            )
            holders.append(self.demo.start(f"{name}-keys", *hold, "--every", "1"))
            servers[name] = self._serving(name)
        self._until(lambda: all("put up" in item.last_words() for item in holders), holders[-1])
        self.chain.advance(1)
        say(
            self.console,
            "hold",
            f"{', '.join(STORERS)} store it; they and {SILENT} hold the key, two of three are needed",
        )
        return servers, holders

    def _serving(self, name: str) -> tuple[Running, str]:
        """Over libp2p, where that is installed, else over HTTP; with its address."""
        folder, listen = str(self.root / name), ("--listen", "127.0.0.1:0")
        if find_spec("libp2p") is None:
            item = self.demo.start(name, "gateway", folder, *listen, "--json")
            return item, str(self._said(item)["url"])
        item = self.demo.start(name, "ipfs", folder, *listen, "--key", str(self.root / f"{name}.key"))
        return item, str(self._said(item)["addresses"][0])

    def _said(self, item: Running) -> dict[str, Any]:
        """Its first line, as JSON."""
        self._until(lambda: bool(item.log.read_text(encoding="utf-8").strip()), item)
        found: dict[str, Any] = from_json(item.log.read_text(encoding="utf-8").splitlines()[0])
        return found

    def _until(self, is_so: Any, item: Running) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            if item.process.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"{item.name}: {item.last_words()}")
            time.sleep(0.1)

    def bought(self, model: str, servers: dict[str, tuple[Running, str]], holders: list[Running]) -> None:
        """By one command of the base install; the first storer is killed as soon as a key holder has delivered."""
        sources = [option for _, address in servers.values() for option in ("--from", address)]
        command = [
            "model",
            "buy",
            model,
            *self.rpc,
            *self.keys("buyer"),
            *sources,
            "--out",
            str(self.root / "bought"),
            "--json",
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", LIGHT, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        try:
            self._until(lambda: any("share delivered" in h.last_words() for h in holders), holders[0])
            self.demo.kill(servers[STORERS[0]][0])
            out, err = process.communicate(timeout=WAIT_SECONDS)
        finally:
            process.kill()
        if process.returncode:
            raise StartError(f"the buyer's command failed: {err.strip()[-400:]}")
        files = from_json(out)["files"]
        way = "HTTP" if find_spec("libp2p") is None else "libp2p"
        say(
            self.console,
            "buy",
            f"{len(files)} files opened and checked, by {way}; {STORERS[0]} was killed meanwhile, {SILENT} was silent",
        )
        for item in holders:
            self.demo.stop(item)

    def measured(self) -> dict[str, float]:
        """Loss of what was bought, of what was exported, and of the anchor in the seed's directory, on the same text."""
        text = self.root / "unseen.txt"
        text.write_bytes(b"".join(path.read_bytes() for path in sorted(Path(json.__file__).parent.glob("*.py"))))
        found = {}
        for name, folder in (("bought", "bought"), ("exported", "model"), ("anchor", "seed")):
            shown = self.demo.command(
                "evaluate", str(self.root / folder), "--data", str(text), "--samples", "64", "--json"
            )
            found[name] = float(shown["tuned"]["loss"])
        manifest = Manifest.parse((self.root / "bought" / "manifest.json").read_bytes())
        if len(set(found.values())) != 1 or manifest.lineage is None:
            raise StartError(f"what was bought is not what was trained: losses {found}")
        return found

    # -- the money --------------------------------------------------------------------------------------------------------
    def balance(self, account: str) -> int:
        return self.chain.balance_of(self.token, account)

    def paid(self, model: str) -> dict[str, int]:
        """What arrived at each, in base units, a day later, when the buyer can object no more."""
        self.chain.advance(DAY + 60)
        who = ("organiser", "data", *STORERS, *CONTRIBUTORS)
        before = {name: self.balance(self.wallets[name]) for name in who}
        for name in who:
            tables = ("--tables", str(self.root / "tables"), "--collect", "--json")
            self.demo.command("model", "earnings", model, *self.rpc, *self.keys(name), *tables)
        return {name: self.balance(self.wallets[name]) - before[name] for name in who}

    def expected(self, units: dict[str, int]) -> dict[str, int]:
        """By the split and the run's own books (units by wallet), in base units: each stretch of numbers modulo 10,000 is somebody's."""
        found, start = {}, 0
        for name in ("contributors", "data", *STORERS):
            bps = round(float(PARTS[name]) * 100)
            found[name] = share_of(PRICE, start, bps)
            start += bps
        found["organiser"] = share_of(PRICE, start, 10_000 - start)
        pot, total = found.pop("contributors"), sum(units.values())
        shares = {name: pot * units.get(self.wallets[name], 0) // total for name in CONTRIBUTORS}
        return found | shares | {"left in the pot": pot - sum(shares.values())}

    def report_of(
        self, model: str, exported: dict[str, Any], losses: dict[str, float], rows: dict[str, int]
    ) -> dict[str, Any]:
        """The table; StartError where it does not add up to the last base unit."""
        bonds = 3 * PRICE  # of the key holders, which are still at stake
        arrived = rows | {"left in the pot": self.balance(to_checksum(license_address())) - bonds}
        where = ("--run", str(self.run_dir), "--tables", str(self.root / "tables"), *self.rpc, "--json")
        units = {each["wallet"]: each["units"] for each in self.demo.command("rewards", *where)["accounts"]}
        expected = self.expected(units)
        table = Table("who", "units")
        for title in ("due by split and books", "arrived"):
            table.add_column(title, justify="right", overflow="fold")
        for name, amount in arrived.items():
            table.add_row(name, str(units.get(self.wallets.get(name, ""), "")), str(expected[name]), str(amount))
        table.add_row("all", str(sum(units.values())), str(PRICE), str(sum(arrived.values())))
        self.console.print(table)
        if arrived != {name: expected[name] for name in arrived} or sum(arrived.values()) != PRICE:
            raise StartError(f"the money does not add up to {PRICE}: {arrived}; by split and books {expected}")
        return {
            "model": model,
            "price": str(PRICE),
            "arrived": {name: str(amount) for name, amount in arrived.items()},
            "units": {name: units.get(self.wallets[name], 0) for name in CONTRIBUTORS},
            "losses": losses,
            "epoch": exported["epoch"],
        }


__all__ = ["MarketDemo", "run_market_demo"]
