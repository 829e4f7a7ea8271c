"""SIGKILL at each point of a round in each role, in one swarm of real processes that goes on throughout.

After each death: the others certify on, all hold the same anchors, and the dead peer comes back. At the end nobody has
signed two things for one subject or used a unit twice, whatever was journaled, sent or heard by anybody.
"""

import contextlib
import json
import os
import signal
from itertools import pairwise
from typing import Any

import psutil
import pytest

from incentives.checks import drawn_witnesses
from incentives.commitments import parse_body
from incentives.journal import SigningJournal
from incentives.ledger import Ledger
from peers.identity import open_identity
from peers.invite import Invite
from swarm.records.types import (
    KIND_ROUND,
    Average,
    Contribution,
    ContributionReceipt,
    Progress,
    Record,
    RoundCertificate,
    RoundVoid,
)
from tests.faults.swarm import PeerProcess, Swarm, until

SECONDS = 90.0
CASES = [
    ("mid-scatter", "initiator"),
    ("mid-scatter", "reducer"),
    ("mid-scatter", "contributor"),
    ("set", "initiator"),
    ("set", "reducer"),
    ("set", "contributor"),
    ("half-average", "initiator"),
    ("half-average", "reducer"),
    ("contribution", "contributor"),
    ("vote", "initiator"),
    ("half-vote", "contributor"),
    ("certificate", "reducer"),
    ("half-certificate", "initiator"),
    ("certificate", "contributor"),
]
SHORT = {  # each point once, and each role; the others of a point are `long`
    ("mid-scatter", "contributor"), ("set", "initiator"), ("half-average", "reducer"), ("contribution", "contributor"),
    ("vote", "initiator"), ("half-vote", "contributor"), ("certificate", "reducer"), ("half-certificate", "initiator"),
}  # fmt: skip
AWAY_LONG = ("set",)  # at the other points it comes back into the very round in which it has signed


def followed(peer: PeerProcess) -> dict[int, str]:
    """Epoch → certificate on the lineage that the peer follows."""
    found: dict[int, str] = {}
    for event in peer.events("Certified", "Undone"):
        if event["event"] == "Certified":
            found[event["epoch"]] = event["id"]
        else:
            found = {epoch: id for epoch, id in found.items() if id not in event["ids"]}
    return found


def check_agreement(swarm: Swarm) -> None:
    """One root per certificate, at once; one lineage, once fork choice is through."""
    roots: dict[str, str] = {}
    for peer in swarm.everyone():
        for event in peer.certified():
            assert roots.setdefault(event["id"], event["root"]) == event["root"]

    def agree() -> bool:
        lineages = {p.name: followed(p) for p in swarm.everyone()}
        reached = min(max(lineages[p.name]) for p in swarm.everyone() if p.alive)
        return all(
            len({lineage[epoch] for lineage in lineages.values() if epoch in lineage}) == 1
            for epoch in range(1, reached + 1)
        )

    until(agree, SECONDS, "one lineage")


def own_certified(peer: PeerProcess) -> set[str]:
    return {e["id"] for e in peer.certified() if e["own"]}


def newest_epoch(swarm: Swarm) -> int:
    return max(p.epoch() for p in swarm.everyone())


def is_in_a_new_certificate(peer: PeerProcess, epoch: int) -> None:
    """One after `epoch`: what it learns of only now may be of the round in which it died."""
    until(
        lambda: any(e["own"] and e["epoch"] > epoch for e in peer.certified()),
        SECONDS,
        f"{peer.name} is in a certificate after epoch {epoch}; {peer.log()}",
    )


@pytest.mark.parametrize(
    ("point", "role"), [pytest.param(*case, marks=() if case in SHORT else pytest.mark.long) for case in CASES]
)
def test_the_others_go_on_and_the_dead_peer_comes_back(swarm: Swarm, point: str, role: str) -> None:
    victim = swarm.play(f"{point}-{role}", point, role)
    dead = swarm.peer_of(victim["account"])
    assert swarm.runner.wait(dead.pid, 20.0) == -signal.SIGKILL
    before = newest_epoch(swarm)
    others = [p for p in swarm.everyone() if p.alive]
    if point not in AWAY_LONG:
        dead.start()
    until(lambda: all(p.epoch() >= before + 2 for p in others), SECONDS, f"certificates after {dead.name}'s death")
    if point in AWAY_LONG:
        dead.start()
    is_in_a_new_certificate(dead, newest_epoch(swarm))
    check_agreement(swarm)


