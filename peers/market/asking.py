"""A request that a licensee signs, so that whoever serves a model knows who asks (protocol §8.12). Pure."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from coincurve import PrivateKey

from incentives.errors import BadSignature
from incentives.keys import to_checksum
from incentives.records import account_of, recover, sign
from peers.market.shares import message_digest
from swarm.hashing import sha256

SCHEME = "Sparehive"
SKEW_SECONDS = 60  # that two clocks may be apart
MAX_NONCES = 100_000
_FORM = re.compile(
    SCHEME + " account=(0x[0-9a-f]{40}), time=([0-9]{1,12}), nonce=([0-9a-f]{32}), signature=(0x[0-9a-f]{130})"
)


class Refused(Exception):
    """`status`: of HTTP; the text is for who asked."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What is signed. `host`: whom it is for, as in the header Host; `model`: with its chain."""

    method: str
    host: str
    path: str
    model: str
    body: bytes

    def digest(self, time: int, nonce: str) -> bytes:
        """Of a message (EIP-191): six lines."""
        what = f"{SCHEME} request\n{self.method} {self.path}\nto: {self.host}\nmodel: {self.model}"
        return message_digest(f"{what}\nbody: {sha256(self.body).hex()}\ntime: {time}, nonce: {nonce}")

    def sign(self, key: PrivateKey, time: int, nonce: str | None = None) -> str:
        """The header Authorization. `time`: unix seconds; `nonce`: a new one each time."""
        chosen = nonce or secrets.token_hex(16)
        signature = sign(key, self.digest(time, chosen)).hex()
        account = to_checksum(account_of(key)).lower()
        return f"{SCHEME} account={account}, time={time}, nonce={chosen}, signature=0x{signature}"


@dataclass
class Doorman:
    """Lets in whom `has_access` names, each request once. `clock`: unix seconds."""

    clock: Callable[[], float]
    has_access: Callable[[bytes], bool]
    _seen: dict[tuple[bytes, str], int] = field(default_factory=dict)

    def admit(self, request: Request, authorization: str) -> bytes:
        """Who asks. Refused: no or a wrong signature, too old or too new, heard before, no licence, too many at once."""
        found = _FORM.fullmatch(authorization)
        if found is None:
            raise Refused(401, f"sign the request: Authorization: {SCHEME} account=…, time=…, nonce=…, signature=…")
        account, time, nonce, now = bytes.fromhex(found[1][2:]), int(found[2]), found[3], self.clock()
        if abs(now - time) > SKEW_SECONDS:
            raise Refused(401, f"signed at {time}, and it is {now:.0f} here: set the clock right and sign again")
        try:
            signer = recover(request.digest(time, nonce), bytes.fromhex(found[4][2:]))
        except BadSignature:
            signer = b""
        if signer != account:
            raise Refused(401, "the signature is not of this request by this account")
        if (account, nonce) in self._seen:
            raise Refused(401, "this request was heard before: sign each with a new nonce")
        if not self.has_access(account):
            raise Refused(
                403, f"{to_checksum(account)} has no licence of {request.model}: sparehive model buy {request.model}"
            )
        self._remember(account, nonce, time, now)
        return account

    def _remember(self, account: bytes, nonce: str, time: int, now: float) -> None:
        """As long as it could be taken again."""
        if len(self._seen) >= MAX_NONCES:
            self._seen = {key: until for key, until in self._seen.items() if until >= now}
            if len(self._seen) >= MAX_NONCES:
                raise Refused(429, "too many requests: try again in a minute")
        self._seen[account, nonce] = time + SKEW_SECONDS


__all__ = ["SKEW_SECONDS", "Doorman", "Refused", "Request"]
