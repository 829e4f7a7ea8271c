"""PeerConfig (`peer.toml`): what this machine decides. What the run decides is `swarm.config.RunConfig`; there is no third file."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from peers.errors import ConfigError, in_one_line
from swarm.atomic import write_atomically
from swarm.checkpoint.unixfs import parse_any_cid
from swarm.toml import parse_toml
from swarm.wanted import wanted

MAX_SECONDS = 30 * 24 * 3600.0
MAX_COUNT = 2**53 - 1
_PLACE = r"/(ip4|ip6|dns|dns4|dns6)/[0-9A-Za-z.:_-]{1,150}/tcp/[0-9]{1,5}"


def _check_host(host: str) -> str:
    if host != "*":
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            raise ValueError("is not an IP address; write * for all interfaces, or e.g. 127.0.0.1 or ::") from None
    return host


def _check_announced(address: str) -> str:
    if not re.fullmatch(_PLACE, address):
        raise ValueError("is not a host and a TCP port; write e.g. /ip4/203.0.113.7/tcp/4001")
    return address


def _check_peer(address: str) -> str:
    if not re.fullmatch(_PLACE + "/p2p/[1-9A-HJ-NP-Za-km-z]{1,64}", address):
        raise ValueError("is not the address of a peer; write e.g. /ip4/203.0.113.7/tcp/4001/p2p/Qm…")
    return address


def _check_wallet(address: str) -> str:
    if address and not re.fullmatch("0x[0-9a-fA-F]{40}", address):
        raise ValueError("must be 0x and 40 hexadecimal digits, or empty")
    return address


def _check_folder(path: str) -> str:
    if path and not (os.path.isabs(path) and path.isprintable() and len(path) <= 1024):
        raise ValueError("must be an absolute path, or empty")
    return path


def check_node(url: str) -> str:
    """ValueError where it is no URL of a node; empty is none."""
    if url and not re.fullmatch(r"https?://[^\s/?#]+\S{0,500}", url):
        raise ValueError("is no URL of a node; write e.g. https://node.example.org, or leave it empty")
    return url


def _check_listen(text: str) -> str:
    if text and not re.fullmatch(r"((\d{1,3}\.){3}\d{1,3}:|\[[0-9A-Fa-f:.]+\]:|localhost:)?[0-9]{1,5}", text):
        raise ValueError(
            "is no [HOST:]PORT with an IP address of this machine; write e.g. 8080 or 0.0.0.0:8080, or leave it empty"
        )
    return text


Seconds = Annotated[float, Field(ge=0.1, le=MAX_SECONDS)]
Host = Annotated[str, AfterValidator(_check_host)]
Announced = Annotated[str, AfterValidator(_check_announced)]
PeerAddress = Annotated[str, AfterValidator(_check_peer)]
Folder = Annotated[str, AfterValidator(_check_folder)]
Wallet = Annotated[str, AfterValidator(_check_wallet)]
NodeUrl = Annotated[str, AfterValidator(check_node)]
Listen = Annotated[str, AfterValidator(_check_listen)]


def _node_urls(given: object) -> object:
    """One stands there as text, as in files of earlier versions; blanks part several, as in SPAREHIVE_RPC."""
    return tuple(given.split()) if isinstance(given, str) else given


def _as_given(urls: tuple[str, ...]) -> str | list[str]:
    return list(urls) if len(urls) > 1 else "".join(urls)


NodeUrls = Annotated[
    tuple[Annotated[NodeUrl, Field(min_length=1)], ...],
    Field(strict=False, max_length=8),
    BeforeValidator(_node_urls),
    PlainSerializer(_as_given),
]


def _check_cid(text: str) -> str:
    parse_any_cid(text)
    return text


def _check_device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,2})?", text):
        raise ValueError("must be auto, cpu, cuda, cuda:0, cuda:1 and so on, or mps")
    return text


Device = Annotated[str, AfterValidator(_check_device)]


class PeerConfig(BaseModel):
    """Settings of one peer. Unknown keys are errors."""

    # strict: true is no number, and "8" is no 8
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    host: Host = Field("*", description="address to listen on; * for all interfaces, IPv4 and IPv6")
    port: int = Field(0, ge=0, le=65535, description="TCP port to listen on; 0: the one of the last start, or any")
    announce: tuple[Announced, ...] = Field(
        (),
        strict=False,
        max_length=64,
        description="multiaddrs told to others besides the visible ones, if they answer from outside",
    )
    peers: tuple[PeerAddress, ...] = Field(
        (),
        strict=False,
        max_length=64,
        description="addresses of live peers to try beside those of the invite, e.g. when its seed is gone",
    )
    client_mode: bool = Field(
        False, description="listen nowhere, open every stream; trains, votes and is paid while others can witness"
    )
    reach_seconds: float = Field(
        300.0,
        ge=5.0,
        le=MAX_SECONDS,
        description="how often linked peers are asked whether this one answers from outside",
    )
    device: Device = Field(
        "auto",
        description="where the inner steps are computed: cpu, cuda, cuda:1, mps; auto: the first CUDA card, if there is one",
    )
    micro_batch: int = Field(
        0,
        ge=0,
        le=65536,
        description="samples of a step that are computed at once, gradients added up; 0: all, or what fits into the memory",
    )
    threads: int = Field(1, ge=1, le=256, description="CPU threads of the inner steps")
    step_pause_seconds: float = Field(
        0.0, ge=0.0, le=60.0, description="rest after each inner step, to leave the machine to its owner"
    )
    startup_timeout_seconds: Seconds = Field(120.0, description="for the p2p daemon; slow machines need more")
    join_timeout_seconds: Seconds = Field(300.0, description="how long to look for a live peer with the anchor")
    sync_seconds: Seconds = Field(30.0, description="how often each link is asked for records that are missing here")
    presence_renew_seconds: float = Field(
        20.0, ge=1.0, le=600.0, description="how often peers are looked for in the DHT"
    )
    presence_expiry_seconds: float = Field(
        60.0, ge=3.0, le=600.0, description="how long this peer counts as present after its last word"
    )
    dht_request_seconds: Seconds = Field(5.0, description="for one answer of a DHT node; slow lines need more")
    snapshot_seconds: Seconds = Field(30.0, description="how often the training state is written to disk, at most")
    disk_write_bytes_per_day: int = Field(
        50 * 10**9,
        ge=2**20,
        le=MAX_COUNT,
        description="how much is written to disk in a day, all told: beyond it what can wait is written less often",
    )
    disk_quota_bytes: int = Field(
        60 * 10**9,
        ge=2**20,
        le=MAX_COUNT,
        description="disk for the whole directory: room is made before it is reached",
    )
    blocks_quota_bytes: int = Field(20 * 2**30, ge=2**20, le=MAX_COUNT, description="disk for anchors and data")
    base_cache: Folder = Field(
        "",
        description="folder of the published models that runs start from, shared by all peers of this user; empty: sparehive/models in the "
        "user's cache directory",
    )
    data_cache_bytes: int = Field(
        2 * 10**9,
        ge=2**21,
        le=MAX_COUNT,
        description="disk for records of the run's data, of which the peer fetches what it needs; the oldest go",
    )
    strangers_bytes_per_day: int = Field(
        20 * 10**9,
        ge=0,
        le=MAX_COUNT,
        description="blocks of the run's content that who has no link in it, as any IPFS node, is given in a day; 0: none",
    )
    upload_bytes_per_day: int = Field(
        0,
        ge=0,
        le=MAX_COUNT,
        description="blocks that everybody together is given in a day, linked or not; 0: without a limit",
    )
    stores: bool = Field(False, description="it keeps content for `sparehive store`, and trains nothing")
    store_cids: tuple[Annotated[str, AfterValidator(_check_cid)], ...] = Field(
        (), strict=False, max_length=256, description="of a storer: content that it keeps whoever else does"
    )
    store_owners: tuple[Annotated[Wallet, Field(min_length=1)], ...] = Field(
        (),
        strict=False,
        max_length=64,
        description="of a storer: accounts whose data sets it keeps, as it hears of them",
    )
    scrub_seconds: float = Field(
        7 * 24 * 3600.0,
        ge=1.0,
        le=MAX_SECONDS,
        description="of a storer: within which every block is read again, so that one that has rotted is fetched from others",
    )
    published: tuple[Annotated[Folder, Field(min_length=1)], ...] = Field(
        (),
        strict=False,
        max_length=64,
        description="folders of data sets and models that were published, whose blocks are handed out beside the run's content",
    )
    stop_after_epoch: int = Field(0, ge=0, le=MAX_COUNT, description="leave after this epoch is certified; 0: stay")
    after_end: Literal["auto", "leave", "serve"] = Field(
        "auto", description="when the run has ended: leave, or serve its last state to others; auto: a seed serves"
    )
    rpc: NodeUrls = Field(
        (),
        description="JSON-RPC of nodes, to watch what the run's organiser proposes: one, or a list of several, which have to agree; "
        "empty: the one that the invite names",
    )
    watch_seconds: float = Field(60.0, ge=1.0, le=86400.0, description="how often they are asked")
    invite_rpc: NodeUrl = Field(
        "", description="of a seed: a node that its invite names, for peers whose owners name none"
    )
    gateway: Listen = Field(
        "",
        description="[HOST:]PORT at which the run's blocks are handed out over HTTP, on this machine alone unless HOST says otherwise; "
        "empty: nowhere",
    )
    ipfs: Listen = Field(
        "",
        description="[HOST:]PORT at which they are handed out over libp2p, by a process beside the peer; empty: nowhere",
    )
    payout: Wallet = Field("", description="wallet that will bind this peer's hot key; shown, never used to sign")


def load_peer_config(path: Path, **overrides: object) -> PeerConfig:
    """`path` (may be absent) with `overrides` (None: not given) on top; ConfigError names field, value and remedy."""
    values: dict[str, object] = {}
    if os.path.lexists(path):
        try:
            values = parse_toml(path.read_bytes())
        except (
            ValueError,
            RecursionError,
        ) as error:  # also a number of thousands of digits, and what is nested too deep
            raise ConfigError(
                "peer.toml",
                str(path),
                f"is not TOML ({in_one_line(error)}): mend that, or move the file away, which leaves the defaults",
            ) from None
    values.update({key: value for key, value in overrides.items() if value is not None})
    try:
        return PeerConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{path.name}: {name}", first.get("input"), "unknown key; remove it") from None
        raise ConfigError(f"{path.name}: {name}", first.get("input"), wanted(first)) from None


def save_peer_config(path: Path, config: PeerConfig) -> None:
    """OSError names the file, which is then as it was."""
    text = tomli_w.dumps({k: v for k, v in config.model_dump(mode="json").items() if v is not None})
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomically(path, text.encode())
