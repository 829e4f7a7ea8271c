"""What has happened to accounts since the block that was read: it is in blocks, and a reorganisation could still undo it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from incentives.chain.registry import RegistryContract
from incentives.chain.settlement import SettlementContract
from incentives.chain.state import RunState
from incentives.claim import Standing
from incentives.errors import ChainError
from incentives.keys import parse_address

if TYPE_CHECKING:
    from incentives.chain.node import Chain


@dataclass(frozen=True)
class Later:
    """By account: what was claimed since then, in which block the last claim is, which wallet it was bound to. `block`: up to where."""

    block: int
    claimed: dict[bytes, int] = field(default_factory=dict)
    blocks: dict[bytes, int] = field(default_factory=dict)
    wallets: dict[bytes, bytes] = field(default_factory=dict)

    def applied(self, standing: Standing) -> Standing:
        """What was claimed is not to be claimed again, and who is bound need not be bound."""
        claimable = max(0, standing.claimable_amount - self.claimed.get(standing.account, 0))
        wallet = standing.wallet or self.wallets.get(standing.account)
        return replace(standing, claimable_amount=claimable, wallet=wallet)


def later_than(chain: "Chain", state: RunState, found: Sequence[Standing]) -> Later:
    """What the newest block says of these accounts beyond `state`; nothing where that is the newest."""
    newest, _ = chain.block(finalised=False)
    if newest <= state.block or not found:
        return Later(state.block)
    accounts = [each.account for each in found]
    contract = SettlementContract(chain, state.settlement)
    paid = contract.claimed_of(accounts, block=newest)
    more = {s.account: now - s.claimed_amount for s, now in zip(found, paid, strict=True) if now > s.claimed_amount}
    owners = RegistryContract(chain, state.registry).wallets_of(accounts, block=newest)
    bound = {s.account: owner for s, owner in zip(found, owners, strict=True) if s.wallet is None and owner is not None}
    return Later(newest, more, _blocks(chain, state, more, newest), bound)


def _blocks(chain: "Chain", state: RunState, claimed: dict[bytes, int], newest: int) -> dict[bytes, int]:
    """Where the node does not look back: the newest, which has it in any case."""
    blocks = dict.fromkeys(claimed, newest)
    if not claimed:
        return {}
    try:
        for block, event in chain.events("Settlement", state.settlement, "Claimed", {}, from_block=state.block + 1):
            if (account := parse_address(event["account"])) in claimed:
                blocks[account] = block
    except ChainError:
        pass
    return blocks


__all__ = ["Later", "later_than"]
