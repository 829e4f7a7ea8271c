"""Whatever lies in a peer's directory: it heals, or is one line that names the file; never a traceback, and nothing is lost."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import damages
from tests.faults.damage import command, copied, line_of, open_as_a_peer
from tests.faults.swarm import PeerProcess, Runner, Swarm, until
from tests.faults.test_sigkill import SECONDS, newest_epoch


@pytest.fixture(scope="module")
def left(swarm: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a peer that certified rounds and has left cleanly."""
    peer = swarm.peers["carol"] if swarm.peers["carol"].alive else swarm.add("dora")
    peer.wait_ready()
    epoch = newest_epoch(swarm)
    until(lambda: peer.epoch() > epoch + 1, SECONDS, "it certifies rounds")
    peer.terminate()
    kept = tmp_path_factory.mktemp("left") / "peer"
    shutil.copytree(peer.directory.root, kept)
    peer.start()
    peer.wait_ready()
    return kept


def one_of_each(root: Path) -> list[Path]:
    """Every file of the directory; of those that are alike, the first."""
    found: dict[str, Path] = {}
    for path in sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file()):
        alike = len(path.parts) > 1 and path.parts[0] not in ("keys", "data")
        found.setdefault(str(path.parent if alike else path), path)
    return [path for path in found.values() if path.name != "seen.txt"]


def run_copy(runner: Runner, root: Path, tmp_path: Path) -> tuple[int, str]:
    """Exit status and output of the peer's own process, which must end by itself."""
    log = tmp_path / "output"
    log.unlink(missing_ok=True)
    status = runner.wait(runner.start("peer", "join", str(root), "--quiet", log=log), 60.0)
    return status, log.read_text()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["lost", "cut", "flipped"])
def test_a_peer_without_its_journal_does_not_sign_on(runner: Runner, left: Path, tmp_path: Path, share: float) -> None:
    with copied(left, tmp_path / "copy") as directory:
        whole = directory.journal.read_bytes()
        cut = whole[: int(len(whole) * share)]
        if share == 1.0:
            cut = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
        directory.journal.write_bytes(cut)
        if not share:
            directory.journal.unlink()
        status, said = run_copy(runner, directory.root, tmp_path)
        assert status == 3, said  # the supervisor starts none of these again
        assert said.count("\n") == 1 and f"journal {directory.journal}" in said and "--dir ANOTHER" in said
        assert (directory.root / "peer.log").read_text().rstrip().endswith(said.removeprefix("sparehive: ").rstrip())
        if share:
            assert directory.journal.read_bytes() == cut


def test_a_damaged_identity_is_one_line_and_no_restart(runner: Runner, left: Path, tmp_path: Path) -> None:
    with copied(left, tmp_path / "copy") as directory:
        damages.flip(0.5)(directory.identity)
        status, said = run_copy(runner, directory.root, tmp_path)
        assert (status, said.count("\n")) == (3, 1) and f"{directory.identity} is damaged" in said


@pytest.fixture
def mended(swarm: Swarm) -> Iterator[PeerProcess]:
    """A peer that has left, in its own directory."""
    peer = swarm.peers["bob"]
    if peer.alive:
        peer.terminate()
    yield peer
    if not peer.alive:
        peer.start()
    peer.wait_ready()


def test_a_flipped_bit_in_the_text_is_fetched_again(mended: PeerProcess) -> None:
    (path,) = mended.directory.data.iterdir()
    whole = path.read_bytes()
    damages.flip(0.4)(path)
    for block in mended.directory.blocks.iterdir():  # the text's own blocks are damaged, too: others have them
        if whole[:1000] in block.read_bytes():
            damages.flip(0.4)(block)
    mended.start()
    mended.wait_ready()
    assert path.read_bytes() == whole
    assert f"{path} is not the file that the run agreed on" in (mended.directory.root / "peer.log").read_text()


def test_a_reader_beside_a_running_peer_removes_nothing(runner: Runner, swarm: Swarm, tmp_path: Path) -> None:
    directory = swarm.peers["alice"].directory
    parts = [directory.contributions / "x.part", directory.blocks / "y.part", directory.archive / "states" / "z.part"]
    for part in parts:
        part.write_bytes(b"being written")
    try:
        log = tmp_path / "output"
        runner.wait(runner.start("run", "replay", "--dir", str(directory.root), log=log), 60.0)
        assert "sparehive: [" not in log.read_text() and "Traceback" not in log.read_text()
        assert all(part.exists() for part in parts)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def test_who_reached_its_last_epoch_says_so_and_goes_on_the_next_time(
    runner: Runner, swarm: Swarm, mended: PeerProcess
) -> None:
    config = mended.directory.config
    before = config.read_text()
    config.write_text(before + f"stop_after_epoch = {newest_epoch(swarm) + 2}\n")
    try:
        mended.start()
        assert runner.wait(mended.pid, SECONDS) == 0, mended.log()
        log = (mended.directory.root / "peer.log").read_text()
        assert "is certified, after which it was to stop" in log.splitlines()[-1]
        mended.start()
        mended.wait_ready()
        epoch = newest_epoch(swarm)
        until(lambda: mended.epoch() > epoch + 1, SECONDS, f"it goes on; {mended.log()}")
        mended.terminate()
        assert "stopped by SIGTERM" in (mended.directory.root / "peer.log").read_text().splitlines()[-1]
    finally:
        config.write_text(before)


REMEDY = re.compile(
    r"\b(restore|move|remove|copy|mend|choose|join with|ask for|give the|write the|chmod)\b", re.IGNORECASE
)


def says_what_to_do(line: str, root: Path) -> bool:
    """Beside the names of files, in which such a word may stand, too."""
    return REMEDY.search(line.replace(str(root), "")) is not None


@pytest.mark.parametrize(
    "how",
    [
        damages.empty, damages.half, damages.flip(0.0), damages.flip(0.4), damages.other_version, damages.deep, damages.missing,
        damages.folder,
    ],
    ids=lambda how: how.__name__,
)  # fmt: skip
def test_every_file_heals_or_is_named(left: Path, tmp_path: Path, how: damages.Damage) -> None:
    paths = one_of_each(left)
    assert len(paths) >= 20
    wrong = []
    for path in paths:
        for work in (open_as_a_peer, command("run", "replay"), command("export", "--out", tmp_path / "out")):
            if work is not open_as_a_peer and str(path) not in ("invite.txt", "ledger.sqlite"):
                continue
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            with copied(left, tmp_path / "copy") as directory:
                how(directory.root / path)
                line = line_of(work, directory)  # raises what would be a traceback
            named = line is None or path.name in line or work is not open_as_a_peer
            if not named or (line is not None and ("\n" in line or not says_what_to_do(line, directory.root))):
                wrong.append((str(path), line))
    assert wrong == []
