"""Addresses of settings and of strangers, and the bounded book that holds them."""

import json
from pathlib import Path

import pytest
from hivemind.p2p import PeerID

from swarm.errors import InputError
from swarm.transport.addressbook import MAX_ENTRIES, MAX_PER_TELLER, AddressBook, Source
from swarm.transport.addresses import (
    addresses_of,
    check_announced,
    check_bootstrap,
    listen_address,
    listen_hosts,
    peer_id_of,
)

OWN = PeerID(b"\x12\x20" + b"\xff" * 32).to_base58()


def peer(index: int) -> str:
    return str(PeerID(b"\x12\x20" + index.to_bytes(32, "big")).to_base58())


def at(index: int, port: int = 4001) -> str:
    return f"/ip4/10.0.0.1/tcp/{port}/p2p/{peer(index)}"


def book() -> AddressBook:
    return AddressBook(OWN)


def test_listen_addresses_of_both_families_and_nothing_else() -> None:
    assert listen_address("0.0.0.0", 7) == "/ip4/0.0.0.0/tcp/7"
    assert listen_address("::1", 0) == "/ip6/::1/tcp/0"
    for host in ("localhost", "1.2.3", "", "/ip4/1.2.3.4"):
        with pytest.raises(InputError, match="is not an IP address; write"):
            listen_hosts(host)


