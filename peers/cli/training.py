"""Commands that train: run new, run check, run baseline, run replay, seed, join, export, demo."""

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentives.amounts import Unit
from incentives.keys import parse_address
from peers.belonging import check_role_of, check_run_of
from peers.cli.datasets import data_options
from peers.cli.options import AMOUNT, AMOUNT_OR_ZERO, COUNT, PATH, Amount, Count, show, token_decimals_option
from peers.config import load_peer_config, save_peer_config
from peers.directory import PeerDirectory
from peers.errors import ConfigError
from swarm.atomic import write_atomically

if TYPE_CHECKING:
    from incentives.records import Domain
    from peers.beginning import Start
    from peers.datasets import TakenData

_LISTEN_OPTIONS = (
    click.option("--host", help="Address to listen on (default: all interfaces; 127.0.0.1 for this machine alone)."),
    click.option(
        "--port", type=click.IntRange(0, 65535), help="TCP port to listen on (default: any free one, then the same)."
    ),
    click.option(
        "--rpc",
        metavar="URL",
        multiple=True,
        help="JSON-RPC of a node of the run's chain, to watch what the organiser proposes to pay; several have to agree.",
    ),
    click.option("--announce", multiple=True, help="Address to tell others besides, e.g. /ip4/203.0.113.7/tcp/4001."),
    click.option(
        "--gateway",
        metavar="[HOST:]PORT",
        help="Hand out the run's blocks over HTTP to whoever asks by CID, on this machine alone unless HOST says otherwise (default: not).",
    ),
    click.option(
        "--ipfs",
        metavar="[HOST:]PORT",
        help="Hand them out over libp2p too, to IPFS programs that run in JavaScript, as Helia; needs '.[ipfs]' (default: not).",
    ),
    click.option(
        "--after-end",
        type=click.Choice(["auto", "leave", "serve"]),
        help="When the run has ended: leave, or stay and serve its last state to others (auto, the default: a seed serves).",
    ),
)


_LISTEN_NAMES = ("host", "port", "rpc", "announce", "gateway", "ipfs", "after_end")
_PLACE_NAMES = {"host", "port", "rpc", "announce", "gateway", "ipfs"}


def listen_options(function: Callable[..., None]) -> Callable[..., None]:
    """They come as one: `listen`, by their names in peer.toml."""
    return _as_one(function, _LISTEN_OPTIONS)


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """The same without that of who trains until the run's end."""
    return _as_one(
        function, [option for option, name in zip(_LISTEN_OPTIONS, _LISTEN_NAMES, strict=True) if name in _PLACE_NAMES]
    )


def _as_one(function: Callable[..., None], options: Sequence[Callable[..., Any]]) -> Callable[..., None]:
    @functools.wraps(function)
    def packed(**given: object) -> None:
        listen = {name: given.pop(name) for name in _LISTEN_NAMES if name in given}
        if "rpc" in listen:
            listen["rpc"] = listen["rpc"] or None
        if listen["ipfs"]:
            _check_libp2p(str(listen["ipfs"]))
        function(listen=listen, **given)

    made: Callable[..., None] = packed
    for option in reversed(options):
        made = option(made)
    return made


def _check_libp2p(listen: str) -> None:
    if find_spec("libp2p") is None:
        raise ConfigError("--ipfs", listen, "needs libp2p: pip install 'sparehive[ipfs]' (in a checkout '.[ipfs]')")


def prepare(
    mode: str,
    directory: PeerDirectory,
    run_id: bytes,
    domain: "Domain",
    founders: tuple[bytes, ...] | None,
    files: dict[Path, str],
    **overrides: object,
) -> None:
    """Everything is checked first, then the lock is taken, and only then `files` and peer.toml are written: a start that is refused
    changes nothing."""
    if not overrides.get("announce"):
        overrides.pop("announce", None)
    directory.check()
    wanted = load_peer_config(directory.config, **overrides).device
    if overrides.get("device") and wanted not in ("auto", "cpu"):
        from swarm.device import Cards, choose_device  # torch: seconds that nobody else has to wait here

        choose_device(wanted, Cards.here())
    check_run_of(directory, run_id, domain, founders)
    check_role_of(directory, mode)
    with directory.locked():
        for path, text in files.items():
            if not path.is_file() or path.read_bytes() != text.encode():
                write_atomically(path, text.encode())
        save_peer_config(directory.config, load_peer_config(directory.config, **overrides))


