"""Which of this machine's addresses lie on interfaces that lead to its own containers and virtual machines only."""

import psutil

_BRIDGES = (
    "docker",
    "br-",
    "virbr",
    "veth",
    "vnet",
    "lxc",
    "lxd",
    "cni",
    "podman",
    "flannel",
    "cali",
    "vmnet",
    "vboxnet",
    "bridge",
)


def bridge_addresses() -> frozenset[str]:
    """IP addresses, as text."""
    return frozenset(
        entry.address.split("%")[0]
        for name, entries in psutil.net_if_addrs().items()
        if name.startswith(_BRIDGES)
        for entry in entries
    )
