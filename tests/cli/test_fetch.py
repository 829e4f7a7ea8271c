"""`sparehive fetch`: from folders, CARs and gateways, each block checked; broken off, it goes on; what is wrong is one line."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from peers.bases import folder_of_cid
from peers.contents import Contents
from peers.donors import IpfsProcess, open_donor
from peers.errors import ConfigError
from peers.fetching import fetch
from peers.gateway import Gateway, serving
from peers.progressbar import ProgressBar
from swarm.checkpoint.car import car_bytes, car_header, car_section
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.unixfs import RAW, Block, cid_text, encode_directory, encode_file, parse_any_cid
from swarm.hashing import sha256
from tests.chain.commands import ok, refused, sparehive

TEXT = b"".join(os.urandom(1 << 20) for _ in range(5)) + b"end"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store, and the CID of a folder in it."""
    at = tmp_path_factory.mktemp("published")
    (at / "in" / "more").mkdir(parents=True)
    (at / "in" / "text").write_bytes(TEXT)
    (at / "in" / "more" / "small").write_bytes(b"small")
    ok("car", "export", at / "in", at / "a.car")
    taken = ok("car", "import", at / "a.car", "--store", at / "store")
    return at, taken["roots"][0]


def is_right(out: Path) -> bool:
    return (out / "text").read_bytes() == TEXT and (out / "more" / "small").read_bytes() == b"small"


@contextlib.contextmanager
def in_thread(serve: Callable[[asyncio.Event, Callable[[int], None]], Awaitable[None]]) -> Iterator[str]:
    """The URL of a server with a loop of its own."""
    started, ports = threading.Event(), list[int]()
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()

    def told(port: int) -> None:
        ports.append(port)
        started.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(ending, told)))
    thread.start()
    try:
        assert started.wait(20)
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(20)
        loop.close()


@contextlib.contextmanager
def gateway(store: Path) -> Iterator[str]:
    async def serve(ending: asyncio.Event, told: Callable[[int], None]) -> None:
        async with serving(Gateway(Contents([store])), "127.0.0.1", 0) as port:
            told(port)
            await ending.wait()

    with in_thread(serve) as url:
        yield url


@contextlib.contextmanager
def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Iterator[str]:
    """A server of somebody else's."""

    async def serve(ending: asyncio.Event, told: Callable[[int], None]) -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", handler)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told(runner.addresses[0][1])
        await ending.wait()
        await runner.cleanup()

    with in_thread(serve) as url:
        yield url


def part_of(store: Path, at: Path, keep: int) -> Path:
    """A store that has all nodes and small blocks, and `keep` large ones."""
    large = sorted(path for path in (store / "blocks").iterdir() if path.stat().st_size == 1 << 20)
    (at / "blocks").mkdir(parents=True)
    for path in (store / "blocks").iterdir():
        if path not in large[keep:]:
            os.link(path, at / "blocks" / path.name)
    return at


def test_from_a_folder_a_car_and_gateways_at_once(published: tuple[Path, str], tmp_path: Path) -> None:
    at, cid = published
    some, others = part_of(at / "store", tmp_path / "some", 2), tmp_path / "others" / "blocks"
    others.mkdir(parents=True)
    for path in (at / "store" / "blocks").iterdir():
        if not (some / "blocks" / path.name).exists():
            os.link(path, others / path.name)
    for number, sources in enumerate(([at / "store"], [at / "a.car"])):
        made = ok("fetch", cid, *(f"--from={source}" for source in sources), "--out", tmp_path / f"out{number}")
        assert is_right(tmp_path / f"out{number}") and made["files"] == 2 and made["bytes"] == len(TEXT) + 5
    with gateway(some) as one:  # neither has all of it
        made = ok("fetch", cid, "--from", one, "--from", others.parent, "--out", tmp_path / "out2")
        assert is_right(tmp_path / "out2") and made["from"].keys() == {one, str(others.parent)}
        assert made["received_bytes"] <= made["bytes"] + 2000, "no block came twice"
    assert not list(tmp_path.glob("*.part"))


def test_broken_off_it_goes_on(published: tuple[Path, str], tmp_path: Path) -> None:
    at, cid = published
    out = tmp_path / "out"
    with gateway(part_of(at / "store", tmp_path / "some", 3)) as url:
        said = refused("fetch", cid, "--from", url, "--out", out)
        assert "is nowhere" in said and "has it not (404)" in said and "the same command goes on from there" in said
        assert not out.exists() and len(list(tmp_path.glob("out.*.part"))) == 1
    made = ok("fetch", cid, "--from", at / "store", "--out", out)
    assert is_right(out) and made["kept_bytes"] >= 3 << 20 and made["received_bytes"] < 3 << 20
    assert not list(tmp_path.glob("*.part"))


def test_who_lies_is_told_and_does_no_harm(published: tuple[Path, str], tmp_path: Path) -> None:
    at, cid = published

    async def lie(request: web.Request) -> web.StreamResponse:
        """Honest about nodes, to be trusted with leaves."""
        found = Contents([at / "store"]).get(parse_any_cid(request.match_info["path"].removeprefix("ipfs/"))[0])
        assert found is not None
        return web.Response(body=found if len(found) < 5000 else found[:-1] + b"?")

    with answering(lie) as liar, gateway(at / "store") as honest:
        made = ok("fetch", cid, "--from", liar, "--from", honest, "--out", tmp_path / "out")
        assert is_right(tmp_path / "out") and "sent other bytes" in made["refused"][liar]
        said = refused("fetch", cid, "--from", liar, "--out", tmp_path / "alone")
        assert "sent other bytes as block" in said and not (tmp_path / "alone").exists()


