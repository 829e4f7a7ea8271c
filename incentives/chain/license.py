"""The chain's contract ModelLicense: models for sale, their licences, the delivery of their keys, and who is paid (protocol §8.8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coincurve import PrivateKey
from eth_abi.abi import encode
from eth_hash.auto import keccak

from incentives.chain.registry import deploy_registry
from incentives.chain.state import ProvenPayout
from incentives.chain.terms import created_at, init_code, registry_address
from incentives.chain.token import TokenContract
from incentives.errors import InputError, TamperedError
from incentives.keys import parse_address, to_checksum
from incentives.records import account_of, encode_word
from incentives.sealing import Evidence, Point, SealedShare

if TYPE_CHECKING:
    from incentives.chain.node import Chain, Sent

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
            int(found["totalUnits"]),
        )  # fmt: skip

    def publication(self, model: bytes) -> tuple[bytes, Publication]:
        """(owner, what it was published with), from the event; TamperedError where its hash is not the model's id."""
        events = self.chain.events("ModelLicense", self.address, "Published", {"model": model})
        if not events:
            raise InputError("model", "0x" + model.hex(), "no publication is found: check the id, or use another node")
        owner, said = parse_address(events[-1][1]["owner"]), events[-1][1]["publication"]
        found = _publication_of(said)
        if found.model_id(owner) != model:
            raise TamperedError(
                f"the node shows another publication than 0x{model.hex()} is the hash of: use another node"
            )
        return owner, found

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

    def key_of(self, licensee: bytes) -> Point | None:
        """What shares are sealed to; None: it has set none."""
        found = self.chain.events("ModelLicense", self.address, "KeySet", {"licensee": to_checksum(licensee)})
        return _point(found[0][1]["key"]) if found else None

    def deliveries(self, model: bytes, licensee: bytes) -> dict[int, SealedShare]:
        """The newest of each holder."""
        filters: dict[str, object] = {"model": model, "licensee": to_checksum(licensee)}
        found = self.chain.events("ModelLicense", self.address, "Delivered", filters)
        return {
            int(said["holder"]): SealedShare(_point(said["ephemeral"]), int(said["sealedShare"])) for _, said in found
        }

    # -- sending ------------------------------------------------------------------------------------------------------
    def publish(self, key: PrivateKey, publication: Publication) -> bytes:
        """The model's id. A run of more than 64 periods is added up first."""
        if publication.settlement != NO_SETTLEMENT:
            settlement = to_checksum(publication.settlement)
            while self._call("tally", settlement, 0) + 64 < self.chain.call(
                "Settlement", publication.settlement, "numPeriods"
            ):
                self._transact(key, "tally", settlement, 256)
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

    def _allow(self, key: PrivateKey, token: bytes, amount: int) -> "list[Sent]":
        """InputError where the key's account has less."""
        contract, owner = TokenContract(self.chain, token), account_of(key)
        has, unit = contract.balance_of(owner), contract.unit()
        if has < amount:
            raise InputError("amount", unit.written(amount), f"{to_checksum(owner)} has {unit.shown(has)}: get more")
        allowed = contract.allowance(owner, self.address)
        steps = () if allowed >= amount else (0, amount) if allowed else (amount,)
        return [contract.approve(key, self.address, step) for step in steps]

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
    "Licence", "LicenseContract", "Model", "Publication", "deploy_license", "license_address", "license_code",
]  # fmt: skip
