"""The signing journal: what it refuses, and what a crash or a full disk leaves behind."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incentives.errors import Equivocation, InputError, StorageError
from incentives.journal import MAGIC, JournalEntry, SigningJournal, Subject

SUBJECT = Subject(b"\1" * 32, "RoundVote", b"\2" * 32, 7, 1, b"\3" * 32, b"part")
ONE, TWO = b"\x11" * 32, b"\x22" * 32


def _filled(path: Path, count: int = 3) -> list[JournalEntry]:
    entries = [JournalEntry(SUBJECT._replace(epoch=i), bytes([i + 1]) * 32, b"keep" * i) for i in range(count)]
    with SigningJournal(path) as journal:
        for entry in entries:
            journal.record(*entry)
    return entries


def test_the_same_digest_may_be_recorded_again_and_another_may_not(tmp_path: Path) -> None:
    with SigningJournal(tmp_path / "j") as journal:
        journal.record(SUBJECT, ONE, b"first")
        journal.record(SUBJECT, ONE, b"second")
        with pytest.raises(Equivocation, match="epoch 7, attempt 1"):
            journal.record(SUBJECT, TWO)
        assert list(journal.entries()) == [JournalEntry(SUBJECT, ONE, b"first")]


@pytest.mark.parametrize(
    "change",
    [
        {"domain": b"\4" * 32},
        {"kind": "RoundVoid"},
        {"run_id": b"\4" * 32},
        {"epoch": 8},
        {"attempt": 2},
        {"prev_certificate": b"\4" * 32},
        {"subject": b"par"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_the_subject_counts(tmp_path: Path, change: dict[str, object]) -> None:
    with SigningJournal(tmp_path / "j") as journal:
        journal.record(SUBJECT, ONE)
        journal.record(SUBJECT._replace(**change), TWO)
        assert len(journal) == 2


def test_it_remembers_after_it_is_opened_again(tmp_path: Path) -> None:
    entries = _filled(tmp_path / "j")
    with SigningJournal(tmp_path / "j") as journal:
        assert list(journal.entries()) == entries
        assert list(journal.entries("RoundVote")) == entries
        assert list(journal.entries("Average")) == []
        for entry in entries:
            assert journal.digest_of(entry.subject) == entry.digest
            with pytest.raises(Equivocation):
                journal.record(entry.subject, TWO[:-1] + b"\0")


def test_whatever_the_crash_cut_off_the_last_frame_the_ones_before_stay(tmp_path: Path) -> None:
    path = tmp_path / "j"
    entries = _filled(path)
    whole = path.read_bytes()
    _filled(tmp_path / "two", 2)
    last_frame = (tmp_path / "two").stat().st_size
    for length in range(last_frame, len(whole)):
        path.write_bytes(whole[:length])
        with SigningJournal(path) as journal:
            assert list(journal.entries()) == entries[:2], length
            journal.record(*entries[2])
        assert path.read_bytes() == whole


def test_space_that_was_allocated_and_never_written_is_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    entries = _filled(path)
    whole = path.read_bytes()
    for cut in (len(whole), len(whole) - 1, len(whole) - 40):
        path.write_bytes(whole[:cut] + bytes(5000))
        with SigningJournal(path) as journal:
            assert list(journal.entries()) == (entries if cut == len(whole) else entries[:2])


def test_a_file_whose_creation_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for start in (b"", MAGIC[:3], bytes(8), bytes(4096)):
        path.write_bytes(start)
        with SigningJournal(path) as journal:
            journal.record(SUBJECT, ONE)
        with SigningJournal(path) as journal:
            assert len(journal) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0), bit=st.integers(0, 7))
def test_damage_before_the_last_frame_is_never_taken_for_a_torn_end(tmp_path: Path, position: int, bit: int) -> None:
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    _filled(path, 2)
    last_frame = path.stat().st_size
    path.unlink()
    _filled(path, 3)
    data = bytearray(path.read_bytes())
    data[position % last_frame] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(StorageError) as caught:
        SigningJournal(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == data


def test_a_flipped_bit_in_the_last_record_is_no_torn_end(tmp_path: Path) -> None:
    """It was acknowledged: taking it off would mean forgetting it."""
    path = tmp_path / "j"
    _filled(path, 2)
    start = path.stat().st_size
    path.unlink()
    _filled(path, 3)
    whole = path.read_bytes()
    for position in range(start, len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(StorageError, match="damaged at byte"):
            SigningJournal(path)
        assert path.stat().st_size == len(whole)


def test_a_record_of_which_some_sectors_were_never_written_heals(tmp_path: Path) -> None:
    path = tmp_path / "j"
    _filled(path, 2)
    two = path.read_bytes()
    with SigningJournal(path) as journal:
        journal.record(SUBJECT._replace(epoch=9), ONE, b"\x07" * 3000)
    whole = path.read_bytes()
    for sector in range(1024, len(whole), 512):
        path.write_bytes(whole[:sector] + bytes(min(512, len(whole) - sector)) + whole[sector + 512 :])
        with SigningJournal(path) as journal:
            assert len(journal) == 2
            journal.record(SUBJECT._replace(epoch=10), ONE)
        with SigningJournal(path) as journal:
            assert [entry.subject.epoch for entry in journal.entries()] == [0, 1, 10]
    assert len(two) < 1024


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"something else\n")
    with pytest.raises(StorageError, match="no signing journal"):
        SigningJournal(path)
    assert path.read_bytes() == b"something else\n"


def test_a_second_opener_in_this_process_is_refused_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with SigningJournal(path) as journal:
        for _ in range(2):
            with pytest.raises(StorageError, match="in use"):
                SigningJournal(path)
        assert "in use" in _open_elsewhere(path)
        journal.record(SUBJECT, ONE)
    assert _open_elsewhere(path) == ""
    SigningJournal(path).close()


def _open_elsewhere(path: Path) -> str:
    code = (
        "import sys; from pathlib import Path; from incentives.journal import SigningJournal as J; J(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stderr


def test_a_child_made_by_fork_neither_signs_nor_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = SigningJournal(path)
    ready, wake = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            journal.record(SUBJECT, ONE)
        except StorageError:
            os.write(ready[1], b"refused")
        os.read(wake[0], 1)  # lives on, as a daemon of the DHT would
        os._exit(0)
    try:
        assert os.read(ready[0], 7) == b"refused"
        journal.close()
        assert _open_elsewhere(path) == ""
    finally:
        os.write(wake[1], b"x")
        os.waitpid(child, 0)


def test_what_was_recorded_before_a_sigkill_is_there_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "j"
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from incentives.journal import SigningJournal, Subject
        journal = SigningJournal(Path(sys.argv[1]))
        epoch = 0
        while True:
            subject = Subject(bytes(32), "RoundVote", bytes(32), epoch, 0, bytes(32))
            journal.record(subject, epoch.to_bytes(32, "big"), bytes(3000))
            sys.stdout.buffer.write(b"%d\\n" % epoch)
            sys.stdout.flush()
            epoch += 1
        """
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
    with SigningJournal(path) as journal:
        recorded = [entry.subject.epoch for entry in journal.entries()]
    assert recorded[: len(acknowledged)] == acknowledged
    assert len(recorded) - len(acknowledged) <= 1  # the one that was on its way


