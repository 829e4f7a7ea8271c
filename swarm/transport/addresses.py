"""Checks on addresses: of the owner's settings (one line that says what to write) and of what other peers claim."""

import ipaddress
from collections.abc import Collection, Iterable
from enum import IntEnum

from hivemind.p2p import PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarm.errors import InputError

MAX_ADDRESS_CHARACTERS = 200
MAX_ADDRESSES = 8
EVERYWHERE = "*"  # as a host: every interface, IPv4 and IPv6
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
_EVERYWHERE_HOSTS = ("0.0.0.0", "::")


class Scope(IntEnum):
    """From where an address can be reached, the widest first."""

    PUBLIC = 0
    PRIVATE = 1  # of the local network, or a carrier's
    BRIDGE = 2  # between this machine and its own containers or virtual machines
    LOOPBACK = 3


def listen_hosts(host: str) -> tuple[str, ...]:
    """The IP addresses to bind. `InputError` unless `host` is an IPv4 or IPv6 address or `EVERYWHERE`."""
    if host == EVERYWHERE:
        return _EVERYWHERE_HOSTS
    try:
        return (str(ipaddress.ip_address(host.strip("[]"))),)
    except ValueError:
        raise InputError(
            "--host",
            host,
            f"is not an IP address; write {EVERYWHERE} for all interfaces, 127.0.0.1 for this machine alone",
        ) from None


def listen_address(host: str, port: int) -> str:
    """The multiaddr to listen on at the IP address `host`."""
    return f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port}"


def scope_of(address: str, bridges: Collection[str] = ()) -> Scope | None:
    """Of a multiaddr that begins with a host; names count as public. `bridges`: this machine's addresses on interfaces of
    containers and virtual machines. None: nobody else can use it (malformed, link-local, unspecified)."""
    host = host_of(address)
    if host is None:
        return None
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return Scope.PUBLIC
    if ip.is_unspecified or ip.is_link_local or ip.is_multicast:
        return None
    if ip.is_loopback:
        return Scope.LOOPBACK
    if host in bridges:
        return Scope.BRIDGE
    return Scope.PUBLIC if ip.is_global else Scope.PRIVATE


def host_of(address: str) -> str | None:
    """The IP address or name that a multiaddr begins with; None where it begins with something else."""
    parts = _split(address)
    return parts[0][1] if parts and parts[0][0] in _HOSTS else None


def endpoint_of(address: str) -> tuple[str, int] | None:
    """(host, TCP port) of a multiaddr; None where it has none."""
    parts = _split(address)
    if not parts or len(parts) < 2 or parts[0][0] not in _HOSTS or parts[1][0] != "tcp":
        return None
    return parts[0][1], int(parts[1][1])


def best_addresses(
    addresses: Iterable[str], bridges: Collection[str] = (), most: int = MAX_ADDRESSES
) -> tuple[str, ...]:
    """At most `most` of them, each once: public ones first, then private, bridges, loopback; else in the given order."""
    scopes = {address: scope_of(address, bridges) for address in addresses}
    usable = [(scope, address) for address, scope in scopes.items() if scope is not None]
    return tuple(address for _, address in sorted(usable, key=lambda item: item[0]))[:most]


def check_announced(address: str) -> str:
    """An address that the owner tells others, without peer id. `InputError` where nobody could connect to it."""
    example = "write e.g. /ip4/203.0.113.7/tcp/4001 or /dns4/peer.example.org/tcp/4001"
    parts = _split(address)
    if parts is None:
        raise InputError("--announce", address, f"is not a multiaddr; {example}")
    if len(parts) != 2 or parts[0][0] not in _HOSTS or parts[1][0] != "tcp":
        raise InputError("--announce", address, f"must be a host and a TCP port, nothing more; {example}")
    if parts[1][1] == "0":
        raise InputError("--announce", address, "needs the port that others connect to, not 0")
    if parts[0][0].startswith("ip") and ipaddress.ip_address(parts[0][1]).is_unspecified:
        raise InputError("--announce", address, "nobody can connect to this host; write your public address")
    return address


def check_bootstrap(address: str) -> str:
    """An address of another peer as it stands in an invite. `InputError` says what is wrong with it."""
    if peer_id_of(address) is None:
        raise InputError(
            "bootstrap address",
            address,
            "is not a multiaddr of a peer such as /ip4/203.0.113.7/tcp/4001/p2p/Qm…; ask for a new invite",
        )
    return address


def peer_id_of(address: object) -> str | None:
    """The peer id at the end of a complete address (host, TCP port, peer), or None for anything else."""
    parts = _split(address)
    if parts is None or [p[0] for p in parts[1:]] != ["tcp", "p2p"] or parts[0][0] not in _HOSTS or parts[1][1] == "0":
        return None
    return parts[2][1]


def addresses_of(peer_id: str, addresses: Iterable[object]) -> tuple[str, ...]:
    """Those of the claimed addresses that are complete and lead to `peer_id`: nobody sends us to a third party. At most
    `MAX_ADDRESSES` are looked at: their owner has put the best first."""
    found: list[str] = []
    for _, address in zip(range(MAX_ADDRESSES), addresses, strict=False):
        if peer_id_of(address) == peer_id and address not in found:
            found.append(str(address))
    return tuple(found)


def is_peer_id(text: object) -> bool:
    """True for base58 of a multihash as libp2p has it."""
    try:
        return isinstance(text, str) and len(text) <= 64 and PeerID.from_base58(text).to_base58() == text
    except ValueError:
        return False


def _split(address: object) -> list[tuple[str, str]] | None:
    if not isinstance(address, str) or not 0 < len(address) <= MAX_ADDRESS_CHARACTERS:
        return None
    try:
        return [(protocol.name, value or "") for protocol, value in Multiaddr(address).items()]
    except (ValueError, TypeError, LookupError):
        return None
