"""A model answers its licensees over HTTP, as OpenAI's interface has it; its weights stay here. One answer is computed at a time."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from incentives.chain.license import LicenseContract
from incentives.errors import ChainError
from incentives.jsonform import first_fault
from peers.gateway import Limits
from peers.market.asking import Doorman, Refused, Request
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
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    n: Literal[1] = 1
    stream: Literal[False] = False


Kind = TypeVar("Kind", bound=_Asked)


class Completion(_Asked):
    prompt: str = Field(max_length=MAX_BODY_BYTES)


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    role: str = Field(max_length=20)
    content: str = Field(max_length=MAX_BODY_BYTES)


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


Answer = Callable[[Wish], str]  # what follows; SwarmError where the model cannot take it


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
    """`name`: of the model, with its chain; `answer`: computes, in a thread of its own."""

    def __init__(self, name: str, doorman: Doorman, answer: Answer) -> None:
        self.name, self.limits = name, Limits()
        self._doorman, self._answer, self._waiting = doorman, answer, 0
        self._chain, self._model = ThreadPoolExecutor(1, "chain"), ThreadPoolExecutor(1, "model")

    def close(self) -> None:
        """Again: does nothing."""
        for pool in (self._chain, self._model):
            pool.shutdown(wait=False, cancel_futures=True)

    def application(self, keeper: "Doorkeeper") -> web.Application:
        made = web.Application(middlewares=[keeper.answering, _errors], client_max_size=MAX_BODY_BYTES)
        made.router.add_get("/v1/models", self._models)
        made.router.add_post("/v1/completions", self._completions)
        made.router.add_post("/v1/chat/completions", self._chat)
        return made

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "sparehive"}]}
        )

    async def _completions(self, request: web.Request) -> web.Response:
        asked = _parsed(Completion, await self._admitted(request))
        wish = Wish(asked.prompt, (), asked.max_tokens, asked.temperature, asked.seed)
        choice = {"index": 0, "text": await self._computed(wish), "finish_reason": "length"}
        return self._reply("text_completion", choice)

    async def _chat(self, request: web.Request) -> web.Response:
        asked = _parsed(Chat, await self._admitted(request))
        wish = Wish("", asked.messages, asked.max_tokens, asked.temperature, asked.seed)
        said = {"role": "assistant", "content": await self._computed(wish)}
        return self._reply("chat.completion", {"index": 0, "message": said, "finish_reason": "stop"})

    def _reply(self, kind: str, choice: dict[str, Any]) -> web.Response:
        return web.json_response({"object": kind, "created": int(time.time()), "model": self.name, "choices": [choice]})

    async def _admitted(self, request: web.Request) -> bytes:
        """The body of a request by somebody with a licence."""
        body = await request.read()
        signed = Request(request.method, request.host, request.path, self.name, body)
        loop, header = asyncio.get_running_loop(), request.headers.get("Authorization", "")
        await loop.run_in_executor(self._chain, self._doorman.admit, signed, header)
        return body

    async def _computed(self, wish: Wish) -> str:
        if self._waiting >= MAX_WAITING:
            raise Refused(429, "too many wait for an answer: try again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model, self._answer, wish)
        except SwarmError as error:
            raise Refused(400, str(error)) from None
        finally:
            self._waiting -= 1


def _parsed(kind: type[Kind], body: bytes) -> Kind:
    try:
        return kind.model_validate(from_json(body))
    except ValidationError as error:
        raise Refused(400, first_fault(error)) from None
    except ValueError as error:
        raise Refused(400, f"is no JSON ({error})") from None


@web.middleware
async def _errors(request: web.Request, handler: "Handler") -> web.StreamResponse:
    """As OpenAI's clients read them."""
    try:
        return await handler(request)
    except Refused as refused:
        status, text = refused.status, str(refused)
    except web.HTTPRequestEntityTooLarge:
        status, text = 413, f"more than {MAX_BODY_BYTES} bytes"
    except web.HTTPException as error:
        status, text = error.status, f"{error.reason}: there are /v1/models, /v1/completions and /v1/chat/completions"
    return web.json_response(
        {"error": {"message": printable(text, 500), "type": "sparehive", "code": status}}, status=status
    )


__all__ = ["Access", "Answer", "Served", "Wish"]
