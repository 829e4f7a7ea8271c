// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CallbackToken, SettlementBase} from "./Base.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {TestToken} from "../src/TestToken.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

/// @dev Says no by returning false, to one address or to all, as some old tokens do; has more than fits into 128 bits.
contract StubbornToken is ERC20 {
    address private _refused;
    bool private _refusesAll;

    constructor() ERC20("Stubborn", "NO") {
        _mint(msg.sender, type(uint256).max);
    }

    function refuse(address to) external {
        _refused = to;
    }

    function refuseAll() external {
        _refusesAll = true;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return !_refusesAll && to != _refused && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !_refusesAll && super.transferFrom(from, to, value);
    }
}

/// @dev What the happy path's tests leave out: refusals by tokens, by size, by time, and what an attacker would try.
contract RefusalsTest is SettlementBase {
    address private constant WALLET = address(0xA11CE);

    function setUp() public {
        deploy();
    }

    function settlementOf(ERC20 other) private {
        settlement = new Settlement(termsOf(other));
        other.approve(address(settlement), type(uint256).max);
    }

    function proposed() private returns (Settlement.Proposal memory p) {
        settlement.fund(1000 ether);
        p = proposalOf(payouts(3, 2), 5, 6);
        VM.prank(ORGANISER);
        settlement.propose(p, "");
    }

    function batch(Settlement.PayoutLeaf[] memory leaves) private pure returns (Settlement.Claim[] memory claims) {
        claims = new Settlement.Claim[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            claims[i] = Settlement.Claim(leaves[i], i, proofOf(leaves, i));
        }
    }

    // -- constructor, propose, replace --------------------------------------------------------------------------------
    function test_a_window_longer_than_a_year_is_a_typing_error() public {
        Settlement.Terms memory terms = termsOf(token);
        terms.window = 365 days + 1;
        VM.expectRevert(abi.encodeWithSelector(Settlement.WindowTooLong.selector, 365 days + 1));
        new Settlement(terms);
        terms.window = 365 days;
        new Settlement(terms);
    }

    function test_a_proposal_counts_only_on_the_start_it_was_made_for() public {
        settlement.fund(1000 ether);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        p.fromEpoch = 2; // made after a period up to epoch 2, which a reorganisation has undone
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WrongStart.selector, 2, 0));
        settlement.propose(p, "");
        settle(payouts(3, 2), 5, 6);
        p.toEpoch = 9;
        p.fromEpoch = 0;
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WrongStart.selector, 0, 5));
        settlement.propose(p, "");
    }

    function test_replace_refuses_what_propose_refuses_and_keeps_what_was_proposed() public {
        Settlement.Proposal memory p = proposed();
        Settlement.Proposal memory bad = proposalOf(payouts(3, 2), 5, 6);
        bad.fromEpoch = 1;
        refuseReplacement(bad, abi.encodeWithSelector(Settlement.WrongStart.selector, 1, 0));
        bad = proposalOf(payouts(3, 2), 0, 6);
        refuseReplacement(bad, abi.encodeWithSelector(Settlement.EmptyPeriod.selector, 0, 0));
        bad = proposalOf(payouts(3, 2), 5, 6);
        bad.receiptsRoot = 0;
        refuseReplacement(bad, abi.encodeWithSelector(Settlement.BadTree.selector, bytes32(0), 3));
        bad = proposalOf(payouts(3, 2), 5, 6);
        bad.budget += 1;
        refuseReplacement(bad, abi.encodeWithSelector(Settlement.WrongBudget.selector, 1000 ether + 1, 1000 ether));
        bad = proposalOf(payouts(3, 2), 5, 6);
        bad.amount += 1;
        refuseReplacement(bad, abi.encodeWithSelector(Settlement.WrongAmount.selector, 60 ether + 1, 60 ether));
        Settlement.Period memory kept = settlement.periodAt(0);
        eq(uint256(kept.payoutsRoot), uint256(p.payoutsRoot));
        eq(kept.readyAt, START + WINDOW);
    }

    function refuseReplacement(Settlement.Proposal memory bad, bytes memory refusal) private {
        VM.prank(ORGANISER);
        VM.expectRevert(refusal);
        settlement.replace(bad, "");
    }

    function test_the_window_is_counted_in_32_bits_until_2106() public {
        settlement.fund(1000 ether);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        VM.warp(type(uint32).max - WINDOW + 1);
        VM.prank(ORGANISER);
        VM.expectRevert(
            abi.encodeWithSelector(SafeCast.SafeCastOverflowedUintDowncast.selector, 32, uint256(type(uint32).max) + 1)
        );
        settlement.propose(p, "");
        VM.warp(type(uint32).max - WINDOW);
        VM.prank(ORGANISER);
        settlement.propose(p, "");
    }

    // -- bounds -------------------------------------------------------------------------------------------------------
    function refuse(Settlement.Proposal memory bad, bytes memory refusal) private {
        VM.prank(ORGANISER);
        VM.expectRevert(refusal);
        settlement.propose(bad, "");
    }

    function test_an_hour_is_the_shortest_window_but_on_a_development_chain() public {
        Settlement.Terms memory terms = termsOf(token);
        terms.window = 1;
        new Settlement(terms);
        VM.chainId(1);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WindowTooShort.selector, 1));
        new Settlement(terms);
        terms.window = 1 hours - 1;
        VM.expectRevert(abi.encodeWithSelector(Settlement.WindowTooShort.selector, 1 hours - 1));
        new Settlement(terms);
        terms.window = 1 hours;
        new Settlement(terms);
    }

    function test_payouts_are_never_fewer_than_before_nor_more_than_have_worked() public {
        settlement.fund(1000 ether);
        settle(payouts(3, 2), 5, 6);
        Settlement.Proposal memory p = proposalOf(payouts(2, 2), 6, 2);
        refuse(p, abi.encodeWithSelector(Settlement.WrongPayouts.selector, 2, 3, 5));
        p = proposalOf(payouts(6, 2), 6, 2);
        p.receiptsCount = 2;
        refuse(p, abi.encodeWithSelector(Settlement.WrongPayouts.selector, 6, 3, 5));
        p.payoutsCount = 5;
        VM.prank(ORGANISER);
        settlement.propose(p, "");
    }

    function test_nobody_is_paid_without_leaves() public {
        settlement.fund(1000 ether);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        (p.payoutsRoot, p.payoutsCount) = (0, 0);
        refuse(p, abi.encodeWithSelector(Settlement.WrongPayouts.selector, 0, 0, 3));
    }

    function test_a_period_in_which_nobody_worked_is_left_to_the_next() public {
        settlement.fund(1000 ether);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        (p.totalUnits, p.amount) = (0, 0);
        refuse(p, abi.encodeWithSelector(Settlement.NoWork.selector));
        p = proposalOf(payouts(3, 2), 5, 6);
        (p.receiptsRoot, p.receiptsCount) = (0, 0);
        refuse(p, abi.encodeWithSelector(Settlement.NoWork.selector));
    }

    function test_epochs_are_bounded_by_the_contracts_age() public {
        settlement.fund(1e29);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), EPOCHS_PER_DAY + 1, 6);
        bytes memory refusal =
            abi.encodeWithSelector(Settlement.TooManyEpochs.selector, EPOCHS_PER_DAY + 1, EPOCHS_PER_DAY);
        refuse(p, refusal);
        VM.warp(START + 86);
        refuse(p, refusal);
        VM.warp(START + 87); // 86.4 seconds an epoch
        VM.prank(ORGANISER);
        settlement.propose(p, "");
        p.toEpoch = type(uint64).max;
        VM.prank(ORGANISER);
        VM.expectRevert(
            abi.encodeWithSelector(Settlement.TooManyEpochs.selector, type(uint64).max, EPOCHS_PER_DAY + 1)
        );
        settlement.replace(p, "");
    }

    function test_each_epoch_has_its_certificate() public {
        settlement.fund(1000 ether);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        p.certificatesCount = 4;
        refuse(p, abi.encodeWithSelector(Settlement.WrongCertificates.selector, 4, 5));
    }

    function test_units_are_bounded_by_the_epochs_and_receipts_by_the_units() public {
        settlement.fund(1e29);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 5 * UNITS_PER_EPOCH + 1);
        refuse(
            p,
            abi.encodeWithSelector(Settlement.TooManyUnits.selector, 5 * UNITS_PER_EPOCH + 1, 5 * uint256(UNITS_PER_EPOCH))
        );
        p = proposalOf(payouts(3, 2), 5, 2);
        refuse(p, abi.encodeWithSelector(Settlement.TooManyReceipts.selector, 3, 2));
    }

    function test_a_day_releases_no_more_than_its_amount() public {
        Settlement.Terms memory terms = termsOf(token);
        terms.amountPerDay = 60 ether;
        settlement = new Settlement(terms);
        token.approve(address(settlement), type(uint256).max);
        settlement.fund(1000 ether);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 7);
        p.budget = 70 ether;
        refuse(p, abi.encodeWithSelector(Settlement.WrongBudget.selector, 70 ether, 60 ether));
        p.budget = 60 ether;
        refuse(p, abi.encodeWithSelector(Settlement.WrongAmount.selector, 70 ether, 60 ether));
        settle(payouts(3, 2), 5, 6); // a whole day's
        uint256 ready = settlement.periodAt(0).readyAt;
        p = proposalOf(payouts(3, 3), 6, 3);
        p.budget = 60 ether;
        VM.prank(ORGANISER);
        settlement.propose(p, "");
        eq(settlement.periodAt(1).readyAt, ready + 12 hours); // half a day's
        VM.warp(ready + 12 hours - 1);
        VM.expectRevert(abi.encodeWithSelector(Settlement.WindowOpen.selector, ready + 12 hours));
        settlement.finalise();
    }

    function test_a_base_unit_in_front_of_a_proposal_makes_it_no_worse() public {
        settlement.fund(300);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        Settlement.Proposal memory p = proposalOf(leaves, 5, 6);
        p.amount = 300;
        settlement.fund(1); // somebody has seen it coming
        VM.prank(ORGANISER);
        settlement.propose(p, "");
        VM.prank(ORGANISER);
        settlement.cancel();
        settlement.fund(3);
        refuse(p, abi.encodeWithSelector(Settlement.WrongBudget.selector, 300, 304)); // over a hundredth: read it again
    }

    function test_only_a_shared_budget_is_rounded_and_by_no_more_than_have_worked() public {
        settlement.fund(1000);
        settlement.fund(1e30 - 2000);
        Settlement.Proposal memory p = proposalOf(payouts(3, 2), 5, 6);
        p.amount -= 1;
        refuse(p, abi.encodeWithSelector(Settlement.WrongAmount.selector, 60 ether - 1, 60 ether));
        deployAnotherWith(1000);
        p = proposalOf(payouts(3, 2), 5, 6);
        p.amount = 999;
        VM.prank(ORGANISER);
        settlement.propose(p, "");
        VM.warp(settlement.periodAt(0).readyAt);
        settlement.finalise();
        settlement.fund(1000);
        p = proposalOf(payouts(3, 2), 6, 6); // a thousand accounts in the tree would not make it more
        (p.receiptsCount, p.amount) = (2, 999);
        refuse(p, abi.encodeWithSelector(Settlement.WrongAmount.selector, 999, 1001));
        p.amount = 1000;
        VM.prank(ORGANISER);
        settlement.propose(p, "");
    }

    function test_a_payout_to_the_settlement_itself_is_none() public {
        settlement.fund(1000 ether);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        bind(2, address(0xB0B));
        VM.prank(WALLET);
        registry.setPayTo(address(settlement));
        bytes32[] memory proof = proofOf(leaves, 0);
        VM.expectRevert(abi.encodeWithSelector(Settlement.PaysItself.selector, VM.addr(1)));
        settlement.claim(leaves[0], 0, proof);
        eq(settlement.claimMany(batch(leaves)), 20 ether);
        eq(settlement.claimedOf(VM.addr(1)), 0);
    }

    function test_whoever_funds_can_ask_what_arrived() public {
        settlement.fund(700);
        settlement.fund(1);
        eq(settlement.fundedOf(address(this)), 701);
        eq(settlement.fundedOf(WALLET), 0);
    }

    // -- tokens that say no -------------------------------------------------------------------------------------------
    function test_fund_needs_allowance_and_balance() public {
        VM.prank(WALLET);
        VM.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(settlement), 0, 1)
        );
        settlement.fund(1);
        VM.prank(WALLET);
        token.approve(address(settlement), 1);
        VM.prank(WALLET);
        VM.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, WALLET, 0, 1));
        settlement.fund(1);
    }

    function test_more_than_104_bits_cannot_be_funded() public {
        StubbornToken vast = new StubbornToken();
        settlementOf(vast);
        settlement.fund(type(uint104).max);
        VM.expectRevert(
            abi.encodeWithSelector(
                SafeCast.SafeCastOverflowedUintDowncast.selector, 104, uint256(type(uint104).max) + 1
            )
        );
        settlement.fund(1);
        eq(vast.balanceOf(address(settlement)), type(uint104).max);
    }

    function test_a_token_that_answers_false_moves_nothing() public {
        StubbornToken stubborn = new StubbornToken();
        settlementOf(stubborn);
        settlement.fund(1000 ether);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        stubborn.refuseAll();
        bytes memory refusal = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(stubborn));
        VM.expectRevert(refusal);
        settlement.fund(1);
        bytes32[] memory proof = proofOf(leaves, 0);
        VM.expectRevert(refusal);
        settlement.claim(leaves[0], 0, proof);
        Settlement.Claim[] memory claims = batch(leaves);
        VM.expectRevert(refusal);
        settlement.claimMany(claims);
        eq(settlement.claimedOf(VM.addr(1)), 0);
        eq(settlement.claimed(), 0);
    }

    /// @dev One payee that the token refuses fails the batch: whoever pushes has to leave it out. Nobody else loses.
    function test_a_refused_payee_fails_the_batch_and_nothing_else() public {
        StubbornToken stubborn = new StubbornToken();
        settlementOf(stubborn);
        settlement.fund(1000 ether);
        Settlement.PayoutLeaf[] memory leaves = payouts(2, 3);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        bind(2, address(0xB0B));
        stubborn.refuse(WALLET);
        Settlement.Claim[] memory claims = batch(leaves);
        VM.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(stubborn)));
        settlement.claimMany(claims);
        settlement.claim(leaves[1], 1, proofOf(leaves, 1));
        eq(stubborn.balanceOf(address(0xB0B)), 30 ether);
        VM.prank(WALLET);
        registry.setPayTo(address(0x5AFE)); // the way out for its owner
        settlement.claim(leaves[0], 0, proofOf(leaves, 0));
        eq(stubborn.balanceOf(address(0x5AFE)), 30 ether);
    }

    // -- calls back ---------------------------------------------------------------------------------------------------
    function called(ERC20 hook) private returns (Settlement.PayoutLeaf[] memory leaves) {
        settlementOf(hook);
        settlement.fund(1000 ether);
        leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        for (uint256 key = 1; key <= 3; ++key) {
            bind(key, WALLET);
        }
    }

    /// @dev Without a lock, by books that are written first: an account is paid once, whoever calls from where.
    function test_a_claim_inside_a_claim_pays_nobody_twice() public {
        CallbackToken hook = new CallbackToken();
        Settlement.PayoutLeaf[] memory leaves = called(hook);
        bytes32[] memory proof = proofOf(leaves, 0);
        hook.arm(address(settlement), abi.encodeCall(Settlement.claim, (leaves[0], 0, proof)));
        VM.expectRevert(abi.encodeWithSelector(Settlement.NothingDue.selector, VM.addr(1)));
        settlement.claim(leaves[0], 0, proof);
        Settlement.Claim[] memory claims = batch(leaves);
        VM.expectRevert(abi.encodeWithSelector(Settlement.NothingDue.selector, VM.addr(1)));
        settlement.claimMany(claims);
        hook.arm(address(settlement), abi.encodeCall(Settlement.claimMany, (claims)));
        settlement.claim(leaves[0], 0, proof);
        eq(hook.balanceOf(WALLET), 60 ether);
        eq(settlement.claimed(), 60 ether);
        eq(settlement.claimMany(claims), 0);
    }

    /// @dev What a claim inside a deposit takes away is not counted as arrived: whoever pays in so has less, nobody more.
    function test_a_claim_inside_a_deposit_gives_the_pool_nothing_that_is_not_there() public {
        CallbackToken hook = new CallbackToken();
        Settlement.PayoutLeaf[] memory leaves = called(hook);
        hook.arm(address(settlement), abi.encodeCall(Settlement.claimMany, (batch(leaves))));
        settlement.fund(100 ether);
        eq(settlement.funded(), 1040 ether);
        eq(settlement.claimed(), 60 ether);
        eq(hook.balanceOf(address(settlement)), 1040 ether);
    }

    function test_a_deposit_inside_a_claim_is_counted_once() public {
        CallbackToken hook = new CallbackToken();
        Settlement.PayoutLeaf[] memory leaves = called(hook);
        bytes32[] memory proof = proofOf(leaves, 0);
        hook.arm(address(settlement), abi.encodeCall(Settlement.fund, (1)));
        VM.expectRevert(); // the settlement itself has allowed nobody to take anything
        settlement.claim(leaves[0], 0, proof);
    }

    // -- claims -------------------------------------------------------------------------------------------------------
    function test_claimMany_needs_a_final_period() public {
        proposed();
        Settlement.Claim[] memory claims = batch(payouts(3, 2));
        VM.expectRevert(Settlement.NoFinalPeriod.selector);
        settlement.claimMany(claims);
        eq(settlement.claimMany(new Settlement.Claim[](0)), 0);
    }

    function test_a_leaf_that_lost_is_not_paid_below_what_was_claimed() public {
        settlement.fund(1000 ether);
        settle(payouts(3, 2), 5, 6);
        bind(1, WALLET);
        settlement.claim(payouts(3, 2)[0], 0, proofOf(payouts(3, 2), 0));
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        (leaves[0].cumForfeited, leaves[0].cumClaimable) = (15 ether, 5 ether);
        settle(leaves, 6, 3);
        bytes32[] memory proof = proofOf(leaves, 0);
        VM.expectRevert(abi.encodeWithSelector(Settlement.NothingDue.selector, VM.addr(1)));
        settlement.claim(leaves[0], 0, proof);
        eq(settlement.claimMany(batch(leaves)), 0);
        eq(token.balanceOf(WALLET), 20 ether);
    }

    function test_a_proof_does_not_count_in_another_settlement() public {
        settlement.fund(1000 ether);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        deployAnother();
        settle(payouts(2, 3), 5, 6);
        bytes32[] memory proof = proofOf(leaves, 0);
        VM.expectRevert(abi.encodeWithSelector(Settlement.BadProof.selector, VM.addr(1)));
        settlement.claim(leaves[0], 0, proof);
    }

    function deployAnotherWith(uint256 funds) private {
        token = new TestToken(address(this), 1e30);
        settlement = new Settlement(termsOf(token));
        token.approve(address(settlement), type(uint256).max);
        settlement.fund(funds);
    }

    function deployAnother() private {
        Settlement.Terms memory terms = termsOf(token);
        terms.runId = keccak256("other");
        settlement = new Settlement(terms);
        token.approve(address(settlement), type(uint256).max);
        settlement.fund(1000 ether);
    }

    function test_whoever_claims_first_for_one_of_a_batch_changes_nothing_but_who_paid_the_gas() public {
        settlement.fund(1000 ether);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        settle(leaves, 5, 6);
        bind(1, WALLET);
        bind(2, address(0xB0B));
        VM.prank(address(0xBAD));
        settlement.claim(leaves[0], 0, proofOf(leaves, 0));
        eq(settlement.claimMany(batch(leaves)), 20 ether);
        eq(token.balanceOf(WALLET), 20 ether);
        eq(token.balanceOf(address(0xB0B)), 20 ether);
        eq(token.balanceOf(address(0xBAD)), 0);
    }

    function test_each_claim_goes_where_the_wallet_wants_it_then() public {
        settlement.fund(1000 ether);
        settle(payouts(3, 2), 5, 6);
        bind(1, WALLET);
        settlement.claim(payouts(3, 2)[0], 0, proofOf(payouts(3, 2), 0));
        VM.prank(WALLET);
        registry.setPayTo(address(0x5AFE));
        settle(payouts(3, 5), 9, 9);
        settlement.claim(payouts(3, 5)[0], 0, proofOf(payouts(3, 5), 0));
        eq(token.balanceOf(WALLET), 20 ether);
        eq(token.balanceOf(address(0x5AFE)), 30 ether);
    }

    // -- registry -----------------------------------------------------------------------------------------------------
    function test_a_consent_does_not_count_on_another_chain() public {
        address peer = VM.addr(7);
        bytes memory consent = signature(7, registry.bindingDigest(WALLET, peer, 0, type(uint64).max));
        VM.chainId(block.chainid + 1);
        VM.prank(WALLET);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        registry.bind(peer, 0, type(uint64).max, consent);
    }

    function test_whoever_sends_bindFor_first_binds_to_the_same_wallet() public {
        (address peer, address wallet) = (VM.addr(7), VM.addr(8));
        bytes32 digest = registry.bindingDigest(wallet, peer, 0, type(uint64).max);
        (bytes memory peerSig, bytes memory walletSig) = (signature(7, digest), signature(8, digest));
        VM.prank(address(0xBAD));
        registry.bindFor(wallet, peer, 0, type(uint64).max, peerSig, walletSig);
        eq(registry.walletOf(peer), wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.AlreadyBound.selector, peer, wallet));
        registry.bindFor(wallet, peer, 0, type(uint64).max, peerSig, walletSig);
    }

    // -- the token of the demo ----------------------------------------------------------------------------------------
    function test_the_test_token_gives_all_to_one_and_never_more() public {
        TestToken t = new TestToken(WALLET, 5);
        eq(t.totalSupply(), 5);
        eq(t.balanceOf(WALLET), 5);
        VM.prank(WALLET);
        VM.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, WALLET, 5, 6));
        t.transfer(address(this), 6); // forge-lint: disable-line(erc20-unchecked-transfer)
    }
}
