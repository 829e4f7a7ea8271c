"""model serve: answers who has a licence (torch is needed there); model ask: the licensee's question; model proxy: those of its programs
(the base install alone)."""

import asyncio
import ipaddress
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from incentives.chain.nodes import Nodes
from peers.cli.market import chain_id_option, market_on, model_argument
from peers.cli.options import PATH, json_option, key_options, note, rpc_option, show
from peers.cli.signing import open_key
from peers.errors import StartError
from peers.market.asking import Doorman, Request
from peers.market.reference import ModelReference
from swarm.errors import printable, printable_lines

ASK_SECONDS = 300.0
MAX_ANSWER_BYTES = 4 << 20
NO_CHAIN = "MODEL has to begin with its chain, as 31337:0x…: it is part of what is signed"


def _listen(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, int]:
    from peers.gateway import parse_listen

    try:
        return parse_listen(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None


def _names(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from peers.market.names import name_of

    found = []
    for text in given:
        try:
            found.append(name_of(text))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} {error}") from None
    return tuple(found)


@click.command("serve")
@model_argument
@click.argument("directory", metavar="DIR", type=PATH)
@rpc_option
@chain_id_option
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    default="127.0.0.1:8000",
    show_default=True,
    callback=_listen,
    help="Where to answer; this machine alone unless HOST says otherwise (0.0.0.0 for all).",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST[:PORT]",
    callback=_names,
    help="As licensees write it in --url; requests for another are refused. May be repeated. (default: the address of --listen)",
)
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
@json_option
def model_serve(
    model: ModelReference,
    directory: Path,
    rpc: Nodes,
    chain_id: int | None,
    listen: tuple[str, int],
    names: tuple[str, ...],
    threads: int,
    as_json: bool,
) -> None:
    """Let the model in DIR (a folder of `export`, a peer's directory or a run's) answer whoever has a licence of MODEL, until Ctrl-C.

    Requests are OpenAI's /v1/completions and /v1/chat/completions, signed by the licensee's account: `sparehive model ask`."""
    from peers.answering import answering
    from peers.market.names import Names
    from peers.market.serving import Access, Served
    from peers.offering import serve_until_told

    contract = market_on(rpc, chain_id, model)
    contract.model(model.model)
    name = str(ModelReference(contract.chain.chain_id, model.model))
    doorman = Doorman(time.time, Access(contract, model.model))
    served = Served(name, doorman, answering(directory, threads), Names(names))
    try:
        asyncio.run(serve_until_told(served, listen, lambda port: _started(served, listen[0], port, as_json)))
    finally:
        served.close()


def _started(served: Any, host: str, port: int, as_json: bool) -> None:
    from peers.offering import url_of

    url, names = url_of(host, port), served.names.words(host, port)
    said = f"{url}/v1 answers for {served.name}; Ctrl-C ends it\nrequests have to be for {names} (--name says others)"
    show(as_json, {"url": url, "model": served.name, "names": names}, said)
    sys.stdout.flush()


@click.command("ask")
@model_argument
@click.option("--url", required=True, help="Of who serves it: http(s)://HOST[:PORT].")
@key_options("the licensee")
@click.option("--prompt", required=True, help="Text to go on with; with --chat: what the assistant is told.")
@click.option("--chat", is_flag=True, help="Ask as in a conversation.")
@click.option("--tokens", type=click.IntRange(1, 4096), default=120, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.8, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@json_option
def model_ask(
    model: ModelReference,
    url: str,
    keystore: Path,
    password_file: Path,
    prompt: str,
    chat: bool,
    tokens: int,
    temperature: float,
    seed: int,
    as_json: bool,
) -> None:
    """Ask MODEL, which is served at --url, by a request that your account signs: it has to have a licence. Nothing is sent to the chain."""
    from peers.market.proxying import server_of

    if model.chain_id is None:
        raise click.UsageError(NO_CHAIN)
    base, host = server_of(url)
    _warn_of_plain_http(base)
    inside = "/v1/chat/completions" if chat else "/v1/completions"
    asked: dict[str, Any] = {"model": str(model), "max_tokens": tokens, "temperature": temperature, "seed": seed}
    asked |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = json.dumps(asked).encode()
    request = Request("POST", host, urlsplit(base).path + inside, str(model), body)
    header = request.sign(open_key(keystore, password_file), int(time.time()))
    found = asyncio.run(_post(base + inside, body, header))
    choice = found["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    show(as_json, found, printable_lines(str(text)))


@click.command("proxy")
@model_argument
@click.option("--url", required=True, help="Of who serves it: http(s)://HOST[:PORT].")
@key_options("the licensee")
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    default="127.0.0.1:8001",
    show_default=True,
    callback=_listen,
    help="Where your programs ask; whoever can connect there asks in your name.",
)
@json_option
def model_proxy(
    model: ModelReference, url: str, keystore: Path, password_file: Path, listen: tuple[str, int], as_json: bool
) -> None:
    """Let programs that know OpenAI's interface (base URL http://127.0.0.1:8001/v1, any API key) use MODEL, which is served at --url: each
    of their requests is signed by your account, which has to have a licence, and passed on; streams too. Until Ctrl-C."""
    from peers.market.proxying import Proxy, server_of
    from peers.offering import serve_until_told, url_of

    if model.chain_id is None:
        raise click.UsageError(NO_CHAIN)
    base, _ = server_of(url)
    _warn_of_plain_http(base)
    key = open_key(keystore, password_file)
    proxy = Proxy(str(model), base, lambda request, when: request.sign(key, when))

    def started(port: int) -> None:
        here = url_of(listen[0], port)
        if listen[0] != "localhost" and not ipaddress.ip_address(listen[0]).is_loopback:
            note(f"--listen {listen[0]}: whoever can connect there asks in the licensee's name")
        show(as_json, {"url": here, "model": str(model)}, f"{here}/v1 passes on to {base}/v1; Ctrl-C ends it")
        sys.stdout.flush()

    asyncio.run(serve_until_told(proxy, listen, started))


def _warn_of_plain_http(base: str) -> None:
    parts = urlsplit(base)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        note("others on the way can read question and answer: use https where there is one")


async def _post(url: str, body: bytes, authorization: str) -> Any:
    """What came, as JSON with a choice. StartError in one line."""
    import aiohttp
    from pydantic_core import from_json

    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            data = await answer.content.read(MAX_ANSWER_BYTES)
            while len(data) < MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES - len(data))):
                data += more
            found, status = from_json(data), answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
        raise StartError(
            f"{url} gave no usable answer ({printable(str(error) or type(error).__name__, 120)})"
        ) from None
    if status != 200:
        said = found.get("error", {}).get("message", "") if isinstance(found, dict) else ""
        raise StartError(f"{url} refuses ({status}): {printable(str(said), 300)}")
    try:
        choice = found["choices"][0]
        assert isinstance(choice.get("text", choice.get("message", {}).get("content")), str)
    except (KeyError, IndexError, TypeError, AttributeError, AssertionError):
        raise StartError(f"{url} gave no usable answer: is it one of `sparehive model serve`?") from None
    return found


__all__ = ["model_ask", "model_proxy", "model_serve"]
