// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

/// @title Which wallet owns a peer's hot key, and where that wallet wants to be paid (protocol §1, §8.6)
/// @notice One per chain, shared by all runs. It holds no money and has no owner. Made by a deterministic factory without
/// arguments, so it has the same address on every chain.
/// @dev A hot key lies unattended on a training machine. It can consent to be owned and nothing else: who steals it
/// after it was bound can neither move funds nor rebind it.
/// OpenZeppelin's EIP712 and SignatureChecker need a chain with mcopy ("Cancun"), which is why both are written out here.
contract PeerRegistry {
    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant PEER_BINDING =
        keccak256("PeerBinding(address wallet,address peer,bytes32 netId,uint64 deadline)");

    /// @notice Owner of a hot key; zero while it is bound to nobody.
    mapping(address peer => address wallet) public walletOf;

    /// @notice Where a wallet wants its rewards; zero: to itself.
    mapping(address wallet => address payTo) public payToOf;

    event PeerBound(address indexed peer, address indexed wallet, bytes32 netId);
    event PayToSet(address indexed wallet, address indexed payTo);

    error AlreadyBound(address peer, address wallet);
    error BindingExpired(uint64 deadline);
    error NoPeerConsent(address peer);
    error NoWalletConsent(address wallet);
    error ZeroWallet();

    /// @notice Binds `peer` to the caller for ever.
    /// @param netId Hash of the peer's libp2p id, so that its address in the swarm can be checked.
    /// @param deadline Last second at which the consent counts.
    /// @param peerSig The hot key's consent. Without it anybody could bind a stranger's key and take its rewards; it
    /// names the wallet, so a consent seen in the mempool is of no use to another one.
    function bind(address peer, bytes32 netId, uint64 deadline, bytes calldata peerSig) external {
        _checkPeer(msg.sender, peer, netId, deadline, peerSig);
        _bind(msg.sender, peer, netId);
    }

    /// @notice As `bind`, with the gas paid by anyone.
    /// @param walletSig The wallet's own signature of the same PeerBinding, ERC-1271 for contracts. Without it a peer
    /// could bind itself to a wallet that never asked for it, and tie its name to what the peer does.
    function bindFor(
        address wallet,
        address peer,
        bytes32 netId,
        uint64 deadline,
        bytes calldata peerSig,
        bytes calldata walletSig
    ) external {
        if (wallet == address(0)) revert ZeroWallet();
        bytes32 digest = _checkPeer(wallet, peer, netId, deadline, peerSig);
        if (!_isBy(wallet, digest, walletSig)) revert NoWalletConsent(wallet);
        _bind(wallet, peer, netId);
    }

    /// @notice Sends the caller's rewards to `payTo` from now on; zero: to the caller itself.
    /// @dev By the wallet's own transaction only: a signature that can be relayed later could undo a newer choice.
    function setPayTo(address payTo) external {
        payToOf[msg.sender] = payTo;
        emit PayToSet(msg.sender, payTo);
    }

    /// @return payout Where the rewards of `peer` go; zero while it is bound to nobody.
    function payoutOf(address peer) external view returns (address payout) {
        address wallet = walletOf[peer];
        if (wallet == address(0)) return address(0);
        payout = payToOf[wallet];
        if (payout == address(0)) payout = wallet;
    }

    /// @return wallets Owners of many hot keys in one call; zero where there is none.
    function walletsOf(address[] calldata peers) external view returns (address[] memory wallets) {
        wallets = new address[](peers.length);
        for (uint256 i = 0; i < peers.length; ++i) {
            wallets[i] = walletOf[peers[i]];
        }
    }

    /// @notice What `peer` (and for `bindFor` the wallet) signs.
    function bindingDigest(address wallet, address peer, bytes32 netId, uint64 deadline) public view returns (bytes32) {
        // The chain's id is read each time: after a fork of the chain a consent counts on one side only.
        bytes32 domain =
            keccak256(abi.encode(DOMAIN, keccak256("Sparehive"), keccak256("1"), block.chainid, address(this)));
        bytes32 content = keccak256(abi.encode(PEER_BINDING, wallet, peer, netId, deadline));
        return keccak256(abi.encodePacked(hex"1901", domain, content));
    }

    function _checkPeer(address wallet, address peer, bytes32 netId, uint64 deadline, bytes calldata peerSig)
        private
        view
        returns (bytes32 digest)
    {
        // An old consent that leaked, or was signed on a machine since sold, stops counting by itself.
        if (block.timestamp > deadline) revert BindingExpired(deadline);
        digest = bindingDigest(wallet, peer, netId, deadline);
        // A failed recovery gives zero: it must not pass for the consent of the zero account.
        (address signer, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(digest, peerSig);
        if (problem != ECDSA.RecoverError.NoError || signer != peer) revert NoPeerConsent(peer);
    }

    /// @dev Of a contract (ERC-1271), or of a key. A contract that fails, or answers with anything else, has not signed.
    function _isBy(address wallet, bytes32 digest, bytes calldata sig) private view returns (bool) {
        if (wallet.code.length == 0) {
            (address signer, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(digest, sig);
            return problem == ECDSA.RecoverError.NoError && signer == wallet;
        }
        (bool ok, bytes memory answer) = wallet.staticcall(abi.encodeCall(IERC1271.isValidSignature, (digest, sig)));
        return ok && answer.length >= 32 && bytes32(answer) == bytes32(IERC1271.isValidSignature.selector);
    }

    /// @dev Once for ever: whoever steals the hot key later cannot take over what it has earned and not claimed yet. It
    /// is also why no nonce is needed: a consent that was used cannot be used again.
    function _bind(address wallet, address peer, bytes32 netId) private {
        address owner = walletOf[peer];
        if (owner != address(0)) revert AlreadyBound(peer, owner);
        walletOf[peer] = wallet;
        emit PeerBound(peer, wallet, netId);
    }
}
