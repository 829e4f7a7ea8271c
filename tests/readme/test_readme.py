"""What README and docs say is true: the organiser's walk runs in its order, links and tree lead somewhere, targets exist."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks import wan
from incentives.checks import parse_body
from incentives.devchain import DevChain, find_tool
from incentives.keys import key_account
from incentives.ledger import Ledger
from peers.directory import PeerDirectory
from peers.watching import ReceiptCount, read_terms
from tests.terminal import ROOT, Job, Terminal, until

README = (ROOT / "README.md").read_text()
WALK = (ROOT / "docs" / "organising.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_STEP = re.compile(r"<!-- test: (?P<how>[^>]*?) -->\n```bash\n(?P<script>.*?)```", re.DOTALL)
LINE = wan.LineRate(up_bits=200e6, down_bits=200e6, round_trip_seconds=0.004)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True)
class Step:
    """One block of the walk. how: "run", or "start" and perhaps ", until FILE" or ", until all end"."""

    how: str
    script: str


def steps() -> list[Step]:
    return [Step(found["how"], found["script"]) for found in _STEP.finditer(WALK)]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    with DevChain(log=tmp_path_factory.mktemp("anvil") / "log") as made:
        yield made


def test_every_bash_block_is_part_of_the_walk() -> None:
    assert WALK.count("```bash\n") == len(steps())


@pytest.mark.timeout(600)
@pytest.mark.long
def test_the_organisers_walk_from_a_new_run_to_a_paid_volunteer(chain: DevChain, tmp_path: Path) -> None:
    with machines(tmp_path / "wan", 3) as places, Terminal(tmp_path / "home", RPC=chain.rpc) as terminal:
        said, volunteers = walk(terminal, chain, places)
        wallet = key_account(terminal.cwd / "wallet.json")
        assert wallet is not None
        token = json.loads((terminal.cwd / "run" / "chain.json").read_text())["token"]
        status = json.loads(terminal.run("sparehive run status run --rpc $RPC --json"))
        assert chain.balance_of(token, wallet) == int(status["claimed"]) > 0, "the volunteer's wallet was paid"
        assert re.search(r"signatures of [1-9]\d* certificates and receipts are valid", said)
        seed = terminal.jobs[0]
        assert f"    sparehive join {(terminal.cwd / 'seed' / 'invite.txt').read_text().strip()}" in seed.output()
        for job in volunteers:
            assert job.process.returncode == 0, job.output()
            assert re.search(
                r"^left at epoch \d+ after [1-9]\d* units; [1-9]\d* receipts? co-signed", job.output(), re.M
            )
        for name in ("alice", "bob"):
            certified, paid = receipts(PeerDirectory(terminal.cwd / name))
            assert certified >= 6 and paid >= 0.95 * certified, f"{name}: {paid} receipts for {certified} contributions"
        assert (terminal.cwd / "model" / "config.json").is_file()
        assert seed.stop() in (0, 130)
        assert "the seed has stopped" in seed.output()
    left = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == [], "nothing keeps running"


@contextlib.contextmanager
def machines(directory: Path, count: int) -> Iterator[list[wan.Place]]:
    """So many computers with an address of their own each; what listens on 127.0.0.1 is reached by nobody else."""
    try:
        with wan.line(wan.build(directory), count, LINE) as places:
            yield places
    except wan.WanUnavailable as error:
        pytest.skip(f"no network namespaces here: {error}")


def walk(terminal: Terminal, chain: DevChain, places: list[wan.Place]) -> tuple[str, list[Job]]:
    """All steps in order, what is started each on a machine of its own; (what the commands said, the volunteers). Addresses get
    coin for gas as soon as they are shown."""
    said, waiting = "", []
    for step in steps():
        how, _, condition = step.how.partition(", until ")
        if how == "run":
            for command in re.split(r"\n(?=sparehive )", step.script):
                out = terminal.run(command)
                said += out
                if "sparehive wallet" in command:
                    chain.give_gas(_ADDRESS.findall(out)[0])
            continue
        assert how == "start", step
        job = terminal.start(step.script, places[len(terminal.jobs)].prefix)
        if condition and condition != "all end":
            path = terminal.cwd / condition
            until(lambda path=path, job=job: path.exists() or job.process.poll() is not None, 120.0, job.output)  # type: ignore[misc]
            assert path.exists(), job.output()
            continue
        waiting.append(job)
        if condition == "all end":
            until(
                lambda: all(j.process.poll() is not None for j in waiting),
                240.0,
                lambda: "\n".join(j.output() for j in terminal.jobs),
            )
    return said, waiting


def receipts(directory: PeerDirectory) -> tuple[int, int]:
    """(contributions with units that were certified, receipts of them that would be paid), by the peer's own ledger."""
    terms, own = read_terms(directory), key_account(directory.hot_key)
    assert terms is not None and own is not None
    with Ledger.read(directory.ledger) as ledger:
        tip = ledger.tip()
        assert tip is not None
        bodies = [parse_body(each.body) for each in ledger.lineage(tip, -1)]
    found = ReceiptCount(directory, terms, "0x" + own.hex()).read()
    assert found is not None
    return sum(leaf.peer == own and leaf.units > 0 for body in bodies for leaf in body.contributors), found[0]


