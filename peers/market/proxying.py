"""A served model for programs that know OpenAI's interface and nothing of licences: on this machine, each request signed and passed on."""

import ipaddress
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from peers.errors import ConfigError
from peers.gateway import Limits
from peers.market.asking import Refused, Request
from peers.market.serving import MAX_BODY_BYTES, as_openai, model_list, whole_body
from swarm.errors import printable

if TYPE_CHECKING:
    from peers.gateway import Doorkeeper

ANSWER_SECONDS, CONNECT_SECONDS = 300.0, 10.0
MAX_ANSWER_BYTES = 8 << 20
PATHS = ("/v1/completions", "/v1/chat/completions")
_MEDIA = ("application/json", "text/event-stream")

Sign = Callable[[Request, int], str]  # the header Authorization, at unix seconds


def server_of(url: str) -> tuple[str, str]:
    """(base without /v1, its Host as it will be sent, which is what is signed). ConfigError where it is no URL of a server."""
    try:
        parts = URL(url)
        is_server = parts.scheme in ("http", "https") and parts.host and not parts.user and not parts.query_string
    except ValueError:
        is_server = False
    if not is_server or parts.host_port_subcomponent is None:
        raise ConfigError("--url", printable(url.split("@")[-1], 200), "is no http(s)://HOST[:PORT]")
    host = parts.host_port_subcomponent  # in small letters, without the port that its scheme has anyway
    return f"{parts.scheme}://{host}{parts.raw_path.rstrip('/').removesuffix('/v1')}", host


class Proxy:
    """Implements `peers.gateway.Served`. Whoever can connect asks in the licensee's name, so browsers' pages are kept out: only JSON is
    taken, which a page of another origin may not send, and only under a name of this machine."""

    def __init__(self, model: str, url: str, sign: Sign, limits: Limits | None = None) -> None:
        self.model, self.limits, self._sign = model, limits or Limits(), sign
        self._base, self._host = server_of(url)
        self._session: aiohttp.ClientSession | None = None

    def application(self, keeper: "Doorkeeper") -> web.Application:
        made = web.Application(middlewares=[keeper.answering, as_openai], client_max_size=MAX_BODY_BYTES)
        made.router.add_get("/v1/models", self._models)
        for path in PATHS:
            made.router.add_post(path, self._passed_on)
        made.cleanup_ctx.append(self._open)
        return made

    async def _open(self, application: web.Application):  # type: ignore[no-untyped-def]  # aiohttp's own form
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=limits) as self._session:
            yield

    async def _models(self, request: web.Request) -> web.Response:
        self._check_caller(request)
        return model_list(self.model)

    def _check_caller(self, request: web.Request) -> None:
        try:
            name = URL(f"http://{request.headers.get('Host', '')}").host or ""  # small, without port and brackets
            is_here = name == "localhost" or not ipaddress.ip_address(name).is_global
        except ValueError:
            is_here = False
        if not is_here or "Origin" in request.headers:
            raise Refused(403, "programs on this machine are answered, pages in a browser are not")

    async def _passed_on(self, request: web.Request) -> web.StreamResponse:
        self._check_caller(request)
        if request.content_type != "application/json":
            raise Refused(415, "send Content-Type: application/json")
        body = await whole_body(request, self.limits.idle_seconds)
        assert self._session is not None
        path = urlsplit(self._base).path + request.path
        signed = Request("POST", self._host, path, self.model, body)
        headers = {"Authorization": self._sign(signed, int(time.time())), "Content-Type": "application/json"}
        answer: web.StreamResponse | None = None
        try:
            async with self._session.post(
                self._base + request.path, data=body, headers=headers, allow_redirects=False
            ) as theirs:
                media = self._checked(theirs)
                answer = web.StreamResponse(
                    status=theirs.status, headers={"Content-Type": media, "Cache-Control": "no-store"}
                )
                await answer.prepare(request)
                taken = 0
                async for piece in theirs.content.iter_any():
                    taken += len(piece)
                    if taken > MAX_ANSWER_BYTES:
                        raise aiohttp.ClientPayloadError("an answer without end")
                    await answer.write(piece)
                await answer.write_eof()
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if answer is None or not answer.prepared:
                why = printable(str(error) or type(error).__name__, 120)
                raise Refused(502, f"{self._base} gave no usable answer ({why})") from None
            if request.transport is not None:
                request.transport.abort()  # broken off, so that it does not look whole
            return answer

    def _checked(self, theirs: aiohttp.ClientResponse) -> str:
        """The media type of an answer that can be passed on; nothing else of its head is. Refused where it is no answer of a model."""
        if theirs.status in range(300, 400):
            raise Refused(502, f"{self._base} sends elsewhere ({theirs.status}): give the URL that answers itself")
        if theirs.status not in range(200, 300) and theirs.status not in range(400, 600):
            raise Refused(502, f"{self._base} gave no usable answer (status {theirs.status})")
        media = theirs.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media not in _MEDIA:
            why = f"status {theirs.status}, Content-Type {printable(media, 40)!r}"
            raise Refused(502, f"{self._base} gave no usable answer ({why}): is it one of `sparehive model serve`?")
        return media


__all__ = ["Proxy", "server_of"]
