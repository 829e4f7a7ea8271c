"""Whose wallet a peer's pay is for: named, bound, or neither, and what is then at risk."""

from pathlib import Path

import pytest

from incentives.errors import InputError
from incentives.keys import to_checksum
from peers.config import load_peer_config, save_peer_config
from peers.directory import PeerDirectory
from peers.errors import ConfigError
from peers.payee import Payee, bound_wallet, check_named, confirm_binding, keep_bound, read_payee

MINE, OTHER = to_checksum(b"\xab" * 20), to_checksum(b"\xcd" * 20)


def test_it_is_read_from_what_the_owner_named_and_the_chain_said(tmp_path: Path) -> None:
    directory = PeerDirectory(tmp_path)
    assert read_payee(directory) == Payee()
    save_peer_config(directory.config, load_peer_config(directory.config, payout=MINE.lower()))
    assert read_payee(directory) == Payee(MINE, "")
    keep_bound(directory, bytes.fromhex(MINE[2:]))
    assert read_payee(directory) == Payee(MINE, MINE)
    assert directory.bound in directory.files()


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"wallet": 5}', b'{"wallet": "0x12"}', b"[" * 100_000])
def test_what_is_damaged_was_not_said(tmp_path: Path, damage: bytes) -> None:
    directory = PeerDirectory(tmp_path)
    directory.bound.write_bytes(damage)
    directory.config.write_bytes(damage)
    assert read_payee(directory) == Payee()
    keep_bound(directory, bytes.fromhex(MINE[2:]))
    assert bound_wallet(directory) == MINE


@pytest.mark.parametrize(
    ("payee", "state", "said"),
    [
        (Payee(), "none", "no wallet is named or bound: until `sparehive bind`, whoever has keys/hot.json"),
        (
            Payee(MINE),
            "named",
            f"wallet {MINE} is named, but not bound: until `sparehive bind`, whoever has keys/hot.json",
        ),
        (Payee(MINE, MINE), "bound", f"bound to wallet {MINE}"),
        (Payee("", MINE), "bound", f"bound to wallet {MINE}"),
        (Payee(MINE, OTHER), "bound", "somebody else may have had the key file"),
    ],
)
def test_what_is_at_risk_is_said(payee: Payee, state: str, said: str) -> None:
    assert payee.state == state and said in payee.line()
    assert ("can take all its pay" in payee.line()) == (state != "bound")


def test_whom_a_peer_may_name(tmp_path: Path) -> None:
    directory = PeerDirectory(tmp_path)
    assert check_named(MINE.lower(), directory) == MINE
    with pytest.raises(ConfigError, match="nobody's"):
        check_named("0x" + "00" * 20, directory)
    with pytest.raises(InputError, match="40 hexadecimal"):
        check_named("0x12", directory)
    keep_bound(directory, bytes.fromhex(MINE[2:]))
    assert check_named(MINE, directory) == MINE
    with pytest.raises(ConfigError, match=f"is bound to {MINE}, for ever"):
        check_named(OTHER, directory)


def test_nobody_is_asked_where_nobody_sits() -> None:
    with pytest.raises(InputError, match=r"once and for ever.*nothing was sent: give --yes"):
        confirm_binding(MINE, OTHER, False)
    confirm_binding(MINE, OTHER, True)
