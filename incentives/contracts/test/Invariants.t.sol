// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SettlementBase} from "./Base.sol";
import {Settlement} from "../src/Settlement.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @dev A token of the kind that `kind` says: plain; keeps a fee; shrinks what it holds; calls back; answers false; blocks.
contract OddToken is ERC20 {
    uint8 public immutable KIND;
    uint256 private _mood;
    address private _target;
    bytes private _call;

    constructor(uint8 kind) ERC20("Odd", "ODD") {
        (KIND, _mood) = (kind, 7); // friendly at first
        _mint(msg.sender, 1e30);
    }

    function turn(uint256 mood, address settlement, bytes calldata call_) external {
        (_mood, _target, _call) = (mood, settlement, call_);
        if (KIND == 2 && mood % 3 == 0) _burn(settlement, balanceOf(settlement) / 7);
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return !refuses(to) && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !refuses(from) && super.transferFrom(from, to, value);
    }

    function refuses(address other) private view returns (bool) {
        if (KIND == 5 && uint160(other) % 3 == _mood % 4) revert("blocked");
        return KIND == 4 && _mood % 3 == 0;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from == address(0) || to == address(0)) return;
        if (KIND == 1) super._update(to, address(0xFEE), value / 10);
        if (KIND != 3 || _target == address(0)) return;
        address target = _target;
        _target = address(0); // once
        (bool ok,) = target.call(_call);
        ok;
    }
}

/// @dev Funds, proposes (often lies), waits, finalises, cancels, binds and claims in any order.
contract Actor is SettlementBase {
    uint256 private constant ACCOUNTS = 5;
    uint256 private constant KEPT = 8;
    OddToken private immutable ODD;
    Settlement.PayoutLeaf[] private _proposed;
    Settlement.PayoutLeaf[] private _final;
    uint256 public finalised;
    uint256 private _proposedAt;
    uint256[KEPT] private _at;
    uint256[KEPT] private _amounts;
    string public broken;
    uint256 public units;
    uint256 public amount;
    address[ACCOUNTS] public accounts;

    constructor(OddToken token_, PeerRegistry registry_, Settlement settlement_) {
        (ODD, registry, settlement) = (token_, registry_, settlement_);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            accounts[i] = VM.addr(i + 1); // dear: once
        }
    }

    function isPending() private view returns (bool) {
        return settlement.periodAt(settlement.numPeriods()).readyAt != 0;
    }

    function fund(uint256 given) external {
        given = bound(given, 1, 2000 ether);
        ODD.approve(address(settlement), given);
        settlement.fund(given);
    }

    function turn(uint256 mood, uint256 who) external {
        bytes memory call_ = abi.encodeCall(Settlement.fund, (1));
        if (mood % 2 == 0 && _final.length != 0) {
            who = bound(who, 0, ACCOUNTS - 1);
            Settlement.PayoutLeaf[] memory leaves = _final;
            call_ = abi.encodeCall(Settlement.claim, (leaves[who], who, proofOf(leaves, who)));
        }
        ODD.turn(mood, address(settlement), call_);
    }

    function propose(uint256 who, uint64 work, uint256 lie) external {
        (who, work) = (bound(who, 0, ACCOUNTS - 1), uint64(bound(work, ACCOUNTS, 13)));
        if (settlement.available() < uint256(work) * PRICE) return;
        uint64[ACCOUNTS] memory cumUnits;
        for (uint256 i = 0; i < _final.length; ++i) {
            cumUnits[i] = _final[i].cumUnits;
        }
        cumUnits[who] += work;
        Settlement.PayoutLeaf[] memory leaves = new Settlement.PayoutLeaf[](ACCOUNTS);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            uint128 sum = PRICE * cumUnits[i];
            leaves[i] = Settlement.PayoutLeaf(accounts[i], cumUnits[i], sum, 0, 0, sum);
        }
        if (lie % 4 == 0) leaves[who].cumClaimable += uint128(bound(lie, 1, 1000 ether));
        Settlement.Proposal memory p = proposalOf(leaves, settlement.settledEpoch() + 1, work);
        (p.receiptsCount, p.budget) = (uint32(work), uint128(least(p.budget, settlement.amountPerDay())));
        bend(p, (lie / 4) % 16, lie);
        bool pending = isPending();
        VM.prank(ORGANISER);
        if (pending) settlement.replace(p, "");
        else settlement.propose(p, "");
        _proposedAt = block.timestamp;
        delete _proposed;
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            _proposed.push(leaves[i]);
        }
    }

    /// @dev What a hostile organiser tries besides another root.
    function bend(Settlement.Proposal memory p, uint256 how, uint256 seed) private pure {
        if (how == 1) p.toEpoch = uint64(seed);
        if (how == 2) p.totalUnits = uint64(seed);
        if (how == 3) p.payoutsCount = uint32(seed);
        if (how == 4) p.amount = uint128(seed);
        if (how == 5) p.receiptsCount = uint32(seed);
        if (how == 6) (p.totalUnits, p.amount, p.budget) = (uint64(seed), uint128(seed >> 64), uint128(seed));
        if (how == 7) (p.toEpoch, p.certificatesCount) = (p.toEpoch + uint64(seed % 4000), uint32(1 + seed % 4000));
        if (how == 8) (p.payoutsRoot, p.payoutsCount) = (0, 0);
    }

    function cancel(uint256 mood) external {
        if (mood % 4 != 0) return;
        VM.prank(ORGANISER);
        settlement.cancel();
    }

    function finalise(uint256 wait) external {
        if (!isPending()) return;
        VM.warp(block.timestamp + bound(wait, 0, 4 * WINDOW));
        (uint256 before, uint256 payoutsBefore) = (settlement.released(), lastPayouts());
        settlement.finalise();
        _final = _proposed;
        if (block.timestamp < _proposedAt + WINDOW) broken = "final before its window was over";
        if (lastPayouts() < payoutsBefore) broken = "fewer payouts than before";
        (_at[finalised % KEPT], _amounts[finalised % KEPT]) = (block.timestamp, settlement.released() - before);
        ++finalised;
        (units, amount) = (units + lastPeriod().totalUnits, amount + lastPeriod().amount);
        uint256 day;
        for (uint256 i = 0; i < KEPT; ++i) {
            if (_at[i] != 0 && _at[i] + 1 days > block.timestamp) day += _amounts[i];
        }
        if (day > 2 * uint256(settlement.amountPerDay())) broken = "a day released more than twice its amount";
    }

    function lastPayouts() private view returns (uint256) {
        return settlement.numPeriods() == 0 ? 0 : lastPeriod().payoutsCount;
    }

    function lastPeriod() private view returns (Settlement.Period memory) {
        return settlement.periodAt(settlement.numPeriods() - 1);
    }

    function least(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }

    function bindAccount(uint256 who) external {
        bind(bound(who, 1, ACCOUNTS), address(uint160(0xAA00 + who % 3)));
    }

    function payTo(uint256 who) external {
        VM.prank(address(uint160(0xAA00 + who % 3)));
        registry.setPayTo(who % 5 == 0 ? address(settlement) : address(uint160(who % 7)));
    }

    function claim(uint256 who) external {
        who = bound(who, 0, ACCOUNTS - 1);
        Settlement.PayoutLeaf[] memory leaves = _final;
        settlement.claim(leaves[who], who, proofOf(leaves, who));
    }

    function claimMany() external {
        Settlement.PayoutLeaf[] memory leaves = _final;
        Settlement.Claim[] memory claims = new Settlement.Claim[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            claims[i] = Settlement.Claim(leaves[i], i, proofOf(leaves, i));
        }
        settlement.claimMany(claims);
    }
}

