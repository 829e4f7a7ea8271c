"""The run's contract Settlement: its money and its periods, and what its organiser and its earners send to it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coincurve import PrivateKey

from incentives.chain.deployment import Deployment
from incentives.chain.reverts import Reverted
from incentives.chain.state import PeriodState, ProvenPayout, RunState
from incentives.chain.terms import Terms
from incentives.chain.token import TokenContract
from incentives.errors import ChainError, InputError, TamperedError
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of

if TYPE_CHECKING:
    from incentives.chain.node import Chain, Sent
    from incentives.chain.unsigned import Call


@dataclass(frozen=True, slots=True)
class SettlementContract:
    """The one at `address`, as the chain's node shows it. Errors are the chain's."""

    chain: "Chain"
    address: bytes

    # -- reading ------------------------------------------------------------------------------------------------------
    def state(self, *, finalised: bool = False) -> RunState:
        """All of it at one block. ChainError where there is none at that address; TamperedError where its terms are not those that
        its address is the hash of."""
        number, block_time = self.chain.block(finalised=finalised)
        try:
            values = self.chain.call("Settlement", self.address, "overview", block=number)
        except ChainError as error:
            if self.chain.has_code(self.address, number):
                raise
            later = " yet at the newest final block" if finalised and self.chain.has_code(self.address, None) else ""
            raise ChainError(
                f"there is no settlement at {to_checksum(self.address)} on chain {self.chain.chain_id}{later}: "
                + ("wait for finality, or read with --latest" if later else "check the address and --rpc")
            ) from error
        state = RunState.of(self.chain.chain_id, self.address, number, block_time, values)
        state.check()
        return state

    def period(self, number: int, *, block: int) -> PeriodState:
        """A period that is final, or proposed."""
        return self.periods([number], block=block)[0]

    def periods(self, numbers: Sequence[int], *, block: int) -> list[PeriodState]:
        """Those that are final, or proposed."""
        found = self.chain.call_each(
            "Settlement", self.address, "periodAt", [(number,) for number in numbers], block=block
        )
        return [PeriodState.of(number, values) for number, values in zip(numbers, found, strict=True)]

    def claimed_of(self, accounts: Sequence[bytes], *, block: int | None = None) -> list[int]:
        """What claims have paid to each hot account so far."""
        found = self.chain.call_many("Settlement", self.address, "claimedOfMany", accounts, block)
        return [int(amount) for amount in found]

    def paid_by(self, hash_: str) -> dict[bytes, int]:
        """What a transaction of claims has paid to each hot account."""
        found: dict[bytes, int] = {}
        for event in self.chain.events_in(hash_, "Settlement", self.address, "Claimed"):
            account = parse_address(event["account"])
            found[account] = found.get(account, 0) + int(event["amount"])
        return found

    def urls_of(self, tables_hash: bytes) -> list[str]:
        """What proposals of these tables have named, each once, the newest first. ChainError too where the node does not look back."""
        found = self.chain.events("Settlement", self.address, "Proposed", {"tablesHash": tables_hash})
        return list(dict.fromkeys(str(event["uri"]) for _, event in reversed(found) if event["uri"]))

    def funded_of(self, account: bytes) -> int:
        """What has arrived from an account, whoever asks."""
        return int(self.chain.call("Settlement", self.address, "fundedOf", to_checksum(account)))

    # -- sending ------------------------------------------------------------------------------------------------------
    def fund(self, key: PrivateKey, token: TokenContract, amount: int, *, again: bool = False) -> "list[Sent]":
        """Allows the settlement to take `amount` from the key's account where it may not yet, and lets it.

        InputError where the contract counts deposits of this account that no command with its key file has told of: a file that was lost
        or emptied after a deposit was sent must not make it two. `again`: another one is meant."""
        owner = account_of(key)
        is_noted = self.chain.has_untold(key, self.address)
        earlier = self.chain.earlier(key, "Settlement", self.address, "fund", amount)
        if earlier is not None:
            self.chain.tell(key, self.address, self.funded_of(owner))
            return [earlier]
        counted, told = self.funded_of(owner), self.chain.told(key, self.address)
        unit = token.unit()
        if told is not None and counted > told and not is_noted and not again:
            raise InputError(
                "--amount",
                unit.written(amount),
                f"the contract counts {unit.shown(counted)} from {to_checksum(owner)}, and commands with this key file have told of "
                f"{unit.shown(told)}: its .sending file may have been lost after a deposit was sent. Nothing was sent now; if you mean "
                "another deposit, give --again",
            )
        has = token.balance_of(owner)
        if has < amount:
            raise InputError(
                "--amount", unit.written(amount), f"{to_checksum(owner)} has {unit.shown(has)}: get more, or fund less"
            )
        sent = []
        allowed = token.allowance(owner, self.address)
        if allowed < amount:
            if allowed:  # left by a deposit that was broken off: some tokens change an allowance only from or to zero
                sent.append(token.approve(key, self.address, 0))
            sent.append(token.approve(key, self.address, amount))
        sent.append(self._transact(key, "fund", amount))
        self.chain.tell(key, self.address, self.funded_of(owner))
        return sent

    def propose(
        self, key: PrivateKey, period: PeriodState, from_epoch: int, uri: str = "", *, replace: bool = False
    ) -> "Sent":
        """`ready_at` of the period is the contract's to set; `number` is where it will stand. The contract refuses
        another `from_epoch` than its own last settled one: what was sent before a reorganisation cannot land elsewhere."""
        return self._transact(key, "replace" if replace else "propose", _proposal(period, from_epoch), uri)

    def cancel(self, key: PrivateKey) -> "Sent":
        return self._transact(key, "cancel")

    def finalise(self, key: PrivateKey, *, wait_seconds: float = 0.0) -> "Sent":
        """Once the window is over, waiting for that up to `wait_seconds` (by the chain's clock, not this machine's)."""
        deadline, pause = time.monotonic() + wait_seconds, 0.5
        while True:
            self.chain.renew()
            try:
                return self._transact(key, "finalise")
            except Reverted as error:
                if error.name != "WindowOpen" or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(1.2 * pause, 5.0)

    def claim(self, key: PrivateKey, payouts: Sequence[ProvenPayout]) -> "Sent":
        """Pays one account, or many in one transaction; in a batch those that are due nothing are passed over."""
        return self._transact(key, *_claiming(payouts))

    # -- for others to send -------------------------------------------------------------------------------------------
    def unsigned_fund(self, sender: bytes, token: TokenContract, amount: int) -> "list[Call]":
        """Allows the settlement to take `amount` from `sender` where it may not yet, and lets it."""
        allowed, calls = token.allowance(sender, self.address), []
        for allowance in () if allowed >= amount else (0, amount) if allowed else (amount,):
            spender = to_checksum(self.address)
            calls.append(self.chain.unsigned("TestToken", token.address, "approve", spender, allowance, sender=sender))
        return [*calls, self._unsigned(sender, "fund", amount)]

    def unsigned_propose(
        self, sender: bytes, period: PeriodState, from_epoch: int, uri: str = "", *, replace: bool = False
    ) -> "Call":
        return self._unsigned(sender, "replace" if replace else "propose", _proposal(period, from_epoch), uri)

    def unsigned_cancel(self, sender: bytes) -> "Call":
        return self._unsigned(sender, "cancel")

    def unsigned_finalise(self) -> "Call":
        return self._unsigned(None, "finalise")

    def unsigned_claim(self, payouts: Sequence[ProvenPayout]) -> "Call":
        return self._unsigned(None, *_claiming(payouts))

    def _unsigned(self, sender: bytes | None, function: str, *arguments: object) -> "Call":
        return self.chain.unsigned("Settlement", self.address, function, *arguments, sender=sender)

    def _transact(self, key: PrivateKey, function: str, *arguments: object) -> "Sent":
        return self.chain.transact(key, "Settlement", self.address, function, *arguments)


def _proposal(period: PeriodState, from_epoch: int) -> tuple[object, ...]:
    """As the contract takes it."""
    return (
        from_epoch,
        period.to_epoch,
        period.total_units,
        period.certificates_count,
        period.receipts_count,
        period.payouts_count,
        period.amount,
        period.budget_amount,
        period.certificates_root,
        period.receipts_root,
        period.payouts_root,
        period.tables_hash,
    )


def _claiming(payouts: Sequence[ProvenPayout]) -> tuple[Any, ...]:
    """Function and arguments."""
    if len(payouts) == 1:
        return ("claim", *payouts[0].arguments())
    return ("claimMany", [payout.arguments() for payout in payouts])


def deploy_settlement(chain: "Chain", key: PrivateKey, terms: Terms) -> Deployment:
    """Makes the contract where it does not stand yet; whoever sends this, the organiser is the one of the terms."""
    chain.create(key, terms.init_code, "Settlement")
    return Deployment(chain.chain_id, terms)


def check_code(chain: "Chain", state: RunState) -> None:
    """TamperedError where settlement or registry are other contracts than these: they could answer anything."""
    for name, address in (("Settlement", state.settlement), ("PeerRegistry", state.registry)):
        if not chain.is_code(name, address, state.block):
            raise TamperedError(
                f"the code at {to_checksum(address)} is not this version's {name}: it may pay anybody; ask the "
                "organiser which version deployed it, and verify with that"
            )


__all__ = ["SettlementContract", "check_code", "deploy_settlement"]