def test_a_full_disk_signs_nothing_and_the_journal_goes_on_when_there_is_space(tmp_path: Path) -> None:
    """A limit on the file's size is what a full disk looks like to a process that may not mount one."""
    path = tmp_path / "j"
    with SigningJournal(path) as journal:
        journal.record(SUBJECT, ONE)
        size = path.stat().st_size
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        try:
            with pytest.raises(StorageError, match="nothing was signed") as caught:
                journal.record(SUBJECT._replace(epoch=8), TWO, bytes(1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert "\n" not in str(caught.value)
        assert path.stat().st_size == size
        journal.record(SUBJECT._replace(epoch=8), TWO, bytes(1000))
    with SigningJournal(path) as journal:
        assert len(journal) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_after_a_failed_fsync_nothing_is_signed_until_the_journal_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with SigningJournal(tmp_path / "j") as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(StorageError, match=os.strerror(number)):
                journal.record(SUBJECT, ONE)
        with pytest.raises(StorageError, match="restart"):
            journal.record(SUBJECT, ONE)
    with SigningJournal(tmp_path / "j") as journal:
        journal.record(SUBJECT, ONE)


def test_each_record_is_on_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real: Callable[[int], None] = os.fsync

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        real(file)

    with SigningJournal(tmp_path / "j") as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        for epoch in range(3):
            journal.record(SUBJECT._replace(epoch=epoch), ONE)
            assert synced[epoch:] == [(tmp_path / "j").stat().st_size]


def test_bad_arguments_and_a_closed_journal_are_one_line_errors(tmp_path: Path) -> None:
    journal = SigningJournal(tmp_path / "j")
    with pytest.raises(InputError, match="digest"):
        journal.record(SUBJECT, b"short")
    with pytest.raises(InputError, match="run_id"):
        journal.record(SUBJECT._replace(run_id=b""), ONE)
    journal.close()
    journal.close()
    with pytest.raises(StorageError, match="closed"):
        journal.record(SUBJECT, ONE)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        SigningJournal(tmp_path / "file" / "j")


def _group(path: Path, count: int = 3) -> tuple[list[JournalEntry], bytes]:
    """One entry by itself, then a group; and the file."""
    entries = [JournalEntry(SUBJECT._replace(epoch=i), bytes([i + 1]) * 32, b"keep" * 90 * i) for i in range(count + 1)]
    with SigningJournal(path) as journal:
        journal.record(*entries[0])
        for entry in entries[1:]:
            journal.append(*entry)
        journal.flush()
    return entries, path.read_bytes()


def test_what_is_appended_binds_at_once_and_is_on_disk_after_one_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real: Callable[[int], None] = os.fsync
    with SigningJournal(tmp_path / "j") as journal:
        monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), real(file))[0])
        numbers = [journal.append(SUBJECT._replace(epoch=epoch), ONE) for epoch in range(50)]
        assert journal.append(SUBJECT._replace(epoch=3), ONE) == numbers[-1]  # not before the others
        with pytest.raises(Equivocation):
            journal.append(SUBJECT._replace(epoch=3), TWO)
        with pytest.raises(Equivocation):
            journal.record(SUBJECT._replace(epoch=3), TWO)
        assert (journal.flushed, synced, list(journal.entries())) == (0, [], [])
        journal.flush()
        assert journal.flushed == numbers[-1] and len(synced) == 1
        journal.flush()
        assert len(synced) == 1
        journal.append(SUBJECT._replace(epoch=50), ONE)
        journal.record(SUBJECT._replace(epoch=51), ONE)  # takes along what waits
        assert len(synced) == 2
        assert [entry.subject.epoch for entry in journal.entries()] == list(range(52))
    with SigningJournal(tmp_path / "j") as journal:
        assert [entry.subject.epoch for entry in journal.entries()] == list(range(52))


