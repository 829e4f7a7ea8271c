"""A folder encrypted into blocks and opened again; what was cut, mixed up or published by a stranger does not pass."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from Crypto.Cipher import ChaCha20_Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives.errors import InputError, TamperedError
from incentives.records import account_of
from incentives.sealing import new_scalar, point_of
from peers.errors import ConfigError, StartError
from peers.market.encrypting import CHUNK_BYTES, TAG_BYTES, Position, decrypted_pieces, encrypted_pieces
from peers.market.getting import bring, getter
from peers.market.manifest import File, Manifest, name_fault
from peers.market.packing import losses_of, open_shelf, pack, unpack
from peers.market.reference import ModelReference
from peers.market.shares import Card, ShareFile
from peers.progressbar import ProgressBar
from swarm.checkpoint.store import BlockStore
from tests.chain.test_license import key_of

QUIET, KEY = ProgressBar(quiet=True), b"\x07" * 32
WHOLE = CHUNK_BYTES + TAG_BYTES


def position(size: int, name: str = "a", index: int = 0) -> Position:
    return Position(index, name, size, b"\x01" * 19)


def sealed(data: bytes, at: Position) -> list[bytes]:
    return list(encrypted_pieces(KEY, at, [data]))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_a_file_of_any_size_comes_back(size: int) -> None:
    data, at = os.urandom(size), position(size)
    chunks = sealed(data, at)
    assert sum(map(len, chunks)) == at.encrypted_size and max(map(len, chunks)) <= 1 << 20
    joined = b"".join(chunks)
    pieces = [joined[start : start + 300_001] for start in range(0, len(joined), 300_001)]
    assert b"".join(decrypted_pieces(KEY, at, pieces)) == data


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_changed_bit_does_not_open(data: st.DataObject) -> None:
    at = position(100)
    chunk = bytearray(sealed(bytes(100), at)[0])
    chunk[data.draw(st.integers(0, len(chunk) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(TamperedError, match="does not open"):
        list(decrypted_pieces(KEY, at, [bytes(chunk)]))


def test_chunks_that_are_cut_mixed_up_or_of_another_file_do_not_open() -> None:
    at = position(3 * CHUNK_BYTES)
    one, two, three = sealed(os.urandom(at.size), at)
    for wrong in ([two, one, three], [one, one, three], [one, three], [one, two], [one, two, three, three], []):
        with pytest.raises(TamperedError):
            list(decrypted_pieces(KEY, at, wrong))
    for other in (replace(at, name="b"), replace(at, index=1), replace(at, prefix=b"\x02" * 19)):
        with pytest.raises(TamperedError, match="does not open"):
            list(decrypted_pieces(KEY, other, [one, two, three]))
    with pytest.raises(
        TamperedError, match="does not open"
    ):  # said to be shorter: its last chunk is not marked as the last
        list(decrypted_pieces(KEY, position(2 * CHUNK_BYTES), [one, two]))


def test_a_chunk_is_xchacha20_poly1305_of_the_library() -> None:
    at = position(5, "model.bin", 3)
    cipher = ChaCha20_Poly1305.new(key=KEY, nonce=b"\x01" * 19 + b"\0\0\0\0\x01")
    cipher.update(b"sparehive model 1\0" + bytes((0, 0, 0, 3)) + (5).to_bytes(8) + bytes(8) + b"model.bin")
    encrypted, tag = cipher.encrypt_and_digest(b"hello")
    assert sealed(b"hello", at) == [encrypted + tag]


# -- folders ----------------------------------------------------------------------------------------------------------
def folder(root: Path) -> Path:
    (root / "sparehive").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(os.urandom(CHUNK_BYTES + 5))
    (root / "config.json").write_text("{}")
    (root / "empty").write_bytes(b"")
    (root / "sparehive" / "run.toml").write_text('name = "x"\n')
    (root / "README.md").write_text("| Held-out loss before | 3.1000 |\n| Held-out loss after | 2.2500 |\n")
    return root


def test_a_folder_comes_back_and_what_is_whole_is_left_alone(tmp_path: Path) -> None:
    plain, store, out = folder(tmp_path / "plain"), BlockStore(tmp_path / "blocks", 1 << 30), tmp_path / "out"
    packed = pack(plain, store, KEY, "a model", "Use it.", QUIET)
    assert (packed.manifest.losses.before, packed.manifest.losses.after) == (3.1, 2.25)
    kept = BlockStore(tmp_path / "kept", 1 << 30)
    shelf = bring(packed.root, packed.manifest.hash(), [str(tmp_path / "blocks")], kept, QUIET)
    assert {p.name for p in (tmp_path / "kept").iterdir()} == {p.name for p in (tmp_path / "blocks").iterdir()}
    get = getter(kept, packed.root)
    assert len(unpack(shelf, get, KEY, out, QUIET)) == 5
    for path in plain.rglob("*"):
        assert path.is_dir() or (out / path.relative_to(plain)).read_bytes() == path.read_bytes()
    assert Manifest.parse((out / "manifest.json").read_bytes(), packed.manifest.hash()) == packed.manifest
    (out / "config.json").unlink()
    assert unpack(shelf, get, KEY, out, QUIET) == ["config.json"]
    (out / "config.json").write_text("mine")
    with pytest.raises(StartError, match="is another file than the model's"):
        unpack(shelf, get, KEY, out, QUIET)
    plain_bytes = (plain / "model.safetensors").read_bytes()[:64]
    assert not any(plain_bytes in path.read_bytes() for path in (tmp_path / "blocks").iterdir())


def test_another_key_opens_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks", 1 << 30)
    packed = pack(folder(tmp_path / "plain"), store, KEY, "a model", "", QUIET)
    get = getter(store, packed.root)
    shelf = open_shelf(packed.root, packed.manifest.hash(), get)
    with pytest.raises(TamperedError, match="the key is of other weights than were published"):
        unpack(shelf, get, bytes(32), tmp_path / "out", QUIET)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(TamperedError, match="its hash is not the one on chain"):
        open_shelf(packed.root, bytes(32), get)
    with pytest.raises(StartError, match="is missing or has rotted"):
        getter(store, packed.root)(bytes(32))


def test_a_link_out_of_the_folder_is_not_written_through(tmp_path: Path) -> None:
    store, out = BlockStore(tmp_path / "blocks", 1 << 30), tmp_path / "out"
    packed = pack(folder(tmp_path / "plain"), store, KEY, "a model", "", QUIET)
    get = getter(store, packed.root)
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "sparehive").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="is a link: nothing is written through it"):
        unpack(open_shelf(packed.root, None, get), get, KEY, out, QUIET)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_model_that_is_served_shows_its_manifest_alone(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks", 1 << 30)
    packed = pack(folder(tmp_path / "plain"), store, None, "a model", "", QUIET)
    shelf = open_shelf(packed.root, packed.manifest.hash(), getter(store, packed.root))
    assert (shelf.links, len(shelf.manifest.files)) == ((), 5)
    with pytest.raises(TamperedError, match="is served, not delivered"):
        unpack(shelf, getter(store, packed.root), KEY, tmp_path / "out", QUIET)


def test_what_cannot_be_published_is_one_line(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks", 1 << 30)
    with pytest.raises(ConfigError, match="is no folder"):
        pack(tmp_path / "none", store, KEY, "x", "", QUIET)
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="has 0 files"):
        pack(tmp_path / "plain", store, KEY, "x", "", QUIET)
    (tmp_path / "plain" / "a").symlink_to("/etc/hosts")
    with pytest.raises(ConfigError, match="a is a link or no file"):
        pack(tmp_path / "plain", store, KEY, "x", "", QUIET)
    assert losses_of(tmp_path / "plain").after is None


# -- what strangers write ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    ["../a", "/a", "a//b", "a/../b", ".", "a\\b", "c:", "con", "NUL.txt", "a ", "a.", "a\n", "a\u202eb", "b/" * 5 + "a", "x" * 300, ""],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    assert name_fault(name) is not None
    with pytest.raises(TamperedError, match=r"manifest\.json cannot be used"):
        Manifest.parse(manifest(name))


def manifest(*names: str) -> bytes:
    files = tuple(File.model_construct(name=name, size=1, sha256="0" * 64, nonce="0" * 38) for name in names)
    return Manifest.model_construct(name="x", files=files).content()


@pytest.mark.parametrize("names", [("a", "A"), ("a", "a"), ("a", "a/b"), ("manifest.json",), ("é", "e\u0301")])
def test_names_that_fall_together_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(TamperedError, match=r"manifest\.json cannot be used"):
        Manifest.parse(manifest(*names))
    assert Manifest.parse(manifest("a", "b/c", "b/d")).files[1].name == "b/c"


def test_nonsense_is_no_manifest() -> None:
    for data in (b"", b"[" * 100_000, b"{}", b'{"format":2}', b"\xff", b"x" * (5 << 20)):
        with pytest.raises(TamperedError, match=r"manifest\.json cannot be used"):
            Manifest.parse(data)


def test_cards_and_shares(tmp_path: Path) -> None:
    wallet, secret, share = key_of(5), new_scalar(), new_scalar()
    text = Card.make(wallet, secret)
    card = Card.parse(text)
    assert (card.account, card.key) == (account_of(wallet), point_of(secret))
    for wrong in (
        text[:-2] + "00",
        text.replace("holder:0x", "holder:0x" + "0" * 40)[:-40],
        "",
        Card.make(key_of(6), secret)[:49] + text[49:],
    ):
        with pytest.raises(InputError, match="--holder"):
            Card.parse(wrong)
    path = tmp_path / "share.json"
    path.write_bytes(ShareFile.seal(1, bytes(20), bytes(32), 3, card, share).content())
    assert ShareFile.read(path).open(secret) == share
    assert ShareFile.read(path).open(secret + 1) != share
    for data in (b"", b"{}", path.read_bytes().replace(b'"holder": 3', b'"holder": 99')):
        path.write_bytes(data)
        with pytest.raises(InputError, match="is no share"):
            ShareFile.read(path)


def test_how_a_model_is_named() -> None:
    text = "31337:0x" + "ab" * 32
    assert str(ModelReference.parse(text)) == text and ModelReference.parse(text).chain_id == 31337
    assert ModelReference.parse(text[6:]).chain_id is None
    for wrong in ("", "0x12", "x:" + text[6:], text + "0"):
        with pytest.raises(ValueError, match="is no model"):
            ModelReference.parse(wrong)
