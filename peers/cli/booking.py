"""books: one HTML page in which anybody looks up what an account has earned, with its proof. It needs the base install alone."""

from pathlib import Path

import click

from incentives.books import check_books
from incentives.chain.nodes import Nodes
from incentives.chain.registry import RegistryContract
from incentives.chain.settlement import SettlementContract, check_code
from incentives.errors import ChainError, StorageError, disk_remedy
from incentives.shelf import Shelf
from peers.cli.options import (
    PATH,
    NamedSettlement,
    invite_option,
    json_option,
    latest_option,
    rpc_option,
    run_option,
    settlement_option,
    show,
    tables_option,
)
from peers.cli.places import copies_of, find_place
from swarm.atomic import write_atomically


@click.command("books")
@run_option
@settlement_option
@invite_option
@rpc_option
@tables_option
@click.option("--dir", "directory", type=PATH, help="A peer of the run, whose ledger gives tables that are lost.")
@click.option("--out", type=PATH, required=True, help="The HTML file to write; another one there is replaced.")
@click.option("--title", default="", help="What the page is called (default: the run's id).")
@latest_option
@json_option
def books(
    run: Path | None,
    settlement: NamedSettlement | None,
    invite: str | None,
    rpc: Nodes,
    tables: Shelf,
    directory: Path | None,
    out: Path,
    title: str,
    latest: bool,
    as_json: bool,
) -> None:
    """Write a page from the published tables: an account's periods, units, amounts, proof, wallet and claims.

    One file without a server; nothing in it is fetched, so it works offline. The tables are compared with the chain first. Put it
    beside them; PAGE#0x… opens at an account."""
    from peers.bookpage import Account, page

    place = find_place(run, settlement, directory, invite)
    chain = place.connect(rpc)
    state = place.state(chain, finalised=not latest)
    check_code(chain, state)
    unit = place.unit(chain, state)
    checked = check_books(chain, state, copies_of(chain, state.settlement, tables, directory, invite), None)
    if not checked:
        raise ChainError("no books yet: no period is proposed or final")
    named = sorted({row.account for each in checked for row in each.tables.payouts})
    wallets = RegistryContract(chain, state.registry).wallets_of(named, block=state.block)
    claimed = SettlementContract(chain, state.settlement).claimed_of(named, block=state.block)
    accounts = {a: Account(w, c) for a, w, c in zip(named, wallets, claimed, strict=True)}
    text = page(state, checked, accounts, unit, title or f"run 0x{state.run_id.hex()[:8]}…")
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror}: {disk_remedy(error)}") from None
    result = {
        "path": str(out),
        "block": state.block,
        "periods": len(checked),
        "accounts": len(named),
        "bytes": len(text.encode()),
    }
    show(as_json, result, f"{len(checked)} periods and {len(named)} accounts in {out}")


__all__ = ["books"]
