// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PeerRegistry} from "../src/PeerRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {TestToken} from "../src/TestToken.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @dev The few cheatcodes used here; forge-std is not on npm.
interface Vm {
    function warp(uint256 timestamp) external;
    function chainId(uint256 id) external;
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function expectRevert(bytes calldata data) external;
    function expectRevert(bytes4 selector) external;
    function expectRevert() external;
    function expectEmit(address emitter) external;
    function assume(bool condition) external pure;
}

abstract contract Base {
    Vm internal constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error Differs(uint256 got, uint256 expected);

    function eq(uint256 got, uint256 expected) internal pure {
        if (got != expected) revert Differs(got, expected);
    }

    function eq(address got, address expected) internal pure {
        eq(uint160(got), uint160(expected));
    }

    function yes(bool value) internal pure {
        require(value, "should be true");
    }

    function no(bool value) internal pure {
        require(!value, "should be false");
    }

    function bound(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }

    function signature(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }
}

/// @dev Calls back once while it moves tokens, and passes on what that call reverts with.
contract CallbackToken is ERC20 {
    address private _target;
    bytes private _call;

    constructor() ERC20("Callback", "CB") {
        _mint(msg.sender, 1e30);
    }

    function arm(address target, bytes calldata call_) external {
        (_target, _call) = (target, call_);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (_target == address(0)) return;
        (bool ok, bytes memory answer) = _target.call(_call);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
    }
}

/// @dev A second implementation of the tree, over a full padded array, so that the one under test is not its own judge.
library Trees {
    function root(bytes32[] memory leaves) internal pure returns (bytes32) {
        if (leaves.length == 0) return 0;
        bytes32[] memory level = pad(leaves);
        while (level.length > 1) level = up(level);
        return level[0];
    }

    function proof(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32[] memory siblings) {
        bytes32[] memory level = pad(leaves);
        uint256 depth;
        for (uint256 n = level.length; n > 1; n /= 2) {
            ++depth;
        }
        siblings = new bytes32[](depth);
        for (uint256 i = 0; i < depth; ++i) {
            siblings[i] = level[index ^ 1];
            level = up(level);
            index /= 2;
        }
    }

    function pad(bytes32[] memory leaves) private pure returns (bytes32[] memory level) {
        uint256 size = 1;
        while (size < leaves.length) size *= 2;
        level = new bytes32[](size);
        for (uint256 i = 0; i < leaves.length; ++i) {
            level[i] = leaves[i];
        }
    }

    function up(bytes32[] memory level) private pure returns (bytes32[] memory next) {
        next = new bytes32[](level.length / 2);
        for (uint256 i = 0; i < next.length; ++i) {
            next[i] = keccak256(abi.encodePacked(level[2 * i], level[2 * i + 1]));
        }
    }
}

/// @dev A funded settlement of a run with `PRICE` per unit, and what it takes to settle periods in it.
abstract contract SettlementBase is Base {
    uint128 internal constant PRICE = 10 ether;
    uint32 internal constant WINDOW = 1 hours;
    bytes32 internal constant RUN = keccak256("run");
    address internal constant ORGANISER = address(0x0123);

    TestToken internal token;
    PeerRegistry internal registry;
    Settlement internal settlement;

    uint256 internal constant START = 1_000_000;
    uint64 internal constant EPOCHS_PER_DAY = 1000;
    uint64 internal constant UNITS_PER_EPOCH = 1e9;
    uint128 internal constant AMOUNT_PER_DAY = 1e30;

    function deploy() internal {
        VM.warp(START);
        token = new TestToken(address(this), 1e30);
        registry = new PeerRegistry();
        settlement = new Settlement(termsOf(token));
        token.approve(address(settlement), type(uint256).max);
    }

    function termsOf(ERC20 paid) internal view returns (Settlement.Terms memory) {
        return Settlement.Terms(
            IERC20(address(paid)), registry, RUN, ORGANISER, PRICE, WINDOW, EPOCHS_PER_DAY, UNITS_PER_EPOCH, AMOUNT_PER_DAY
        );
    }

    function leafHash(Settlement.PayoutLeaf memory leaf) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(uint8(3), leaf))));
    }

    function hashes(Settlement.PayoutLeaf[] memory leaves) internal pure returns (bytes32[] memory out) {
        out = new bytes32[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            out[i] = leafHash(leaves[i]);
        }
    }

    /// @dev Leaves of `count` accounts with keys 1, 2, … which have earned `units` each.
    function payouts(uint256 count, uint64 units) internal pure returns (Settlement.PayoutLeaf[] memory leaves) {
        leaves = new Settlement.PayoutLeaf[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint128 amount = PRICE * units;
            leaves[i] = Settlement.PayoutLeaf(VM.addr(i + 1), units, amount, 0, 0, amount);
        }
    }

    function proposalOf(Settlement.PayoutLeaf[] memory leaves, uint64 toEpoch, uint64 units)
        internal
        view
        returns (Settlement.Proposal memory p)
    {
        (p.fromEpoch, p.toEpoch) = (settlement.settledEpoch(), toEpoch);
        p.totalUnits = units;
        p.amount = PRICE * units;
        (uint256 rest, uint256 day) = (settlement.available(), settlement.amountPerDay());
        p.budget = uint128(rest < day ? rest : day);
        p.certificatesRoot = keccak256("certificates");
        p.certificatesCount = uint32(toEpoch - settlement.settledEpoch());
        (p.receiptsRoot, p.receiptsCount) = (keccak256("receipts"), uint32(leaves.length));
        (p.payoutsRoot, p.payoutsCount) = (Trees.root(hashes(leaves)), uint32(leaves.length));
        p.tablesHash = keccak256("tables");
    }

    function settle(Settlement.PayoutLeaf[] memory leaves, uint64 toEpoch, uint64 units) internal {
        Settlement.Proposal memory p = proposalOf(leaves, toEpoch, units);
        VM.prank(ORGANISER);
        settlement.propose(p, "");
        VM.warp(settlement.periodAt(settlement.numPeriods()).readyAt);
        settlement.finalise();
    }

    function proofOf(Settlement.PayoutLeaf[] memory leaves, uint256 index) internal pure returns (bytes32[] memory) {
        return Trees.proof(hashes(leaves), index);
    }

    function bind(uint256 key, address wallet) internal {
        address peer = VM.addr(key);
        bytes memory consent = signature(key, registry.bindingDigest(wallet, peer, 0, type(uint64).max));
        VM.prank(wallet);
        registry.bind(peer, 0, type(uint64).max, consent);
    }
}
