"""Real peers that die as scripted: `python -m tests.faults.runner` imports everything once and forks a process per peer.

One JSON line on stdin starts a process ({"argv", "log", "script"}); one on stdout says its pid, another its exit status.
A forked child runs `peers.peer.main` (or the command line) as a user's process does; only its network is `FaultyNetwork`,
which ends the process with SIGKILL at the message that the script names and notes every message for the tests.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from peers.cli import main as command_line
from peers.peer import Peer
from peers.peer import main as peer_main
from peers.supervisor import kill_group
from swarm.averaging.records import (
    Account,
    Average,
    CallContent,
    Hash,
    Record,
    RoundCall,
    RoundCertificate,
    RoundSet,
    RoundVote,
)
from swarm.averaging.wire import unpack
from swarm.transport.network import SwarmNetwork

POINTS = ("ready", "mid-scatter", "set", "half-average", "vote", "half-vote", "certificate", "half-certificate")
ROLES = ("initiator", "reducer", "contributor")


class FaultyNetwork(SwarmNetwork):
    """Dies where `script` (a JSON file, read at every point) says: {"case", "point", "role", "min_epoch"}.

    Of several peers the first to come by claims the case, so that one script kills one process. initiator: made the
    newest call; reducer: was drawn in it; contributor: neither."""

    script: Path
    seen: Path

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self._call: tuple[Account, tuple[Account, ...], int] | None = None
        self._me: Account = b""
        self._flags = 0
        self._dying = False
        self._seen = open(self.seen, "ab", buffering=0)  # noqa: SIM115 (ends with the process)

    async def join(
        self,
        run_id: Hash,
        account: Account,
        flags: int,
        sign_hello: Callable[[bytes], bytes],
        recover_hello: Callable[[bytes, bytes], Account],
        initial_peers: Sequence[str],
        lookup: Callable[[Hash], bytes | None],
        on_message: Callable[[Account, bytes], bool],
        on_part: Callable[[Account, bytes, bytes], str],
        backlog: Callable[[], Iterable[bytes]],
        on_change: Callable[[Account, int, bool], None],
    ) -> None:
        self._me, self._flags = account, flags

        def heard(sender: Account, data: bytes) -> bool:
            record = self._note(data)
            if self._dying:
                return False
            if isinstance(record, RoundSet):
                self._die_at("set", record.epoch)
            return on_message(sender, data)

        await super().join(
            run_id, account, flags, sign_hello, recover_hello, initial_peers, lookup, heard, on_part, backlog, on_change
        )

    def _note(self, data: bytes) -> Record:
        self._seen.write(len(data).to_bytes(4, "big") + data)
        signed = unpack(data)
        if isinstance(signed.record, RoundCall) and isinstance(signed.content, CallContent):
            self._call = (signed.signer, signed.content.reducers, signed.record.epoch)
        return signed.record

    def _role(self) -> str:
        if self._call is None or not self._flags:
            return ""  # a seed has no part in this
        initiator, reducers, _ = self._call
        return "initiator" if initiator == self._me else "reducer" if self._me in reducers else "contributor"

    def _is_due(self, point: str, epoch: int) -> bool:
        with contextlib.suppress(OSError, ValueError):
            script = json.loads(self.script.read_text())
            if script["point"] == point and script["role"] in ("any", self._role()) and epoch >= script["min_epoch"]:
                claim = os.open(
                    self.script.with_name(f"case-{script['case']}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644
                )
                os.write(claim, json.dumps({"account": "0x" + self._me.hex(), "epoch": epoch}).encode())
                os.close(claim)
                return True
        return False

    def _die_at(self, point: str, epoch: int) -> None:
        if self._is_due(point, epoch):
            os.kill(os.getpid(), signal.SIGKILL)

    def publish(self, data: bytes) -> None:
        record = self._note(data)
        if self._dying:
            return
        name = {RoundVote: "vote", RoundCertificate: "certificate", Average: "average"}.get(type(record))
        if name in ("vote", "certificate"):
            self._die_at(name, record.epoch)
        if name is not None and self._is_due("half-" + name, record.epoch):
            self._send_then_die(data, half=True)
        elif isinstance(record, RoundSet) and self._is_due("set", record.epoch):
            self._send_then_die(data, half=False)
        else:
            super().publish(data)

    def _send_then_die(self, data: bytes, half: bool) -> None:
        assert self.links is not None
        self._dying = True
        links = sorted(self.links.links.values(), key=lambda link: link.account)
        chosen = links[: max(1, len(links) // 2)] if half else links
        for link in chosen:
            self.links._enqueue(link, data)

        async def die() -> None:
            deadline = time.monotonic() + 2.0
            while any(link.queued_bytes for link in chosen) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # the daemon has it now; whether it gets further is up to the network
            os.kill(os.getpid(), signal.SIGKILL)

        self._death = asyncio.get_running_loop().create_task(die())

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        if self._dying:
            return
        if self._call is not None and self._is_due("mid-scatter", self._call[2]):
            self._dying = True
            await super().push_parts(account, parts[: max(1, len(parts) // 2)], timeout)
            os.kill(os.getpid(), signal.SIGKILL)
        await super().push_parts(account, parts, timeout)


class FaultyPeer(Peer):
    network_type = FaultyNetwork


def _child(order: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(order["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    argv = order["argv"]
    sys.argv = ["sparehive", *argv]
    if argv[0] in ("peer", "faulty"):
        sys.argv = ["peers.peer", *argv[1:]]
        if argv[0] == "faulty":
            FaultyNetwork.script = Path(order["script"])
            FaultyNetwork.seen = Path(argv[2]) / "seen.bin"
            peer_main(FaultyPeer)
        else:
            peer_main()
    else:
        command_line()


def serve() -> None:
    """Until stdin ends; then every process it started is killed."""
    running: set[int] = set()
    buffer = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.05)
        if ready:
            more = os.read(0, 65536)
            if not more:
                break
            *lines, buffer = (buffer + more).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        _child(json.loads(line))
                        code = 0
                    except SystemExit as left:
                        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
                    except BaseException:
                        import traceback

                        traceback.print_exc()
                    finally:
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os._exit(code)
                running.add(pid)
                os.write(1, json.dumps({"pid": pid}).encode() + b"\n")
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.discard(pid)
                kill_group(pid)  # as the supervisor does: the p2p daemon would outlive its peer
                os.write(1, json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    for pid in running:
        kill_group(pid)


if __name__ == "__main__":
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401 (otherwise imported anew by every child)

    serve()
