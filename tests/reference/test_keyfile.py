"""Keyfiles held against eth-account's own, and against the test vector of the format."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives import keyfile
from incentives.keys import create_key, load_key
from incentives.records import account_of

# Of "Web3 Secret Storage Definition"; its password and key are published with it.
VECTOR = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
VECTOR_KEY = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
PASSWORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


def test_the_published_vector_opens() -> None:
    assert keyfile.decrypt(VECTOR, "testpassword").hex() == VECTOR_KEY
    with pytest.raises(keyfile.MacMismatch):
        keyfile.decrypt(VECTOR, "testpassworf")


@settings(max_examples=20, deadline=None)
@given(
    secret=st.binary(min_size=32, max_size=32).filter(lambda s: 0 < int.from_bytes(s, "big") < 1 << 255),
    password=PASSWORDS,
)
def test_each_opens_what_the_other_wrote(secret: bytes, password: str) -> None:
    account = account_of(PrivateKey(secret))
    ours = keyfile.encrypt(secret, account, password, 2**4)
    assert bytes(Account.decrypt(ours, password)) == secret
    for kdf, cost in (("scrypt", 2**4), ("pbkdf2", 3)):
        theirs: dict[str, Any] = Account.encrypt(secret, password, kdf=kdf, iterations=cost)
        assert keyfile.decrypt(theirs, password) == secret
        assert keyfile.decrypt({name.upper(): value for name, value in theirs.items()}, password) == secret
    assert ours.keys() == theirs.keys()


def test_a_key_is_made_and_opened_without_a_second_of_imports(tmp_path: Path) -> None:
    made = create_key(tmp_path / "key", "secret")
    code = (
        "import sys; from pathlib import Path; from incentives.keys import load_key\n"
        "print(load_key(Path(sys.argv[1]), 'secret').secret.hex()[:4], 'eth_account' in sys.modules, 'py_ecc' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "key")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [made.secret.hex()[:4], "False", "False"]
    assert load_key(tmp_path / "key", "secret") == made
