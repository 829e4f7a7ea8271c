"""Each circumstance in which work is unpaid, or nobody gets through, is told with its remedy; nothing is told when all is well."""

from dataclasses import fields, replace

from peers.advice import GRACE_SECONDS, Circumstances, Patience, advise
from peers.lateness import Lateness
from swarm.events import Certified, Contributed
from swarm.records.types import KIND_ROUND, KIND_SEATING, ZERO_HASH, Contribution, Signed
from tests.pure.small_lineage import PEERS, ROUND_BODY, ROUND_RECORD

WELL = Circumstances(
    is_seed=False,
    is_client=False,
    is_paid_run=True,
    port=4001,
    linked=3,
    others=2,
    witnesses=2,
    is_reachable=True,
    asked=2,
)
SEED = replace(WELL, is_seed=True, others=0, witnesses=0)
ADDRESS = "/ip4/203.0.114.7/tcp/4001/p2p/QmX"


def told(**changes: object) -> dict[str, str]:
    base = SEED if changes.pop("seed", False) else WELL
    return {each.code: each.text for each in advise(replace(base, **changes))}  # type: ignore[arg-type]


def test_nothing_where_all_is_well() -> None:
    assert told() == {}
    assert told(is_client=True, is_reachable=None, asked=0) == {}, "a client is paid by others' word"
    assert told(seed=True) == {}, "a seed trains nothing: it need not be paid"


def test_alone() -> None:
    text = told(others=0, witnesses=0)["alone"]
    assert "cannot be paid" in text and "invite" in text
    assert "paid" not in told(others=0, witnesses=0, is_paid_run=False)["alone"]


def test_nobody_here_can_witness() -> None:
    for changes in ({"is_client": True, "is_reachable": None}, {"is_reachable": False}, {"is_reachable": True}):
        text = told(witnesses=0, **changes)["no-witness"]
        assert "none of the 2 other peers" in text and "cannot be paid" in text and "reachable" in text
    assert "4001" in told(witnesses=0, is_reachable=False)["no-witness"]


def test_my_address_does_not_answer() -> None:
    assert "TCP port 4001" in told(is_reachable=False)["unreachable"]
    text = told(silent_addresses=(ADDRESS,), is_reachable=False)["announced-address-silent"]
    assert "/ip4/203.0.114.7/tcp/4001," in text and "--announce" in text


def test_a_small_memory_is_told_with_the_pieces_that_fit() -> None:
    text = told(smaller_pieces=2)["small-memory"]
    assert "pieces of 2 samples" in text and "--micro-batch 2" in text


def test_training_that_waits_for_data_is_told() -> None:
    assert "waits-for-data" not in told()
    assert "data_cache_bytes" in told(waits_for_data_seconds=3.0)["waits-for-data"]


def test_a_run_that_waits_for_more_peers_says_for_how_many() -> None:
    assert "once 1 more peer trains (rounds.min_seated" in told(missing_seats=1)["waits-for-peers"]
    assert "once 2 more peers train (" in told(seed=True, missing_seats=2)["waits-for-peers"]
    assert "waits-for-peers" not in told(others=0, witnesses=0, missing_seats=2), "alone says enough"


def test_the_first_who_joins_is_told_how_many_are_missing_too() -> None:
    alone = {"others": 0, "witnesses": 0, "missing_seats": 2}
    assert "begins once 2 more peers train" in told(**alone)["alone"]
    assert "begins" not in told(others=0, witnesses=0)["alone"], "it has begun"
    assert "begins" not in told(**alone, linked=0)["alone"], "who is linked to nobody cannot know"


def test_linked_to_nobody_says_why() -> None:
    text = told(linked=0, others=0, witnesses=0, problems={ADDRESS: "does not answer"})["no-link"]
    assert "cannot be paid" in text
    assert "/ip4/203.0.114.7/tcp/4001 does not answer" in text


def test_a_seed_is_told_of_an_invite_that_leads_nowhere() -> None:
    assert "invite" in told(seed=True, silent_addresses=(ADDRESS,))["invite-address-silent"]
    assert "another network" in told(seed=True, linked=0, self_silent_addresses=(ADDRESS,))["invite-address-unproven"]
    assert told(seed=True, linked=1, self_silent_addresses=(ADDRESS,)) == {}, "somebody got in"


def test_a_silent_daemon_is_told_at_once_and_what_comes_and_goes_is_not() -> None:
    patience = Patience()
    alone = replace(WELL, others=0, witnesses=0)
    assert patience.lasting(advise(alone), 0.0) == []
    assert patience.lasting(advise(WELL), 1.0) == []
    assert patience.lasting(advise(alone), 2.0) == []
    assert [a.code for a in patience.lasting(advise(alone), 2.0 + GRACE_SECONDS)] == ["alone"]
    assert [a.code for a in patience.lasting(advise(replace(WELL, daemon_silent_seconds=7.0)), 99.0)] == [
        "daemon-silent"
    ]


def test_nothing_of_pay_once_the_run_has_ended() -> None:
    alone = {"others": 0, "witnesses": 0, "is_reachable": False}
    assert told(**alone) and not told(**alone, has_ended=True)
    silent = {"seed": True, "silent_addresses": (ADDRESS,), "is_reachable": False}
    assert told(**silent) == told(**silent, has_ended=True), "newcomers are to get the model"


def test_work_that_comes_too_late_is_told_once_it_is_no_accident() -> None:
    assert "too-late" not in told(missed_rounds=2, contribute_seconds=30.0)
    text = told(missed_rounds=3, contribute_seconds=30.0)["too-late"]
    assert "the last 3 rounds" in text and "unpaid" in text and "30 s" in text
    assert "paid" not in told(missed_rounds=3, is_paid_run=False)["too-late"]
    assert "too-late" not in told(missed_rounds=9, has_ended=True)


def contributed(epoch: int) -> Contributed:
    zeros = {field.name: 0 if field.type is int or field.type == "int" else bytes(32) for field in fields(Contribution)}
    return Contributed(Signed(Contribution(**(zeros | {"epoch": epoch})), PEERS[0], bytes(65)))  # type: ignore[arg-type]


def certified(epoch: int, own: bool, kind: int = KIND_ROUND, contributors: int = 2) -> Certified:
    certificate = replace(ROUND_RECORD, epoch=epoch, kind=kind, num_contributors=contributors)
    return Certified(bytes(32), certificate, ROUND_BODY, (), b"\1" * 32 if own else ZERO_HASH)


def test_rounds_that_ended_without_this_peer_are_counted_in_a_row() -> None:
    lateness = Lateness()
    steps = [
        (certified(1, own=False), 0),  # it had not contributed: it rested, or came later
        (contributed(2), 0),
        (certified(2, own=False), 1),
        (certified(3, own=False), 1),
        (contributed(4), 1),
        (certified(4, own=False, kind=KIND_SEATING), 1),  # nobody's work is in a seating
        (contributed(5), 1),
        (certified(5, own=False, contributors=0), 1),  # nor in a void round
        (contributed(6), 1),
        (certified(6, own=False), 2),
        (contributed(7), 2),
        (certified(7, own=True), 0),
    ]
    for event, missed in steps:
        lateness.on_event(event)
        assert lateness.missed == missed, event
