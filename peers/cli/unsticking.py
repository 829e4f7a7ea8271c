"""unstick: what a key has sent that is in no block, and the two ways out of that: paying more, or taking it back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from coincurve import PrivateKey

from incentives.chain.nodes import Nodes
from incentives.chain.outbox import Outbox
from incentives.keys import to_checksum
from incentives.records import account_of
from peers.cli.options import (
    PATH,
    NamedSettlement,
    fee_options,
    invite_option,
    json_option,
    key_options,
    rpc_option,
    run_option,
    settlement_option,
    show,
)
from peers.cli.places import find_place
from peers.cli.signing import Fees, cost_line, organisers_key, showing_dry_run

if TYPE_CHECKING:
    from incentives.chain.node import Chain
    from incentives.chain.stuck import Waiting


@click.command("unstick")
@click.option("--dir", "directory", type=PATH, help="A peer of the run: its invite says which chain it is.")
@run_option
@settlement_option
@invite_option
@rpc_option
@key_options("who has sent (default with --run DIRECTORY: the run's organiser)", required=False)
@click.option("--bump", is_flag=True, help="Send what waits again, with a higher fee, and fill missing numbers.")
@click.option("--cancel", is_flag=True, help="Put transactions that do nothing in the place of all that waits.")
@fee_options
@json_option
def unstick(
    directory: Path | None,
    run: Path | None,
    settlement: NamedSettlement | None,
    invite: str | None,
    rpc: Nodes,
    keystore: Path | None,
    password_file: Path | None,
    bump: bool,
    cancel: bool,
    max_fee: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show what of a key is in no block yet, and, if asked, pay more for it (--bump) or take it back (--cancel).

    KEYFILE.sending, beside the key file, holds what commands have signed and perhaps sent, and no secret: keep it. It tells the next
    command what became of that, so that nothing is paid twice. After --bump give the command that was stuck again: it finds what
    counted by then."""
    if bump and cancel:
        raise click.UsageError("give either --bump or --cancel")
    place = find_place(run, settlement, directory, invite)
    keystore, key = organisers_key(run, keystore, password_file)
    chain = place.connect(rpc)
    sender = to_checksum(account_of(key))
    fees = Fees(max_fee, dry_run, as_json)
    fees.apply_to(chain)
    with showing_dry_run(fees), Outbox(keystore) as outbox:
        try:
            waiting = chain.waiting(key, outbox)
            if waiting and (bump or cancel):
                _replace_all(chain, key, outbox, waiting, cancel)
        finally:
            outbox.close(done=False)  # the next command looks up what became of all of it
    result = {"sender": sender, "waiting": [_waiting_json(each) for each in waiting], "cost": str(chain.spent_amount)}
    lines = [each.in_words() for each in waiting]
    if not waiting:
        lines = [f"nothing waits: all that {sender} has sent is in blocks"]
    elif bump or cancel:
        done = "were taken back" if cancel else "were sent again with a higher fee"
        lines.append(f"{len(waiting)} transactions {done}; no number waits any more")
    else:
        lines.append("--bump pays more for them and fills what is missing, --cancel takes them back")
    show(as_json, {**result, "done": bool(waiting) and (bump or cancel)}, *lines, *cost_line(chain))


def _replace_all(chain: "Chain", key: PrivateKey, outbox: Outbox, waiting: Sequence["Waiting"], cancel: bool) -> None:
    """Until all of them, or what took their place, are in blocks."""
    theirs = [] if cancel else [each for each in waiting if each.signed is None and each.is_known]
    for each in waiting:
        if each not in theirs:
            chain.replace(key, outbox, each, is_cancelled=cancel)
    chain.wait_for(key, waiting[-1].nonce)
    noted = outbox.noted(chain.chain_id)
    costs = [chain.cost_of(hash_) for nonce, hash_ in noted if nonce >= waiting[0].nonce]
    chain.spent_amount = sum(cost for cost in costs if cost is not None)


def _waiting_json(each: "Waiting") -> dict[str, Any]:
    signed, offer = each.signed, each.offer
    return {
        "number": each.nonce,
        "what": None if signed is None else signed.what,
        "to": None if signed is None else signed.to,
        "hash": None if signed is None else signed.hash,
        "known": each.is_known,
        "fee_per_gas": None if offer is None else str(offer.max_fee),
    }


__all__ = ["unstick"]
