"""Real peers that die as scripted: `python -m tests.faults.runner` imports everything once and forks a process per peer.

One JSON line on stdin starts a process ({"argv", "log", "script"}); one on stdout says its pid, another its exit status.
A forked child runs `peers.peer.main` (or the command line) as a user's process does; only its network is `FaultyNetwork`,
which ends the process with SIGKILL at the message that the script names and notes every message for the tests.
"""

import asyncio
import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from peers.cli import main as command_line
from peers.peer import Peer
from peers.peer import main as peer_main
from peers.supervisor import kill_group
from swarm import events
from swarm.averaging.member import Boundary
from swarm.averaging.reception import Reception
from swarm.errors import PeerFault
from swarm.hashing import sha256
from swarm.network import Membership, NetworkSettings, SwarmNetwork
from swarm.records.types import (
    ZERO_HASH,
    Account,
    Average,
    CallContent,
    Contribution,
    Hash,
    PartLeaf,
    Record,
    RoundCall,
    RoundCertificate,
    RoundSet,
    RoundVote,
)
from swarm.records.wire import unpack
from swarm.tasks.causal_lm import CausalLMTask
from swarm.train import Trainer
from swarm.transport.link import Kind

LATE_SECONDS = 4.0  # after every deadline of tests.faults.swarm.TINY


