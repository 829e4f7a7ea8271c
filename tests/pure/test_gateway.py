"""The HTTP gateway over real sockets: what it answers, what it refuses in one line, and whom it lets go."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from peers.contents import WITHDRAWN, Contents
from peers.errors import StartError
from peers.gateway import CAR_TYPE, RAW_TYPE, Gateway, Limits, parse_listen, serving
from swarm.checkpoint.car import CarReader
from swarm.checkpoint.store import BlockStore
from swarm.checkpoint.trees import put_folders, put_path
from swarm.checkpoint.unixfs import BlockLink, cid_text
from tests.pure.test_trees import FILES, folder

Get = Callable[..., Awaitable[tuple[int, bytes, Mapping[str, str]]]]


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path / "store" / "blocks", 1 << 30)


@pytest.fixture
def root(store: BlockStore, tmp_path: Path) -> BlockLink:
    return put_folders({name: put_path(path, store) for path, name in folder(tmp_path / "in")}, store)


def cid_of(link: BlockLink) -> str:
    return cid_text(link.digest, link.codec)


@asynccontextmanager
async def asking(store: BlockStore, limits: Limits | None = None) -> AsyncIterator[tuple[Get, int]]:
    gateway = Gateway(Contents([store.directory.parent]), limits or Limits())
    async with serving(gateway, "127.0.0.1", 0) as port, aiohttp.ClientSession(auto_decompress=False) as session:

        async def get(path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.request(method, f"http://127.0.0.1:{port}{path}", headers=given) as answer:
                return answer.status, await answer.read(), answer.headers

        yield get, port


def test_a_block_with_what_caches_need(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store) as (get, _):
            path = f"/ipfs/{cid_of(root)}?format=raw"
            status, body, headers = await get(path)
            assert (status, body) == (200, store.get(root.digest))
            assert headers["Content-Type"] == RAW_TYPE and "immutable" in headers["Cache-Control"]
            assert headers["ETag"] == f'"{cid_of(root)}.raw"' and headers["X-Content-Type-Options"] == "nosniff"
            head = await get(path, "HEAD")
            assert (head[0], head[1], head[2]["Content-Length"]) == (200, b"", str(len(body)))
            assert (await get(path, If_None_Match=headers["ETag"]))[:2] == (304, b"")
            assert (await get(f"/ipfs/{cid_of(root)}", Accept=RAW_TYPE))[1] == body
            assert (await get("/ipfs/bafkqaaa?format=raw"))[:2] == (200, b"")

    asyncio.run(scenario())


def test_ranges(store: BlockStore, root: BlockLink) -> None:
    block = store.get(root.digest)
    assert block is not None

    async def scenario() -> None:
        async with asking(store) as (get, _):
            path = f"/ipfs/{cid_of(root)}?format=raw"
            for wanted, cut in (
                ("0-9", slice(0, 10)),
                ("5-", slice(5, None)),
                ("-7", slice(-7, None)),
                ("3-99999", slice(3, None)),
            ):
                status, body, headers = await get(path, Range=f"bytes={wanted}")
                assert (status, body) == (206, block[cut]) and headers["Content-Range"].endswith(f"/{len(block)}")
            for wrong in ("99999-", "9-3", "surprise"):
                assert (await get(path, Range=f"bytes={wrong}"))[0] == 416
            assert (await get(path, Range="bytes=0-9", If_Range='"other"'))[:2] == (200, block)

    asyncio.run(scenario())


def test_a_car_of_all_and_of_parts(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store) as (get, _):
            status, body, headers = await get(f"/ipfs/{cid_of(root)}?format=car")
            reader = CarReader(io.BytesIO(body))
            assert status == 200 and reader.roots == ((root.digest, root.codec),)
            assert {block.digest.hex() for block in reader} == {path.name for path in store.directory.iterdir()}
            assert headers["Content-Type"].startswith(CAR_TYPE) and "dups=n" in headers["Content-Type"]
            assert (await get(f"/ipfs/{cid_of(root)}", Accept=f"{CAR_TYPE}; version=1"))[1] == body
            assert (await get(f"/ipfs/{cid_of(root)}?format=car", "HEAD"))[:2] == (200, b"")
            only = list(CarReader(io.BytesIO((await get(f"/ipfs/{cid_of(root)}?format=car&dag-scope=block"))[1])))
            assert [block.digest for block in only] == [root.digest]
            inside = (await get(f"/ipfs/{cid_of(root)}/deep/er/b.bin?format=car&dag-scope=entity"))[1]
            blocks = list(CarReader(io.BytesIO(inside)))
            assert blocks[0].digest == root.digest, "the way there is part of it"
            assert b"".join(block.data for block in blocks[4:]) == FILES["deep/er/b.bin"]
            assert (await get(f"/ipfs/{cid_of(root)}/a.txt?format=raw"))[1] == FILES["a.txt"]

    asyncio.run(scenario())


def test_what_is_wrong_is_one_line(store: BlockStore, root: BlockLink) -> None:
    cid = cid_of(root)
    cases = {
        f"/ipfs/{cid}": (400, "format=raw"),
        f"/ipfs/{cid}?format=tar": (400, "format=raw"),
        f"/ipfs/{cid}?format=car&dag-scope=surprise": (400, "dag-scope"),
        f"/ipfs/{cid}?format=car&car-version=2": (400, "version 1"),
        f"/ipfs/{cid}?format=car&entity-bytes=5:9": (400, "entity-bytes"),
        f"/ipfs/{cid}/nothing?format=raw": (404, "nothing is not in"),
        f"/ipfs/{cid}/{'a/' * 40}?format=raw": (400, "too many parts"),
        f"/ipfs/{cid_text(bytes(32))}?format=raw": (404, "is not here"),
        f"/ipfs/{cid_text(bytes(32))}?format=car": (404, "is not here"),
        "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG?format=raw": (400, "version 0"),
        "/ipfs/..%2f..%2fetc%2fpasswd?format=raw": (400, "no CIDv1"),
        "/ipfs/?format=raw": (400, "no CIDv1"),
        "/other": (404, "Not Found"),
        f"/ipfs/{'b' * 6000}?format=raw": (400, ""),
    }

    async def scenario() -> None:
        async with asking(store) as (get, _):
            for path, (status, word) in cases.items():
                found, body, headers = await get(path)
                assert (found, word in body.decode(), body.count(b"\n") <= 1) == (status, True, True), (path, body)
                assert "immutable" not in headers.get("Cache-Control", "")
            assert (await get(f"/ipfs/{cid}?format=raw", "POST"))[0] == 405
            missing = f"/ipfs/{cid_text(bytes(32))}?format=raw"
            assert (await get(missing, Cache_Control="only-if-cached"))[0] == 412

    asyncio.run(scenario())


def test_what_has_rotted_or_was_withdrawn_is_not_handed_out(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store) as (get, _):
            path = f"/ipfs/{cid_of(root)}?format=raw"
            assert (await get(path))[0] == 200
            (store.directory / root.digest.hex()).write_bytes(b"rotten")
            assert (await get(path))[0] == 404
            (store.directory.parent / WITHDRAWN).mkdir()
            (store.directory.parent / WITHDRAWN / root.digest.hex()).touch()
            assert (await get(path))[0] == 410

    asyncio.run(scenario())


def test_a_car_that_cannot_be_whole_breaks_off(store: BlockStore, root: BlockLink) -> None:
    leaf = next(path for path in store.directory.iterdir() if path.stat().st_size == 1 << 20)
    leaf.unlink()

    async def scenario() -> None:
        async with asking(store) as (get, _):
            with pytest.raises(aiohttp.ClientPayloadError):
                await get(f"/ipfs/{cid_of(root)}?format=car")
        async with asking(store, Limits(car_bytes=1000)) as (get, _):
            assert (await get(f"/ipfs/{cid_of(root)}?format=car"))[0] == 413

    asyncio.run(scenario())


async def closed_within(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_who_says_nothing_or_half_a_request_is_let_go(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store, Limits(idle_seconds=0.5)) as (get, port):
            silent, _ = await asyncio.open_connection("127.0.0.1", port)
            slow, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ipfs/x HTTP/1.1\r\nHost: a\r\n")
            assert await closed_within(silent, 10) and await closed_within(slow, 10)
            assert (await get("/"))[0] == 200

    asyncio.run(scenario())


def test_who_reads_too_slowly_is_let_go(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store, Limits(slow_seconds=0.5)) as (get, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
            ask = f"GET /ipfs/{cid_of(root)}?format=car HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            writer.write(ask * 8)  # more than the buffers of two systems hold
            await asyncio.sleep(2)  # in which nothing is read
            taken = 0
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):  # noqa: PT012
                while True:
                    taken += len(await reader.readexactly(1 << 16))
            assert taken < 8 * (2 << 20)
            assert (await get("/"))[0] == 200

    asyncio.run(scenario())


def test_a_program_that_opens_a_connection_for_each_block_is_served(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store, Limits(from_one_address=3)) as (_, port):
            answers = await asyncio.gather(*(once(port) for _ in range(60)))
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)

    asyncio.run(scenario())


async def once(port: int) -> bytes:
    """The answer on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    try:
        return await reader.read()
    finally:
        writer.close()