def _payout(where: PeerDirectory, wallet: str | None, is_paid: bool, quiet: bool) -> str | None:
    """The wallet that is named now; None: none, or the one from before. Asks at the first start, if anybody is there."""
    from peers.payee import ask_wallet, can_ask, check_named, read_payee

    if wallet is not None:
        if not is_paid:
            raise ConfigError("--wallet", wallet, "the run has no chain, nothing is paid in it: leave it out")
        return check_named(wallet, where)
    is_first = not os.path.lexists(where.invite) and read_payee(where).state == "none"
    return ask_wallet(where) if is_paid and is_first and not quiet and can_ask() else None


def supervised(mode: str, directory: PeerDirectory, quiet: bool, stop_after_epoch: int | None = None) -> None:
    """Run the peer of `directory` and show it, until it ends; this process ends with its status."""
    from peers.leaving import EXIT_WARNED
    from peers.live import View
    from peers.status import PeerStatus
    from peers.supervisor import supervise

    options = ["--quiet"] if quiet else []
    if stop_after_epoch is not None:
        options += ["--stop-after-epoch", str(stop_after_epoch)]
    arguments = [*options, "--", str(directory.root)]  # its name may begin with a dash
    with View(mode, directory, quiet=quiet) as view:
        if mode == "store":
            code = supervise(["--", str(directory.root)], view, "peers.storing.process")
        else:
            code = supervise([mode, *arguments], view)
        if code == 0 and PeerStatus.read(directory.status).warning:
            code = EXIT_WARNED
        view.finish(code)
    if code:
        sys.exit(code)


@click.command("join")
@click.argument("invite", required=False)
@click.option(
    "--dir",
    "directory",
    type=PATH,
    default=Path("sparehive-peer"),
    show_default=True,
    help="Where this peer keeps everything.",
)
@listen_options
@click.option(
    "--client/--listen",
    "client_mode",
    default=None,
    help="Listen nowhere: open every stream (behind NAT, in a notebook).",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    help="Address of a live peer (see its status.json) to try beside those of INVITE, e.g. when its seed is gone.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of the training steps (default 1).")
@click.option(
    "--device",
    help="Where the training steps are computed: cpu, cuda, cuda:1, mps, or auto (the default): the first CUDA card, if there is one.",
)
@click.option(
    "--micro-batch",
    type=click.IntRange(0, 65536),
    help="Samples of a step that are computed at once, for small memories (default 0: all, or what turns out to fit).",
)
@click.option(
    "--data-cache",
    type=COUNT,
    metavar="BYTES",
    help="Disk for what is fetched of the run's data, as 200M (default 2G): what was needed longest ago goes.",
)
@click.option(
    "--wallet",
    metavar="ADDRESS",
    help="Whose wallet its pay is for; asked for at the first start, where there is a terminal. `bind` makes it so on chain.",
)
@click.option("--stop-after-epoch", type=click.IntRange(0), help="Leave when this epoch is certified (default: stay).")
@click.option("--quiet", is_flag=True, help="No live view; write status.json only.")
def join(
    invite: str | None,
    directory: Path,
    listen: dict[str, object],
    client_mode: bool | None,
    peers: tuple[str, ...],
    threads: int | None,
    device: str | None,
    micro_batch: int | None,
    data_cache: Count | None,
    wallet: str | None,
    stop_after_epoch: int | None,
    quiet: bool,
) -> None:
    """Join a training run: INVITE is the text that the organiser gave you, or a file that holds it.

    Without INVITE a peer that has joined before goes on. Ctrl-C leaves cleanly and keeps the last unit."""
    from peers.invite import Invite

    where = PeerDirectory(directory)
    if invite is None:
        if not os.path.lexists(where.invite):
            raise click.UsageError("INVITE is missing, and --dir holds none from before")
        decoded, files = Invite.of_file(where.invite), {}
    else:
        decoded = Invite.decode(invite)
        files = {where.invite: decoded.encode() + "\n"}
    cache = data_cache.number if data_cache else None
    here: dict[str, object] = {
        "threads": threads,
        "device": device,
        "micro_batch": micro_batch,
        "data_cache_bytes": cache,
    }
    prepare(
        "join",
        where,
        decoded.binding.run_id,
        decoded.binding.domain(),
        decoded.binding.founders,
        files,
        client_mode=client_mode,
        peers=peers or None,
        **here,
        **listen,
        payout=_payout(where, wallet, decoded.binding.chain_id != 0, quiet),
    )
    supervised("join", where, quiet, stop_after_epoch)


