"""What a storer shows and who stands behind it: answers from blocks, false ones refused, books that strangers cannot fill."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from coincurve import PrivateKey

from incentives.journal import SigningJournal
from incentives.records import Domain, Values, account_of
from incentives.storage import StorageRules, fault_of_proof, held_of
from incentives.storage import StoredObject as Listed
from peers.notary import JournalNotary
from peers.storing import receipts
from peers.storing.drawing import StoredObject
from peers.storing.proving import Content, Prover, Trees
from peers.storing.receipts import StorageAccounting
from peers.storing.witnessing import Witness
from swarm.checkpoint.segments import segments_root
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import put_folders, put_pieces
from swarm.checkpoint.unixfs import DAG_PB
from swarm.errors import RetryError
from swarm.events import Certified, Undone
from swarm.hashing import sha256
from swarm.records.types import RoundBody, RoundCertificate, Signed, StorageReceipt

RUN = b"r" * 32
KEYS = {name: PrivateKey(bytes([n]) * 32) for n, name in enumerate(("storer", "witness", "other", "stranger"), 1)}
ACCOUNTS = {name: account_of(key) for name, key in KEYS.items()}
DOMAIN = Domain(1, b"\x11" * 20)
FILES = {"b.bin": os.urandom(3 << 20), "a/z.bin": os.urandom(1500), "a.txt": b"short"}


class _Pages:
    """Implements `StoragePages` in memory."""

    def __init__(self) -> None:
        self.signers: dict[tuple[bytes, bytes], set[bytes]] = {}  # (peer, proof) → who

    def add_storage_receipt(self, receipt: Values, signatures: Iterable[tuple[bytes, bytes]]) -> object:
        key = receipt["peer"], receipt["proof"]
        self.signers.setdefault(key, set()).update(signer for signer, _ in signatures)  # type: ignore[arg-type]
        return None


class _Peer:
    def __init__(self, name: str, folder: Path, rules: StorageRules) -> None:
        folder.mkdir(exist_ok=True)
        self.journal = SigningJournal(folder / f"{name}.journal")
        self.notary = JournalNotary(KEYS[name], DOMAIN, self.journal)
        self.pages, self.said = _Pages(), list[Signed]()
        self.asked: list[StorageReceipt] = []
        self.books = StorageAccounting(
            self.notary, self.pages, rules, self.said.append, self.asked.append, lambda account: False
        )


def _certified(epoch: int, electorate: Sequence[str] = ("witness",)) -> Certified:
    zero = bytes(32)
    record = RoundCertificate(RUN, epoch, 0, 0, zero, zero, zero, zero, 0, 0, 0, zero, zero)
    body = RoundBody((), (), (), (), 0.0, tuple(sorted(ACCOUNTS[name] for name in electorate)))
    return Certified(sha256(bytes([epoch])), record, body, (), zero)


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path / "blocks", 1 << 30)


@pytest.fixture
def item(store: BlockStore) -> StoredObject:
    links = {name: put_pieces((data,), store) for name, data in FILES.items()}
    root = put_folders(links, store).digest
    key, size = segments_root(FILES[name] for name in ("a/z.bin", "a.txt", "b.bin"))
    return StoredObject(root, DAG_PB, size, key, "it")


@pytest.fixture
def rules(item: StoredObject) -> StorageRules:
    return StorageRules((Listed(item.key, item.num_bytes),), 2, 1, 4, 1)


def test_an_object_is_read_as_one_stretch_of_bytes(store: BlockStore, item: StoredObject) -> None:
    content, whole = Content.of(item, store), FILES["a/z.bin"] + FILES["a.txt"] + FILES["b.bin"]
    assert b"".join(content.pieces()) == whole
    for start, size in ((0, 10), (1490, 40), (1 << 20, 1 << 20), (len(whole) - 5, 5)):
        assert content.read(start, size) == whole[start : start + size]


def _answer(prover: Prover, event: Certified) -> None:
    async def work() -> None:
        task = asyncio.create_task(prover.run())
        prover.on_event(event)
        for _ in range(60):
            await asyncio.sleep(0.05)
            if prover.accounting.publish.__self__:  # type: ignore[attr-defined]
                break
        task.cancel()

    asyncio.run(work())


def _prover(
    peer: _Peer, rules: StorageRules, store: BlockStore, item: StoredObject, folder: Path
) -> tuple[Prover, dict, list]:  # type: ignore[type-arg]
    blocks: dict[bytes, bytes] = {}
    lost: list[StoredObject] = []

    def put(block: bytes) -> bytes:
        blocks[sha256(block)] = block
        return sha256(block)

    made = Prover(RUN, rules, peer.books, Trees(folder / "trees", store), lambda: {0: item}, put, lost.append)
    return made, blocks, lost


def test_a_challenge_is_answered_by_a_proof_that_a_witness_fetches_checks_and_signs(
    tmp_path: Path, rules: StorageRules, store: BlockStore, item: StoredObject
) -> None:
    storer, witness, other = (_Peer(name, tmp_path, rules) for name in ("storer", "witness", "other"))
    event = _certified(5)
    for peer in (storer, witness, other):
        peer.books.on_event(event)
    prover, blocks, _ = _prover(storer, rules, store, item, tmp_path)
    _answer(prover, event)
    (said,) = storer.said
    receipt = said.of(StorageReceipt).record
    assert fault_of_proof(rules, event.id, receipt.peer, receipt.held, blocks[receipt.proof]) is None
    assert receipt.held == held_of([0])
    assert not storer.pages.signers, "no books hold what no witness stands behind: they would differ from all others"
    assert witness.books.on_receipt(said) and witness.asked == [receipt]
    assert other.books.on_receipt(said) and not other.asked and not other.pages.signers, "nobody stands behind it yet"

    async def look() -> None:
        async def ask(account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            assert account == ACCOUNTS["storer"]
            return {digest: blocks[digest] for digest in digests}

        working = Witness(rules, ask)
        working.accounting = witness.books
        working.asked(receipt)
        for _ in range(60):
            await asyncio.sleep(0.05)
            if witness.said:
                break
        await working.close()

    asyncio.run(look())
    (cosigned,) = witness.said
    both = {ACCOUNTS["storer"], ACCOUNTS["witness"]}
    for peer in (other, storer):
        assert peer.books.on_receipt(cosigned)
        assert list(peer.pages.signers.values()) == [both]
    assert list(witness.pages.signers.values()) == [both]
    assert storer.books.num_cosigned == 1


@pytest.mark.parametrize("harm", ["gone", "another"])
def test_who_lost_its_bytes_or_has_others_shows_nothing(
    tmp_path: Path, rules: StorageRules, store: BlockStore, item: StoredObject, harm: str
) -> None:
    storer = _Peer("storer", tmp_path, rules)
    event = _certified(5)
    storer.books.on_event(event)
    prover, _, lost = _prover(storer, rules, store, item, tmp_path)
    prover.trees.of(item)  # it had it once
    if harm == "gone":
        for digest in Content.of(item, store).leaves:
            store.delete(digest)
    else:
        listed = replace(item, root=put_folders({"b": put_pieces((b"x" * item.num_bytes,), store)}, store).digest)
        prover, _, lost = _prover(storer, rules, store, listed, tmp_path)
    _answer(prover, event)
    assert storer.said == []
    assert bool(lost) == (harm == "gone"), "what is gone is fetched again, what is not what the run lists is not"


def test_a_false_proof_is_not_signed_and_one_that_does_not_come_is_asked_for_until_it_is_too_late(
    tmp_path: Path, rules: StorageRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peers.storing.witnessing.AGAIN_SECONDS", 0.01)
    witness = _Peer("witness", tmp_path, rules)
    witness.books.on_event(_certified(5))
    block = b"no proof"
    false = StorageReceipt(RUN, 5, ACCOUNTS["storer"], _certified(5).id, held_of([0]), sha256(block))
    silent = replace(false, proof=sha256(b"never"))
    tries = 0

    async def look() -> None:
        async def ask(account: bytes, digests: Sequence[bytes]) -> dict[bytes, bytes]:
            nonlocal tries
            tries += 1
            if digests == [false.proof]:
                return {false.proof: block}
            if tries > 5:
                witness.books.on_event(_certified(8))
            raise RetryError("no link")

        working = Witness(rules, ask)
        working.accounting = witness.books
        working.asked(false)
        working.asked(silent)
        await asyncio.sleep(0.5)
        assert working.num_refused == 1
        asked = tries
        await asyncio.sleep(0.2)
        assert tries == asked > 5, "it has given up"
        await working.close()

    asyncio.run(look())
    assert witness.said == [] and not witness.pages.signers
    assert not witness.books.witness(silent), "too late"


def _signed(name: str, record: StorageReceipt, folder: Path, number: int = 0) -> Signed:
    with SigningJournal(folder / f"by-{name}-{number}.journal") as journal:
        notary = JournalNotary(KEYS[name], DOMAIN, journal)
        return Signed(record, ACCOUNTS[name], notary.sign(record))


def test_what_answers_no_challenge_or_is_of_no_witness_is_refused(tmp_path: Path, rules: StorageRules) -> None:
    other = _Peer("other", tmp_path, rules)
    other.books.on_event(_certified(5))
    good = StorageReceipt(RUN, 5, ACCOUNTS["storer"], _certified(5).id, held_of([0]), bytes(32))
    assert other.books.on_receipt(_signed("storer", good, tmp_path))
    assert not other.books.on_receipt(_signed("stranger", good, tmp_path)), "neither its storer nor drawn"
    for number, bad in enumerate(
        (replace(good, epoch=6), replace(good, held=held_of([3])), replace(good, held=bytes(32)))
    ):
        assert not other.books.on_receipt(_signed("storer", bad, tmp_path, number + 1))
    alone = _certified(6, ["storer"])
    other.books.on_event(alone)
    nobody = replace(good, epoch=6, certificate=alone.id)
    assert not other.books.on_receipt(_signed("storer", nobody, tmp_path, 9)), "nobody could witness it"
    other.books.on_event(Undone((_certified(5).id,)))
    later = other.books.on_receipt(_signed("witness", good, tmp_path))
    assert later and not other.pages.signers, "of a branch that is not followed nothing is written"


def test_receipts_wait_for_their_certificate_and_strangers_fill_neither_disk_nor_memory(
    tmp_path: Path, rules: StorageRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MAX_OF_STRANGERS", 10)
    other, event = _Peer("other", tmp_path, rules), _certified(5)
    good = StorageReceipt(RUN, 5, ACCOUNTS["storer"], event.id, held_of([0]), bytes(32))
    assert other.books.on_receipt(_signed("witness", good, tmp_path)), "of a certificate that is not here yet"
    other.books.on_event(event)
    assert other.books.on_receipt(_signed("storer", good, tmp_path))
    assert list(other.pages.signers.values()) == [{ACCOUNTS["storer"], ACCOUNTS["witness"]}]

    def flood(key: int) -> bool:
        who = PrivateKey(bytes([200, key]) * 16)
        record = replace(good, peer=account_of(who))
        return other.books.on_receipt(Signed(record, account_of(who), b"checked before"))

    assert [flood(key) for key in range(25)] == [True] * 10 + [False] * 15
    assert len(other.pages.signers) == 1
    other.books.is_storer = lambda account: True
    assert flood(99), "a storer that is linked finds room"


def test_a_witness_that_lies_does_not_fill_the_books_of_a_challenge(
    tmp_path: Path, rules: StorageRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "MAX_OF_WITNESSES", 20)
    monkeypatch.setattr(receipts, "MIN_OF_WITNESS", 2)
    voters = ("witness", "storer", "stranger", "other")
    event = _certified(5, voters)
    third = _Peer("other", tmp_path, rules)
    third.books.on_event(event)
    good = StorageReceipt(RUN, 5, ACCOUNTS["storer"], event.id, held_of([0]), bytes(32))

    def shown(witness: str, number: int) -> bool:
        """By the next free key that draws this witness."""
        for nonce in range(200):
            key = PrivateKey(bytes([100 + number, nonce + 1]) * 16)
            record = replace(good, peer=account_of(key))
            if third.books.witnesses(record) == (ACCOUNTS[witness],):
                third.books.on_receipt(Signed(record, record.peer, b"checked before"))
                return third.books.on_receipt(Signed(record, ACCOUNTS[witness], b"checked before"))
        raise AssertionError

    assert [shown("stranger", number) for number in range(30)] == [True] * 10 + [False] * 20
    # More than may wait: none of them does.
    monkeypatch.setattr(receipts, "MAX_OF_STRANGERS", 20 + 5)
    assert all(shown("witness", number) for number in range(30, 40)), "others have their part"
    assert len(third.pages.signers) == 20


def test_many_receipts_of_one_storer_take_nothing_from_others(tmp_path: Path, rules: StorageRules) -> None:
    """Neither those that a linked storer signs, which a witness would look at one after the other, nor those that a lying witness
    signs in the name of another storer, which has not signed them."""
    other, event = _Peer("other", tmp_path, rules), _certified(5, ["witness", "stranger", "other"])
    other.books.on_event(event)
    other.books.is_storer = lambda account: True
    good = StorageReceipt(RUN, 5, ACCOUNTS["storer"], event.id, held_of([0]), bytes(32))
    (drawn,) = other.books.witnesses(good) or ()

    def said(signer: bytes, peer: bytes, number: int) -> bool:
        record = replace(good, peer=peer, proof=number.to_bytes(32, "big"))
        return other.books.on_receipt(Signed(record, signer, b"checked before"))

    liar = next(
        key
        for key in (account_of(PrivateKey(bytes([50, n]) * 16)) for n in range(1, 200))
        if other.books.witnesses(replace(good, peer=key)) == (ACCOUNTS["other"],)
    )
    assert [said(liar, liar, number) for number in range(1, 6)] == [True, True, False, False, False]
    assert len(other.asked) == 2, "it is looked at no more often"
    assert sum(said(drawn, ACCOUNTS["storer"], number) for number in range(1, 1000)) < 700
    assert not other.pages.signers, "what its storer has not signed is in nobody's books"
    assert other.books.on_receipt(_signed("storer", good, tmp_path))
    assert not other.pages.signers
    assert not said(drawn, ACCOUNTS["storer"], 0), "what such a witness signs has no room; others' has"
