// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The curve that chains since "Byzantium" compute on (EIP-196): what a sealed share is checked with
library Bn254 {
    struct Point {
        uint256 x;
        uint256 y;
    }

    /// @notice Number of points; scalars are below it.
    uint256 internal constant ORDER = 21888242871839275222246405745257275088548364400416034343698204186575808495617;

    error BadPoint(uint256 x, uint256 y);

    function generator() internal pure returns (Point memory) {
        return Point(1, 2);
    }

    /// @dev Reverts where `p` is not on the curve, or is no point of use as a key (infinity).
    function check(Point memory p) internal view {
        if (p.x == 0 && p.y == 0) revert BadPoint(0, 0);
        add(p, Point(0, 0));
    }

    function mul(Point memory p, uint256 scalar) internal view returns (Point memory out) {
        bool ok;
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, mload(p))
            mstore(add(words, 32), mload(add(p, 32)))
            mstore(add(words, 64), scalar)
            ok := staticcall(gas(), 7, words, 96, out, 64)
        }
        if (!ok) revert BadPoint(p.x, p.y);
    }

    function add(Point memory p, Point memory q) internal view returns (Point memory out) {
        bool ok;
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, mload(p))
            mstore(add(words, 32), mload(add(p, 32)))
            mstore(add(words, 64), mload(q))
            mstore(add(words, 96), mload(add(q, 32)))
            ok := staticcall(gas(), 6, words, 128, out, 64)
        }
        if (!ok) revert BadPoint(p.x, p.y);
    }

    function hash(Point memory p) internal pure returns (bytes32) {
        return keccak256(abi.encode(p.x, p.y));
    }
}
