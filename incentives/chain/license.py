"""The chain's contract ModelLicense: models for sale, their licences, the delivery of their keys, and who is paid (protocol §8.8)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coincurve import PrivateKey
from eth_abi.abi import encode

from incentives.chain.registry import deploy_registry
from incentives.chain.state import ProvenPayout
from incentives.chain.terms import created_at, init_code, registry_address
from incentives.chain.token import TokenContract
from incentives.errors import InputError, TamperedError
from incentives.hashing import keccak
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of, encode_word
from incentives.sealing import Evidence, Point, SealedShare

if TYPE_CHECKING:
    from incentives.chain.node import Chain, Sent
    from incentives.chain.unsigned import Call

NO_SETTLEMENT = bytes(20)
_PUBLICATION = (
    "(bytes32,bytes32,address,address,uint16,uint16,(address,uint16)[],(bytes32,uint16)[],uint104,uint40,uint32,uint8,uint96,"
    "(address,(uint256,uint256))[])"
)
_STATES = ("none", "pending", "complete", "delivered")


@dataclass(frozen=True, slots=True)
class Publication:
    """What a model is published with. Parts in hundredths of a per cent, 10,000 in all; amounts in the token's base unit.

    `root`: sha2-256 digest of the root CID of the encrypted weights; `manifest_hash`: of the plain manifest; `term_seconds` 0:
    for ever; `threshold` 0 and no `holders` (account, commitment): served, not delivered."""

    root: bytes
    manifest_hash: bytes
    token: bytes
    owner_bps: int
    price_amount: int
    term_seconds: int
    settlement: bytes = NO_SETTLEMENT
    contributors_bps: int = 0
    data_owners: tuple[tuple[bytes, int], ...] = ()
    parents: tuple[tuple[bytes, int], ...] = ()
    delivery_seconds: int = 0
    threshold: int = 0
    bond_amount: int = 0
    holders: tuple[tuple[bytes, Point], ...] = ()

    def arguments(self) -> tuple[object, ...]:
        """As the contract takes it."""
        return (
            self.root,
            self.manifest_hash,
            to_checksum(self.token),
            to_checksum(self.settlement),
            self.owner_bps,
            self.contributors_bps,
            [(to_checksum(payee), bps) for payee, bps in self.data_owners],
            list(self.parents),
            self.price_amount,
            self.term_seconds,
            self.delivery_seconds,
            self.threshold,
            self.bond_amount,
            [(to_checksum(account), commitment) for account, commitment in self.holders],
        )

    def model_id(self, publisher: bytes) -> bytes:
        """What the contract knows it by: the hash of all of it, and of who publishes."""
        return bytes(keccak(encode(["address", _PUBLICATION], [to_checksum(publisher), self.arguments()])))


@dataclass(frozen=True, slots=True)
class Model:
    """As the contract has it now."""

    owner: bytes
    token: bytes
    root: bytes
    manifest_hash: bytes
    price_amount: int
    term_seconds: int
    is_open: bool
    threshold: int
    num_bonded: int
    bond_amount: int
    delivery_seconds: int
    earned_amount: int
    contributors_paid_amount: int
    total_units: int
    contributors_bps: int
    num_holders: int
    payouts_root: bytes
    payouts_count: int

    def contributors_amount(self) -> int:
        """What its contributors have earned of it together, paid or not."""
        return share_of(self.earned_amount, 0, self.contributors_bps)


@dataclass(frozen=True, slots=True)
class Party:
    """Who is paid of a model: an account, or a parent's pot (`parent`: that model's id). Its base units are those whose number modulo
    10,000 is in [start, start + bps); `taken_amount`: what was moved to it."""

    account: bytes
    parent: bytes
    start: int
    bps: int
    taken_amount: int

    def due_amount(self, earned_amount: int) -> int:
        """What can be moved to it now."""
        return share_of(earned_amount, self.start, self.bps) - self.taken_amount


@dataclass(frozen=True, slots=True)
class Holder:
    """Of a share of the key. `bond_amount` 0: not bonded; unix seconds: `since` its bond answers, `left_at` 0: it has not left."""

    account: bytes
    bond_amount: int
    since: int
    left_at: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """A `Bought` event."""

    block: int
    model: bytes
    licensee: bytes
    payer: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Published:
    """A `Published` event whose hash is the model's id."""

    block: int
    model: bytes
    owner: bytes
    publication: Publication


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licensee has. `state`: none, pending (a key is to be delivered), complete (wrong shares can be shown), delivered.
    Unix seconds; `refundable_amount` until it is delivered; `given`: the holders that have delivered."""

    state: str
    expires_at: int
    deliver_by: int
    refundable_amount: int
    given: tuple[int, ...]
    is_gift: bool


@dataclass(frozen=True, slots=True)
class LicenseContract:
    """The one at `address`, as the chain's node shows it. Errors are the chain's."""

    chain: "Chain"
    address: bytes

    # -- reading ------------------------------------------------------------------------------------------------------
    def model(self, model: bytes) -> Model:
        """InputError where nobody has published it."""
        found = self._call("modelOf", model)
        if not int(found["owner"], 16):
            raise InputError("model", "0x" + model.hex(), "is not published on this chain: check the id and --rpc")
        return Model(
            parse_address(found["owner"]), parse_address(found["token"]), bytes(found["root"]), bytes(found["manifestHash"]),
            int(found["price"]), int(found["term"]), bool(found["isOpen"]), int(found["threshold"]), int(found["numBonded"]),
            int(found["bond"]), int(found["deliverySeconds"]), int(found["earned"]), int(found["contributorsPaid"]),
            int(found["totalUnits"]), int(found["contributorsBps"]), int(found["numHolders"]), bytes(found["payoutsRoot"]),
            int(found["payoutsCount"]),
        )  # fmt: skip

    def is_there(self) -> bool:
        """Whether anybody has made the contract on this chain."""
        return self.chain.has_code(self.address, None)

    def parties(self, model: bytes) -> list[Party]:
        """Parents, data owners, the owner, in this order; the contributors' part is the model's own."""
        found = []
        for payee, start, bps, is_parent, taken in map(_values, self._call("partiesOf", model)):
            account, parent = (b"", bytes(payee)) if is_parent else (bytes(payee)[12:], b"")
            found.append(Party(account, parent, int(start), int(bps), int(taken)))
        return found

    def holders(self, model: bytes) -> list[Holder]:
        return [
            Holder(parse_address(account), int(bond), int(since), int(left))
            for account, bond, _, since, left in map(_values, self._call("holdersOf", model))
        ]

    def published(self, *, from_block: int, tell: Callable[[float], None] = lambda share: None) -> Iterator[Published]:
        """All models, the oldest first, asked for in bounded ranges of blocks. TamperedError as `publication`."""
        for block, said in self._events("Published", {}, from_block=from_block, tell=tell):
            yield _published(block, said)

    def purchases(self, model: bytes, *, from_block: int, to_block: int) -> list[Purchase]:
        """In these blocks, the oldest first."""
        found = self._events("Bought", {"model": model}, from_block=from_block, to_block=to_block)
        return [
            Purchase(block, model, parse_address(said["licensee"]), parse_address(said["payer"]), int(said["amount"]))
            for block, said in found
        ]

    def publication(self, model: bytes) -> tuple[bytes, Publication]:
        """(owner, what it was published with), from the event; TamperedError where its hash is not the model's id."""
        found = self.publication_event(model)
        return found.owner, found.publication

    def publication_event(self, model: bytes) -> Published:
        """The same, with its block."""
        events = list(self._events("Published", {"model": model}))
        if not events:
            raise InputError("model", "0x" + model.hex(), "no publication is found: check the id, or use another node")
        return _published(*events[-1])

    def licence(self, model: bytes, licensee: bytes) -> Licence:
        found = self._call("licenceOf", model, to_checksum(licensee))
        given = tuple(index for index in range(16) if int(found["given"]) >> index & 1)
        return Licence(
            _STATES[int(found["state"])], int(found["expiresAt"]), int(found["deliverBy"]), int(found["amount"]), given,
            bool(found["isGift"]),
        )  # fmt: skip

    def has_access(self, model: bytes, licensee: bytes, *, block: int | None = None) -> bool:
        """Whether it may have the key, or be served."""
        return bool(
            self.chain.call("ModelLicense", self.address, "hasAccess", model, to_checksum(licensee), block=block)
        )

    def owed(self, token: bytes, account: bytes) -> int:
        """What it can withdraw."""
        return int(self._call("owed", to_checksum(token), to_checksum(account)))

    def paid_for(self, model: bytes, account: bytes) -> int:
        """What it has paid for a hot account."""
        return int(self._call("paidFor", model, to_checksum(account)))

    def key_of(self, licensee: bytes) -> Point | None:
        """What shares are sealed to; None: it has set none."""
        found = list(self._events("KeySet", {"licensee": to_checksum(licensee)}))
        return _point(found[0][1]["key"]) if found else None

    def deliveries(self, model: bytes, licensee: bytes) -> dict[int, SealedShare]:
        """The newest of each holder."""
        filters: dict[str, object] = {"model": model, "licensee": to_checksum(licensee)}
        found = self._events("Delivered", filters)
        return {
            int(said["holder"]): SealedShare(_point(said["ephemeral"]), int(said["sealedShare"])) for _, said in found
        }

    # -- sending ------------------------------------------------------------------------------------------------------
    def publish(self, key: PrivateKey, publication: Publication) -> bytes:
        """The model's id. A run of more than 64 periods is added up first."""
        for arguments in self._tallies(publication):
            self._transact(key, "tally", *arguments)
        self._transact(key, "publish", publication.arguments())
        return publication.model_id(account_of(key))

    def set_offer(
        self, key: PrivateKey, model: bytes, price_amount: int, term_seconds: int, *, is_open: bool = True
    ) -> "Sent":
        return self._transact(key, "setOffer", model, price_amount, term_seconds, is_open)

    def set_key(self, key: PrivateKey, point: Point) -> "Sent":
        """Once for ever."""
        return self._transact(key, "setKey", point)

    def buy(self, key: PrivateKey, model: bytes, licensee: bytes, seen: Model) -> "list[Sent]":
        """For itself or another, by the offer that was seen. A purchase that a command was broken off at is taken over, not made twice."""
        arguments = (model, to_checksum(licensee), seen.price_amount, seen.term_seconds)
        earlier = self.chain.earlier(key, "ModelLicense", self.address, "buy", *arguments)
        if earlier is not None:
            return [earlier]
        return [*self._allow(key, seen.token, seen.price_amount), self._transact(key, "buy", *arguments)]

    def bond(self, key: PrivateKey, model: bytes, holder: int, seen: Model) -> "list[Sent]":
        amount = seen.bond_amount
        return [*self._allow(key, seen.token, amount), self._transact(key, "bond", model, holder, amount)]

    def retire(self, key: PrivateKey, model: bytes, holder: int) -> "Sent":
        return self._transact(key, "retire", model, holder)

    def take_bond(self, key: PrivateKey, model: bytes, holder: int) -> "Sent":
        return self._transact(key, "takeBond", model, holder)

    def deliver(self, key: PrivateKey, model: bytes, licensee: bytes, holder: int, sealed: SealedShare) -> "Sent":
        arguments = (sealed.ephemeral, sealed.sealed_share)
        return self._transact(key, "deliver", model, to_checksum(licensee), holder, *arguments)

    def dispute(self, key: PrivateKey, model: bytes, licensee: bytes, holder: int, evidence: Evidence) -> "Sent":
        return self._transact(key, "dispute", model, to_checksum(licensee), holder, evidence.arguments())

    def refund(self, key: PrivateKey, model: bytes, licensee: bytes) -> "Sent":
        return self._transact(key, "refund", model, to_checksum(licensee))

    def confirm(self, key: PrivateKey, model: bytes, licensees: Sequence[bytes]) -> "Sent":
        return self._transact(key, "confirm", model, [to_checksum(licensee) for licensee in licensees])

    def collect(self, key: PrivateKey, model: bytes, party: int) -> "Sent":
        """Parties: parents, data owners, the owner, in this order."""
        return self._transact(key, "collect", model, party)

    def pay_contributor(self, key: PrivateKey, model: bytes, payout: ProvenPayout) -> "Sent":
        return self._transact(key, "payContributor", model, *payout.arguments())

    def withdraw(self, key: PrivateKey, token: bytes, to: bytes) -> "Sent":
        return self._transact(key, "withdraw", to_checksum(token), to_checksum(to))

    # -- for others to send -------------------------------------------------------------------------------------------
    def unsigned(self, sender: bytes | None, function: str, *arguments: object) -> "Call":
        """`sender` None: anybody may send it."""
        return self.chain.unsigned("ModelLicense", self.address, function, *arguments, sender=sender)

    def send(self, key: PrivateKey, call: "Call") -> "Sent":
        """What `unsigned` has made, by this key."""
        return self.chain.send(key, {"to": to_checksum(call.to), "data": "0x" + call.data.hex()}, call.what)

    def unsigned_publish(self, sender: bytes, publication: Publication) -> "list[Call]":
        calls = [self.unsigned(None, "tally", *arguments) for arguments in self._tallies(publication)]
        return [*calls, self.unsigned(sender, "publish", publication.arguments())]

    def unsigned_buy(self, sender: bytes, model: bytes, licensee: bytes, seen: Model) -> "list[Call]":
        token, spender = TokenContract(self.chain, seen.token), to_checksum(self.address)
        steps = self._allowances(token, sender, seen.price_amount)
        calls = [
            self.chain.unsigned("TestToken", seen.token, "approve", spender, each, sender=sender) for each in steps
        ]
        arguments = (model, to_checksum(licensee), seen.price_amount, seen.term_seconds)
        return [*calls, self.unsigned(sender, "buy", *arguments)]

    def _tallies(self, publication: Publication) -> list[tuple[object, ...]]:
        """What has to be counted first, of a run of more than 64 periods: arguments of `tally`."""
        if publication.settlement == NO_SETTLEMENT:
            return []
        settlement = to_checksum(publication.settlement)
        counted = int(self._call("tally", settlement, 0))
        missing = int(self.chain.call("Settlement", publication.settlement, "numPeriods")) - counted - 64
        return [(settlement, 256)] * max(0, -(-missing // 256))

    def _allowances(self, token: TokenContract, owner: bytes, amount: int) -> tuple[int, ...]:
        """What `approve` is to say, one after the other: some tokens change an allowance only from or to zero."""
        allowed = token.allowance(owner, self.address)
        return () if allowed >= amount else (0, amount) if allowed else (amount,)

    def _allow(self, key: PrivateKey, token: bytes, amount: int) -> "list[Sent]":
        """InputError where the key's account has less."""
        contract, owner = TokenContract(self.chain, token), account_of(key)
        has, unit = contract.balance_of(owner), contract.unit()
        if has < amount:
            raise InputError("amount", unit.written(amount), f"{to_checksum(owner)} has {unit.shown(has)}: get more")
        return [contract.approve(key, self.address, step) for step in self._allowances(contract, owner, amount)]

    def _events(
        self,
        event: str,
        filters: dict[str, object],
        *,
        from_block: int = 0,
        to_block: int | None = None,
        tell: Callable[[float], None] = lambda share: None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        return self.chain.events_by_ranges(
            "ModelLicense", self.address, event, filters, from_block=from_block, to_block=to_block, tell=tell
        )

    def _call(self, function: str, *arguments: object) -> Any:
        return self.chain.call("ModelLicense", self.address, function, *arguments)

    def _transact(self, key: PrivateKey, function: str, *arguments: object) -> "Sent":
        return self.chain.transact(key, "ModelLicense", self.address, function, *arguments)


def license_code() -> bytes:
    """What makes it: its one argument is the registry, which has the same address on every chain, hence so has this."""
    return init_code("ModelLicense") + encode_word("address", "registry", registry_address())


def license_address() -> bytes:
    """The ModelLicense of this version: computed, never told."""
    return created_at(license_code())


def deploy_license(chain: "Chain", key: PrivateKey) -> bytes:
    """The chain's only one, and the registry before it, made where nobody has yet."""
    deploy_registry(chain, key)
    return chain.create(key, license_code(), "ModelLicense")


def share_of(earned_amount: int, start: int, bps: int) -> int:
    """Of the first `earned_amount` base units those whose number modulo 10,000 is in [start, start + bps)."""
    whole, part = divmod(earned_amount, 10_000)
    return whole * bps + min(max(part, start), start + bps) - start


def _values(said: Any) -> tuple[Any, ...]:
    """Of a struct in a list, whatever shape web3 gives it."""
    return tuple(said.values()) if isinstance(said, dict) else tuple(said)


def _published(block: int, said: Any) -> Published:
    owner, model, found = parse_address(said["owner"]), bytes(said["model"]), _publication_of(said["publication"])
    if found.model_id(owner) != model:
        raise TamperedError(f"the node shows another publication than 0x{model.hex()} is the hash of: use another node")
    return Published(block, model, owner, found)


def _point(said: Any) -> Point:
    return int(said["x"]), int(said["y"])


def _publication_of(said: Any) -> Publication:
    return Publication(
        root=bytes(said["root"]),
        manifest_hash=bytes(said["manifestHash"]),
        token=parse_address(said["token"]),
        owner_bps=int(said["ownerBps"]),
        price_amount=int(said["price"]),
        term_seconds=int(said["term"]),
        settlement=parse_address(said["settlement"]),
        contributors_bps=int(said["contributorsBps"]),
        data_owners=tuple((parse_address(each["payee"]), int(each["bps"])) for each in said["dataOwners"]),
        parents=tuple((bytes(each["model"]), int(each["bps"])) for each in said["parents"]),
        delivery_seconds=int(said["deliverySeconds"]),
        threshold=int(said["threshold"]),
        bond_amount=int(said["bond"]),
        holders=tuple((parse_address(each["account"]), _point(each["commitment"])) for each in said["holders"]),
    )


__all__ = [
    "Holder", "Licence", "LicenseContract", "Model", "Party", "Publication", "Published", "Purchase", "deploy_license",
    "license_address", "license_code", "share_of",
]  # fmt: skip
