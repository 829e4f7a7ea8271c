// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CallbackToken} from "./Base.sol";
import {LicenseBase} from "./License.sol";
import {Bn254} from "../src/Bn254.sol";
import {ModelLicense} from "../src/ModelLicense.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @dev Keeps `part` per cent of each transfer, answers false, or refuses an address, as its test says.
contract MoodyToken is ERC20 {
    uint256 private _part;
    bool private _isFalse;
    address private _blocked;

    constructor() ERC20("Moody", "MOODY") {
        _mint(msg.sender, 1e30);
    }

    function be(uint256 part, bool isFalse, address blocked) external {
        (_part, _isFalse, _blocked) = (part, isFalse, blocked);
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        require(to != _blocked, "blocked");
        return !_isFalse && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !_isFalse && super.transferFrom(from, to, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && _part != 0) super._update(to, address(0xFEE), value * _part / 100);
    }
}

/// @dev What the contract does not let anybody do. Each rule has a test that fails without it.
contract LicenseRefusalsTest is LicenseBase {
    address private constant WALLET = address(0xA11CE);
    address private constant STRANGER = address(0x57A);

    function setUp() public {
        deployLicense();
    }

    function refuses(ModelLicense.Publication memory p, bytes memory refusal) private {
        VM.prank(ORGANISER);
        VM.expectRevert(refusal);
        license.publish(p);
    }

    // -- publishing ---------------------------------------------------------------------------------------------------
    function test_a_registry_is_a_contract() public {
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NoToken.selector, STRANGER));
        new ModelLicense(PeerRegistry(STRANGER));
    }

    function test_a_token_is_a_contract() public {
        ModelLicense.Publication memory p = publication();
        p.token = IERC20(STRANGER);
        refuses(p, abi.encodeWithSelector(ModelLicense.NoToken.selector, STRANGER));
    }

    function test_a_publication_counts_once() public {
        ModelLicense.Publication memory p = publication();
        bytes32 id = publish(p);
        refuses(p, abi.encodeWithSelector(ModelLicense.AlreadyPublished.selector, id));
    }

    function test_nobody_but_its_organiser_publishes_for_a_run() public {
        ModelLicense.Publication memory p = publication();
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotOrganiser.selector, STRANGER));
        license.publish(p);
    }

    function test_a_run_without_a_final_period_has_no_contributors_yet() public {
        ModelLicense.Publication memory p = publication();
        Settlement.Terms memory terms = termsOf(token);
        terms.runId = keccak256("other");
        p.settlement = new Settlement(terms);
        refuses(p, abi.encodeWithSelector(ModelLicense.NoFinalPeriod.selector));
    }

    function test_a_split_sums_to_the_whole() public {
        ModelLicense.Publication memory p = publication();
        p.ownerBps -= 1;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongSplit.selector, 9999));
        p.ownerBps += 2;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongSplit.selector, 10_001));
        p.contributorsBps = type(uint16).max;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongSplit.selector, uint256(type(uint16).max) + 2000));
    }

    function test_lists_are_bounded() public {
        ModelLicense.Publication memory p = publication();
        p.dataOwners = new ModelLicense.DataOwner[](9);
        refuses(p, abi.encodeWithSelector(ModelLicense.TooMany.selector, 9, 8));
        p = publication();
        p.parents = new ModelLicense.Parent[](5);
        refuses(p, abi.encodeWithSelector(ModelLicense.TooMany.selector, 5, 4));
        p = publication();
        p.holders = new ModelLicense.KeyHolder[](17);
        refuses(p, abi.encodeWithSelector(ModelLicense.TooMany.selector, 17, 16));
    }

    function test_nobody_is_paid_at_the_zero_address() public {
        ModelLicense.Publication memory p = publication();
        p.dataOwners[0].payee = address(0);
        refuses(p, abi.encodeWithSelector(ModelLicense.ZeroPayee.selector));
    }

    function test_a_parent_is_published_and_earns_in_the_same_token() public {
        ModelLicense.Publication memory p = served();
        (p.parents, p.ownerBps) = (new ModelLicense.Parent[](1), 4000);
        p.parents[0] = ModelLicense.Parent(keccak256("nobody's"), 1000);
        refuses(p, abi.encodeWithSelector(ModelLicense.OtherToken.selector, keccak256("nobody's")));
        ModelLicense.Publication memory other = served();
        other.token = new MoodyToken();
        p.parents[0].model = publish(other);
        refuses(p, abi.encodeWithSelector(ModelLicense.OtherToken.selector, p.parents[0].model));
    }

    function test_models_stand_on_one_another_four_deep() public {
        bytes32 last = publish(served());
        ModelLicense.Publication memory p = served();
        (p.parents, p.ownerBps) = (new ModelLicense.Parent[](1), 4000);
        for (uint256 i = 2; i <= 4; ++i) {
            p.parents[0] = ModelLicense.Parent(last, 1000);
            last = publish(p);
        }
        p.parents[0].model = last;
        refuses(p, abi.encodeWithSelector(ModelLicense.TooDeep.selector, last));
    }

    function test_what_cannot_be_delivered_is_not_published() public {
        ModelLicense.Publication memory p = publication();
        p.threshold = 4;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongDelivery.selector, 4, 3, DELIVERY));
        p.threshold = 0;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongDelivery.selector, 0, 3, DELIVERY));
        (p.threshold, p.deliverySeconds) = (2, 0);
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongDelivery.selector, 2, 3, 0));
        p.deliverySeconds = 30 days + 1;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongDelivery.selector, 2, 3, 30 days + 1));
    }

    function test_a_commitment_is_on_the_curve() public {
        ModelLicense.Publication memory p = publication();
        p.holders[1].commitment = Bn254.Point(1, 3);
        refuses(p, abi.encodeWithSelector(Bn254.BadPoint.selector, 1, 3));
        p.holders[1].commitment = Bn254.Point(0, 0);
        refuses(p, abi.encodeWithSelector(Bn254.BadPoint.selector, 0, 0));
    }

    function test_a_bond_is_no_less_than_the_price() public {
        ModelLicense.Publication memory p = publication();
        p.bond = uint96(COST - 1);
        refuses(p, abi.encodeWithSelector(ModelLicense.BondBelowPrice.selector, COST - 1, COST));
        bytes32 id = publish(publication());
        VM.prank(ORGANISER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.BondBelowPrice.selector, COST, COST + 1));
        license.setOffer(id, COST + 1, TERM, true);
    }

    function test_an_offer_has_a_price_and_a_term_of_a_century_at_most() public {
        ModelLicense.Publication memory p = served();
        p.price = 0;
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongOffer.selector, 0, TERM));
        (p.price, p.term) = (1, 36_500 days + 1);
        refuses(p, abi.encodeWithSelector(ModelLicense.WrongOffer.selector, 1, 36_500 days + 1));
    }

    function test_nobody_but_the_owner_changes_the_offer() public {
        bytes32 id = publish(served());
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotOwner.selector, STRANGER));
        license.setOffer(id, 1, 0, true);
    }

    // -- buying -------------------------------------------------------------------------------------------------------
    function refusesBuy(bytes32 id, bytes memory refusal) private {
        VM.prank(BUYER);
        VM.expectRevert(refusal);
        license.buy(id, BUYER, COST, TERM);
    }

    function test_what_is_not_published_or_closed_is_not_for_sale() public {
        refusesBuy(keccak256("nothing"), abi.encodeWithSelector(ModelLicense.NotForSale.selector, keccak256("nothing")));
        bytes32 id = opened();
        VM.prank(ORGANISER);
        license.setOffer(id, COST, TERM, false);
        refusesBuy(id, abi.encodeWithSelector(ModelLicense.NotForSale.selector, id));
    }

    function test_an_offer_that_changes_first_takes_nothing() public {
        bytes32 id = publish(served());
        VM.prank(ORGANISER);
        license.setOffer(id, COST + 1, TERM, true);
        refusesBuy(id, abi.encodeWithSelector(ModelLicense.PriceRaised.selector, COST + 1, COST));
        VM.prank(ORGANISER);
        license.setOffer(id, COST, TERM - 1, true);
        refusesBuy(id, abi.encodeWithSelector(ModelLicense.TermChanged.selector, TERM - 1, TERM));
    }

    function test_one_purchase_at_a_time_until_it_is_decided() public {
        bytes32 id = opened();
        buy(id);
        refusesBuy(id, abi.encodeWithSelector(ModelLicense.PurchasePending.selector, BUYER));
        deliver(id, 0, shareAt(0));
        deliver(id, 1, shareAt(1));
        refusesBuy(id, abi.encodeWithSelector(ModelLicense.PurchasePending.selector, BUYER));
    }

    function test_for_ever_is_not_bought_twice() public {
        ModelLicense.Publication memory p = served();
        p.term = 0;
        bytes32 id = publish(p);
        VM.prank(BUYER);
        license.buy(id, BUYER, COST, 0);
        VM.prank(BUYER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.HasLicenceForEver.selector, BUYER));
        license.buy(id, BUYER, COST, 0);
    }

    function test_nothing_is_sold_that_too_few_are_bonded_to_deliver() public {
        bytes32 id = publish(publication());
        bondAt(id, 0);
        refusesBuy(id, abi.encodeWithSelector(ModelLicense.NotEnoughHolders.selector, 1, 2));
    }

    function test_nothing_is_sold_to_who_has_no_key_to_seal_to() public {
        bytes32 id = opened();
        VM.prank(BUYER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NoKey.selector, STRANGER));
        license.buy(id, STRANGER, COST, TERM);
    }

    function test_a_key_is_on_the_curve_and_for_ever() public {
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(Bn254.BadPoint.selector, 5, 5));
        license.setKey(Bn254.Point(5, 5));
        VM.prank(BUYER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.HasKey.selector, BUYER));
        license.setKey(Bn254.Point(1, 2));
    }

    function test_nothing_is_refunded_before_its_time_or_twice_or_once_it_is_delivered() public {
        bytes32 id = opened();
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NothingRefundable.selector, BUYER));
        license.refund(id, BUYER);
        buy(id);
        uint256 deliverBy = block.timestamp + DELIVERY;
        VM.warp(deliverBy);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.DeliveryOpen.selector, deliverBy));
        license.refund(id, BUYER);
        deliver(id, 0, shareAt(0));
        deliver(id, 1, shareAt(1));
        VM.warp(deliverBy + 1);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NothingRefundable.selector, BUYER));
        license.refund(id, BUYER);
    }

    // -- holders ------------------------------------------------------------------------------------------------------
    function test_a_holder_is_who_was_named() public {
        bytes32 id = publish(publication());
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotHolder.selector, STRANGER));
        license.bond(id, 0, COST);
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotHolder.selector, STRANGER));
        license.retire(id, 3);
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotHolder.selector, STRANGER));
        license.takeBond(id, 0);
        VM.prank(STRANGER);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotHolder.selector, STRANGER));
        license.deliver(id, BUYER, 0, Bn254.Point(1, 2), 1);
    }

    function test_a_bond_is_whole_and_one() public {
        bytes32 id = publish(publication());
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.BondTooSmall.selector, COST - 1, COST));
        license.bond(id, 0, COST - 1);
        bondAt(id, 0);
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.IsBonded.selector, 0));
        license.bond(id, 0, COST);
    }

    function test_a_bond_stays_until_all_is_decided() public {
        bytes32 id = publish(publication());
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotBonded.selector, 0));
        license.retire(id, 0);
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotBonded.selector, 0));
        license.takeBond(id, 0);
        bondAt(id, 0);
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.IsBonded.selector, 0));
        license.takeBond(id, 0);
        VM.prank(holderAt(0));
        license.retire(id, 0);
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.NotBonded.selector, 0));
        license.retire(id, 0);
        uint256 until = block.timestamp + DELIVERY + 8 days;
        VM.warp(until);
        VM.prank(holderAt(0));
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.BondHeld.selector, until));
        license.takeBond(id, 0);
    }

    function refusesDelivery(bytes32 id, uint256 index, Bn254.Point memory base, uint256 share, bytes memory refusal)
        private
    {
        VM.prank(holderAt(index));
        VM.expectRevert(refusal);
        license.deliver(id, BUYER, index, base, share);
    }

    function test_a_share_is_delivered_once_in_time_by_who_has_a_bond_at_stake() public {
        bytes32 id = opened();
        Bn254.Point memory base = Bn254.Point(1, 2);
        refusesDelivery(id, 0, base, 1, abi.encodeWithSelector(ModelLicense.DeliveryOver.selector, BUYER));
        buy(id);
        refusesDelivery(id, 0, Bn254.Point(1, 3), 1, abi.encodeWithSelector(Bn254.BadPoint.selector, 1, 3));
        uint256 order = Bn254.ORDER;
        refusesDelivery(id, 0, base, order, abi.encodeWithSelector(ModelLicense.BadScalar.selector, order));
        deliver(id, 0, shareAt(0));
        refusesDelivery(id, 0, base, 1, abi.encodeWithSelector(ModelLicense.AlreadyDelivered.selector, BUYER, 0));
        VM.warp(block.timestamp + DELIVERY + 1);
        refusesDelivery(id, 1, base, 1, abi.encodeWithSelector(ModelLicense.DeliveryOver.selector, BUYER));
        license.refund(id, BUYER);
        refusesDelivery(id, 1, base, 1, abi.encodeWithSelector(ModelLicense.NotBonded.selector, 1));
    }

    // -- showing a share wrong ----------------------------------------------------------------------------------------
    function refusesDispute(bytes32 id, uint256 index, ModelLicense.Evidence memory e, bytes memory refusal) private {
        VM.expectRevert(refusal);
        license.dispute(id, BUYER, index, e);
    }

    function test_a_right_share_cannot_be_shown_wrong() public {
        bytes32 id = opened();
        buy(id);
        deliver(id, 0, shareAt(0));
        ModelLicense.Evidence memory e = evidence(id, 0, shareAt(0));
        refusesDispute(id, 0, e, abi.encodeWithSelector(ModelLicense.ShareIsRight.selector, 0));
        bytes memory refusal = abi.encodeWithSelector(ModelLicense.NoSuchEvidence.selector, BUYER, 0);
        // Another secret point would make any share wrong: the proof has to hold of this key and this delivery.
        e.shared = Bn254.Point(1, 2);
        refusesDispute(id, 0, e, refusal);
        e = evidence(id, 0, shareAt(0));
        e.response += 1;
        refusesDispute(id, 0, e, refusal);
        e = evidence(id, 0, shareAt(0));
        e.challenge += 1;
        refusesDispute(id, 0, e, refusal);
        e = evidence(id, 0, shareAt(0) + 1); // was not delivered
        refusesDispute(id, 0, e, refusal);
        e = evidence(id, 0, shareAt(0));
        e.key = Bn254.Point(1, 2);
        refusesDispute(id, 0, e, abi.encodeWithSelector(ModelLicense.NoKey.selector, BUYER));
        bytes32 elsewhere = keccak256("other model");
        e = evidence(elsewhere, 0, shareAt(0));
        refusesDispute(id, 0, e, refusal);
    }

    function test_what_was_not_delivered_cannot_be_shown_wrong() public {
        bytes32 id = opened();
        buy(id);
        deliver(id, 0, 5);
        ModelLicense.Evidence memory e = evidence(id, 0, 5);
        license.dispute(id, BUYER, 0, e);
        refusesDispute(id, 0, e, abi.encodeWithSelector(ModelLicense.DeliveryOver.selector, BUYER));
        buy(id); // two are bonded
        refusesDispute(id, 0, e, abi.encodeWithSelector(ModelLicense.NoSuchEvidence.selector, BUYER, 0));
    }

    function test_a_wrong_share_is_shown_within_a_day_of_the_last() public {
        bytes32 id = opened();
        buy(id);
        deliver(id, 0, 5);
        deliver(id, 1, shareAt(1));
        ModelLicense.Evidence memory e = evidence(id, 0, 5);
        VM.warp(block.timestamp + 1 days + 1);
        refusesDispute(id, 0, e, abi.encodeWithSelector(ModelLicense.DeliveryOver.selector, BUYER));
        VM.warp(block.timestamp - 1);
        license.confirm(id, buyers()); // passed over: not yet
        license.dispute(id, BUYER, 0, e);
        eq(owedTo(BUYER), COST);
    }

    // -- being paid ---------------------------------------------------------------------------------------------------
    function test_a_party_takes_its_part_once() public {
        bytes32 id = publish(served());
        VM.expectRevert(ModelLicense.NothingOwed.selector);
        license.collect(id, 0);
        buy(id);
        license.collect(id, 0);
        VM.expectRevert(ModelLicense.NothingOwed.selector);
        license.collect(id, 0);
        VM.prank(DATA);
        license.withdraw(IERC20(address(token)), DATA);
        VM.prank(DATA);
        VM.expectRevert(ModelLicense.NothingOwed.selector);
        license.withdraw(IERC20(address(token)), DATA);
    }

    function refusesToPay(bytes32 id, Settlement.PayoutLeaf[] memory leaves, uint256 who, bytes memory refusal)
        private
    {
        bytes32[] memory proof = proofOf(leaves, who);
        VM.expectRevert(refusal);
        license.payContributor(id, leaves[who], who, proof);
    }

    function test_a_contributor_is_paid_by_its_leaf_once_and_to_its_wallet() public {
        bytes32 id = publish(served());
        buy(id);
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        address account = leaves[0].account;
        refusesToPay(id, leaves, 0, abi.encodeWithSelector(ModelLicense.NotBound.selector, account));
        bind(1, WALLET);
        VM.prank(WALLET);
        registry.setPayTo(address(license));
        refusesToPay(id, leaves, 0, abi.encodeWithSelector(ModelLicense.PaysLicence.selector, account));
        VM.prank(WALLET);
        registry.setPayTo(address(0));
        payFor(id, 0);
        refusesToPay(id, leaves, 0, abi.encodeWithSelector(ModelLicense.NothingOwed.selector));
        leaves[0].cumUnits += 1;
        refusesToPay(id, leaves, 0, abi.encodeWithSelector(ModelLicense.BadProof.selector, account));
    }

    function test_a_model_of_no_run_pays_no_contributors() public {
        ModelLicense.Publication memory p = served();
        p.settlement = Settlement(address(0));
        bytes32 id = publish(p);
        refusesToPay(id, payouts(3, 2), 0, abi.encodeWithSelector(ModelLicense.NoContributors.selector, id));
    }

    function test_leaves_with_more_units_than_were_settled_take_no_more_than_the_contributors_part() public {
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 4);
        leaves[0].cumUnits = 8;
        settle(leaves, 9, 6); // 12 units settled; the leaves have 16
        bytes32 id = publish(served());
        buy(id);
        for (uint256 i = 0; i < 3; ++i) {
            bind(i + 1, WALLET);
        }
        for (uint256 i = 0; i < 2; ++i) {
            license.payContributor(id, leaves[i], i, proofOf(leaves, i));
        }
        refusesToPay(id, leaves, 2, abi.encodeWithSelector(ModelLicense.OverPot.selector, 10 ether, 0));
        eq(token.balanceOf(WALLET), 30 ether);
    }

    function test_nothing_is_withdrawn_into_the_contract_itself() public {
        bytes32 id = publish(served());
        buy(id);
        license.collect(id, 0);
        VM.prank(DATA);
        VM.expectRevert(abi.encodeWithSelector(ModelLicense.PaysLicence.selector, DATA));
        license.withdraw(IERC20(address(token)), address(license));
    }

    // -- tokens -------------------------------------------------------------------------------------------------------
    function moody() private returns (MoodyToken odd, bytes32 id) {
        odd = new MoodyToken();
        ModelLicense.Publication memory p = served();
        p.token = odd;
        id = publish(p);
        odd.approve(address(license), type(uint256).max);
    }

    function test_a_token_that_keeps_a_fee_is_counted_by_what_arrives() public {
        (MoodyToken odd, bytes32 id) = moody();
        odd.be(10, false, address(0));
        license.buy(id, BUYER, COST, TERM);
        eq(license.modelOf(id).earned, 90 ether);
        odd.be(100, false, address(0));
        VM.expectRevert(ModelLicense.NothingReceived.selector);
        license.buy(id, BUYER, COST, TERM);
    }

    function test_a_token_that_answers_false_buys_and_pays_nothing() public {
        (MoodyToken odd, bytes32 id) = moody();
        license.buy(id, BUYER, COST, TERM);
        license.collect(id, 0);
        odd.be(0, true, address(0));
        bytes memory refusal = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, odd);
        VM.expectRevert(refusal);
        license.buy(id, BUYER, COST, TERM);
        VM.prank(DATA);
        VM.expectRevert(refusal);
        license.withdraw(odd, DATA);
        eq(license.owed(odd, DATA), 20 ether);
    }

    function test_who_is_blocked_by_the_token_blocks_nobody_and_can_be_paid_elsewhere() public {
        (MoodyToken odd, bytes32 id) = moody();
        odd.be(0, false, DATA);
        license.buy(id, BUYER, COST, TERM);
        license.collect(id, 0);
        license.collect(id, 1);
        VM.prank(ORGANISER);
        license.withdraw(odd, ORGANISER);
        VM.prank(DATA);
        VM.expectRevert("blocked");
        license.withdraw(odd, DATA);
        VM.prank(DATA);
        license.withdraw(odd, WALLET);
        eq(odd.balanceOf(WALLET), 20 ether);
    }

    function test_no_purchase_bond_or_payment_within_another() public {
        CallbackToken odd = new CallbackToken();
        ModelLicense.Publication memory p = served();
        p.token = odd;
        bytes32 id = publish(p);
        odd.approve(address(license), type(uint256).max);
        license.buy(id, BUYER, COST, TERM);
        Settlement.PayoutLeaf memory leaf;
        bytes[4] memory calls = [
            abi.encodeCall(ModelLicense.buy, (id, BUYER, COST, TERM)),
            abi.encodeCall(ModelLicense.bond, (id, 0, COST)),
            abi.encodeCall(ModelLicense.withdraw, (odd, BUYER)),
            abi.encodeCall(ModelLicense.payContributor, (id, leaf, 0, new bytes32[](0)))
        ];
        for (uint256 i = 0; i < 4; ++i) {
            odd.arm(address(license), calls[i]);
            VM.expectRevert(ModelLicense.Reentered.selector);
            license.buy(id, BUYER, COST, TERM);
        }
    }

    function test_a_confirmation_within_a_renewal_earns_once() public {
        CallbackToken odd = new CallbackToken();
        ModelLicense.Publication memory p = publication();
        p.token = odd;
        bytes32 id = publish(p);
        for (uint256 i = 0; i < HOLDERS; ++i) {
            require(odd.transfer(holderAt(i), COST), "transfer");
            VM.prank(holderAt(i));
            odd.approve(address(license), COST);
            bondAt(id, i);
        }
        odd.approve(address(license), type(uint256).max);
        license.buy(id, BUYER, COST, TERM);
        deliver(id, 0, shareAt(0));
        deliver(id, 1, shareAt(1));
        VM.warp(block.timestamp + 1 days + 1);
        odd.arm(address(license), abi.encodeCall(ModelLicense.confirm, (id, buyers())));
        license.buy(id, BUYER, COST, TERM);
        eq(license.modelOf(id).earned, 2 * COST);
        eq(odd.balanceOf(address(license)), (2 + HOLDERS) * COST);
    }
}
