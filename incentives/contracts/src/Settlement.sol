// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {PeerRegistry} from "./PeerRegistry.sol";
import {PositionalTree} from "./PositionalTree.sol";

/// @title The money of one run: periods, their roots, and cumulative claims (protocol §8.5)
/// @notice The organiser proposes the roots of a period; after the window anyone finalises them; anyone may then push
/// what an account is owed to the payout address of the wallet that it is bound to.
/// @dev No proxy and no owner's exit: what was funded can only leave as a claim. Always claimed ≤ released ≤ funded, so
/// the worst root that an organiser can post takes what was released, never what is kept for later periods. This
/// version has no demands, bonds or audits yet: who reads the tables sees a wrong root while the window is open, and has
/// that long to claim what is final. What a hostile organiser can take is bounded by the terms (protocol §8.7). The
/// leaves are those that the demands will need. Made by a deterministic factory, so that the address is the hash of this
/// code and of the terms; compiled for chains as of "Paris", without transient storage.
contract Settlement {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice What is fixed for ever at deployment. `unitPrice` and `amountPerDay` in the token's base unit.
    /// @param window Seconds between a proposal and the moment from which it may be finalised, at least.
    /// @param epochsPerDay Epochs that a day may have: the last one settled never exceeds what the contract's age allows.
    /// @param unitsPerEpoch Units that all contributions to one epoch may have together.
    /// @param amountPerDay What a day may release: a period releases no more, and is held back for its share of a day.
    struct Terms {
        IERC20 token;
        PeerRegistry registry;
        bytes32 runId;
        address organiser;
        uint128 unitPrice;
        uint32 window;
        uint64 epochsPerDay;
        uint64 unitsPerEpoch;
        uint128 amountPerDay;
    }

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
        uint64 epochsPerDay;
        uint64 unitsPerEpoch;
        uint128 amountPerDay;
        uint64 startedAt;
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
    /// @notice Shortest window, so that people and their programs can look; development chains may have any.
    uint32 public constant MIN_WINDOW = 1 hours;
    /// @dev Chain id of hardhat and anvil. Whatever such a chain pays in is worth nothing.
    uint256 private constant DEVELOPMENT_CHAIN = 31337;
    /// @dev A budget may be this part (a hundredth) of what is available short of it: what arrives between reading and
    /// proposing does not make a proposal wrong.
    uint256 private constant BUDGET_SLACK = 100;

    IERC20 public immutable token;
    PeerRegistry public immutable registry;
    bytes32 public immutable runId;
    address public immutable organiser;
    /// @notice Reward of a unit, in the token's base unit.
    uint128 public immutable unitPrice;
    /// @notice Seconds between a proposal and the moment from which it may be finalised.
    uint32 public immutable window;
    uint64 public immutable epochsPerDay;
    uint64 public immutable unitsPerEpoch;
    uint128 public immutable amountPerDay;
    /// @notice When this contract was made: epochs are counted against its age.
    uint64 public immutable startedAt;

    // All that a claim reads and writes here but its own account's, in one slot.
    /// @notice Tokens released by final periods.
    uint104 public released;
    /// @notice Tokens paid out.
    uint104 public claimed;
    /// @notice Final periods; the proposal under way, if any, has this number.
    uint24 public numPeriods;
    /// @dev Payout leaves of the newest final period.
    uint24 private _finalPayouts;

    /// @notice Tokens received.
    uint104 public funded;
    /// @notice Last epoch of the last final period.
    uint64 public settledEpoch;
    bool private _isFunding;

    mapping(uint256 number => Period) private _periods;
    /// @notice Tokens that a hot account's claims have paid so far.
    mapping(address account => uint256 amount) public claimedOf;
    /// @notice Tokens that arrived from an account: who does not know whether a deposit of its own counted asks here.
    mapping(address from => uint256 amount) public fundedOf;

    event Funded(address indexed from, uint256 amount);
    event Proposed(
        uint256 indexed number, bytes32 indexed payoutsRoot, bytes32 indexed tablesHash, uint256 readyAt, string uri
    );
    event Cancelled(uint256 indexed number, bytes32 indexed payoutsRoot);
    event Finalised(uint256 indexed number, bytes32 indexed payoutsRoot, uint256 amount);
    event Claimed(address indexed account, address indexed to, uint256 amount);

    error BadProof(address account);
    error BadTree(bytes32 root, uint256 count);
    error DepositInDeposit();
    error EmptyPeriod(uint64 settledEpoch, uint64 toEpoch);
    error NoFinalPeriod();
    error NoProposal();
    error NoWork();
    error NotBound(address account);
    error NothingDue(address account);
    error NothingReceived();
    error NotOrganiser(address caller);
    error OverReleased(uint256 claimed, uint256 released);
    error PaysItself(address account);
    error ProposalPending(uint256 number);
    error TooManyEpochs(uint64 toEpoch, uint256 most);
    error TooManyReceipts(uint256 count, uint256 units);
    error TooManyUnits(uint256 units, uint256 most);
    error WindowOpen(uint256 readyAt);
    error WindowTooLong(uint256 window);
    error WindowTooShort(uint256 window);
    error WrongAmount(uint256 amount, uint256 pool);
    error WrongBudget(uint256 budget, uint256 available);
    error WrongCertificates(uint256 count, uint256 epochs);
    error WrongPayouts(uint256 count, uint256 least, uint256 most);
    error WrongStart(uint64 fromEpoch, uint64 settledEpoch);
    error ZeroArgument();

    modifier onlyOrganiser() {
        if (msg.sender != organiser) revert NotOrganiser(msg.sender);
        _;
    }

    constructor(Terms memory terms) {
        // A call to an address without code gives nothing and does not fail by itself: a typing error would lock funds.
        if (address(terms.token).code.length == 0 || address(terms.registry).code.length == 0) revert ZeroArgument();
        if (terms.runId == 0 || terms.organiser == address(0) || terms.window == 0) revert ZeroArgument();
        if (terms.epochsPerDay == 0 || terms.unitsPerEpoch == 0) revert ZeroArgument();
        if (terms.amountPerDay == 0 && terms.unitPrice != 0) revert ZeroArgument();
        if (terms.window > MAX_WINDOW) revert WindowTooLong(terms.window);
        if (terms.window < MIN_WINDOW && block.chainid != DEVELOPMENT_CHAIN) revert WindowTooShort(terms.window);
        (token, registry, runId, organiser) = (terms.token, terms.registry, terms.runId, terms.organiser);
        (unitPrice, window, amountPerDay) = (terms.unitPrice, terms.window, terms.amountPerDay);
        (epochsPerDay, unitsPerEpoch) = (terms.epochsPerDay, terms.unitsPerEpoch);
        startedAt = uint64(block.timestamp);
    }

    /// @notice Puts tokens into the pool. Nobody can take them out other than by claims.
    /// @dev Counts what arrived, not what was asked for: with a token that keeps a fee on transfers `funded` would
    /// otherwise exceed what is here, and the last claims would fail. The flag keeps a token with callbacks from
    /// nesting one deposit in another and counting it twice.
    function fund(uint256 amount) external {
        if (_isFunding) revert DepositInDeposit();
        _isFunding = true;
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        if (received == 0) revert NothingReceived();
        (funded, _isFunding) = ((funded + received).toUint104(), false);
        fundedOf[msg.sender] += received;
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
        (released, numPeriods) = ((released + uint256(amount)).toUint104(), (number + 1).toUint24());
        (settledEpoch, _finalPayouts) = (period.toEpoch, uint24(period.payoutsCount));
        emit Finalised(number, period.payoutsRoot, amount);
    }

    /// @notice Pays what the leaf of the newest final period gives `leaf.account` and was not paid before.
    /// @dev Anyone may send it, for the money goes where the bound wallet wants it. Cumulative amounts make a second
    /// claim pay nothing, and one claim pay for every period missed; no list of claims made is needed. No lock either:
    /// all books are written before the token is called, so that whoever calls back finds the account paid already.
    /// @return amount Tokens paid; a call that would pay none reverts.
    function claim(PayoutLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        external
        returns (uint256 amount)
    {
        address to;
        (to, amount) = _due(leaf, index, proof);
        if (amount == 0) revert NothingDue(leaf.account);
        if (to == address(0)) revert NotBound(leaf.account);
        if (to == address(this)) revert PaysItself(leaf.account);
        _pay(leaf.account, to, amount);
    }

    /// @notice As `claim` for many accounts: a sponsor pushes rewards to owners who hold no gas.
    /// @dev Accounts that are owed nothing, are not bound or would be paid to this contract are passed over: otherwise anyone could make the whole batch
    /// fail by claiming for one of them first. A wrong proof still fails it.
    /// @return total Tokens paid.
    function claimMany(Claim[] calldata claims) external returns (uint256 total) {
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata each = claims[i];
            (address to, uint256 amount) = _due(each.leaf, each.index, each.proof);
            if (amount == 0 || to == address(0) || to == address(this)) continue;
            total += amount;
            // Counted before the next one is looked at: the same account twice in a batch is paid once.
            _pay(each.leaf.account, to, amount);
        }
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
        (all.epochsPerDay, all.unitsPerEpoch, all.amountPerDay) = (epochsPerDay, unitsPerEpoch, amountPerDay);
        all.startedAt = startedAt;
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
        _checkCounts(p);
        _checkMoney(p);
        uint256 readyAt = _readyAt(number, p.amount);
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

    /// @dev What no honest period has. A period in which nobody worked is left to the next one: it could only move what
    /// others have not claimed yet, or end so late that nothing more could be settled.
    function _checkCounts(Proposal calldata p) private view {
        uint256 epochs = p.toEpoch - p.fromEpoch;
        uint256 most = uint256(epochsPerDay) * (block.timestamp - startedAt + 1 days) / 1 days;
        if (p.toEpoch > most) revert TooManyEpochs(p.toEpoch, most);
        if (p.certificatesCount != epochs) revert WrongCertificates(p.certificatesCount, epochs);
        if (p.totalUnits == 0 || p.receiptsCount == 0) revert NoWork();
        most = epochs * unitsPerEpoch;
        if (p.totalUnits > most) revert TooManyUnits(p.totalUnits, most);
        if (p.receiptsCount > p.totalUnits) revert TooManyReceipts(p.receiptsCount, p.totalUnits);
        // Everybody paid before is carried on, and whoever is new has a receipt.
        (uint256 least, uint256 count) = (_finalPayouts, p.payoutsCount);
        most = Math.min(least + p.receiptsCount, type(uint24).max);
        if (count == 0 || count < least || count > most) revert WrongPayouts(count, least, most);
    }

    /// @dev The period pays min(budget, unitPrice × units). The budget is what is available, of which a day may release
    /// `amountPerDay`; less (see BUDGET_SLACK, or anything that suffices) where others have funded meanwhile, for one
    /// base unit sent in between must not make a proposal wrong. Where all is paid nothing is rounded; where a budget is
    /// shared, less than one base unit per account that worked is lost, and none has fewer than one receipt.
    function _checkMoney(Proposal calldata p) private view {
        uint256 rest = Math.min(available(), amountPerDay);
        uint256 price = uint256(unitPrice) * p.totalUnits;
        if (p.budget > rest || p.budget < Math.min(price, rest - rest / BUDGET_SLACK)) revert WrongBudget(p.budget, rest);
        uint256 pool = Math.min(p.budget, price);
        uint256 accounts = p.budget < price ? Math.min(p.payoutsCount, p.receiptsCount) : 1;
        if (p.amount > pool || pool - p.amount >= accounts) revert WrongAmount(p.amount, pool);
    }

    /// @dev When its window is over, and not before the amount's share of a day has passed since the last period was
    /// ready. So a day releases `amountPerDay`, and never more than twice that, whatever is proposed.
    function _readyAt(uint256 number, uint256 amount) private view returns (uint256 readyAt) {
        readyAt = block.timestamp + window;
        if (number == 0 || amount == 0) return readyAt;
        return Math.max(readyAt, _periods[number - 1].readyAt + Math.ceilDiv(amount * 1 days, amountPerDay));
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

    /// @dev The last line of defence: whatever a root says, claims never exceed what was released. Books first, then the
    /// transfer: a token with callbacks finds the account paid already.
    function _pay(address account, address to, uint256 amount) private {
        uint256 total = claimed + amount;
        if (total > released) revert OverReleased(total, released);
        claimed = uint104(total);
        claimedOf[account] += amount;
        emit Claimed(account, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @dev Hashed twice: an inner node is the hash of 64 bytes, so it can never be shown as a leaf.
    function _twice(bytes memory words) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(words)));
    }
}
