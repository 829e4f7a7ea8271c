// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Bn254} from "./Bn254.sol";
import {PeerRegistry} from "./PeerRegistry.sol";
import {PositionalTree} from "./PositionalTree.sol";
import {Settlement} from "./Settlement.sol";

/// @title Opens a model on payment and pays those who made it (protocol §8.8, decision 0025)
/// @notice One per chain. A model is published once, with its split; licences are bought in its token. The key of its
/// weights is in shares with bonded holders, each of which seals its share to the buyer on chain: silence gives the
/// money back, and a wrong share is shown to be wrong by the buyer. A model without holders is served, not delivered.
/// @dev No owner and no proxy. Nothing is pushed to a list: whoever is owed something takes it. All that moves tokens is
/// under one lock, and counts what arrived. Always, for each token: received = paid out + refundable + bonds + pots + owed.
contract ModelLicense {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice Who is paid `bps` hundredths of a per cent of what the model earns.
    struct DataOwner {
        address payee;
        uint16 bps;
    }

    /// @notice A model that this one was made from; its share goes into that model's own pot, and is split as that says.
    struct Parent {
        bytes32 model;
        uint16 bps;
    }

    /// @notice Who keeps a share of the key, and the share times the curve's generator, which shows a wrong one.
    struct KeyHolder {
        address account;
        Bn254.Point commitment;
    }

    /// @notice What is fixed for ever but price and term, which change for later purchases only.
    /// @param root sha2-256 digest of the root CID of the encrypted weights; `manifestHash`: of the plain manifest.
    /// @param settlement Of the run that made it; zero: none, and the contributors' part is the owner's.
    /// @param term Seconds that a purchase lasts; 0: for ever.
    /// @param deliverySeconds Time that the holders have for a purchase.
    /// @param threshold Shares that make the key; 0: no holders, the model is served.
    /// @param bond What each holder has at stake, in the token; no less than the price.
    struct Publication {
        bytes32 root;
        bytes32 manifestHash;
        IERC20 token;
        Settlement settlement;
        uint16 ownerBps;
        uint16 contributorsBps;
        DataOwner[] dataOwners;
        Parent[] parents;
        uint104 price;
        uint40 term;
        uint32 deliverySeconds;
        uint8 threshold;
        uint96 bond;
        KeyHolder[] holders;
    }

    /// @notice A model as stored. A purchase reads the first two slots.
    struct Model {
        IERC20 token;
        uint8 depth;
        uint16 contributorsBps;
        uint8 numHolders;
        uint104 price;
        uint40 term;
        uint32 deliverySeconds;
        uint8 threshold;
        uint8 numBonded;
        bool isOpen;
        uint128 earned;
        uint128 contributorsPaid;
        address owner;
        uint96 bond;
        bytes32 payoutsRoot;
        uint32 payoutsCount;
        uint128 totalUnits;
        bytes32 root;
        bytes32 manifestHash;
    }

    /// @notice Whose the base units of the pot are whose number, modulo 10,000, is in [from, from + bps).
    struct Party {
        bytes32 payee; // an address, or a parent's id
        uint16 from;
        uint16 bps;
        bool isParent;
        uint128 taken;
    }

    /// @notice What a licensee has of a model, in one slot. `amount` is refundable while state is PENDING or COMPLETE.
    /// @param deliverBy Last second of the delivery (PENDING), or of showing a share wrong (COMPLETE).
    /// @param given Bit i: holder i has delivered.
    struct Licence {
        uint104 amount;
        uint40 expiresAt;
        uint40 deliverBy;
        uint16 given;
        uint8 numGiven;
        uint8 state;
        bool isGift;
    }

    /// @notice A holder as stored. `since`: bonded from then on; `leftAt`: owes nothing for later purchases.
    struct Holder {
        address account;
        uint96 bond;
        bytes32 commitment;
        uint40 since;
        uint40 leftAt;
    }

    /// @notice That `shared` is what the licensee's key makes of the delivery's `ephemeral` (Chaum and Pedersen 1992).
    struct Evidence {
        Bn254.Point key;
        Bn254.Point ephemeral;
        uint256 sealedShare;
        Bn254.Point shared;
        uint256 challenge;
        uint256 response;
    }

    /// @dev Periods of a settlement whose units were added up, and their sum.
    struct Tally {
        uint64 periods;
        uint128 units;
    }

    uint8 private constant PAYOUT = 3; // the first word of a payout's leaf (Settlement)
    uint8 public constant PENDING = 1;
    uint8 public constant COMPLETE = 2;
    uint8 public constant DELIVERED = 3;

    uint256 public constant WHOLE = 10_000;
    uint256 public constant MAX_DATA_OWNERS = 8;
    uint256 public constant MAX_PARENTS = 4;
    uint256 public constant MAX_DEPTH = 4;
    uint256 public constant MAX_HOLDERS = 16;
    uint256 public constant MAX_TERM = 36_500 days;
    uint256 public constant MAX_DELIVERY = 30 days;
    /// @notice How long a buyer can show a share wrong, after the last that makes the key.
    uint256 public constant DISPUTE_SECONDS = 1 days;
    /// @notice How long a bond stays after the last purchase it answers for is decided: somebody has to ask for the refund.
    uint256 public constant GRACE_SECONDS = 7 days;
    uint40 private constant FOR_EVER = type(uint40).max;
    uint256 private constant PERIODS_AT_ONCE = 64;

    PeerRegistry public immutable registry;

    uint256 private _lock = 1;
    mapping(bytes32 model => Model) private _models;
    mapping(bytes32 model => Party[]) private _parties;
    mapping(bytes32 model => mapping(uint256 index => Holder)) private _holders;
    mapping(bytes32 model => mapping(address licensee => Licence)) private _licences;
    mapping(bytes32 model => mapping(address licensee => address)) private _giverOf;
    mapping(bytes32 model => mapping(address licensee => mapping(uint256 index => bytes32))) private _sealed;
    mapping(Settlement => Tally) private _tallies;

    /// @notice Tokens that an account can withdraw.
    mapping(IERC20 token => mapping(address account => uint256)) public owed;
    /// @notice Tokens that a model has paid for a hot account.
    mapping(bytes32 model => mapping(address account => uint256)) public paidFor;
    /// @notice Hash of the point that shares are sealed to; zero: none.
    mapping(address licensee => bytes32) public keyOf;

    event Published(bytes32 indexed model, address indexed owner, Publication publication);
    event OfferSet(bytes32 indexed model, uint256 price, uint256 term, bool isOpen);
    event Bought(
        bytes32 indexed model,
        address indexed licensee,
        address payer,
        uint256 amount,
        uint256 expiresAt,
        uint256 deliverBy
    );
    event Confirmed(bytes32 indexed model, address indexed licensee, uint256 amount);
    event Refunded(bytes32 indexed model, address indexed licensee, address payer, uint256 amount);
    event KeySet(address indexed licensee, Bn254.Point key);
    event Bonded(bytes32 indexed model, uint256 indexed holder, uint256 amount);
    event Left(bytes32 indexed model, uint256 indexed holder);
    event Delivered(
        bytes32 indexed model, address indexed licensee, uint256 holder, Bn254.Point ephemeral, uint256 sealedShare
    );
    event Slashed(bytes32 indexed model, uint256 indexed holder, uint256 amount, bool isWrong);
    event Collected(bytes32 indexed model, uint256 indexed party, uint256 amount);
    event ContributorPaid(bytes32 indexed model, address indexed account, address to, uint256 amount);
    event Withdrawn(IERC20 indexed token, address indexed account, address to, uint256 amount);

    error AlreadyDelivered(address licensee, uint256 holder);
    error AlreadyPublished(bytes32 model);
    error BadProof(address account);
    error BadScalar(uint256 value);
    error BondBelowPrice(uint256 bond, uint256 price);
    error BondHeld(uint256 until);
    error BondTooSmall(uint256 received, uint256 bond);
    error DeliveryOpen(uint256 deliverBy);
    error DeliveryOver(address licensee);
    error HasKey(address licensee);
    error HasLicenceForEver(address licensee);
    error IsBonded(uint256 holder);
    error NoContributors(bytes32 model);
    error NoFinalPeriod();
    error NoKey(address licensee);
    error NoSuchEvidence(address licensee, uint256 holder);
    error NoToken(address token);
    error NotBonded(uint256 holder);
    error NotBound(address account);
    error NotEnoughHolders(uint256 bonded, uint256 threshold);
    error NotForSale(bytes32 model);
    error NotHolder(address caller);
    error NotOrganiser(address caller);
    error NotOwner(address caller);
    error NotTallied(uint256 periods, uint256 counted);
    error NothingReceived();
    error NothingRefundable(address licensee);
    error NothingOwed();
    error OtherToken(bytes32 parent);
    error OverPot(uint256 amount, uint256 left);
    error PaysLicence(address account);
    error PriceRaised(uint256 price, uint256 most);
    error PurchasePending(address licensee);
    error Reentered();
    error ShareIsRight(uint256 holder);
    error TermChanged(uint256 term, uint256 expected);
    error TooDeep(bytes32 parent);
    error TooMany(uint256 count, uint256 most);
    error WrongDelivery(uint256 threshold, uint256 holders, uint256 deliverySeconds);
    error WrongOffer(uint256 price, uint256 term);
    error WrongSplit(uint256 sum);
    error ZeroPayee();

    /// @dev A token that calls back could nest one purchase in another, and both would count what the inner one brought.
    modifier locked() {
        if (_lock != 1) revert Reentered();
        _lock = 2;
        _;
        _lock = 1;
    }

    constructor(PeerRegistry registry_) {
        if (address(registry_).code.length == 0) revert NoToken(address(registry_));
        registry = registry_;
    }

    // -- publishing ---------------------------------------------------------------------------------------------------
    /// @notice Publishes a model of the caller's. Its id is the hash of all that is said here and of who says it.
    /// @dev Where a settlement is named the caller must be its organiser: nobody else can say that a run made this. The
    /// contributors are those of its newest final period, for ever; a root that can change would change a split.
    function publish(Publication calldata p) external returns (bytes32 id) {
        id = keccak256(abi.encode(msg.sender, p));
        Model storage model = _models[id];
        if (model.owner != address(0)) revert AlreadyPublished(id);
        if (address(p.token).code.length == 0) revert NoToken(address(p.token));
        (model.owner, model.token, model.root, model.manifestHash) = (msg.sender, p.token, p.root, p.manifestHash);
        uint256 ownerBps = p.ownerBps;
        if (address(p.settlement) == address(0)) ownerBps += p.contributorsBps;
        else _setContributors(model, p.settlement, p.contributorsBps);
        _setParties(id, p, ownerBps);
        _setHolders(id, p);
        _setOffer(id, p.price, p.term, true);
        emit Published(id, msg.sender, p);
    }

    /// @notice Price and term for later purchases, and whether there are any.
    function setOffer(bytes32 id, uint104 price, uint40 term, bool isOpen) external {
        if (msg.sender != _models[id].owner) revert NotOwner(msg.sender);
        _setOffer(id, price, term, isOpen);
    }

    /// @notice Adds up the units of up to `most` periods of a settlement, for runs with more than a publication can count.
    function tally(Settlement settlement, uint256 most) public returns (uint256 counted) {
        Tally memory sum = _tallies[settlement];
        uint256 end = Math.min(settlement.numPeriods(), sum.periods + most);
        for (; sum.periods < end; ++sum.periods) {
            sum.units += settlement.periodAt(sum.periods).totalUnits;
        }
        _tallies[settlement] = sum;
        return sum.periods;
    }

    // -- buying -------------------------------------------------------------------------------------------------------
    /// @notice The point that shares are sealed to, for all models: `key` = secret × generator. Once for ever: shares
    /// under way to a key that changes would be neither right nor wrong.
    function setKey(Bn254.Point calldata key) external {
        if (keyOf[msg.sender] != 0) revert HasKey(msg.sender);
        Bn254.check(key);
        keyOf[msg.sender] = Bn254.hash(key);
        emit KeySet(msg.sender, key);
    }

    /// @notice Buys or renews a licence for `licensee`, who may be another; a refund goes to who pays. A renewal lasts
    /// from the old end, and needs no delivery, hence gives nothing back.
    /// @param maxPrice,term What the buyer has seen: an offer that changes meanwhile takes neither more nor gives less.
    function buy(bytes32 id, address licensee, uint256 maxPrice, uint256 term) external locked {
        Model storage model = _models[id];
        if (!model.isOpen) revert NotForSale(id);
        (uint256 price, uint256 threshold) = (model.price, model.threshold);
        if (price > maxPrice) revert PriceRaised(price, maxPrice);
        if (model.term != term) revert TermChanged(model.term, term);
        // Before the licence is read: a token with callbacks could change it meanwhile.
        uint256 received = _take(model.token, price);
        Licence memory licence = _licences[id][licensee];
        if (_isConfirmable(licence)) _confirm(id, licensee, licence);
        if (licence.state == PENDING || licence.state == COMPLETE) revert PurchasePending(licensee);
        if (licence.expiresAt == FOR_EVER) revert HasLicenceForEver(licensee);
        bool isDelivery = threshold != 0 && licence.state != DELIVERED;
        if (isDelivery) {
            if (model.numBonded < threshold) revert NotEnoughHolders(model.numBonded, threshold);
            if (keyOf[licensee] == 0) revert NoKey(licensee);
        }
        licence.expiresAt = term == 0 ? FOR_EVER : uint40(Math.max(block.timestamp, licence.expiresAt) + term);
        if (isDelivery) {
            (licence.amount, licence.state) = (received.toUint104(), PENDING);
            licence.deliverBy = uint40(block.timestamp + model.deliverySeconds);
            licence.isGift = licensee != msg.sender;
            if (licence.isGift) _giverOf[id][licensee] = msg.sender;
        } else {
            licence.state = DELIVERED;
            _earn(id, received);
        }
        _licences[id][licensee] = licence;
        emit Bought(id, licensee, msg.sender, received, licence.expiresAt, licence.deliverBy);
    }

    /// @notice Gives the money back to who paid, because too few holders delivered in time; those who were silent lose
    /// their bond. By anyone.
    function refund(bytes32 id, address licensee) external {
        Licence memory licence = _licences[id][licensee];
        if (licence.state != PENDING) revert NothingRefundable(licensee);
        if (block.timestamp <= licence.deliverBy) revert DeliveryOpen(licence.deliverBy);
        _slashSilent(id, licence);
        _giveBack(id, licensee, licence);
    }

    /// @notice Turns what was delivered, and what nobody has shown wrong in time, into the model's earnings. By anyone;
    /// purchases that are not so far are passed over.
    function confirm(bytes32 id, address[] calldata licensees) external {
        for (uint256 i = 0; i < licensees.length; ++i) {
            Licence memory licence = _licences[id][licensees[i]];
            if (!_isConfirmable(licence)) continue;
            _confirm(id, licensees[i], licence);
            _licences[id][licensees[i]] = licence;
        }
    }

    // -- the key ------------------------------------------------------------------------------------------------------
    /// @notice The holder puts up its bond, and answers for purchases from the next second on.
    function bond(bytes32 id, uint256 index, uint256 amount) external locked {
        (Model storage model, Holder storage holder) = (_models[id], _ownHolder(id, index));
        if (holder.bond != 0) revert IsBonded(index);
        uint256 received = _take(model.token, amount);
        if (received < model.bond) revert BondTooSmall(received, model.bond);
        (holder.bond, holder.since, holder.leftAt) = (received.toUint96(), uint40(block.timestamp), 0);
        ++model.numBonded;
        emit Bonded(id, index, received);
    }

    /// @notice The holder answers for no later purchase. What was bought before is still to be delivered.
    function retire(bytes32 id, uint256 index) external {
        Holder storage holder = _ownHolder(id, index);
        if (holder.bond == 0 || holder.leftAt != 0) revert NotBonded(index);
        holder.leftAt = uint40(block.timestamp);
        --_models[id].numBonded;
        emit Left(id, index);
    }

    /// @notice Frees the bond of a holder that has left, when all it answers for is decided or could have been.
    function takeBond(bytes32 id, uint256 index) external {
        (Model storage model, Holder storage holder) = (_models[id], _ownHolder(id, index));
        uint256 amount = holder.bond;
        if (amount == 0) revert NotBonded(index);
        uint256 until = holder.leftAt + uint256(model.deliverySeconds) + DISPUTE_SECONDS + GRACE_SECONDS;
        if (holder.leftAt == 0) revert IsBonded(index);
        if (block.timestamp <= until) revert BondHeld(until);
        (holder.bond, holder.leftAt) = (0, 0);
        owed[model.token][msg.sender] += amount;
    }

    /// @notice The holder's share for a licensee, sealed: sealedShare = share + keccak(secret point) modulo the curve's
    /// order, secret point = r × the licensee's key, `ephemeral` = r × generator. On chain, so that silence is a fact.
    function deliver(bytes32 id, address licensee, uint256 index, Bn254.Point calldata ephemeral, uint256 sealedShare)
        external
    {
        if (_ownHolder(id, index).bond == 0) revert NotBonded(index);
        Licence memory licence = _licences[id][licensee];
        if (licence.state != PENDING || block.timestamp > licence.deliverBy) revert DeliveryOver(licensee);
        if (licence.given >> index & 1 != 0) revert AlreadyDelivered(licensee, index);
        if (sealedShare >= Bn254.ORDER) revert BadScalar(sealedShare);
        Bn254.check(ephemeral);
        _sealed[id][licensee][index] = _sealedHash(ephemeral, sealedShare);
        licence.given |= uint16(1 << index);
        if (++licence.numGiven == _models[id].threshold) {
            (licence.state, licence.deliverBy) = (COMPLETE, uint40(block.timestamp + DISPUTE_SECONDS));
        }
        _licences[id][licensee] = licence;
        emit Delivered(id, licensee, index, ephemeral, sealedShare);
    }

    /// @notice Shows that a holder's share is wrong: it loses its bond, and who paid gets the money back.
    /// @dev The bond goes to the model, not to the buyer: a buyer and a holder that act as one would otherwise take the
    /// key for nothing. It is no less than the price, so that they lose by it.
    function dispute(bytes32 id, address licensee, uint256 index, Evidence calldata evidence) external {
        Licence memory licence = _licences[id][licensee];
        bool isOpen = licence.state == PENDING || licence.state == COMPLETE && block.timestamp <= licence.deliverBy;
        if (!isOpen) revert DeliveryOver(licensee);
        if (licence.given >> index & 1 == 0) revert NoSuchEvidence(licensee, index);
        if (_sealed[id][licensee][index] != _sealedHash(evidence.ephemeral, evidence.sealedShare)) {
            revert NoSuchEvidence(licensee, index);
        }
        if (keyOf[licensee] != Bn254.hash(evidence.key)) revert NoKey(licensee);
        if (!_isProved(id, licensee, evidence)) revert NoSuchEvidence(licensee, index);
        uint256 mask = uint256(Bn254.hash(evidence.shared)) % Bn254.ORDER;
        uint256 share = addmod(evidence.sealedShare, Bn254.ORDER - mask, Bn254.ORDER);
        if (Bn254.hash(Bn254.mul(Bn254.generator(), share)) == _holders[id][index].commitment) {
            revert ShareIsRight(index);
        }
        _slash(id, index, true);
        _giveBack(id, licensee, licence);
    }

    // -- being paid ---------------------------------------------------------------------------------------------------
    /// @notice Moves what a party of the split is due to what it can withdraw, or into the parent's pot. By anyone.
    function collect(bytes32 id, uint256 index) external {
        Party storage party = _parties[id][index];
        uint256 amount = shareOf(_models[id].earned, party.from, party.bps) - party.taken;
        if (amount == 0) revert NothingOwed();
        party.taken += uint128(amount);
        if (party.isParent) _earn(party.payee, amount);
        else owed[_models[id].token][address(uint160(uint256(party.payee)))] += amount;
        emit Collected(id, index, amount);
    }

    /// @notice Pays a contributor all that the model owes it by now, to the payout address of the wallet that it is bound
    /// to. By anyone, with the leaf of the period that was the newest final one at publication.
    function payContributor(bytes32 id, Settlement.PayoutLeaf calldata leaf, uint256 index, bytes32[] calldata proof)
        external
        locked
    {
        Model storage model = _models[id];
        if (model.payoutsRoot == 0) revert NoContributors(id);
        bytes32 hash = keccak256(bytes.concat(keccak256(abi.encode(PAYOUT, leaf))));
        if (!PositionalTree.verify(model.payoutsRoot, hash, index, model.payoutsCount, proof)) {
            revert BadProof(leaf.account);
        }
        uint256 pot = shareOf(model.earned, 0, model.contributorsBps);
        uint256 amount = Math.mulDiv(pot, leaf.cumUnits, model.totalUnits);
        amount -= Math.min(amount, paidFor[id][leaf.account]);
        if (amount == 0) revert NothingOwed();
        // Leaves that give more units than their periods had take what others of the run would get, nothing else.
        if (amount > pot - model.contributorsPaid) revert OverPot(amount, pot - model.contributorsPaid);
        address to = registry.payoutOf(leaf.account);
        if (to == address(0)) revert NotBound(leaf.account);
        if (to == address(this)) revert PaysLicence(leaf.account);
        model.contributorsPaid += uint128(amount);
        paidFor[id][leaf.account] += amount;
        emit ContributorPaid(id, leaf.account, to, amount);
        model.token.safeTransfer(to, amount);
    }

    /// @notice Sends all that the caller is owed in a token: to another address where the token refuses its own.
    function withdraw(IERC20 token, address to) external locked returns (uint256 amount) {
        amount = owed[token][msg.sender];
        if (amount == 0) revert NothingOwed();
        if (to == address(this)) revert PaysLicence(msg.sender);
        owed[token][msg.sender] = 0;
        emit Withdrawn(token, msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    // -- reading ------------------------------------------------------------------------------------------------------
    /// @return Whether `licensee` may have the key, or be served, now.
    function hasAccess(bytes32 id, address licensee) external view returns (bool) {
        return block.timestamp < _licences[id][licensee].expiresAt;
    }

    function modelOf(bytes32 id) external view returns (Model memory) {
        return _models[id];
    }

    function partiesOf(bytes32 id) external view returns (Party[] memory) {
        return _parties[id];
    }

    function holdersOf(bytes32 id) external view returns (Holder[] memory holders) {
        holders = new Holder[](_models[id].numHolders);
        for (uint256 i = 0; i < holders.length; ++i) {
            holders[i] = _holders[id][i];
        }
    }

    function licenceOf(bytes32 id, address licensee) external view returns (Licence memory) {
        return _licences[id][licensee];
    }

    /// @return Of the first `earned` base units those whose number modulo 10,000 is in [from, from + bps). Shares that
    /// cover all numbers sum to what was earned, never shrink, and leave no dust.
    function shareOf(uint256 earned, uint256 from, uint256 bps) public pure returns (uint256) {
        return earned / WHOLE * bps + Math.min(Math.max(earned % WHOLE, from), from + bps) - from;
    }

    // -- publishing, in parts -----------------------------------------------------------------------------------------
    function _setContributors(Model storage model, Settlement settlement, uint16 bps) private {
        if (settlement.organiser() != msg.sender) revert NotOrganiser(msg.sender);
        uint256 periods = settlement.numPeriods();
        if (periods == 0) revert NoFinalPeriod();
        uint256 counted = tally(settlement, PERIODS_AT_ONCE);
        if (counted != periods) revert NotTallied(periods, counted);
        Settlement.Period memory last = settlement.periodAt(periods - 1);
        (model.payoutsRoot, model.payoutsCount) = (last.payoutsRoot, last.payoutsCount);
        (model.totalUnits, model.contributorsBps) = (_tallies[settlement].units, bps);
    }

    /// @dev Contributors have the first numbers, the owner the last: what an odd price leaves over comes to the owner last.
    function _setParties(bytes32 id, Publication calldata p, uint256 ownerBps) private {
        if (p.dataOwners.length > MAX_DATA_OWNERS) revert TooMany(p.dataOwners.length, MAX_DATA_OWNERS);
        if (p.parents.length > MAX_PARENTS) revert TooMany(p.parents.length, MAX_PARENTS);
        uint256 from = _models[id].contributorsBps;
        uint256 depth = 1;
        for (uint256 i = 0; i < p.parents.length; ++i) {
            Model storage parent = _models[p.parents[i].model];
            // Its pot is in its own token; an id that nobody has published has none.
            if (address(parent.token) != address(p.token)) revert OtherToken(p.parents[i].model);
            depth = Math.max(depth, parent.depth + 1);
            if (depth > MAX_DEPTH) revert TooDeep(p.parents[i].model);
            from = _addParty(id, p.parents[i].model, from, p.parents[i].bps, true);
        }
        for (uint256 i = 0; i < p.dataOwners.length; ++i) {
            if (p.dataOwners[i].payee == address(0)) revert ZeroPayee();
            from = _addParty(id, bytes32(uint256(uint160(p.dataOwners[i].payee))), from, p.dataOwners[i].bps, false);
        }
        from = _addParty(id, bytes32(uint256(uint160(msg.sender))), from, ownerBps, false);
        if (from != WHOLE) revert WrongSplit(from);
        _models[id].depth = uint8(depth);
    }

    function _addParty(bytes32 id, bytes32 payee, uint256 from, uint256 bps, bool isParent) private returns (uint256) {
        if (from + bps > WHOLE) revert WrongSplit(from + bps);
        _parties[id].push(Party(payee, uint16(from), uint16(bps), isParent, 0));
        return from + bps;
    }

    function _setHolders(bytes32 id, Publication calldata p) private {
        uint256 count = p.holders.length;
        if (count > MAX_HOLDERS) revert TooMany(count, MAX_HOLDERS);
        bool isServed = p.threshold == 0 && count == 0;
        bool isDelivered = p.threshold != 0 && p.threshold <= count && p.deliverySeconds != 0;
        if (!(isServed || isDelivered) || p.deliverySeconds > MAX_DELIVERY) {
            revert WrongDelivery(p.threshold, count, p.deliverySeconds);
        }
        Model storage model = _models[id];
        (model.threshold, model.numHolders) = (p.threshold, uint8(count));
        (model.deliverySeconds, model.bond) = (p.deliverySeconds, p.bond);
        for (uint256 i = 0; i < count; ++i) {
            Bn254.check(p.holders[i].commitment);
            _holders[id][i] = Holder(p.holders[i].account, 0, Bn254.hash(p.holders[i].commitment), 0, 0);
        }
    }

    function _setOffer(bytes32 id, uint104 price, uint40 term, bool isOpen) private {
        Model storage model = _models[id];
        if (price == 0 || term > MAX_TERM) revert WrongOffer(price, term);
        if (model.threshold != 0 && price > model.bond) revert BondBelowPrice(model.bond, price);
        (model.price, model.term, model.isOpen) = (price, term, isOpen);
        emit OfferSet(id, price, term, isOpen);
    }

    // -- money, in parts ----------------------------------------------------------------------------------------------
    /// @dev What arrived, not what was asked for: tokens may keep a fee.
    function _take(IERC20 token, uint256 amount) private returns (uint256 received) {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        received = token.balanceOf(address(this)) - before;
        if (received == 0) revert NothingReceived();
    }

    function _earn(bytes32 id, uint256 amount) private {
        _models[id].earned = (_models[id].earned + amount).toUint128();
    }

    function _giveBack(bytes32 id, address licensee, Licence memory licence) private {
        address payer = licence.isGift ? _giverOf[id][licensee] : licensee;
        delete _licences[id][licensee];
        owed[_models[id].token][payer] += licence.amount;
        emit Refunded(id, licensee, payer, licence.amount);
    }

    function _isConfirmable(Licence memory licence) private view returns (bool) {
        return licence.state == COMPLETE && block.timestamp > licence.deliverBy;
    }

    /// @dev The caller writes the licence.
    function _confirm(bytes32 id, address licensee, Licence memory licence) private {
        uint256 amount = licence.amount;
        (licence.amount, licence.state) = (0, DELIVERED);
        _earn(id, amount);
        emit Confirmed(id, licensee, amount);
    }

    // -- holders, in parts --------------------------------------------------------------------------------------------
    function _ownHolder(bytes32 id, uint256 index) private view returns (Holder storage holder) {
        holder = _holders[id][index];
        if (msg.sender != holder.account) revert NotHolder(msg.sender);
    }

    /// @dev Who was bonded before the purchase, had not left by then, and has not delivered.
    function _slashSilent(bytes32 id, Licence memory licence) private {
        (uint256 count, uint256 boughtAt) = (_models[id].numHolders, licence.deliverBy - _models[id].deliverySeconds);
        for (uint256 i = 0; i < count; ++i) {
            Holder storage holder = _holders[id][i];
            if (licence.given >> i & 1 != 0 || holder.since >= boughtAt) continue;
            if (holder.leftAt == 0 || holder.leftAt > boughtAt) _slash(id, i, false);
        }
    }

    function _slash(bytes32 id, uint256 index, bool isWrong) private {
        Holder storage holder = _holders[id][index];
        uint256 amount = holder.bond;
        if (amount == 0) return;
        if (holder.leftAt == 0) --_models[id].numBonded;
        (holder.bond, holder.leftAt) = (0, 0);
        _earn(id, amount);
        emit Slashed(id, index, amount, isWrong);
    }

    function _sealedHash(Bn254.Point calldata ephemeral, uint256 sealedShare) private pure returns (bytes32) {
        return keccak256(abi.encode(ephemeral.x, ephemeral.y, sealedShare));
    }

    /// @dev log_generator(key) = log_ephemeral(shared). The challenge names model and licensee: no proof serves twice.
    function _isProved(bytes32 id, address licensee, Evidence calldata e) private view returns (bool) {
        Bn254.Point memory first = Bn254.add(Bn254.mul(Bn254.generator(), e.response), Bn254.mul(e.key, e.challenge));
        Bn254.Point memory second = Bn254.add(Bn254.mul(e.ephemeral, e.response), Bn254.mul(e.shared, e.challenge));
        bytes32 hash = keccak256(abi.encode(id, licensee, e.key, e.ephemeral, e.shared, first, second));
        return uint256(hash) % Bn254.ORDER == e.challenge;
    }
}
