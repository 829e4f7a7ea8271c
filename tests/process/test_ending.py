"""A run of real peers reaches its end: they write the last state, leave by themselves, are paid; who comes later gets the model."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from incentives.checks import drawn_witnesses
from incentives.closing import payable_after
from incentives.commitments import parse_body
from incentives.ledger import Ledger
from peers.invite import Invite
from peers.leaving import EXIT_FINISHED
from peers.status import PeerStatus
from tests.faults.swarm import PeerProcess, Runner, Swarm, until

pytestmark = pytest.mark.timeout(240)
TOTAL, EPOCH = 46, 20  # what is left after two epochs is far less than one


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as made:
        yield made


@pytest.fixture(scope="module")
def ended(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Swarm:
    """Three peers, started as the supervisor starts them; two have ended by themselves, the third is to serve."""
    length = {
        "inner.total_units": str(TOTAL),
        "inner.warmup_units": "3",
        "rounds.units_per_epoch": str(EPOCH),
        "rounds.epoch_deadline_seconds": "300.0",  # the last epoch ends because its units are all that is left
    }
    swarm = Swarm(runner, tmp_path_factory.mktemp("ending"), 0.05, **length)
    swarm.seed.start()
    swarm.seed.wait_ready()
    for name, after in (("alice", "leave"), ("bob", "auto"), ("carol", "serve")):
        swarm.add(name, f'after_end = "{after}"\n', kind="peer")
    leavers = [swarm.peers[name] for name in ("alice", "bob")]
    until(lambda: not any(p.alive for p in leavers), 150.0, "two peers end by themselves")
    until(
        lambda: all(p.events("Finished") and last_status(p).phase == "finished" for p in swarm.everyone()),
        30.0,
        "all say so",
    )
    return swarm


def last_status(peer: PeerProcess) -> PeerStatus:
    return PeerStatus.read(peer.directory.status)


def test_they_leave_with_status_0_and_hold_the_same_last_state(ended: Swarm) -> None:
    for peer in ended.peers.values():
        serves = peer.name == "carol"
        assert ended.runner.status(peer.pid) == (None if serves else 0), peer.log()
        (finished,) = peer.events("Finished")
        assert last_status(peer).phase == "finished"
        assert serves or last_status(peer).ended.startswith(f"the run is finished (epoch {finished['epoch']}, ")
        assert (last_status(peer).total_units, last_status(peer).ends_in_seconds) == (TOTAL, 0.0)
        assert peer.epoch() == finished["epoch"], "nothing is certified after it"
    assert len({p.events("Finished")[0]["root"] for p in ended.everyone()}) == 1


def test_what_was_certified_is_within_one_epoch_of_the_plan_and_paid_where_it_was_witnessed(ended: Swarm) -> None:
    seed = ended.seed
    (finished,) = seed.events("Finished")
    rounds = [event for event in seed.certified() if event["units"]]
    assert TOTAL <= finished["units"] < TOTAL + max(event["units"] for event in rounds)
    assert finished["units"] - rounds[-1]["units"] < TOTAL, "the last one was needed"
    invite = Invite.of_file(seed.directory.invite)

    def missing() -> list[tuple[bytes, int]]:
        """Who contributed with a witness, and has no payable receipt of it yet: by account and epoch."""
        rules = invite.pay_rules()
        with Ledger.read(seed.directory.ledger) as ledger:
            certificates, receipts = payable_after(ledger, rules, -1)
        paid = {(receipt.account, receipt.epoch) for receipt in receipts}
        assert paid
        bodies = [(each.epoch, parse_body(each.body)) for each in certificates]
        due = {
            (leaf.peer, epoch)
            for epoch, body in bodies
            for leaf in body.contributors
            # a reducer that has nothing to contribute that round witnesses nothing
            if leaf.units and drawn_witnesses(body, leaf.peer, rules.witnesses)
        }
        assert paid <= due
        return sorted(due - paid)

    until(lambda: not missing(), 15.0, "the seed has written the last receipts")


def test_a_newcomer_is_told_and_exports_the_model_that_a_peer_serves(ended: Swarm, tmp_path: Path) -> None:
    """The seed stayed, too; it is stopped, so that the peer alone is there. Nobody has the text any more, and it is not needed."""
    seed, carol = ended.seed, ended.peers["carol"]
    assert seed.alive and last_status(seed).phase == "finished"
    (finished,) = seed.events("Finished")
    seed.terminate()
    (address, *_) = last_status(carol).addresses
    (carol.directory.blocks / Invite.of_file(seed.directory.invite).config.task.data.text.sha256).unlink()
    late = ended.add("late", f"peers = [{json.dumps(address)}]\n", kind="peer")
    assert ended.runner.wait(late.pid, 90.0) == EXIT_FINISHED, late.log()
    told = [line for line in late.log().splitlines() if "finished" in line]
    (line,) = told
    assert not (late.directory.data / "text.txt").exists()
    assert line.startswith(
        f"sparehive: the run is finished (epoch {finished['epoch']}, {finished['units']} of {TOTAL} units"
    )
    assert f"sparehive export --dir {late.directory.root} --out model" in line
    out = tmp_path / "model"
    pid = ended.runner.start(
        "export", "--dir", str(late.directory.root), "--out", str(out), "--json", log=tmp_path / "export.log"
    )
    assert ended.runner.wait(pid, 60.0) == 0, (tmp_path / "export.log").read_text()
    said = json.loads((tmp_path / "export.log").read_text().splitlines()[-1])
    assert (said["epoch"], said["root"]) == (finished["epoch"], finished["root"])
    assert (out / "model.safetensors").is_file()


def test_who_comes_back_after_the_end_is_told_so_and_leaves(ended: Swarm) -> None:
    alice = ended.peers["alice"]
    alice.start()
    assert ended.runner.wait(alice.pid, 60.0) == 0, alice.log()
    assert last_status(alice).ended.startswith("the run is finished")
    assert alice.epoch() == ended.seed.epoch()
    assert ended.peers["carol"].alive
    ended.peers["carol"].terminate()
