"""Whose streams are served: places of members, fair shares of the rest, how often strangers may open streams."""

from swarm.transport.members import MEMBER_SECONDS, Members
from swarm.transport.places import (
    MAX_STRANGER_STREAMS,
    MAX_STREAMS,
    MAX_STREAMS_PER_PEER,
    MAX_STREAMS_PER_STRANGER,
    OPENINGS_AT_ONCE,
    OPENINGS_PER_SECOND,
    Openings,
    Place,
    Places,
    network_of,
)


class Hall:
    """Places, and who was thrown out of them."""

    def __init__(self) -> None:
        self.places = Places()
        self.thrown_out: list[str] = []

    def come(self, peer_id: str, network: str = "192.0.2.1", is_member: bool = False) -> Place | None:
        place = Place(peer_id, network, is_member, lambda: self.thrown_out.append(peer_id))
        return place if self.places.take(place) else None


def test_strangers_take_no_place_of_a_member() -> None:
    hall = Hall()
    served = [hall.come(f"free{n % 64}", f"198.51.100.{n % 64}") for n in range(64 * MAX_STREAMS_PER_PEER)]
    assert sum(place is not None for place in served) >= MAX_STRANGER_STREAMS
    assert hall.places.num_held(is_member=False) == MAX_STRANGER_STREAMS
    for n in range(MAX_STREAMS_PER_PEER):
        assert hall.come("alice", is_member=True), n
    assert hall.come("alice", is_member=True) is None
    assert hall.places.num_held(is_member=True) == MAX_STREAMS_PER_PEER
    assert "alice" not in hall.thrown_out


def test_who_holds_many_places_keeps_nobody_out_who_holds_none() -> None:
    hall = Hall()
    for n in range(MAX_STRANGER_STREAMS // MAX_STREAMS_PER_STRANGER):
        for _ in range(MAX_STREAMS_PER_STRANGER):
            place = hall.come(f"free{n}")
            assert place is not None
            place.has_spoken = True
        assert hall.come(f"free{n}") is None, "no more of one identity"
    assert hall.come("newcomer") and hall.thrown_out == ["free0"]
    assert hall.places.num_held(is_member=False) == MAX_STRANGER_STREAMS


def test_identities_of_one_address_keep_no_other_address_out() -> None:
    hall = Hall()
    for n in range(MAX_STRANGER_STREAMS):
        place = hall.come(f"free{n}", "198.51.100.1")
        assert place is not None
        place.has_spoken = True
    assert hall.come("neighbour", "198.51.100.1") is None, "there all have as much"
    assert hall.come("newcomer", "203.0.113.5") and hall.thrown_out == ["free0"]


def test_a_silent_stream_gives_way_where_all_hold_as_much() -> None:
    hall = Hall()
    places = [hall.come(f"free{n}", f"198.51.100.{n}") for n in range(MAX_STRANGER_STREAMS)]
    for place in places:
        assert place is not None
        place.has_spoken = place is not places[7]
    assert hall.come("newcomer", "203.0.113.5") and hall.thrown_out == ["free7"]


def test_a_place_is_free_again_and_only_once() -> None:
    hall = Hall()
    places = [hall.come("a"), hall.come("b")]
    for _ in range(2):
        assert places[0] is not None
        hall.places.free(places[0])
    assert hall.places.num_held(is_member=False) == 1


def test_members_share_their_places() -> None:
    hall = Hall()
    for n in range(MAX_STREAMS):
        assert hall.come(f"member{n % 16}", is_member=True)
    assert hall.come("late", is_member=True) and hall.thrown_out == ["member0"]


def test_a_network_is_an_ipv4_address_or_a_64_of_ipv6() -> None:
    assert network_of("/ip4/192.0.2.1/tcp/4001") == "192.0.2.1"
    assert network_of("/ip6/2001:db8::1/tcp/4001") == network_of("/ip6/2001:db8::ffff:1/tcp/9") == "2001:db8::/64"
    assert network_of("/ip6/::ffff:192.0.2.1/tcp/4001") == "192.0.2.1"
    assert network_of("nonsense") == ""


def test_a_stranger_opens_so_many_streams_in_a_time() -> None:
    now = 0.0
    openings = Openings(lambda: now)
    assert sum(openings.may_open("free") for _ in range(1000)) == OPENINGS_AT_ONCE
    now = 4.0
    assert 4 * OPENINGS_PER_SECOND - 1 <= sum(openings.may_open("free") for _ in range(1000)) <= 4 * OPENINGS_PER_SECOND
    assert openings.may_open("other")


def test_a_member_is_who_the_lineage_names_or_named_a_while_ago_by_one_identity() -> None:
    now, named = 0.0, {b"a"}
    members = Members(named.__contains__, lambda: now)
    assert members.is_member(b"a") and not members.is_member(b"b")
    members.remember("first", b"a")
    members.remember("free", b"b")
    assert members.is_identity("first") and not members.is_identity("free") and not members.is_identity("unknown")
    members.remember("second", b"a")
    assert members.is_identity("second") and not members.is_identity("first"), "one identity of an account"
    named.clear()
    now = MEMBER_SECONDS - 1.0
    assert members.is_identity("second")
    now = MEMBER_SECONDS + 1.0
    assert not members.is_member(b"a") and not members.is_identity("second")
    members.invite("seed")
    assert members.is_identity("seed")


def test_strangers_do_not_make_a_member_forgotten() -> None:
    members = Members({b"a"}.__contains__, lambda: 0.0)
    members.remember("alice", b"a")
    for n in range(5000):
        members.remember(f"free{n}", b"%d" % n)
    assert members.is_identity("alice")
