"""What was pasted from a chat is what was meant."""

from hypothesis import given
from hypothesis import strategies as st

from incentives import pasted

INVISIBLE = st.text("\ufeff\u200b\u200d\u2060\u00ad\u202e", max_size=4)
AROUND = st.sampled_from(["", " ", '"', "'", "`", "\r\n", "join with: ", "\u201c", "<", "(", "\u00a0"])
AFTER = st.sampled_from(["", " ", '"', "'", "`", "\r\n", " see you there", "\u201d", ">", ").", "\u00a0", "."])
WORD = st.from_regex(r"[A-Za-z0-9_-]{1,40}={0,2}", fullmatch=True)


@given(WORD, AROUND, AFTER, INVISIBLE, INVISIBLE, st.integers(0, 40), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_an_invite_is_found(word: str, before: str, after: str, hidden: str, more: str, at: int, encoding: str) -> None:
    invite = "sparehive1:" + word
    text = before + more + invite[:at] + hidden + invite[at:] + more + after
    assert next(pasted.words(pasted.decoded(text.encode(encoding)), "sparehive1:")) == invite


@given(
    st.text(st.characters(exclude_categories=("Cf", "Cc", "Cs"))), INVISIBLE, st.sampled_from(["", "\n", "\r\n", "\r"])
)
def test_a_password_keeps_all_that_is_seen(password: str, hidden: str, end: str) -> None:
    file = (hidden + password + hidden + end + ("more" if end else "")).encode()
    assert pasted.passwords(file)[:1] == [password] or not password


def test_a_password_is_cleaned_at_its_ends_alone() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one emoji, of three and two joiners
    assert pasted.passwords(family.encode()) == [family]
    assert pasted.passwords(("\u200b\r\n\ufeff" + family + "\u2060\r\n").encode("utf-8-sig")) == [
        family,
        "\ufeff\u200b",
    ]
    assert pasted.passwords(b"\r\n\n") == pasted.passwords("\u200b"[:0].encode()) == []


def test_json_with_words_around() -> None:
    assert pasted.braced('\ufeffHere: `{"a": {"b":\u200b 1}}`\r\nbye') == '{"a": {"b": 1}}'
    assert pasted.braced("no object") == ""
