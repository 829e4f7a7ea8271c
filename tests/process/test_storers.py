"""Storers beside trainers, all of them processes: drawn, repaired when one is killed, witnessed, and in everybody's books."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from incentives.errors import IncentivesError
from incentives.evidence import SignedStorageReceipt
from incentives.keys import key_account
from incentives.ledger import Ledger
from incentives.storage import storage_witnesses
from peers.directory import PeerDirectory
from peers.history import round_body
from peers.storage import storage_rules
from swarm.checkpoint.segments import content_order, segments_root
from swarm.checkpoint.unixfs import cid_text
from swarm.config import RunConfig, dump_run, load_run
from tests.faults.swarm import LOCAL, REPOSITORY, Runner, Swarm, until


@dataclass
class StorerProcess:
    """As `sparehive store` starts it, without its supervisor."""

    directory: PeerDirectory
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "peers.storing.process", "--", str(self.directory.root)]
        output = open(self.directory.root.with_suffix(".output"), "ab")  # noqa: SIM115 (the child's)
        with output:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, start_new_session=True, stdout=output, stderr=output
            )

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.directory.status.read_text())
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def account(self) -> bytes:
        found = key_account(self.directory.hot_key)
        assert found is not None
        return found

    def holds(self) -> bool:
        return bool(self.status().get("stored_objects"))

    def end(self, number: int) -> int:
        """Exit status; nothing of it is left."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(20.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _list_data(run: Path) -> RunConfig:
    """The run pays two storers for its data, as its organiser lists it."""
    config = load_run(run / "run.toml")
    files = content_order(path.name for path in (run / "data").iterdir())
    root, size = segments_root((run / "data" / name).read_bytes() for name in files)
    listed = {"cid": cid_text(bytes.fromhex(config.task.data.root)), "bytes": size, "segments_root": root.hex()}
    storage = {"price_amount": "3", "replicas": 2, "objects": [listed]}
    made = RunConfig.parse(config.model_dump(mode="json") | {"storage": storage})
    dump_run(made, run / "run.toml")
    return made


def _receipts(directory: PeerDirectory, storer: bytes, after: int = 0) -> list[tuple[SignedStorageReceipt, set[bytes]]]:
    """Of epochs after one, in the books of a peer; each with who has to co-sign it."""
    with contextlib.suppress(OSError, IncentivesError), Ledger.read(directory.ledger) as ledger:
        found = []
        for _, identity in ledger.way_back(ledger.tip() or b""):
            certificate = ledger.certificate(identity)
            if certificate is None or certificate.epoch <= after:
                break
            electorate = round_body(certificate.body).electorate
            drawn = set(storage_witnesses(electorate, identity, storer, 1))
            found += [(receipt, drawn) for receipt in ledger.storage_receipts(identity, storer)]
        return found
    return []


def _cosigned(directory: PeerDirectory, storer: bytes, after: int = 0) -> int:
    return sum(
        {storer, *drawn} <= {signer for signer, _ in receipt.signatures}
        for receipt, drawn in _receipts(directory, storer, after)
        if drawn
    )


@pytest.fixture
def storers(tmp_path: Path) -> Iterator[tuple[Swarm, list[StorerProcess]]]:
    with Runner() as runner:
        swarm = Swarm(runner, tmp_path, 0.1, **{"inner.steps_per_unit": "1", "rounds.min_seated": "2"})
        _list_data(swarm.run)
        swarm.seed.start()
        swarm.seed.wait_ready()
        for name in ("alice", "bob"):
            swarm.add(name)
        made = []
        for number in range(3):
            storer = StorerProcess(PeerDirectory(tmp_path / f"storer-{number}"))
            storer.directory.root.mkdir()
            storer.directory.config.write_text(LOCAL + "stores = true\n")
            storer.directory.invite.write_text(swarm.seed.directory.invite.read_text())
            storer.start()
            made.append(storer)
        try:
            yield swarm, made
        finally:
            for storer in made:
                if storer.process is not None and storer.process.poll() is None:
                    storer.end(signal.SIGKILL)


@pytest.mark.long
def test_drawn_storers_keep_show_and_repair(storers: tuple[Swarm, list[StorerProcess]]) -> None:
    swarm, made = storers
    alice = swarm.peers["alice"]
    rules = storage_rules(load_run(swarm.run / "run.toml"))
    assert rules is not None and rules.replicas == 2
    until(lambda: all(s.status().get("storers") == 3 for s in made), 120.0, "the storers know each other")
    until(lambda: sum(s.holds() for s in made) == 2, 60.0, "two of three have what the run lists")
    holders, spare = [s for s in made if s.holds()], next(s for s in made if not s.holds())

    # co-signed by the drawn witness, in the books of trainers, seed and storers
    for storer in holders:
        for books in (alice.directory, swarm.seed.directory, spare.directory):
            until(lambda b=books, s=storer: _cosigned(b, s.account) >= 2, 60.0, "its receipts are witnessed")  # type: ignore[misc]
    assert not _receipts(alice.directory, spare.account), "who stores nothing shows nothing"
    assert "torch" not in Path(f"/proc/{holders[0].process.pid}/maps").read_text()  # type: ignore[union-attr]

    # one is killed: the next fetches its copy within a minute, and is witnessed from then on
    holders[0].end(signal.SIGKILL)
    killed_at = alice.epoch()
    until(spare.holds, 60.0, "the next repairs it")
    until(lambda: _cosigned(alice.directory, spare.account) >= 1, 60.0, "it is witnessed, too")
    until(lambda: alice.epoch() >= killed_at + 5, 60.0, "training goes on")
    assert not _receipts(alice.directory, holders[0].account, killed_at + 2), "who is gone shows nothing more"

    # it stops when it is asked to, loses its bytes, and has nothing to show until others have given it them again
    assert spare.end(signal.SIGTERM) == 0
    blocks = list(spare.directory.blocks.iterdir())
    assert len(blocks) >= 2
    for block in blocks:
        block.unlink()
    spare.directory.status.unlink()
    spare.start()
    until(spare.holds, 60.0, "it has them again")
    back_at = alice.epoch()
    until(lambda: _cosigned(alice.directory, spare.account, back_at) >= 1, 60.0, "it is witnessed again")
