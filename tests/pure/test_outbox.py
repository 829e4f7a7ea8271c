"""The file that notes what was signed and perhaps sent: it forgets nothing but what was never acknowledged."""

from pathlib import Path

import pytest
from eth_account import Account

from incentives.chain.outbox import Outbox, SignedTransaction, call_id
from incentives.errors import StorageError

KEY, TO, DATA = "0x" + "11" * 32, "0x" + "Ab" * 20, "0x60017f"
FEES = {2: {"maxFeePerGas": 9, "maxPriorityFeePerGas": 1}, 1: {"gasPrice": 9, "accessList": []}, 0: {"gasPrice": 9}}


def signed(nonce: int, what: str = "fund", *, kind: int = 2, to: str = TO) -> SignedTransaction:
    """As `incentives.chain.node` notes it; `kind`: EIP-2718's, 0 for none."""
    values = {"chainId": 31337, "nonce": nonce, "gas": 90_000, "value": 3, "data": DATA, **FEES[kind]}
    made = Account.sign_transaction({**values, "to": bytes.fromhex(to[2:])} if to else values, KEY)
    raw, hash_ = "0x" + made.raw_transaction.hex(), "0x" + made.hash.hex()
    return SignedTransaction(31337, call_id(to, DATA, 3), what, nonce, hash_, raw, to)


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    outbox = Outbox(tmp_path / "key.json")
    for nonce in (1, 2):
        outbox.add(signed(nonce))
    outbox.close(done=False)
    return tmp_path / "key.json"


@pytest.mark.parametrize("kind", FEES)
@pytest.mark.parametrize("to", ["", TO])
def test_every_kind_of_transaction_is_read_back(tmp_path: Path, kind: int, to: str) -> None:
    noted = [signed(nonce, kind=kind, to=to) for nonce in (0, 1, 300)]
    outbox = Outbox(tmp_path / "key.json")
    for each in noted:
        outbox.add(each)
    outbox.close(done=False)
    again = Outbox(tmp_path / "key.json")
    assert list(again.earlier(31337)) == noted
    again.close(done=False)


def test_what_was_added_is_there_afterwards_and_a_torn_line_does_not_swallow_the_next(keystore: Path) -> None:
    path = keystore.with_name("key.json.sending")
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    for cut in range(1, len(line) - 1):
        path.write_bytes(whole[: -cut - 1])
        outbox = Outbox(keystore)
        assert outbox.earlier(31337) == (signed(1),)
        outbox.close(done=False)
        assert path.read_bytes() == whole[: -cut - 1]  # who only looks leaves it to be judged again
        outbox = Outbox(keystore)
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


def test_a_line_that_was_cut_while_it_was_written_was_not_sent_and_another_may_have_been(keystore: Path) -> None:
    path = keystore.with_name("key.json.sending")
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    number = line.index(b'"nonce": 2,') + len(b'"nonce": 2,')
    for kept in range(len(line) - 1):
        path.write_bytes(whole[: len(whole) - len(line) + kept])
        outbox = Outbox(keystore)
        unsent = kept == 0 or kept >= number
        assert outbox.may_have_left(31337, 2) == (not unsent), kept
        assert outbox.may_have_left(31337, 3) == (kept > 0)  # this key's second number is taken by now
        assert outbox.may_have_left(1, 2) == (kept > 0)  # for another chain's node to say
        outbox.close(done=False)


def test_a_flipped_bit_is_never_a_forgotten_transaction(keystore: Path) -> None:
    path = keystore.with_name("key.json.sending")
    whole = path.read_bytes()
    said = set()
    for position in range(len(whole)):
        for bit in (2, 16):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            try:
                outbox = Outbox(keystore)
            except StorageError as error:
                said.add(str(error).split(":")[0].split(" in line")[0])
                continue
            found = [
                (each.raw, each.call, each.nonce, each.chain_id, each.to.lower()) for each in outbox.earlier(31337)
            ]
            outbox.close(done=False)
            assert [(s.raw, s.call, s.nonce, s.chain_id, s.to.lower()) for s in map(signed, (1, 2))] == found, position
    assert said == {f"{path} is damaged"}


def test_who_sent_nothing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Outbox(tmp_path / "key.json"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
