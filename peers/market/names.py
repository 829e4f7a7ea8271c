"""The names that a served model is asked under, as in the header Host: what was signed for another server counts nowhere else. Pure."""

import ipaddress
from dataclasses import dataclass

from yarl import URL

USUAL_PORTS = (80, 443)  # clients leave them out of Host


def name_of(text: str) -> str:
    """HOST[:PORT] as clients write it into Host: small letters, brackets around IPv6. ValueError, without the text, where it is none."""
    try:
        parts = URL(f"http://{text}")
        host = parts.host_subcomponent
        is_name = host and not set(text) & set("/?#@\\ ") and text.isprintable() and parts.explicit_port != 0
    except ValueError:
        is_name, host = False, None
    if not is_name or host is None:
        raise ValueError("is no HOST[:PORT], as model.example.org or 203.0.113.7:8000")
    return host if parts.explicit_port is None else f"{host}:{parts.explicit_port}"


def _forms(host: str, port: int | str) -> set[str]:
    return {f"{host}:{port}", host} if int(port) in USUAL_PORTS else {f"{host}:{port}"}


@dataclass(frozen=True)
class Names:
    """`given`: of `name_of`. Where none is given, the address that a connection came in at, and localhost over loopback: what a forged
    Host could say of that was signed for this address."""

    given: tuple[str, ...] = ()

    def has(self, host: str, own: tuple[str, int]) -> bool:
        """Whether a request for `host` is meant for who got it at the address `own`."""
        known: set[str] = set()
        for name in self.given:
            bare, _, port = name.rpartition(":")
            known |= _forms(bare, port) if port.isdigit() and bare else {name}
        return host.lower() in (known or self._found(own))

    def _found(self, own: tuple[str, int]) -> set[str]:
        try:
            address = ipaddress.ip_address(own[0])
        except ValueError:
            return set()
        here = _forms(f"[{address}]" if address.version == 6 else str(address), own[1])
        return here | _forms("localhost", own[1]) if address.is_loopback else here

    def words(self, listen: str, port: int) -> str:
        """For who starts it, listening on the host `listen`."""
        if self.given:
            return ", ".join(self.given)
        try:
            is_all = ipaddress.ip_address(listen).is_unspecified
        except ValueError:
            return f"{listen}:{port}"
        if is_all:
            return f"any address of this machine with port {port}"
        return ", ".join(sorted(self._found((listen, port))))


__all__ = ["Names", "name_of"]
