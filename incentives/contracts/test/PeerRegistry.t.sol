// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.sol";
import {PeerRegistry} from "../src/PeerRegistry.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @dev A wallet that is a contract: says yes to what its owner signed (ERC-1271).
contract ContractWallet {
    address private immutable OWNER;

    constructor(address owner) {
        OWNER = owner;
    }

    function isValidSignature(bytes32 digest, bytes calldata sig) external view returns (bytes4) {
        return ECDSA.recover(digest, sig) == OWNER ? this.isValidSignature.selector : bytes4(0);
    }
}

contract PeerRegistryTest is Base {
    uint256 private constant PEER_KEY = 0xA11CE;
    uint256 private constant WALLET_KEY = 0xB0B;
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    bytes32 private constant NET_ID = keccak256("libp2p id");
    uint64 private constant DEADLINE = 2_000_000;

    PeerRegistry private registry;
    address private peer = VM.addr(PEER_KEY);
    address private wallet = VM.addr(WALLET_KEY);

    event PeerBound(address indexed peer, address indexed wallet, bytes32 netId);
    event PayToSet(address indexed wallet, address indexed payTo);

    function setUp() public {
        VM.warp(1_000_000);
        registry = new PeerRegistry();
    }

    function consent(uint256 key, address of_) private view returns (bytes memory) {
        return signature(key, registry.bindingDigest(of_, peer, NET_ID, DEADLINE));
    }

    function test_digest_is_eip712_with_the_registry_as_verifying_contract() public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Sparehive"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        bytes32 typeHash = keccak256("PeerBinding(address wallet,address peer,bytes32 netId,uint64 deadline)");
        bytes32 hash = keccak256(abi.encode(typeHash, wallet, peer, NET_ID, DEADLINE));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domain, hash));
        eq(uint256(registry.bindingDigest(wallet, peer, NET_ID, DEADLINE)), uint256(digest));
    }

    function test_bind_with_the_peers_consent() public {
        bytes memory sig = consent(PEER_KEY, wallet);
        VM.expectEmit(address(registry));
        emit PeerBound(peer, wallet, NET_ID);
        VM.prank(wallet);
        registry.bind(peer, NET_ID, DEADLINE, sig);
        eq(registry.walletOf(peer), wallet);
        eq(registry.payoutOf(peer), wallet);
    }

    function test_bind_at_the_deadline_and_not_after() public {
        bytes memory sig = consent(PEER_KEY, wallet);
        VM.warp(DEADLINE + 1);
        VM.prank(wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.BindingExpired.selector, DEADLINE));
        registry.bind(peer, NET_ID, DEADLINE, sig);
        VM.warp(DEADLINE);
        VM.prank(wallet);
        registry.bind(peer, NET_ID, DEADLINE, sig);
        eq(registry.walletOf(peer), wallet);
    }

    function test_nobody_binds_with_a_consent_given_to_another_wallet() public {
        bytes memory sig = consent(PEER_KEY, wallet);
        VM.prank(address(0xBAD));
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        registry.bind(peer, NET_ID, DEADLINE, sig);
    }

    function test_nobody_binds_a_strangers_key() public {
        bytes memory sig = consent(WALLET_KEY, wallet);
        VM.prank(wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        registry.bind(peer, NET_ID, DEADLINE, sig);
    }

    function test_the_zero_account_has_no_consent() public {
        VM.prank(wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, address(0)));
        registry.bind(address(0), NET_ID, DEADLINE, new bytes(65));
    }

    function test_high_s_is_refused() public {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(PEER_KEY, registry.bindingDigest(wallet, peer, NET_ID, DEADLINE));
        bytes memory sig = abi.encodePacked(r, bytes32(ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        VM.prank(wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        registry.bind(peer, NET_ID, DEADLINE, sig);
    }

    function test_a_key_is_bound_once_for_ever() public {
        test_bind_with_the_peers_consent();
        address other = address(0x0C);
        bytes memory sig = consent(PEER_KEY, other);
        VM.prank(other);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.AlreadyBound.selector, peer, wallet));
        registry.bind(peer, NET_ID, DEADLINE, sig);
        sig = consent(PEER_KEY, wallet);
        VM.prank(wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.AlreadyBound.selector, peer, wallet));
        registry.bind(peer, NET_ID, DEADLINE, sig);
    }

    function test_bindFor_with_both_consents_sent_by_anyone() public {
        VM.expectEmit(address(registry));
        emit PeerBound(peer, wallet, NET_ID);
        registry.bindFor(wallet, peer, NET_ID, DEADLINE, consent(PEER_KEY, wallet), consent(WALLET_KEY, wallet));
        eq(registry.walletOf(peer), wallet);
    }

    function test_bindFor_needs_the_wallets_consent() public {
        bytes memory sig = consent(PEER_KEY, wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoWalletConsent.selector, wallet));
        registry.bindFor(wallet, peer, NET_ID, DEADLINE, sig, sig);
    }

    function test_bindFor_needs_the_peers_consent() public {
        bytes memory sig = consent(WALLET_KEY, wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        registry.bindFor(wallet, peer, NET_ID, DEADLINE, sig, sig);
    }

    function test_bindFor_refuses_the_zero_wallet() public {
        bytes memory sig = consent(PEER_KEY, address(0));
        VM.expectRevert(PeerRegistry.ZeroWallet.selector);
        registry.bindFor(address(0), peer, NET_ID, DEADLINE, sig, new bytes(65));
    }

    function test_bindFor_expires() public {
        (bytes memory a, bytes memory b) = (consent(PEER_KEY, wallet), consent(WALLET_KEY, wallet));
        VM.warp(DEADLINE + 1);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.BindingExpired.selector, DEADLINE));
        registry.bindFor(wallet, peer, NET_ID, DEADLINE, a, b);
    }

    function test_bindFor_takes_a_contract_wallet() public {
        address safe = address(new ContractWallet(VM.addr(WALLET_KEY)));
        registry.bindFor(safe, peer, NET_ID, DEADLINE, consent(PEER_KEY, safe), consent(WALLET_KEY, safe));
        eq(registry.walletOf(peer), safe);
    }

    function test_bindFor_respects_a_contract_wallets_no() public {
        address safe = address(new ContractWallet(address(0xD0)));
        (bytes memory a, bytes memory b) = (consent(PEER_KEY, safe), consent(WALLET_KEY, safe));
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoWalletConsent.selector, safe));
        registry.bindFor(safe, peer, NET_ID, DEADLINE, a, b);
    }

    function test_a_consent_does_not_count_in_another_registry() public {
        PeerRegistry other = new PeerRegistry();
        bytes memory sig = consent(PEER_KEY, wallet);
        VM.prank(wallet);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        other.bind(peer, NET_ID, DEADLINE, sig);
    }

    function test_payout_follows_setPayTo_and_zero_undoes_it() public {
        test_bind_with_the_peers_consent();
        VM.expectEmit(address(registry));
        emit PayToSet(wallet, address(0x5AFE));
        VM.prank(wallet);
        registry.setPayTo(address(0x5AFE));
        eq(registry.payoutOf(peer), address(0x5AFE));
        eq(registry.payToOf(wallet), address(0x5AFE));
        VM.prank(wallet);
        registry.setPayTo(address(0));
        eq(registry.payoutOf(peer), wallet);
    }

    function test_nobody_else_changes_a_payout_address() public {
        test_bind_with_the_peers_consent();
        VM.prank(peer);
        registry.setPayTo(address(0xBAD));
        eq(registry.payoutOf(peer), wallet);
    }

    function test_unbound_peers_have_neither_wallet_nor_payout() public {
        eq(registry.payoutOf(peer), address(0));
        bindWallet();
        address[] memory peers = new address[](2);
        (peers[0], peers[1]) = (peer, address(0x77));
        address[] memory wallets = registry.walletsOf(peers);
        eq(wallets[0], wallet);
        eq(wallets[1], address(0));
    }

    function bindWallet() private {
        bytes memory sig = consent(PEER_KEY, wallet);
        VM.prank(wallet);
        registry.bind(peer, NET_ID, DEADLINE, sig);
    }

    function testFuzz_only_the_signed_binding_is_accepted(address sender, bytes32 netId, uint64 deadline) public {
        bytes memory sig = consent(PEER_KEY, wallet);
        deadline = uint64(bound(deadline, block.timestamp, type(uint64).max));
        VM.assume(sender != wallet || netId != NET_ID || deadline != DEADLINE);
        VM.prank(sender);
        VM.expectRevert(abi.encodeWithSelector(PeerRegistry.NoPeerConsent.selector, peer));
        registry.bind(peer, netId, deadline, sig);
    }
}
