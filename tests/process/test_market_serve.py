"""A model that is served: a licensee is answered, strangers and replays are not; a real chain, a real model."""

import json
import signal
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request as Question
from urllib.request import urlopen

import pytest

from incentives.devchain import DevChain, find_tool
from peers.market.asking import Request
from tests.chain.commands import ok, own_process_started, refused
from tests.chain.market_world import MarketWorld

SMALL = (
    "--set",
    "task.model.fields={n_embd=16,n_layer=1,n_head=1}",
    "--set",
    "task.data.context=16",
    "--set",
    "codec.part_values=3584",
)


@pytest.mark.long
def test_a_licensee_is_answered_and_nobody_else(tmp_path: Path) -> None:
    if find_tool("anvil") is None:
        pytest.skip("anvil is not installed: `make setup` needs npm to bring it")
    (tmp_path / "text.txt").write_text("some text, and some more of it\n" * 400)
    ok("run", "new", tmp_path / "run", "--preset", "demo", "--data", tmp_path / "text.txt", *SMALL)
    with DevChain() as node:
        world = MarketWorld(tmp_path, node)
        model = str(world.publish("served", "--price", "1")["model"])
        ok("model", "buy", model, *world.rpc, *world.keys("buyer"))
        command = ("model", "serve", model, tmp_path / "run", *world.rpc, "--listen", "127.0.0.1:0", "--json")
        process = own_process_started(*command, cwd=tmp_path)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()
            url = json.loads(line)["url"]
            ask = ("model", "ask", model, "--url", url, "--prompt", "some", "--tokens", 5, "--temperature", 0)
            first, again = ok(*ask, *world.keys("buyer")), ok(*ask, *world.keys("buyer"))
            assert first["choices"] == again["choices"] and first["choices"][0]["text"]
            said = ok(*ask, "--chat", *world.keys("buyer"))["choices"][0]["message"]
            assert said["role"] == "assistant" and said["content"]
            assert "has no licence" in refused(*ask, *world.keys("stranger"))
            programs_without_keys_are_answered(world, model, url, first["choices"][0]["text"])
            body = json.dumps({"prompt": "some", "max_tokens": 2}).encode()
            host = url.removeprefix("http://")
            request = Request("POST", host, "/v1/completions", model, body)
            headers = {
                "Authorization": request.sign(world.key("buyer"), int(time.time())),
                "Content-Type": "application/json",
            }
            assert post(url, body, headers) == (200, "text_completion")
            assert post(url, body, headers) == (401, "this request was heard before: sign each with a new nonce")
            assert post(url, body + b" ", headers)[0] == 401
            assert post(url, bytes(1 << 19), headers)[0] == 413
            for wrong in (b"{", b'{"prompt":3}', b'{"prompt":"a","max_tokens":99999}', b"[" * 10_000):
                signed = Request("POST", host, "/v1/completions", model, wrong).sign(
                    world.key("buyer"), int(time.time())
                )
                assert post(url, wrong, {**headers, "Authorization": signed})[0] == 400
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err


def programs_without_keys_are_answered(world: MarketWorld, model: str, url: str, expected: str) -> None:
    """Through the licensee's proxy, whole and as a stream."""
    command = ("model", "proxy", model, "--url", url, "--listen", "127.0.0.1:0", "--json", *world.keys("buyer"))
    proxy = own_process_started(*command, cwd=world.root)
    try:
        assert proxy.stdout is not None
        own = json.loads(proxy.stdout.readline())["url"]
        asked = {"prompt": "some", "max_tokens": 5, "temperature": 0}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer any"}
        assert post(own, json.dumps(asked).encode(), headers) == (200, "text_completion")
        with urlopen(
            Question(f"{own}/v1/completions", json.dumps({**asked, "stream": True}).encode(), headers)
        ) as answer:
            events = answer.read().decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""] and len(events) >= 3
        assert "".join(json.loads(e[6:])["choices"][0]["text"] for e in events[:-2]) == expected
    finally:
        proxy.send_signal(signal.SIGTERM)
        _, err = proxy.communicate(timeout=60)
    assert proxy.returncode == 0, err


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """(status, what kind of an answer it is, or why there is none)"""
    try:
        with urlopen(Question(f"{url}/v1/completions", body, headers), timeout=60) as answer:
            return answer.status, json.load(answer)["object"]
    except HTTPError as error:
        return error.code, json.load(error)["error"]["message"]
