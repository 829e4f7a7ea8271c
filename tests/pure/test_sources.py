"""Which files a run's text is made of, in which order; what is left out is named."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers.errors import ConfigError
from peers.sources import read_sources


def write(folder: Path, *names: str | bytes, text: bytes = b"text\n") -> None:
    for name in names:
        path = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(text)


def test_names_that_would_become_one_are_two_files_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    write(tmp_path, "a/b.txt", text=b"1")
    write(tmp_path, "a-b.txt", text=b"2")
    write(tmp_path, "a b.txt", text=b"3")
    write(tmp_path, "é/ä.md", text=b"4")
    write(tmp_path, "é-ä.md", text=b"5")
    write(tmp_path, "日本語.TXT", text=b"6")
    write(tmp_path, "😀.py", text=b"7")
    found = read_sources(tmp_path)
    assert [file.name for file in found.files] == [
        "a/b.txt", "a b.txt", "a-b.txt", "é/ä.md", "é-ä.md", "日本語.TXT", "😀.py",
    ]  # fmt: skip
    assert found.text() == b"1324567"
    assert (found.skipped, found.words()) == ({}, "")


def test_names_that_are_no_text_are_taken_and_shown_escaped(tmp_path: Path) -> None:
    write(tmp_path, b"\xff\xfe.txt", b"line\nfeed.txt")
    assert [file.name for file in read_sources(tmp_path).files] == ["line\nfeed.txt", "\\xff\\xfe.txt"]


def test_what_is_left_out_is_counted_and_named_by_reason(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("not to be published\n")
    folder = tmp_path / "texts"
    write(folder, "good.txt", "image.png", "deep/movie.mp4", "a.bin", "b.bin", "c.bin")
    write(folder, "empty.txt", text=b"")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket.txt"))
    found = read_sources(folder)
    assert [file.name for file in found.files] == ["good.txt"]
    assert {why: sorted(names) for why, names in found.skipped.items()} == {
        "empty": ["empty.txt"],
        "neither .txt, .py nor .md": ["a.bin", "b.bin", "c.bin", "deep/movie.mp4", "image.png"],
        "pipe": ["pipe.txt"],
        "socket": ["socket.txt"],
        "symbolic link": ["link.txt", "up"],
    }
    assert found.words() == (
        "left out of the text: 1 empty (empty.txt); 5 neither .txt, .py nor .md (a.bin, b.bin, c.bin and 2 more); "
        "1 pipe (pipe.txt); 1 socket (socket.txt); 2 symbolic link (link.txt, up)"
    )


def test_what_is_hidden_or_of_a_run_is_not_taken(tmp_path: Path) -> None:
    """Who makes a second run beside the first would have its whole text twice, what is held out too."""
    write(
        tmp_path,
        "good.txt",
        ".env.txt",
        ".git/note.txt",
        "run/run.toml",
        "run/data/text.txt",
        "peer/identity.key",
        "peer/data/x.txt",
    )
    found = read_sources(tmp_path)
    assert [file.name for file in found.files] == ["good.txt"]
    assert {why: sorted(names) for why, names in found.skipped.items()} == {
        "hidden": [".env.txt", ".git"],
        "the directory of a run or a peer": ["peer", "run"],
    }


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A directory of this process's user, who is not root (root reads everything)."""
    folder = Path(tempfile.mkdtemp())  # not pytest's, which others may not enter
    was = os.geteuid()
    if was == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(was)
        subprocess.run(["rm", "-rf", folder], check=True)


def test_unreadable_files_and_folders_are_left_out_and_said(as_nobody: Path) -> None:
    write(as_nobody, "good.txt", "bad.txt", "closed/inner.txt")
    (as_nobody / "bad.txt").chmod(0)
    (as_nobody / "closed").chmod(0)
    assert read_sources(as_nobody).skipped == {"unreadable: Permission denied": ["bad.txt", "closed"]}
    (as_nobody / "closed").chmod(0o700)


@pytest.mark.parametrize("what", ["pipe", "device", "missing", "empty", "nothing fits", "an odd name"])
def test_what_is_no_text_is_refused_with_the_reason(tmp_path: Path, what: str) -> None:
    path = tmp_path / "it"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path = Path(os.devnull)
    elif what == "empty":
        path.mkdir()
    elif what == "nothing fits":
        write(path, "x.png")
    elif what == "an odd name":
        path = Path("a\0b")
    said = {
        "pipe": "is a pipe",
        "device": "is a device",
        "missing": "does not exist",
        "empty": "holds no text; give",
        "nothing fits": r"holds no text; left out of the text: 1 neither .txt, .py nor .md \(x.png\)",
        "an odd name": "cannot be read",
    }[what]
    with pytest.raises(ConfigError, match=said) as error:
        read_sources(path)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_very_deep_or_a_link_is_read(tmp_path: Path) -> None:
    base = os.fsencode(tmp_path / "deep")
    os.mkdir(base)
    inner = base
    old = os.getcwd()
    try:
        os.chdir(base)
        for _ in range(1200):  # deeper than Python's stack
            os.mkdir("d")
            os.chdir("d")
            inner += b"/d"
        with open("t.txt", "wb") as stream:
            stream.write(b"bottom")
    finally:
        os.chdir(old)
    assert read_sources(tmp_path / "deep").text() == b"bottom"
    (tmp_path / "link").symlink_to(tmp_path / "deep")  # named by its user: followed
    assert read_sources(tmp_path / "link").text() == b"bottom"
    subprocess.run(["rm", "-rf", base], check=True)  # shutil's recursion is as deep


def test_sha256sum_checks_the_list(tmp_path: Path) -> None:
    write(tmp_path / "texts", "a/b.txt", "é.txt", "back\\slash.txt", "line\nfeed.txt")
    (tmp_path / "sources.sha256").write_text(read_sources(tmp_path / "texts").checksums(), encoding="utf-8")
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "../sources.sha256"],
        cwd=tmp_path / "texts",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
