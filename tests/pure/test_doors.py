"""What people paste or save is taken at every door of the product, with what chats, mail programs and editors put around it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from coincurve import PrivateKey

from incentives.errors import KeyFileError, WrongPassword
from incentives.keys import account_of, create_key, key_account, load_key, load_password, store_key, unlock_key
from peers.config import load_peer_config
from peers.errors import ConfigError
from peers.invite import Invite, RunBinding
from swarm.config import RunConfig, dump_run, load_run
from swarm.errors import InputError

KEY = PrivateKey(b"\x0b" * 32)
PASSWORD = 'p\u00e4ss "w\u00f6rd" \U0001f468\u200d\U0001f469'
RUN = RunConfig.parse(
    {
        "name": "Nachtzug \u00fc\u4e2d",
        "initial_root": "1" * 64,
        "task": {"kind": "causal_lm", "data": {"root": "2" * 64, "text": {"size": 9, "sha256": "3" * 64}}},
    }
)
INVITE = Invite.make(RUN, RunBinding(RUN.run_id, 0, bytes(20), (account_of(KEY),), ("/ip4/203.0.113.7/tcp/1",)), KEY)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("doors")
    store_key(made / "key", KEY, PASSWORD)
    (made / "password").write_text(PASSWORD + "\n", encoding="utf-8")
    dump_run(RUN, made / "run.toml")
    (made / "peer.toml").write_text('host = "127.0.0.1"\nport = 4001\n', encoding="utf-8")
    (made / "invite").write_text(INVITE.encode() + "\n", encoding="utf-8")
    return made


def opens(path: Path) -> bool:
    """Through the door that files of this name come in by."""
    if path.name == "key":
        return load_key(path, PASSWORD).secret == KEY.secret and key_account(path) == account_of(KEY)
    if path.name == "password":
        return load_password(path) == PASSWORD
    if path.name == "run.toml":
        return load_run(path).run_id == RUN.run_id
    if path.name == "peer.toml":
        return load_peer_config(path).port == 4001
    return Invite.decode(str(path)) == INVITE and Invite.decode(path.read_bytes().decode("utf-8", "ignore")) == INVITE


def mailed(text: str) -> str:
    """Broken over lines of 72 characters, and quoted in the answer."""
    return "> " + "\r\n> ".join(text.strip()[at : at + 72] for at in range(0, len(text.strip()), 72)) + "\r\n"


ALL = ("key", "password", "run.toml", "peer.toml", "invite")
PASTED: dict[str, tuple[tuple[str, ...], Callable[[str], bytes]]] = {
    "byte order mark": (ALL, lambda t: t.encode("utf-8-sig")),
    "CRLF": (ALL, lambda t: t.replace("\n", "\r\n").encode()),
    "zero-width space before and after": (ALL, lambda t: ("\u200b" + t.rstrip("\n") + "\u200b\n").encode()),
    "empty lines around": (ALL, lambda t: ("\r\n\r\n" + t + "\r\n").encode()),
    "spaces that are none": (("run.toml", "peer.toml"), lambda t: t.replace(" = ", "\u00a0=\u2009").encode()),
    "fences": (("key", "run.toml", "peer.toml", "invite"), lambda t: f"```\n{t}\n```\n".encode()),
    "words around": (("key", "invite"), lambda t: f"Here it is: {t.strip()} \u2013 see you\n".encode()),
    "quotes": (("key", "invite"), lambda t: f"\u201c{t.strip()}\u201d\n".encode()),
    "double quotes": (("key", "invite"), lambda t: f'"{t.strip()}"\n'.encode()),
    "lines of a mail": (("invite",), lambda t: mailed(t).replace("> ", "").encode()),
    "quoted lines of a mail": (("invite",), lambda t: ("join with\r\n" + mailed(t) + ">\r\n> Bye").encode()),
    "lines of a mail, words after": (("invite",), lambda t: (mailed(t).replace("> ", "") + "Bye\r\n").encode()),
}


@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for how, (names, _) in PASTED.items() for name in names], ids=lambda v: str(v)
)
def test_it_is_taken(name: str, how: str, files: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    shutil.copy(files / name, path)
    path.write_bytes(PASTED[how][1]((files / name).read_text(encoding="utf-8")))
    path.chmod(0o600)
    assert opens(path)


@pytest.mark.parametrize("name", ALL)
def test_utf_16_of_notepad(name: str, files: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes((files / name).read_text(encoding="utf-8").encode("utf-16"))
    path.chmod(0o600)
    if name != "invite":
        assert opens(path)
    else:
        assert Invite.decode(str(path)) == INVITE


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_text_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe\xff")
    path.chmod(0o600)
    with pytest.raises((ConfigError, InputError, KeyFileError)) as refused:
        opens(path)
    assert "\n" not in str(refused.value) and name.split(".")[0] in str(refused.value)


@pytest.mark.parametrize("older", ["\ufeffsecret", "\u200bsecret\u200b", "sec\u00adret", "se\u200dcret\rx"])
def test_a_key_opens_with_the_line_that_it_was_made_with(older: str, tmp_path: Path) -> None:
    """Before passwords were cleaned a key was made with the line as it stood."""
    (tmp_path / "password").write_bytes(older.encode() + b"\n")
    (tmp_path / "password").chmod(0o600)
    made = create_key(tmp_path / "key", older)
    assert unlock_key(tmp_path / "key", tmp_path / "password").secret == made.secret
    create_key(tmp_path / "other", "another")
    with pytest.raises(WrongPassword):
        unlock_key(tmp_path / "other", tmp_path / "password")
