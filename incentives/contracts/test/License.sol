// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SettlementBase} from "./Base.sol";
import {Bn254} from "../src/Bn254.sol";
import {ModelLicense} from "../src/ModelLicense.sol";
import {Settlement} from "../src/Settlement.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev A run with a final period, and models whose key is 2-of-3; the holders' shares are on 1000 + 7 x.
abstract contract LicenseBase is SettlementBase {
    uint104 internal constant COST = 100 ether;
    uint40 internal constant TERM = 30 days;
    uint32 internal constant DELIVERY = 1 days;
    uint256 internal constant HOLDERS = 3;
    uint256 internal constant SECRET = 0xB0B;
    address internal constant BUYER = address(0xB0B);
    address internal constant GIVER = address(0x61FE);
    address internal constant DATA = address(0xDA7A);

    ModelLicense internal license;

    function deployLicense() internal {
        deploy();
        license = new ModelLicense(registry);
        settlement.fund(1e24);
        settle(payouts(3, 2), 5, 6);
        for (uint256 i = 0; i < HOLDERS; ++i) {
            give(holderAt(i));
        }
        give(BUYER);
        give(GIVER);
        Bn254.Point memory key = point(SECRET); // before the prank: a precompile is called, too
        VM.prank(BUYER);
        license.setKey(key);
    }

    function give(address to) internal {
        require(token.transfer(to, 1e24), "transfer");
        VM.prank(to);
        token.approve(address(license), type(uint256).max);
    }

    function holderAt(uint256 index) internal pure returns (address) {
        return address(uint160(0x4010 + index));
    }

    function shareAt(uint256 index) internal pure returns (uint256) {
        return 1000 + 7 * (index + 1);
    }

    function point(uint256 scalar) internal view returns (Bn254.Point memory) {
        return Bn254.mul(Bn254.generator(), scalar);
    }

    /// @dev Contributors 30 %, data 20 %, the organiser 50 %.
    function publication() internal view returns (ModelLicense.Publication memory p) {
        (p.root, p.manifestHash) = (keccak256("root"), keccak256("manifest"));
        (p.token, p.settlement) = (IERC20(address(token)), settlement);
        (p.ownerBps, p.contributorsBps) = (5000, 3000);
        p.dataOwners = new ModelLicense.DataOwner[](1);
        p.dataOwners[0] = ModelLicense.DataOwner(DATA, 2000);
        (p.price, p.term, p.deliverySeconds, p.threshold, p.bond) = (COST, TERM, DELIVERY, 2, uint96(COST));
        p.holders = new ModelLicense.KeyHolder[](HOLDERS);
        for (uint256 i = 0; i < HOLDERS; ++i) {
            p.holders[i] = ModelLicense.KeyHolder(holderAt(i), point(shareAt(i)));
        }
    }

    /// @dev As `publication`, served.
    function served() internal view returns (ModelLicense.Publication memory p) {
        p = publication();
        (p.threshold, p.bond, p.deliverySeconds) = (0, 0, 0);
        p.holders = new ModelLicense.KeyHolder[](0);
    }

    function publish(ModelLicense.Publication memory p) internal returns (bytes32) {
        VM.prank(ORGANISER);
        return license.publish(p);
    }

    /// @dev Published, and all holders bonded a second ago.
    function opened() internal returns (bytes32 id) {
        id = publish(publication());
        for (uint256 i = 0; i < HOLDERS; ++i) {
            bondAt(id, i);
        }
        VM.warp(block.timestamp + 1);
    }

    function bondAt(bytes32 id, uint256 index) internal {
        VM.prank(holderAt(index));
        license.bond(id, index, COST);
    }

    function buy(bytes32 id) internal {
        VM.prank(BUYER);
        license.buy(id, BUYER, COST, TERM);
    }

    function deliver(bytes32 id, uint256 index, uint256 share) internal {
        (Bn254.Point memory ephemeral, uint256 sealedShare) = sealedFor(index, share);
        VM.prank(holderAt(index));
        license.deliver(id, BUYER, index, ephemeral, sealedShare);
    }

    function sealedFor(uint256 index, uint256 share) internal view returns (Bn254.Point memory, uint256) {
        Bn254.Point memory shared = Bn254.mul(point(SECRET), nonceAt(index));
        return (point(nonceAt(index)), addmod(share, uint256(Bn254.hash(shared)) % Bn254.ORDER, Bn254.ORDER));
    }

    function nonceAt(uint256 index) internal pure returns (uint256) {
        return 555 + index;
    }

    /// @dev What the buyer shows of the delivery of `share`.
    function evidence(bytes32 id, uint256 index, uint256 share) internal view returns (ModelLicense.Evidence memory) {
        return evidenceOf(id, BUYER, index, share);
    }

    function evidenceOf(bytes32 id, address licensee, uint256 index, uint256 share)
        internal
        view
        returns (ModelLicense.Evidence memory e)
    {
        (e.key, e.ephemeral) = (point(SECRET), point(nonceAt(index)));
        e.shared = Bn254.mul(e.ephemeral, SECRET);
        e.sealedShare = addmod(share, uint256(Bn254.hash(e.shared)) % Bn254.ORDER, Bn254.ORDER);
        Bn254.Point memory first = point(987654321);
        Bn254.Point memory second = Bn254.mul(e.ephemeral, 987654321);
        bytes32 hash = keccak256(abi.encode(id, licensee, e.key, e.ephemeral, e.shared, first, second));
        e.challenge = uint256(hash) % Bn254.ORDER;
        uint256 product = mulmod(e.challenge, SECRET, Bn254.ORDER);
        e.response = addmod(987654321, Bn254.ORDER - product, Bn254.ORDER);
    }

    function buyers() internal pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = BUYER;
    }

    /// @dev Bought, delivered and past the time to show a share wrong.
    function sold() internal returns (bytes32 id) {
        id = opened();
        buy(id);
        deliver(id, 0, shareAt(0));
        deliver(id, 2, shareAt(2));
        VM.warp(block.timestamp + 1 days + 1);
        license.confirm(id, buyers());
    }

    function owedTo(address account) internal view returns (uint256) {
        return license.owed(IERC20(address(token)), account);
    }

    function payFor(bytes32 id, uint256 who) internal {
        Settlement.PayoutLeaf[] memory leaves = payouts(3, 2);
        license.payContributor(id, leaves[who], who, proofOf(leaves, who));
    }
}
