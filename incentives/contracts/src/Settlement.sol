// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {PeerRegistry} from "./PeerRegistry.sol";
import {PositionalTree} from "./PositionalTree.sol";

/// @title The money of one run: periods, their roots, and cumulative claims (protocol §8.5)
/// @notice The organiser proposes the roots of a period; after the window anyone finalises them; anyone may then push
/// what an account is owed to the payout address of the wallet that it is bound to.
/// @dev No proxy and no owner's exit: what was funded can only leave as a claim. Always claimed ≤ released ≤ funded, so
/// the worst root that an organiser can post takes what was released, never what is kept for later periods. This
/// version has no demands, bonds or audits yet: until then the window is for people to look and the organiser is
/// trusted to cancel what is wrong. The leaves are those that the demands will need.
contract Settlement is ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice What the organiser says about a period. `fromEpoch` must be where the last final one ended.
    struct Proposal {
        uint64 fromEpoch;
        uint64 toEpoch;
        uint64 totalUnits;
        uint32 certificatesCount;
        uint32 receiptsCount;
        uint32 payoutsCount;
        uint128 amount;
        uint128 budget;
        bytes32 certificatesRoot;
        bytes32 receiptsRoot;
        bytes32 payoutsRoot;
        bytes32 tablesHash;
    }

    /// @notice A period as stored, in six slots. `readyAt` is the second from which it may be finalised, 0: there is none.
    struct Period {
        bytes32 payoutsRoot;
        uint64 toEpoch;
        uint64 totalUnits;
        uint32 readyAt;
        uint32 certificatesCount;
        uint32 receiptsCount;
        uint32 payoutsCount;
        uint128 amount;
        uint128 budget;
        bytes32 certificatesRoot;
        bytes32 receiptsRoot;
        bytes32 tablesHash;
    }

    /// @notice A round's or seating's certificate, in the order of the lineage.
    struct CertificateLeaf {
        uint64 epoch;
        bytes32 certificate;
        bytes32 signaturesHash;
    }

    /// @notice A paid receipt, ascending by (account, epoch); both running sums include it.
    struct ReceiptLeaf {
        address account;
        uint64 epoch;
        uint32 units;
        uint64 runningAccountUnits;
        uint64 runningTotalUnits;
        bytes32 receipt;
        bytes32 signaturesHash;
    }

    /// @notice What a hot account has been given since the run began, ascending by account.
    struct PayoutLeaf {
        address account;
        uint64 cumUnits;
        uint128 cumEarned;
        uint128 cumForfeited;
        uint128 cumWithheld;
        uint128 cumClaimable;
    }

    /// @notice One payout leaf and its proof, as `claimMany` takes them.
    struct Claim {
        PayoutLeaf leaf;
        uint256 index;
        bytes32[] proof;
    }

    /// @notice All that a program needs to know, read in one call and hence at one block.
    struct Overview {
        address token;
        address registry;
        bytes32 runId;
        address organiser;
        uint128 unitPrice;
        uint32 window;
        uint128 funded;
        uint128 released;
        uint128 claimed;
        uint64 settledEpoch;
        uint32 numPeriods;
        Period last;
        Period pending;
    }

    // The first word of each leaf: a leaf of one tree can never be shown as a leaf of another.
    uint8 private constant CERTIFICATE = 1;
    uint8 private constant RECEIPT = 2;
    uint8 private constant PAYOUT = 3;

    /// @notice Longest window: a typing error would hold back the first period for ever.
    uint32 public constant MAX_WINDOW = 365 days;

    IERC20 public immutable token;
    PeerRegistry public immutable registry;
    bytes32 public immutable runId;
    address public immutable organiser;
    /// @notice Reward of a unit, in the token's base unit.
    uint128 public immutable unitPrice;
    /// @notice Seconds between a proposal and the moment from which it may be finalised.
    uint32 public immutable window;

    /// @notice Tokens released by final periods.
    uint128 public released;
    /// @notice Last epoch of the last final period.
    uint64 public settledEpoch;
    /// @notice Final periods; the proposal under way, if any, has this number.
    uint32 public numPeriods;
    /// @dev Payout leaves of the newest final period, kept in the same slot so that a claim reads one slot less.
    uint32 private _finalPayouts;
    /// @notice Tokens received.
    uint128 public funded;
    /// @notice Tokens paid out.
    uint128 public claimed;

    mapping(uint256 number => Period) private _periods;
    /// @notice Tokens that a hot account's claims have paid so far.
    mapping(address account => uint256 amount) public claimedOf;

    event Funded(address indexed from, uint256 amount);
    event Proposed(
        uint256 indexed number, bytes32 indexed payoutsRoot, bytes32 indexed tablesHash, uint256 readyAt, string uri
    );
    event Cancelled(uint256 indexed number, bytes32 indexed payoutsRoot);
    event Finalised(uint256 indexed number, bytes32 indexed payoutsRoot, uint256 amount);
    event Claimed(address indexed account, address indexed to, uint256 amount);

    error BadProof(address account);
    error BadTree(bytes32 root, uint256 count);
    error EmptyPeriod(uint64 settledEpoch, uint64 toEpoch);
    error NoFinalPeriod();
    error NoProposal();
    error NotBound(address account);
    error NothingDue(address account);
    error NothingReceived();
    error NotOrganiser(address caller);
    error OverReleased(uint256 claimed, uint256 released);
    error ProposalPending(uint256 number);
    error WindowOpen(uint256 readyAt);
    error WindowTooLong(uint256 window);
    error WrongAmount(uint256 amount, uint256 pool);
    error WrongBudget(uint256 budget, uint256 available);
    error WrongStart(uint64 fromEpoch, uint64 settledEpoch);
    error ZeroArgument();

    modifier onlyOrganiser() {
        if (msg.sender != organiser) revert NotOrganiser(msg.sender);
        _;
    }

    constructor(
        IERC20 token_,
        PeerRegistry registry_,
        bytes32 runId_,
        address organiser_,
        uint128 unitPrice_,
        uint32 window_
    ) {
        // A call to an address without code gives nothing and does not fail by itself: a typing error would lock funds.
        if (address(token_).code.length == 0 || address(registry_).code.length == 0) revert ZeroArgument();
        if (runId_ == 0 || organiser_ == address(0) || window_ == 0) revert ZeroArgument();
        if (window_ > MAX_WINDOW) revert WindowTooLong(window_);
        (token, registry, runId) = (token_, registry_, runId_);
        (organiser, unitPrice, window) = (organiser_, unitPrice_, window_);
    }

    /// @notice Puts tokens into the pool. Nobody can take them out other than by claims.
    /// @dev Counts what arrived, not what was asked for: with a token that keeps a fee on transfers `funded` would
    /// otherwise exceed what is here, and the last claims would fail. The guard keeps a token with callbacks from
    /// nesting one deposit in another and counting it twice.
    function fund(uint256 amount) external nonReentrant {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        if (received == 0) revert NothingReceived();
        funded = (funded + received).toUint128();
        emit Funded(msg.sender, received);
    }

    /// @notice Proposes the period (fromEpoch, toEpoch]. One at a time, so that cumulative leaves build on final ones.
    /// @param uri Where the tables are, whose hash is in the proposal.
    function propose(Proposal calldata proposal, string calldata uri) external onlyOrganiser {
        uint256 number = numPeriods;
        if (_periods[number].readyAt != 0) revert ProposalPending(number);
        _propose(number, proposal, uri);
    }

    /// @notice Puts another proposal in the place of the one under way.
    /// @dev The window begins anew: otherwise tables that nobody has seen could be swapped in for its last second.
    function replace(Proposal calldata proposal, string calldata uri) external onlyOrganiser {
        uint256 number = _pending();
        emit Cancelled(number, _periods[number].payoutsRoot);
        _propose(number, proposal, uri);
    }

    /// @notice Takes the proposal under way back. What is final stays final.
    function cancel() external onlyOrganiser {
        uint256 number = _pending();
        emit Cancelled(number, _periods[number].payoutsRoot);
        delete _periods[number];
    }

    /// @notice Makes the proposal final once its window is over. By anyone: an organiser that vanishes after proposing
    /// cannot hold back what it has proposed to pay.
    function finalise() external {
        uint256 number = _pending();
        Period storage period = _periods[number];
        if (block.timestamp < period.readyAt) revert WindowOpen(period.readyAt);
        uint128 amount = period.amount;
        // propose() has checked released + amount ≤ funded; funded never falls, and only this function raises released.
        (released, settledEpoch, numPeriods) = (released + amount, period.toEpoch, uint32(number + 1));
        _finalPayouts = period.payoutsCount;
        emit Finalised(number, period.payoutsRoot, amount);
    }

    /// @notice Pays what the leaf of the newest final period gives `leaf.account` and was not paid before.
    /// @dev Anyone may send it, for the money goes where the bound wallet wants it. Cumulative amounts make a second
    /// claim pay nothing, and one claim pay for every period missed; no list of claims made is needed.
    /// @return amount Tokens paid; a call that would pay none reverts.
    function claim(PayoutLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        external
        nonReentrant
        returns (uint256 amount)
    {
        address to;
        (to, amount) = _due(leaf, index, proof);
        if (amount == 0) revert NothingDue(leaf.account);
        if (to == address(0)) revert NotBound(leaf.account);
        _count(amount);
        _pay(leaf.account, to, amount);
    }

    /// @notice As `claim` for many accounts: a sponsor pushes rewards to owners who hold no gas.
    /// @dev Accounts that are owed nothing or are not bound are passed over: otherwise anyone could make the whole batch
    /// fail by claiming for one of them first. A wrong proof still fails it.
    /// @return total Tokens paid.
    function claimMany(Claim[] calldata claims) external nonReentrant returns (uint256 total) {
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata each = claims[i];
            (address to, uint256 amount) = _due(each.leaf, each.index, each.proof);
            if (amount == 0 || to == address(0)) continue;
            total += amount;
            // Counted before the next one is looked at: the same account twice in a batch is paid once.
            _pay(each.leaf.account, to, amount);
        }
        if (total != 0) _count(total);
    }

    /// @notice Tokens that future periods can still release.
    function available() public view returns (uint256) {
        return funded - released;
    }

    /// @return The period `number`: final below `numPeriods`; at `numPeriods` the proposal under way, if readyAt is not 0.
    function periodAt(uint256 number) external view returns (Period memory) {
        return _periods[number];
    }

    /// @return amounts Tokens paid so far to many hot accounts.
    function claimedOfMany(address[] calldata accounts) external view returns (uint256[] memory amounts) {
        amounts = new uint256[](accounts.length);
        for (uint256 i = 0; i < accounts.length; ++i) {
            amounts[i] = claimedOf[accounts[i]];
        }
    }

    /// @return all The run, its money, the newest final period (zeros before the first) and the proposal under way.
    function overview() external view returns (Overview memory all) {
        (all.token, all.registry, all.runId) = (address(token), address(registry), runId);
        (all.organiser, all.unitPrice, all.window) = (organiser, unitPrice, window);
        (all.funded, all.released, all.claimed) = (funded, released, claimed);
        (all.settledEpoch, all.numPeriods) = (settledEpoch, numPeriods);
        if (all.numPeriods != 0) all.last = _periods[all.numPeriods - 1];
        all.pending = _periods[all.numPeriods];
    }

    /// @return Whether `leaf` is certificate `index` of period `number`, final or proposed.
    function isCertificate(uint256 number, CertificateLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        Period storage period = _periods[number];
        bytes32 hash = _twice(abi.encode(CERTIFICATE, leaf));
        return PositionalTree.verify(period.certificatesRoot, hash, index, period.certificatesCount, proof);
    }

    /// @return Whether `leaf` is receipt `index` of period `number`, final or proposed.
    function isReceipt(uint256 number, ReceiptLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        Period storage period = _periods[number];
        bytes32 hash = _twice(abi.encode(RECEIPT, leaf));
        return PositionalTree.verify(period.receiptsRoot, hash, index, period.receiptsCount, proof);
    }

    /// @return Whether `leaf` is payout `index` of period `number`, final or proposed.
    function isPayout(uint256 number, PayoutLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        Period storage period = _periods[number];
        bytes32 hash = _twice(abi.encode(PAYOUT, leaf));
        return PositionalTree.verify(period.payoutsRoot, hash, index, period.payoutsCount, proof);
    }

    function _propose(uint256 number, Proposal calldata p, string calldata uri) private {
        // The payouts are cumulative: on another start than the one they were made for (after a reorganisation of the
        // chain, or with a transaction that was long under way) they would promise what is not released.
        if (p.fromEpoch != settledEpoch) revert WrongStart(p.fromEpoch, settledEpoch);
        // Contiguous: an epoch can be paid once, in the first period that covers it, and none can be left out.
        if (p.toEpoch <= settledEpoch) revert EmptyPeriod(settledEpoch, p.toEpoch);
        _checkTree(p.certificatesRoot, p.certificatesCount);
        _checkTree(p.receiptsRoot, p.receiptsCount);
        _checkTree(p.payoutsRoot, p.payoutsCount);
        _checkMoney(p);
        uint256 readyAt = block.timestamp + window;
        _periods[number] = Period({
            payoutsRoot: p.payoutsRoot,
            toEpoch: p.toEpoch,
            totalUnits: p.totalUnits,
            readyAt: readyAt.toUint32(), // until the year 2106
            certificatesCount: p.certificatesCount,
            receiptsCount: p.receiptsCount,
            payoutsCount: p.payoutsCount,
            amount: p.amount,
            budget: p.budget,
            certificatesRoot: p.certificatesRoot,
            receiptsRoot: p.receiptsRoot,
            tablesHash: p.tablesHash
        });
        emit Proposed(number, p.payoutsRoot, p.tablesHash, readyAt, uri);
    }

    /// @dev The period pays min(budget, unitPrice × units), less what rounding leaves: under one base unit per account.
    /// A budget below what is available counts only where it suffices; otherwise the organiser could starve a period.
    function _checkMoney(Proposal calldata p) private view {
        uint256 rest = available();
        uint256 price = uint256(unitPrice) * p.totalUnits;
        if (p.budget > rest || (p.budget != rest && p.budget < price)) revert WrongBudget(p.budget, rest);
        uint256 pool = Math.min(p.budget, price);
        if (p.amount > pool) revert WrongAmount(p.amount, pool);
        if (p.amount != pool && pool - p.amount >= p.payoutsCount) revert WrongAmount(p.amount, pool);
    }

    /// @dev A root of no leaves, or leaves without a root, could never be proved against.
    function _checkTree(bytes32 root, uint256 count) private pure {
        if ((root == 0) != (count == 0)) revert BadTree(root, count);
    }

    function _pending() private view returns (uint256 number) {
        number = numPeriods;
        if (_periods[number].readyAt == 0) revert NoProposal();
    }

    /// @dev Reverts where the leaf is not in the newest final period: an older root would pay what was since forfeited.
    function _due(PayoutLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        private
        view
        returns (address to, uint256 amount)
    {
        uint256 number = numPeriods;
        if (number == 0) revert NoFinalPeriod();
        bytes32 root = _periods[number - 1].payoutsRoot;
        if (!PositionalTree.verify(root, _twice(abi.encode(PAYOUT, leaf)), index, _finalPayouts, proof)) {
            revert BadProof(leaf.account);
        }
        uint256 paid = claimedOf[leaf.account];
        if (leaf.cumClaimable <= paid) return (address(0), 0);
        return (registry.payoutOf(leaf.account), leaf.cumClaimable - paid);
    }

    /// @dev The last line of defence: whatever a root says, claims never exceed what was released.
    function _count(uint256 amount) private {
        uint256 total = claimed + amount;
        if (total > released) revert OverReleased(total, released);
        claimed = total.toUint128();
    }

    /// @dev Books first, then the transfer: a token with callbacks finds the account paid already.
    function _pay(address account, address to, uint256 amount) private {
        claimedOf[account] += amount;
        emit Claimed(account, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @dev Hashed twice: an inner node is the hash of 64 bytes, so it can never be shown as a leaf.
    function _twice(bytes memory words) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(words)));
    }
}
