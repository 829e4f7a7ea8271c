"""Paths and URLs as people give them in a command line."""

from pathlib import Path

import pytest

from peers.given import check_published, given_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("tables", "tables"), ("~/tables", "/home/somebody/tables"), ("file:///a/b%20c", "/a/b c"), ("FILE:///a", "/a"),
        ("file://localhost/a", "/a"), ("~", "/home/somebody"), ("a:b", "a:b"), ("-x", "-x"), ("x~", "x~"),
    ],
)  # fmt: skip
def test_what_lies_on_this_machine(monkeypatch: pytest.MonkeyPatch, text: str, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert given_path(text) == Path(path)


def test_a_name_that_begins_with_a_tilde_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~root").mkdir()
    assert given_path("~root") == Path("~root")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file://elsewhere/a", "another machine"), ("ipfs://bafy", "gateway"), ("https://a/b", "is a URL"),
        ("s3://a", "is a URL"), ("~nobody-of-this-name/x", "unknown here"),
    ],
)  # fmt: skip
def test_what_does_not(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        given_path(text)


def test_what_stands_on_chain_can_be_opened_by_others() -> None:
    check_published("https://example.org/tables")
    check_published("ipfs://bafy")
    for uri in ("file:///home/me/tables", "tables", "~/tables"):
        with pytest.raises(ValueError, match="others need a URL"):
            check_published(uri)
    with pytest.raises(ValueError, match="printable"):
        check_published("https://a/\x1b[2J")
