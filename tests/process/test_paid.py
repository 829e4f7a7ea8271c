"""A swarm that is paid: an earner's whole way to a wallet that never held the chain's coin; and an organiser that steals, of which each
peer shouts while the window is open, and goes on training."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from incentives.chain.settlement import SettlementContract
from incentives.closing import proposal_of
from incentives.devchain import DevChain, find_tool
from incentives.keys import load_key, load_password, parse_address
from incentives.publication import find_tables
from incentives.rewards import PaidReceipt, payment_of
from incentives.tables import CertificateRow, Tables
from tests.process.machines import SMALL
from tests.process.test_two_seeds import advice, status
from tests.terminal import Job, Terminal, until

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
PACE = 'host = "127.0.0.1"\nwatch_seconds = 1.0\nstep_pause_seconds = 0.1\n'
PAYER = "--keystore run/keys/organiser.json --password-file run/keys/organiser.password"


@dataclass
class Swarm:
    """A deployed run with a seed that names a node in its invite, and a volunteer with a node of its own."""

    chain: DevChain
    terminal: Terminal
    seed: Job
    alice: Job
    earner: Job | None = None

    @property
    def cwd(self) -> Path:
        return self.terminal.cwd


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    root = tmp_path_factory.mktemp("paid")
    with DevChain(log=root / "anvil.log") as chain, Terminal(root / "home", RPC=chain.rpc) as terminal:
        made = terminal.run(f"sparehive run new run --preset demo {SMALL}\nsparehive wallet {PAYER}")
        chain.give_gas(_ADDRESS.findall(made)[-1])
        terminal.run(
            "sparehive run deploy run --rpc $RPC --test-token --window 3600\n"
            "sparehive run fund run --rpc $RPC --amount 1000"
        )
        for name in ("seed", "alice", "earner/sparehive-peer"):
            (terminal.cwd / name).mkdir(parents=True)
            (terminal.cwd / name / "peer.toml").write_text(PACE)
        seed = terminal.start("exec sparehive seed run --dir seed --invite-rpc $RPC")
        until(lambda: (terminal.cwd / "seed" / "ready.json").exists(), 120.0, seed.output)
        yield Swarm(chain, terminal, seed, terminal.start("exec sparehive join seed/invite.txt --dir alice --rpc $RPC"))


def test_an_earner_is_paid_by_four_commands_into_a_wallet_that_never_held_coin(swarm: Swarm) -> None:
    cwd, terminal = swarm.cwd, swarm.terminal
    peer = cwd / "earner" / "sparehive-peer"
    swarm.earner = earner = terminal.start("cd earner; exec sparehive join ../seed/invite.txt")  # 1
    until(lambda: status(peer).get("epoch", 0) >= 5, 150.0, earner.output)
    keys = "--keystore wallet.json --password-file wallet.password"
    wallet = json.loads(terminal.run(f"cd earner; sparehive wallet {keys} --json"))["address"]  # 2
    terminal.run(  # 3
        f"cd earner; sparehive bind --yes --dir sparehive-peer --rpc $RPC {keys} --write-consent consent.json"
    )
    # What the run's organiser, or anybody with coin, does for all of them.
    terminal.run("sparehive settle --dir seed --run run --rpc $RPC")
    swarm.chain.advance(3601)
    gas = PAYER.replace("--", "--gas-")
    terminal.run(
        f"sparehive settle --run run --rpc $RPC --finalise\n"
        f"sparehive bind --run run --rpc $RPC --consent earner/consent.json {gas}\n"
        f"sparehive claim --run run --rpc $RPC --push {PAYER}"
    )
    said = json.loads(
        terminal.run("cd earner; sparehive rewards --dir sparehive-peer --rpc $RPC --tables ../tables --json")
    )  # 4
    row = said["accounts"][0]
    token = json.loads((cwd / "run" / "chain.json").read_text())["token"]
    assert (row["wallet"], row["claimable"]) == (wallet, "0")
    assert swarm.chain.balance_of(token, wallet) == int(row["claimed"]) > 0
    assert int(swarm.chain.request("eth_getBalance", wallet, "latest"), 16) == 0
    assert int(swarm.chain.request("eth_getTransactionCount", wallet, "latest"), 16) == 0


def steal(swarm: Swarm) -> int:
    """As the organiser, by its key alone: the next epoch, and every unit of it to a key that never worked. The period's number."""
    described = json.loads((swarm.cwd / "run" / "chain.json").read_text())
    contract = SettlementContract(swarm.chain.chain(), parse_address(described["settlement"]))
    state = contract.state()
    before = (
        ()
        if state.last is None
        else find_tables(swarm.cwd / "tables", state.last.tables_hash, state.last.number).payouts
    )
    last = state.settled_epoch + 1
    until(lambda: status(swarm.cwd / "alice")["epoch"] >= last, 60.0, swarm.alice.output)
    stolen = PaidReceipt(b"\x77" * 20, last, 999, b"\x66" * 32, b"\x67" * 32)
    payment = payment_of(before, [stolen], state.budget_amount, state.unit_price_amount)
    tables = Tables(
        state.run_id, state.chain_id, state.settlement, last - 1, last, state.budget_amount, state.unit_price_amount,
        (CertificateRow(last, b"\x01" * 32, b"\x01" * 32),), payment.receipts, payment.payouts,
    )  # fmt: skip
    keys = swarm.cwd / "run" / "keys"
    key = load_key(keys / "organiser.json", load_password(keys / "organiser.password"))
    contract.propose(key, proposal_of(tables, payment.paid_amount, state.num_periods), last - 1)
    return state.num_periods


def test_every_peer_shouts_of_a_theft_while_the_window_is_open(swarm: Swarm) -> None:
    cwd, alice = swarm.cwd, swarm.alice
    earner = swarm.earner or swarm.terminal.start("cd earner; exec sparehive join ../seed/invite.txt")
    peers = ((cwd / "alice", alice), (cwd / "earner" / "sparehive-peer", earner))
    for peer, job in peers:
        until(lambda peer=peer: watched(peer), 120.0, job.output)  # type: ignore[misc]
        assert status(peer)["warning"] == "", "nothing, or an honest period, was proposed"
        assert not {"nobody-watches", "watch-fails"} & advice(peer).keys()
    number = steal(swarm)
    shouted = f"WARNING: the proposal of period {number} is not"
    for peer, job in peers:
        until(lambda peer=peer: status(peer).get("warning"), 90.0, job.output)  # type: ignore[misc]
        said = status(peer)["warning"]
        assert (
            f"the proposal of period {number} is not what your own ledger gives: it pays 999 units in 1 receipts"
            in said
        )
        assert "claim what is final now (`sparehive claim`)" in said
        until(lambda job=job: shouted in job.output(), 20.0, job.output)  # type: ignore[misc]
    epoch = status(cwd / "alice")["epoch"]
    until(lambda: status(cwd / "alice")["epoch"] > epoch, 60.0, alice.output)  # it goes on
    asked = swarm.terminal.start("sparehive rewards --dir alice --rpc $RPC")
    asked.process.wait(60)
    assert asked.process.returncode == 1 and shouted in asked.output()
    jobs = (alice, earner, swarm.seed)
    codes = [job.stop() for job in jobs]
    # 1: it did not leave within ten seconds, on a machine that does too much else, and was killed
    assert 4 in codes and set(codes) <= {1, 4}, (codes, alice.output())
    for job, code in zip(jobs, codes, strict=True):
        assert code != 4 or job.output().count(shouted) == 2, "once when it is seen, and once in the last words"


def watched(directory: Path) -> Any:
    return status(directory).get("watched_time")