@pytest.mark.parametrize(
    "address", ["/ip4/203.0.113.7/tcp/4001", "/ip6/2001:db8::1/tcp/4001", "/dns4/peer.example.org/tcp/4001"]
)
def test_a_sound_announced_address_is_taken(address: str) -> None:
    assert check_announced(address) == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("203.0.113.7:4001", "is not a multiaddr"),
        ("", "is not a multiaddr"),
        ("/ip4/999.1.1.1/tcp/1", "is not a multiaddr"),
        ("/ip4/1.2.3.4/tcp/99999", "is not a multiaddr"),
        ("/dns4/" + "a" * 300 + "/tcp/1", "is not a multiaddr"),
        ("/ip4/203.0.113.7", "host and a TCP port"),
        ("/ip4/203.0.113.7/udp/4001", "host and a TCP port"),
        (at(1), "host and a TCP port"),
        ("/ip4/203.0.113.7/tcp/0", "not 0"),
        ("/ip4/0.0.0.0/tcp/4001", "nobody can connect"),
        ("/ip6/::/tcp/4001", "nobody can connect"),
    ],
)
def test_an_address_that_nobody_could_use_is_one_line(address: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        check_announced(address)
    assert "\n" not in str(caught.value) and "--announce" in str(caught.value)


def test_addresses_of_others_must_lead_to_themselves() -> None:
    assert peer_id_of(at(1)) == peer(1)
    assert addresses_of(peer(1), [at(1), at(2), "junk", 7, None, at(1), f"/ip4/10.0.0.1/tcp/0/p2p/{peer(1)}"]) == (
        at(1),
    )
    assert len(addresses_of(peer(1), [at(1, port) for port in range(1, 100)])) == 8
    assert check_bootstrap(at(1)) == at(1)
    for bad in ("nonsense", "/ip4/10.0.0.1/tcp/4001", f"/p2p/{peer(1)}", "/ip4/1.2.3.4/tcp/1/p2p/xx"):
        with pytest.raises(InputError, match="bootstrap address"):
            check_bootstrap(bad)


def test_hearsay_fills_a_share_and_overrides_nothing() -> None:
    known = book()
    known.add_invited([at(0)])
    assert known.add(peer(1), [at(1)], Source.PRESENCE)
    for index in range(2, 200):
        known.add(peer(index), [at(index)], Source.HEARSAY, "liar")
    assert len(known.entries) == 2 + MAX_PER_TELLER
    assert not known.add(peer(1), [at(1, 666)], Source.HEARSAY, "liar")
    assert not known.add(peer(0), [at(0, 666)], Source.HEARSAY, "liar")
    assert not known.add(OWN, [at(1)], Source.INVITE) and not known.add("x", ["y"], Source.INVITE)
    for teller in range(100):
        for index in range(40):
            number = 1000 + 40 * teller + index
            known.add(peer(number), [at(number)], Source.HEARSAY, str(teller))
    assert len(known.entries) == MAX_ENTRIES
    # What is better known takes the place of hearsay; the invite is never forgotten.
    assert known.add(peer(9999), [at(9999)], Source.PRESENCE)
    assert len(known.entries) == MAX_ENTRIES and known.entries[peer(0)].source == Source.INVITE


def test_a_peer_that_moved_is_followed_by_its_own_word() -> None:
    known = book()
    known.add_invited([at(1)])
    assert known.add(peer(1), [at(1, 5005)], Source.LINKED)
    assert known.entries[peer(1)].addresses == (at(1, 5005), at(1))
    known = book()
    assert known.add(peer(1), [at(1)], Source.PRESENCE, account=b"liar")
    known.linked(peer(1), [at(1, 5005)], b"owner", 50.0)
    assert known.entries[peer(1)].addresses == (at(1, 5005),)
    # A restart on another port: its own presence is followed, a stranger's for the same peer is not.
    assert not known.add(peer(1), [at(1, 666)], Source.PRESENCE, account=b"liar")
    known.failed(peer(1), 60.0)
    assert known.add(peer(1), [at(1, 6006)], Source.PRESENCE, account=b"owner")
    assert known.entries[peer(1)].addresses == (at(1, 6006),) and known.due(0.0, [], 9) == [peer(1)]
    assert known.entries[peer(1)].source == Source.LINKED


def test_tries_grow_apart_and_what_leads_nowhere_is_forgotten() -> None:
    known = book()
    known.add_invited([at(0)])
    known.add(peer(1), [at(1)], Source.HEARSAY, "x")
    now = 0.0
    for _ in range(4):
        assert known.due(now, [], 9) != []
        known.failed(peer(1), now)
        known.failed(peer(0), now)
        now += 60.0
    assert peer(1) not in known.entries
    pauses = []
    for _ in range(12):
        known.failed(peer(0), 0.0)
        pauses.append(known.entries[peer(0)].retry_at)
    assert known.due(0.0, [], 9) == [] and 20 < max(pauses) < 40 and known.due(100.0, [], 9) == [peer(0)]
    assert known.due(100.0, [peer(0)], 9) == [] and known.due(100.0, [], 0) == []
    known.proven(peer(0))
    assert known.due(0.0, [], 9) == [peer(0)]


def test_only_linked_peers_are_kept_for_the_next_start_and_told_to_others(tmp_path: Path) -> None:
    known, path = book(), tmp_path / "known.json"
    known.add(peer(1), [at(1)], Source.HEARSAY, "x")
    known.linked(peer(2), [at(2)], b"a", 50.0)
    known.linked(peer(3), [at(3)], b"b", 60.0)
    known.linked(peer(4), [], b"c", 70.0)  # client mode
    assert known.share(9) == [(peer(3), (at(3),)), (peer(2), (at(2),))]
    known.write(path, known.packed())
    again = book()
    assert again.load(path) == 2 and set(again.entries) == {peer(2), peer(3)}
    for damage in (b"", b"[", b"[" * 9999, b"{}", b'{"peers": 3}', b'{"peers": [{}]}', b"\xff"):
        path.write_bytes(damage)
        assert book().load(path) == 0
    path.write_text(json.dumps({"peers": [{"peer_id": peer(2), "account": "", "addresses": [at(5)], "linked_at": 1}]}))
    assert book().load(path) == 0
    (tmp_path / "gone").mkdir()
    known.write(tmp_path / "gone" / "x" / "known.json", known.packed())  # no such folder: a warning, no error