@click.command("seed")
@click.argument("run_directory", type=PATH)
@click.option(
    "--dir",
    "directory",
    type=PATH,
    default=Path("sparehive-seed"),
    show_default=True,
    help="Where this seed keeps everything.",
)
@listen_options
@click.option(
    "--invite-rpc",
    metavar="URL",
    help="A node that the invite names, for volunteers who name none: no key of yours in it.",
)
@click.option("--keystore", type=PATH, help="The organiser's keystore (default: the one `run new` made).")
@click.option("--password-file", type=PATH, help="File with its password.")
@click.option("--quiet", is_flag=True, help="Print the invite only.")
def seed(
    run_directory: Path,
    directory: Path,
    listen: dict[str, object],
    invite_rpc: str | None,
    keystore: Path | None,
    password_file: Path | None,
    quiet: bool,
) -> None:
    """Start the bootstrap peer (a founder) of the run in RUN_DIRECTORY and print the invite.

    It trains nothing: it helps peers find each other, signs the first seating, keeps blocks, certificates and receipts."""
    from incentives.keys import unlock_key
    from incentives.records import account_of
    from peers.runs import RunDirectory

    run = RunDirectory(run_directory.resolve())
    config = run.load()  # what is bad is refused before anything starts
    domain = run.domain(config)
    keystore, password_file = keystore or run.organiser_key, password_file or run.organiser_password
    run.limits(run.load(), account_of(unlock_key(keystore, password_file)))
    where = PeerDirectory(directory)
    link = {"run": str(run.root), "keystore": str(keystore), "password_file": str(password_file)}
    files = {where.seed_link: json.dumps(link, indent=1) + "\n"}
    prepare("seed", where, config.run_id, domain, None, files, **listen, invite_rpc=invite_rpc)
    supervised("seed", where, quiet)


