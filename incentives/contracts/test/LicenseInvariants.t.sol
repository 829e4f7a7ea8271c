// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {LicenseBase} from "./License.sol";
import {OddToken} from "./Invariants.t.sol";
import {Bn254} from "../src/Bn254.sol";
import {ModelLicense} from "../src/ModelLicense.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {TestToken} from "../src/TestToken.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev Buys, delivers right and wrong, disputes, asks for refunds, bonds, leaves and takes, in any order. It is every
/// holder itself, and pays for four licensees, itself among them. Models: a served parent; its child with a key in
/// shares; another child without a run.
contract LicenseActor is LicenseBase {
    uint256 private constant MODELS = 3;
    OddToken private immutable ODD;
    bytes32[MODELS] public ids;
    address[4] public licensees;
    uint256 public sales;
    uint256 public refunds;
    uint256 public disputes;
    uint256 public withdrawals;
    uint256 public contributions;
    mapping(bytes32 id => mapping(address licensee => mapping(uint256 index => uint256))) private delivered;
    string public broken;

    constructor(OddToken odd, ModelLicense license_, Settlement settlement_, PeerRegistry registry_, TestToken token_) {
        (ODD, license, settlement, registry, token) = (odd, license_, settlement_, registry_, token_);
        licensees = [address(this), address(0x11), address(0x12), address(0x13)];
        Bn254.Point memory key = point(SECRET);
        for (uint256 i = 0; i < 4; ++i) {
            VM.prank(licensees[i]);
            license.setKey(key);
        }
        open();
    }

    function open() private {
        ModelLicense.Publication memory p = served();
        p.token = IERC20(address(ODD));
        ids[0] = publish(p);
        p = publication();
        (p.token, p.ownerBps, p.bond) = (IERC20(address(ODD)), 3777, uint96(2 * COST));
        p.parents = new ModelLicense.Parent[](1);
        p.parents[0] = ModelLicense.Parent(ids[0], 1223);
        for (uint256 i = 0; i < HOLDERS; ++i) {
            p.holders[i].account = address(this);
        }
        ids[1] = publish(p);
        (p.settlement, p.term) = (Settlement(address(0)), 0);
        ids[2] = publish(p);
        ODD.approve(address(license), type(uint256).max);
        for (uint256 i = 0; i < 3; ++i) {
            bind(i + 1, address(uint160(0xAA00 + i)));
        }
    }

    function buy(uint256 which, uint256 who) external {
        bytes32 id = ids[which % MODELS];
        ModelLicense.Model memory model = license.modelOf(id);
        license.buy(id, licensees[who % 4], model.price, model.term);
        ++sales;
    }

    /// @dev To the first purchase from there on that waits; each fourth share is wrong.
    function deliver(uint256 start, uint256 mood) external {
        for (uint256 i = 0; i < 8 * HOLDERS; ++i) {
            (bytes32 id, address licensee, uint256 index) = placeOf(start % 24 + i);
            ModelLicense.Licence memory licence = license.licenceOf(id, licensee);
            if (licence.state != 1 || licence.given >> index & 1 != 0) continue;
            if (license.holdersOf(id)[index].bond == 0) continue;
            uint256 share = shareAt(index) + (mood % 4 == 0 ? 1 : 0);
            (Bn254.Point memory ephemeral, uint256 sealedShare) = sealedFor(index, share);
            license.deliver(id, licensee, index, ephemeral, sealedShare);
            delivered[id][licensee][index] = share;
            return;
        }
    }

    /// @dev Of the first share from there on that can be looked at.
    function dispute(uint256 start) external {
        for (uint256 i = 0; i < 8 * HOLDERS; ++i) {
            (bytes32 id, address licensee, uint256 index) = placeOf(start % 24 + i);
            ModelLicense.Licence memory licence = license.licenceOf(id, licensee);
            if (licence.state % 3 == 0 || licence.given >> index & 1 == 0) continue;
            license.dispute(id, licensee, index, evidenceOf(id, licensee, index, delivered[id][licensee][index]));
            if (delivered[id][licensee][index] == shareAt(index)) broken = "a right share was shown wrong";
            ++disputes;
            return;
        }
    }

    function placeOf(uint256 i) private view returns (bytes32, address, uint256) {
        return (ids[1 + i % 2], licensees[i / 2 % 4], i / 8 % HOLDERS);
    }

    function refund(uint256 which, uint256 who) external {
        license.refund(ids[1 + which % 2], licensees[who % 4]);
        ++refunds;
    }

    function confirm(uint256 which) external {
        address[] memory all = new address[](5);
        for (uint256 i = 0; i < 5; ++i) {
            all[i] = licensees[i % 4]; // the first one twice
        }
        license.confirm(ids[which % MODELS], all);
    }

    function wait(uint256 time) external {
        VM.warp(block.timestamp + bound(time, 1, 12 hours));
    }

    function bond(uint256 which, uint256 index, uint256 amount) external {
        license.bond(ids[1 + which % 2], index % HOLDERS, bound(amount, 2 * COST, 3 * COST));
    }

    function retire(uint256 which, uint256 index, uint256 mood) external {
        if (mood % 4 == 0) license.retire(ids[1 + which % 2], index % HOLDERS);
    }

    function takeBond(uint256 which, uint256 index) external {
        license.takeBond(ids[1 + which % 2], index % HOLDERS);
    }

    function offer(uint256 which, uint256 price) external {
        bytes32 id = ids[which % MODELS];
        uint40 term = license.modelOf(id).term;
        VM.prank(ORGANISER);
        license.setOffer(id, uint104(bound(price, 1, 2 * COST)), term, price % 9 != 0);
    }

    function collect(uint256 which, uint256 index) external {
        license.collect(ids[which % MODELS], index % 3);
    }

    function pay(uint256 which, uint256 who) external {
        payFor(ids[which % 2], who % 3);
        ++contributions;
    }

    function withdraw(uint256 who) external {
        address account = accountAt(who % 6);
        VM.prank(account);
        license.withdraw(ODD, account);
        ++withdrawals;
    }

    function accountAt(uint256 i) public view returns (address) {
        return i < 4 ? licensees[i] : i == 4 ? ORGANISER : DATA;
    }

    /// @dev The token's next mood, and what it calls while it moves.
    function turn(uint256 mood, uint256 which, uint256 who) external {
        (bytes32 id, address licensee) = (ids[which % MODELS], licensees[who % 4]);
        address[] memory one = new address[](1);
        one[0] = licensee;
        bytes memory call_ = abi.encodeCall(ModelLicense.confirm, (id, one));
        if (mood % 5 == 1) call_ = abi.encodeCall(ModelLicense.refund, (id, licensee));
        if (mood % 5 == 2) call_ = abi.encodeCall(ModelLicense.collect, (id, who % 3));
        if (mood % 5 == 3) call_ = abi.encodeCall(ModelLicense.buy, (id, licensee, COST, TERM));
        if (mood % 5 == 4) call_ = abi.encodeCall(ModelLicense.withdraw, (IERC20(address(ODD)), address(this)));
        ODD.turn(mood, address(license), call_);
    }
}

