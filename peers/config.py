"""PeerConfig (`peer.toml`): what this machine decides. What the run decides is `swarm.config.RunConfig`; there is no third file."""

import tomllib
from pathlib import Path

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peers.errors import ConfigError


class PeerConfig(BaseModel):
    """Settings of one peer. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("*", description="address to listen on; * for all interfaces, IPv4 and IPv6")
    port: int = Field(0, ge=0, le=65535, description="TCP port to listen on; 0: the one of the last start, or any")
    announce: tuple[str, ...] = Field(
        (), description="multiaddrs told to others besides the visible ones, if they answer from outside"
    )
    peers: tuple[str, ...] = Field(
        (), description="addresses of live peers to try beside those of the invite, e.g. when its seed is gone"
    )
    client_mode: bool = Field(
        False, description="listen nowhere, open every stream; trains, votes and is paid while others can witness"
    )
    reach_seconds: float = Field(
        300.0, ge=5.0, description="how often linked peers are asked whether this one answers from outside"
    )
    threads: int = Field(1, ge=1, le=256, description="CPU threads of the inner steps")
    step_pause_seconds: float = Field(
        0.0, ge=0.0, le=60.0, description="rest after each inner step, to leave the machine to its owner"
    )
    startup_timeout_seconds: float = Field(120.0, gt=0, description="for the p2p daemon; slow machines need more")
    join_timeout_seconds: float = Field(300.0, gt=0, description="how long to look for a live peer with the anchor")
    sync_seconds: float = Field(
        30.0, gt=0, description="how often each link is asked for records that are missing here"
    )
    presence_renew_seconds: float = Field(20.0, ge=1.0, description="how often peers are looked for in the DHT")
    presence_expiry_seconds: float = Field(
        60.0, ge=3.0, le=600.0, description="how long this peer counts as present after its last word"
    )
    dht_request_seconds: float = Field(5.0, gt=0, description="for one answer of a DHT node; slow lines need more")
    snapshot_seconds: float = Field(30.0, gt=0, description="how often the training state is written to disk")
    blocks_quota_bytes: int = Field(20 * 2**30, ge=2**20, description="disk for anchors and data")
    stop_after_epoch: int = Field(0, ge=0, description="leave after this epoch is certified; 0: stay")
    payout: str = Field("", description="wallet that will bind this peer's hot key; shown, never used to sign")


def load_peer_config(path: Path, **overrides: object) -> PeerConfig:
    """`path` (may be absent) with `overrides` (None: not given) on top; ConfigError names field, value and remedy."""
    values: dict[str, object] = {}
    if path.exists():
        try:
            values = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError("peer.toml", str(path), f"is not TOML: {error}") from None
    values.update({key: value for key, value in overrides.items() if value is not None})
    try:
        return PeerConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path.name}: {name}", first.get("input"), first["msg"]) from None


def save_peer_config(path: Path, config: PeerConfig) -> None:
    path.write_text(tomli_w.dumps({k: v for k, v in config.model_dump(mode="json").items() if v is not None}))