@pytest.mark.long
def test_two_peers_then_one_then_two_certify(swarm: Swarm) -> None:
    alice, bob, carol = (swarm.peers[name] for name in ("alice", "bob", "carol"))

    def certify(*names: PeerProcess) -> None:
        accounts = sorted(p.account for p in names)
        seen = newest_epoch(swarm)
        until(
            lambda: any(e["epoch"] > seen and sorted(e["contributors"]) == accounts for e in alice.certified()),
            SECONDS,
            f"a certificate of {', '.join(p.name for p in names)} alone",
        )

    carol.kill()
    certify(alice, bob)
    bob.kill()
    certify(alice)
    bob.start()
    certify(alice, bob)
    carol.start()
    carol.wait_ready()
    carol.kill()  # as soon as it is ready
    carol.start()
    certify(alice, bob, carol)
    check_agreement(swarm)


@pytest.mark.parametrize(
    ("point", "role", "is_inside"),
    [
        ("vote", "contributor", True),
        pytest.param("vote", "reducer", None, marks=pytest.mark.long),
        pytest.param("mid-scatter", "any", False, marks=pytest.mark.long),
    ],
)
def test_of_four_voters_three_certify_the_round_in_which_one_dies(
    swarm: Swarm, point: str, role: str, is_inside: bool | None
) -> None:
    """Who votes has put its contribution into others' hands, but for a reducer: its own share of that is lost with it where not
    everybody has its averages yet (None). Then a later attempt goes without it."""
    dave = swarm.peers.get("dave") or swarm.add("dave")
    if not dave.alive:
        dave.start()
    dave.wait_ready()
    members = [swarm.peers[name] for name in ("alice", "bob", "carol", "dave")]
    four = {p.account for p in members}

    def all_are_voters() -> bool:
        newest = newest_epoch(swarm)
        last = [event for p in members for event in p.certified()[-1:]]
        return all(e["epoch"] == newest and set(e["contributors"]) == four for e in last)

    until(all_are_voters, SECONDS, "four contribute")
    victim = swarm.play(f"four-{point}-{role}", point, role)
    dead = swarm.peer_of(victim["account"])
    assert swarm.runner.wait(dead.pid, 20.0) == -signal.SIGKILL
    three = [p for p in members if p is not dead]
    until(lambda: all(p.epoch() >= victim["epoch"] + 2 for p in three), SECONDS, "two certificates of three voters")
    certified = {e["epoch"]: e for e in three[0].certified()}
    before, first, second = (certified[victim["epoch"] + n] for n in (-1, 0, 1))
    assert set(before["contributors"]) == four  # who is alive is not left out
    without = four - {dead.account}
    if is_inside is None and first["attempt"] > 0:
        assert set(first["contributors"]) in (four, without)
    else:
        assert set(first["contributors"]) == (without if is_inside is False else four)
    assert set(second["contributors"]) == without
    assert first["kind"] == second["kind"] == 0  # certified by the quorum, not seated anew after a stall
    assert first["signatures"] == 3
    dead.start()
    is_in_a_new_certificate(dead, newest_epoch(swarm))
    check_agreement(swarm)
    dave.terminate()


@pytest.mark.long
def test_the_supervisor_starts_a_killed_peer_again_and_ctrl_c_ends_both(swarm: Swarm) -> None:
    bob = swarm.peers["bob"]
    bob.terminate()
    bob.directory.ready.unlink()
    log = bob.directory.root / "supervised.log"
    bob.pid = swarm.runner.start("join", "--dir", str(bob.directory.root), "--quiet", log=log)
    bob.wait_ready(SECONDS)
    first = json.loads(bob.directory.ready.read_text())["pid"]
    os.kill(first, signal.SIGKILL)

    def again() -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads(bob.directory.ready.read_text())["pid"]) - first
        return 0

    until(again, SECONDS, f"bob is started again; {log.read_text()}")
    assert "starting it again, 1 of" in log.read_text()
    is_in_a_new_certificate(bob, newest_epoch(swarm))
    second = json.loads(bob.directory.ready.read_text())["pid"]
    assert bob.terminate(signal.SIGINT) < 10.0
    assert not psutil.pid_exists(second)
    bob.start()
    bob.wait_ready(SECONDS)