/// @dev 4,400 calls for each of six kinds of token; with FOUNDRY_PROFILE=slow (`make test-slow`) 17,600, together more than 100,000.
abstract contract LicenseInvariantsBase is LicenseBase {
    LicenseActor internal _actor;
    OddToken internal _odd;

    function kind() internal pure virtual returns (uint8);

    function setUp() public {
        deployLicense();
        _odd = new OddToken(kind());
        _actor = new LicenseActor(_odd, license, settlement, registry, token);
        require(_odd.transfer(address(_actor), 1e29), "transfer");
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_actor);
    }

    /// @dev Each base unit that came and has not left is refundable, a bond, in a pot or owed; once. Looked at after each
    /// eighth call: what is lost stays lost.
    /// forge-config: default.invariant.check-interval = 8
    /// forge-config: default.invariant.runs = 11
    function invariant_received_is_paid_refundable_bonded_in_pots_or_owed() external view {
        uint256 due;
        for (uint256 i = 0; i < 3; ++i) {
            due += potOf(_actor.ids(i)) + heldOf(_actor.ids(i));
        }
        for (uint256 i = 0; i < 6; ++i) {
            due += license.owed(_odd, _actor.accountAt(i));
        }
        eq(bytes(_actor.broken()).length, 0);
        if (kind() != 2) eq(_odd.balanceOf(address(license)), due); // a token that shrinks takes what it likes
    }

    /// @dev What is earned and was not moved on, which nobody's part exceeds.
    function potOf(bytes32 id) private view returns (uint256 pot) {
        ModelLicense.Model memory model = license.modelOf(id);
        uint256 part = license.shareOf(model.earned, 0, model.contributorsBps);
        yes(model.contributorsPaid <= part);
        (pot, part) = (model.earned - model.contributorsPaid, part);
        ModelLicense.Party[] memory parties = license.partiesOf(id);
        for (uint256 i = 0; i < parties.length; ++i) {
            uint256 share = license.shareOf(model.earned, parties[i].from, parties[i].bps);
            yes(parties[i].taken <= share);
            pot -= parties[i].taken;
            part += share;
        }
        eq(part, model.earned);
    }

    /// @dev Refundable and bonds; as many are counted as bonded as are.
    function heldOf(bytes32 id) private view returns (uint256 held) {
        for (uint256 i = 0; i < 4; ++i) {
            ModelLicense.Licence memory licence = license.licenceOf(id, _actor.licensees(i));
            yes((licence.state == 1 || licence.state == 2) == (licence.amount != 0));
            held += licence.amount;
        }
        uint256 bonded;
        ModelLicense.Holder[] memory holders = license.holdersOf(id);
        for (uint256 i = 0; i < holders.length; ++i) {
            held += holders[i].bond;
            if (holders[i].bond != 0 && holders[i].leftAt == 0) ++bonded;
        }
        eq(bonded, license.modelOf(id).numBonded);
    }
}

