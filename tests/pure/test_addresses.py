"""Which of many addresses are kept, and where they can be reached from."""

import pytest

from swarm.errors import InputError
from swarm.transport.addresses import Scope, best_addresses, listen_hosts, scope_of


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("/ip4/203.0.114.7/tcp/1", Scope.PUBLIC),
        ("/ip6/2606:4700::1/tcp/1", Scope.PUBLIC),
        ("/dns4/peer.example.org/tcp/1", Scope.PUBLIC),
        ("/ip4/192.168.1.2/tcp/1", Scope.PRIVATE),
        ("/ip4/100.64.0.9/tcp/1", Scope.PRIVATE),
        ("/ip6/fd00::2/tcp/1", Scope.PRIVATE),
        ("/ip4/172.17.0.1/tcp/1", Scope.BRIDGE),
        ("/ip4/127.0.0.1/tcp/1", Scope.LOOPBACK),
        ("/ip6/::1/tcp/1", Scope.LOOPBACK),
        ("/ip4/0.0.0.0/tcp/1", None),
        ("/ip6/fe80::1/tcp/1", None),
        ("/unix/tmp/socket", None),
        ("nonsense", None),
    ],
)
def test_where_an_address_can_be_reached_from(address: str, scope: Scope | None) -> None:
    assert scope_of(address, bridges=["172.17.0.1"]) is scope


def test_of_more_than_eight_the_public_ones_are_kept_not_the_first() -> None:
    bridges = [f"172.{n}.0.1" for n in range(17, 27)]
    listed = ["/ip4/127.0.0.1/tcp/4001"] + [f"/ip4/{b}/tcp/4001" for b in bridges]
    listed += ["/ip4/192.168.1.2/tcp/4001", "/ip4/203.0.114.7/tcp/4001", "/ip4/203.0.114.7/tcp/4001"]
    kept = best_addresses(listed, bridges)
    assert len(kept) == 8
    assert kept[:2] == ("/ip4/203.0.114.7/tcp/4001", "/ip4/192.168.1.2/tcp/4001")
    assert kept[2:] == tuple(f"/ip4/{b}/tcp/4001" for b in bridges[:6])


def test_all_interfaces_are_both_families() -> None:
    assert listen_hosts("*") == ("0.0.0.0", "::")
    assert listen_hosts("[::1]") == ("::1",)
    with pytest.raises(InputError, match="--host"):
        listen_hosts("localhost")
