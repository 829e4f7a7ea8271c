"""Our EIP-712 against ethers (committed vectors) and against eth-account's general encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives import records

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "eip712.json").read_text())[
    "vectors"
]
IDS = [f"{v['kind']}-{i % 3}" for i, v in enumerate(VECTORS)]


def _native(type_: str, value: Any) -> object:
    if type_.endswith("[]"):
        return [_native(type_[:-2], item) for item in value]
    if type_ in ("address", "bytes32"):
        return bytes.fromhex(value[2:])
    return int(value) if type_.startswith("uint") else value


def _values(vector: dict[str, Any]) -> dict[str, object]:
    names = {field.label: field.name for field in records.FIELDS[vector["kind"]]}
    return {names[label]: _native(type_, vector["values"][label]) for type_, label in vector["fields"]}


def _domain(vector: dict[str, Any]) -> records.Domain:
    domain = vector["domain"]
    return records.Domain(int(domain["chainId"]), bytes.fromhex(domain["verifyingContract"][2:]))


def test_the_vectors_cover_every_type_of_ours_and_no_other() -> None:
    assert {vector["kind"] for vector in VECTORS} == set(records.TYPES)


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_hash_digest_and_signature_equal_ethers(vector: dict[str, Any]) -> None:
    kind, values, domain = vector["kind"], _values(vector), _domain(vector)
    assert [[f.type, f.label] for f in records.FIELDS[kind]] == vector["fields"]
    assert "0x" + records.hash_struct(kind, values).hex() == vector["hash"]
    digest = records.digest(domain, kind, values)
    assert "0x" + digest.hex() == vector["digest"]
    key = PrivateKey(bytes.fromhex(vector["key"][2:]))
    signature = records.sign(key, digest)
    assert "0x" + signature.hex() == vector["signature"]
    assert "0x" + records.recover(digest, signature).hex() == vector["account"]


@pytest.mark.parametrize("vector", VECTORS[1::3], ids=IDS[1::3])
def test_every_field_of_a_vector_changes_its_hash(vector: dict[str, Any]) -> None:
    kind, values = vector["kind"], _values(vector)
    for type_, label in vector["fields"]:
        name = next(field.name for field in records.FIELDS[kind] if field.label == label)
        zero = _native(type_, [] if type_.endswith("[]") else "0" if type_.startswith("uint") else "0x" + "00" * 32)
        changed = zero[:20] if isinstance(zero, bytes) and type_ == "address" else zero
        assert records.hash_struct(kind, {**values, name: changed}) != records.hash_struct(kind, values), label


_STRATEGIES = {
    "bytes32": st.binary(min_size=32, max_size=32),
    "address": st.binary(min_size=20, max_size=20),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}


def _strategy(type_: str) -> st.SearchStrategy[object]:
    if type_.endswith("[]"):
        return st.lists(_strategy(type_[:-2]), max_size=4)
    if type_.startswith("uint"):
        return st.integers(0, 2 ** int(type_[4:]) - 1)
    return _STRATEGIES[type_]


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("kind", records.TYPES)
@given(data=st.data())
def test_digest_equals_eth_accounts(kind: str, data: st.DataObject) -> None:
    fields = records.FIELDS[kind]
    values = {field.name: data.draw(_strategy(field.type)) for field in fields}
    domain = records.Domain(data.draw(st.integers(0, 2**256 - 1)), data.draw(_STRATEGIES["address"]))  # type: ignore[arg-type]
    message = encode_typed_data(
        {
            "name": "Sparehive",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.verifying_contract,
        },
        {kind: [{"name": field.label, "type": field.type} for field in fields]},
        {field.label: values[field.name] for field in fields},
    )
    assert records.hash_struct(kind, values) == message.body
    assert domain.separator() == message.header