@pytest.mark.parametrize("length", [True, False])
def test_a_block_without_end(published: tuple[Path, str], tmp_path: Path, length: bool) -> None:
    async def pour(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(1 << 40)} if length else {})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(bytes(1 << 16))
        return answer

    with answering(pour) as url:
        said = refused("fetch", published[1], "--from", url, "--out", tmp_path / "out")
        assert ("bytes as one block" if length else "without end") in said


def test_nobody_has_it(published: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cid = published
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "blocks").mkdir(parents=True)
    out = ("--out", tmp_path / "out")
    assert "nobody was named" in refused("fetch", cid, *out)
    assert "is nowhere" in refused("fetch", cid, "--from", tmp_path / "empty", *out)
    with gateway(tmp_path / "empty") as url:
        assert f"{url} has it not (404)" in refused("fetch", cid, "--from", url, *out)
    assert "does not answer" in refused("fetch", cid, "--from", url, "--timeout", 1, *out)
    assert not list(tmp_path.glob("out*"))


def test_what_is_wrong_is_one_line(published: tuple[Path, str], tmp_path: Path) -> None:
    at, cid = published
    source = ("--from", at / "store")
    out = tmp_path / "out"
    assert "is no CIDv1" in refused("fetch", "surprise", *source, "--out", out)
    assert "version 0" in refused("fetch", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", *source, "--out", out)
    for wrong in ("nowhere", "ftp://a/b", "http://", "http://a/?b"):
        assert "--from = " in refused("fetch", cid, "--from", wrong, "--out", out)
    assert "no folder" in refused("fetch", cid, *source, "--out", tmp_path / "a" / "b")
    out.mkdir()
    (out / "mine").touch()
    assert "is there already" in refused("fetch", cid, *source, "--out", out)
    (tmp_path / "no.car").write_bytes(b"no car")
    assert "car: " in refused("fetch", cid, "--from", tmp_path / "no.car", "--out", tmp_path / "new")


def test_a_tree_that_leads_out_writes_nothing(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "store" / "blocks", 1 << 30)
    leaf, blocks = encode_file(b"mine now")
    root, node = encode_directory([("../../escaped", leaf)])
    for block in (*blocks, node):
        store.put(block.data)
    said = refused("fetch", cid_text(root.digest), "--from", tmp_path / "store", "--out", tmp_path / "a")
    assert "leads out of its folder" in said
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_single_file_and_an_empty_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(TEXT)
    made = ok("car", "export", tmp_path / "f", tmp_path / "a.car")
    ok("fetch", made["cid"], "--from", tmp_path / "a.car", "--out", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == TEXT
    (tmp_path / "h").mkdir()
    ok("fetch", made["cid"], "--from", tmp_path / "a.car", "--out", tmp_path / "h")
    assert (tmp_path / "h").read_bytes() == TEXT


def test_a_car_that_takes_longer_to_read_through_than_anybody_may_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (leaf, blocks), file = encode_file(b"what is asked for"), tmp_path / "long.car"
    others = [number.to_bytes(4) for number in range(200_000)]
    with open(file, "wb") as handle:
        handle.write(car_header([(leaf.digest, leaf.codec)]))
        for block in (*(Block(sha256(data), RAW, data) for data in others), *blocks):
            handle.write(car_section(block))
    monkeypatch.setattr("swarm.checkpoint.fetch.REQUEST_SECONDS", 0.1)
    cid = cid_text(leaf.digest, leaf.codec)
    made = fetch(cid, [str(file)], tmp_path / "out", ProgressBar(quiet=True), stall_seconds=1.0)
    assert (tmp_path / "out").read_bytes() == b"what is asked for" and made["refused"] == {}


def test_a_car_that_is_read_through_is_let_go_at_once(tmp_path: Path) -> None:
    file = tmp_path / "long.car"
    with open(file, "wb") as handle:
        section = car_section(Block(sha256(b"x"), RAW, b"x"))
        handle.write(car_header([(sha256(b"y"), RAW)]) + section * 2_000_000)  # ten seconds and more

    async def given_up() -> float:
        donor = open_donor(str(file), IpfsProcess())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(donor.ask([(sha256(b"y"), RAW)]), 0.1)
        assert donor.is_preparing
        begun = time.monotonic()
        await donor.close()
        assert not donor.is_preparing
        return time.monotonic() - begun

    assert asyncio.run(given_up()) < 2.0


def test_into_the_empty_folder_that_one_is_in(
    published: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, cid = published
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, err = sparehive("fetch", cid, "--from", at / "a.car", "--out", ".")
    assert code == 0 and is_right(tmp_path / "here") and f"cd {tmp_path / 'here'}" in err and " in ., " in out
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_model_to_start_from_that_is_none_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    leaf, blocks = encode_file(b"mine now")
    root, node = encode_directory([("../../escaped", leaf)])
    (tmp_path / "a.car").write_bytes(b"".join(car_bytes((root.digest, root.codec), (node, *blocks))))
    cid = cid_text(root.digest)
    with pytest.raises(ConfigError, match=f"^--from = '{cid}': .*leads out of its folder"):
        folder_of_cid(cid, root.digest, [str(tmp_path / "a.car")])
