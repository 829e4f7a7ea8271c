"""The supervisor with real processes: a stand-in for `peers.peer` that starts a grandchild, as a peer starts its daemon."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

PROGRAM = textwrap.dedent(
    """
    import pathlib, signal, subprocess, sys, time
    root, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
    grandchild = subprocess.Popen(["sleep", "300"])
    starts = root / "starts"
    starts.write_text((starts.read_text() if starts.exists() else "") + f"{grandchild.pid}\\n")
    if behaviour == "user-error":
        sys.exit(3)
    if behaviour == "finished":
        sys.exit(5)
    if behaviour == "dies-once" and len(starts.read_text().split()) == 1:
        import os
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "dies":
        sys.exit(1)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (root / "up").write_text(str(len(starts.read_text().split())))
    if behaviour.startswith("speaks"):
        print("sparehive: a word on stderr", file=sys.stderr, flush=True)
        time.sleep(0.6 if behaviour == "speaks and lingers" else 0)
        sys.exit(3)
    time.sleep(300)
    """
)
WATCHER = textwrap.dedent(
    """
    class Watcher(s.Nobody):
        takes_words = True
        def tick(self, pid):
            self.pid = pid
            if sys.argv[1] == "fails" and UP.exists():
                raise SystemExit(7)
            if sys.argv[1] == "tells" and UP.exists():
                print("progress", flush=True)
                UP.unlink()
        def leaving(self, by):
            print("leaving", by, flush=True)
        def said(self, text):
            print(f"said {text!r} by {self.pid > 0}", flush=True)
    """
)


def run(
    tmp_path: Path, behaviour: str, grace: float = 10.0, watcher: str = "", settings: str = ""
) -> subprocess.Popen[bytes]:
    (tmp_path / "program.py").write_text(PROGRAM)
    code = (
        "import pathlib, subprocess, sys, peers.supervisor as s\n"
        f"UP = pathlib.Path({str(tmp_path / 'up')!r})\n"
        f"{WATCHER}"
        f"s.GRACE_SECONDS = {grace}\n{settings}\n"
        "real = subprocess.Popen\n"
        f"s.subprocess.Popen = lambda command, **k: real([sys.executable, {str(tmp_path / 'program.py')!r}, *command[3:]], **k)\n"
        f"sys.exit(s.supervise([{str(tmp_path)!r}, {behaviour!r}], Watcher() if sys.argv[1] else None))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, watcher], stdout=subprocess.PIPE if watcher else None)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def grandchildren(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "starts").read_text().split()]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_sigterm_ends_the_whole_tree(tmp_path: Path) -> None:
    process = run(tmp_path, "runs")
    until((tmp_path / "up").exists)
    process.terminate()
    assert process.wait(15) == 0
    until(
        lambda: all(gone(pid) for pid in grandchildren(tmp_path))
    )  # killed with their group: the kernel takes a moment


def test_a_killed_peer_is_started_again_and_its_daemon_does_not_stay(tmp_path: Path) -> None:
    process = run(tmp_path, "dies-once")
    until((tmp_path / "up").exists)
    first, second = grandchildren(tmp_path)
    until(lambda: gone(first))
    assert not gone(second)
    process.terminate()
    assert process.wait(15) == 0
    until(lambda: gone(second))  # killed with its group: the kernel takes a moment


def test_a_user_error_is_not_retried(tmp_path: Path) -> None:
    process = run(tmp_path, "user-error")
    assert process.wait(15) == 1
    assert len(grandchildren(tmp_path)) == 1
    until(lambda: gone(grandchildren(tmp_path)[0]))


def test_a_peer_that_dies_again_and_again_is_given_up_and_not_started_without_a_pause(tmp_path: Path) -> None:
    begun = time.monotonic()
    process = run(tmp_path, "dies", settings="s.MAX_RESTARTS = 2")
    assert process.wait(30) == 1
    assert len(grandchildren(tmp_path)) == 3
    assert time.monotonic() - begun > 3.0  # 1 s, then 2 s; each pause is twice the one before


def test_who_stops_in_the_pause_before_a_restart_does_not_wait_for_it(tmp_path: Path) -> None:
    process = run(tmp_path, "dies", watcher="looks")
    until(lambda: (tmp_path / "starts").exists() and len(grandchildren(tmp_path)) == 3)  # then 4 s of pause
    until(lambda: gone(grandchildren(tmp_path)[2]))
    time.sleep(0.3)
    begun = time.monotonic()
    process.terminate()
    out, _ = process.communicate(timeout=15)
    assert time.monotonic() - begun < 2.0
    assert process.returncode == 0 and out.decode().splitlines() == [f"leaving {int(signal.SIGTERM)}"]
    assert len(grandchildren(tmp_path)) == 3


def test_a_peer_that_ignores_sigterm_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    process = run(tmp_path, "stubborn", grace=0.5)
    until((tmp_path / "up").exists)
    process.terminate()
    assert process.wait(15) == 1
    until(lambda: all(gone(pid) for pid in grandchildren(tmp_path)))


def test_a_watcher_is_told_once_that_the_owner_stops(tmp_path: Path) -> None:
    process = run(tmp_path, "stubborn", grace=1.5, watcher="looks")
    until((tmp_path / "up").exists)
    process.terminate()
    out, _ = process.communicate(timeout=15)
    assert out.decode().splitlines() == [f"leaving {int(signal.SIGTERM)}"]


def test_a_live_watcher_gets_what_the_peer_says(tmp_path: Path) -> None:
    process = run(tmp_path, "speaks", watcher="looks")
    out, _ = process.communicate(timeout=15)
    assert process.returncode == 1
    assert out.decode().splitlines() == ["said 'sparehive: a word on stderr\\n' by True"]


def test_what_a_peer_ends_with_is_said_after_all_that_it_did(tmp_path: Path) -> None:
    for number in range(3):  # at another moment of the supervisor's look each time
        place = tmp_path / str(number)
        place.mkdir()
        process = run(place, "speaks and lingers", watcher="tells")
        out, _ = process.communicate(timeout=15)
        assert process.returncode == 1
        assert out.decode().splitlines()[-1] == "said 'sparehive: a word on stderr\\n' by True"


def test_a_watcher_that_fails_leaves_no_peer_behind(tmp_path: Path) -> None:
    process = run(tmp_path, "runs", watcher="fails")
    process.communicate(timeout=15)
    assert process.returncode == 7
    until(lambda: all(gone(pid) for pid in grandchildren(tmp_path)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can signal a child when its parent dies")
def test_a_peer_gets_sigterm_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time, peers.supervisor as s\n"
        "if os.fork() == 0:\n"
        "    s.die_with_parent()\n"
        f"    open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(300)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "")
    child = int((tmp_path / "child").read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: gone(child))


def test_a_run_that_has_ended_is_not_tried_again(tmp_path: Path) -> None:
    process = run(tmp_path, "finished")
    assert process.wait(15) == 5
    assert len(grandchildren(tmp_path)) == 1
