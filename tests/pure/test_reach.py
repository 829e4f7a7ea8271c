"""What a peer concludes from the answers of those that dialled it, and whom it asks."""

from swarm.records.types import FLAG_REDUCES
from swarm.transport.dialback import Answer, may_dial
from swarm.transport.reach import Reach, further_candidates, judge, whom_to_ask
from swarm.transport.reducers import DOUBT_SECONDS, ReducerChecks

ME = "QmUUWnS3MkQRrgr7xW7BbM6YZwFBs8E7C7f5CG5SPeavgi"
PUBLIC, HOME = f"/ip4/203.0.114.7/tcp/4001/p2p/{ME}", f"/ip4/192.168.1.2/tcp/4001/p2p/{ME}"
MAPPED = f"/dns4/me.org/tcp/1/p2p/{ME}"
YES, AT_HOME, NO = Answer((HOME, PUBLIC), "203.0.114.7"), Answer((HOME,), "192.168.1.2"), Answer((), "203.0.114.7")


def test_only_what_answered_is_told_the_best_first() -> None:
    reach = judge([YES, AT_HOME, NO], [PUBLIC])
    assert reach.addresses == (PUBLIC, HOME)
    assert (reach.asked, reach.reached_by, reach.silent) == (3, 2, ())


def test_nobody_asked_is_not_unreachable() -> None:
    assert not Reach().is_known and not Reach().is_reachable
    assert judge([], [MAPPED]) == Reach()


def test_half_of_those_that_tried_make_a_reducer() -> None:
    assert judge([YES], []).is_reachable
    assert judge([AT_HOME, NO], []).is_reachable, "two in one house, and the seed outside: they can pay each other"
    assert not judge([AT_HOME, NO, NO], []).is_reachable, "a neighbour alone is not the swarm"
    assert judge([YES, NO, YES], []).is_reachable, "one liar does not unmake a reducer"
    assert not judge([NO, NO], []).is_reachable


def test_an_announced_address_that_answers_nobody_is_named() -> None:
    assert judge([YES], [MAPPED, PUBLIC]).silent == (MAPPED,)


def test_a_forwarded_port_at_the_outside_address_is_worth_asking_about() -> None:
    assert further_candidates((HOME,), ["203.0.114.7", "203.0.114.7", "10.0.0.9", ""], 4001, ME) == (PUBLIC,)
    assert further_candidates((HOME, PUBLIC), ["203.0.114.7"], 4001, ME) == ()


def test_those_who_count_and_have_not_been_asked_come_first() -> None:
    linked = {"seed": 2, "a": 1, "b": 0, "c": 0}
    assert whom_to_ask(linked, [], 2) == ["seed", "a"]
    assert whom_to_ask(linked, ["seed", "a"], 3) == ["b", "c", "seed"]


def test_nobody_is_dialled_further_inside_than_it_is_seen_from() -> None:
    home, loop = "/ip4/192.168.1.1/tcp/80", "/ip4/127.0.0.1/tcp/5432"
    assert may_dial("/ip4/203.0.114.7/tcp/1", "198.51.100.1")
    assert not may_dial(home, "203.0.114.7") and not may_dial(loop, "203.0.114.7")
    assert may_dial(home, "192.168.1.9") and not may_dial(loop, "192.168.1.9")
    assert may_dial(loop, "127.0.0.1") and may_dial(loop, "::1")
    assert not may_dial(home, "") and not may_dial("nonsense", "127.0.0.1")


class Claimant:
    """What of a link `ReducerChecks` looks at."""

    def __init__(self, peer_id: str, flags: int = FLAG_REDUCES) -> None:
        self.peer_id, self.flags = peer_id, flags


def test_who_claims_to_reduce_is_dialled_who_does_not_is_left_alone() -> None:
    checks, links = ReducerChecks(), [Claimant("a"), Claimant("client", 0), Claimant("b")]
    first = checks.due(links, 0.0, 300.0)  # type: ignore[arg-type]
    assert first is links[0]
    checks.reached("a")
    second = checks.due(links, 0.0, 300.0)  # type: ignore[arg-type]
    assert second is links[2]


def test_who_does_not_answer_is_tried_again_soon_and_forgiven() -> None:
    checks, links = ReducerChecks(clock=lambda: 100.0), [Claimant("a"), Claimant("b")]
    checks.reached("a")
    checks.missed("b")
    assert checks.silent == {"b"}
    assert checks.due(links, 101.0, 300.0) is None  # type: ignore[arg-type]
    assert checks.due(links, 101.0 + DOUBT_SECONDS, 300.0) is links[1]  # type: ignore[arg-type]
    checks.reached("b")
    assert checks.silent == set()
    assert checks.due(links, 401.0, 300.0) is not None  # type: ignore[arg-type]
