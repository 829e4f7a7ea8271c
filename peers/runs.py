"""A run's directory on the organiser's machine: run.toml, data, the initial anchor's blocks, the organiser's key."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from incentives.amounts import Unit
from incentives.chain.deployment import Deployment
from incentives.keys import unlock_key
from incentives.records import Domain, account_of
from peers.bases import cached_base
from peers.costs import Costs
from peers.errors import ConfigError, StartError
from peers.invite import Invite, PayLimits, RunBinding
from peers.opening import RESTORE_BLOCK, open_run, open_settings
from peers.planning import Plan
from peers.progressbar import ProgressBar
from swarm.config import RunConfig, load_run
from swarm.hashing import sha256

if TYPE_CHECKING:
    from swarm.checkpoint.bases import BaseFolder
    from swarm.checkpoint.store import BlockStore


@dataclass(frozen=True)
class RunDirectory:
    root: Path

    @property
    def toml(self) -> Path:
        return self.root / "run.toml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def sources(self) -> Path:
        """Which files the text was made of, as `sha256sum` writes it; for the organiser, no part of the run."""
        return self.root / "sources.sha256"

    @property
    def dataset(self) -> Path:
        """CID, licence and owners of the data set that it was made of, where that is one; for the organiser, no part of the run."""
        return self.root / "dataset.json"

    @property
    def blocks(self) -> Path:
        return self.root / "blocks"

    @property
    def organiser_key(self) -> Path:
        return self.root / "keys" / "organiser.json"

    @property
    def organiser_password(self) -> Path:
        return self.root / "keys" / "organiser.password"

    @property
    def chain(self) -> Path:
        return self.root / "chain.json"

    def domain(self, config: RunConfig) -> Domain:
        """Of chain.json if the run was deployed, else zeros. InputError where it cannot be read, ConfigError where it is of another run
        than `config`: what is signed for that one's settlement is never paid."""
        if not os.path.lexists(self.chain):
            return Domain(0, bytes(20))
        deployment = Deployment.read(self.chain)
        self.check_deployed(config, deployment)
        return Domain(deployment.chain_id, deployment.settlement)

    def limits(self, config: RunConfig, signer: bytes) -> PayLimits | None:
        """What an invite says of the settlement's terms; None where the run has no chain. ConfigError where `signer` is not who signs its
        invites: nobody would take them."""
        if config.organiser is not None and signer.hex() != config.organiser.invites:
            raise ConfigError(
                "--keystore",
                f"key of 0x{signer.hex()}",
                f"invites of {self.toml} are signed by 0x{config.organiser.invites}: nobody would take others; give that key",
            )
        if not os.path.lexists(self.chain):
            return None
        deployment = Deployment.read(self.chain)
        terms = deployment.terms
        if config.organiser is None and signer != terms.organiser:
            raise ConfigError(
                "--keystore",
                f"key of 0x{signer.hex()}",
                f"the organiser by {self.chain} is 0x{terms.organiser.hex()}: nobody would take its invites; give the organiser's",
            )
        if config.organiser is not None and terms.organiser.hex() != config.organiser.wallet:
            raise ConfigError(
                "chain.json",
                str(self.chain),
                f"is of organiser 0x{terms.organiser.hex()}, and {self.toml} of 0x{config.organiser.wallet}: restore the one that was "
                "changed from a copy",
            )
        return PayLimits.of_terms(terms, deployment.unit)

    def check_deployed(self, config: RunConfig, deployment: Deployment) -> None:
        """ConfigError where chain.json is of another run than run.toml."""
        if deployment.run_id != config.run_id:
            raise ConfigError(
                "chain.json",
                str(self.chain),
                f"is of run 0x{deployment.run_id.hex()}, and {self.toml} is run 0x{config.run_id.hex()}: restore the one that was changed "
                "from a copy",
            )

    def load(self) -> RunConfig:
        if not os.path.lexists(self.toml):
            raise ConfigError("RUN_DIRECTORY", str(self.root), "holds no run.toml; make one with: sparehive run new")
        return load_run(self.toml)


