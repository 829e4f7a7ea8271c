"""A peer's network as its peer.toml says: listening, not yet joined to any run. No torch."""

from peers.config import PeerConfig
from peers.directory import PeerDirectory, keep_port, last_port
from swarm.network import SwarmNetwork


async def open_network(
    directory: PeerDirectory, config: PeerConfig, bootstrap: tuple[str, ...], network_type: type[SwarmNetwork]
) -> SwarmNetwork:
    """Listening, not yet joined; the port is kept for the next start. Errors as `SwarmNetwork.open`."""
    network = await network_type.open(
        directory.identity,
        host=config.host,
        port=config.port,
        preferred_port=last_port(directory),
        announce=config.announce,
        client_mode=config.client_mode,
        initial_peers=(*bootstrap, *config.peers),
        startup_timeout_seconds=config.startup_timeout_seconds,
    )
    if network.node.port:
        keep_port(directory, network.node.port)
    return network


__all__ = ["open_network"]