def test_the_walk_takes_each_command_of_an_organiser_and_an_earner() -> None:
    script = "\n".join(step.script for step in steps())
    order = ("run new", "run deploy", "run fund", "seed", "join", "settle", "bind", "claim", "verify", "export")
    places = [script.index(f"sparehive {command} ") for command in order]
    assert places == sorted(places)


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_targets_they_name_exist() -> None:
    named = {d: set(re.findall(r"(?:^    |`)make ([a-z]+)", d.read_text(encoding="utf-8"), re.M)) for d in documents()}
    assert {"demo", "test"} <= named[ROOT / "README.md"]
    for target in sorted(set().union(*named.values())):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr


def test_make_test_runs_every_folder_of_tests() -> None:
    done = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    found = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert set(re.findall(r"tests/([a-z]+)", done.stdout)) == found


def test_what_it_shows_is_small_and_says_nothing_of_who_made_it() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", README)
    assert len(shown) >= 2
    for name in shown:
        data = (ROOT / name).read_bytes()
        assert len(data) < 150_000, name
        assert not re.search(rb"/(work|home|root|tmp|Users)/", data), name


def test_no_cell_of_it_waits_for_a_figure() -> None:
    assert re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b|\bTODO\b|\bTBD\b", README) == []


def test_their_links_lead_to_files_and_headings() -> None:
    for document in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if target.startswith(("http://", "https://")):
                continue
            name, _, heading = target.partition("#")
            path = (document.parent / name).resolve() if name else document
            assert path.exists(), f"{document.name}: {target}"
            if heading:
                assert heading in headings(path.read_text()), f"{document.name}: {target}"


def headings(text: str) -> list[str]:
    """Anchors as the usual renderers make them."""
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in found]


def test_its_tree_names_what_is_there() -> None:
    tree = ARCHITECTURE.split("## What lies where")[1].split("```")[1]
    base, named = "", []
    for line in tree.strip("\n").splitlines():
        names = line[:23].split()
        if line.startswith("  "):
            named += [base + name for name in names]
        else:
            named += names
            base = names[0] if names[0] in ("swarm/", "incentives/", "peers/") else ""
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []
    modules = [p for package in ("swarm", "incentives", "peers") for p in (ROOT / package).iterdir() if p.is_dir()]
    untold = [f"{p.parent.name}/{p.name}/" for p in modules if (p / "__init__.py").exists()]
    assert [name for name in untold if name not in named] == [], "a package without a remark"


def test_each_decision_is_in_the_index() -> None:
    directory = ROOT / "docs" / "decisions"
    index = (directory / "README.md").read_text()
    assert [p.name for p in directory.glob("0*.md") if p.name not in index] == []
