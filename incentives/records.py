"""Every EIP-712 type of the protocol (protocol §2.2), their hashes, signatures and packed form.

A record is a mapping from snake_case field names to values: `bytes` for hashes and addresses, `int` for numbers, a
sequence for arrays, `str` for strings. Its *hash* (`hash_struct`) has no domain and no signature; what is signed is its
`digest`. Encoding follows https://eips.ethereum.org/EIPS/eip-712; vectors made by ethers: tests/vectors/eip712.json.
It is packed by hand because eth-account's general encoder takes 0.2 to 0.5 ms per record, and a settlement hashes every
record of a period several times.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from coincurve import PrivateKey, PublicKey

from incentives.errors import BadSignature, InputError
from incentives.hashing import keccak

Values: TypeAlias = Mapping[str, object]
ZERO_HASH = bytes(32)  # names no certificate: what the first one of a run follows

# RoundCertificate and CertificateId share these: the id is the hash of the same fields without the attempt.
_CERTIFICATE_HEAD = "bytes32 runId,uint64 epoch"
_CERTIFICATE_TAIL = (
    "uint8 kind,bytes32 prevCertificate,bytes32 prevRoot,bytes32 nextRoot,bytes32 contributorsRoot,"
    "uint32 numContributors,uint64 units,uint64 cumulativeUnits,bytes32 electorate,bytes32 body"
)
_ROUND = "bytes32 runId,uint64 epoch,uint32 attempt,bytes32 prevCertificate"

TYPES: dict[str, str] = {
    "RunBinding": "bytes32 runId,uint256 chainId,address settlement,address[] founders,string[] bootstrap",
    "Contribution": (
        "bytes32 runId,uint64 epoch,address peer,bytes32 prevCertificate,bytes32 previous,uint64 firstUnit,"
        "uint32 units,uint64 beaconBlock,bytes32 deviceClass,bytes32 mergesHash,bytes32 stateBefore,bytes32 stateAfter,"
        "bytes32 partsRoot,uint32 flags"
    ),
    "RoundCall": f"{_ROUND},bytes32 reducersHash,uint64 contributeBy,uint64 setBy,uint64 averageBy,uint64 voteBy",
    "ReducerReport": f"{_ROUND},bytes32 completeHash",
    "RoundSet": (
        f"{_ROUND},bytes32 contributorsRoot,uint32 numContributors,bytes32 reducersHash,bytes32 proposal,"
        "uint32 validAttempt"
    ),
    "Average": f"{_ROUND},bytes32 roundSet,uint32 part,uint32 length,bytes32 digest",
    "RoundCertificate": f"{_CERTIFICATE_HEAD},uint32 attempt,{_CERTIFICATE_TAIL}",
    "CertificateId": f"{_CERTIFICATE_HEAD},{_CERTIFICATE_TAIL}",
    "RoundVote": f"{_ROUND},bytes32 id",
    "RoundVoid": _ROUND,
    "ContributionReceipt": (
        "bytes32 runId,uint64 epoch,address peer,uint32 units,bytes32 contribution,bytes32 certificate"
    ),
    "StorageReceipt": "bytes32 runId,uint64 epoch,address peer,bytes32 certificate,bytes32 held,bytes32 proof",
    "Progress": "bytes32 runId,uint64 epoch,bytes32 prevCertificate,uint32 units,uint64 sequence,uint32 flags",
    "Verdict": "bytes32 runId,uint64 epoch,address peer,bytes32 contribution,uint8 outcome,bytes32 evidence",
    "PeerBinding": "address wallet,address peer,bytes32 netId,uint64 deadline",
}

# Half of the group order of secp256k1: for every signature (r, s) there is a second one (r, n − s), and only the lower
# of the two is accepted, by OpenZeppelin's ECDSA too.
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0.to_bytes(32, "big")


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a type. `name` is the key in the mapping, `label` the name in the EIP-712 type."""

    name: str
    label: str
    type: str


def _snake(label: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in label)


