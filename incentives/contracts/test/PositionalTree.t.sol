// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base, Trees} from "./Base.sol";
import {PositionalTree} from "../src/PositionalTree.sol";

contract PositionalTreeTest is Base {
    function check(bytes32 root, bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata proof)
        external
        pure
        returns (bool)
    {
        return PositionalTree.verify(root, leaf, index, count, proof);
    }

    function leavesOf(uint256 count) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            leaves[i] = keccak256(abi.encode(count, i));
        }
    }

    function test_depth_is_the_logarithm_rounded_up() public pure {
        uint16[10] memory counts = [0, 1, 2, 3, 4, 5, 8, 9, 1024, 1025];
        uint8[10] memory depths = [0, 0, 1, 2, 2, 3, 3, 4, 10, 11];
        for (uint256 i = 0; i < 10; ++i) {
            eq(PositionalTree.depth(counts[i]), depths[i]);
        }
        eq(PositionalTree.depth(type(uint32).max), 32);
    }

    function testFuzz_every_leaf_proves_itself_at_its_place_only(uint256 count, uint256 index, uint256 other)
        public
        view
    {
        count = bound(count, 1, 70);
        index = bound(index, 0, count - 1);
        other = bound(other, 0, 2 * count);
        bytes32[] memory leaves = leavesOf(count);
        bytes32 root = Trees.root(leaves);
        bytes32[] memory proof = Trees.proof(leaves, index);
        yes(this.check(root, leaves[index], index, count, proof));
        if (other != index) no(this.check(root, leaves[index], other, count, proof));
        no(this.check(root, keccak256("other leaf"), index, count, proof));
        no(this.check(keccak256("other root"), leaves[index], index, count, proof));
    }

    function testFuzz_a_changed_sibling_fails(uint256 count, uint256 index, uint256 level) public view {
        count = bound(count, 2, 70);
        index = bound(index, 0, count - 1);
        bytes32[] memory leaves = leavesOf(count);
        bytes32[] memory proof = Trees.proof(leaves, index);
        proof[level % proof.length] ^= bytes32(uint256(1));
        no(this.check(Trees.root(leaves), leaves[index], index, count, proof));
    }

    function test_an_inner_node_is_no_leaf() public view {
        bytes32[] memory leaves = leavesOf(4);
        bytes32 node = keccak256(abi.encodePacked(leaves[0], leaves[1]));
        bytes32[] memory shorter = new bytes32[](1);
        shorter[0] = keccak256(abi.encodePacked(leaves[2], leaves[3]));
        no(this.check(Trees.root(leaves), node, 0, 4, shorter));
        yes(this.check(Trees.root(leaves), node, 0, 2, shorter)); // the count, which is on chain, is what forbids it
    }

    function test_padding_is_no_leaf() public view {
        bytes32[] memory leaves = leavesOf(3);
        bytes32[] memory proof = new bytes32[](2);
        (proof[0], proof[1]) = (leaves[2], keccak256(abi.encodePacked(leaves[0], leaves[1])));
        no(this.check(Trees.root(leaves), 0, 3, 3, proof));
        yes(this.check(Trees.root(leaves), 0, 3, 4, proof));
    }

    function test_a_longer_proof_fails() public view {
        bytes32[] memory leaves = leavesOf(1);
        yes(this.check(leaves[0], leaves[0], 0, 1, new bytes32[](0)));
        bytes32[] memory longer = new bytes32[](1);
        no(this.check(keccak256(abi.encodePacked(leaves[0], bytes32(0))), leaves[0], 0, 1, longer));
    }

    function test_nothing_is_in_the_empty_tree() public view {
        no(this.check(0, 0, 0, 0, new bytes32[](0)));
    }
}