contract PlainLicenseInvariantsTest is LicenseInvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 0;
    }

    /// @dev The invariants would hold of a contract that never pays: the actor gets through all that moves money.
    function test_the_actor_reaches_a_sale_a_refund_a_dispute_and_payments() external {
        for (uint256 i = 0; i < 3; ++i) {
            _actor.bond(0, i, 0);
        }
        _actor.wait(0);
        _actor.buy(1, 0);
        _actor.deliver(0, 1);
        _actor.deliver(0, 1);
        VM.warp(block.timestamp + 1 days + 1);
        _actor.confirm(1);
        _actor.collect(1, 0);
        _actor.collect(1, 1);
        _actor.pay(1, 0);
        _actor.withdraw(5);
        _actor.buy(1, 1);
        _actor.deliver(0, 0);
        _actor.dispute(0);
        _actor.buy(1, 2);
        VM.warp(block.timestamp + 1 days + 1);
        _actor.refund(0, 2);
        yes(_actor.refunds() == 1 && _actor.disputes() == 1 && _actor.contributions() == 1);
        this.invariant_received_is_paid_refundable_bonded_in_pots_or_owed();
    }
}

contract FeeLicenseInvariantsTest is LicenseInvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 1;
    }
}

contract RebasingLicenseInvariantsTest is LicenseInvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 2;
    }
}

contract ReentrantLicenseInvariantsTest is LicenseInvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 3;
    }
}

contract FalseLicenseInvariantsTest is LicenseInvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 4;
    }
}

contract BlockingLicenseInvariantsTest is LicenseInvariantsBase {
    function kind() internal pure override returns (uint8) {
        return 5;
    }
}
