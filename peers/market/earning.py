"""What models owe a wallet, and the calls that pay it: confirmed, collected through parents, paid by payout leaves, withdrawn.

Pure but for what is read: amounts are worked out as the contract will, so that all calls are known before the first is sent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from incentives.chain.license import NO_SETTLEMENT, Licence, LicenseContract, Model, Party, Publication
from incentives.chain.registry import RegistryContract
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import ProvenPayout
from incentives.chain.terms import registry_address
from incentives.chain.unsigned import Call
from incentives.claim import Payouts, payouts_of
from incentives.copies import Copies
from incentives.errors import ChainError, InputError, StorageError, TamperedError
from incentives.keys import to_checksum


@dataclass(frozen=True)
class Contributor:
    """A hot account that is bound to the wallet, with its leaf of the model's payout tree."""

    payout: ProvenPayout
    paid_amount: int


@dataclass(frozen=True)
class Sold:
    """A model as the chain has it. `licences`: by licensee, of all that ever bought; `contributors`: the wallet's own, None where the
    payout table of the model's period is not to be had."""

    id: bytes
    model: Model
    publication: Publication
    parties: list[Party]
    licences: dict[bytes, Licence]
    now: int
    contributors: tuple[Contributor, ...] | None

    def confirmable(self) -> list[bytes]:
        """Licensees whose price is the model's, once somebody says so."""
        return [who for who, each in self.licences.items() if each.state == "complete" and self.now > each.deliver_by]

    def confirmable_amount(self) -> int:
        return sum(self.licences[who].refundable_amount for who in self.confirmable())

    def undecided_amount(self) -> int:
        """That may still be given back to buyers."""
        held = sum(each.refundable_amount for each in self.licences.values() if each.state in ("pending", "complete"))
        return held - self.confirmable_amount()


@dataclass
class Due:
    """What one model has for the wallet, in base units. `as_party`: as its owner or a data owner; `as_contributor`: None: not known."""

    sold: Sold
    as_party: int = 0
    as_contributor: int | None = 0
    to_parents: int = 0
    earned: int = 0  # with what is to be confirmed, and what comes out of models that were made from it
    accounts: dict[bytes, int] = field(default_factory=dict)


@dataclass
class Settled:
    """Of all models: what is due of each, what the contract holds ready by token, and the calls that pay all of it, in their order."""

    dues: list[Due] = field(default_factory=list)
    ready: dict[bytes, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def total(self, token: bytes) -> int:
        """That arrives in that token: withdrawn, and paid out by leaves."""
        by_leaf = sum(each.as_contributor or 0 for each in self.dues if each.sold.model.token == token)
        return self.ready.get(token, 0) + by_leaf


def read_sold(
    contract: LicenseContract, model: bytes, wallet: bytes, copies_of: Callable[[bytes], Copies] | None
) -> Sold:
    """`copies_of`: where a settlement's tables are looked for; None: nowhere. ChainError: the node."""
    contract.chain.renew()
    event, found = contract.publication_event(model), contract.model(model)
    newest, now = contract.chain.block(finalised=False)
    buyers = {each.licensee for each in contract.purchases(model, from_block=event.block, to_block=newest)}
    licences = {who: contract.licence(model, who) for who in sorted(buyers)}
    contributors: tuple[Contributor, ...] | None = ()
    if found.contributors_bps and event.publication.settlement != NO_SETTLEMENT:
        contributors = _contributors(contract, model, found, event.publication.settlement, wallet, copies_of)
    return Sold(model, found, event.publication, contract.parties(model), licences, now, contributors)


def _contributors(
    contract: LicenseContract,
    model: bytes,
    found: Model,
    settlement: bytes,
    wallet: bytes,
    copies_of: Callable[[bytes], Copies] | None,
) -> tuple[Contributor, ...] | None:
    if copies_of is None:
        return None
    run = SettlementContract(contract.chain, settlement)
    state = run.state()
    periods = run.periods(range(state.num_periods), block=state.block)
    period = next((each for each in periods if each.payouts_root == found.payouts_root), None)
    if period is None:
        raise ChainError("the node shows no period with the payouts of the model: use another node")
    try:
        payouts: Payouts = payouts_of(state, period, copies_of(settlement))
    except (InputError, TamperedError, StorageError):
        return None
    accounts = [row.account for row in payouts.rows]
    wallets = RegistryContract(contract.chain, registry_address()).wallets_of(accounts)
    own = [account for account, owner in zip(accounts, wallets, strict=True) if owner == wallet]
    return tuple(
        Contributor(payout, contract.paid_for(model, account))
        for account, payout in zip(own, payouts.prove(own), strict=True)
    )


def with_parents(contract: LicenseContract, models: Iterable[bytes]) -> list[bytes]:
    """The models and all that they were made from, each before what it was made from."""
    order: list[bytes] = []

    def visit(model: bytes) -> None:
        if model in order:
            return
        for parent, _ in contract.publication(model)[1].parents:
            visit(parent)
        order.append(model)

    for model in models:
        visit(model)
    return order[::-1]


def settle(contract: LicenseContract, sold: Iterable[Sold], wallet: bytes) -> Settled:
    """`sold`: in the order of `with_parents`."""
    found, incoming = Settled(), dict[bytes, int]()
    for each in sold:
        due = Due(each, earned=each.model.earned_amount + each.confirmable_amount() + incoming.get(each.id, 0))
        found.dues.append(due)
        if each.confirmable():
            found.calls.append(
                contract.unsigned(None, "confirm", each.id, [to_checksum(w) for w in each.confirmable()])
            )
        for index, party in enumerate(each.parties):
            amount = party.due_amount(due.earned)
            if not amount or not (party.parent or party.account == wallet):
                continue
            found.calls.append(contract.unsigned(None, "collect", each.id, index))
            if party.parent:
                incoming[party.parent] = incoming.get(party.parent, 0) + amount
                due.to_parents += amount
            else:
                due.as_party += amount
        _pay_contributors(contract, due, found.calls)
        token = each.model.token
        if token not in found.ready:
            found.ready[token] = contract.owed(token, wallet)
        found.ready[token] += due.as_party
    for token, amount in found.ready.items():
        if amount:
            call = contract.unsigned(wallet, "withdraw", to_checksum(token), to_checksum(wallet))
            found.calls.append(call)
    return found


def _pay_contributors(contract: LicenseContract, due: Due, calls: list[Call]) -> None:
    sold = due.sold
    if sold.contributors is None:
        due.as_contributor = None
        return
    pot = replace(sold.model, earned_amount=due.earned).contributors_amount()
    left, paid = pot - sold.model.contributors_paid_amount, 0
    for each in sold.contributors:
        amount = pot * each.payout.row.cum_units // sold.model.total_units - each.paid_amount
        if 0 < amount <= left - paid:
            calls.append(contract.unsigned(None, "payContributor", sold.id, *each.payout.arguments()))
            due.accounts[each.payout.row.account] = amount
            paid += amount
    due.as_contributor = paid


__all__ = ["Due", "Settled", "Sold", "read_sold", "settle", "with_parents"]
