"""The record types, their ranges, signatures and keys on disk."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from coincurve import PrivateKey
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

import swarm.records.types as swarm_records
from incentives import keys, records
from incentives.errors import BadSignature, InputError, KeyFileError

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = PrivateKey(b"\1" * 32)
VOTE = {"run_id": b"\1" * 32, "epoch": 3, "attempt": 1, "prev_certificate": b"\2" * 32, "id": b"\3" * 32}
SWARM_TYPES = [
    getattr(swarm_records, kind) for kind in records.TYPES if hasattr(getattr(swarm_records, kind, None), "__slots__")
]


@pytest.mark.parametrize("type_", SWARM_TYPES, ids=lambda t: t.__name__)
def test_the_swarms_records_have_the_fields_of_their_eip712_type_in_order(type_: type) -> None:
    assert [f.name for f in fields(type_)] == [f.name for f in records.FIELDS[type_.__name__]]


def test_every_record_of_the_swarm_has_an_eip712_type() -> None:
    assert {t.__name__ for t in SWARM_TYPES} == {t.__name__ for t in swarm_records.Record.__args__}  # type: ignore[attr-defined]


def test_a_certificates_id_ignores_the_attempt_and_nothing_else() -> None:
    values = {
        f.name: (bytes([i]) * 32 if f.type == "bytes32" else i)
        for i, f in enumerate(records.FIELDS["RoundCertificate"])
    }
    identity = records.certificate_id(values)
    assert records.certificate_id({**values, "attempt": 9}) == identity
    for name, value in values.items():
        if name != "attempt":
            other = value + 1 if isinstance(value, int) else b"\xff" * 32
            assert records.certificate_id({**values, name: other}) != identity, name


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", -1), ("epoch", 2**64), ("attempt", 2**32), ("attempt", True), ("epoch", "3"), ("id", b"\3" * 31)],
)
def test_a_value_out_of_range_is_an_error_that_names_the_field(name: str, value: object) -> None:
    records.hash_struct("RoundVote", {**VOTE, "epoch": 2**64 - 1, "attempt": 2**32 - 1})
    with pytest.raises(InputError, match=f"RoundVote.{name}"):
        records.hash_struct("RoundVote", {**VOTE, name: value})


def test_missing_and_unknown_fields_and_kinds_are_errors() -> None:
    with pytest.raises(InputError, match=r"RoundVote\.id .*missing"):
        records.hash_struct("RoundVote", {k: v for k, v in VOTE.items() if k != "id"})
    with pytest.raises(InputError, match=r"RoundVote\.extra .*not a field"):
        records.hash_struct("RoundVote", {**VOTE, "extra": 1})
    with pytest.raises(InputError, match="Vote"):
        records.hash_struct("Vote", VOTE)


def test_words_decode_to_the_record_they_encode_and_to_nothing_else() -> None:
    words = records.encode_words("RoundVote", VOTE)
    assert records.decode_words("RoundVote", words) == VOTE
    with pytest.raises(InputError, match="epoch"):
        records.decode_words("RoundVote", words[:32] + b"\1" + words[33:])
    binding = {"wallet": b"\1" * 20, "peer": b"\2" * 20, "net_id": b"\3" * 32, "deadline": 5}
    packed = records.encode_words("PeerBinding", binding)
    assert records.decode_words("PeerBinding", packed) == binding
    with pytest.raises(InputError, match="bits"):
        records.decode_words("PeerBinding", b"\1" + packed[1:])
    with pytest.raises(InputError, match="160"):
        records.decode_words("RoundVote", words + b"\0")


@given(st.binary(min_size=32, max_size=32))
def test_signatures_are_low_s_deterministic_and_recover_to_their_account(digest: bytes) -> None:
    signature = records.sign(KEY, digest)
    assert signature == records.sign(KEY, digest)
    assert int.from_bytes(signature[32:64], "big") <= ORDER // 2
    assert records.recover(digest, signature) == records.account_of(KEY)


def test_the_other_signature_of_each_pair_with_high_s_is_refused() -> None:
    digest = b"\7" * 32
    low = records.sign(KEY, digest)
    s = ORDER - int.from_bytes(low[32:64], "big")
    high = low[:32] + s.to_bytes(32, "big") + bytes([55 - low[64]])
    with pytest.raises(BadSignature, match="high s"):
        records.recover(digest, high)


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (bytes(64), "64 bytes"),
        (bytes(66), "66 bytes"),
        (bytes(64) + b"\x00", "v = 0"),
        (b"\1" * 64 + b"\x1d", "v = 29"),
        (bytes(64) + b"\x1b", "no account"),
        (b"\1" * 32 + bytes(32) + b"\x1b", "no account"),
        (b"\xff" * 32 + b"\1" * 32 + b"\x1b", "no account"),
    ],
)
def test_a_malformed_signature_is_refused_in_one_line(signature: bytes, why: str) -> None:
    with pytest.raises(BadSignature, match=why) as caught:
        records.recover(b"\7" * 32, signature)
    assert "\n" not in str(caught.value)


def test_a_domain_separates_chains_contracts_and_names() -> None:
    here = records.Domain(1, b"\1" * 20)
    digests = {
        records.digest(domain, "RoundVote", VOTE)
        for domain in (here, records.Domain(2, b"\1" * 20), records.Domain(1, b"\2" * 20))
    }
    assert len(digests) == 3
    with pytest.raises(InputError, match="chain_id"):
        records.Domain(-1, bytes(20)).separator()


# -- keys on disk -----------------------------------------------------------------------------------------------------
def test_a_hot_key_is_made_once_and_loaded_afterwards(tmp_path: Path) -> None:
    path, password = tmp_path / "keys" / "hot.json", tmp_path / "keys" / "password"
    key = keys.load_or_create_key(path, password)
    assert keys.load_or_create_key(path, password).secret == key.secret
    assert keys.key_account(path) == keys.account_of(key)
    assert {oct(p.stat().st_mode & 0o777) for p in (path, password)} == {"0o600"}
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"
    assert key.secret.hex() not in path.read_text()


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    keys.create_key(tmp_path / "k", "secret")
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        keys.create_key(tmp_path / "k", "secret")
    assert (tmp_path / "k").read_bytes() == before
    assert os.listdir(tmp_path) == ["k"]


def test_what_is_wrong_with_a_key_file_is_said_in_one_line_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "k"
    key = keys.create_key(path, "secret")
    assert keys.load_key(path, "secret").secret == key.secret
    messages = []
    for prepare, password, why in (
        (lambda: None, "other", "wrong password"),
        (lambda: path.chmod(0o644), "secret", "chmod 600"),
        (lambda: (path.chmod(0o600), path.write_text("{}")), "secret", "malformed"),
        (lambda: path.write_text('{"crypto": {"kdf": "none"}, "version": 3}'), "secret", "malformed"),
        (lambda: path.write_text("[1]"), "secret", "malformed"),
        (lambda: path.write_bytes(b"\xff\xfe"), "secret", "malformed"),
        (path.unlink, "secret", "does not exist"),
    ):
        prepare()
        with pytest.raises(KeyFileError, match=why) as caught:
            keys.load_key(path, password)
        messages.append(str(caught.value))
    text = "".join(messages) + repr(key)
    assert "\n" not in text
    assert key.secret.hex() not in text


@pytest.mark.parametrize(
    ("kdf", "changes"),
    [
        ("pbkdf2", {"c": 2**31 - 1}),  # an hour
        ("pbkdf2", {"c": 10**400}),
        ("scrypt", {"n": 2**31}),  # 2 TB
        ("scrypt", {"p": 2**26}),
        ("scrypt", {"dklen": 10**12}),
        ("scrypt", {"r": "8"}),
        ("scrypt", {"n": -4096}),
        ("scrypt", {"n": "a", "r": 10**12}),  # a text of a terabyte, where they are multiplied first
        ("scrypt", {"n": [0], "r": 10**12}),
        ("scrypt", {"n": 2, "r": 1, "p": 2**19}),  # a minute of Python, with little memory
        ("scrypt", {"n": 1, "r": 1, "p": 2**24}),
    ],
)
@pytest.mark.timeout(20)
def test_a_key_file_that_asks_for_years_or_for_all_memory_is_malformed(
    tmp_path: Path, kdf: str, changes: dict[str, int | str | list[int]]
) -> None:
    cost = 2 if kdf == "scrypt" else 1000
    value = Account.encrypt(b"\x11" * 32, "secret", kdf=kdf, iterations=cost)
    (tmp_path / "k").touch(mode=0o600)
    for crypto in ("crypto", "Crypto"):  # some wallets write it large
        whole = {**{name: part for name, part in value.items() if name != "crypto"}, crypto: value["crypto"]}
        (tmp_path / "k").write_text(json.dumps(whole))
        assert keys.load_key(tmp_path / "k", "secret").secret == b"\x11" * 32
    value["crypto"]["kdfparams"] |= changes
    (tmp_path / "k").write_text(json.dumps(value))
    with pytest.raises(KeyFileError, match=r"k is malformed: restore it"):
        keys.load_key(tmp_path / "k", "secret")


def test_what_is_wrong_with_a_password_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with pytest.raises(KeyFileError, match="does not exist"):
        keys.load_password(path)
    assert len(keys.load_password(path, create=True)) == 64
    path.write_text("first\r\nsecond\n")
    assert keys.load_password(path) == "first"
    path.write_text("\n")
    with pytest.raises(KeyFileError, match="empty"):
        keys.load_password(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(KeyFileError, match="not text"):
        keys.load_password(path)


def test_addresses_are_read_and_written_with_eip55_checksums() -> None:
    text = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"  # from the EIP
    assert keys.to_checksum(keys.parse_address(text)) == text
    assert keys.parse_address(text.lower()) == keys.parse_address(text)
    for wrong in (
        text.swapcase().replace("0X", "0x"),
        text[2:],
        text[:-1],
        text + "0",
        "0x" + "g" * 40,
        "0x" + "1 " * 20,
    ):
        with pytest.raises(InputError, match="address"):
            keys.parse_address(wrong)