@click.command("export")
@click.option(
    "--dir",
    "directory",
    type=PATH,
    default=Path("sparehive-peer"),
    show_default=True,
    help="A peer's directory.",
)
@click.option("--out", type=PATH, required=True, help="Folder to write; must not exist or be empty.")
@click.option(
    "--merge", is_flag=True, help="Of a run that trains an adapter: write the whole model, the adapter in its weights."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(directory: Path, out: Path, merge: bool, as_json: bool) -> None:
    """Write the newest certified model as a folder that from_pretrained of transformers opens, or of peft where an adapter was trained,
    and `sparehive evaluate` and `sample`; with its card (README.md) and what it came out of (lineage.json)."""
    from peers.exporting import export_peer

    result = export_peer(PeerDirectory(directory), out, merge)
    epoch, known = result["epoch"], result["known_epoch"]
    later = (
        f" (epoch {known} was certified, too, but this peer stopped before it had that state)" if known > epoch else ""
    )
    click.echo(json.dumps(result) if as_json else f"epoch {epoch} written to {out}{later}")


def _as_utf8(text: str) -> str:
    """An argument whose bytes are not of this locale (LC_ALL=C) comes as half characters; everybody else's encoding is UTF-8."""
    return text if text.isprintable() else os.fsencode(text).decode("utf-8", "surrogateescape")


_START_OPTIONS = (
    click.option(
        "--from",
        "start_from",
        metavar="MODEL",
        help="Start from a published model: a folder of a Hugging Face model or of `sparehive export`, OWNER/NAME of a hub, or the CID of "
        "another run's base (default: from noise).",
    ),
    click.option(
        "--blocks",
        multiple=True,
        metavar="DIR|ADDR",
        help="Where the blocks of a CID of --from are: a run's, seed's or peer's directory, a gateway's http(s)://HOST[:PORT], a node's "
        "/ip4/…/p2p/…, a CAR file.",
    ),
    click.option(
        "--lora",
        "rank",
        type=click.IntRange(1, 1024),
        metavar="RANK",
        help="Train low-rank adapters of this rank beside it, not its weights; --set task.model.train.targets=[…] says where.",
    ),
    click.option(
        "--freeze",
        multiple=True,
        metavar="PART",
        help="Leave a part of it as it is: embeddings, head, layers.3, layers.0-5.",
    ),
    click.option(
        "--base",
        type=click.Choice(["fp32", "bf16", "int8", "nf4"]),
        help="With --lora: the numbers in which peers hold the model itself (default: fp32).",
    ),
)


def _start_options(function: Callable[..., None]) -> Callable[..., None]:
    """They come as one: `start`, a `Start` or None."""

    @functools.wraps(function)
    def packed(
        start_from: str | None,
        blocks: tuple[str, ...],
        rank: int | None,
        freeze: tuple[str, ...],
        base: str | None,
        **others: object,
    ) -> None:
        from peers.beginning import Start

        if start_from is None and (rank or freeze or base or blocks):
            raise click.UsageError(
                "--lora, --freeze, --base and --blocks are about a published model: name it with --from"
            )
        start = None if start_from is None else Start(start_from, rank or 0, freeze, base or "", blocks)
        function(start=start, **others)

    made: Callable[..., None] = packed
    for option in reversed(_START_OPTIONS):
        made = option(made)
    return made


@click.command("new")
@click.argument("run_directory", type=PATH)
@click.option("--name", default="my-run", show_default=True, callback=lambda *given: _as_utf8(given[-1]))
@data_options
@click.option("--text-column", metavar="NAME", help='Which column of the rows holds the text (default "text").')
@click.option("--label-column", metavar="NAME", help='Which column of the rows holds the label (default "label").')
@click.option(
    "--task",
    type=click.Choice(["causal_lm", "chat", "text_classification", "image_classification"]),
    default="causal_lm",
    show_default=True,
    help="What is learnt: the next token, what an assistant says, labels of texts, or of images.",
)
@click.option("--records", is_flag=True, help="Make records of a small text, too: peers fetch what they need of it.")
@click.option(
    "--preset",
    type=click.Choice(["demo", "small", "base"]),
    default="small",
    show_default=True,
    help="Model size and round lengths.",
)
@click.option(
    "--unit-price",
    type=AMOUNT_OR_ZERO,
    default="0.001",
    show_default=True,
    help="Reward of a unit, in tokens, or with the suffix `base` in base units.",
)
@token_decimals_option(18)
@click.option(
    "--tokenizer",
    metavar="bytes|bpe:N|FILE",
    help="A byte is a token; or train a byte-level BPE of N tokens on the data; or the tokenizer.json of a published model (default: "
    "that of --from, where it has one, else bytes).",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any field of run.toml, e.g. inner.lr=0.003 (TOML value); a table is merged into the preset's.",
)
@click.option(
    "--tokens",
    type=COUNT,
    metavar="N",
    help="The run ends when so many were trained on, as 1.5M: fills in inner.total_units and inner.warmup_units.",
)
@click.option("--samples", type=COUNT, metavar="N", help="The same in samples, as 20k.")
@click.option(
    "--organiser",
    metavar="ADDRESS",
    help="Who proposes what is paid, where that is another wallet: a Safe, a hardware wallet. The run's own key then only signs invites.",
)
@click.option(
    "--store-price",
    type=AMOUNT,
    help="Pay people to store the run's data and base: for a GiB and epoch, shared by its storers; in tokens or, with `base`, base units.",
)
@click.option(
    "--store-replicas",
    type=click.IntRange(1, 64),
    default=3,
    show_default=True,
    help="With --store-price: how many storers of one thing are paid at most.",
)
@_start_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run_new(
    run_directory: Path,
    name: str,
    data: Path | None,
    dataset: "TakenData | None",
    text_column: str | None,
    label_column: str | None,
    task: str,
    records: bool,
    preset: str,
    unit_price: Amount,
    token_decimals: int,
    tokenizer: str | None,
    settings: tuple[str, ...],
    tokens: Count | None,
    samples: Count | None,
    organiser: str | None,
    store_price: Amount | None,
    store_replicas: int,
    start: "Start | None",
    as_json: bool,
) -> None:
    """Make RUN_DIRECTORY with run.toml, the data, the initial model and an organiser's key."""
    from peers.choosing import DataShape
    from peers.creating import create_run
    from peers.planning import Length, Plan
    from peers.progressbar import ProgressBar
    from peers.runs import RunDirectory
    from peers.storage import Storing, storage_line

    if tokens is not None and samples is not None:
        raise click.UsageError("--tokens and --samples both say when the run ends: give one of them")
    given = tokens or samples
    length = None if given is None else Length("--tokens" if tokens else "--samples", given.text, given.number)
    price = unit_price.base_units(Unit.of("", token_decimals), "--unit-price")
    shape = DataShape(records, text_column, label_column, task)
    tokens_of = tokenizer or (start and start.tokenizer()) or "bytes"
    wallet = None if organiser is None else parse_address(organiser)
    unit = Unit.of("", token_decimals)
    storing = None
    if store_price is not None:
        storing = Storing.of(store_price.base_units(unit, "--store-price"), store_replicas)
    more = (ProgressBar(), length, shape, start, dataset, wallet, storing)
    result = create_run(run_directory, name, data, preset, price, settings, tokens_of, *more)
    made = f"run {result['run_id']} in {run_directory}: {result['parameters']:,} parameters"
    config = RunDirectory(run_directory).load()
    stored = [] if config.storage is None else [storage_line(config.storage, unit)]
    show(as_json, result, made, Plan.of(config).line(), *stored)


@click.command("check")
@click.argument("run", type=PATH)
@click.option(
    "--epoch-seconds",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="How long an epoch takes: decides the disk that audits need, and how long a deposit lasts.",
)
@token_decimals_option(None)
@click.option("--deposit", type=AMOUNT, help="Say too how long so many tokens last.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run_check(
    run: Path, epoch_seconds: float, token_decimals: int | None, deposit: Amount | None, as_json: bool
) -> None:
    """Check RUN (a run.toml or the directory that holds one) and print what it asks of a peer: memory, bytes per round, disk
    for audits; and what it pays, in the token of the chain.json beside it, or in one of --token-decimals.

    Where data and blocks lie beside it, they are opened as a seed and a peer will, and a first step is taken."""
    from peers.planning import Plan
    from peers.progressbar import ProgressBar
    from peers.runs import check_run, costs_of
    from swarm.config import load_run

    toml = run / "run.toml" if run.is_dir() else run
    costs, unit = costs_of(toml, token_decimals)
    amount = None if deposit is None else deposit.base_units(unit, "--deposit")
    result = check_run(toml, epoch_seconds, ProgressBar())
    plan = Plan.of(load_run(toml)).line()
    paid = [plan, costs.line(unit), *([] if amount is None else costs.lasts(amount, unit, epoch_seconds))]
    show(
        as_json,
        result | costs.json_value() | unit.json_value(),
        *(f"{key}: {value}" for key, value in result.items()),
        *paid,
    )


@click.command("baseline")
@click.argument("run_directory", type=PATH)
@click.option("--units", type=click.IntRange(0), required=True, help="Units that the lone peer trains.")
@click.option("--every", type=click.IntRange(0), default=0, help="Measure each so many units too (--json: curve).")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run_baseline(run_directory: Path, units: int, threads: int, every: int, as_json: bool) -> None:
    """Train alone on the run's data and print the held-out loss before and after: what joining is worth."""
    from peers.baseline import baseline

    result = baseline(run_directory, units, threads, every)
    click.echo(
        json.dumps(result)
        if as_json
        else f"untrained {result['untrained']:.4f}, after {units} units alone {result['loss']:.4f}"
    )


@click.command("replay")
@click.option(
    "--dir",
    "directory",
    type=PATH,
    default=Path("sparehive-peer"),
    show_default=True,
    help="A peer's directory.",
)
@click.option("--epoch", type=click.IntRange(1), help="Whose contribution to redo (default: the newest that is kept).")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run_replay(directory: Path, epoch: int | None, threads: int, as_json: bool) -> None:
    """Redo a contribution that a peer has kept, as an auditor would, and print how far it is from the signed one.

    Exit status 1 where the distance is beyond the run's tolerance."""
    import torch

    from peers.replaying import replay_peer

    torch.set_num_threads(threads)
    result = replay_peer(PeerDirectory(directory), epoch)
    word = "within" if result["passed"] else "NOT within"
    click.echo(
        json.dumps(result)
        if as_json
        else f"epoch {result['epoch']}: {result['inner_steps']} inner steps redone in {result['seconds']} s; distance "
        f"{result['distance']:.2e}, {word} the tolerance of {result['tolerance']:.2e}"
        + (f" (made on {result['made_on']}, redone on {result['redone_on']})" if result["made_on"] else "")
        + (f"; {result['fault']}" if result["fault"] else "")
    )
    if not result["passed"]:
        sys.exit(1)


@click.command("demo")
@click.option("--dir", "directory", type=PATH, default=Path("build/demo"), show_default=True)
@click.option("--data", type=PATH, help="Your own text (default: the Python standard library's source).")
@click.option("--epochs", type=click.IntRange(4), default=40, show_default=True)
@click.option("--transfer", is_flag=True, help="Instead: pre-train, publish, and fine-tune on another text (--data).")
@click.option("--market", is_flag=True, help="Instead: train a model, sell it, and pay everybody who made it.")
def demo(directory: Path, data: Path | None, epochs: int, transfer: bool, market: bool) -> None:
    """A whole run on this machine: chain, seed, four peers, a kill, settlement, claims, a table and a plot."""
    from peers.demo import run_demo

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if market and (transfer or data is not None):
        raise click.UsageError("--market goes with neither --transfer nor --data")
    if market:
        from peers.demo_market import run_market_demo

        run_market_demo(directory)
    elif transfer:
        from peers.demo_transfer import run_transfer_demo

        run_transfer_demo(directory, data)
    else:
        run_demo(directory, data, epochs)