def test_connections_are_counted_and_the_first_stay(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store, Limits(from_one_address=5, waiting=2)) as (get, port):
            assert (await get("/"))[0] == 200
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            turn, asking_it = await asyncio.open_connection("127.0.0.1", port)
            asking_it.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await once(port)).startswith(b"HTTP/1.1 503 "), "one may wait its turn, another not"
            assert (await get("/"))[0] == 200, "whoever is in is still served"
            for _, writer in held:
                writer.close()
                await writer.wait_closed()
            assert (await turn.read()).startswith(b"HTTP/1.1 200 ")

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_one_line(store: BlockStore, root: BlockLink) -> None:
    async def scenario() -> None:
        async with asking(store) as (_, port):
            with pytest.raises(StartError, match="cannot be listened on"):
                async with serving(Gateway(Contents([store.directory])), "127.0.0.1", port):
                    pass

    asyncio.run(scenario())


def test_only_this_machine_is_answered_unless_a_host_is_named() -> None:
    assert parse_listen("8080") == ("127.0.0.1", 8080)
    assert parse_listen("0.0.0.0:0") == ("0.0.0.0", 0)
    assert parse_listen("[::1]:1") == ("::1", 1)
    for wrong in ("", "x", "70000", "example.org:80", "1.2.3:4", "-1", "8080 "):
        with pytest.raises(ValueError, match=r"\[HOST:\]PORT|no address"):
            parse_listen(wrong)
