// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CallbackToken, SettlementBase, Trees} from "./Base.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev Keeps a tenth of every transfer.
contract FeeToken is ERC20 {
    constructor() ERC20("Fee", "FEE") {
        _mint(msg.sender, 1e30);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0xFEE), value / 10);
    }
}

contract SettlementTest is SettlementBase {
    address private constant WALLET = address(0xA11CE);

    event Funded(address indexed from, uint256 amount);
    event Proposed(
        uint256 indexed number, bytes32 indexed payoutsRoot, bytes32 indexed tablesHash, uint256 readyAt, string uri
    );
    event Cancelled(uint256 indexed number, bytes32 indexed payoutsRoot);
    event Finalised(uint256 indexed number, bytes32 indexed payoutsRoot, uint256 amount);
    event Claimed(address indexed account, address indexed to, uint256 amount);

    function setUp() public {
        deploy();
    }

    function propose(Settlement.Proposal memory p) private {
        VM.prank(ORGANISER);
        settlement.propose(p, "");
    }

    /// @dev A pool of 1000 tokens and a valid proposal of 3 accounts with 2 units each.
    function valid() private returns (Settlement.Proposal memory) {
        if (settlement.funded() == 0) settlement.fund(1000 ether);
        return proposalOf(payouts(3, 2), 5, 6);
    }

    // -- constructor --------------------------------------------------------------------------------------------------
    function test_construction_keeps_its_arguments() public view {
        eq(address(settlement.token()), address(token));
        eq(address(settlement.registry()), address(registry));
        eq(uint256(settlement.runId()), uint256(RUN));
        eq(settlement.organiser(), ORGANISER);
        eq(settlement.unitPrice(), PRICE);
        eq(settlement.window(), WINDOW);
        eq(settlement.epochsPerDay(), EPOCHS_PER_DAY);
        eq(settlement.unitsPerEpoch(), UNITS_PER_EPOCH);
        eq(settlement.amountPerDay(), AMOUNT_PER_DAY);
        eq(settlement.startedAt(), START);
    }

    function test_construction_refuses_what_could_never_work() public {
        for (uint256 i = 0; i < 8; ++i) {
            Settlement.Terms memory terms = termsOf(token);
            if (i == 0) terms.token = IERC20(address(0x1234));
            if (i == 1) terms.registry = PeerRegistry(address(0x1234));
            if (i == 2) terms.runId = 0;
            if (i == 3) terms.organiser = address(0);
            if (i == 4) terms.window = 0;
            if (i == 5) terms.epochsPerDay = 0;
            if (i == 6) terms.unitsPerEpoch = 0;
            if (i == 7) terms.amountPerDay = 0;
            VM.expectRevert(Settlement.ZeroArgument.selector);
            new Settlement(terms);
        }
        Settlement.Terms memory free = termsOf(token);
        (free.unitPrice, free.amountPerDay) = (0, 0); // a price of nothing is a choice
        new Settlement(free);
    }

    // -- fund ---------------------------------------------------------------------------------------------------------
    function test_anyone_funds_and_it_adds_up() public {
        VM.expectEmit(address(settlement));
        emit Funded(address(this), 700);
        settlement.fund(700);
        settlement.fund(300);
        eq(settlement.funded(), 1000);
        eq(settlement.available(), 1000);
        eq(token.balanceOf(address(settlement)), 1000);
    }

    function test_fund_counts_what_arrived_of_a_token_with_a_fee() public {
        FeeToken fee = new FeeToken();
        settlement = new Settlement(termsOf(fee));
        fee.approve(address(settlement), 1000);
        settlement.fund(1000);
        eq(settlement.funded(), 900);
        eq(fee.balanceOf(address(settlement)), 900);
    }

    function test_fund_refuses_nothing_and_what_is_not_there() public {
        VM.expectRevert(Settlement.NothingReceived.selector);
        settlement.fund(0);
        VM.prank(address(0xBAD));
        VM.expectRevert();
        settlement.fund(1);
        eq(settlement.funded(), 0);
    }

    function test_a_deposit_inside_a_deposit_is_refused() public {
        CallbackToken hook = new CallbackToken();
        settlement = new Settlement(termsOf(hook));
        hook.approve(address(settlement), 2000);
        settlement.fund(1000);
        hook.arm(address(settlement), abi.encodeCall(Settlement.fund, (1)));
        VM.expectRevert(Settlement.DepositInDeposit.selector);
        settlement.fund(1000);
        eq(settlement.funded(), 1000);
    }

    // -- propose ------------------------------------------------------------------------------------------------------
    function test_propose_stores_what_was_said() public {
        Settlement.Proposal memory p = valid();
        VM.expectEmit(address(settlement));
        emit Proposed(0, p.payoutsRoot, p.tablesHash, START + WINDOW, "ipfs://tables");
        VM.prank(ORGANISER);
        settlement.propose(p, "ipfs://tables");
        Settlement.Period memory period = settlement.periodAt(0);
        eq(period.readyAt, START + WINDOW);
        eq(period.toEpoch, p.toEpoch);
        eq(period.totalUnits, p.totalUnits);
        eq(period.certificatesCount, p.certificatesCount);
        eq(period.receiptsCount, p.receiptsCount);
        eq(period.payoutsCount, p.payoutsCount);
        eq(period.amount, p.amount);
        eq(period.budget, p.budget);
        eq(uint256(period.certificatesRoot), uint256(p.certificatesRoot));
        eq(uint256(period.receiptsRoot), uint256(p.receiptsRoot));
        eq(uint256(period.payoutsRoot), uint256(p.payoutsRoot));
        eq(uint256(period.tablesHash), uint256(p.tablesHash));
        eq(settlement.numPeriods(), 0);
        eq(settlement.released(), 0);
    }

    function test_only_the_organiser_proposes_replaces_and_cancels() public {
        Settlement.Proposal memory p = valid();
        bytes memory refusal = abi.encodeWithSelector(Settlement.NotOrganiser.selector, address(this));
        VM.expectRevert(refusal);
        settlement.propose(p, "");
        propose(p);
        VM.expectRevert(refusal);
        settlement.replace(p, "");
        VM.expectRevert(refusal);
        settlement.cancel();
    }

    function test_one_proposal_at_a_time() public {
        Settlement.Proposal memory p = valid();
        propose(p);
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.ProposalPending.selector, 0));
        settlement.propose(p, "");
    }

    function test_periods_are_contiguous_and_never_overlap() public {
        valid();
        settle(payouts(3, 2), 5, 6);
        eq(settlement.settledEpoch(), 5);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 6, 3);
        p.toEpoch = 5;
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.EmptyPeriod.selector, 5, 5));
        settlement.propose(p, "");
        p.toEpoch = 6;
        propose(p);
    }

    function test_epoch_zero_is_no_period() public {
        Settlement.Proposal memory p = valid();
        p.toEpoch = 0;
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.EmptyPeriod.selector, 0, 0));
        settlement.propose(p, "");
    }

    function test_a_tree_has_a_root_and_leaves_or_neither() public {
        for (uint256 i = 0; i < 6; ++i) {
            Settlement.Proposal memory p = valid();
            bytes32 root;
            uint32 count;
            if (i == 0) p.certificatesRoot = 0;
            if (i == 1) p.certificatesCount = 0;
            if (i == 2) p.receiptsRoot = 0;
            if (i == 3) p.receiptsCount = 0;
            if (i == 4) p.payoutsRoot = 0;
            if (i == 5) p.payoutsCount = 0;
            if (i < 2) (root, count) = (p.certificatesRoot, p.certificatesCount);
            else if (i < 4) (root, count) = (p.receiptsRoot, p.receiptsCount);
            else (root, count) = (p.payoutsRoot, p.payoutsCount);
            VM.prank(ORGANISER);
            VM.expectRevert(abi.encodeWithSelector(Settlement.BadTree.selector, root, count));
            settlement.propose(p, "");
        }
    }

    function test_the_budget_is_what_is_left() public {
        Settlement.Proposal memory p = valid();
        p.budget = 1000 ether + 1;
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WrongBudget.selector, 1000 ether + 1, 1000 ether));
        settlement.propose(p, "");
        p.budget = 60 ether - 1; // less than 6 units cost, though there is enough
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WrongBudget.selector, 60 ether - 1, 1000 ether));
        settlement.propose(p, "");
        p.budget = 60 ether; // read before another deposit arrived: it suffices
        propose(p);
    }

    function test_a_short_pool_is_shared() public {
        settlement.fund(7);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        for (uint256 i = 0; i < 3; ++i) {
            (leaves[i].cumEarned, leaves[i].cumClaimable) = (2, 2);
        }
        Settlement.Proposal memory p = proposalOf(leaves, 5, 6);
        p.amount = 6; // 7 shared by 3
        propose(p);
        VM.warp(settlement.periodAt(settlement.numPeriods()).readyAt);
        settlement.finalise();
        eq(settlement.released(), 6);
        eq(settlement.available(), 1);
    }

    function test_the_amount_is_the_pool_less_rounding() public {
        Settlement.Proposal memory p = valid();
        p.amount = 60 ether + 1;
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WrongAmount.selector, 60 ether + 1, 60 ether));
        settlement.propose(p, "");
        p.amount = 60 ether - 1; // all is paid: nothing is rounded
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WrongAmount.selector, 60 ether - 1, 60 ether));
        settlement.propose(p, "");
        p.amount = 60 ether;
        propose(p);
    }

    function testFuzz_no_proposal_releases_more_than_was_funded(
        uint128 funds,
        uint64 units,
        uint128 amount,
        uint128 budget
    ) public {
        funds = uint128(bound(funds, 1, 1e30));
        settlement.fund(funds);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        (p.totalUnits, p.amount, p.budget) = (units, amount, budget);
        VM.prank(ORGANISER);
        try settlement.propose(p, "") {}
        catch {
            return;
        }
        yes(amount <= funds);
        yes(amount <= uint256(units) * PRICE);
    }

    // -- cancel, replace, finalise ------------------------------------------------------------------------------------
    function test_cancel_takes_a_proposal_back() public {
        Settlement.Proposal memory p = valid();
        propose(p);
        VM.expectEmit(address(settlement));
        emit Cancelled(0, p.payoutsRoot);
        VM.prank(ORGANISER);
        settlement.cancel();
        eq(settlement.periodAt(0).readyAt, 0);
        VM.warp(START + WINDOW);
        VM.expectRevert(Settlement.NoProposal.selector);
        settlement.finalise();
        propose(p);
    }

    function test_cancel_and_replace_need_a_proposal() public {
        Settlement.Proposal memory p = valid();
        VM.startPrank(ORGANISER);
        VM.expectRevert(Settlement.NoProposal.selector);
        settlement.cancel();
        VM.expectRevert(Settlement.NoProposal.selector);
        settlement.replace(p, "");
        VM.stopPrank();
        settle(payouts(3, 2), 5, 6);
        VM.startPrank(ORGANISER);
        VM.expectRevert(Settlement.NoProposal.selector);
        settlement.cancel(); // what is final stays
        VM.stopPrank();
        eq(settlement.released(), 60 ether);
    }

    function test_replace_begins_the_window_anew() public {
        Settlement.Proposal memory p = valid();
        propose(p);
        uint256 first = START;
        VM.warp(first + WINDOW - 1);
        Settlement.Proposal memory other = proposalOf(payouts(2, 3), 6, 6);
        VM.expectEmit(address(settlement));
        emit Cancelled(0, p.payoutsRoot);
        VM.prank(ORGANISER);
        settlement.replace(other, "");
        VM.warp(first + WINDOW);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WindowOpen.selector, first + 2 * WINDOW - 1));
        settlement.finalise();
        VM.warp(first + 2 * WINDOW - 1);
        settlement.finalise();
        eq(settlement.settledEpoch(), 6);
    }

    function test_anyone_finalises_after_the_window_and_not_before() public {
        Settlement.Proposal memory p = valid();
        propose(p);
        uint256 readyAt = START + WINDOW;
        VM.warp(readyAt - 1);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WindowOpen.selector, readyAt));
        settlement.finalise();
        VM.warp(readyAt);
        VM.expectEmit(address(settlement));
        emit Finalised(0, p.payoutsRoot, 60 ether);
        settlement.finalise();
        eq(settlement.released(), 60 ether);
        eq(settlement.numPeriods(), 1);
        eq(settlement.settledEpoch(), 5);
        eq(settlement.available(), 940 ether);
        VM.expectRevert(Settlement.NoProposal.selector);
        settlement.finalise();
    }

    // -- claim --------------------------------------------------------------------------------------------------------
    function test_claim_pays_the_bound_wallet_whoever_sends_it() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(2, WALLET);
        VM.expectEmit(address(settlement));
        emit Claimed(VM.addr(2), WALLET, 20 ether);
        VM.prank(address(0x57A4));
        eq(settlement.claim(leaves[1], 1, proofOf(leaves, 1)), 20 ether);
        eq(token.balanceOf(WALLET), 20 ether);
        eq(settlement.claimedOf(VM.addr(2)), 20 ether);
        eq(settlement.claimed(), 20 ether);
    }

    function test_claim_goes_to_the_payout_address() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        VM.prank(WALLET);
        registry.setPayTo(address(0x5AFE));
        settlement.claim(leaves[0], 0, proofOf(leaves, 0));
        eq(token.balanceOf(address(0x5AFE)), 20 ether);
        eq(token.balanceOf(WALLET), 0);
    }

    function test_a_second_claim_pays_nothing() public {
        test_claim_pays_the_bound_wallet_whoever_sends_it();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        bytes32[] memory proof = proofOf(leaves, 1);
        VM.expectRevert(abi.encodeWithSelector(Settlement.NothingDue.selector, VM.addr(2)));
        settlement.claim(leaves[1], 1, proof);
        eq(token.balanceOf(WALLET), 20 ether);
    }

    function test_an_unbound_account_waits_and_is_paid_once_bound() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bytes32[] memory proof = proofOf(leaves, 2);
        VM.expectRevert(abi.encodeWithSelector(Settlement.NotBound.selector, VM.addr(3)));
        settlement.claim(leaves[2], 2, proof);
        bind(3, WALLET);
        settlement.claim(leaves[2], 2, proof);
        eq(token.balanceOf(WALLET), 20 ether);
    }

    function test_one_claim_pays_every_period_missed() public {
        valid();
        settle(payouts(3, 2), 5, 6);
        settle(payouts(3, 5), 9, 9);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 5);
        bind(1, WALLET);
        settlement.claim(leaves[0], 0, proofOf(leaves, 0));
        eq(token.balanceOf(WALLET), 50 ether);
    }

    function test_claim_needs_a_final_period() public {
        Settlement.Proposal memory p = valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        bytes32[] memory proof = proofOf(leaves, 0);
        bind(1, WALLET);
        VM.expectRevert(Settlement.NoFinalPeriod.selector);
        settlement.claim(leaves[0], 0, proof);
        propose(p);
        VM.expectRevert(Settlement.NoFinalPeriod.selector);
        settlement.claim(leaves[0], 0, proof);
    }

    function test_a_proposed_root_pays_nothing_yet_and_an_old_one_no_more() public {
        valid();
        settle(payouts(3, 2), 5, 6);
        Settlement.PayoutLeaf[] memory newer = payouts(3, 5);
        Settlement.PayoutLeaf[] memory older = payouts(3, 2);
        bind(1, WALLET);
        propose(proposalOf(newer, 9, 9));
        bytes32[] memory proof = proofOf(newer, 0);
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, VM.addr(1)));
        settlement.claim(newer[0], 0, proof);
        VM.warp(settlement.periodAt(settlement.numPeriods()).readyAt);
        settlement.finalise();
        bytes32[] memory old = proofOf(older, 0);
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, VM.addr(1)));
        settlement.claim(older[0], 0, old);
        settlement.claim(newer[0], 0, proof);
        eq(token.balanceOf(WALLET), 50 ether);
    }

    function testFuzz_any_change_of_a_leaf_fails(uint256 which, uint128 value) public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        bytes32[] memory proof = proofOf(leaves, 0);
        Settlement.PayoutLeaf memory leaf = leaves[0];
        which = which % 6;
        if (which == 0) leaf.account = address(uint160(value));
        if (which == 1) leaf.cumUnits = uint64(value);
        if (which == 2) leaf.cumEarned = value;
        if (which == 3) leaf.cumForfeited = value;
        if (which == 4) leaf.cumWithheld = value;
        if (which == 5) leaf.cumClaimable = value;
        VM.assume(leafHash(leaf) != leafHash(payouts(3, 2)[0]));
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, leaf.account));
        settlement.claim(leaf, 0, proof);
    }

    function test_a_wrong_position_fails() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        bytes32[] memory proof = proofOf(leaves, 0);
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, VM.addr(1)));
        settlement.claim(leaves[0], 1, proof);
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, VM.addr(1)));
        settlement.claim(leaves[0], 4, proof);
    }

    function test_a_root_that_gives_more_than_was_released_cannot_take_it() public {
        settlement.fund(1000 ether);
        Settlement.PayoutLeaf[] memory leaves = payouts(2, 3);
        leaves[1].cumClaimable = 900 ether; // a lying organiser
        settle(leaves, 5, 6);
        bind(1, WALLET);
        bind(2, WALLET);
        settlement.claim(leaves[0], 0, proofOf(leaves, 0));
        bytes32[] memory proof = proofOf(leaves, 1);
        VM.expectRevert(abi.encodeWithSelector(Settlement.OverReleased.selector, 930 ether, 60 ether));
        settlement.claim(leaves[1], 1, proof);
        Settlement.Claim[] memory claims = new Settlement.Claim[](1);
        claims[0] = Settlement.Claim(leaves[1], 1, proof);
        VM.expectRevert(abi.encodeWithSelector(Settlement.OverReleased.selector, 930 ether, 60 ether));
        settlement.claimMany(claims);
        eq(token.balanceOf(address(settlement)), 970 ether);
    }

    // -- claimMany ----------------------------------------------------------------------------------------------------
    function batch(Settlement.PayoutLeaf[] memory leaves) private pure returns (Settlement.Claim[] memory claims) {
        claims = new Settlement.Claim[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            claims[i] = Settlement.Claim(leaves[i], i, proofOf(leaves, i));
        }
    }

    function test_claimMany_pays_all_and_passes_over_the_unbound_and_the_paid() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, address(0xA1));
        bind(2, address(0xA2));
        settlement.claim(leaves[0], 0, proofOf(leaves, 0));
        eq(settlement.claimMany(batch(leaves)), 20 ether);
        eq(token.balanceOf(address(0xA1)), 20 ether);
        eq(token.balanceOf(address(0xA2)), 20 ether);
        eq(settlement.claimedOf(VM.addr(3)), 0);
        eq(settlement.claimed(), 40 ether);
        eq(settlement.claimMany(batch(leaves)), 0);
        bind(3, address(0xA3));
        eq(settlement.claimMany(batch(leaves)), 20 ether);
    }

    function test_claimMany_pays_an_account_given_twice_once() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        Settlement.Claim[] memory claims = new Settlement.Claim[](2);
        claims[0] = Settlement.Claim(leaves[0], 0, proofOf(leaves, 0));
        claims[1] = claims[0];
        eq(settlement.claimMany(claims), 20 ether);
        eq(token.balanceOf(WALLET), 20 ether);
    }

    function test_claimMany_fails_whole_with_a_wrong_proof() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        Settlement.Claim[] memory claims = batch(leaves);
        claims[2].leaf.cumClaimable += 1;
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, VM.addr(3)));
        settlement.claimMany(claims);
        eq(token.balanceOf(WALLET), 0);
    }

    // -- views --------------------------------------------------------------------------------------------------------
    function test_overview_follows_a_run() public {
        Settlement.Overview memory all = settlement.overview();
        eq(all.token, address(token));
        eq(all.registry, address(registry));
        eq(uint256(all.runId), uint256(RUN));
        eq(all.organiser, ORGANISER);
        eq(all.unitPrice, PRICE);
        eq(all.window, WINDOW);
        eq(all.epochsPerDay, EPOCHS_PER_DAY);
        eq(all.unitsPerEpoch, UNITS_PER_EPOCH);
        eq(all.amountPerDay, AMOUNT_PER_DAY);
        eq(all.startedAt, START);
        eq(all.last.readyAt + all.pending.readyAt + all.numPeriods, 0);
        valid();
        settle(payouts(3, 2), 5, 6);
        propose(proposalOf(payouts(3, 5), 9, 9));
        bind(1, WALLET);
        all = settlement.overview();
        eq(all.funded, 1000 ether);
        eq(all.released, 60 ether);
        eq(all.claimed, 0);
        eq(all.settledEpoch, 5);
        eq(all.numPeriods, 1);
        eq(all.last.toEpoch, 5);
        eq(all.pending.toEpoch, 9);
    }

    function test_claimedOfMany_gives_each_in_order() public {
        valid();
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(2, WALLET);
        settlement.claim(leaves[1], 1, proofOf(leaves, 1));
        address[] memory accounts = new address[](2);
        (accounts[0], accounts[1]) = (VM.addr(1), VM.addr(2));
        uint256[] memory amounts = settlement.claimedOfMany(accounts);
        eq(amounts[0], 0);
        eq(amounts[1], 20 ether);
    }

    // -- proofs of leaves ---------------------------------------------------------------------------------------------
    function test_leaves_of_each_tree_are_proved_in_their_own_tree_only() public {
        Settlement.Proposal memory p = valid();
        Settlement.CertificateLeaf memory certificate = Settlement.CertificateLeaf(1, RUN, RUN);
        Settlement.ReceiptLeaf memory receipt = Settlement.ReceiptLeaf(VM.addr(1), 1, 2, 2, 2, RUN, RUN);
        Settlement.PayoutLeaf memory payout = payouts(1, 2)[0];
        p.certificatesRoot = keccak256(bytes.concat(keccak256(abi.encode(uint8(1), certificate))));
        p.receiptsRoot = keccak256(bytes.concat(keccak256(abi.encode(uint8(2), receipt))));
        p.payoutsRoot = leafHash(payout);
        (p.toEpoch, p.certificatesCount, p.receiptsCount, p.payoutsCount) = (1, 1, 1, 1);
        propose(p);
        bytes32[] memory none = new bytes32[](0);
        yes(settlement.isCertificate(0, certificate, 0, none));
        yes(settlement.isReceipt(0, receipt, 0, none));
        yes(settlement.isPayout(0, payout, 0, none));
        no(settlement.isCertificate(1, certificate, 0, none)); // no such period
        certificate.epoch = 2;
        receipt.units = 3;
        payout.cumUnits = 3;
        no(settlement.isCertificate(0, certificate, 0, none));
        no(settlement.isReceipt(0, receipt, 0, none));
        no(settlement.isPayout(0, payout, 0, none));
    }

    function testFuzz_claims_pay_exactly_what_was_earned(uint256 count, uint64 units, uint256 who) public {
        count = bound(count, 1, 20);
        units = uint64(bound(units, 1, 1e6));
        who = bound(who, 0, count - 1);
        settlement.fund(1e29);
        Settlement.PayoutLeaf[] memory leaves = payouts(count, units);
        settle(leaves, 5, uint64(units * count));
        bind(who + 1, WALLET);
        eq(settlement.claim(leaves[who], who, proofOf(leaves, who)), uint256(units) * PRICE);
        eq(token.balanceOf(WALLET), uint256(units) * PRICE);
        eq(settlement.released(), uint256(units) * count * PRICE);
    }
}
