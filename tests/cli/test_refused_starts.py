"""A start that is refused changes nothing, and what lies in the way of one is named before anything is begun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from incentives.chain.deployment import Deployment
from incentives.chain.terms import Terms
from incentives.ledger import Ledger
from incentives.records import Domain, account_of
from peers.config import PeerConfig, save_peer_config
from peers.directory import PeerDirectory
from peers.invite import Invite, RunBinding
from swarm.config import dump_run
from swarm.device import Cards
from tests.chain.commands import refused
from tests.cli.test_wrong_inputs import ORGANISER, config, invite
from tests.terminal import ROOT


def tree(root: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


@pytest.fixture
def running(tmp_path: Path) -> PeerDirectory:
    directory = PeerDirectory(tmp_path / "peer")
    directory.root.mkdir()
    directory.invite.write_text(invite() + "\n")
    save_peer_config(directory.config, PeerConfig(port=4001))
    return directory


@pytest.fixture
def organiser(tmp_path: Path) -> Path:
    from incentives.keys import load_password, store_key

    run = tmp_path / "run"
    run.mkdir()
    dump_run(config(), run / "run.toml")
    store_key(
        run / "keys" / "organiser.json", ORGANISER, load_password(run / "keys" / "organiser.password", create=True)
    )
    return run


@pytest.mark.parametrize("command", ["join", "join INVITE", "seed"])
def test_in_a_running_peers_directory(running: PeerDirectory, organiser: Path, command: str) -> None:
    arguments: tuple[object, ...] = {
        "join": ("join", "--client"),
        "join INVITE": ("join", invite(), "--threads", 7),
        "seed": ("seed", organiser, "--port", 4002),
    }[command]
    if command == "seed":
        running.seed_link.write_text("{}")
    with running.locked():
        before = tree(running.root)
        assert "another peer is running in it" in refused(*arguments, "--dir", running.root)
        assert tree(running.root) == before


@pytest.mark.skipif(len(Cards.here().cuda) > 9, reason="that card is there")
def test_on_a_card_that_is_not_there(running: PeerDirectory) -> None:
    before = tree(running.root)
    line = refused("join", invite(), "--device", "cuda:9", "--dir", running.root)
    assert "device = 'cuda:9': is not there: torch finds " in line and "cpu" in line
    assert tree(running.root) == before


def test_of_another_run_or_chain(running: PeerDirectory, organiser: Path, tmp_path: Path) -> None:
    dump_run(config("other"), organiser / "run.toml")
    before = tree(running.root)
    assert "another run" in refused("seed", organiser, "--dir", running.root)
    assert "another run" in refused("join", invite(config("other")), "--dir", running.root)
    dump_run(config(), organiser / "run.toml")
    run = config()
    terms = Terms(b"\x11" * 20, run.run_id, account_of(ORGANISER), run.unit_price, 3600, 1, 1, 1)
    Deployment(5, terms).write(organiser / "chain.json")
    assert "on chain 5" in refused("seed", organiser, "--dir", running.root)
    dump_run(config("changed"), organiser / "run.toml")
    line = refused("seed", organiser, "--dir", running.root)
    assert f"is of run 0x{run.run_id.hex()}, and {organiser / 'run.toml'} is run" in line and "restore the one" in line
    assert tree(running.root) == before


def test_a_seed_in_a_volunteers_directory_and_the_other_way_round(
    running: PeerDirectory, organiser: Path, tmp_path: Path
) -> None:
    """The invite says whose swarm it is in; who lost it would train alone, unpaid and untold."""
    before = tree(running.root)
    assert "belongs to a volunteer" in refused("seed", organiser, "--dir", running.root)
    assert tree(running.root) == before
    seed = PeerDirectory(tmp_path / "seed")
    seed.root.mkdir()
    seed.seed_link.write_text("{}")
    assert "belongs to a seed" in refused("join", invite(), "--dir", seed.root)
    assert list(seed.root.iterdir()) == [seed.seed_link]


@pytest.mark.parametrize("command", ["join", "store", "seed"])
def test_in_the_directory_of_a_run(organiser: Path, command: str) -> None:
    before = tree(organiser)
    given = {"join": (invite(),), "store": ("--run", invite()), "seed": (organiser,)}[command]
    assert "holds a run (run.toml) and no peer" in refused(command, *given, "--dir", organiser)
    assert tree(organiser) == before


def test_a_storer_in_anothers_directory_and_the_other_way_round(running: PeerDirectory) -> None:
    """One key signs in one role: a directory stays what it was made for."""
    before = tree(running.root)
    assert "belongs to a volunteer" in refused("store", "--run", invite(), "--dir", running.root)
    assert tree(running.root) == before
    save_peer_config(running.config, PeerConfig(port=4001, stores=True))
    before = tree(running.root)
    assert "belongs to a storer" in refused("join", invite(), "--dir", running.root)
    assert tree(running.root) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cid", "QmNone"), "store_cids"),
        (("--owner", "0x12"), "is no account"),
        (("--owner", "0x" + "zz" * 20), "must be 0x and 40 hexadecimal digits"),
        (("--quota", "1kB"), "disk_quota_bytes"),
    ],
)
def test_a_storer_of_what_is_none(tmp_path: Path, options: tuple[str, str], said: str) -> None:
    assert said in refused("store", "--run", invite(), "--dir", tmp_path / "store", *options)
    assert not (tmp_path / "store").exists()


def test_a_storer_without_a_run(tmp_path: Path) -> None:
    assert "--run INVITE is missing" in refused("store", "--dir", tmp_path / "store", code=2)
    assert "is no count" in refused("store", "--run", invite(), "--quota", "much", "--dir", tmp_path / "store", code=2)


def test_a_storer_imports_no_torch() -> None:
    code = (
        "import sys; from swarm.torchless import enter_without_torch; enter_without_torch(); import peers.storing.storer; "
        "print([name for name in ('torch', 'transformers', 'hivemind.averaging') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_an_invite_to_a_swarm_that_another_seed_began(running: PeerDirectory) -> None:
    before = tree(running.root)
    binding = RunBinding(config().run_id, 0, bytes(20), (b"\x02" * 20,), ())
    other = Invite.short(config(), binding, ORGANISER).encode()
    assert "share nothing" in refused("join", other, "--dir", running.root)
    assert tree(running.root) == before


def test_a_ledger_says_which_run_it_is_where_the_invite_cannot(running: PeerDirectory) -> None:
    run = config("other")
    with Ledger(running.ledger, run_id=run.run_id, domain=Domain(0, bytes(20))):
        pass
    running.invite.write_text("sparehive1:damaged")
    assert "another run" in refused("join", invite(), "--dir", running.root)
    assert running.invite.read_text() == "sparehive1:damaged"


@pytest.mark.parametrize("content", [b"", b"sparehive1:", b"\xff\xfe", invite().encode()[:-7], b'{"version": 99}'])
def test_a_damaged_invite_is_named_with_its_file(running: PeerDirectory, content: bytes) -> None:
    running.invite.write_bytes(content)
    for arguments in (("join",), ("export", "--out", running.root / "out")):
        assert str(running.invite) in refused(*arguments, "--dir", running.root)
    assert running.invite.read_bytes() == content


def test_a_cut_invite_is_never_taken_for_a_whole_one() -> None:
    whole = invite()
    for length in range(len(whole) - 12, len(whole)):
        assert "invite" in refused("join", whole[:length], "--dir", "/nowhere/peer")


@pytest.mark.parametrize("name", sorted(str(p.relative_to("/d")) for p in PeerDirectory(Path("/d")).files()))
@pytest.mark.parametrize("what", ["folder", "loop"])
def test_what_is_no_file_lies_in_the_way(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / "peer" / name
    path.parent.mkdir(parents=True)
    path.mkdir() if what == "folder" else path.symlink_to(path)
    line = refused("join", invite(), "--dir", tmp_path / "peer")
    assert f"{path} is no file" in line and "move it away" in line
    assert [str(p) for p in (tmp_path / "peer").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("name", ["keys", "blocks", "data", "contributions", "audit", "audit/states"])
def test_a_file_where_a_folder_belongs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "peer" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert f"{path} is no folder" in refused("join", invite(), "--dir", tmp_path / "peer")
    assert path.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(running: PeerDirectory) -> None:
    running.journal.write_bytes(b"")
    running.journal.chmod(0)
    assert f"{running.journal} may not be read" in refused("join", "--dir", running.root)


def test_an_option_for_once_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peers.supervisor

    started: list[list[str]] = []
    monkeypatch.setattr(peers.supervisor, "supervise", lambda arguments, view: started.append(list(arguments)) or 1)
    for arguments in (("join", invite(), "--stop-after-epoch", 8, "--threads", 2, "--quiet"), ("join", "--quiet")):
        from tests.chain.commands import sparehive

        assert sparehive(*arguments, "--dir", tmp_path / "peer")[0] == 1
    assert [("--stop-after-epoch" in each) for each in started] == [True, False]
    text = PeerDirectory(tmp_path / "peer").config.read_text()
    assert "threads = 2" in text and "stop_after_epoch = 0" in text


def test_a_key_that_signed_is_not_replaced_by_a_new_one(running: PeerDirectory) -> None:
    from peers.errors import StartError
    from peers.identity import open_identity

    open_identity(running)
    running.journal.write_bytes(b"SHJRNL1\n" + bytes(60))
    running.hot_key.unlink()
    with pytest.raises(StartError, match=r"hot\.json is missing, but this peer has signed before"):
        open_identity(running)
    assert not running.hot_key.exists()


def test_an_unfinished_wallet_leaves_no_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = ("--keystore", tmp_path / "file" / "w.json", "--password-file", tmp_path / "w.password")
    assert "cannot be written" in refused("wallet", *options)
    assert not (tmp_path / "w.password").exists()


def test_a_demo_removes_nobodys_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is not empty and not of an earlier demo" in refused("demo", "--dir", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
