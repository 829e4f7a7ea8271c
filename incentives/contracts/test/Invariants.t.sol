// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SettlementBase, Trees} from "./Base.sol";
import {Settlement} from "../src/Settlement.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {TestToken} from "../src/TestToken.sol";

/// @dev Funds, proposes (sometimes lies), waits, finalises, cancels, binds and claims in any order.
contract Actor is SettlementBase {
    uint256 private constant ACCOUNTS = 5;
    uint64[ACCOUNTS] private _units;
    Settlement.PayoutLeaf[] private _proposed;
    Settlement.PayoutLeaf[] private _final;
    uint256 public paid;
    uint256 public finalised;

    constructor(TestToken token_, PeerRegistry registry_, Settlement settlement_) {
        (token, registry, settlement) = (token_, registry_, settlement_);
    }

    function isPending() private view returns (bool) {
        return settlement.periodAt(settlement.numPeriods()).readyAt != 0;
    }

    function fund(uint256 amount) external {
        amount = bound(amount, 1, 2000 ether);
        token.approve(address(settlement), amount);
        settlement.fund(amount);
    }

    function propose(uint256 who, uint64 units, uint256 lie) external {
        (who, units) = (bound(who, 0, ACCOUNTS - 1), uint64(bound(units, 1, 9)));
        if (settlement.available() < uint256(units) * PRICE) return;
        uint64[ACCOUNTS] memory cumUnits;
        for (uint256 i = 0; i < _final.length; ++i) {
            cumUnits[i] = _final[i].cumUnits;
        }
        cumUnits[who] += units;
        Settlement.PayoutLeaf[] memory leaves = payouts(ACCOUNTS, 0);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            uint128 amount = PRICE * cumUnits[i];
            leaves[i] = Settlement.PayoutLeaf(VM.addr(i + 1), cumUnits[i], amount, 0, 0, amount);
        }
        if (lie % 4 == 0) leaves[who].cumClaimable += uint128(bound(lie, 1, 1000 ether));
        Settlement.Proposal memory p = proposalOf(leaves, settlement.settledEpoch() + 1, units);
        bool pending = isPending();
        VM.prank(ORGANISER);
        if (pending) settlement.replace(p, "");
        else settlement.propose(p, "");
        delete _proposed;
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            _proposed.push(leaves[i]);
        }
    }

    function cancel(uint256 mood) external {
        if (mood % 4 != 0) return;
        VM.prank(ORGANISER);
        settlement.cancel();
    }

    function finalise(uint256 wait) external {
        if (!isPending()) return;
        VM.warp(block.timestamp + bound(wait, 0, 4 * WINDOW));
        settlement.finalise();
        _final = _proposed;
        ++finalised;
    }

    function bindAccount(uint256 who) external {
        bind(bound(who, 1, ACCOUNTS), address(uint160(0xAA00 + who % 3)));
    }

    function claim(uint256 who) external {
        who = bound(who, 0, ACCOUNTS - 1);
        Settlement.PayoutLeaf[] memory leaves = _final;
        paid += settlement.claim(leaves[who], who, proofOf(leaves, who));
    }

    function claimMany() external {
        Settlement.PayoutLeaf[] memory leaves = _final;
        Settlement.Claim[] memory claims = new Settlement.Claim[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            claims[i] = Settlement.Claim(leaves[i], i, proofOf(leaves, i));
        }
        paid += settlement.claimMany(claims);
    }
}

contract InvariantsTest is SettlementBase {
    Actor private _actor;

    function setUp() public {
        deploy();
        _actor = new Actor(token, registry, settlement);
        require(token.transfer(address(_actor), 1e29), "transfer");
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_actor);
    }

    function invariant_claimed_released_funded() external view {
        yes(settlement.claimed() <= settlement.released());
        yes(settlement.released() <= settlement.funded());
        eq(token.balanceOf(address(settlement)), uint256(settlement.funded()) - settlement.claimed());
        eq(settlement.claimed(), _actor.paid());
        eq(settlement.numPeriods(), _actor.finalised());
        uint256 sum;
        for (uint256 key = 1; key <= 5; ++key) {
            sum += settlement.claimedOf(VM.addr(key));
        }
        eq(sum, settlement.claimed());
    }

    /// @dev The invariant would hold of a contract that never pays: the actor can get through a whole period.
    function test_the_actor_reaches_a_claim() external {
        _actor.fund(100 ether);
        _actor.propose(0, 3, 1);
        _actor.finalise(2 * WINDOW);
        _actor.bindAccount(0);
        _actor.claim(0);
        yes(_actor.paid() > 0);
    }
}
