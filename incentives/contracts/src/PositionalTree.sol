// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Merkle trees whose leaves have a position (protocol §2.4)
/// @notice Leaves in order, padded with zeros to a power of two; node = keccak(left ‖ right).
/// @dev Sorted pairs cannot say *where* a leaf stands, so neither order nor absence could ever be proved with them.
library PositionalTree {
    /// @return Whether `leaf` is number `index` of the `count` leaves under `root`.
    /// @dev The length of the proof is fixed by `count`: a shorter one would pass an inner node off as a leaf, a longer
    /// one a leaf off as a node. `index < count` keeps the padding, whose value everybody knows, from being shown.
    function verify(bytes32 root, bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (index >= count || proof.length != depth(count)) return false;
        bytes32 node = leaf;
        for (uint256 i = 0; i < proof.length; ++i) {
            node =
                index & 1 == 0 ? Hashes.efficientKeccak256(node, proof[i]) : Hashes.efficientKeccak256(proof[i], node);
            index >>= 1;
        }
        return node == root;
    }

    /// @return ceil(log2(count)): the levels above the leaves.
    function depth(uint256 count) internal pure returns (uint256) {
        return count < 2 ? 0 : Math.log2(count - 1) + 1;
    }
}
