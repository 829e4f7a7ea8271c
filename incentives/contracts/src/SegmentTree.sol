// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The tree over the 1 KiB segments of stored content (protocol §14)
/// @notice RFC 9162, section 2.1 with SHA-256: leaf = sha256(0x00 ‖ segment), node = sha256(0x01 ‖ left ‖ right), a last odd node goes up as it is;
/// the root commits to the content's length.
/// @dev SHA-256 is a precompile; a UnixFS path, whose leaves are blocks of a MiB, would not fit into a transaction.
library SegmentTree {
    uint256 internal constant SEGMENT_BYTES = 1024;

    /// @return Whether `segment` is number `index` of the content of `size` bytes under `root`.
    /// @dev For whoever asks the chain; contracts take `verify`.
    function isSegment(bytes32 root, uint64 size, uint256 index, bytes calldata segment, bytes32[] calldata path)
        external
        pure
        returns (bool)
    {
        return verify(root, size, index, segment, path);
    }

    /// @dev How long segment and path are is fixed by `size` and `index`, and leaves and nodes begin with another byte: no node passes for
    /// a segment. `size` is under the root, so that content cannot be shown as longer or shorter than it is.
    function verify(bytes32 root, uint64 size, uint256 index, bytes calldata segment, bytes32[] calldata path)
        internal
        pure
        returns (bool)
    {
        if (size == 0) return false;
        uint256 last = (uint256(size) - 1) / SEGMENT_BYTES;
        if (index > last) return false;
        if (segment.length != (index < last ? SEGMENT_BYTES : size - SEGMENT_BYTES * last)) return false;
        bytes32 node = sha256(abi.encodePacked(bytes1(0), segment));
        uint256 used = 0;
        for (; last != 0; last >>= 1) {
            if (index & 1 == 1 || index < last) {
                if (used == path.length) return false;
                bytes32 sibling = path[used++];
                node = index & 1 == 1
                    ? sha256(abi.encodePacked(bytes1(0x01), sibling, node))
                    : sha256(abi.encodePacked(bytes1(0x01), node, sibling));
            }
            index >>= 1;
        }
        return used == path.length && sha256(abi.encodePacked(bytes1(0x02), size, node)) == root;
    }
}
