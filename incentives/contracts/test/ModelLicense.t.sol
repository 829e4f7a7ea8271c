// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LicenseBase} from "./License.sol";
import {Bn254} from "../src/Bn254.sol";
import {ModelLicense} from "../src/ModelLicense.sol";
import {Settlement} from "../src/Settlement.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev What a model's owner, its buyers, its key holders and those whom it pays do.
contract ModelLicenseTest is LicenseBase {
    address private constant WALLET = address(0xA11CE);

    function setUp() public {
        deployLicense();
    }

    // -- a sale -------------------------------------------------------------------------------------------------------
    function test_a_sale_is_delivered_confirmed_and_split_to_the_base_unit() public {
        bytes32 id = opened();
        no(license.hasAccess(id, BUYER));
        buy(id);
        yes(license.hasAccess(id, BUYER));
        eq(license.modelOf(id).earned, 0);
        deliver(id, 0, shareAt(0));
        deliver(id, 2, shareAt(2));
        license.confirm(id, buyers()); // too early: passed over
        eq(license.modelOf(id).earned, 0);
        VM.warp(block.timestamp + 1 days + 1);
        license.confirm(id, buyers());
        license.confirm(id, buyers()); // once
        eq(license.modelOf(id).earned, COST);
        license.collect(id, 0);
        license.collect(id, 1);
        eq(owedTo(DATA), 20 ether);
        eq(owedTo(ORGANISER), 50 ether);
        for (uint256 i = 0; i < 3; ++i) {
            bind(i + 1, WALLET);
            payFor(id, i);
            eq(token.balanceOf(WALLET), 10 ether * (i + 1));
        }
        VM.prank(DATA);
        license.withdraw(IERC20(address(token)), WALLET);
        VM.prank(ORGANISER);
        license.withdraw(IERC20(address(token)), ORGANISER);
        eq(token.balanceOf(WALLET), 50 ether);
        eq(token.balanceOf(address(license)), HOLDERS * COST); // the bonds
    }

    function test_two_shares_that_are_opened_make_the_secret() public {
        bytes32 id = opened();
        buy(id);
        ModelLicense.Evidence memory e = evidence(id, 0, shareAt(0));
        uint256 mask = uint256(Bn254.hash(Bn254.mul(e.ephemeral, SECRET))) % Bn254.ORDER;
        eq(addmod(e.sealedShare, Bn254.ORDER - mask, Bn254.ORDER), shareAt(0));
        eq(2 * shareAt(0) - shareAt(1), 1000); // Lagrange at 0 of the line through 1 and 2
    }

    function test_a_term_ends_and_a_renewal_lasts_from_the_old_end() public {
        bytes32 id = sold();
        uint256 end = license.licenceOf(id, BUYER).expiresAt;
        buy(id);
        eq(license.licenceOf(id, BUYER).expiresAt, end + TERM);
        eq(license.modelOf(id).earned, 2 * COST); // nothing to deliver: earned at once
        VM.warp(end + TERM - 1);
        yes(license.hasAccess(id, BUYER));
        VM.warp(end + TERM);
        no(license.hasAccess(id, BUYER));
        VM.warp(end + 2 * TERM);
        buy(id); // from now, not from the old end
        eq(license.licenceOf(id, BUYER).expiresAt, block.timestamp + TERM);
    }

    function test_a_renewal_confirms_what_was_delivered() public {
        bytes32 id = opened();
        buy(id);
        deliver(id, 0, shareAt(0));
        deliver(id, 1, shareAt(1));
        VM.warp(block.timestamp + 1 days + 1);
        buy(id);
        eq(license.modelOf(id).earned, 2 * COST);
        license.confirm(id, buyers());
        eq(license.modelOf(id).earned, 2 * COST);
    }

    function test_for_ever_has_no_end() public {
        ModelLicense.Publication memory p = served();
        p.term = 0;
        bytes32 id = publish(p);
        VM.prank(BUYER);
        license.buy(id, BUYER, COST, 0);
        VM.warp(block.timestamp + 36_500 days);
        yes(license.hasAccess(id, BUYER));
    }

    function test_a_change_of_price_and_term_touches_nothing_that_was_bought() public {
        bytes32 id = opened();
        buy(id);
        ModelLicense.Licence memory before = license.licenceOf(id, BUYER);
        VM.prank(ORGANISER);
        license.setOffer(id, COST / 2, 1 days, false);
        ModelLicense.Licence memory afterwards = license.licenceOf(id, BUYER);
        eq(afterwards.expiresAt, before.expiresAt);
        eq(afterwards.amount, COST);
        VM.warp(block.timestamp + DELIVERY + 1);
        license.refund(id, BUYER);
        eq(owedTo(BUYER), COST);
    }

    function test_a_served_model_earns_at_once_and_opens_without_a_key() public {
        bytes32 id = publish(served());
        VM.prank(GIVER);
        license.buy(id, DATA, COST, TERM); // has no key
        yes(license.hasAccess(id, DATA));
        eq(license.modelOf(id).earned, COST);
    }

    // -- refunds and holders ------------------------------------------------------------------------------------------
    function test_silence_gives_the_money_back_and_costs_the_bonds_of_the_silent() public {
        bytes32 id = opened();
        buy(id);
        deliver(id, 1, shareAt(1)); // one of two
        VM.warp(block.timestamp + DELIVERY + 1);
        license.refund(id, BUYER);
        no(license.hasAccess(id, BUYER));
        eq(owedTo(BUYER), COST);
        eq(license.modelOf(id).earned, 2 * COST); // bonds of 0 and 2
        eq(license.modelOf(id).numBonded, 1);
        eq(license.holdersOf(id)[1].bond, COST);
        eq(license.holdersOf(id)[0].bond, 0);
    }

    function test_a_gift_is_the_licensee_s_and_its_refund_the_giver_s() public {
        bytes32 id = opened();
        VM.prank(GIVER);
        license.buy(id, BUYER, COST, TERM);
        yes(license.hasAccess(id, BUYER));
        no(license.hasAccess(id, GIVER));
        VM.warp(block.timestamp + DELIVERY + 1);
        license.refund(id, BUYER);
        eq(owedTo(GIVER), COST);
        eq(owedTo(BUYER), 0);
        reopen(id);
        buy(id);
        VM.warp(block.timestamp + DELIVERY + 1);
        license.refund(id, BUYER); // bought for itself now
        eq(owedTo(GIVER), COST);
        eq(owedTo(BUYER), COST);
    }

    function reopen(bytes32 id) private {
        for (uint256 i = 0; i < HOLDERS; ++i) {
            bondAt(id, i);
        }
        VM.warp(block.timestamp + 1);
    }

    function test_a_wrong_share_is_shown_and_costs_the_bond_and_the_sale() public {
        bytes32 id = opened();
        VM.prank(GIVER);
        license.buy(id, BUYER, COST, TERM);
        deliver(id, 0, shareAt(0));
        deliver(id, 1, shareAt(1) + 1);
        license.dispute(id, BUYER, 1, evidence(id, 1, shareAt(1) + 1));
        no(license.hasAccess(id, BUYER));
        eq(owedTo(GIVER), COST);
        eq(owedTo(BUYER), 0);
        eq(license.modelOf(id).earned, COST); // the bond: a buyer and a holder that are one gain nothing
        eq(license.holdersOf(id)[1].bond, 0);
        eq(license.holdersOf(id)[0].bond, COST);
    }

    function test_a_wrong_share_can_be_shown_before_the_key_is_complete() public {
        bytes32 id = opened();
        buy(id);
        deliver(id, 1, 0);
        license.dispute(id, BUYER, 1, evidence(id, 1, 0));
        eq(owedTo(BUYER), COST);
    }

    function test_who_bonded_or_left_in_the_second_of_the_purchase_or_left_before_does_not_answer_for_it() public {
        bytes32 id = publish(publication());
        bondAt(id, 0);
        bondAt(id, 1);
        VM.warp(block.timestamp + 1);
        bondAt(id, 2);
        VM.prank(holderAt(1));
        license.retire(id, 1);
        buy(id);
        eq(license.modelOf(id).numBonded, 2);
        VM.warp(block.timestamp + DELIVERY + 1);
        license.refund(id, BUYER);
        eq(license.modelOf(id).earned, COST); // of holder 0 alone
    }

    function test_who_leaves_after_a_purchase_answers_for_it_and_then_takes_the_bond() public {
        bytes32 id = opened();
        buy(id);
        VM.warp(block.timestamp + 1);
        VM.prank(holderAt(0));
        license.retire(id, 0);
        deliver(id, 1, shareAt(1));
        VM.warp(block.timestamp + DELIVERY + 1);
        license.refund(id, BUYER);
        eq(license.holdersOf(id)[0].bond, 0);
        VM.prank(holderAt(1));
        license.retire(id, 1);
        VM.warp(block.timestamp + DELIVERY + 8 days + 1);
        VM.prank(holderAt(1));
        license.takeBond(id, 1);
        eq(owedTo(holderAt(1)), COST);
        eq(license.modelOf(id).numBonded, 0);
    }

    // -- the split ----------------------------------------------------------------------------------------------------
    function testFuzz_shares_sum_to_what_was_earned_and_never_shrink(uint256 earned, uint256 more, uint16 a, uint16 b)
        public
        view
    {
        (earned, more) = (bound(earned, 0, 1e30), bound(more, 0, 1e30));
        (uint256 x, uint256 y) = (bound(a, 0, 10_000), bound(b, 0, 10_000));
        if (x > y) (x, y) = (y, x);
        uint256[3] memory froms = [0, x, y];
        uint256[3] memory widths = [x, y - x, 10_000 - y];
        uint256 sum;
        for (uint256 i = 0; i < 3; ++i) {
            uint256 share = license.shareOf(earned, froms[i], widths[i]);
            yes(license.shareOf(earned + more, froms[i], widths[i]) >= share);
            yes(share <= earned * widths[i] / 10_000 + 2500 && share + 2500 >= earned * widths[i] / 10_000);
            sum += share;
        }
        eq(sum, earned);
    }

    function test_a_parent_s_share_is_split_by_the_parent_s_own_rules() public {
        bytes32 parent = publish(served());
        ModelLicense.Publication memory p = served();
        p.parents = new ModelLicense.Parent[](1);
        (p.parents[0], p.ownerBps) = (ModelLicense.Parent(parent, 1000), 4000);
        bytes32 child = publish(p);
        buy(child);
        license.collect(child, 0);
        eq(license.modelOf(parent).earned, 10 ether);
        license.collect(parent, 0);
        eq(owedTo(DATA), 2 ether);
        eq(license.modelOf(child).depth, 2);
    }

    function test_one_proof_pays_a_contributor_all_that_the_model_owes_it() public {
        bytes32 id = publish(served());
        bind(1, WALLET);
        buy(id);
        buy(id);
        payFor(id, 0);
        eq(token.balanceOf(WALLET), 20 ether); // two sales, a third of 30 % each
        buy(id);
        payFor(id, 0);
        eq(token.balanceOf(WALLET), 30 ether);
        settle(payouts(3, 4), 9, 6); // later periods change nothing of this model
        buy(id);
        payFor(id, 0);
        eq(token.balanceOf(WALLET), 40 ether);
    }

    function test_units_of_all_periods_count_also_of_more_than_a_publication_adds_up() public {
        settle(payouts(3, 4), 9, 6);
        for (uint64 i = 0; i < 70; ++i) {
            settle(payouts(3, 4 + i), 10 + i, 3);
        }
        ModelLicense.Publication memory p = served();
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotTallied.selector, 72, 64));
        license.publish(p);
        eq(license.tally(settlement, 5), 5);
        eq(license.tally(settlement, 3), 8);
        bytes32 id = publish(p); // adds the rest
        eq(license.modelOf(id).totalUnits, 6 + 6 + 70 * 3);
    }

    function test_without_a_settlement_the_contributors_part_is_the_owner_s() public {
        ModelLicense.Publication memory p = served();
        p.settlement = Settlement(address(0));
        VM.prank(GIVER);
        bytes32 id = license.publish(p);
        buy(id);
        license.collect(id, 1);
        eq(owedTo(GIVER), 80 ether);
    }
}
