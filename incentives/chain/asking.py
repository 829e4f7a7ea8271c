"""One node, asked by JSON-RPC over HTTP. Whatever goes wrong on the way is one line that says what it is and what to do.

A provider's key stands in the URL (its user, host, path or query): no message shows it, the node's own words included.
A node that asks to wait (HTTP status 429 or 503, or an error that says so) is given the time that it asks for.
"""

import json
import queue
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import getproxies

import requests
from pydantic_core import from_json
from requests.exceptions import InvalidProxyURL, InvalidSchema, InvalidURL, ProxyError, SSLError

from incentives.errors import ChainError, InputError

READ_SECONDS = 20.0  # one answer, from the first byte that is sent to the last one that is read
MAX_ANSWER_BYTES = 64 << 20
MAX_BATCH_CALLS = 10  # in one message: providers count each of them
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0  # where a node asks to wait and does not say how long
_LIMITED = re.compile(r"rate.?limit|too many requests|requests per second|compute units|throughput|\bslow down", re.I)
_SHORTEST_SECRET = 6  # characters: of a path or a query; less is a version, or the name of a network


class Unanswered(ChainError):
    """The node gave no answer that could be one: another node may."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Endpoint:
    """The node behind a URL. `shown`: the URL as messages name it. InputError: no URL."""

    def __init__(self, url: str) -> None:
        self._url, self.shown = url, shown_url(url)
        self._secrets = _secrets_of(url)
        self._is_local = (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
        self._session: requests.Session | None = None
        self._batch_calls = MAX_BATCH_CALLS

    def hide(self, text: str) -> str:
        """`text` in one line, without what of the URL may be a key."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return " ".join(text.split())

    def ask(self, calls: Sequence[tuple[str, Any]], deadline: float) -> list[dict[str, Any]]:
        """JSON-RPC's answer to each (method, parameters), in their order; several in one message where the node takes that.

        Unanswered: it cannot be reached, refuses, answers nonsense, or not before `deadline` (by the monotonic clock)."""
        found: list[dict[str, Any]] = []
        while len(found) < len(calls):
            some = calls[len(found) : len(found) + self._batch_calls]
            if len(some) == 1:
                found.append(self._ask_one(some[0], deadline))
                continue
            together = self._ask_together(some, deadline)
            if together is None:
                self._batch_calls = max(1, len(some) // 2)  # it takes fewer, or none: see what it says to that
                continue
            found += together
        return found

    # -- inside -------------------------------------------------------------------------------------------------------
    def _ask_one(self, call: tuple[str, Any], deadline: float) -> dict[str, Any]:
        found = self._patiently(_message(1, call), deadline)
        if not isinstance(found, dict) or ("result" not in found and not isinstance(found.get("error"), dict)):
            raise self._nonsense(f"{call[0]} brought neither a result nor an error")
        return found

    def _ask_together(self, calls: Sequence[tuple[str, Any]], deadline: float) -> list[dict[str, Any]] | None:
        """None where the node does not take them in one message."""
        try:
            found = self._patiently([_message(number, call) for number, call in enumerate(calls)], deadline, waits=2)
        except Unanswered:
            if time.monotonic() > deadline:
                raise
            return None
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            return None
        by_id = {each["id"]: each for each in found if isinstance(each.get("id"), int)}
        if sorted(by_id) != list(range(len(calls))):
            return None
        answers = [by_id[number] for number in range(len(calls))]
        is_whole = all("result" in each or isinstance(each.get("error"), dict) for each in answers)
        return answers if is_whole else None

    def _patiently(self, message: Any, deadline: float, waits: int | None = None) -> Any:
        """What JSON says of the answer, once the node does not ask to wait any more; Unanswered where it asks more than `waits` times."""
        body, usual = json.dumps(message).encode(), FIRST_PAUSE_SECONDS
        for waited in count():
            answer = self._post(body, deadline)
            parsed = _json(answer.body)
            if not _asks_to_wait(answer, parsed):
                return self._checked(answer, parsed)
            pause, usual = _pause_of(answer, usual), min(2 * usual, LONGEST_PAUSE_SECONDS)
            if time.monotonic() + pause > deadline or waited == waits:
                raise Unanswered(
                    f"--rpc {self.shown} asks to wait {pause:.0f} s (HTTP status {answer.status}), longer than --rpc-timeout allows: try "
                    "later, allow more, or use a node that takes more calls"
                )
            time.sleep(pause)
        raise AssertionError("not reached")

    def _checked(self, answer: _Answer, parsed: Any) -> Any:
        status, is_answer = answer.status, isinstance(parsed, dict | list)
        said = self._said(parsed)
        if status in (401, 403):
            raise Unanswered(
                f"--rpc {self.shown} refused with HTTP status {status}{said}: the key for it is missing, wrong, or not for this chain; "
                "check that the whole URL is there"
            )
        if status == 407:
            raise Unanswered(
                f"--rpc {self.shown}: the proxy wants a password (HTTP status 407): give it in {_proxy_words()}"
            )
        if 300 <= status < 400:
            host = urlsplit(answer.headers.get("location", "")).hostname
            raise Unanswered(
                f"--rpc {self.shown} sends on to {host or 'another address'} (HTTP status {status}): give the node's own address"
            )
        if _is_page(answer):
            raise Unanswered(
                f"--rpc {self.shown} answered with a web page (HTTP status {status}), as no node does: check the URL's path; a login page "
                "or a proxy may stand in between"
            )
        if status >= 400 and not (is_answer and (isinstance(parsed, list) or isinstance(parsed.get("error"), dict))):
            remedy = {
                404: "there is no node at that path: check the URL",
                405: "there is no node at that path: check the URL",
            }
            usual = "try later, or use another node" if status >= 500 else "check the address and your key for it"
            raise Unanswered(f"--rpc {self.shown} refused with HTTP status {status}{said}: {remedy.get(status, usual)}")
        if not is_answer:
            raise self._nonsense("it is no JSON" if answer.body else "it is empty")
        return parsed

    def _said(self, parsed: Any) -> str:
        error = parsed.get("error", parsed.get("message")) if isinstance(parsed, dict) else None
        text = error.get("message") if isinstance(error, dict) else error
        return f" ({self.hide(text)[:120]})" if isinstance(text, str) and text.strip() else ""

    def _nonsense(self, why: str) -> Unanswered:
        return Unanswered(f"--rpc {self.shown} gave no usable answer ({why}): is it a node, and the address right?")

    def _post(self, body: bytes, deadline: float) -> _Answer:
        """In a thread of its own: neither a name that nobody resolves nor a node that sends a byte now and then holds the command
        for longer."""
        seconds = min(READ_SECONDS, deadline - time.monotonic())
        found: queue.SimpleQueue[_Answer | Exception] = queue.SimpleQueue()
        session = self._open_session()
        if seconds > 0:
            threading.Thread(target=self._post_into, args=(found, session, body, seconds), daemon=True).start()
        try:
            answer = found.get(timeout=max(0.0, seconds))
        except queue.Empty:
            self._session = None  # whoever still reads there has it for itself
            raise Unanswered(
                f"--rpc {self.shown} did not answer in time: check the address and that the node runs, or give it longer (--rpc-timeout)"
            ) from None
        if isinstance(answer, Exception):
            raise self._explained(answer) from None
        return answer

    def _open_session(self) -> requests.Session:
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = not self._is_local  # a proxy knows nothing of this machine's loopback
        return self._session

    def _post_into(
        self, found: "queue.SimpleQueue[_Answer | Exception]", session: requests.Session, body: bytes, seconds: float
    ) -> None:
        try:
            headers = {"Content-Type": "application/json"}
            with session.post(
                self._url, data=body, headers=headers, timeout=seconds, stream=True, allow_redirects=False
            ) as answer:
                read = bytearray()
                for chunk in answer.iter_content(1 << 16):
                    read += chunk
                    if len(read) > MAX_ANSWER_BYTES:
                        raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
                lower = {name.lower(): value for name, value in answer.headers.items()}
                found.put(_Answer(answer.status_code, lower, bytes(read)))
        except Exception as error:  # of whatever library: it is explained where it is waited for
            found.put(error)

    def _explained(self, error: Exception) -> ChainError | InputError:
        said = str(error)
        where = f"--rpc {self.shown}"
        if isinstance(error, InvalidURL | UnicodeError):
            return _no_url(self.shown)
        if isinstance(error, InvalidSchema) and "SOCKS" in said:
            return Unanswered(
                f"{where}: {_proxy_words()} names a SOCKS proxy, for which a package is missing: pip install pysocks, or unset it"
            )
        if isinstance(error, InvalidSchema | InvalidProxyURL):
            return Unanswered(
                f"{where}: {_proxy_words()} names no proxy that is one (http://HOST:PORT): correct or unset it"
            )
        if isinstance(error, ProxyError) or "SOCKS" in type(error).__name__.upper() or "SOCKSConnection" in said:
            return Unanswered(
                f"{where} cannot be reached through the proxy that {_proxy_words()} names: check that it runs, or unset it (NO_PROXY for "
                "this host alone)"
            )
        if isinstance(error, SSLError) or "[SSL" in said:
            return Unanswered(f"{where} {_tls_words(said)}")
        if isinstance(error, requests.Timeout) or "timed out" in said.lower():
            return Unanswered(f"{where} did not answer in time: check the address and that the node runs")
        if isinstance(error, ValueError) and said.startswith("more than"):
            return self._nonsense(said)
        if "NameResolutionError" in said or "getaddrinfo" in said:
            return Unanswered(f"{where} cannot be reached: nobody knows that host: check the address, and your network")
        if "Connection aborted" in said or "ChunkedEncoding" in type(error).__name__ or "Remote end closed" in said:
            return Unanswered(
                f"{where} ended the connection without an answer: check the address and its port, or try later"
            )
        return Unanswered(f"{where} cannot be reached: check the address and that the node runs")


def shown_url(url: str) -> str:
    """For messages: without user, path and query, and without a label of the host that may be a key. InputError: no URL."""
    if any(ord(character) < 0x20 or character in "\x7f\x85\u2028\u2029" for character in url):
        raise InputError(
            "--rpc", _harmless(url), "holds a line break, or what cannot be seen: copy it again, in one line"
        )
    if any(character.isspace() for character in url):
        raise InputError("--rpc", _harmless(url), "holds a blank: copy it again, without")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _no_url(_harmless(url)) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _no_url(_harmless(url))
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    labels = [f"{label[:2]}…" if _is_key(label) else label for label in host.split(".")]
    return f"{parts.scheme}://{'.'.join(labels)}{f':{port}' if port else ''}"


def _harmless(url: str) -> str:
    return url[:8] + "…"


def _no_url(shown: str) -> InputError:
    return InputError(
        "--rpc", shown, "is no URL of a node: it must begin with http:// or https://, and a host must follow"
    )


def _is_key(label: str) -> bool:
    return len(label) >= 20 and label.isalnum() and any(character.isdigit() for character in label)


def _secrets_of(url: str) -> list[str]:
    """Parts of the URL that are not to be seen, the longest first."""
    parts = urlsplit(url)
    short = [parts.username or "", parts.password or ""]
    long = [*parts.path.split("/"), parts.path, parts.query, *(value for _, value in parse_qsl(parts.query))]
    long += [label for label in (parts.hostname or "").split(".") if _is_key(label)]
    found = {each for each in short if len(each) > 2} | {each for each in long if len(each) >= _SHORTEST_SECRET}
    return sorted(found | {unquote(each) for each in found}, key=len, reverse=True)


def _message(number: int, call: tuple[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": call[0], "params": call[1] or []}


def _json(body: bytes) -> Any:
    """None where it is none."""
    try:
        return from_json(body)  # bounds the depth; json.loads can overflow the stack
    except ValueError:
        return None


def _is_page(answer: _Answer) -> bool:
    return answer.body.lstrip()[:1] == b"<" or "text/html" in answer.headers.get("content-type", "").lower()


def _asks_to_wait(answer: _Answer, parsed: Any) -> bool:
    if answer.status == 429 or (answer.status == 503 and "retry-after" in answer.headers):
        return True
    items = parsed if isinstance(parsed, list) else [parsed]
    return any(isinstance(each, dict) and _is_limited(each.get("error")) for each in items)


def _is_limited(error: Any) -> bool:
    """-32005 and 429 are what providers give; EIP-1474 gives the former for results that are too large as well."""
    if not isinstance(error, dict):
        return False
    said = error.get("message")
    return error.get("code") == 429 or (
        error.get("code") in (-32005, -32029, -32007, -32097) and isinstance(said, str) and bool(_LIMITED.search(said))
    )


def _pause_of(answer: _Answer, usual: float) -> float:
    """Seconds that the node asks for: Retry-After (RFC 9110, section 10.2.3), as a number or a date."""
    asked = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", asked):
        return max(float(asked), 0.05)
    try:
        return max(parsedate_to_datetime(asked).timestamp() - time.time(), 0.05)
    except (ValueError, TypeError, OverflowError):
        return usual


def _proxy_words() -> str:
    """The variables of the environment that name a proxy, as they are set."""
    names = [f"{scheme.upper()}_PROXY" for scheme in ("https", "http", "all") if scheme in getproxies()]
    return " or ".join(names) or "HTTPS_PROXY"


def _tls_words(said: str) -> str:
    lower = said.lower()
    if (
        "wrong version number" in lower
        or "wrong_version_number" in lower
        or "record layer" in lower
        or "packet length" in lower
    ):
        return "speaks no TLS: begin the URL with http://, or check the port"
    for part, words in (
        ("certificate has expired", "has expired: tell who runs it, or set this machine's clock right"),
        ("not yet valid", "is not valid yet: set this machine's clock right"),
        ("mismatch", "is for another host: check the address"),
        ("doesn't match", "is for another host: check the address"),
        (
            "self-signed",
            "is signed by nobody that this machine trusts: a proxy may stand in between, or set REQUESTS_CA_BUNDLE",
        ),
        (
            "self signed",
            "is signed by nobody that this machine trusts: a proxy may stand in between, or set REQUESTS_CA_BUNDLE",
        ),
        (
            "local issuer",
            "is signed by nobody that this machine trusts: a proxy may stand in between, or set REQUESTS_CA_BUNDLE",
        ),
    ):
        if part in lower:
            return f"cannot be trusted: its TLS certificate {words}"
    return "cannot be spoken to by TLS: check the address and its port"


__all__ = ["Endpoint", "Unanswered", "shown_url"]
