"""A served model behind the proxy of a licensee, over real connections: programs that know nothing of licences are answered, whole and word
by word; pages of browsers, strangers and servers that misbehave are not in the way."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from coincurve import PrivateKey

from incentives.records import account_of
from peers.errors import ConfigError
from peers.gateway import serving
from peers.market import proxying
from peers.market.asking import Doorman
from peers.market.proxying import Proxy, server_of
from peers.market.serving import Served, Wish
from swarm.errors import InputError

MODEL = "31337:0x" + "11" * 32
KEY = PrivateKey(b"\x07" * 32)
WORDS = ["The ", "quick ", "brøwn ", "fox."]


class Writer:
    """Writes WORDS one after the other; stops in the middle until `go`, so that what was said before is seen to be on its way."""

    def __init__(self) -> None:
        self.go, self.ended = threading.Event(), threading.Event()
        self.wishes: list[Wish] = []

    def __call__(self, wish: Wish, told: Callable[[str], None]) -> str:
        self.wishes.append(wish)
        if wish.prompt == "refuse":
            raise InputError("prompt", "refuse", "cannot be taken")
        text = ""
        try:
            for count, word in enumerate(WORDS):
                text += word
                told(text)
                if count == 1 and wish.prompt == "wait":
                    assert self.go.wait(20)
        finally:
            self.ended.set()
        return text + "!"


def behind(
    test: Callable[[str, Writer, aiohttp.ClientSession], Awaitable[None]], account: bytes = account_of(KEY)
) -> None:
    """`test(url of the proxy, …)`, where `account` alone has a licence."""

    async def run() -> None:
        writer = Writer()
        served = Served(MODEL, Doorman(time.time, lambda who: who == account), writer)
        try:
            async with serving(served, "127.0.0.1", 0) as port:
                proxy = Proxy(MODEL, f"http://127.0.0.1:{port}/v1/", lambda request, when: request.sign(KEY, when))
                async with serving(proxy, "127.0.0.1", 0) as own, aiohttp.ClientSession() as session:
                    await test(f"http://127.0.0.1:{own}/v1", writer, session)
        finally:
            writer.go.set()
            served.close()

    asyncio.run(asyncio.wait_for(run(), 60))


async def events(answer: aiohttp.ClientResponse) -> list[Any]:
    lines = (await answer.read()).decode().split("\n\n")
    assert lines.pop() == "" and all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def test_a_program_is_answered_as_openai_does() -> None:
    async def test(url: str, writer: Writer, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/models", headers={"Authorization": "Bearer any"}) as answer:
            assert (await answer.json())["data"][0]["id"] == MODEL
        parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
        asked = {
            "model": "any",
            "messages": [{"role": "user", "content": parts}],
            "max_completion_tokens": 9,
            "top_p": 1,
        }
        async with session.post(f"{url}/chat/completions", json=asked) as answer:
            found = await answer.json()
        assert found["choices"] == [
            {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS) + "!"}, "finish_reason": "stop"}
        ]
        assert found["object"] == "chat.completion" and found["id"].startswith("chatcmpl-") and found["model"] == MODEL
        assert writer.wishes[0].messages[0].content == "What now?" and writer.wishes[0].max_tokens == 9

    behind(test)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_comes_word_by_word(path: str) -> None:
    async def test(url: str, writer: Writer, session: aiohttp.ClientSession) -> None:
        what = {"prompt": "wait"} if path == "completions" else {"messages": [{"role": "user", "content": "go on"}]}
        async with session.post(f"{url}/{path}", json={**what, "stream": True}) as answer:
            assert answer.content_type == "text/event-stream"
            first = await answer.content.readuntil(b"\n\n")  # while the model still writes
            assert b"The " in first and not (path == "completions" and writer.ended.is_set())
            writer.go.set()
            *pieces, done = [json.loads(first[6:]), *await events(answer)]
        assert done == "[DONE]" and len(pieces) >= 2
        choices = [piece["choices"][0] for piece in pieces]
        said = [c["text"] if path == "completions" else c["delta"]["content"] for c in choices]
        assert "".join(said) == "".join(WORDS) + "!"
        assert [c["finish_reason"] for c in choices[:-1]] == [None] * (len(choices) - 1)
        assert choices[-1]["finish_reason"] == ("length" if path == "completions" else "stop")
        assert len({piece["id"] for piece in pieces}) == 1

    behind(test)


def test_who_hangs_up_is_computed_for_no_longer() -> None:
    async def test(url: str, writer: Writer, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{url}/completions", json={"prompt": "wait", "stream": True}) as answer:
            await answer.content.readuntil(b"\n\n")
            answer.close()
        await asyncio.sleep(0.2)
        writer.go.set()
        assert await asyncio.to_thread(writer.ended.wait, 10)
        async with session.post(f"{url}/completions", json={"prompt": "next"}) as answer:  # the model is free again
            assert answer.status == 200

    behind(test)


def test_what_is_refused_is_said_by_whoever_refuses() -> None:
    async def test(url: str, writer: Writer, session: aiohttp.ClientSession) -> None:
        async def status(asked: Any, **headers: str) -> tuple[int, str]:
            body = json.dumps(asked)
            given = {"Content-Type": "application/json", **headers}
            async with session.post(f"{url}/completions", data=body, headers=given) as answer:
                return answer.status, (await answer.json()).get("error", {}).get("message", "")

        for stream in (False, True):
            found, why = await status({"prompt": "refuse", "stream": stream})
            assert found == 400 and "cannot be taken" in why
        assert (await status({"prompt": 3}))[0] == 400
        assert (await status({"messages": []}))[0] == 400
        assert (await status({"prompt": "a"}, **{"Content-Type": "text/plain"}))[0] == 415
        assert (await status({"prompt": "a"}, Origin="https://example.org"))[0] == 403
        assert (await status({"prompt": "a"}, Host="example.org"))[0] == 403
        for elsewhere in ("", "[::1", "localhost.example.org", "127.0.0.1.example.org", "8.8.8.8", "a@b"):
            assert (await status({"prompt": "a"}, Host=elsewhere))[0] == 403, elsewhere
        assert not [wish for wish in writer.wishes if wish.prompt == "a"]
        for here in ("localhost:1", "LOCALHOST", "[::1]", "[::1]:1", "127.0.0.1", "192.168.1.5:80"):
            assert (await status({"prompt": "a"}, Host=here))[0] == 200, here
        async with session.post(f"{url}/nowhere", json={}) as answer:
            assert answer.status == 404

    behind(test)


def test_null_is_what_is_not_said() -> None:
    async def test(url: str, writer: Writer, session: aiohttp.ClientSession) -> None:
        nulls = dict.fromkeys(
            ("max_tokens", "max_completion_tokens", "temperature", "seed", "n", "stream", "model", "stop")
        )
        async with session.post(f"{url}/completions", json={"prompt": "a", **nulls}) as answer:
            assert answer.status == 200
        assert writer.wishes == [Wish("a", (), 128, 0.8, 0)]
        async with session.post(f"{url}/completions", json={"prompt": None}) as answer:
            assert answer.status == 400

    behind(test)


def test_without_a_licence_the_server_says_so() -> None:
    async def test(url: str, writer: Writer, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{url}/completions", json={"prompt": "a", "stream": True}) as answer:
            assert answer.status == 403 and "has no licence" in (await answer.json())["error"]["message"]
        assert not writer.wishes

    behind(test, account=bytes(20))


@pytest.mark.parametrize(
    ("way", "status", "words"),
    [("elsewhere", 502, "sends elsewhere"), ("endless", 200, ""), ("gone", 502, "no usable answer")],
)
def test_a_server_that_misbehaves_costs_one_answer(
    way: str, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxying, "MAX_ANSWER_BYTES", 1 << 16)

    async def answers(request: web.Request) -> web.StreamResponse:
        if way == "elsewhere":
            raise web.HTTPFound("http://127.0.0.1:1/")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for _ in range(1 << 12):
            await answer.write(bytes(1 << 10))
        return answer

    async def run() -> None:
        application = web.Application()
        application.router.add_post("/v1/completions", answers)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = 1 if way == "gone" else runner.addresses[0][1]
        proxy = Proxy(MODEL, f"http://127.0.0.1:{port}", lambda request, when: request.sign(KEY, when))
        try:
            async with (
                serving(proxy, "127.0.0.1", 0) as own,
                aiohttp.ClientSession() as session,
                session.post(f"http://127.0.0.1:{own}/v1/completions", json={"prompt": "a"}) as answer,
            ):
                assert answer.status == status
                if way == "endless":
                    with pytest.raises(aiohttp.ClientPayloadError):  # it does not look whole
                        await answer.read()
                else:
                    assert words in (await answer.json())["error"]["message"]
        finally:
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_is_no_server_is_named() -> None:
    assert server_of("https://host:8000/under/v1/") == ("https://host:8000/under", "host:8000")
    assert server_of("HTTP://LocalHost:80/v1") == ("http://localhost", "localhost"), "as its Host is sent"
    assert server_of("https://[::1]:443") == ("https://[::1]", "[::1]")
    for wrong in (
        "host:8000",
        "ftp://host",
        "http://",
        "http://me:secret@host",
        "http://h:99999",
        "http://[::1",
        "http://h?a=1",
    ):
        with pytest.raises(ConfigError, match="--url") as error:
            server_of(wrong)
        assert "secret" not in str(error.value)
