"""Who is let in to a model that is served: by a signature of this request, once, in time, with a licence."""

from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from incentives.records import account_of
from peers.market import asking
from peers.market.asking import SKEW_SECONDS, Doorman, Refused, Request
from tests.chain.test_license import key_of

KEY, NOW = key_of(3), 1_800_000_000
REQUEST = Request("POST", "a:8000", "/v1/completions", "1:0x" + "00" * 32, b"{}")


def doorman(has_access: bool = True, now: float = NOW) -> Doorman:
    return Doorman(lambda: now, lambda account: has_access and account == account_of(KEY))


def refused(who: Doorman, request: Request, header: str, status: int) -> str:
    with pytest.raises(Refused) as found:
        who.admit(request, header)
    assert found.value.status == status
    return str(found.value)


def test_a_licensee_is_let_in_once() -> None:
    who, header = doorman(), REQUEST.sign(KEY, NOW)
    assert who.admit(REQUEST, header) == account_of(KEY)
    assert "was heard before" in refused(who, REQUEST, header, 401)
    assert who.admit(REQUEST, REQUEST.sign(KEY, NOW)) == account_of(KEY)


@pytest.mark.parametrize(
    "other",
    [{"method": "GET"}, {"host": "b:8000"}, {"path": "/v1/chat/completions"}, {"model": "2:0x" + "00" * 32}, {"body": b"{ }"}],
)  # fmt: skip
def test_a_signature_of_another_request_does_not_count(other: dict[str, object]) -> None:
    header = replace(REQUEST, **other).sign(KEY, NOW)  # type: ignore[arg-type]
    assert "is not of this request" in refused(doorman(), REQUEST, header, 401)


def test_old_new_unsigned_and_strangers_are_refused() -> None:
    for time in (NOW - SKEW_SECONDS - 1, NOW + SKEW_SECONDS + 1):
        assert "set the clock right" in refused(doorman(), REQUEST, REQUEST.sign(KEY, time), 401)
    for header in ("", "Bearer x", REQUEST.sign(KEY, NOW)[:-1], REQUEST.sign(KEY, NOW).replace("time=1", "time=9")):
        refused(doorman(), REQUEST, header, 401)
    assert "has no licence" in refused(doorman(has_access=False), REQUEST, REQUEST.sign(KEY, NOW), 403)
    assert "has no licence" in refused(doorman(), REQUEST, REQUEST.sign(key_of(4), NOW), 403)


def test_what_is_remembered_is_bounded_and_is_never_forgotten_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_NONCES", 3)
    now = [float(NOW)]
    who = Doorman(lambda: now[0], lambda account: True)
    first = REQUEST.sign(KEY, NOW)
    who.admit(REQUEST, first)
    for _ in range(2):
        who.admit(REQUEST, REQUEST.sign(KEY, NOW))
    assert "too many requests" in refused(who, REQUEST, REQUEST.sign(KEY, NOW), 429)
    refused(who, REQUEST, first, 401)
    now[0] += SKEW_SECONDS + 1
    who.admit(REQUEST, REQUEST.sign(KEY, NOW + SKEW_SECONDS))
    assert "set the clock right" in refused(who, REQUEST, first, 401)


def test_it_is_what_a_wallet_signs_as_a_message() -> None:
    """EIP-191 by eth-account."""
    text = (
        f"Sparehive request\nPOST /v1/completions\nto: a:8000\nmodel: {REQUEST.model}\n"
        f"body: 44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\ntime: {NOW}, nonce: {'ab' * 16}"
    )
    signature = Account.sign_message(encode_defunct(text=text), KEY.secret).signature.hex()
    assert REQUEST.sign(KEY, NOW, "ab" * 16).endswith(f"signature=0x{signature}")