@pytest.mark.parametrize(
    ("number", "hangs"),
    [(signal.SIGTERM, False), pytest.param(signal.SIGINT, False, marks=pytest.mark.long), (signal.SIGTERM, True)],
)
def test_a_peer_leaves_within_10_seconds_and_takes_up_where_it_left(swarm: Swarm, number: int, hangs: bool) -> None:
    bob = swarm.peers["bob"]
    claim = swarm.set_script("hung-close", "hung-close", "any") if hangs else None
    assert bob.terminate(number) < 10.0
    assert claim is None or claim.exists()  # its network did hang
    last = bob.events("UnitDone")[-1]["unit"]
    starts = len(bob.events("UnitDone"))
    bob.start()
    until(lambda: len(bob.events("UnitDone")) > starts, SECONDS, "bob trains again")
    said = (bob.directory.root / "peer.log").read_text()[-2000:]
    assert bob.events("UnitDone")[starts]["unit"] == last + 1, said
    is_in_a_new_certificate(bob, newest_epoch(swarm))


def test_a_peer_without_a_listening_address_trains_votes_and_is_paid(swarm: Swarm) -> None:
    dora = swarm.add("dora", "client_mode = true\n")
    until(lambda: len(own_certified(dora)) >= 4, SECONDS, f"dora is in four certificates; {dora.log()}")
    account = bytes.fromhex(dora.account[2:])

    def paid_and_voted() -> bool:
        with Ledger.read(swarm.seed.directory.ledger) as ledger:
            certificates = [
                c for c in ledger.certificates() if account in (x.peer for x in parse_body(c.body).contributors)
            ]
            voted = any(account in (a for a, _ in s) for c in certificates for s in c.signatures.values())
            return voted and sum(is_paid(ledger, c.id, account) for c in certificates) >= 2

    def is_paid(ledger: Ledger, certificate: bytes, peer: bytes) -> bool:
        known = ledger.certificate(certificate)
        assert known is not None
        witnesses = drawn_witnesses(parse_body(known.body), peer, 1)
        return any(
            r.peer == peer and witnesses and {peer, *witnesses} <= {a for a, _ in r.signatures}
            for r in ledger.receipts(certificate)
        )

    until(paid_and_voted, SECONDS, "the seed's ledger holds dora's vote and witnessed receipts of hers")


def subject(record: Record) -> tuple[Any, ...]:
    """What may be signed once only, said here apart from the journal's own words for it."""
    kind = type(record).__name__
    if isinstance(record, ContributionReceipt):
        return (kind, record.peer, record.contribution)
    if isinstance(record, Contribution):
        return (kind, record.epoch, record.prev_certificate)
    assert not isinstance(record, Progress)
    if isinstance(record, RoundVoid) or (isinstance(record, RoundCertificate) and record.kind == KIND_ROUND):
        kind = "decision"
    part = record.part if isinstance(record, Average) else 0
    return (kind, record.epoch, record.attempt, record.prev_certificate, part)


def test_nobody_has_signed_two_things_for_one_subject_or_used_a_unit_twice(swarm: Swarm) -> None:
    for peer in swarm.everyone():
        if peer.alive:
            peer.terminate()
    invite = Invite.decode(swarm.seed.directory.invite.read_text())
    said: dict[tuple[bytes, tuple[Any, ...]], Record] = {}
    for peer in swarm.everyone():
        for signed in peer.messages():
            if not isinstance(signed.record, Progress):
                known = said.setdefault((signed.signer, subject(signed.record)), signed.record)
                assert known == signed.record
        identity = open_identity(peer.directory)
        with SigningJournal(peer.directory.journal) as journal:
            units: list[tuple[int, int]] = []
            for record, _, _ in identity.notary(invite.binding.domain(), journal).replay_records():
                known = said.setdefault((identity.account, subject(record)), record)
                assert known == record
                if isinstance(record, Contribution):
                    units.append((record.first_unit, record.first_unit + record.units))
            units.sort()
            assert all(end <= begin for (_, end), (begin, _) in pairwise(units))
    assert len(said) > 1000