class FaultyNetwork(SwarmNetwork):
    """Dies where `script` (a JSON file, read at every point) says: {"case", "point", "role", "min_epoch"}.

    Of several peers the first to come by claims the case, so that one script kills one process. initiator: made the
    newest call; reducer: was drawn in it; contributor: neither."""

    script: Path
    seen: Path

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._call: tuple[Account, tuple[Account, ...], int] | None = None
        self._me: Account = b""
        self._flags = 0
        self._dying = False
        self._seen = open(self.seen, "ab", buffering=0)  # noqa: SIM115 (ends with the process)

    async def join(self, membership: Membership, handler: Any, settings: NetworkSettings) -> None:
        self._me, self._flags = membership.account, membership.flags
        on_message = handler.on_message

        async def heard(sender: Account, data: bytes) -> bool:
            record = None
            with contextlib.suppress(PeerFault):  # what cannot be read is for the peer to judge
                record = self._note(data)
            if self._dying:
                return False
            if isinstance(record, RoundSet):
                self._die_at("set", record.epoch)
            return bool(await on_message(sender, data))

        handler.on_message = heard
        self.adjust(handler)
        await super().join(membership, handler, settings)

    def adjust(self, handler: Any) -> None:
        """For subclasses: what the peer does with what comes."""

    async def close(self) -> None:
        if self._is_due("hung-close", 1 << 32):
            await asyncio.Event().wait()
        await super().close()

    def _note(self, data: bytes) -> Record:
        with contextlib.suppress(OSError):  # the disk may be full on purpose
            self._seen.write(b"\n" + data.hex().encode() + b".")
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

    def publish(self, data: bytes, again: bool = False) -> None:
        record = self._note(data)
        if self._dying:
            return
        names = {Contribution: "contribution", RoundVote: "vote", RoundCertificate: "certificate", Average: "average"}
        name = names.get(type(record))
        if isinstance(record, RoundVote) and record.id == ZERO_HASH:
            name = None  # a time-out: it votes for nothing
        if name in ("contribution", "vote", "certificate"):  # signed and journaled, seen by nobody
            self._die_at(name, record.epoch)
        if name is not None and self._is_due("half-" + name, record.epoch):
            self._send_then_die(data, half=True)
        elif isinstance(record, RoundSet) and self._is_due("set", record.epoch):
            self._send_then_die(data, half=False)
        else:
            super().publish(data, again)

    def _send_then_die(self, data: bytes, half: bool) -> None:
        assert self.links is not None
        self._dying = True
        links = sorted(self.links.links.values(), key=lambda link: link.account)
        chosen = links[: max(1, len(links) // 2)] if half else links
        for link in chosen:
            link.put(Kind.MESSAGE, data)

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
            try:
                await super().push_parts(account, parts[: max(1, len(parts) // 2)], timeout)
            finally:  # also where the other one has just left: else it would neither die nor take part
                os.kill(os.getpid(), signal.SIGKILL)
        await super().push_parts(account, parts, timeout)


class FaultyPeer(Peer):
    network_type = FaultyNetwork


class HostileNetwork(FaultyNetwork):
    """Follows the protocol in everything but the rule that `attack` (a file with its name, read each time) names."""

    attack: Path
    withheld: ClassVar[set[Hash]] = set()  # parts that it was to send, and sent wrongly or late

    @classmethod
    def breaks(cls, *rules: str) -> bool:
        return cls.attack.exists() and cls.attack.read_text() in rules

    def adjust(self, handler: Any) -> None:
        lookup = handler.lookup
        handler.lookup = lambda digest: None if digest in self.withheld else lookup(digest)

    def publish(self, data: bytes, again: bool = False) -> None:
        record = unpack(data).record
        if isinstance(record, Average) and self.breaks("withhold"):
            self.withheld.add(record.digest)  # says that it has averaged, and hands nothing out
        super().publish(data, again)

    async def push_parts(self, account: Account, parts: Sequence[tuple[bytes, bytes]], timeout: float) -> None:
        if self.breaks("hash"):
            parts = [(header, bytes((payload[0] ^ 1,)) + payload[1:]) for header, payload in parts]
        elif self.breaks("length"):
            parts = [(header, payload[:-1]) for header, payload in parts]
        elif self.breaks("deadline"):
            await asyncio.sleep(LATE_SECONDS)
        await super().push_parts(account, parts, timeout)


class HostileTrainer(Trainer):
    """Commits to what breaks a rule: its record, its leaves and its bytes agree with each other."""

    async def boundary(self, prev_certificate: Hash, seconds: float) -> Boundary | None:
        made = await super().boundary(prev_certificate, seconds)
        if made is None:
            return None
        parts, norms = list(made.parts), [leaf.squared_norm for leaf in made.leaves]
        if HostileNetwork.breaks("parts"):
            parts, norms = parts[:-1], norms[:-1]
        elif HostileNetwork.breaks("shape"):
            parts = [part[: len(part) // 2] for part in parts]
        elif HostileNetwork.breaks("dtype"):
            parts = [part[:-1] + b"\x80" for part in parts]  # −128 is no code of int8
        elif HostileNetwork.breaks("finite"):
            parts = [b"\x00\x7c" + part[2:] for part in parts]  # the first scale is infinite
        elif HostileNetwork.breaks("norm"):
            norms = [norm / 4 for norm in norms]
        if HostileNetwork.breaks("hash", "length", "deadline"):
            HostileNetwork.withheld.update(sha256(part) for part in parts)
        leaves = [PartLeaf(i, len(p), sha256(p), n) for i, (p, n) in enumerate(zip(parts, norms, strict=True))]
        return replace(made, parts=tuple(parts), leaves=tuple(leaves))


class HostilePeer(Peer):
    network_type = HostileNetwork
    trainer_type = HostileTrainer

    def __init__(self, *arguments: Any) -> None:
        honest = Reception.check  # of its own contribution it would find what is wrong, too
        Reception.check = lambda *r: None if HostileNetwork.breaks("parts") else honest(*r)  # type: ignore[method-assign]
        super().__init__(*arguments)


class ThinkingPeer(FaultyPeer):
    """A seed to which evaluating an anchor takes a minute."""

    def emit(self, event: events.Event) -> None:
        super().emit(event)
        if isinstance(event, events.Ready):
            CausalLMTask.evaluate = lambda *_: time.sleep(60.0) or 0.0  # type: ignore[method-assign]


PEERS: dict[str, type[Peer]] = {
    "peer": Peer,
    "faulty": FaultyPeer,
    "hostile": HostilePeer,
    "thinking": ThinkingPeer,
}


def peer_kind(name: str) -> type[Peer] | None:
    """One of `PEERS`, or a class as "module:Class"; None: `name` is a command."""
    if ":" in name:
        module, kind = name.split(":")
        found = getattr(importlib.import_module(module), kind)
        assert issubclass(found, Peer)
        return found
    return PEERS.get(name)


def _child(order: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(order["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1)  # where is it? for a test that waits in vain
    argv = order["argv"]
    sys.argv = ["sparehive", *argv]
    kind = peer_kind(argv[0])
    if kind is not None:
        sys.argv = ["peers.peer", *argv[1:]]
        FaultyNetwork.script = Path(order["script"])
        FaultyNetwork.seen = Path(argv[2]) / "seen.txt"
        HostileNetwork.attack = Path(argv[2]) / "attack"
        peer_main(kind)
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

    from tests.faults import runner  # by its own name: hostile peers elsewhere build on these very classes

    runner.serve()