/// @dev Together, all kinds of token make more than 100,000 calls: `[invariant]` of foundry.toml, which a test counts.
abstract contract InvariantsBase is SettlementBase {
    Actor internal _actor;
    OddToken internal _odd;
    uint128 private constant DAY = 150 ether;

    function kind() internal pure virtual returns (uint8);

    function setUp() public {
        VM.warp(START);
        registry = new PeerRegistry();
        _odd = new OddToken(kind());
        Settlement.Terms memory terms = termsOf(_odd);
        (terms.amountPerDay, terms.unitsPerEpoch) = (DAY, 20);
        settlement = new Settlement(terms);
        _actor = new Actor(_odd, registry, settlement);
        require(_odd.transfer(address(_actor), 1e29), "transfer");
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_actor);
    }

    function invariant_claimed_released_funded_and_the_terms() external view {
        yes(settlement.claimed() <= settlement.released());
        yes(settlement.released() <= settlement.funded());
        (uint256 here, uint256 due) = (_odd.balanceOf(address(settlement)), settlement.funded() - settlement.claimed());
        // What a claim inside a deposit takes is not counted as deposited; a token that shrinks takes what it likes.
        if (kind() != 2) yes(kind() == 3 ? here >= due : here == due);
        eq(settlement.numPeriods(), _actor.finalised());
        uint256 sum;
        for (uint256 i = 0; i < 5; ++i) {
            sum += settlement.claimedOf(_actor.accounts(i));
        }
        eq(sum, settlement.claimed());
        yes(settlement.settledEpoch() <= uint256(EPOCHS_PER_DAY) * (block.timestamp - START + 1 days) / 1 days);
        yes(_actor.units() <= 20 * uint256(settlement.settledEpoch()));
        yes(_actor.amount() <= _actor.units() * PRICE);
        eq(_actor.amount(), settlement.released());
        eq(bytes(_actor.broken()).length, 0);
    }
}

contract PlainInvariantsTest is InvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 0;
    }

    /// @dev The invariants would hold of a contract that never pays: the actor can get through a whole period.
    function test_the_actor_reaches_a_claim() external {
        _actor.fund(100 ether);
        _actor.propose(0, 5, 1);
        _actor.finalise(2 * WINDOW);
        _actor.bindAccount(0);
        _actor.claim(0);
        yes(settlement.claimed() > 0);
    }
}

contract FeeInvariantsTest is InvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 1;
    }
}

contract RebasingInvariantsTest is InvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 2;
    }
}

contract ReentrantInvariantsTest is InvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 3;
    }
}

contract FalseInvariantsTest is InvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 4;
    }
}

contract BlockingInvariantsTest is InvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 5;
    }
}
