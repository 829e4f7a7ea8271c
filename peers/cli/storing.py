"""`sparehive store`: keep content of a run."""

import os
from pathlib import Path

import click

from peers.cli.options import BYTES, PATH, Count
from peers.cli.training import place_options, prepare, supervised
from peers.directory import PeerDirectory
from peers.errors import ConfigError


@click.command("store")
@click.option(
    "--run", "invite", metavar="INVITE", help="The run's invite, or a file that holds it: what the run lists is kept."
)
@click.option(
    "--cid",
    "cids",
    metavar="CID",
    multiple=True,
    help="Content that is kept whoever else does: a data set, a model. Again for more.",
)
@click.option(
    "--owner",
    "owners",
    metavar="ACCOUNT",
    multiple=True,
    help="Keep every data set of this account that a linked peer hands out. Again for more.",
)
@click.option("--quota", type=BYTES, metavar="BYTES", help="Disk for the whole directory, as 50GB (default 60GB).")
@click.option(
    "--bandwidth",
    type=BYTES,
    metavar="BYTES",
    help="What everybody together may fetch of it in 24 hours, as 20GB (default: without a limit).",
)
@click.option(
    "--dir",
    "directory",
    type=PATH,
    default=Path("sparehive-store"),
    show_default=True,
    help="Where this storer keeps everything.",
)
@place_options
@click.option(
    "--peer",
    "peers",
    multiple=True,
    help="Address of a live peer (see its status.json) to try beside those of INVITE, e.g. when its seed is gone.",
)
@click.option("--quiet", is_flag=True, help="No live view; write status.json only.")
def store(
    invite: str | None,
    cids: tuple[str, ...],
    owners: tuple[str, ...],
    quota: Count | None,
    bandwidth: Count | None,
    directory: Path,
    listen: dict[str, object],
    peers: tuple[str, ...],
    quiet: bool,
) -> None:
    """Keep content of a run for others: its data, the model it starts from, and what you name. Needs no torch and no graphics card.

    Of the storers that the run has, the first by a draw keep each object; when one leaves, the next fetches its copies from the others
    within a minute. What does not fit into --quota is left to others. Without --run a storer that has run before goes on, with what it was
    given then. Ctrl-C leaves cleanly.

    A storer shows that it can reach the bytes when it is asked, not that it alone has them, nor that it has more copies than
    one: accounts of one owner can share a copy, and who fetches on demand looks like who stores (docs/storing.md)."""
    from peers.invite import Invite

    where = PeerDirectory(directory)
    if invite is None:
        if not os.path.lexists(where.invite):
            raise click.UsageError("--run INVITE is missing, and --dir holds none from before")
        decoded, files = Invite.of_file(where.invite), {}
    else:
        decoded = Invite.decode(invite)
        files = {where.invite: decoded.encode() + "\n"}
    for address in owners:
        if len(address) != 42:
            raise ConfigError("--owner", address, "is no account: give 0x and 40 hexadecimal digits")
    prepare(
        "store",
        where,
        decoded.binding.run_id,
        decoded.binding.domain(),
        decoded.binding.founders,
        files,
        stores=True,
        store_cids=cids or None,
        store_owners=tuple(each.lower() for each in owners) or None,
        disk_quota_bytes=quota.number if quota else None,
        upload_bytes_per_day=bandwidth.number if bandwidth else None,
        peers=peers or None,
        **listen,
    )
    supervised("store", where, quiet)
