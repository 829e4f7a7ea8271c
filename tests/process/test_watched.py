"""An honest swarm whose organiser steals: each peer shouts while the window is open, and goes on training."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from incentives.chain.settlement import SettlementContract
from incentives.closing import proposal_of
from incentives.devchain import DevChain, find_tool
from incentives.keys import load_key, load_password, parse_address
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import CertificateRow, Tables
from tests.process.machines import SMALL
from tests.process.test_two_seeds import advice, status
from tests.terminal import Terminal, until

pytestmark = pytest.mark.timeout(400)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[DevChain]:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    with DevChain(log=tmp_path / "anvil.log") as made:
        yield made


def steal(chain: DevChain, cwd: Path) -> None:
    """As the organiser, by its key alone: all that was certified so far, and every unit of it to a key that never worked."""
    described = json.loads((cwd / "run" / "chain.json").read_text())
    contract = SettlementContract(chain.chain(), parse_address(described["settlement"]))
    state = contract.state()
    last = min(4, status(cwd / "alice")["epoch"])
    rows = tuple(CertificateRow(epoch, bytes([epoch]) * 32, b"\x01" * 32) for epoch in range(1, last + 1))
    payment = payment_of(
        (),
        [PaidReceipt(b"\x77" * 20, last, 999, b"\x66" * 32, b"\x67" * 32)],
        state.budget_amount,
        state.unit_price_amount,
    )
    tables = Tables(
        state.run_id, state.chain_id, state.settlement, 0, last, state.budget_amount, state.unit_price_amount, rows,
        payment.receipts, payment.payouts,
    )  # fmt: skip
    keys = cwd / "run" / "keys"
    key = load_key(keys / "organiser.json", load_password(keys / "organiser.password"))
    contract.propose(key, proposal_of(tables, payment.paid_amount, 0), 0)


def test_every_peer_shouts_of_a_theft_while_the_window_is_open(chain: DevChain, tmp_path: Path) -> None:
    with Terminal(tmp_path / "home", RPC=chain.rpc) as terminal:
        cwd = terminal.cwd
        made = terminal.run(
            f"sparehive run new run --preset demo {SMALL}\n"
            "sparehive wallet --keystore run/keys/organiser.json --password-file run/keys/organiser.password"
        )
        chain.give_gas(_ADDRESS.findall(made)[-1])
        terminal.run(
            "sparehive run deploy run --rpc $RPC --test-token --window 3600\n"
            "sparehive run fund run --rpc $RPC --amount 1000"
        )
        for name in ("seed", "alice", "bob"):
            (cwd / name).mkdir()
            (cwd / name / "peer.toml").write_text(
                'host = "127.0.0.1"\nwatch_seconds = 1.0\nstep_pause_seconds = 0.02\n'
            )
        seed = terminal.start("exec sparehive seed run --dir seed --invite-rpc $RPC")
        until(lambda: (cwd / "seed" / "ready.json").exists(), 120.0, seed.output)
        alice = terminal.start("exec sparehive join seed/invite.txt --dir alice --rpc $RPC")  # its own node
        bob = terminal.start("exec sparehive join seed/invite.txt --dir bob")  # the one of the invite
        until(lambda: status(cwd / "alice").get("epoch", 0) >= 4, 150.0, alice.output)
        for name, job in (("alice", alice), ("bob", bob)):
            until(lambda name=name: watched(cwd / name), 60.0, job.output)  # type: ignore[misc]
            assert status(cwd / name)["warning"] == "", "nothing is proposed"
            assert not {"nobody-watches", "watch-fails"} & advice(cwd / name).keys()
        steal(chain, cwd)
        for name, job in (("alice", alice), ("bob", bob)):
            until(lambda name=name: status(cwd / name).get("warning"), 90.0, job.output)  # type: ignore[misc]
            said = status(cwd / name)["warning"]
            assert "the proposal of period 0 is not what your own ledger gives: it pays 999 units in 1 receipts" in said
            assert "claim what is final now (`sparehive claim`)" in said
            until(lambda job=job: "WARNING: the proposal of period 0 is not" in job.output(), 20.0, job.output)  # type: ignore[misc]
        epoch = status(cwd / "alice")["epoch"]
        until(lambda: status(cwd / "alice")["epoch"] > epoch, 60.0, alice.output)  # it goes on
        asked = terminal.start("sparehive rewards --dir alice --rpc $RPC")
        asked.process.wait(60)
        assert asked.process.returncode == 1 and "WARNING: the proposal of period 0 is not what" in asked.output()
        assert alice.stop() == 4, alice.output()
        assert "\nleft at epoch" in alice.output() and alice.output().count("WARNING: ") == 2
        assert bob.stop() == 4 and seed.stop() == 4


def watched(directory: Path) -> Any:
    return status(directory).get("watched_time")