def test_a_group_that_a_crash_cut_off_is_gone_as_a_whole(tmp_path: Path) -> None:
    """None of it was acknowledged; half of it could not be told from damage to what was."""
    path = tmp_path / "j"
    entries, whole = _group(path)
    with SigningJournal(tmp_path / "one") as journal:
        journal.record(*entries[0])
    start = (tmp_path / "one").stat().st_size
    for length in range(start, len(whole), 7):
        path.write_bytes(whole[:length])
        with SigningJournal(path) as journal:
            assert list(journal.entries()) == entries[:1], length
    for sector in range(512, len(whole), 512):
        path.write_bytes(whole[:sector] + bytes(min(512, len(whole) - sector)) + whole[sector + 512 :])
        with SigningJournal(path) as journal:
            assert list(journal.entries()) == entries[:1], sector
            journal.record(*entries[1])
        with SigningJournal(path) as journal:
            assert list(journal.entries()) == entries[:2]


def test_a_flipped_bit_in_a_group_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "j"
    _, whole = _group(path)
    for position in range(len(MAGIC), len(whole), 5):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(StorageError, match="damaged at byte"):
            SigningJournal(path)


def test_a_journal_from_before_there_were_groups_is_taken_up(tmp_path: Path) -> None:
    """And who knows no groups refuses it from then on, where it would have taken one for a torn end."""
    path = tmp_path / "j"
    entries = _filled(path)
    path.write_bytes(b"SHJRNL1\n" + path.read_bytes()[len(MAGIC) :])
    with SigningJournal(path) as journal:
        assert list(journal.entries()) == entries
        journal.record(SUBJECT._replace(epoch=90), ONE)
        assert path.read_bytes()[:8] == b"SHJRNL1\n"
        journal.append(SUBJECT._replace(epoch=91), ONE)
        journal.append(SUBJECT._replace(epoch=92), ONE)
        journal.flush()
        assert path.read_bytes()[:8] == MAGIC
    with SigningJournal(path) as journal:
        assert [entry.subject.epoch for entry in journal.entries()] == [0, 1, 2, 90, 91, 92]


def test_who_promised_what_the_disk_then_refuses_signs_nothing_more(tmp_path: Path) -> None:
    """What was appended has been signed, and shown to nobody: it must not be forgotten while the process goes on."""
    path = tmp_path / "j"
    with SigningJournal(path) as journal:
        journal.record(SUBJECT, ONE)
        size = path.stat().st_size
        journal.append(SUBJECT._replace(epoch=8), ONE, bytes(1000))
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        try:
            with pytest.raises(StorageError, match="nothing was signed"):
                journal.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert journal.flushed == 1
        for sign in (journal.record, journal.append):
            with pytest.raises(StorageError, match="restart"):
                sign(SUBJECT._replace(epoch=8), TWO)
        with pytest.raises(StorageError, match="restart"):
            journal.flush()
    with SigningJournal(path) as journal:
        assert len(journal) == 1


def test_appending_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_syncing, may_go_on = threading.Event(), threading.Event()

    def fsync(_: int) -> None:
        is_syncing.set()
        assert may_go_on.wait(30.0)

    with SigningJournal(tmp_path / "j") as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        journal.append(SUBJECT, ONE)
        flushing = threading.Thread(target=journal.flush)
        flushing.start()
        assert is_syncing.wait(30.0)
        number = journal.append(SUBJECT._replace(epoch=8), ONE)  # would never return
        assert journal.digest_of(SUBJECT) == ONE
        may_go_on.set()
        flushing.join(30.0)
        assert journal.flushed < number