def check_run(path: Path, epoch_seconds: float = 60.0, progress: ProgressBar | None = None) -> dict[str, Any]:
    """Opens the run as a seed and a peer will, and says what it asks of a peer; disk for audits with epochs of `epoch_seconds`.
    Where only run.toml is there, the settings are checked alone ("opened": False)."""
    config = load_run(path)  # what is wrong in it is said before the model library is loaded
    progress = progress or ProgressBar(quiet=True)
    with progress.during("loading the model library"):
        from peers.needs import committed_bytes, memory_bytes
        from swarm.models import frozen_bytes
        from swarm.optim.codec import wire_bytes
        from swarm.tasks import kept_bytes
    run = RunDirectory(path.parent)
    is_whole = run.data.exists() or run.blocks.exists()
    model = open_run(config, run.data, run.blocks, progress) if is_whole else open_settings(config, cached_base(config))
    values = model.layout.num_values()
    sent, got = wire_bytes(values, config.codec.contribution), wire_bytes(values, config.codec.average)
    hidden = sum(matrix.rows * matrix.columns for matrix in model.matrices)
    moments = committed_bytes(config, values, hidden)
    own, shared = sent + moments + 2 * values, got + 8 * values / config.audit.anchor_every_epochs
    epochs = config.audit.hold_seconds / epoch_seconds
    held = own * (4 + 2 * config.audit.rate * epochs) + shared * (epochs + config.audit.anchor_every_epochs)
    return {
        "run_id": "0x" + config.run_id.hex(),
        "parameters": values,
        "memory_bytes": memory_bytes(config, values, hidden, kept_bytes(config, model), frozen_bytes(model.module)),
        "contribution_bytes": sent,
        "average_bytes": got,
        "seconds_to_send_at_20_mbit": round(sent * 8 / 20e6, 2),
        "inner_steps_per_unit": config.inner.steps_per_unit,
        "units_per_epoch": config.rounds.units_per_epoch,
        **Plan.of(config).json_value(),
        "audit_bytes_per_epoch": int(own + shared),
        "audit_hold_gigabytes": round(held / 1e9, 3),
        "audit_hold_assumes_epoch_seconds": epoch_seconds,
        "opened": is_whole,
    }


def costs_of(path: Path, token_decimals: int | None = None) -> tuple[Costs, Unit]:
    """What the run of a run.toml pays, and in what that is shown: the token of the chain.json beside it, else one of so many decimals,
    else base units. ConfigError where the two differ."""
    chain = RunDirectory(path.parent).chain
    unit = Deployment.read(chain).unit if os.path.lexists(chain) else None
    if unit is not None and token_decimals not in (None, unit.decimals):
        raise ConfigError("--token-decimals", token_decimals, f"its token has {unit.decimals} by {chain}: leave it out")
    return Costs.of(load_run(path)), unit or Unit.of("", token_decimals)


def bind_run(
    run: RunDirectory, keystore: Path, password_file: Path, founders: tuple[bytes, ...], bootstrap: tuple[str, ...]
) -> Invite:
    """The signed invite: with the chain of chain.json if the run was deployed, else without one."""
    config = run.load()
    domain = run.domain(config)
    key = unlock_key(keystore, password_file)
    limits = run.limits(config, account_of(key))
    binding = RunBinding(config.run_id, domain.chain_id, domain.verifying_contract, founders, bootstrap)
    return Invite.short(config, binding, key, limits)


def copy_blocks(run: RunDirectory, config: RunConfig, store: "BlockStore", base: "BaseFolder | None" = None) -> None:
    """Data and initial anchor of the run into a seed's store, which hands them out for as long as it lives; not the blocks of `base`,
    which are read out of its files.

    Damaged files are passed over; StartError where the seed then lacks what newcomers ask it for."""
    from swarm.checkpoint.runblocks import missing_block

    elsewhere = set() if base is None else {digest.hex() for digest in base.digests()}
    if run.blocks.is_dir():
        for path in sorted(run.blocks.iterdir()):
            if path.name not in elsewhere and path.is_file() and not path.name.endswith(".part"):
                data = path.read_bytes()
                if sha256(data).hex() == path.name:
                    store.put(data)
    for root in (config.task.data.root, config.initial_root):
        lacking = missing_block(store, bytes.fromhex(root))
        if lacking is not None:
            raise StartError(f"{run.blocks / lacking.hex()} is missing or damaged{RESTORE_BLOCK}")


__all__ = ["RunDirectory", "bind_run", "check_run", "copy_blocks", "costs_of"]
