"""The file that notes what was signed and perhaps sent: it forgets nothing but what was never acknowledged."""

from pathlib import Path

import pytest
from eth_hash.auto import keccak

from incentives.errors import StorageError
from incentives.outbox import Outbox, Signed


def signed(nonce: int, what: str = "deploy") -> Signed:
    raw = bytes([nonce]) * 40
    return Signed(31337, f"0x{nonce:064x}", what, nonce, "0x" + bytes(keccak(raw)).hex(), "0x" + raw.hex())


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    outbox = Outbox(tmp_path / "key.json")
    for nonce in (1, 2):
        outbox.add(signed(nonce))
    outbox.close(done=False)
    return tmp_path / "key.json"


def test_what_was_added_is_there_afterwards_and_a_torn_line_does_not_swallow_the_next(keystore: Path) -> None:
    path = keystore.with_name("key.json.sending")
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    for cut in range(1, len(line) - 1):
        path.write_bytes(whole[: -cut - 1])
        outbox = Outbox(keystore)
        assert outbox.earlier(31337) == (signed(1),)
        outbox.add(signed(3))
        outbox.close(done=False)
        again = Outbox(keystore)
        assert again.earlier(31337) == (signed(1), signed(3))
        again.close(done=False)
    path.write_bytes(whole[:-1])  # whole, but for its line's end
    outbox = Outbox(keystore)
    assert outbox.earlier(31337) == (signed(1), signed(2))
    outbox.close(done=False)
    assert path.read_bytes() == whole


def test_a_flipped_bit_is_never_a_forgotten_transaction(keystore: Path) -> None:
    path = keystore.with_name("key.json.sending")
    whole = path.read_bytes()
    said = set()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 2]) + whole[position + 1 :])
        try:
            outbox = Outbox(keystore)
        except StorageError as error:
            said.add(str(error).split(":")[0].split(" in line")[0])
            continue
        found = {each.raw for each in outbox._earlier}
        outbox.close(done=False)
        assert found == {signed(1).raw, signed(2).raw}, position
    assert said == {f"{path} is damaged"}
