"""The books as one HTML page: no server, no other file, nothing fetched. Anybody looks an account up in it, offline too.

Pure: what the chain said and the checked tables come in, the page goes out. Words of strangers (a token's symbol) are data in it.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from incentives.amounts import Unit
from incentives.books import Checked
from incentives.chain.state import RunState
from incentives.keys import to_checksum
from incentives.tables import Tables
from peers.moments import until


@dataclass(frozen=True, slots=True)
class Account:
    """What the chain says of one at the block of the state."""

    wallet: bytes | None
    claimed_amount: int


def page(state: RunState, checked: Sequence[Checked], accounts: Mapping[bytes, Account], unit: Unit, name: str) -> str:
    """`checked`: the periods whose tables are here and hold, in their order; `accounts`: everybody in them."""
    data = {
        "unit": {"decimals": unit.decimals or 0, "word": unit.word},
        "periods": [each.period.number for each in checked],
        **_payouts(state, checked, accounts),
        "work": _work(checked),
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")
    rows = "\n".join(_period_row(each, state, unit) for each in checked)
    missing = state.num_periods - sum(each.is_final for each in checked)
    note = f"<p>The tables of {missing} earlier periods were not at hand.</p>" if missing else ""
    values = {
        "TITLE": html.escape(name),
        "ABOUT": html.escape(
            f"Run 0x{state.run_id.hex()}, settlement {to_checksum(state.settlement)} on chain {state.chain_id}, as it was at block "
            f"{state.block} ({until(state.block_time)}). Funded {unit.shown(state.funded_amount)}, released "
            f"{unit.shown(state.released_amount)}, claimed {unit.shown(state.claimed_amount)}. A unit of work is worth "
            f"{unit.shown(state.unit_price_amount)}."
        ),
        "ROWS": rows,
        "NOTE": note,
        "DATA": text,
    }
    parts = _PAGE.split("@@")
    return "".join(values[part] if index % 2 else part for index, part in enumerate(parts))


def _payouts(state: RunState, checked: Sequence[Checked], accounts: Mapping[bytes, Account]) -> dict[str, Any]:
    """Of the newest final period: its leaves and their proofs, every node of the tree once."""
    final = next((each.tables for each in reversed(checked) if each.is_final), None)
    nodes: dict[bytes, int] = {}
    found: dict[str, list[Any]] = {}
    tree = final.payout_tree() if final is not None else None
    rows = {row.account: (index, row) for index, row in enumerate(final.payouts if final is not None else ())}
    for account, said in accounts.items():
        index, row = rows.get(account, (None, None))
        leaf = (
            []
            if row is None
            else [row.cum_units, row.cum_earned, row.cum_forfeited, row.cum_withheld, row.cum_claimable]
        )
        proof = (
            [] if index is None or tree is None else [nodes.setdefault(node, len(nodes)) for node in tree.proof(index)]
        )
        found[to_checksum(account)] = [
            None if said.wallet is None else to_checksum(said.wallet),
            str(said.claimed_amount),
            index,
            list(map(str, leaf)),
            proof,
        ]
    last = state.last
    return {
        "accounts": found,
        "nodes": "".join(node.hex() for node in nodes),
        "root": None if last is None else "0x" + last.payouts_root.hex(),
        "count": 0 if last is None else last.payouts_count,
    }


def _work(checked: Sequence[Checked]) -> dict[str, list[list[Any]]]:
    """Account → [period, is final, units, base units that it adds]."""
    found: dict[str, list[list[Any]]] = {}
    for each in checked:
        for account, units, amount in shares(each.tables):
            found.setdefault(to_checksum(account), []).append([each.period.number, each.is_final, units, str(amount)])
    return found


def shares(tables: Tables) -> list[tuple[bytes, int, int]]:
    """(account, units, base units) of a period, by its receipts."""
    units = {row.account: row.account_units for row in tables.receipts}  # the last row of an account holds its sum
    pool_amount = min(tables.budget_amount, tables.unit_price_amount * tables.total_units)
    return [(account, own, pool_amount * own // tables.total_units) for account, own in units.items()]


def _period_row(each: Checked, state: RunState, unit: Unit) -> str:
    period = each.period
    ready = until(period.ready_at)
    status = "final" if each.is_final else f"proposed: in its window until {ready}"
    if not each.is_final and period.ready_at <= state.block_time:
        status = f"proposed: its window ended {ready}"
    cells = (
        period.number,
        f"{each.tables.from_epoch + 1}–{each.tables.to_epoch}",
        period.receipts_count,
        period.total_units,
        unit.shown(period.amount),
        status,
        "0x" + period.tables_hash.hex(),
    )
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Books of @@TITLE@@</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td:last-child { overflow-wrap: anywhere; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; border: 1px solid #888; border-radius: .3rem; }
pre { background: #f3f3f3; padding: .75rem; border-radius: .3rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; } dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
.bad { color: #a00000; font-weight: 600; }
@media (prefers-color-scheme: dark) {
body { color: #e8e8e8; background: #161616; } th, td { border-color: #3a3a3a; } pre { background: #242424; } dt { color: #aaa; }
input { background: #242424; color: inherit; } .bad { color: #ff8a80; } }
</style>
</head>
<body>
<h1>Books of @@TITLE@@</h1>
<p>@@ABOUT@@</p>
<h2><label for="account">Look up an account, or a wallet</label></h2>
<input id="account" placeholder="0x… (its beginning is enough)" autocomplete="off" spellcheck="false">
<div id="found" aria-live="polite"></div>
<noscript><p class="bad">Looking up takes JavaScript, which is in this file; nothing is fetched.</p></noscript>
<h2>Periods</h2>
@@NOTE@@
<div class="wide"><table>
<thead><tr><th>period</th><th>epochs</th><th>receipts</th><th>units</th><th>releases</th><th>state</th><th>hash of its tables</th></tr>
</thead>
<tbody>
@@ROWS@@
</tbody></table></div>
<p>This page was made from tables whose hashes and roots are those on chain; what it says is as good as who made it. <code>sparehive
verify</code> computes all of it again.</p>
<script type="application/json" id="data">@@DATA@@</script>
<script>
"use strict";
const books = JSON.parse(document.getElementById("data").textContent);
const MOST = 20;
const box = document.getElementById("found");
function shown(text) {
  const amount = BigInt(text), scale = 10n ** BigInt(books.unit.decimals);
  const part = (amount % scale).toString().padStart(books.unit.decimals, "0").replace(/0+$/, "");
  return (amount / scale).toString() + (part && books.unit.decimals ? "." + part : "") + " " + books.unit.word;
}
function add(parent, tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
}
function show(account) {
  const [wallet, claimed, index, leaf, proof] = books.accounts[account];
  add(box, "h3", account);
  const list = add(box, "dl");
  const due = leaf.length ? BigInt(leaf[4]) - BigInt(claimed) : 0n;
  const said = [
    ["bound to", wallet === null ? "no wallet yet: whoever has its key can bind it" : wallet],
    ["earned so far", leaf.length ? shown(leaf[1]) + " for " + leaf[0] + " units" : "nothing that is final"],
    ["claimed", shown(claimed)],
    ["claimable", shown((due > 0n ? due : 0n).toString())],
  ];
  for (const [name, value] of said) { add(list, "dt", name); add(list, "dd", value); }
  const wide = add(box, "div", undefined, "wide"), table = add(wide, "table");
  const head = add(add(table, "thead"), "tr");
  for (const name of ["period", "units", "amount", "state"]) add(head, "th", name);
  const body = add(table, "tbody");
  for (const [number, isFinal, units, amount] of books.work[account] || []) {
    const row = add(body, "tr");
    for (const cell of [number, units, shown(amount), isFinal ? "final" : "proposed"]) add(row, "td", String(cell));
  }
  if (index === null) return;
  const siblings = proof.map((at) => "0x" + books.nodes.slice(64 * at, 64 * at + 64));
  const where = " (root " + books.root + ", " + books.count + " leaves):";
  add(box, "p", "Its leaf and proof in the newest final tree, as claim() takes them" + where);
  add(box, "pre", JSON.stringify({ leaf: [account, ...leaf], index, proof: siblings }, null, 1));
}
function look() {
  const asked = document.getElementById("account").value.trim().toLowerCase();
  box.replaceChildren();
  if (asked.length < 3) return;
  const isHit = (text) => text !== null && text.toLowerCase().startsWith(asked);
  const hits = Object.keys(books.accounts).filter((account) => isHit(account) || isHit(books.accounts[account][0]));
  if (!hits.length) add(box, "p", "No such account or wallet has earned in the periods below.", "bad");
  hits.slice(0, MOST).forEach(show);
  if (hits.length > MOST) add(box, "p", "… and " + (hits.length - MOST) + " more: give more of the address.");
}
document.getElementById("account").addEventListener("input", look);
window.addEventListener("hashchange", start);
function start() {
  const asked = decodeURIComponent(location.hash.slice(1));
  if (asked) { document.getElementById("account").value = asked; look(); }
}
start();
</script>
</body>
</html>
"""

__all__ = ["Account", "page", "shares"]