def _fields(members: str) -> tuple[Field, ...]:
    pairs = (member.split() for member in members.split(","))
    return tuple(Field(_snake(label), label, type_) for type_, label in pairs)


FIELDS: dict[str, tuple[Field, ...]] = {kind: _fields(members) for kind, members in TYPES.items()}
_TYPE_HASHES = {kind: bytes(keccak(f"{kind}({members})".encode())) for kind, members in TYPES.items()}
_DOMAIN_TYPE_HASH = bytes(keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"))


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature counts. Both zero for a run without a chain (then `run_id` alone tells runs apart)."""

    chain_id: int
    verifying_contract: bytes

    NAME = "Sparehive"
    VERSION = "1"

    def separator(self) -> bytes:
        """hashStruct of the domain: 32 bytes."""
        return _separator(self)


@lru_cache(16)  # it goes into every digest, and costs as much as the rest of it
def _separator(domain: Domain) -> bytes:
    return bytes(
        keccak(
            _DOMAIN_TYPE_HASH
            + keccak(domain.NAME.encode())
            + keccak(domain.VERSION.encode())
            + encode_word("uint256", "chain_id", domain.chain_id)
            + encode_word("address", "verifying_contract", domain.verifying_contract)
        )
    )


def hash_struct(kind: str, values: Values) -> bytes:
    """keccak(typeHash ‖ words). InputError names a field that is missing, unknown or out of range."""
    return bytes(keccak(_TYPE_HASHES[_known(kind)] + encode_words(kind, values)))


def digest(domain: Domain, kind: str, values: Values) -> bytes:
    """The 32 bytes that are signed: keccak(0x1901 ‖ domain separator ‖ record's hash)."""
    return signing_digest(domain, hash_struct(kind, values))


def signing_digest(domain: Domain, struct_hash: bytes) -> bytes:
    """As `digest`, for a record known by its hash alone."""
    return bytes(keccak(b"\x19\x01" + domain.separator() + struct_hash))


def certificate_id(certificate: Values) -> bytes:
    """Hash of a RoundCertificate without its attempt: what `prev_certificate` and receipts refer to."""
    return hash_struct("CertificateId", {name: value for name, value in certificate.items() if name != "attempt"})


def encode_words(kind: str, values: Values) -> bytes:
    """The record as EIP-712's encodeData: 32 bytes per field, in order (for arrays and strings their hash)."""
    fields = FIELDS[_known(kind)]
    if len(values) == len(fields):
        try:
            return _PACK[kind]([values[field.name] for field in fields])
        except KeyError:
            pass  # said below
    if len(values) != len(fields) or any(field.name not in values for field in fields):
        names = {field.name for field in fields}
        if missing := sorted(names - values.keys()):
            raise InputError(f"{kind}.{missing[0]}", None, "is missing")
        unknown = min(values.keys() - names)
        raise InputError(f"{kind}.{unknown}", values[unknown], "is not a field of this record; remove it")
    raise AssertionError("not reached")


def decode_words(kind: str, words: bytes) -> dict[str, object]:
    """The mapping that `encode_words` packed. InputError where a word is not canonical; not for types with arrays."""
    fields = FIELDS[_known(kind)]
    if len(words) != 32 * len(fields):
        raise InputError(kind, words, f"must have {32 * len(fields)} bytes")
    values: dict[str, object] = {}
    for position, field in enumerate(fields):
        word = words[32 * position : 32 * position + 32]
        if field.type == "bytes32":
            values[field.name] = word
        elif field.type == "address":
            values[field.name] = word[12:]
        elif field.type.startswith("uint") and "[" not in field.type:
            values[field.name] = int.from_bytes(word, "big")
        else:
            raise InputError(f"{kind}.{field.name}", field.type, "cannot be decoded from its hash")
    if encode_words(kind, values) != words:
        raise InputError(kind, words, "has bits set outside its fields")
    return values


def sign(key: PrivateKey, digest: bytes) -> bytes:
    """65 bytes r ‖ s ‖ v with low s and v 27 or 28; deterministic (RFC 6979). `digest` has 32 bytes."""
    signature = key.sign_recoverable(_exactly(digest, 32, "digest"), hasher=None)
    return bytes(signature[:64]) + bytes([signature[64] + 27])


def recover(digest: bytes, signature: bytes) -> bytes:
    """The account (20 bytes) that signed. BadSignature for another length, v not 27 or 28, high s, or no such point."""
    if len(signature) != 65:
        raise BadSignature(f"signature has {len(signature)} bytes: must be 65 (r, s, v)")
    if signature[64] not in (27, 28):
        raise BadSignature(f"signature has v = {signature[64]}: must be 27 or 28")
    if signature[32:64] > _HALF_ORDER:
        raise BadSignature("signature has a high s: sign again with the canonical, lower one")
    recoverable = signature[:64] + bytes([signature[64] - 27])
    message = _exactly(digest, 32, "digest")
    try:
        public = PublicKey.from_signature_and_message(recoverable, message, hasher=None)
    except ValueError:
        raise BadSignature("signature recovers to no account") from None
    return _account(public)


def account_of(key: PrivateKey) -> bytes:
    """The key's EVM account: 20 bytes."""
    return _account(key.public_key)


def _account(public: PublicKey) -> bytes:
    return bytes(keccak(public.format(compressed=False)[1:]))[12:]


def _known(kind: str) -> str:
    if kind not in TYPES:
        raise InputError("kind", kind, "is no record; one of " + ", ".join(TYPES))
    return kind


def encode_word(type_: str, name: str, value: object) -> bytes:
    """One field as 32 bytes; `name` is for the message of InputError. For static types the same as abi.encode."""
    if type_.startswith("uint") and not type_.endswith("]"):
        bits = int(type_[4:])
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise InputError(name, value, f"must be a whole number from 0 to 2**{bits} - 1")
        return value.to_bytes(32, "big")
    if type_ == "bytes32":
        return _exactly(value, 32, name)
    if type_ == "address":
        return bytes(12) + _exactly(value, 20, name)
    if type_ == "string":
        if not isinstance(value, str):
            raise InputError(name, value, "must be text")
        return bytes(keccak(value.encode()))
    if type_.endswith("[]"):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise InputError(name, value, "must be a list")
        return bytes(keccak(b"".join(encode_word(type_[:-2], f"{name}[{i}]", item) for i, item in enumerate(value))))
    raise AssertionError(f"no encoder for {type_}")


def packer(types: Sequence[str], names: Sequence[str]) -> Callable[[Sequence[object]], bytes]:
    """A function that encodes values of these types one after the other, as `encode_word` does each. A settlement packs every
    record and every leaf of a period: what one type asks is looked up here, once."""
    plan = [_bound(type_) for type_ in types]

    def pack(values: Sequence[object]) -> bytes:
        words: list[bytes] = []
        for bound, value in zip(plan, values, strict=True):
            if type(value) is int and bound > 32 and 0 <= value < bound:
                words.append(value.to_bytes(32, "big"))
            elif type(value) is bytes and len(value) == bound:
                words.append(value.rjust(32, b"\0"))
            else:  # arrays, strings, and whatever is wrong
                return b"".join(map(encode_word, types, names, values))
        return b"".join(words)

    return pack


def _bound(type_: str) -> int:
    """Bytes of a hash or an address, the first number too large for an integer, 0 for what has neither."""
    if type_.startswith("uint") and not type_.endswith("]"):
        return int(1 << int(type_[4:]))
    return {"bytes32": 32, "address": 20}.get(type_, 0)


def _exactly(value: object, length: int, name: str) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise InputError(name, value, f"must be {length} bytes")
    return value


_PACK = {
    kind: packer([field.type for field in fields], [f"{kind}.{field.name}" for field in fields])
    for kind, fields in FIELDS.items()
}
