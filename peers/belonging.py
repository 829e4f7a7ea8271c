"""Which run a peer's directory belongs to, asked before anything is written there. No torch."""

from incentives.ledger import Ledger
from incentives.records import Domain
from peers.config import load_peer_config
from peers.directory import PeerDirectory
from peers.errors import ConfigError
from peers.invite import Invite


def check_role_of(directory: PeerDirectory, mode: str) -> None:
    """ConfigError where a seed is to start as a volunteer ("join") or a storer ("store"), or one of these as another: its
    invite, which names whose swarm it is in, would be lost. Also where it would begin in a directory that holds a run: its keys would lie
    beside the organiser's, and it would take the run's blocks for its own."""
    if (directory.root / "run.toml").exists() and not directory.config.exists():
        raise ConfigError(
            "--dir",
            str(directory.root),
            "holds a run (run.toml) and no peer: choose a directory of its own for this one",
        )
    is_seed = directory.seed_link.exists()
    if not is_seed and directory.invite.exists() and load_peer_config(directory.config).stores != (mode == "store"):
        said = "belongs to a storer, which `sparehive store --dir …` starts; choose another directory for this peer"
        if mode == "store":
            said = "belongs to a volunteer; choose another directory for the storer"
        raise ConfigError("--dir", str(directory.root), said)
    if mode == "seed" and not is_seed and directory.invite.exists():
        raise ConfigError("--dir", str(directory.root), "belongs to a volunteer; choose another directory for the seed")
    if mode != "seed" and is_seed:
        raise ConfigError(
            "--dir",
            str(directory.root),
            "belongs to a seed, which `sparehive seed RUN --dir …` starts; choose another directory for this peer",
        )


def check_run_of(
    directory: PeerDirectory, run_id: bytes, domain: Domain, founders: tuple[bytes, ...] | None = None
) -> None:
    """ConfigError where the peer there is of another run, signs for another chain, or belongs to a swarm that others than `founders` have
    begun. An invite that cannot be read says nothing: it
    is what a new one replaces. StorageError where the ledger is damaged."""
    if directory.invite.is_file():
        try:
            binding = Invite.of_file(directory.invite).binding
        except ConfigError:
            pass
        else:
            _compare(directory, (binding.run_id, binding.domain()), (run_id, domain))
            if founders is not None and set(binding.founders) != set(founders):
                raise ConfigError(
                    "--dir",
                    str(directory.root),
                    f"belongs to the swarm that seed 0x{binding.founders[0].hex()} began, and this invite is of another seed's: the two "
                    "share nothing; choose another directory, or ask the organiser for that seed's invite",
                )
    if directory.ledger.is_file() and directory.ledger.stat().st_size:
        with Ledger.read(directory.ledger) as ledger:
            _compare(directory, (ledger.run_id, ledger.domain), (run_id, domain))


def _compare(directory: PeerDirectory, found: tuple[bytes, Domain], wanted: tuple[bytes, Domain]) -> None:
    if found[0] != wanted[0]:
        raise ConfigError("--dir", str(directory.root), "belongs to a peer of another run; choose another directory")
    if found[1] != wanted[1]:
        raise ConfigError(
            "--dir",
            str(directory.root),
            f"belongs to a peer that signs for settlement 0x{found[1].verifying_contract.hex()} on chain {found[1].chain_id}, and this "
            f"run is for 0x{wanted[1].verifying_contract.hex()} on chain {wanted[1].chain_id}; choose another directory, or give the "
            "run its chain.json again",
        )


__all__ = ["check_role_of", "check_run_of"]
