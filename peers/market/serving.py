"""A model answers its licensees over HTTP, as OpenAI's interface has it; its weights stay here. One answer is computed at a time."""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from incentives.chain.license import LicenseContract
from incentives.errors import ChainError
from incentives.jsonform import first_fault
from peers.gateway import Limits
from peers.market.asking import Doorman, Refused, Request
from peers.market.names import Names
from swarm.errors import SwarmError, printable

if TYPE_CHECKING:
    from peers.gateway import Doorkeeper, Handler

MAX_BODY_BYTES = 1 << 18
MAX_WAITING = 8  # answers that are computed or wait for it
ACCESS_SECONDS = 15.0  # that the chain's word on an account counts
MAX_ACCOUNTS = 10_000
MAX_TOKENS = 4096


class _Asked(BaseModel):
    """Fields of OpenAI's interface that are not here are left unread, as its clients send many."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = Field("", max_length=200)
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 128
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None  # the newer name
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    n: Literal[1] = 1
    stream: bool = False

    @model_validator(mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        """Many clients write null for what they leave to the server."""
        return {name: said for name, said in value.items() if said is not None} if isinstance(value, dict) else value


Kind = TypeVar("Kind", bound=_Asked)


class Completion(_Asked):
    prompt: str = Field(max_length=MAX_BODY_BYTES)


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    role: str = Field(max_length=20)
    content: str = Field(max_length=MAX_BODY_BYTES)

    @field_validator("content", mode="before")
    @classmethod
    def _of_parts(cls, value: Any) -> Any:
        """Newer clients send a list of parts."""
        if not isinstance(value, list):
            return value
        texts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) != len(value) or not all(isinstance(text, str) for text in texts):
            raise ValueError("has parts that are no text")
        return "".join(map(str, texts))


class Chat(_Asked):
    messages: tuple[Message, ...] = Field(min_length=1, max_length=200)


@dataclass(frozen=True)
class Wish:
    """What a model is asked: a text to go on with, or a conversation."""

    prompt: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int


# What follows; the second gets it as it grows, and what that raises ends it. SwarmError where the model cannot take it.
Answer = Callable[[Wish, Callable[[str], None]], str]


class Gone(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Form:
    """How one of OpenAI's two endpoints writes an answer. `reason`: why it ended."""

    kind: str
    piece_kind: str
    prefix: str
    reason: str
    is_chat: bool

    def whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}

    def piece(self, text: str, reason: str | None) -> dict[str, Any]:
        said = {"delta": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        return {"object": self.piece_kind, "choices": [{"index": 0, **said, "finish_reason": reason}]}


COMPLETION = Form("text_completion", "text_completion", "cmpl", "length", is_chat=False)
CHAT = Form("chat.completion", "chat.completion.chunk", "chatcmpl", "stop", is_chat=True)


class Access:
    """The chain's word on who has a licence, asked again after `ACCESS_SECONDS`. Used by one thread at a time."""

    def __init__(self, contract: LicenseContract, model: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._contract, self._model, self._clock = contract, model, clock
        self._known: dict[bytes, tuple[float, bool]] = {}

    def __call__(self, account: bytes) -> bool:
        """Refused where the node does not answer."""
        until, has = self._known.get(account, (0.0, False))
        if until > self._clock():
            return has
        if len(self._known) >= MAX_ACCOUNTS:
            self._known.clear()
        try:
            self._contract.chain.renew()
            has = self._contract.has_access(self._model, account)
        except ChainError:
            raise Refused(503, "the chain cannot be asked now: try again") from None
        self._known[account] = (self._clock() + ACCESS_SECONDS, has)
        return has


class Served:
    """`name`: of the model, with its chain; `answer`: computes, in a thread of its own; `names`: of this server."""

    def __init__(
        self, name: str, doorman: Doorman, answer: Answer, names: Names | None = None, limits: Limits | None = None
    ) -> None:
        self.name, self.names, self.limits = name, names or Names(), limits or Limits()
        self._doorman, self._answer, self._waiting = doorman, answer, 0
        self._is_closed = threading.Event()
        self._chain, self._model = ThreadPoolExecutor(1, "chain"), ThreadPoolExecutor(1, "model")

    def close(self) -> None:
        """Again: does nothing."""
        self._is_closed.set()
        for pool in (self._chain, self._model):
            pool.shutdown(wait=False, cancel_futures=True)

    def application(self, keeper: "Doorkeeper") -> web.Application:
        made = web.Application(middlewares=[keeper.answering, as_openai], client_max_size=MAX_BODY_BYTES)
        made.router.add_get("/v1/models", self._models)
        made.router.add_post("/v1/completions", self._completions)
        made.router.add_post("/v1/chat/completions", self._chat)
        return made

    async def _models(self, request: web.Request) -> web.Response:
        return model_list(self.name)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        asked = _parsed(Completion, await self._admitted(request))
        return await self._answered(request, asked, Wish(asked.prompt, (), *_manner(asked)), COMPLETION)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = _parsed(Chat, await self._admitted(request))
        return await self._answered(request, asked, Wish("", asked.messages, *_manner(asked)), CHAT)

    async def _answered(self, request: web.Request, asked: _Asked, wish: Wish, form: Form) -> web.StreamResponse:
        head = {"id": f"{form.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": self.name}
        if asked.stream:
            return await self._streamed(request, wish, form, head)
        text = await self._computed(wish, lambda text: None)
        choice = {"index": 0, **form.whole(text), "finish_reason": form.reason}
        return web.json_response(head | {"object": form.kind, "choices": [choice]})

    async def _streamed(self, request: web.Request, wish: Wish, form: Form, head: dict[str, Any]) -> web.StreamResponse:
        """Server-sent events, a piece of text each. Who hangs up is computed for no longer."""
        loop, news = asyncio.get_running_loop(), asyncio.Queue[str | None]()
        gone = threading.Event()

        def told(text: str) -> None:
            if gone.is_set():
                raise Gone
            loop.call_soon_threadsafe(news.put_nowait, text)

        computing = asyncio.create_task(self._computed(wish, told))
        computing.add_done_callback(lambda _: news.put_nowait(None))
        so_far = await news.get()
        if so_far is None:
            await computing  # what is refused before a word was said is an ordinary answer
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        said = ""
        try:
            await answer.prepare(request)
            while so_far is not None:
                if len(so_far) > len(said):
                    await answer.write(_event(head | form.piece(so_far[len(said) :], None)))
                    said = so_far
                so_far = await news.get()
            rest = (await computing)[len(said) :]
            await answer.write(_event(head | form.piece(rest, form.reason)) + b"data: [DONE]\n\n")
            await answer.write_eof()
        except Refused as refused:
            await answer.write(_event(_error(refused.status, str(refused))))
        finally:
            gone.set()
            await asyncio.gather(computing, return_exceptions=True)
        return answer

    async def _admitted(self, request: web.Request) -> bytes:
        """The body of a request to this server by somebody with a licence."""
        host = request.headers.get("Host", "")
        own = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if not self.names.has(host, (own or ("", 0))[:2]):
            answers = ", ".join(self.names.given) or "the address and port that it listens on"
            raise Refused(421, f"asked as {host!r}, and this server answers as {answers}: ask there (its --name)")
        body = await whole_body(request, self.limits.idle_seconds)
        signed = Request(request.method, host, request.path, self.name, body)
        loop, header = asyncio.get_running_loop(), request.headers.get("Authorization", "")
        await loop.run_in_executor(self._chain, self._doorman.admit, signed, header)
        return body

    async def _computed(self, wish: Wish, told: Callable[[str], None]) -> str:
        if self._waiting >= MAX_WAITING:
            raise Refused(429, "too many wait for an answer: try again")

        def heard(text: str) -> None:
            if self._is_closed.is_set():  # or the process would wait for the whole answer
                raise Gone
            told(text)

        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model, self._answer, wish, heard)
        except SwarmError as error:
            raise Refused(400, str(error)) from None
        finally:
            self._waiting -= 1


def _manner(asked: _Asked) -> tuple[int, float, int]:
    return asked.max_completion_tokens or asked.max_tokens, asked.temperature, asked.seed


def _parsed(kind: type[Kind], body: bytes) -> Kind:
    try:
        return kind.model_validate(from_json(body))
    except ValidationError as error:
        raise Refused(400, first_fault(error)) from None
    except ValueError as error:
        raise Refused(400, f"is no JSON ({error})") from None


async def whole_body(request: web.Request, seconds: float) -> bytes:
    """What was sent, before anybody knows who sends it. Refused where it is not there in time, or its sender is gone."""
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise Refused(408, f"the body was not whole within {seconds:g} s: send it at once") from None
    except web.RequestPayloadError as error:
        raise Refused(400, f"the body is not as its headers say ({' '.join(str(error).split())})") from None
    except ConnectionError:
        raise Refused(400, "the connection broke off before the body was whole") from None  # which nobody will read


def model_list(name: str) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "sparehive"}]})


@web.middleware
async def as_openai(request: web.Request, handler: "Handler") -> web.StreamResponse:
    """Errors as OpenAI's clients read them."""
    try:
        return await handler(request)
    except Refused as refused:
        status, text = refused.status, str(refused)
    except web.HTTPRequestEntityTooLarge:
        status, text = 413, f"more than {MAX_BODY_BYTES} bytes"
    except web.HTTPException as error:
        status, text = error.status, f"{error.reason}: there are /v1/models, /v1/completions and /v1/chat/completions"
    return web.json_response(_error(status, text), status=status)


def _error(status: int, text: str) -> dict[str, Any]:
    return {"error": {"message": printable(text, 500), "type": "sparehive", "code": status}}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


__all__ = ["MAX_BODY_BYTES", "Access", "Answer", "Gone", "Served", "Wish", "as_openai", "model_list", "whole_body"]
