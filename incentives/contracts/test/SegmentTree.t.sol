// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.sol";
import {SegmentTree} from "../src/SegmentTree.sol";

/// @dev The same tree by its recursive definition (RFC 9162), over segments that differ.
contract SegmentTreeTest is Base {
    function check(bytes32 root, uint64 size, uint256 index, bytes calldata segment, bytes32[] calldata path)
        external
        pure
        returns (bool)
    {
        return SegmentTree.verify(root, size, index, segment, path);
    }

    function segmentOf(uint64 size, uint256 index) private pure returns (bytes memory segment) {
        uint256 last = (size - 1) / 1024;
        segment = new bytes(index < last ? 1024 : size - 1024 * last);
        for (uint256 i = 0; i < segment.length; i += 32) {
            bytes32 filling = keccak256(abi.encode(index, i));
            for (uint256 j = i; j < segment.length && j < i + 32; ++j) {
                segment[j] = filling[j - i];
            }
        }
    }

    function split(uint256 count) private pure returns (uint256 most) {
        for (most = 1; 2 * most < count; most *= 2) {}
    }

    function head(uint64 size, uint256 first, uint256 count) private pure returns (bytes32) {
        if (count == 1) return sha256(abi.encodePacked(bytes1(0), segmentOf(size, first)));
        uint256 left = split(count);
        return sha256(abi.encodePacked(bytes1(0x01), head(size, first, left), head(size, first + left, count - left)));
    }

    function pathOf(uint64 size, uint256 index) private pure returns (bytes32[] memory path) {
        (uint256 first, uint256 count, uint256 used) = (0, (uint256(size) - 1) / 1024 + 1, 0);
        bytes32[] memory down = new bytes32[](64);
        while (count > 1) {
            uint256 left = split(count);
            if (index < first + left) {
                down[used++] = head(size, first + left, count - left);
                count = left;
            } else {
                down[used++] = head(size, first, left);
                (first, count) = (first + left, count - left);
            }
        }
        path = new bytes32[](used);
        for (uint256 i = 0; i < used; ++i) {
            path[i] = down[used - 1 - i];
        }
    }

    function rootOf(uint64 size) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x02), size, head(size, 0, (uint256(size) - 1) / 1024 + 1)));
    }

    function testFuzz_every_segment_proves_itself_at_its_place_only(uint256 bytes_, uint256 index, uint256 other)
        public
        view
    {
        uint64 size = uint64(bound(bytes_, 1, 20 * 1024));
        uint256 count = (uint256(size) - 1) / 1024 + 1;
        index = bound(index, 0, count - 1);
        other = bound(other, 0, 2 * count);
        (bytes32 root, bytes32[] memory path) = (rootOf(size), pathOf(size, index));
        bytes memory segment = segmentOf(size, index);
        yes(this.check(root, size, index, segment, path));
        if (other != index) no(this.check(root, size, other, segment, path));
        no(this.check(root, size + 1024, index, segment, path));
        no(this.check(keccak256("other root"), size, index, segment, path));
        segment[0] ^= 0x01;
        no(this.check(root, size, index, segment, path));
    }

    function testFuzz_a_changed_sibling_fails(uint256 bytes_, uint256 index, uint256 level) public view {
        uint64 size = uint64(bound(bytes_, 1025, 20 * 1024));
        index = bound(index, 0, (uint256(size) - 1) / 1024);
        bytes32[] memory path = pathOf(size, index);
        path[level % path.length] ^= bytes32(uint256(1));
        no(this.check(rootOf(size), size, index, segmentOf(size, index), path));
    }

    function test_a_node_is_no_segment_and_paths_have_one_length() public view {
        bytes32[] memory path = pathOf(4096, 0);
        bytes memory node = abi.encodePacked(head(4096, 0, 1), head(4096, 1, 1));
        bytes32[] memory shorter = new bytes32[](1);
        shorter[0] = path[1];
        no(this.check(rootOf(4096), 64, 0, node, shorter));
        no(this.check(rootOf(4096), 4096, 0, segmentOf(4096, 0), shorter));
        bytes32[] memory longer = new bytes32[](3);
        (longer[0], longer[1]) = (path[0], path[1]);
        no(this.check(rootOf(4096), 4096, 0, segmentOf(4096, 0), longer));
        yes(this.check(rootOf(4096), 4096, 0, segmentOf(4096, 0), path));
    }

    function test_there_is_nothing_in_nothing() public view {
        no(this.check(sha256(abi.encodePacked(bytes1(0x02), uint64(0))), 0, 0, "", new bytes32[](0)));
    }

    function test_it_may_be_asked_by_anybody() public pure {
        yes(SegmentTree.isSegment(rootOf(1500), 1500, 1, segmentOf(1500, 1), pathOf(1500, 1)));
    }
}
